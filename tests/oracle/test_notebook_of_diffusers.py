"""A notebook written for diffusers, run once as it is and once with the import changed: the calls that diffusers' guide
to Marigold makes for depth, normals, intrinsic images, LCM, ensembles and frames of a video. Only the import and the
places of the checkpoints differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marigold_c as mc

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

NOTEBOOK = """
import numpy as np
import torch
from PIL import Image

device = "cpu"
image = Image.open(PHOTO)

# Depth, its picture and its 16 bits
pipe = library.MarigoldDepthPipeline.from_pretrained(DEPTH, variant="fp16", torch_dtype=torch.float32).to(device)
pipe.set_progress_bar_config(disable=True)
depth = pipe(image, generator=torch.Generator(device=device).manual_seed(2024))
results["depth"] = depth.prediction
results["depth picture"] = pipe.image_processor.visualize_depth(depth.prediction)[0]
results["binary picture"] = pipe.image_processor.visualize_depth(depth.prediction, color_map="binary")[0]

# The same generator goes on; fewer or more steps; another resolution
generator = torch.Generator(device).manual_seed(1)
results["four steps"] = pipe(image, num_inference_steps=4, generator=generator).prediction
results["native"] = pipe(image, processing_resolution=0, generator=generator).prediction
results["not resized"] = pipe(image, match_input_resolution=False, generator=generator)[0]
prediction, uncertainty, latent = pipe([image, image], batch_size=2, generator=generator, return_dict=False)
results["two at once"] = prediction
assert uncertainty is None and latent is None

# Another scheduler
pipe.scheduler = library.LCMScheduler.from_config(pipe.scheduler.config)
results["lcm"] = pipe(image, num_inference_steps=2, generator=generator).prediction
pipe.scheduler = library.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
results["ddim again"] = pipe(image, generator=generator).prediction

# Frames of a video: common noise and the latent of the frame before
size = image.size
latent_common = torch.randn(
    (1, 4, 128 * size[1] // (8 * max(size)), 128 * size[0] // (8 * max(size))), generator=generator
).to(device=device, dtype=torch.float32)
last_frame_latent = None
for index, frame in enumerate([image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), image]):
    latents = latent_common
    if last_frame_latent is not None:
        latents = 0.9 * latents + 0.1 * last_frame_latent
    depth = pipe(frame, num_inference_steps=1, match_input_resolution=False, latents=latents, output_latent=True)
    last_frame_latent = depth.latent
    results[f"frame {index}"] = depth.prediction

# Normals, with an ensemble and its uncertainty
pipe = library.MarigoldNormalsPipeline.from_pretrained(NORMALS, torch_dtype=torch.float32).to(device)
pipe.set_progress_bar_config(disable=True)
normals = pipe(image, generator=generator)
results["normals"] = normals.prediction
results["normals picture"] = pipe.image_processor.visualize_normals(normals.prediction)[0]
out = pipe(
    image,
    num_inference_steps=1,
    ensemble_size=5,
    batch_size=2,
    ensembling_kwargs={"reduction": "mean"},
    output_uncertainty=True,
    generator=generator,
)
results["normals of five"] = out.prediction
results["uncertainty of five"] = out.uncertainty
results["uncertainty picture"] = pipe.image_processor.visualize_uncertainty(out.uncertainty)[0]

# Intrinsic images
pipe = library.MarigoldIntrinsicsPipeline.from_pretrained(INTRINSICS, torch_dtype=torch.float32).to(device)
pipe.set_progress_bar_config(disable=True)
intrinsics = pipe(image, generator=generator)
results["intrinsics"] = intrinsics.prediction
pictures = pipe.image_processor.visualize_intrinsics(intrinsics.prediction, pipe.target_properties)
results["albedo picture"] = pictures[0]["albedo"]
results["shading picture"] = pictures[0]["shading"]
out = pipe(image, ensemble_size=3, output_uncertainty=True, output_type="pt", generator=generator)
results["intrinsics of three"] = out.prediction
results["intrinsics' uncertainty"] = out.uncertainty
"""


def run(library: Any) -> dict[str, Any]:
    results: dict[str, Any] = {}
    names = {"DEPTH": "depth", "NORMALS": "normals", "INTRINSICS": "intrinsics"}
    checkpoints = {name: str(mc.default_checkpoint(task)) for name, task in names.items()}
    photo = Path(__file__).parent.parent / "data" / "scene0.png"
    exec(compile(NOTEBOOK, "notebook", "exec"), {"library": library, "results": results, "PHOTO": photo, **checkpoints})
    return results


def test_the_same_results_after_changing_the_import() -> None:
    torch.set_num_threads(1)
    wanted, got = run(diffusers), run(mc)
    assert list(got) == list(wanted)
    for name, reference in wanted.items():
        if isinstance(reference, Image.Image):
            assert (got[name].mode, got[name].size) == (reference.mode, reference.size), name
            difference = np.abs(np.asarray(got[name], np.int32) - np.asarray(reference, np.int32))
            assert np.quantile(difference, 0.99) <= 1, name
            continue
        assert type(got[name]) is type(reference), name
        assert got[name].shape == reference.shape, name
        difference = np.abs(np.asarray(got[name]) - np.asarray(reference))
        assert np.quantile(difference, 0.995) <= 1e-3, name

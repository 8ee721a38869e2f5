"""Marigold-HR (arXiv 2505.09358) against a reference that is put together here from diffusers' base pipeline, networks
and schedulers: the second UNet over tiles, their outputs blended in every step. A reference with one thing wrong must
be told from ours: the same comparison would notice if ours had it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import hr_checkpoints as hr
import numpy as np
import pytest
from PIL import Image

import marigold_c as mc

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
scipy_ndimage = pytest.importorskip("scipy.ndimage")

RESOLUTION, FACTOR, STEPS = 64, 2, 2
SEED = 7
PICTURE = Image.fromarray(hr.IMAGE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hr.make(tmp_path_factory.mktemp("hr") / "marigold-depth-hr-v1-1")


def border_distance(h: int, w: int) -> Any:
    """Of each cell of a tile to what is outside of it, in cells."""
    inside = np.pad(np.ones((h, w)), 1)
    return scipy_ndimage.distance_transform_cdt(inside, "chessboard")[1:-1, 1:-1]


def flat(h: int, w: int) -> Any:
    return np.ones((h, w))


def starts(length: int, tile: int, overlap: int) -> list[int]:
    last = max(0, length - tile)
    return [*range(0, last, tile - overlap), last]


@dataclass(frozen=True)
class Reference:
    """Sizes in latent cells. order: of the second UNet's latents."""

    tile: int = 1000
    overlap: int = 0
    weights: Callable[[int, int], Any] = border_distance
    order: tuple[str, ...] = ("image", "coarse", "sample")
    once: bool = False  # each tile goes through all steps by itself, and only the results are blended
    scheduler: str = "DDIMScheduler"


@cache
def networks(folder: Path) -> tuple[Any, Any, Any]:
    torch.set_num_threads(1)
    base = diffusers.MarigoldDepthPipeline.from_pretrained(mc.default_checkpoint("depth"), variant="fp16")
    base.set_progress_bar_config(disable=True)
    second = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="boosting_unet")
    base(PICTURE, num_inference_steps=1, processing_resolution=RESOLUTION)  # embeds the empty prompt
    return base, second, base.empty_text_embedding


def noise_of(seed: int, members: int, fine_members: int, shapes: list[tuple[int, int]]) -> list[Any]:
    """What one generator draws: first for the base prediction, then a canvas for each member of the refinement."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(count, 4, *shape, generator=generator)
        for count, shape in zip((members, fine_members), shapes, strict=True)
    ]


def refined(recipe: Reference, folder: Path, steps: int = STEPS) -> tuple[Any, Any, Any]:
    """The reference's prediction (H, W), base prediction as enlarged, and latent, of hr.IMAGE."""
    base, second, text = networks(folder)
    kind = getattr(diffusers, recipe.scheduler)
    base.scheduler = kind.from_pretrained(folder, subfolder="scheduler")
    base_noise, canvas = noise_of(SEED, 1, 1, [(6, 8), (11, 16)])
    coarse = base(
        PICTURE,
        num_inference_steps=1,
        processing_resolution=RESOLUTION,
        match_input_resolution=False,
        latents=base_noise,
        output_type="pt",
    ).prediction
    image, padding, _ = base.image_processor.preprocess(PICTURE, RESOLUTION * FACTOR, "bilinear")
    h, w = image.shape[2] - padding[0], image.shape[3] - padding[1]
    enlarged = torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear")
    padded = torch.nn.functional.pad(enlarged, (0, padding[1], 0, padding[0]), mode="replicate")
    scale = base.vae.config.scaling_factor
    with torch.no_grad():
        latents = {
            "image": base.vae.encode(image).latent_dist.mean * scale,
            "coarse": base.vae.encode((padded * 2 - 1).repeat(1, 3, 1, 1)).latent_dist.mean * scale,
        }
        sample = denoised(recipe, second, text, latents, canvas, base.scheduler, steps)
        decoded = base.vae.decode(sample / scale).sample
    depth = (decoded.mean(1, keepdim=True).clip(-1, 1) + 1) / 2
    depth = torch.nn.functional.interpolate(depth[:, :, :h, :w], hr.IMAGE.shape[:2], mode="bilinear")
    return depth[0, 0].numpy(), coarse, sample.numpy()


def denoised(recipe: Reference, second: Any, text: Any, latents: Any, canvas: Any, scheduler: Any, steps: int) -> Any:
    h, w = canvas.shape[2:]
    tile_h, tile_w = min(recipe.tile, h), min(recipe.tile, w)
    weight = torch.from_numpy(recipe.weights(tile_h, tile_w).astype(np.float32))
    places = [
        (slice(y, y + tile_h), slice(x, x + tile_w))
        for y in starts(h, recipe.tile, recipe.overlap)
        for x in starts(w, recipe.tile, recipe.overlap)
    ]

    def output_of(sample: Any, timestep: Any, ys: slice, xs: slice) -> Any:
        seen = {**latents, "sample": sample}
        stacked = torch.cat([seen[name][:, :, ys, xs] for name in recipe.order], 1)
        return second(stacked, timestep, encoder_hidden_states=text).sample

    def blend(parts: list[Any]) -> Any:
        total, sums = torch.zeros_like(canvas), torch.zeros(h, w)
        for (ys, xs), part in zip(places, parts, strict=True):
            total[:, :, ys, xs] += part * weight
            sums[ys, xs] += weight
        return total / sums

    scheduler.set_timesteps(steps)
    if recipe.once:
        results = []
        for ys, xs in places:
            whole = canvas.clone()
            scheduler.set_timesteps(steps)
            for timestep in scheduler.timesteps:
                part = torch.zeros_like(canvas)
                part[:, :, ys, xs] = output_of(whole, timestep, ys, xs)
                whole = scheduler.step(part, timestep, whole).prev_sample
            results.append(whole[:, :, ys, xs])
        return blend(results)
    sample = canvas
    for timestep in scheduler.timesteps:
        output = blend([output_of(sample, timestep, ys, xs) for ys, xs in places])
        sample = scheduler.step(output, timestep, sample).prev_sample
    return sample


def ours(folder: Path, **options: Any) -> mc.MarigoldDepthHROutput:
    inputs = options.pop("boosting_inputs", None)
    scheduler = options.pop("scheduler", None)
    pipe = mc.MarigoldDepthHRPipeline.from_pretrained(folder, boosting_inputs=inputs)
    if scheduler is not None:
        pipe.scheduler = getattr(mc, scheduler).from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    few = {"num_inference_steps": 1, "ensemble_size": 1, "boosted_num_inference_steps": STEPS}
    settings = {**few, "boosted_ensemble_size": 1, "processing_resolution": RESOLUTION, "upscale_factor": FACTOR}
    return pipe(hr.IMAGE, **{**settings, "generator": SEED, "output_latent": True, **options})


CASES = {
    "one tile": (Reference(), {"tile_size": 512}),
    "two columns": (Reference(tile=12, overlap=6), {"tile_size": 96}),
    "rows and columns": (Reference(tile=6, overlap=2), {"tile_size": 48, "tile_overlap": 16}),
    "no overlap": (Reference(tile=6, overlap=0), {"tile_size": 48, "tile_overlap": 0}),
    "another order": (
        Reference(tile=8, overlap=4, order=("sample", "coarse", "image")),
        {"tile_size": 64, "boosting_inputs": "sample,coarse,image"},
    ),
    "Euler": (
        Reference(tile=8, overlap=4, scheduler="EulerDiscreteScheduler"),
        {"tile_size": 64, "scheduler": "EulerDiscreteScheduler"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_depth_is_that_of_the_reference(case: str, folder: Path) -> None:
    recipe, options = CASES[case]
    expected, _, latent = refined(recipe, folder)
    got = ours(folder, **options)
    assert got.latent is not None
    assert np.abs(got.latent - latent).max() <= 1e-4 * np.abs(latent).max()
    assert np.abs(got.prediction[0, :, :, 0] - expected).max() <= 1e-4


WRONG = {
    "flat weights": replace(CASES["rows and columns"][0], weights=flat),
    "another overlap": replace(CASES["rows and columns"][0], overlap=3),
    "blended at the end": replace(CASES["rows and columns"][0], once=True),
    "another order": replace(CASES["rows and columns"][0], order=("coarse", "image", "sample")),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_reference_that_is_wrong_is_told_from_ours(case: str, folder: Path) -> None:
    right, _, right_latent = refined(CASES["rows and columns"][0], folder)
    wrong, _, latent = refined(WRONG[case], folder)
    assert np.abs(wrong - right).max() > 1e-3
    assert np.abs(latent - right_latent).max() > 1e-3 * np.abs(right_latent).max()

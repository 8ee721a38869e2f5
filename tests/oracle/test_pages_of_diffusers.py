"""The code blocks of diffusers' documentation of Marigold (docs/source/en/api/pipelines/marigold.md), call by call.

Each block is run with marigold_c in the place of diffusers, and beside diffusers where its noise has a seed. The names
of checkpoints are folders of the working directory with the shipped ones; the photograph at the URL is one of the
tests'; a video is a list of frames. Where a block says "cuda", it runs there, or raises DeviceError; then it is run on
the CPU, in float16 as it says, which is computed as bfloat16.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from oracle_repositories import APPEARANCE, make_repository
from PIL import Image

import marigold_c as mc
from marigold_c.images import locations

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

PHOTO = Path(__file__).parents[1] / "data" / "scene0.png"
URL = "https://marigoldmonodepth.github.io/images/einstein.jpg"
DEPTH = """
pipe = diffusers.MarigoldDepthPipeline.from_pretrained(
    "prs-eth/marigold-depth-v1-1", variant="fp16", dtype=torch.float16
).to(device)
image = diffusers.utils.load_image(URL)
"""
INTRINSICS = """
pipe = diffusers.MarigoldIntrinsicsPipeline.from_pretrained("prs-eth/marigold-iid-{kind}-v1-1", variant="fp16",
    dtype=torch.float16).to(device)
image = diffusers.utils.load_image(URL)
out = pipe(image)
pictures = pipe.image_processor.visualize_intrinsics(out.prediction, pipe.target_properties)
for name in {names}:
    pictures[0][name].save(f"einstein_{{name}}.png")
"""
TINY = 'pipe.vae = diffusers.AutoencoderTiny.from_pretrained("madebyollin/taesd", dtype=torch.float16)'
ATTENTION = """
from diffusers.models.attention_processor import AttnProcessor2_0
pipe.vae.set_attn_processor(AttnProcessor2_0())
pipe.unet.set_attn_processor(AttnProcessor2_0())
"""
COMPILED = """
pipe.vae = torch.compile(pipe.vae, mode="reduce-overhead", fullgraph=True)
pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead", fullgraph=True)
"""

# By name: the block, and the files that it writes.
BLOCKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "depth": (
        DEPTH
        + """
out = pipe(image)
pipe.image_processor.visualize_depth(out.prediction)[0].save("depth.png")
pipe.image_processor.export_depth_to_16bit_png(out.prediction)[0].save("depth_16bit.png")
""",
        ("depth.png", "depth_16bit.png"),
    ),
    "normals": (
        """
pipe = diffusers.MarigoldNormalsPipeline.from_pretrained(
    "prs-eth/marigold-normals-v1-1", variant="fp16", dtype=torch.float16
).to(device)
image = diffusers.utils.load_image(URL)
out = pipe(image)
pipe.image_processor.visualize_normals(out.prediction)[0].save("normals.png")
""",
        ("normals.png",),
    ),
    "appearance": (
        INTRINSICS.format(kind="appearance", names=("albedo", "roughness", "metallicity")),
        ("einstein_albedo.png", "einstein_roughness.png", "einstein_metallicity.png"),
    ),
    "lighting": (
        INTRINSICS.format(kind="lighting", names=("albedo", "shading", "residual")),
        ("einstein_albedo.png", "einstein_shading.png", "einstein_residual.png"),
    ),
    "one step": (DEPTH + "out = pipe(image, num_inference_steps=1)", ()),
    "tiny autoencoder": (DEPTH + TINY + ".cuda()\nout = pipe(image, num_inference_steps=1)", ()),
    "attention": (DEPTH + ATTENTION + "out = pipe(image, num_inference_steps=1)", ()),
    "compiled": (DEPTH + ATTENTION + COMPILED + "out = pipe(image, num_inference_steps=1)", ()),
    "ensemble": (
        """
pipe = diffusers.MarigoldNormalsPipeline.from_pretrained("prs-eth/marigold-normals-v1-1").to(device)
image = diffusers.utils.load_image(URL)
out = pipe(image, num_inference_steps=10, ensemble_size=5)
pipe.image_processor.visualize_normals(out.prediction)[0].save("normals.png")
""",
        ("normals.png",),
    ),
    "video": (
        DEPTH
        + TINY
        + ".to(device)\n"
        + ATTENTION.replace("pipe.vae.set", "pipe.unet.set")
        + COMPILED
        + """
pipe.set_progress_bar_config(disable=True)
torch.manual_seed(0)
size, last, pictures = image.size, None, []
common = torch.randn((1, 4, 128 * size[1] // (8 * max(size)), 128 * size[0] // (8 * max(size)))).to(
    device=device, dtype=torch.float16)
for frame in (image, image):
    latents = common if last is None else 0.9 * common + 0.1 * torch.as_tensor(last)
    out = pipe(frame, num_inference_steps=1, match_input_resolution=False, latents=latents, output_latent=True)
    last = out.latent
    pictures.append(pipe.image_processor.visualize_depth(out.prediction)[0])
diffusers.utils.export_to_gif(pictures, "depth.gif", fps=25)
""",
        ("depth.gif",),
    ),
    "for ControlNet": (
        DEPTH
        + """
generator = torch.Generator(device=device).manual_seed(2024)
out = pipe(image, generator=generator)
depth_image = pipe.image_processor.visualize_depth(out.prediction, color_map="binary")
depth_image[0].save("controlnet_depth.png")
""",
        ("controlnet_depth.png",),
    ),
    "protocol of the paper": (
        """
pipe = diffusers.MarigoldDepthPipeline.from_pretrained("prs-eth/marigold-depth-v1-1").to(device)
image = diffusers.utils.load_image(URL)
generator = torch.Generator(device=device).manual_seed(2024)
out = pipe(image, num_inference_steps=4, ensemble_size=10, generator=generator)
""",
        (),
    ),
    "uncertainty": (
        DEPTH
        + """
out = pipe(image, ensemble_size=10, output_uncertainty=True)
pipe.image_processor.visualize_uncertainty(out.uncertainty)[0].save("uncertainty.png")
""",
        ("uncertainty.png",),
    ),
}
# Largest difference of 99 of 100 values; depth in [0, 1]: bfloat16 beside float32.
TOLERANCE = {"video": 0.1, "for ControlNet": 0.1}


def make_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`folder` as working directory, with folders that have the names of the hub's repositories."""
    monkeypatch.chdir(folder)
    names = {"depth": "depth", "normals": "normals", "iid-lighting": "iid", "iid-appearance": "iid"}
    for name, task in names.items():
        properties = APPEARANCE if name == "iid-appearance" else None
        make_repository(folder / "prs-eth" / f"marigold-{name}-v1-1", task, properties)
    torch.manual_seed(0)
    diffusers.AutoencoderTiny(scaling_factor=0.7).save_pretrained(folder / "madebyollin" / "taesd")
    monkeypatch.setattr(locations, "_download", lambda url: {URL: PHOTO.read_bytes()}[url])
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_hub(tmp_path, monkeypatch)


def run(name: str, library: Any, device: str, tensors: Any = torch) -> Any:
    """The block's last output."""
    space: dict[str, Any] = {"diffusers": library, "torch": tensors, "URL": URL, "device": device}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that float16 and attention are not as asked: tests/test_drop_in.py
        exec(compile(BLOCKS[name][0], name, "exec"), space)
    return space["out"]


@pytest.mark.parametrize("name", BLOCKS)
def test_on_a_gpu(name: str, hub: Path) -> None:
    try:
        assert run(name, mc, "cuda").prediction.dtype == np.float32
    except mc.DeviceError as error:
        assert 'device "cuda"' in str(error)


@pytest.mark.parametrize("name", BLOCKS)
def test_on_the_cpu(name: str, hub: Path) -> None:
    out = run(name, mc, "cpu")
    assert np.isfinite(out.prediction).all()
    with Image.open(PHOTO) as photo:
        width, height = photo.size
    if name != "video":
        assert out.prediction.shape[1:3] == (height, width)
    for file in BLOCKS[name][1]:
        with Image.open(hub / file) as image:
            assert image.size == out.prediction.shape[2:0:-1]


class UncompiledFloat32:
    """torch, its float16 as float32, which a CPU computes."""

    float16 = torch.float32

    @staticmethod
    def compile(network: Any, **_options: Any) -> Any:
        return network

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class WithPhotograph:
    """diffusers with the photograph of the tests."""

    def __init__(self) -> None:
        self.utils = SimpleNamespace(
            load_image=lambda url: Image.open(PHOTO).convert("RGB"), export_to_gif=diffusers.utils.export_to_gif
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(diffusers, name)


@pytest.mark.parametrize("name", TOLERANCE)
def test_beside_diffusers(name: str, hub: Path) -> None:
    got = run(name, mc, "cpu").prediction
    torch.set_num_threads(1)
    wanted = run(name, WithPhotograph(), "cpu", UncompiledFloat32()).prediction
    assert got.shape == wanted.shape
    assert np.quantile(np.abs(got - wanted), 0.99) <= TOLERANCE[name]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The ten members of the paper's protocol in diffusers, (10, 1, H, W), before they are merged."""
    seen = []

    def first(depth: Any, *_options: Any) -> tuple[Any, None]:
        seen.append(depth.clone())
        return depth[:1], None

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        make_hub(tmp_path_factory.mktemp("hub"), patch)
        patch.setattr(diffusers.MarigoldDepthPipeline, "ensemble_depth", staticmethod(first))
        run("protocol of the paper", WithPhotograph(), "cpu", UncompiledFloat32())
    assert seen[0].shape[:2] == (10, 1)
    return seen[0].numpy()


# diffusers' solver of ensembles stops where float32 rounds: its own result moves by hundredths with the last bit of a
# member (tests/oracle/test_ensembling.py compares the solvers). So members and merging are compared apart.


def test_members_of_the_papers_protocol(hub: Path, members: Any) -> None:
    with Image.open(PHOTO) as photo:
        image = photo.convert("RGB")
    latents = torch.randn((10, 4, image.height // 8, image.width // 8), generator=torch.Generator().manual_seed(2024))
    pipe = mc.MarigoldDepthPipeline.from_pretrained("prs-eth/marigold-depth-v1-1")
    ours = np.stack(
        [pipe(image, num_inference_steps=4, latents=one[None]).prediction[0, None, :, :, 0] for one in latents]
    )
    np.testing.assert_allclose(ours, members, rtol=0, atol=1e-5)
    reference = {"solver": "reference"}
    merged = pipe(
        image, num_inference_steps=4, ensemble_size=10, latents=latents, ensembling_kwargs=reference
    ).prediction
    np.testing.assert_array_equal(merged[:, None, :, :, 0], mc.ensemble_depth(ours, **reference)[0])


def test_the_papers_protocol_merges_these_members(hub: Path, members: Any) -> None:
    got = run("protocol of the paper", mc, "cpu").prediction
    np.testing.assert_allclose(got[:, None, :, :, 0], mc.ensemble_depth(members)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("reduction", ["median", "mean"])
def test_merging_these_members(reduction: str, members: Any) -> None:
    """Each in a range of its own, aligned by it: a tolerance with which the solver is content with its start."""
    random = np.random.default_rng(5)
    scale, shift = (random.uniform(low, high, (10, 1, 1, 1)) for low, high in ((0.5, 2), (-1, 1)))
    depth = (members * scale + shift).astype(np.float32)
    options: dict[str, Any] = {"output_uncertainty": True, "reduction": reduction, "tol": 1e9}
    theirs = diffusers.MarigoldDepthPipeline.ensemble_depth(torch.from_numpy(depth), **options)
    for x, y in zip(mc.ensemble_depth(depth, solver="reference", **options), theirs, strict=True):
        assert np.ptp(x) > 0.1
        np.testing.assert_allclose(x, y.numpy(), rtol=0, atol=2e-6)


def test_what_is_not_of_marigold_stays_with_diffusers() -> None:
    with pytest.raises(AttributeError, match=r"ControlNetModel.*stays with diffusers"):
        _ = mc.ControlNetModel
    assert not hasattr(mc, "StableDiffusionXLControlNetPipeline")

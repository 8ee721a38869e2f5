"""Checkpoints of other families than Marigold's against references that are put together here from diffusers' own
networks, as their authors' scripts do: E2E-FT (arXiv 2409.11355), Lotus (2409.18124), GenPercept (2403.06090). A
reference with one thing wrong must be told from ours: the same comparison would notice if ours had it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import family_checkpoints as families
import numpy as np
import pytest

import marigold_c as mc

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

RESOLUTION, SEED = 64, 11


@dataclass(frozen=True)
class Reference:
    """One family's recipe. `inputs`: what the UNet sees; `clean`: its output to the clean latent."""

    inputs: Callable[[Any, Any], list[Any]]
    timestep: int
    clean: Callable[[Any, Any], Any]
    finish: Callable[[Any], Any]
    start: Callable[[Any], Any] = torch.zeros_like
    labels: tuple[float, ...] = ()
    tokens: int = 2


def _noise(latent: Any) -> Any:
    return torch.randn(latent.shape, generator=torch.Generator().manual_seed(SEED))


def _ddim(folder: Path) -> Callable[[Any, Any], Any]:
    """One step of diffusers' DDIM from zeros, trailing: what E2E-FT's script makes of any checkpoint's scheduler."""

    def clean(output: Any, sample: Any) -> Any:
        scheduler = diffusers.DDIMScheduler.from_pretrained(
            folder, subfolder="scheduler", timestep_spacing="trailing", clip_sample=False
        )
        scheduler.set_timesteps(1)
        assert scheduler.timesteps.tolist() == [999]
        return scheduler.step(output, scheduler.timesteps[0], sample).prev_sample

    return clean


def _stretched(decoded: Any) -> Any:
    depth = decoded.mean(1, keepdim=True)
    return (depth - depth.min()) / (depth.max() - depth.min())


def _stretched_depth(decoded: Any) -> Any:
    return _stretched(decoded.mean(1, keepdim=True).clip(-1, 1))


def _depth(decoded: Any) -> Any:
    return (decoded.mean(1, keepdim=True).clip(-1, 1) + 1) / 2


def _depth_of_clipped(decoded: Any) -> Any:
    return (decoded / 2 + 0.5).clip(0, 1).mean(1, keepdim=True)


def _unit(vectors: Any) -> Any:
    return vectors / vectors.norm(dim=1, keepdim=True)


def _lotus(inputs: Callable[[Any, Any], list[Any]], finish: Callable[[Any], Any], start: Any) -> Reference:
    task = torch.tensor([1.0, 0.0])
    labels = tuple(torch.cat([task.sin(), task.cos()]).tolist())
    return Reference(inputs, 999, lambda output, _sample: output, finish, start, labels)


def _both(image: Any, sample: Any) -> list[Any]:
    return [image, sample]


def _alone(image: Any, _sample: Any) -> list[Any]:
    return [image]


def reference_of(name: str, folder: Path) -> Reference:
    if name.startswith("e2e-ft"):
        finish = _unit if "normals" in name else _stretched_depth
        return Reference(_both, 999, _ddim(folder), finish)
    if name == "rollingdepth":
        return Reference(_both, 999, _ddim(folder), _stretched, _noise)
    if name.startswith("lotus-d"):
        finish = (lambda x: _unit(x.clip(-1, 1))) if "normals" in name else _depth_of_clipped
        return _lotus(_alone, finish, torch.zeros_like)
    if name.startswith("lotus-g"):
        return _lotus(_both, _depth_of_clipped, _noise)
    finish = (lambda x: _unit(x.clip(-1, 1))) if "normals" in name else _depth
    return Reference(_alone, 1, lambda output, _sample: -output, finish)


@cache
def networks(folder: Path, unet: Path | None) -> tuple[Any, Any, Any]:
    torch.set_num_threads(1)
    where = {"subfolder": "unet"} if unet is None else {}
    return (
        diffusers.UNet2DConditionModel.from_pretrained(unet or folder, **where),
        diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae"),
        transformers.CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
    )


def text_of(folder: Path, encoder: Any, tokens: int) -> Any:
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    padding = {"padding": "do_not_pad"} if tokens == 2 else {"padding": "max_length", "max_length": tokens}
    ids = tokenizer("", return_tensors="pt", truncation=True, **padding).input_ids
    assert ids.shape == (1, tokens)
    return encoder(ids)[0]


@torch.no_grad()
def predict(recipe: Reference, folder: Path, unet_folder: Path | None) -> Any:
    """(H, W, C) at the processing resolution, without padding."""
    unet, vae, encoder = networks(folder, unet_folder)
    pixels = torch.from_numpy(families.IMAGE.astype(np.float32) / 255).permute(2, 0, 1)[None]
    height, width = (side * RESOLUTION // max(families.IMAGE.shape[:2]) for side in families.IMAGE.shape[:2])
    x = torch.nn.functional.interpolate(pixels * 2 - 1, (height, width), mode="bilinear", antialias=True)
    x = torch.nn.functional.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
    scale = vae.config.scaling_factor
    image = vae.encode(x).latent_dist.mode() * scale
    sample = recipe.start(image)
    labels = torch.tensor([recipe.labels]) if recipe.labels else None
    output = unet(
        torch.cat(recipe.inputs(image, sample), 1),
        recipe.timestep,
        text_of(folder, encoder, recipe.tokens),
        class_labels=labels,
    ).sample
    decoded = vae.decode(recipe.clean(output, sample) / scale).sample[:, :, :height, :width]
    return recipe.finish(decoded)[0].permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    return cache(lambda name: families.make(name, tmp_path_factory.mktemp("families")))


def ours(folder: Path, needed: dict[str, Any], **options: Any) -> Any:
    pipe = mc.load(folder, num_threads=1, **needed, **options)
    pipe.set_progress_bar_config(disable=True)
    seeds = {"generator": SEED} if pipe.family in ("lotus-g", "rollingdepth") else {}
    return pipe(families.IMAGE, processing_resolution=RESOLUTION, match_input_resolution=False, **seeds).prediction[0]


def difference(found: Any, wanted: Any) -> float:
    """The largest; of normals where their length before was not nearly nothing: 99.9 of 100."""
    assert found.shape == wanted.shape
    errors = np.abs(found - wanted)
    return float(errors.max() if found.shape[-1] == 1 else np.quantile(errors, 0.999))


@pytest.mark.filterwarnings("ignore:checkpoints of genpercept")
@pytest.mark.parametrize("name", families.LAYOUTS)
def test_parity(name: str, checkpoints: Callable[[str], tuple[Path, dict[str, Any]]]) -> None:
    folder, needed = checkpoints(name)
    found, wanted = ours(folder, needed), predict(reference_of(name, folder), folder, needed.get("unet"))
    assert difference(found, wanted) <= 1e-4
    assert np.ptp(found) > 0.1  # it says something


@pytest.mark.filterwarnings("ignore:checkpoints of genpercept")
@pytest.mark.parametrize(
    "name", ["e2e-ft, Stable Diffusion", "e2e-ft, normals", "lotus-d, normals", "lotus-g", "genpercept", "rollingdepth"]
)
def test_values_beyond_the_range(name: str, tmp_path: Path) -> None:
    """The decoder's last convolution is four times as large, so that what is clipped, and before what, shows."""
    folder, needed = families.make(name, tmp_path)
    (file,) = (folder / "vae").glob("*.safetensors")
    last = {f"decoder.conv_out.{part}" for part in ("weight", "bias")}
    save_file({key: 4 * value if key in last else value for key, value in load_file(file).items()}, file)
    recipe, unet = reference_of(name, folder), needed.get("unet")
    decoded = predict(replace(recipe, finish=lambda decoded: decoded), folder, unet)
    assert 0.1 < np.mean(np.abs(decoded) > 1) < 0.9
    found = ours(folder, needed)
    assert difference(found, predict(recipe, folder, unet)) <= 2e-4
    assert np.ptp(found) > 0.1


@pytest.mark.parametrize("name", ["e2e-ft, Stable Diffusion", "lotus-d"])
def test_padded_prompts(name: str, checkpoints: Callable[[str], tuple[Path, dict[str, Any]]]) -> None:
    folder, needed = checkpoints(name)
    recipe = replace(reference_of(name, folder), tokens=77)
    assert difference(ours(folder, needed, text_tokens=77), predict(recipe, folder, None)) <= 1e-4


def _swapped(recipe: Reference) -> Reference:
    return replace(recipe, inputs=lambda image, sample: recipe.inputs(image, sample)[::-1])


def _negated(recipe: Reference) -> Reference:
    return replace(recipe, clean=lambda output, sample: -recipe.clean(output, sample))


WRONG: dict[str, tuple[Callable[[Reference], Reference], tuple[str, ...]]] = {
    "order": (_swapped, ("e2e-ft, Stable Diffusion", "lotus-g")),
    "sign": (_negated, ("e2e-ft, Stable Diffusion", "lotus-d", "lotus-g", "genpercept")),
    "task": (lambda r: replace(r, labels=(r.labels[1], r.labels[0], *r.labels[:1:-1])), ("lotus-d", "lotus-g")),
    "tokens": (lambda r: replace(r, tokens=77), ("e2e-ft, Stable Diffusion", "lotus-d", "lotus-g", "genpercept")),
    "time step": (lambda r: replace(r, timestep=1000 - r.timestep), ("lotus-d", "lotus-g", "genpercept")),
    "noise": (lambda r: replace(r, start=lambda x: _noise(x) + 0.1), ("e2e-ft, Stable Diffusion", "lotus-g")),
}


@pytest.mark.filterwarnings("ignore:checkpoints of genpercept")
@pytest.mark.parametrize(("wrong", "name"), [(wrong, name) for wrong, (_, names) in WRONG.items() for name in names])
def test_what_is_wrong_shows(wrong: str, name: str, checkpoints: Callable[[str], tuple[Path, dict[str, Any]]]) -> None:
    folder, needed = checkpoints(name)
    recipe = WRONG[wrong][0](reference_of(name, folder))
    assert difference(ours(folder, needed), predict(recipe, folder, needed.get("unet"))) > 1e-3

"""The autoencoder in tiles against diffusers' AutoencoderKL with enable_tiling, network and pipelines; a reference with
one thing wrong must be told from ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hr_checkpoints as hr
import numpy as np
import pytest

import marigold_c as mc

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pipelines = pytest.importorskip("oracle_pipelines")

TILE = 64  # pixels
# Sizes in latent cells: edges of a tile's part, of whole strides, one cell, and a strip.
SIZES = [(25, 17), (14, 20), (9, 8), (7, 30), (13, 13)]


def tiled(vae: Any, tile: int = TILE, overlap: float = 0.25) -> Any:
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size, vae.tile_overlap_factor = tile, tile // 8, overlap
    return vae


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.set_num_threads(1)
    return tiled(
        diffusers.AutoencoderKL.from_pretrained(mc.default_checkpoint("depth"), subfolder="vae", variant="fp16")
    )


@pytest.fixture(scope="module")
def ours() -> Any:
    pipe = mc.load(mc.default_checkpoint("depth"), num_threads=1)
    pipe.enable_vae_tiling(TILE)
    return pipe.vae


def inputs(cells: tuple[int, int], samples: int = 2) -> tuple[Any, Any]:
    random = np.random.default_rng(3)
    images = random.uniform(-1, 1, (samples, 3, 8 * cells[0], 8 * cells[1])).astype(np.float32)
    return images, random.standard_normal((samples, 4, *cells)).astype(np.float32)


def apart(got: Any, wanted: Any) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@torch.no_grad()
def coded(vae: Any, images: Any, latents: Any) -> tuple[Any, Any]:
    mean = vae.encode(torch.from_numpy(images)).latent_dist.mean
    return mean.numpy(), vae.decode(torch.from_numpy(latents)).sample.numpy()


@pytest.mark.parametrize("cells", SIZES)
def test_tiles_are_those_of_diffusers(cells: tuple[int, int], theirs: Any, ours: Any) -> None:
    images, latents = inputs(cells)
    mean, decoded = coded(theirs, images, latents)
    assert apart(ours.encode(images), mean) <= 1e-4
    assert apart(ours.decode(latents), decoded) <= 1e-4


@pytest.mark.parametrize("wrong", [{"tile": 96}, {"overlap": 0.5}, {"overlap": 0.125}])
def test_other_tiles_are_told_from_ours(wrong: dict[str, Any], theirs: Any, ours: Any) -> None:
    images, latents = inputs(SIZES[0])
    try:
        mean, decoded = coded(tiled(theirs, **wrong), images, latents)
    finally:
        tiled(theirs)
    assert apart(ours.encode(images), mean) > 1e-3
    assert apart(ours.decode(latents), decoded) > 1e-3


@pytest.mark.parametrize("task", pipelines.TASKS)
def test_whole_predictions(task: str) -> None:
    image = pipelines.photo(101, 149)
    other, pipe = pipelines.open_theirs(task), mc.load(mc.default_checkpoint(task), num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    pipe.enable_vae_tiling(TILE)
    try:
        tiled(other.vae)
        wanted = other(
            pipelines.for_diffusers(image), 1, processing_resolution=0, generator=torch.Generator().manual_seed(1)
        ).prediction
    finally:
        other.vae.disable_tiling()
    got = pipe(image, 1, processing_resolution=0, generator=1)
    assert np.quantile(np.abs(got.prediction - wanted), 0.999) <= 2e-4
    pipe.disable_vae_tiling()
    assert np.abs(pipe(image, 1, processing_resolution=0, generator=1).prediction - wanted).max() > 1e-3


def test_high_resolution_codes_in_tiles(tmp_path: Path, theirs: Any) -> None:
    """The refinement's coarse map and latents go through the same tiles."""
    pipe = mc.MarigoldDepthHRPipeline.from_pretrained(hr.make(tmp_path / "hr"), num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    pipe.enable_vae_tiling(TILE)
    options: dict[str, Any] = {"ensemble_size": 1, "boosted_ensemble_size": 1, "processing_resolution": 64}
    out = pipe(
        hr.IMAGE,
        1,
        boosted_num_inference_steps=1,
        generator=1,
        output_latent=True,
        match_input_resolution=False,
        **options,
    )
    with torch.no_grad():
        decoded = theirs.decode(torch.from_numpy(out.latent) / theirs.config.scaling_factor).sample.mean(1).numpy()
    depth = (np.clip(decoded[:, : out.prediction.shape[1]], -1, 1) + 1) / 2
    assert np.abs(out.prediction[0, :, :, 0] - depth[0]).max() <= 1e-4

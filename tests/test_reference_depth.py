"""The pipeline with the shipped checkpoint against stored predictions of diffusers (tools/make_reference_depth.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import marigold_c as mc

REFERENCE = np.load(Path(__file__).parent / "data" / "depth_reference.npz")
NAMES = [str(name) for name in REFERENCE["names"]]
# Float32 sums in another order; each further step feeds the difference back through the network.
TOLERANCE = {1: 1e-4, 4: 5e-4}


@pytest.fixture(scope="module")
def pipe() -> mc.MarigoldDepthPipeline:
    pipeline = mc.load(mc.default_checkpoint("depth"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def options_of(name: str) -> dict[str, Any]:
    names = ("processing_resolution", "resample_method_input", "resample_method_output")
    return {option: REFERENCE[f"{name}/{option}"].item() for option in names if f"{name}/{option}" in REFERENCE}


@pytest.mark.parametrize("steps", TOLERANCE)
@pytest.mark.parametrize("name", NAMES)
def test_same_latents_give_the_prediction_of_diffusers(pipe: mc.MarigoldDepthPipeline, name: str, steps: int) -> None:
    out = pipe(
        REFERENCE[f"{name}/image"],
        num_inference_steps=steps,
        latents=REFERENCE[f"{name}/latents"],
        **options_of(name),
    )
    expected = REFERENCE[f"{name}/prediction_{steps}"]
    assert out.prediction.shape == expected.shape
    assert out.prediction.dtype == np.float32
    assert np.abs(out.prediction - expected).max() <= TOLERANCE[steps]


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_the_prediction_of_diffusers(pipe: mc.MarigoldDepthPipeline, name: str) -> None:
    seed = REFERENCE[f"{name}/seed"].item()
    out = pipe(REFERENCE[f"{name}/image"], num_inference_steps=1, generator=seed, **options_of(name))
    assert np.abs(out.prediction - REFERENCE[f"{name}/prediction_1"]).max() <= TOLERANCE[1]

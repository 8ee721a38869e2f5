"""The pipelines with the shipped checkpoints against stored predictions of diffusers (tools/make_references.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import marigold_c as mc

REFERENCES = {
    task: np.load(Path(__file__).parent / "data" / f"{task}_reference.npz")
    for task in ("depth", "normals", "intrinsics")
}
CASES = [(task, str(name)) for task, reference in REFERENCES.items() for name in reference["names"]]
OPTIONS = (
    *("processing_resolution", "resample_method_input", "resample_method_output"),
    *("ensemble_size", "output_uncertainty"),
)
# Float32 sums in another order; each further step feeds the difference back through the network.
TOLERANCE = {1: 1e-4, 4: 5e-4}
LARGEST_ANGLE = 0.05  # degrees between normals


@pytest.fixture(scope="module")
def pipes() -> dict[str, Any]:
    found = {task: mc.load(mc.default_checkpoint(task)) for task in REFERENCES}
    for pipe in found.values():
        pipe.set_progress_bar_config(disable=True)
    return found


def options_of(task: str, name: str) -> dict[str, Any]:
    stored = REFERENCES[task]
    return {option: stored[f"{name}/{option}"].item() for option in OPTIONS if f"{name}/{option}" in stored}


def check(task: str, name: str, out: Any, steps: int) -> None:
    expected = REFERENCES[task][f"{name}/prediction_{steps}"]
    assert out.prediction.shape == expected.shape
    assert out.prediction.dtype == np.float32
    if task == "normals":
        chord = np.linalg.norm(out.prediction.astype(float) - expected, axis=-1)
        assert np.degrees(2 * np.arcsin(chord / 2)).max() <= LARGEST_ANGLE
    else:
        assert np.abs(out.prediction - expected).max() <= TOLERANCE[steps]
    if f"{name}/uncertainty_{steps}" in REFERENCES[task]:
        spread = REFERENCES[task][f"{name}/uncertainty_{steps}"]
        assert out.uncertainty.shape == spread.shape
        assert np.abs(out.uncertainty - spread).max() <= 2 * TOLERANCE[steps]


@pytest.mark.parametrize("steps", TOLERANCE)
@pytest.mark.parametrize(("task", "name"), CASES)
def test_same_latents_give_the_prediction_of_diffusers(pipes: Any, task: str, name: str, steps: int) -> None:
    image, latents = REFERENCES[task][f"{name}/image"], REFERENCES[task][f"{name}/latents"]
    out = pipes[task](image, num_inference_steps=steps, latents=latents, **options_of(task, name))
    check(task, name, out, steps)


@pytest.mark.parametrize(("task", "name"), CASES)
def test_same_seed_gives_the_prediction_of_diffusers(pipes: Any, task: str, name: str) -> None:
    seed = REFERENCES[task][f"{name}/seed"].item()
    image = REFERENCES[task][f"{name}/image"]
    check(task, name, pipes[task](image, num_inference_steps=1, generator=seed, **options_of(task, name)), 1)

"""Whole pipelines with Euler and DPM-Solver++ in place, live beside diffusers': given latents and drawn ones.

diffusers' Marigold pipelines begin with unit noise and show the network the sample as it is with any scheduler: they
call neither init_noise_sigma nor scale_model_input, which Euler has. Ours do the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import marigold_c as mc

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from oracle_pipelines import TASKS, for_diffusers, open_ours, open_theirs, photo  # noqa: E402

SCHEDULERS = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler leading": ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    "euler karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "dpm-solver": ("DPMSolverMultistepScheduler", {}),
    "dpm-solver heun": ("DPMSolverMultistepScheduler", {"solver_type": "heun", "final_sigmas_type": "sigma_min"}),
    "dpm-solver first order": ("DPMSolverMultistepScheduler", {"solver_order": 1}),
    "dpm-solver sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
}
IMAGE = photo(90, 128)


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """Both sides with a scheduler that is not the checkpoint's, which they have again afterwards."""
    task, name = request.param
    ours, theirs = open_ours(task), open_theirs(task)
    before = ours.scheduler, theirs.scheduler
    kind, options = SCHEDULERS[name]
    ours.scheduler = getattr(mc, kind).from_config(before[0].config, **options)
    theirs.scheduler = getattr(diffusers, kind).from_config(before[1].config, **options)
    yield ours, theirs
    ours.scheduler, theirs.scheduler = before


def steps_of(pair: tuple[Any, Any], start: dict[str, Any], steps: int) -> None:
    ours, theirs = pair
    options = {"num_inference_steps": steps, "processing_resolution": 128, "output_latent": True}
    tensors = {key: torch.from_numpy(value) for key, value in start.items()}
    seeds = [{} if start else {"generator": torch.Generator().manual_seed(3)} for _ in pair]
    mine = ours(IMAGE, **options, **start, **seeds[0])
    reference = theirs(for_diffusers(IMAGE), **options, **tensors, **seeds[1])
    # Measured: 2e-6, of maps in [0, 1] and of latents with a deviation of about 1.
    assert np.abs(mine.prediction - reference.prediction).max() < 2e-5
    assert np.abs(mine.latent - reference.latent.numpy()).max() < 2e-5


PAIRS = [*(("depth", name) for name in SCHEDULERS), *((task, "euler") for task in TASKS[1:])]


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("pair", PAIRS, indirect=True, ids=" ".join)
def test_drawn_noise(pair: tuple[Any, Any], steps: int) -> None:
    steps_of(pair, {}, steps)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if "sde" not in pair[1]], indirect=True, ids=" ".join)
def test_given_latents(pair: tuple[Any, Any], steps: int) -> None:
    """Without a generator: diffusers takes latents or a generator, so what a scheduler adds cannot be repeated."""
    ours, scale = pair[0], pair[0].vae_scale_factor
    shape = (1, ours._engine.info()["unet_out_channels"], -(-IMAGE.shape[0] // scale), IMAGE.shape[1] // scale)
    steps_of(pair, {"latents": np.random.default_rng(7).standard_normal(shape).astype(np.float32)}, steps)


@pytest.mark.parametrize("pair", [("depth", "euler"), ("depth", "dpm-solver")], indirect=True, ids=" ".join)
def test_batches_of_an_ensemble(pair: tuple[Any, Any]) -> None:
    """A multistep method begins anew with each batch."""
    more = {"ensemble_size": 3, "batch_size": 2, "ensembling_kwargs": {"reduction": "mean"}}
    ours, theirs = pair
    options = {"num_inference_steps": 3, "processing_resolution": 128, "output_latent": True, **more}
    mine = ours(IMAGE, **options, generator=torch.Generator().manual_seed(3))
    reference = theirs(for_diffusers(IMAGE), **options, generator=torch.Generator().manual_seed(3))
    assert np.abs(mine.latent - reference.latent.numpy()).max() < 2e-5

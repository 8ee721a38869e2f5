"""Ensembles and batches in the pipelines: the same members however they are batched and threaded, memory bounded by the
batch, latents that give a run again. Against diffusers: tests/oracle/test_family.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pipeline_cases import IMAGE

import marigold_c as mc

TASKS = ("depth", "normals", "intrinsics")
CHANNELS = {"depth": (1, 1), "normals": (3, 1), "intrinsics": (3, 3)}  # of predictions and of their uncertainty


def opened(task: str, **options: Any) -> Any:
    pipe = mc.load(mc.default_checkpoint(task), **{"num_threads": 1, **options})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipes() -> dict[str, Any]:
    return {task: opened(task) for task in TASKS}


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in ("prediction", "uncertainty", "latent"))


@pytest.mark.parametrize("task", TASKS)
def test_layout(pipes: dict[str, Any], task: str) -> None:
    maps = 2 * (3 if task == "intrinsics" else 1)
    out = pipes[task](
        np.stack([IMAGE, IMAGE[::-1]]), ensemble_size=3, output_uncertainty=True, output_latent=True, generator=1
    )
    channels, spread = CHANNELS[task]
    assert out.prediction.shape == (maps, *IMAGE.shape[:2], channels)
    assert out.uncertainty.shape == (maps, *IMAGE.shape[:2], spread)
    assert out.latent.shape == (6, 4 * (3 if task == "intrinsics" else 1), 12, 16)
    assert out.uncertainty.min() >= 0
    assert out.uncertainty.max() > 0
    low = -1 if task == "normals" else 0
    assert low <= out.prediction.min() < out.prediction.max() <= 1
    if task == "normals":
        assert np.abs(np.linalg.norm(out.prediction, axis=-1) - 1).max() <= 1e-5


@pytest.mark.parametrize("task", TASKS)
def test_neither_batches_nor_threads_change_a_result(pipes: dict[str, Any], task: str) -> None:
    options = {"ensemble_size": 5, "output_uncertainty": True, "output_latent": True, "num_inference_steps": 2}
    wanted = pipes[task](IMAGE, generator=4, batch_size=1, **options)
    for batch in (2, 5, 8):
        assert same(pipes[task](IMAGE, generator=4, batch_size=batch, **options), wanted)
    assert same(opened(task, num_threads=3)(IMAGE, generator=4, batch_size=2, **options), wanted)


@pytest.mark.parametrize("task", TASKS)
def test_an_image_in_a_batch_is_that_image_alone(pipes: dict[str, Any], task: str) -> None:
    latents = np.random.default_rng(0).standard_normal((6, 12 if task == "intrinsics" else 4, 12, 16))
    options = {"ensemble_size": 3, "output_uncertainty": True, "output_latent": True}
    both = pipes[task]([IMAGE, IMAGE[:, ::-1].copy()], latents=latents.astype(np.float32), batch_size=4, **options)
    second = pipes[task](IMAGE[:, ::-1].copy(), latents=latents[3:].astype(np.float32), **options)
    targets = len(second.prediction)
    assert np.array_equal(both.prediction[targets:], second.prediction)
    assert np.array_equal(both.uncertainty[targets:], second.uncertainty)
    assert np.array_equal(both.latent[3:], second.latent)


@pytest.mark.parametrize("task", TASKS)
def test_images_of_different_sizes(pipes: dict[str, Any], task: str) -> None:
    images = [IMAGE, IMAGE[:40]]
    outs = pipes[task](images, ensemble_size=3, output_uncertainty=True, generator=1)
    assert [one.shape[1:3] for one in outs.prediction] == [(48, 64), (40, 64)]
    assert [one.shape[1:3] for one in outs.uncertainty] == [(48, 64), (40, 64)]
    first = pipes[task](IMAGE, ensemble_size=3, output_uncertainty=True, generator=1)
    assert np.array_equal(outs.prediction[0], first.prediction)


@pytest.mark.parametrize(("task", "members"), [("depth", 100), ("normals", 12), ("intrinsics", 12)])
def test_memory_of_many_members_is_that_of_one_batch(task: str, members: int) -> None:
    """Many members need no more of the engine's memory than one; a batch of ten needs more."""
    one, many, batch = opened(task), opened(task), opened(task)
    one(IMAGE, generator=1)
    many(IMAGE, generator=1, ensemble_size=members)
    batch(IMAGE, generator=1, ensemble_size=10, batch_size=10)
    assert many.memory_stats() == one.memory_stats()
    assert batch.memory_stats()["activations"] > 1.5 * one.memory_stats()["activations"]


def test_zeros_are_deterministic(pipes: dict[str, Any]) -> None:
    """End-to-end fine-tuned checkpoints start from zeros."""
    for task in TASKS:
        one = pipes[task](IMAGE, latents="zeros").prediction
        zeros = np.zeros((1, 12 if task == "intrinsics" else 4, 12, 16), np.float32)
        assert np.array_equal(one, pipes[task](IMAGE, latents=zeros).prediction)


def test_two_members_are_warned_of(pipes: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="ensemble_size"):
        pipes["depth"](IMAGE, ensemble_size=2, generator=1)


def test_absolute_and_scale_invariant_depth(tmp_path: Any) -> None:
    """What model_index.json says of the depth decides how its members are merged."""
    import json
    import shutil

    latents = np.random.default_rng(0).standard_normal((3, 4, 12, 16)).astype(np.float32)
    members = [opened("depth")(IMAGE, latents=one[None], match_input_resolution=False).prediction for one in latents]
    stack = np.concatenate(members).transpose(0, 3, 1, 2)
    for scale, shift in ((True, True), (True, False), (False, False)):
        folder = tmp_path / f"{scale}-{shift}"
        shutil.copytree(mc.default_checkpoint(), folder)
        index = folder / "model_index.json"
        flags = {"scale_invariant": scale, "shift_invariant": shift}
        index.write_text(json.dumps({**json.loads(index.read_text()), **flags}))
        pipe = mc.load(folder, num_threads=1)
        pipe.set_progress_bar_config(disable=True)
        assert (pipe.scale_invariant, pipe.shift_invariant) == (scale, shift)
        out = pipe(IMAGE, latents=latents, ensemble_size=3, match_input_resolution=False, output_uncertainty=True)
        wanted, deviation = mc.ensemble_depth(stack, scale, shift, output_uncertainty=True)
        assert deviation is not None
        assert np.array_equal(out.prediction[0, :, :, 0], wanted[0, 0])
        assert np.array_equal(out.uncertainty[0, :, :, 0], deviation[0, 0])
        if not scale:
            assert np.array_equal(wanted[0, 0], np.median(stack, axis=0)[0])

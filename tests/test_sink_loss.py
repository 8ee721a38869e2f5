"""SinkLoss: value and gradient against logarithms in float64 and central differences; as an option of end-to-end
training. Beside torch's autograd: tests/oracle/test_sink_loss.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import marigold_c as mc
from marigold_c import _testing as engine

Array = NDArray[np.float64]
BLOCK, TEMPERATURE, ITERATIONS, INVALID = 5, 0.1, 5, 1e6
SIZES = [(5, 5), (10, 15), (11, 7), (3, 4)]


def logarithm_of_sums(values: Array, axis: int) -> Array:
    largest = values.max(axis=axis, keepdims=True)
    return largest + np.log(np.exp(values - largest).sum(axis=axis, keepdims=True))


def block_loss(predicted: Array, truth: Array, valid: NDArray[np.bool_]) -> float | None:
    """Marigold V2's loss of one block; None where nothing of its plan is valid."""
    pairs = valid[:, None] & valid[None, :]
    cost = np.abs(truth[None, :] - predicted[:, None])
    plan = -np.where(pairs, cost, INVALID) / TEMPERATURE
    for _ in range(ITERATIONS):
        plan = plan - logarithm_of_sums(plan, 1)
        plan = plan - logarithm_of_sums(plan, 0)
    mass = np.exp(plan) * pairs
    return float((mass * cost).sum() / max(mass.sum(), 1e-3)) if mass.sum() > 1e-3 else None


def reference(depth: Array, truth: Array, valid: NDArray[np.bool_]) -> tuple[float, int]:
    """The sum over blocks, and their number."""
    below, beside = -depth.shape[0] % BLOCK, -depth.shape[1] % BLOCK
    padded = [np.pad(one, ((0, below), (0, beside))) for one in (depth, truth, valid)]
    losses = []
    for top in range(0, padded[0].shape[0], BLOCK):
        for left in range(0, padded[0].shape[1], BLOCK):
            cells = [one[top : top + BLOCK, left : left + BLOCK].ravel() for one in padded]
            losses.append(block_loss(*cells))
    found = [loss for loss in losses if loss is not None]
    return float(sum(found)), len(found)


def example(height: int, width: int, share: float) -> tuple[Array, Array, NDArray[np.bool_]]:
    rng = np.random.default_rng(height * width)
    truth = rng.uniform(-1, 1, (height, width)).astype(np.float32).astype(np.float64)
    depth = np.clip(truth + 0.3 * rng.standard_normal(truth.shape), -1, 1).astype(np.float32).astype(np.float64)
    valid = rng.random(truth.shape) < share
    valid[0, 0] = True
    return depth, truth, valid


def ours(depth: Array, truth: Array, valid: NDArray[np.bool_], factor: float = 1.0) -> tuple[float, int, Array]:
    maps = [np.ascontiguousarray(one, np.float32) for one in (depth, np.where(valid, truth, np.nan))]
    value, blocks, slope = engine.sink_loss(*maps, valid.astype(np.uint8), *depth.shape, factor)
    return value, blocks, np.frombuffer(slope, np.float32).reshape(depth.shape).astype(np.float64)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.1])
@pytest.mark.parametrize("size", SIZES)
def test_value_and_number_of_blocks(size: tuple[int, int], share: float) -> None:
    depth, truth, valid = example(*size, share)
    expected, blocks = reference(depth, truth, valid)
    value, counted, _ = ours(depth, truth, valid)
    assert counted == blocks
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("size", SIZES)
def test_gradient_is_that_of_central_differences(size: tuple[int, int], share: float) -> None:
    depth, truth, valid = example(*size, share)
    expected, step = np.zeros(size), 1e-6
    for place in np.ndindex(*size):
        ends = []
        for sign in (1, -1):
            moved = depth.copy()
            moved[place] += sign * step
            ends.append(reference(moved, truth, valid)[0])
        expected[place] = (ends[0] - ends[1]) / (2 * step)
    slope = ours(depth, truth, valid, 2.0)[2]
    error = np.linalg.norm(slope - 2 * expected) / np.linalg.norm(2 * expected)
    print(error)
    assert error < 1e-5
    assert not slope[~valid].any()


def test_an_edge_that_is_off_costs_less_than_a_smoothed_one() -> None:
    x = np.arange(5)
    truth = np.repeat(np.where(x < 2, -0.8, 0.8)[None], 5, 0)
    off = np.repeat(np.where(x < 3, -0.8, 0.8)[None], 5, 0)
    smooth = np.repeat(np.linspace(-0.8, 0.8, 5)[None], 5, 0)
    whole = np.ones((5, 5), bool)
    assert ours(truth, truth, whole)[0] < ours(off, truth, whole)[0] < ours(smooth, truth, whole)[0]


def open_trainer(**options: Any) -> mc.Trainer:
    task = options.pop("task", "depth")
    folder = mc.default_checkpoint(task)
    return mc.Trainer.from_pretrained(folder, task=task, objective="e2e", num_threads=1, pixel_loss="sink", **options)


def batch(largest: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(4)
    target = rng.uniform(-1, 1, (2, 1, 24, 32)).astype(np.float32)
    target[1, 0, 3, 5] = largest
    return {
        "image_latent": rng.standard_normal((2, 4, 3, 4)).astype(np.float32),
        "pixel_target": target,
        "pixel_mask": rng.random((2, 1, 24, 32)) > 0.02,
    }


def test_training_lowers_it() -> None:
    trainer = open_trainer(learning_rate=3e-4)
    losses = []
    for _ in range(8):
        losses.append(trainer.forward_backward(**batch()))
        trainer.optimizer_step()
    print(losses)
    assert losses[-1] < 0.95 * losses[0]


def test_what_is_refused() -> None:
    trainer = open_trainer()
    inputs = batch(largest=20.5)
    inputs["pixel_mask"][1, 0, 3, 5] = True
    with pytest.raises(ValueError, match=r"is 20\.5 at row 3, column 5 of sample 1; loss \"sink\".* beyond 20"):
        trainer.forward_backward(**inputs)
    inputs["pixel_mask"][1, 0, 3, 5] = False
    assert np.isfinite(trainer.forward_backward(**inputs))
    with pytest.raises(NotImplementedError, match=r'no loss "sink" for normals; it has "task"$'):
        open_trainer(task="normals")

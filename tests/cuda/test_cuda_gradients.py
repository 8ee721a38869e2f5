"""Gradients, optimisers and the trainer on the CUDA backend: against the reference and the CPU."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_gradients import (
    HALF,
    LARGE,
    SMALL,
    TOLERANCE,
    Case,
    gradients,
    gradients_of_ref,
    half_gradients,
    half_gradients_of_ref,
)
from test_trainer import assert_same, open_trainer, random_batch

import marigold_c as mc
from marigold_c import _testing as engine

ORDERS = (1, 2, 3)  # of a block's threads: last to first, and two shuffled
ELEMENTWISE = ("activation", "geglu", "channel_slice", "scale", "concat")

# Relative to the largest element of a gradient. Each activation on the way is rounded, by 2^-9 or 2^-12 of it, and so
# are the factors of attention's products: three on its longest way.
HALF_TOLERANCES = {"bfloat16": 8e-3, "float16": 2e-3, "mixed": 8e-3}


def in_halves(cases: list[Case], precisions: tuple[str, ...]) -> list[Any]:
    return [
        pytest.param(case, precision, id=f"{case}-{precision}")
        for case in cases
        for precision in precisions
        if precision != "mixed" or case.op == "attention"
    ]


@pytest.mark.parametrize("case", [*SMALL, *LARGE], ids=str)
def test_agrees_with_ref(case: Case) -> None:
    found, _ = gradients("cuda", None, 1, case, 0.25)
    for slot, expected in enumerate(gradients_of_ref(case)):
        gradient = found[slot]
        if expected is None or gradient is None:
            assert gradient is expected
            continue
        error, largest = np.abs(gradient - expected).max(), np.abs(expected).max()
        assert error <= TOLERANCE * largest + 1e-30, f"input {slot}: error {error:.3g} of {largest:.3g}"


@pytest.mark.parametrize(("case", "precision"), in_halves(HALF, tuple(HALF_TOLERANCES)))
def test_halves_agree_with_ref(case: Case, precision: str) -> None:
    """Mixed: keys and values are float32, as those of a text are, and so are their gradients."""
    found = half_gradients("cuda", None, 1, case, precision)
    for slot, expected in enumerate(half_gradients_of_ref(case)):
        gradient = found[slot]
        if expected is None or gradient is None:
            assert gradient is expected
            continue
        error, largest = np.abs(gradient - expected).max(), np.abs(expected).max()
        assert error <= HALF_TOLERANCES[precision] * largest + 1e-30, (
            f"input {slot}: error {error:.3g} of {largest:.3g}"
        )


@pytest.mark.parametrize("case", [case for case in SMALL if case.op not in ELEMENTWISE], ids=str)
def test_order_of_threads_does_not_change_a_bit(emulator: Any, case: Case) -> None:
    first, _ = gradients("cuda", None, 1, case)
    for order in ORDERS:
        emulator.order(order)
        for one, other in zip(first, gradients("cuda", None, 1, case)[0], strict=True):
            np.testing.assert_array_equal(one, other)


# The gradients of attention in larger cases have several tiles; the norms several runs.
@pytest.mark.parametrize("case", [case for case in LARGE if case.op in ("attention", "layernorm")], ids=str)
def test_order_of_threads_in_several_tiles(emulator: Any, case: Case) -> None:
    first, _ = gradients("cuda", None, 1, case)
    emulator.order(ORDERS[-1])
    for one, other in zip(first, gradients("cuda", None, 1, case)[0], strict=True):
        np.testing.assert_array_equal(one, other)


COOPERATIVE = [case for case in HALF if case in SMALL and case.op not in ELEMENTWISE]


@pytest.mark.parametrize(("case", "precision"), in_halves(COOPERATIVE, ("bfloat16", "mixed")))
def test_order_of_threads_in_halves(emulator: Any, case: Case, precision: str) -> None:
    first = half_gradients("cuda", None, 1, case, precision)
    emulator.order(ORDERS[-1])
    for one, other in zip(first, half_gradients("cuda", None, 1, case, precision), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "case", [case for case in SMALL if case.op in ("conv2d", "linear", "attention") and case.params], ids=str
)
def test_tf32_stays_near(emulator: Any, case: Case) -> None:
    """Both factors of every product are rounded to eleven bits."""
    if case.note == "large logits":
        pytest.skip("softmax multiplies the error of a score of 30")
    for expected, found in zip(gradients_of_ref(case), gradients("cuda", "tf32", 1, case, 0.25)[0], strict=True):
        if expected is not None and found is not None:
            assert np.abs(found - expected).max() <= 4e-3 * np.abs(expected).max()


# ---- the trainer ----


def train(steps: int, **options: Any) -> tuple[list[float], list[float], Any]:
    trainer = open_trainer(**options)
    losses, norms = [], []
    for step in range(steps):
        losses.append(trainer.forward_backward(*random_batch(step, samples=1, h=4, w=5)))
        norms.append(trainer.optimizer_step())
    return losses, norms, trainer


def test_gradients_are_those_of_the_cpu() -> None:
    cpu, gpu = open_trainer(), open_trainer(device="cuda")
    for seed in (0, 1):  # micro-batches add up
        batch = random_batch(seed)
        assert gpu.forward_backward(*batch) == pytest.approx(cpu.forward_backward(*batch), rel=1e-5)
    expected = cpu.gradients()
    for name, gradient in gpu.gradients().items():
        assert np.abs(gradient - expected[name]).max() <= 1e-4 * np.abs(expected[name]).max() + 1e-7, name
    stats = gpu.memory_stats()
    assert stats["weights_mapped"] == 0
    gpu.clear_gradients()
    assert not any(gradient.any() for gradient in gpu.gradients().values())


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_steps_are_those_of_the_cpu(optimizer: str) -> None:
    steps = 20 if optimizer == "adam" else 2
    options: dict[str, Any] = {"optimizer": optimizer, "weight_decay": 0.01, "max_gradient_norm": 1.0}
    losses, norms, cpu = train(steps, learning_rate=1e-4, **options)
    found_losses, found_norms, gpu = train(steps, device="cuda", learning_rate=1e-4, **options)
    np.testing.assert_allclose(found_losses, losses, rtol=1e-4)
    np.testing.assert_allclose(found_norms, norms, rtol=1e-3)
    expected = cpu.parameters()
    for name, value in gpu.parameters().items():
        assert np.abs(value - expected[name]).max() <= 1e-4, name


def test_recomputation_and_repetition_change_nothing() -> None:
    batch = random_batch(0, samples=1, h=8, w=8)
    losses, found, activations = [], [], []
    for recomputed in (False, True):
        trainer = open_trainer(device="cuda", gradient_checkpointing=recomputed)
        losses.append(trainer.forward_backward(*batch))
        found.append(trainer.gradients())
        activations.append(trainer.memory_stats()["activations"])
    assert losses[0] == losses[1]
    assert_same(*found)
    assert activations[1] < activations[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_that_are_not_kept_change_memory_only(dtype: str) -> None:
    kept, passing = (open_trainer(device="cuda", dtype=dtype, keep_gradients=keep) for keep in (True, False))
    for step in range(3):
        batch = random_batch(step, samples=1, h=8, w=8)
        loss, norm = kept.train_step(*batch)
        found = passing.train_step(*batch)
        assert found[0] == loss and found[1] == pytest.approx(norm, rel=1e-5)
    assert_same(passing.parameters(), kept.parameters())
    assert passing.memory_stats()["training"] < kept.memory_stats()["training"]


def test_states_go_from_device_to_device(tmp_path: Path) -> None:
    """What one device saved the other loads to the bit, and goes on from."""
    _, _, gpu = train(2, device="cuda")
    gpu.save_state(tmp_path / "state.safetensors")
    gpu.save_pretrained(tmp_path)
    for part in mc.default_checkpoint().iterdir():
        if not (tmp_path / part.name).exists():
            (tmp_path / part.name).symlink_to(part)
    for device in ("cuda", "cpu"):
        again = open_trainer(tmp_path, device=device)
        again.load_state(tmp_path / "state.safetensors")
        assert again.steps == 2
        assert_same(again.parameters(), gpu.parameters())
        for index in range(0, len(again._engine.names()), 7):
            for part in ("m", "v"):
                np.testing.assert_array_equal(again._engine.read(index, part), gpu._engine.read(index, part))


def test_gradients_that_are_no_numbers_move_nothing() -> None:
    trainer = open_trainer(device="cuda")
    image, target, noise, steps, mask = random_batch(0, samples=1, h=4, w=4)
    image[0, 0, 3, 3] = np.nan
    assert np.isnan(trainer.forward_backward(image, target, noise, steps, mask))
    before = trainer.parameters()
    with pytest.raises(mc.NotFiniteError, match="no step was taken"):
        trainer.optimizer_step()
    assert_same(trainer.parameters(), before)
    trainer.clear_gradients()
    trainer.forward_backward(*random_batch(0, samples=1, h=4, w=4))
    assert trainer.optimizer_step() > 0


# ---- faults ----


def test_failing_allocations_leave_nothing_behind(emulator: Any) -> None:
    """From opening to the end of a step, in turn."""
    batch = random_batch(0, samples=1, h=2, w=2)
    gc.collect()
    held, acquisitions = emulator.held, 0
    while True:
        emulator.fail_after(acquisitions)
        try:
            trainer = open_trainer(device="cuda")
            trainer.forward_backward(*batch)
            trainer.optimizer_step()
            break
        except (MemoryError, mc.DeviceError):
            pass
        finally:
            emulator.fail_after(-1)
            trainer = None
        gc.collect()
        assert emulator.held == held, f"after acquisition {acquisitions} failed"
        acquisitions += 1
    assert acquisitions > 10
    gc.collect()
    assert emulator.held == held


@pytest.mark.parametrize("call", ["forward_backward", "optimizer_step", "clear_gradients", "parameters", "load"])
def test_failing_calls_are_told(emulator: Any, call: str, tmp_path: Path) -> None:
    """One call of the runtime fails in each run: none goes unnoticed, and the trainer can be used afterwards."""
    batch = random_batch(0, samples=1, h=2, w=2)
    trainer = open_trainer(device="cuda")
    trainer.forward_backward(*batch)
    trainer.optimizer_step()
    trainer.save_state(tmp_path / "state.safetensors")
    actions: dict[str, Any] = {
        "forward_backward": lambda: trainer.forward_backward(*batch),
        "optimizer_step": trainer.optimizer_step,
        "clear_gradients": trainer.clear_gradients,
        "parameters": trainer.parameters,
        "load": lambda: trainer.load_state(tmp_path / "state.safetensors"),
    }
    calls, failed = 0, 0
    while True:
        emulator.fail_call_after(calls)
        try:
            actions[call]()
            assert emulator.is_failure_due, "a failure went unnoticed"
            break
        except (mc.DeviceError, MemoryError) as error:
            assert "GPU" in str(error)
            failed += 1
        finally:
            emulator.fail_call_after(-1)
        calls += 1 if calls < 5 else calls
    assert failed >= 2
    trainer.clear_gradients()
    assert np.isfinite(trainer.forward_backward(*batch))


def test_every_gradient_operation_runs() -> None:
    recorded = {name for case in SMALL for name in gradients("cuda", None, 1, case)[1]}
    table = engine.op_table()
    assert {name for name, row in table.items() if row["is_gradient"]} <= recorded

"""The trainer on the CUDA backend in bfloat16, and with every objective: against the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_objectives as objectives
from test_trainer import open_trainer, random_batch

import marigold_c as mc
from marigold_c import _testing as engine

# Errors of a gradient, relative to its norm over all parameters. bfloat16: two ways of rounding the same activations
# (the CPU's own distance from float32 is 1 %, of the autoencoder 2.5 %).
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.03}
AUTOENCODER_TOLERANCES = {"float32": 1e-4, "bfloat16": 0.06}
LOSSES = {"float32": 1e-5, "bfloat16": 0.02}


def distance(found: dict[str, Any], expected: dict[str, Any]) -> float:
    squares = [
        (np.square(found[name] - value, dtype=np.float64).sum(), np.square(value, dtype=np.float64).sum())
        for name, value in expected.items()
    ]
    error, whole = np.sum(squares, axis=0)
    return float(np.sqrt(error / whole))


def assert_near(
    gpu: mc.Trainer,
    cpu: mc.Trainer,
    dtype: str,
    learn: Callable[[mc.Trainer], float],
    tolerances: dict[str, float] = TOLERANCES,
) -> None:
    assert learn(gpu) == pytest.approx(learn(cpu), rel=LOSSES[dtype])
    assert distance(gpu.gradients(), cpu.gradients()) < tolerances[dtype]


def both(open_one: Callable[..., mc.Trainer], *arguments: Any, **options: Any) -> tuple[mc.Trainer, mc.Trainer]:
    return open_one(*arguments, device="cuda", **options), open_one(*arguments, **options)


# ---- bfloat16 ----


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (2, 8, 1, 1), (7, 17, 2, 1), (300, 40, 3, 3)], ids=str)
def test_weights_are_rounded_as_they_are_packed(shape: tuple[int, ...], precision: str) -> None:
    weight = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    weight.flat[:3] = [1 + 2.0**-9, 1 + 3 * 2.0**-9, 1 + 2.0**-12]  # ties
    found, expected = engine.round_weight("cuda", precision, shape, weight)
    assert found == expected


def test_bfloat16_learns_as_on_the_cpu() -> None:
    """The first step is a thousandth of a bfloat16's last bit: the masters move. After a large one, what operations
    read has followed."""
    batch = random_batch(2, samples=1, h=2, w=2)
    trainers = both(open_trainer, dtype="bfloat16")
    assert_near(*trainers, "bfloat16", lambda trainer: trainer.forward_backward(*batch))
    before, gradients = trainers[0].parameters(), trainers[0].gradients()
    for trainer in trainers:
        trainer.optimizer_step(1e-6)
    for name, value in trainers[0].parameters().items():
        largest = np.abs(value - before[name]).max()
        assert largest < 2e-6 and (largest > 0) == gradients[name].any(), name
    for trainer in trainers:  # by the moments of the first
        trainer.optimizer_step(1e-3)
    losses = [trainer.forward_backward(*batch) for trainer in trainers]
    assert losses[0] == pytest.approx(losses[1], rel=LOSSES["bfloat16"])
    stats = [trainer.memory_stats() for trainer in trainers]
    assert stats[0]["training"] == pytest.approx(stats[1]["training"], rel=0.01)


def test_float16_is_not_trained() -> None:
    with pytest.raises(NotImplementedError, match='dtype "float32" or "bfloat16"'):
        open_trainer(device="cuda", dtype="float16")


# ---- objectives ----


def test_end_to_end() -> None:
    trainers = both(objectives.open_trainer, "e2e")
    assert_near(*trainers, "float32", lambda trainer: trainer.forward_backward(**objectives.batch("e2e", 0, samples=1)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_autoencoder(dtype: str) -> None:
    """Its images have three channels, its latents four: weights with channels that fill up a chunk."""
    rng = np.random.default_rng(0)
    images, noise = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 3, 16, 16), (1, 4, 2, 2)))
    trainers = both(open_trainer, objective="autoencoder", dtype=dtype)
    tolerances = AUTOENCODER_TOLERANCES
    assert_near(*trainers, dtype, lambda trainer: trainer.reconstruct(images, noise)["total"], tolerances)
    norms = [trainer.optimizer_step() for trainer in trainers]
    assert norms[0] == pytest.approx(norms[1], rel=tolerances[dtype])


def moved(trainer: mc.Trainer) -> None:
    """Other weights, and a step without a gradient, which the average follows."""
    rng = np.random.default_rng(4)
    for index, value in enumerate(trainer.parameters().values()):
        trainer._engine.write(index, "value", value * (1 + 0.2 * rng.random(value.shape, np.float32)))
    trainer.optimizer_step()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_distillation(dtype: str) -> None:
    """The teacher, the average and the trained weights differ, and all three are what they are on the CPU."""
    gpu, cpu = both(objectives.open_trainer, "lcm", dtype=dtype, ema_decay=0.75)
    before = gpu.parameters()
    for trainer in (gpu, cpu):
        moved(trainer)
    after, followed, expected = gpu.parameters(), objectives.average(gpu), objectives.average(cpu)
    assert objectives.differ(before, after)
    for name, value in followed.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(value, 0.75 * before[name] + 0.25 * after[name], rtol=1e-6, atol=1e-9)
    # No difference is near 0, where the slope of the loss jumps, whatever set of instructions rounds it.
    inputs = objectives.batch("lcm", 6, samples=1)
    assert_near(gpu, cpu, dtype, lambda trainer: trainer.forward_backward(**inputs))


# ---- faults ----


def open_distillation() -> mc.Trainer:
    """All that a trainer may keep on a device: masters, rounded weights, a teacher, an average."""
    return objectives.open_trainer("lcm", device="cuda", dtype="bfloat16")


def test_failing_allocations_leave_nothing_behind(emulator: Any) -> None:
    """Up to the first step, which allocates the moments; of the many weights every eightieth."""
    gc.collect()
    held, acquisitions = emulator.held, 0
    while True:
        emulator.fail_after(acquisitions)
        try:
            trainer: mc.Trainer | None = open_distillation()
            trainer.optimizer_step()
            break
        except (MemoryError, mc.DeviceError):
            pass
        finally:
            emulator.fail_after(-1)
            trainer = None
        gc.collect()
        assert emulator.held == held, f"after acquisition {acquisitions} failed"
        acquisitions += 1 if acquisitions < 10 else 80
    assert acquisitions > 500
    gc.collect()
    assert emulator.held == held


@pytest.mark.parametrize("call", ["open", "optimizer_step", "write", "load"])
def test_failing_calls_are_told(emulator: Any, call: str, tmp_path: Path) -> None:
    """One call of the runtime fails in each run: none goes unnoticed, and the trainer can be used afterwards."""
    trainer = open_distillation()
    index = trainer._engine.names().index("conv_in.weight")  # one that is rounded
    weight = trainer._engine.read(index, "value")
    trainer.save_state(tmp_path / "state.safetensors")
    actions: dict[str, Callable[[], Any]] = {
        "open": open_distillation,
        "optimizer_step": trainer.optimizer_step,
        "write": lambda: [trainer._engine.write(index, part, weight) for part in ("value", "average")],
        "load": lambda: trainer.load_state(tmp_path / "state.safetensors"),
    }
    calls, failed = 0, 0
    while True:
        emulator.fail_call_after(calls)
        try:
            kept = actions[call]()
            assert emulator.is_failure_due, "a failure went unnoticed"
            break
        except (mc.DeviceError, MemoryError) as error:
            assert "GPU" in str(error)
            failed += 1
        finally:
            emulator.fail_call_after(-1)
        calls += 1 if calls < (50 if call == "write" else 5) else calls
    del kept
    assert failed >= 4
    trainer.clear_gradients()
    moved(trainer)
    assert all(np.isfinite(value).all() for value in trainer.parameters().values())

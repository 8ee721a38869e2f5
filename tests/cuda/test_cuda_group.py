"""Sums over the GPUs of several processes, which train together: by NCCL, or in the emulation by a stand-in."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_cases import load_nccl
from test_trainer import assert_same, open_trainer, random_batch

import marigold_c as mc
from marigold_c import _testing as engine
from marigold_c.errors import ProcessFailed

COUNT = 200_003  # several messages, the last of them short


def numbers_of(rank: int) -> Any:
    return np.random.default_rng(rank).standard_normal(COUNT).astype(np.float32)


def work(connection: Any, name: bytes, rank: int, size: int, barrier: Any) -> None:
    load_nccl()
    numbers = numbers_of(rank)
    device = "cuda" if os.environ["MARIGOLD_TEST_CUDA"] == "emulated" else f"cuda:{rank}"
    engine.sum_over_group(device, name, rank, size, numbers, barrier.wait)
    connection.send(numbers)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sums_over_processes(size: int) -> None:
    load_nccl()
    if os.environ["MARIGOLD_TEST_CUDA"] == "real" and size > len(list(Path("/dev").glob("nvidia[0-9]*"))):
        pytest.skip(f"{size} GPUs")
    name = engine.group_name("cuda")
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(size)
    ends = []
    for rank in range(size):
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, name, rank, size, barrier), daemon=True)
        process.start()
        theirs.close()
        ends.append((ours, process))
    found = [ours.recv() for ours, _ in ends]
    for _, process in ends:
        process.join()
    # The second sum is one of equal numbers.
    expected = size * sum(numbers_of(rank).astype(np.float64) for rank in range(size))
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-5)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def ask_without(connection: Any) -> None:
    try:
        engine.group_name("cuda")
    except mc.DeviceError as error:
        connection.send(str(error))


def test_without_nccl_the_extra_is_named(emulator: Any) -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=ask_without, args=(theirs,), daemon=True)
    process.start()
    process.join()
    assert "sums over several GPUs need NCCL: libnccl.so.2" in ours.recv()


# ---- trainers ----


class PipeProcesses:
    """Two processes that send each other messages through a pipe."""

    def __init__(self, connection: Any, rank: int) -> None:
        self.connection, self.rank, self.size, self.parted = connection, rank, 2, False

    def gather(self, message: Any) -> list[Any]:
        self.connection.send(message)
        other = self.connection.recv()
        return [message, other] if self.rank == 0 else [other, message]

    def start_sum(self, numbers: Any) -> Any:
        raise AssertionError("gradients on a GPU are not summed on the host")

    def abort(self) -> None:
        raise AssertionError


def learn(connection: Any, rank: int, fails: bool) -> Any:
    load_nccl()
    device = "cuda" if os.environ["MARIGOLD_TEST_CUDA"] == "emulated" else f"cuda:{rank}"
    trainer, processes = open_trainer(device=device), PipeProcesses(connection, rank)
    for step in range(2):
        with trainer.summed_over(processes):
            trainer.forward_backward(*random_batch(2 * step + rank, 1, 4, 6), weight=0.5)
            if fails and rank == 1:
                raise ValueError("the second process fails")
        trainer.optimizer_step()
    return trainer.parameters()


def learn_apart(connection: Any, rank: int, fails: bool) -> None:
    with contextlib.suppress(ValueError):
        connection.send(learn(connection, rank, fails))


def learn_in_two_processes(fails: bool) -> tuple[Any, Any]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=learn_apart, args=(theirs, 1, fails), daemon=True)
    process.start()
    try:
        return learn(ours, 0, fails), ours.recv()
    finally:
        process.join()


@pytest.fixture
def alone() -> mc.Trainer:
    try:
        return open_trainer(device="cuda")
    except NotImplementedError as error:
        pytest.skip(str(error))


def test_two_processes_learn_as_one(alone: mc.Trainer) -> None:
    found = learn_in_two_processes(False)
    assert_same(*found)
    for step in range(2):
        for rank in range(2):
            alone.forward_backward(*random_batch(2 * step + rank, 1, 4, 6), weight=0.5)
        alone.optimizer_step()
    for name, expected in alone.parameters().items():
        np.testing.assert_allclose(found[0][name], expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_process_that_fails_ends_the_other(alone: mc.Trainer) -> None:
    with pytest.raises(ProcessFailed, match="the second process fails"):
        learn_in_two_processes(True)


def test_nothing_is_held_afterwards(emulator: Any) -> None:
    load_nccl()
    held = emulator.held
    engine.sum_over_group("cuda", engine.group_name("cuda"), 0, 1, numbers_of(0), list)
    with pytest.raises(mc.DeviceError, match="NCCL failed in ncclCommInitRank: invalid argument"):
        engine.sum_over_group("cuda", b"/no/such/file".ljust(128, b"\0"), 0, 1, numbers_of(0), list)
    assert emulator.held == held

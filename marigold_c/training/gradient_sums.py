"""Gradients summed over several processes while the backward pass still runs. Called by trainer.py.

A thread watches how far the backward pass is done with the block of gradients, and posts the sum of each part of it as
soon as it is whole: in the order of the block, which is the same in all processes, so that sums meet their counterparts
and the result does not depend on who was faster. The parts are the gradients' own memory; nothing is copied. The thread
needs the interpreter for moments only, and the engine computes without it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .._cuda import load_nccl
from .processes import Processes, Sum, exchange, nap_until, only_first, together

_PART = 1 << 20  # numbers that are summed in one message: 4 MiB
_AT_ONCE = 4  # messages under way; MPI keeps a copy of each


class Gradients(Protocol):
    """What is needed of _C.Trainer."""

    @property
    def isa(self) -> str: ...

    def gradient_block(self) -> NDArray[np.float32]: ...
    def follow_gradients(self) -> None: ...
    def gradients_done(self) -> int: ...


class GradientSums:
    """Around the last batch of a step: at its end the gradients are summed over all processes.

    If one of them fails before or within, all others raise ProcessFailed at the end, and the gradients are worthless.
    """

    def __init__(self, gradients: Gradients, processes: Processes) -> None:
        """NotImplementedError: the gradients are in the memory of a device."""
        self._gradients, self._processes = gradients, processes
        self._block = gradients.gradient_block()
        self._batches = 0
        self._ended = threading.Event()
        self._failure: Exception | None = None  # of the batch
        self._error: BaseException | None = None  # of the sums
        self._pending: deque[Sum] = deque()
        self.early = 0  # numbers whose sum was posted before the batch ended
        self._thread = threading.Thread(target=self._run, name="gradient sums", daemon=True)

    def note_batch(self) -> None:
        """RuntimeError where another batch would add to gradients that may be summed already."""
        self._batches += self._thread.is_alive()
        if self._batches > 1 and self._thread.is_alive():
            raise RuntimeError("gradients are summed around the last batch of a step only; learn the others before")

    def __enter__(self) -> None:
        self._gradients.follow_gradients()
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._failure = error if isinstance(error, Exception) else RuntimeError("it was interrupted")
        self._ended.set()
        self._thread.join()
        if self._error is not None and (error is None or isinstance(self._error, SystemExit)):
            raise self._error

    def _run(self) -> None:
        try:
            self._sum()
        except BaseException as error:
            self._error = error

    def _sum(self) -> None:
        block = self._block
        layout = [block.size, self._gradients.isa]
        layouts = exchange(self._processes, layout)
        if any(one != layout for one in layouts):
            found = ", ".join(f"{isa} ({count} numbers)" for count, isa in layouts)
            problem = (
                f"the processes lay out their gradients in different ways: {found}; give all the same device and "
                "dtype, and MARIGOLD_ISA the instruction set that all their processors have"
            )
            exchange(self._processes, failure=RuntimeError(problem))
        for begin in range(0, block.size, _PART):
            part = block[begin : begin + _PART]
            self._until(partial(self._is_whole, begin + part.size))
            self._until(lambda: len(self._pending) < _AT_ONCE)
            self.early += 0 if self._ended.is_set() else part.size
            self._pending.append(self._processes.start_sum(part))
        self._until(lambda: not self._pending)
        self._until(self._ended.is_set)
        exchange(self._processes, failure=self._failure)

    def _is_whole(self, end: int) -> bool:
        return self._ended.is_set() or self._gradients.gradients_done() >= end

    def _until(self, condition: Callable[[], bool]) -> None:
        """Waits, and takes sums away that are done; asking for them is also what makes MPI go on."""

        def asked() -> bool:
            while self._pending and self._pending[0].done():
                self._pending.popleft()
            return condition()

        nap_until(asked)


class DeviceGradients(Protocol):
    """What is needed of _C.Trainer where its gradients are on a GPU."""

    def name_group(self) -> bytes: ...
    def join_group(self, name: bytes, rank: int, size: int, /) -> None: ...
    def sum_gradients(self) -> None: ...


def join_devices(gradients: DeviceGradients, processes: Processes) -> None:
    """Makes the GPUs of all processes, one each, a group. Collective; DeviceError: NCCL is missing or failed."""
    load_nccl()
    name = only_first(processes, lambda: gradients.name_group().hex())
    together(processes, lambda: gradients.join_group(bytes.fromhex(name), processes.rank, processes.size))


class DeviceGradientSums:
    """GradientSums for devices that were joined: NCCL sums when the batch is done in all processes."""

    def __init__(self, gradients: DeviceGradients, processes: Processes) -> None:
        self._gradients, self._processes = gradients, processes

    def note_batch(self) -> None:
        """Any number of batches may come before the sums."""

    def __enter__(self) -> None:
        """Nothing is summed before the end."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = error if error is None or isinstance(error, Exception) else RuntimeError("it was interrupted")
        exchange(self._processes, failure=failure)
        together(self._processes, self._gradients.sum_gradients)


def decline(processes: Processes, failure: Exception) -> None:
    """In the place of GradientSums, where a process failed before its last batch: the others end, too."""
    exchange(processes, failure=failure)

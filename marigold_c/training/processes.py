"""Several processes that work on one thing: sums over all of them, and messages by which they agree on how to go on.

Called by gradient_sums.py, trainer.py and runs. MPI through mpi4py (extra `mpi`); the rest knows the protocol
Processes only. Everything here is collective: each process calls it, in the same order.

Nobody waits in MPI itself, which would keep a processor busy that others compute on: requests are posted, and asked for
from time to time. For the same reason a process that fails tells the others so at the next message, instead of leaving
them to wait.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib import import_module
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ProcessFailed
from ..extras import check_module
from ..messages import explain

T = TypeVar("T")

# What launchers tell their processes: Open MPI, MPICH and Intel MPI, and those that speak PMI or PMIx (Slurm).
_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_SIZE")
_SHORTEST_NAP, _LONGEST_NAP = 20e-6, 1e-3  # seconds


class Sum(Protocol):
    """A sum that was begun."""

    def done(self) -> bool: ...


class Processes(Protocol):
    """Those that work together; this one is number `rank` of `size`. parted: all know that it ends, none waits."""

    rank: int
    size: int
    parted: bool

    def start_sum(self, numbers: NDArray[np.float32]) -> Sum:
        """Begins to replace `numbers`, as many in each process, by their sums over all processes. They must be left
        alone until that is done. Every process gets the same bits."""
        ...

    def gather(self, message: Any) -> list[Any]:
        """The messages of all processes, by rank; anything that JSON has. Waits for the last one."""
        ...

    def abort(self) -> None:
        """Ends the other processes, which wait for this one in vain."""
        ...


class Alone:
    """One process."""

    rank, size, parted = 0, 1, False

    def start_sum(self, numbers: NDArray[np.float32]) -> Sum:
        raise NotImplementedError("there is nothing to sum over")

    def gather(self, message: Any) -> list[Any]:
        return [message]

    def abort(self) -> None:
        pass


def nap_until(condition: Callable[[], bool]) -> None:
    """Sleeps for short times until the condition holds."""
    nap = _SHORTEST_NAP
    while not condition():
        time.sleep(nap)
        nap = min(1.5 * nap, _LONGEST_NAP)


# ---- agreeing ----


def exchange(processes: Processes, value: Any = None, failure: Exception | None = None) -> list[Any]:
    """The values of all processes, by rank, if none has a failure. Else that is raised where it happened, and
    ProcessFailed by the others. Where all failed in the same way, only the first raises it and the others just end."""
    message = {"value": value}
    if failure is not None:
        message = {"failure": explain(failure), "kind": type(failure).__name__}
    messages = processes.gather(message)
    failed = [(rank, one) for rank, one in enumerate(messages) if "failure" in one]
    if not failed:
        return [one["value"] for one in messages]
    processes.parted = True
    if failure is not None:
        if processes.rank and len(failed) == processes.size and all(one == messages[0] for one in messages):
            raise SystemExit(1) from failure
        raise failure
    rank, first = failed[0]
    raise ProcessFailed(rank, processes.size, first["failure"], first["kind"])


def results(processes: Processes, work: Callable[[], Any]) -> list[Any]:
    """What `work` gives in each process, by rank; see exchange for what happens if it fails in one."""
    try:
        value = work()
    except Exception as error:
        exchange(processes, failure=error)
        raise
    return exchange(processes, value)


def together(processes: Processes, work: Callable[[], T]) -> T:
    """What `work` gives in this process, once it was done in all."""
    own: list[T] = []
    results(processes, lambda: own.append(work()))
    return own[0]


def only_first(processes: Processes, work: Callable[[], Any]) -> Any:
    """What `work` gives in the first process, which alone does it while the others wait."""
    return results(processes, work if processes.rank == 0 else lambda: None)[0]


# ---- MPI ----


class _MpiSum:
    def __init__(self, request: Any) -> None:
        self._request = request

    def done(self) -> bool:
        return bool(self._request.Test())


class MpiProcesses:
    """The processes of an mpi4py communicator."""

    def __init__(self, communicator: Any) -> None:
        """RuntimeError: MPI was told not to expect threads."""
        self._mpi = import_module("mpi4py.MPI")
        if self._mpi.Query_thread() < self._mpi.THREAD_SERIALIZED:
            raise RuntimeError("MPI must be initialised for threads: at least MPI.THREAD_SERIALIZED")
        self._communicator = communicator
        self.rank, self.size, self.parted = int(communicator.Get_rank()), int(communicator.Get_size()), False

    def start_sum(self, numbers: NDArray[np.float32]) -> Sum:
        return _MpiSum(self._communicator.Iallreduce(self._mpi.IN_PLACE, numbers, self._mpi.SUM))

    def gather(self, message: Any) -> list[Any]:
        text = np.frombuffer(json.dumps(message).encode(), np.uint8)
        lengths = np.zeros(self.size, np.int64)
        mine = np.array([text.size], np.int64)
        nap_until(_MpiSum(self._communicator.Iallgather(mine, lengths)).done)
        counts = lengths.tolist()
        everything = np.empty(sum(counts), np.uint8)
        nap_until(_MpiSum(self._communicator.Iallgatherv(text, [everything, counts])).done)
        ends = np.cumsum(lengths)
        return [json.loads(everything[end - count : end].tobytes()) for end, count in zip(ends, counts, strict=True)]

    def abort(self) -> None:
        self._communicator.Abort(1)


def processes_of(communicator: Any) -> Processes:
    """An mpi4py communicator as Processes; Processes as they are."""
    processes: Processes = communicator if hasattr(communicator, "start_sum") else MpiProcesses(communicator)
    return processes


def started_processes() -> Processes:
    """The processes that mpirun (or srun, mpiexec) started with this one; Alone if it was started by itself.

    MissingExtra or RuntimeError if there are several, but mpi4py or the MPI library is missing.
    """
    if not any(name in os.environ for name in _LAUNCHED):
        return Alone()
    check_module("mpi4py", "training with several processes")
    try:
        world = import_module("mpi4py.MPI").COMM_WORLD
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(f"mpi4py cannot load the MPI library that started this process: {error}") from error
    return MpiProcesses(world) if world.Get_size() > 1 else Alone()


# ---- threads ----


def threads_for(processes: Processes) -> int:
    """How many threads each process gets: the processors that it may use, divided among the processes of its machine
    that may use the same. Collective."""
    host = os.uname().nodename
    messages = processes.gather({"host": host, "processors": sorted(os.sched_getaffinity(0))})
    local = [one["processors"] for one in messages if one["host"] == host]
    return fair_share(local, sorted(os.sched_getaffinity(0)))


def fair_share(everyone: Sequence[Sequence[int]], mine: Sequence[int]) -> int:
    """`mine`, divided among those of `everyone` (this one included) who have the same; at least 1."""
    return max(1, int(sum(Fraction(1, sum(one in other for other in everyone)) for one in mine)))

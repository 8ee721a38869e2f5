"""Who does the work: this process, several local ones, or a Ray cluster (ray_engine.py). Called by the two commands.

A job is opened once by each worker and then works on one sample at a time. A worker that is lost (killed, out of
memory, its machine gone) costs its current sample, which another one gets. Results do not depend on who works on what.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import warnings
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from .._cuda import is_cuda
from ..messages import explain

ENGINES = ("serial", "processes", "ray")
_ATTEMPTS = 3  # workers that one sample may cost
_FAREWELL = 2.0  # seconds that a worker has to end by itself
_FAILED_STARTS = 3  # workers that may be lost in a row before they are ready


@dataclass(frozen=True)
class Share:
    """A worker's part of the machine. threads: None for all. processors: which it may use, () for all that this process
    may. visible_device: of CUDA, or None."""

    threads: int | None = None
    processors: tuple[int, ...] = ()
    visible_device: str | None = None


class Job(Protocol):
    """What workers do; is sent to them by pickle."""

    def open(self, share: Share) -> Callable[[int], Any]:
        """The function that works on a sample; called once in each worker."""

    def lost(self, index: int, reason: str) -> Any:
        """The result of a sample that cost too many workers."""


@dataclass(frozen=True)
class Event:
    """ready; done with `result`; failed to open with the exception `result`; or lost for the reason `result`."""

    worker: Hashable
    kind: str
    result: Any = None


class Crew(Protocol):
    """Workers of one kind."""

    def hire(self) -> None:
        """Starts one more worker."""

    def give(self, worker: Hashable, index: int) -> None:
        """A sample for a worker that has none."""

    def next_event(self) -> Event:
        """Waits for one."""

    def dismiss(self) -> None:
        """Stops all workers."""


class _Foreman:
    """Hands out samples and takes results until none is left."""

    def __init__(self, crew: Crew, job: Job, indices: Sequence[int], workers: int) -> None:
        self.crew, self.job = crew, job
        self.waiting = deque(indices)
        self.busy: dict[Hashable, int] = {}
        self.idle: list[Hashable] = []
        self.starting = 0
        self.failed_starts = 0  # in a row
        self.losses: Counter[int] = Counter()
        for _ in range(min(workers, len(indices))):
            self.hire()

    def hire(self) -> None:
        self.starting += 1
        self.crew.hire()

    def employ(self, worker: Hashable) -> None:
        if self.waiting:
            self.busy[worker] = self.waiting.popleft()
            self.crew.give(worker, self.busy[worker])
        else:
            self.idle.append(worker)

    def lose(self, worker: Hashable, reason: str) -> tuple[int, Any] | None:
        """The worker's sample waits again, or is given up: then its result."""
        given_up = None
        index = self.busy.pop(worker, None)
        if index is not None:
            self.losses[index] += 1
            if self.losses[index] < _ATTEMPTS:
                self.waiting.appendleft(index)
            else:
                given_up = index, self.job.lost(index, f"{_ATTEMPTS} workers were lost over it: {reason}")
        elif worker in self.idle:
            self.idle.remove(worker)
        else:
            self.starting -= 1
            self.failed_starts += 1
        if self.waiting:
            self.find_another(reason)
        return given_up

    def find_another(self, reason: str) -> None:
        if self.idle:
            self.employ(self.idle.pop())
        elif self.failed_starts < _FAILED_STARTS:
            self.hire()
        elif not self.busy and not self.starting:
            raise RuntimeError(f"{self.failed_starts} workers in a row were lost before they were ready: {reason}")

    def results(self) -> Iterator[tuple[int, Any]]:
        while self.waiting or self.busy:
            event = self.crew.next_event()
            if event.kind == "failed":
                raise event.result
            if event.kind == "lost":
                given_up = self.lose(event.worker, event.result)
                if given_up is not None:
                    yield given_up
                continue
            if event.kind == "ready":
                self.starting -= 1
                self.failed_starts = 0
            else:
                yield self.busy.pop(event.worker), event.result
            self.employ(event.worker)


def work_through(crew: Crew, job: Job, indices: Sequence[int], workers: int) -> Iterator[tuple[int, Any]]:
    """(index, result) of each sample in the order in which they are done. Exceptions of Job.open are raised."""
    try:
        yield from _Foreman(crew, job, indices, workers).results()
    finally:
        crew.dismiss()


def serially(job: Job, indices: Sequence[int], threads: int | None) -> Iterator[tuple[int, Any]]:
    """In this process, in order."""
    if not indices:
        return
    work = job.open(Share(threads))
    for index in indices:
        yield index, work(index)


# ---- local processes ----


def _portable(error: Exception) -> Exception:
    """The exception, or its text if it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(explain(error))
    return error


def _serve(connection: Connection, job: Job, share: Share) -> None:
    """A worker's life: opens the job, then answers a number with a result until the connection closes."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to all of the terminal's processes; the first one decides
    if share.visible_device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.visible_device
    if share.processors:
        with suppress(OSError):  # a processor that is gone
            os.sched_setaffinity(0, share.processors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one process has said them already, or as many would as there are workers
        try:
            work = job.open(share)
        except Exception as error:
            connection.send(("failed", _portable(error)))
            return
        with suppress(EOFError, OSError):  # nobody wants more
            connection.send(("ready", None))
            while True:
                connection.send(("done", work(connection.recv())))


def _end_of(process: Any) -> str:
    """How a process ended."""
    code = process.exitcode
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


class ProcessCrew:
    """Processes on this machine, each with its share of the threads or its CUDA device."""

    def __init__(self, job: Job, shares: Sequence[Share]) -> None:
        self._job, self._context = job, multiprocessing.get_context("spawn")
        self._shares = deque(shares)  # of workers that are not there
        self._workers: dict[Connection, tuple[Any, Share]] = {}

    def hire(self) -> None:
        share = self._shares.popleft()
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._job, share), daemon=True)
        process.start()
        theirs.close()
        self._workers[ours] = (process, share)

    def give(self, worker: Hashable, index: int) -> None:
        assert isinstance(worker, Connection)
        with suppress(OSError):  # a worker that is gone shows as lost
            worker.send(index)

    def next_event(self) -> Event:
        connection = wait(list(self._workers))[0]
        assert isinstance(connection, Connection)
        try:
            kind, result = connection.recv()
            return Event(connection, kind, result)
        except (EOFError, OSError):
            process, share = self._workers.pop(connection)
            process.join()
            connection.close()
            self._shares.append(share)
            return Event(connection, "lost", _end_of(process))

    def dismiss(self) -> None:
        for connection in self._workers:
            connection.close()  # a worker that waits for a sample ends by itself
        for process, _ in self._workers.values():
            process.join(_FAREWELL)
            process.kill()
            process.join()
        self._workers.clear()


def cuda_devices() -> list[str]:
    """The devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip()]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def process_shares(device: str, threads: int | None, workers: int | None) -> list[Share]:
    """One for each worker; without a number, one for each CUDA device, or for every four processors, but two. "cuda:1"
    is that device for all workers."""
    allowed = sorted(os.sched_getaffinity(0))
    total = threads or len(allowed)
    devices = cuda_devices() if device == "cuda" else []
    count = workers or (max(1, len(devices)) if is_cuda(device) else min(total, max(2, total // 4)))
    shares, first = [], 0
    for number in range(count):
        mine = max(1, total // count + (number < total % count))
        processors = {allowed[(first + one) % len(allowed)] for one in range(mine)}
        shares.append(Share(mine, tuple(sorted(processors)), devices[number % len(devices)] if devices else None))
        first += mine
    return shares


def in_processes(job: Job, indices: Sequence[int], shares: Sequence[Share]) -> Iterator[tuple[int, Any]]:
    return work_through(ProcessCrew(job, shares), job, indices, len(shares))

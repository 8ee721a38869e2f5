"""Threads that stand in for the processes of training/processes.py: sums and messages within this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PATIENCE = 60.0  # seconds


class Meeting:
    """What all have brought; the last one to come does the common work."""

    def __init__(self, size: int) -> None:
        self.brought: list[Any] = [None] * size
        self.missing = size
        self.over = threading.Event()

    def done(self) -> bool:
        return self.over.is_set()


class Hub:
    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = threading.Lock()
        self.meetings: dict[tuple[str, int], Meeting] = {}
        self.aborted_by: list[int] = []

    def meet(self, key: tuple[str, int], rank: int, thing: Any, work: Callable[[Sequence[Any]], None]) -> Meeting:
        with self.lock:
            meeting = self.meetings.setdefault(key, Meeting(self.size))
            meeting.brought[rank] = thing
            meeting.missing -= 1
            if not meeting.missing:
                work(meeting.brought)
                del self.meetings[key]
                meeting.over.set()
            return meeting


def _sum(parts: Sequence[NDArray[np.float32]]) -> None:
    assert len({part.size for part in parts}) == 1, "sums that do not belong together"
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    for part in parts:
        part[:] = total


class ThreadProcesses:
    """One of several threads. sums: how many numbers each of its sums had."""

    def __init__(self, hub: Hub, rank: int) -> None:
        self.hub, self.rank, self.size, self.parted = hub, rank, hub.size, False
        self.sums: list[int] = []
        self.messages = 0

    def start_sum(self, numbers: NDArray[np.float32]) -> Meeting:
        self.sums.append(numbers.size)
        return self.hub.meet(("sum", len(self.sums)), self.rank, numbers, _sum)

    def gather(self, message: Any) -> list[Any]:
        self.messages += 1
        meeting = self.hub.meet(("message", self.messages), self.rank, json.dumps(message), lambda _: None)
        assert meeting.over.wait(_PATIENCE), f"process {self.rank} waits in vain"
        return [json.loads(one) for one in meeting.brought]

    def abort(self) -> None:
        self.hub.aborted_by.append(self.rank)


def run_together(size: int, work: Callable[[ThreadProcesses], Any]) -> list[Any]:
    """What `work` gives in each of `size` threads, or the exception that it raises."""
    hub = Hub(size)

    def one(rank: int) -> Any:
        try:
            return work(ThreadProcesses(hub, rank))
        except BaseException as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))

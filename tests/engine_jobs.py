"""Jobs for the tests of the engines; in a file of its own, because workers import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marigold_c.errors import SampleError
from marigold_c.evaluation.engines import Share
from marigold_c.evaluation.inference import InferenceJob


@dataclass(frozen=True)
class Squares:
    """Squares. notes: a folder in which every worker leaves its process id and its share. crew: nobody works before so
    many have come."""

    notes: Path
    seconds: float = 0.0
    crew: int = 1

    def open(self, share: Share) -> Callable[[int], Any]:
        (self.notes / str(os.getpid())).write_text(f"{share.threads} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
        while sum(path.name.isdigit() for path in self.notes.iterdir()) < self.crew:
            time.sleep(0.01)
        return self.work

    def work(self, index: int) -> Any:
        time.sleep(self.seconds)
        return index * index

    def lost(self, index: int, reason: str) -> Any:
        return reason


@dataclass(frozen=True)
class Deadly(Squares):
    """Kills its worker on one number, so many times. patience: seconds before it does."""

    number: int = 3
    times: int = 1
    patience: float = 0.0

    def work(self, index: int) -> Any:
        marks = list(self.notes.glob("killed*"))
        if index == self.number and len(marks) < self.times:
            (self.notes / f"killed{len(marks)}").touch()
            time.sleep(self.patience)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().work(index)


class Unsendable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@dataclass(frozen=True)
class Closed(Squares):
    """Cannot be opened. how: "refuse", "unsendable" or "die"."""

    how: str = "refuse"

    def open(self, share: Share) -> Callable[[int], Any]:
        if self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "unsendable":
            raise Unsendable(1, 2)
        raise SampleError("set", "sample", "file", "reason")


@dataclass(frozen=True)
class NotedInference(InferenceJob):
    """Real work, by workers that can be found: each leaves its process id in `notes`. The first one that gets to
    `fatal` kills itself, in the middle of its work."""

    notes: Path = Path()
    fatal: int = -1
    crew: int = 2

    def open(self, share: Share) -> Callable[[int], Any]:
        (self.notes / str(os.getpid())).touch()
        work = super().open(share)
        while len(list(self.notes.iterdir())) < self.crew:
            time.sleep(0.01)

        def until_fatal(index: int) -> Any:
            if index == self.fatal and not (self.notes / "killed").exists():
                (self.notes / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return work(index)

        return until_fatal

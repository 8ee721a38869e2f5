"""What a run leaves to look at: CSV files, event files for TensorBoard, and lines on the terminal. Called by run.py.

RUN/training.csv    iteration, epoch, batches, loss, learning_rate, seconds
RUN/validation.csv  iteration, data_set, metric, value
RUN/tensorboard     the same and pictures, if tensorboardX is installed (extra `training`)
"""

from __future__ import annotations

import csv
import io
import time
from collections import deque
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import optional_module
from ..files import write_atomically

TRAINING_COLUMNS = ("iteration", "epoch", "batches", "loss", "learning_rate", "seconds")
VALIDATION_COLUMNS = ("iteration", "data_set", "metric", "value")
_AVERAGED = 50  # iterations that the remaining time is estimated from
_QUIET_SECONDS = 5.0  # at least this long between two lines of progress


class _Table:
    """A CSV file that is appended to; rows after the iteration that a run goes on from are dropped."""

    def __init__(self, path: Path, columns: tuple[str, ...], iteration: int) -> None:
        self.path, self.columns = path, columns
        rows: list[list[str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= iteration]
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))

    def add(self, *values: Any) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(values)


def duration(seconds: float) -> str:
    """3 h 05 min, 12 min 07 s, 4.2 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class RunLog:
    """The records of a run that goes on from `iteration`."""

    def __init__(
        self,
        folder: Path,
        iteration: int,
        last: int,
        say: Callable[[str], None],
        show: Callable[[int, str], None] | None = None,
    ) -> None:
        """last: how many iterations there are to be. say: prints a line. show: moves a progress bar to an iteration,
        with a text; without one, lines tell of the progress."""
        self._training = _Table(folder / "training.csv", TRAINING_COLUMNS, iteration)
        self._validation = _Table(folder / "validation.csv", VALIDATION_COLUMNS, iteration)
        self._last, self._say, self._show = last, say, show
        self._recent: deque[float] = deque(maxlen=_AVERAGED)
        self._spoke = -_QUIET_SECONDS
        self._writer: Any = None
        if find_spec("tensorboardX") is not None:
            writer = optional_module("tensorboardX", "writing event files").SummaryWriter
            self._writer = writer(str(folder / "tensorboard"), purge_step=iteration + 1)
        else:
            say("marigold: no event files for TensorBoard: pip install 'marigold-c[training]'")

    def iteration(
        self, iteration: int, epoch: int, batches: int, loss: float, learning_rate: float, seconds: float
    ) -> None:
        self._training.add(iteration, epoch, batches, f"{loss:.9g}", f"{learning_rate:.9g}", f"{seconds:.3f}")
        self._scalars(iteration, {"train/loss": loss, "lr": learning_rate, "batches": batches})
        self._recent.append(seconds)
        if self._show is not None:
            self._show(iteration, f"epoch {epoch}, loss {loss:.5f}")
            return
        now = time.monotonic()
        if now - self._spoke >= _QUIET_SECONDS or iteration == self._last:
            self._spoke = now
            left = (self._last - iteration) * sum(self._recent) / len(self._recent)
            self._say(
                f"iteration {iteration}/{self._last} (epoch {epoch}): loss {loss:.5f}, {seconds:.2f} s, "
                f"{duration(left)} left"
            )

    def validation(self, iteration: int, data_set: str, values: Mapping[str, float]) -> None:
        for metric, value in values.items():
            self._validation.add(iteration, data_set, metric, f"{value:.9g}")
        self._scalars(iteration, {f"val/{data_set}/{metric}": value for metric, value in values.items()})
        shown = ", ".join(f"{metric} {value:.4g}" for metric, value in values.items())
        self._say(f"iteration {iteration}: {data_set}: {shown}")

    def picture(self, iteration: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """pixels: (H, W, 3)."""
        if self._writer is not None:
            self._writer.add_image(name, pixels, iteration, dataformats="HWC")

    def _scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

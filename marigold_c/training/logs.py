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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic_files import write_atomically
from ..extras import install_command, optional_module
from ..messages import explain

TRAINING_COLUMNS = ("iteration", "epoch", "batches", "loss", "learning_rate", "seconds")
VALIDATION_COLUMNS = ("iteration", "data_set", "metric", "value")
_AVERAGED = 50  # iterations that the remaining time is estimated from
_FLUSH_SECONDS = 60.0  # between two times that events are brought to the disk
_QUIET_SECONDS = 5.0  # at least this long between two lines of progress


class _Table:
    """A CSV file that is appended to; rows after the iteration that a run goes on from are dropped. Where the disk is
    full, rows wait until there is room again."""

    def __init__(self, path: Path, columns: tuple[str, ...], iteration: int) -> None:
        self.path, self.columns = path, columns
        rows: list[list[str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= iteration]
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))
        self._size = len(text.getvalue().encode())
        self._waiting = io.StringIO(newline="")

    def add(self, *values: Any) -> None:
        """OSError: the row, and perhaps others, is not written yet."""
        csv.writer(self._waiting, lineterminator="\n").writerow(values)
        rows = self._waiting.getvalue().encode()
        with self.path.open("r+b") as file:
            file.seek(self._size)  # over what an attempt that failed may have left
            file.write(rows)
        self._size += len(rows)
        self._waiting = io.StringIO(newline="")


class _EventFile:
    """What TensorBoard reads, written at once: tensorboardX's own writer leaves it to a thread, which ends with the
    first error and then lets everybody wait for ever."""

    def __init__(self, folder: Path, first: int) -> None:
        """Events from iteration `first` on in older files are not to be shown."""
        folder.mkdir(exist_ok=True)
        optional_module("tensorboardX", "writing event files")
        self._messages = import_module("tensorboardX.proto.event_pb2")
        self._summary = import_module("tensorboardX.summary")
        self._file = import_module("tensorboardX.event_file_writer").EventsWriter(str(folder / "events"))
        start = self._messages.SessionLog(status=self._messages.SessionLog.START)
        self._write(step=first, session_log=start)
        self._flushed = time.monotonic()

    def _write(self, **content: Any) -> None:
        self._file.write_event(self._messages.Event(wall_time=time.time(), **content))

    def add_scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._write(step=iteration, summary=self._summary.scalar(name, value))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def add_picture(self, iteration: int, name: str, pixels: NDArray[np.uint8]) -> None:
        self._write(step=iteration, summary=self._summary.image(name, pixels, dataformats="HWC"))

    def flush(self) -> None:
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()


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
        self._complained: set[str] = set()
        self._events: _EventFile | None = None
        if find_spec("tensorboardX") is not None:
            self._events = _EventFile(folder / "tensorboard", iteration + 1)
        else:
            say(f"marigold: no event files for TensorBoard: {install_command('training')}")

    def iteration(
        self, iteration: int, epoch: int, batches: int, loss: float, learning_rate: float, seconds: float
    ) -> None:
        row = (iteration, epoch, batches, f"{loss:.9g}", f"{learning_rate:.9g}", f"{seconds:.3f}")
        with self._complaining(self._training.path, "its rows wait until there is room"):
            self._training.add(*row)
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
            with self._complaining(self._validation.path, "its rows wait until there is room"):
                self._validation.add(iteration, data_set, metric, f"{value:.9g}")
        self._scalars(iteration, {f"val/{data_set}/{metric}": value for metric, value in values.items()})
        shown = ", ".join(f"{metric} {value:.4g}" for metric, value in values.items())
        self._say(f"iteration {iteration}: {data_set}: {shown}")

    def picture(self, iteration: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """pixels: (H, W, 3)."""
        self._to_events(lambda events: events.add_picture(iteration, name, pixels))

    def _scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        self._to_events(lambda events: events.add_scalars(iteration, values))

    def _to_events(self, write: Callable[[_EventFile], None]) -> None:
        """Curves are no reason to stop a run."""
        with self._complaining(Path("tensorboard"), "nothing more is written for TensorBoard"):
            events, self._events = self._events, None
            if events is not None:
                write(events)
                self._events = events

    @contextmanager
    def _complaining(self, path: Path, consequence: str) -> Iterator[None]:
        """What cannot be written is told once for each file."""
        try:
            yield
        except OSError as error:
            if path.name not in self._complained:
                self._complained.add(path.name)
                self._say(f"marigold: warning: {path.name} cannot be written, {consequence}: {explain(error)}")

    def close(self) -> None:
        self._to_events(lambda events: events.close())

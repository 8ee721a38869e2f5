"""Curves: CSV files and event files, and what becomes of them on a full disk."""

from __future__ import annotations

import csv
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marigold_c.training import logs
from marigold_c.training.logs import RunLog


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def open_log(folder: Path, said: list[str], iteration: int = 0) -> RunLog:
    return RunLog(folder, iteration, 100, said.append)


def learn(log: RunLog, iteration: int) -> None:
    log.iteration(iteration, 1, 2 * iteration, 1 / iteration, 1e-3, 0.5)


class Disk:
    """Stands in for open(): files take `room` more bytes, and of the write that has none they keep a part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 10**9
        whole = Path.open

        def open_file(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
            file = whole(path, mode, *args, **options)
            if mode != "r+b":
                return file
            write = file.write

            class Full:
                def __enter__(self) -> Any:
                    return self

                def __exit__(self, *_: Any) -> None:
                    file.close()

                def seek(self, place: int) -> None:
                    file.seek(place)

                def write(_, data: bytes) -> None:
                    write(data[: self.room])
                    if len(data) > self.room:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    self.room -= len(data)

            return Full()

        monkeypatch.setattr(Path, "open", open_file)


def test_rows_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, said = Disk(monkeypatch), []
    log = open_log(tmp_path, said)
    learn(log, 1)
    disk.room = 7
    learn(log, 2)
    learn(log, 3)
    complaints = [text for text in said if "training.csv cannot be written" in text]
    assert len(complaints) == 1 and "No space left on device" in complaints[0]
    disk.room = 10**9
    learn(log, 4)
    log.close()
    table = rows(tmp_path / "training.csv")
    assert [row[0] for row in table] == ["iteration", "1", "2", "3", "4"]
    assert all(len(row) == len(logs.TRAINING_COLUMNS) for row in table)


def test_going_on_drops_what_came_after(tmp_path: Path) -> None:
    log = open_log(tmp_path, [])
    for iteration in (1, 2, 3):
        learn(log, iteration)
    log.validation(2, "val", {"delta1_acc": 0.5})
    log.close()
    with (tmp_path / "training.csv").open("a") as file:
        file.write("4,1,")  # a row that was cut off
    log = open_log(tmp_path, [], 2)
    learn(log, 3)
    log.close()
    assert [row[0] for row in rows(tmp_path / "training.csv")] == ["iteration", "1", "2", "3"]
    assert rows(tmp_path / "validation.csv")[1:] == [["2", "val", "delta1_acc", "0.5"]]


def events_of(folder: Path) -> Iterator[Any]:
    """The events of all files, oldest first: length, a checksum, the message, another checksum."""
    messages = pytest.importorskip("tensorboardX.proto.event_pb2")
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield messages.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_event_files(tmp_path: Path) -> None:
    log = open_log(tmp_path, [])
    learn(log, 1)
    log.picture(1, "val/0001", np.zeros((4, 6, 3), np.uint8))
    log.validation(1, "val", {"delta1_acc": 0.5})
    log.close()
    events = list(events_of(tmp_path / "tensorboard"))
    values = {value.tag: value for event in events for value in event.summary.value}
    assert values["train/loss"].simple_value == 1 and values["lr"].simple_value == pytest.approx(1e-3)
    assert values["val/val/delta1_acc"].simple_value == 0.5
    assert (values["val/0001"].image.height, values["val/0001"].image.width) == (4, 6)
    assert {event.step for event in events if event.summary.value} == {1}
    assert any(event.HasField("session_log") and event.step == 1 for event in events)


def test_event_files_that_cannot_be_written_keep_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("tensorboardX.event_file_writer")
    said: list[str] = []
    log = open_log(tmp_path, said)
    learn(log, 1)

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.EventsWriter, "write_event", fail)
    for iteration in range(2, 60):
        learn(log, iteration)
    log.close()
    assert sum("tensorboard cannot be written, nothing more is written" in text for text in said) == 1
    assert len(rows(tmp_path / "training.csv")) == 60

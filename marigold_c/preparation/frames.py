"""What the preparations of published data sets share: reading raw files, writing pictures and lists, going on where an
interrupted run was, and naming the frame that fails.

Called by hypersim.py, interiorverse.py, sintel.py and vkitti.py. The layouts are those of the preprocessing scripts of
prs-eth/Marigold (script/*/dataset_preprocess), which its data sets and this package's read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..atomic_files import write_atomically
from ..extras import MissingExtra, optional_module
from ..messages import explain

Size = tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """What became of a frame. members: the parts of its line in the list, empty if it is not listed.

    skipped: why the protocol leaves it out. error: what went wrong.
    """

    frame: str
    members: tuple[str, ...] = ()
    skipped: str | None = None
    error: str | None = None


def attempt(frame: str, prepare: Callable[[], Outcome]) -> Outcome:
    """prepare(), or an outcome that says what went wrong with the frame."""
    try:
        return prepare()
    except (MemoryError, MissingExtra):
        raise
    except Exception as error:  # files are untrusted, and their libraries raise nearly every class
        return Outcome(frame, error=explain(error))


def read_table(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has at least these columns. ValueError if it has not."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        absent = [name for name in columns if name not in (reader.fieldnames or ())]
        if absent:
            raise ValueError(f"{path}: no column {', '.join(absent)}")
        return list(reader)


def read_hdf5(path: Path) -> NDArray[Any]:
    """The array `dataset` of an HDF5 file."""
    h5py = optional_module("h5py", "reading HDF5")
    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file["dataset"])
    except (OSError, KeyError) as error:
        raise ValueError(f"{path}: cannot be read as HDF5 with an array 'dataset': {error}") from error


def check_shape(path: Path, values: NDArray[Any], shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"{path}: has shape {values.shape}, not {shape}")


def write_png(path: Path, values: NDArray[Any]) -> None:
    """uint8 (H, W, 3) or uint16 (H, W), whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: Image.fromarray(values).save(file, format="PNG"))


def write_npy(path: Path, values: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: np.save(file, values))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(text.encode()))


def write_list(path: Path, outcomes: Sequence[Outcome], prefix: str = "") -> None:
    """A line for each listed frame, `prefix` before each of its members."""
    lines = [" ".join(prefix + member for member in outcome.members) for outcome in outcomes if outcome.members]
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, text.getvalue())


def nearest_exact(values: NDArray[Any], size: Size) -> NDArray[Any]:
    """Resized by taking, for each pixel, the one whose area has its centre: torch's "nearest-exact"."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
        for new, old in zip(size, values.shape[:2], strict=True)
    )
    resized: NDArray[Any] = values[rows[:, None], columns[None]]
    return resized


def unit_vectors(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Of length 1; the zero vector stays."""
    wide = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
    return unit


def sub_folders(path: Path) -> list[Path]:
    """In order of names. FileNotFoundError if there is no such folder, ValueError if it has none."""
    if not path.is_dir():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    found = sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))
    if not found:
        raise ValueError(f"{path}: has no folders")
    return found


Progress = Callable[[Iterable[Any]], Iterator[Any]]

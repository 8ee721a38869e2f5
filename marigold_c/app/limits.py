"""What the page takes in: how large files and images may be, and how a file becomes pixels and a name for results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..images.point_clouds import ASSUMED_FIELD_OF_VIEW
from ..images.readers import InputError, decode_image, read_field_of_view
from ..messages import explain_for
from .command import Pixels

LONGEST_NAME = 100  # characters


@dataclass(frozen=True)
class Limits:
    """bytes: of an upload. pixels: of an image. members, steps, resolution: of one request. models: open at once.
    waiting: requests in line; further ones are turned away. frames: of a video."""

    bytes: int = 64 * 2**20
    pixels: int = 50_000_000
    members: int = 20
    steps: int = 50
    resolution: int = 2048
    models: int = 2
    waiting: int = 20
    frames: int = 300


@dataclass(frozen=True, eq=False)  # two are equal if they are one
class Photograph:
    """name: of its results, without an ending. file: as it was called, for the lines to copy. notes: what was left
    out. field_of_view: degrees by its EXIF, or None."""

    name: str
    file: str
    pixels: Pixels
    notes: tuple[str, ...] = ()
    field_of_view: float | None = None

    def field_of_view_for(self, asked: float) -> float:
        """Degrees: as asked for, or with 0 by the EXIF, or as assumed where that says nothing."""
        return float(asked) or self.field_of_view or ASSUMED_FIELD_OF_VIEW


class Refused(ValueError):
    """What was sent is not taken; the message is for who sent it."""


def printable_name(name: str) -> str:
    """The last part of a name that somebody sent, without anything that a path, a terminal or a page could take up."""
    last = PurePosixPath(name.replace("\\", "/")).name
    kept = "".join(one if one.isprintable() and one not in '<>&"' else "_" for one in last).strip().lstrip(".-")
    stem, dot, ending = kept.rpartition(".")
    shortened = f"{stem[:LONGEST_NAME]}.{ending[:10]}" if dot and stem else kept[:LONGEST_NAME]
    return shortened or "image"


def read_photograph(path: Path, sent_name: str, limits: Limits) -> Photograph:
    """The file as the command would read it. Refused: too large, not an image, damaged; says which and the numbers."""
    file = printable_name(sent_name)
    size = path.stat().st_size
    if size > limits.bytes:
        raise Refused(f"{file}: {size} bytes; this page takes files of up to {limits.bytes}")
    notes: list[str] = []
    data = path.read_bytes()
    try:
        pixels: Any = decode_image(data, max_pixels=limits.pixels, say=notes.append)
    except (InputError, ImportError) as error:
        raise Refused(
            explain_for(file, error).replace("; --max-pixels (in Python max_pixels) raises it", "")
        ) from error
    stem = PurePosixPath(file).stem
    return Photograph(stem or "image", file, pixels, tuple(notes), read_field_of_view(data))

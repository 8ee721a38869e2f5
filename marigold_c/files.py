"""Files of the command: which images are meant, reading them, writing results whole or not at all."""

from __future__ import annotations

import glob
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Input:
    """One image: what the user calls it, and the name of its results. `path` is None for standard input."""

    label: str
    name: str
    path: Path | None


class InputError(ValueError):
    """An input cannot be read; the message does not name it."""


def _images_in(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return sorted(found)


def _expand(argument: str) -> Iterator[tuple[str, Path | None]]:
    """(label, path) of each image that an argument means; a path that does not exist is left to fail by name later."""
    if argument == "-":
        yield "standard input", None
        return
    path = Path(argument)
    if path.is_dir():
        yield from ((str(one), one) for one in _images_in(path))
    elif path.exists() or not glob.has_magic(argument):
        yield argument, path
    else:
        # A pattern means images: its other matches (a text file, a folder) are passed over.
        # Path.glob refuses absolute patterns.
        matches = sorted(Path(one) for one in glob.glob(argument, recursive=True))  # noqa: PTH207
        images = [one for one in matches if one.suffix.lower() in IMAGE_SUFFIXES and one.is_file()]
        yield from ((str(one), one) for one in images or [path])


def find_inputs(arguments: Iterable[str]) -> list[Input]:
    """The images of all arguments, each once. Where two have one stem, the later gets another name (_2, _3, ...)."""
    found: list[tuple[str, Path | None]] = []
    seen: set[Path | None] = set()
    for argument in arguments:
        for label, path in _expand(argument):
            key = path.absolute() if path else None
            if key not in seen:
                seen.add(key)
                found.append((label, path))
    stems = ["stdin" if path is None else path.stem for _, path in found]
    taken: set[str] = set()
    inputs = []
    for (label, path), stem in zip(found, stems, strict=True):
        name, number = stem, 1
        # A new name must be neither given already nor the stem of an input that follows.
        while name in taken or (number > 1 and name in stems):
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        inputs.append(Input(label, name, path))
    return inputs


def read_image(source: Input) -> Image.Image:
    """The decoded image, turned as its EXIF orientation says. InputError or OSError if that is impossible."""
    data = sys.stdin.buffer.read() if source.path is None else source.path.read_bytes()
    if not data:
        raise InputError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, which may be meant; beyond twice that Pillow raises
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly every class on damaged files
        raise InputError(f"cannot be read as an image: {error}") from error


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """`path` appears whole, by renaming a temporary file beside it, or not at all."""
    handle, temporary_name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    temporary = Path(temporary_name)
    try:
        with os.fdopen(handle, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for the owner only; results are ordinary files.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise

"""Files of images: which ones are meant by paths, folders, patterns and archives, and reading them."""

from __future__ import annotations

import glob
import re
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from .readers import IMAGE_SUFFIXES, LARGEST_PIXELS, InputError, decode_image, read_field_of_view

_ARCHIVE_SUFFIX = ".tar"
_LARGEST_FILE = 2**31  # bytes of one image
_NAMED = 5  # of a folder's files that are no images


@dataclass(frozen=True)
class Input:
    """One image: what the user calls it, and the name of its results.

    path: None for standard input. span: where in the file the image lies, (offset, bytes), if it is a member of an
    archive. fault: why it cannot be read, where that was found when it was listed. renamed: another input has its name.
    """

    label: str
    name: str
    path: Path | None
    span: tuple[int, int] | None = None
    fault: str | None = None
    renamed: bool = False


@dataclass(frozen=True)
class _Found:
    label: str
    stem: str
    path: Path | None
    span: tuple[int, int] | None = None
    fault: str | None = None


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == _ARCHIVE_SUFFIX and path.is_file()


def _printable(text: str) -> str:
    """A name out of an archive without what would steer a terminal."""
    return "".join(one if one.isprintable() else "?" for one in text)


def _member_stem(name: str) -> str:
    """The name of a member's results: its last part, without anything that a path could be made of."""
    stem = PurePosixPath(name).stem.lstrip(".").replace("\\", "_")
    return _printable(stem) or "image"


def _check_end(path: Path, offset: int) -> None:
    """tarfile takes a damaged header for the end of the archive; the real one is a block of zeros."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"damaged or cut off at byte {offset}")


def _members(path: Path) -> Iterator[_Found]:
    """The images of an uncompressed tar in order. Links, devices and sparse files are no images; nothing is unpacked.

    Where the archive is damaged, an input that stands for the rest fails by name later.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if not member.isreg() or name.suffix.lower() not in IMAGE_SUFFIXES or name.name.startswith("._"):
                    continue
                label = f"{path}:{_printable(member.name.removeprefix('./'))}"
                fault = "sparse files in archives are not read" if member.issparse() else None
                yield _Found(label, _member_stem(member.name), path, (member.offset_data, member.size), fault)
            _check_end(path, archive.offset)
    except MemoryError:
        raise
    except Exception as error:  # tarfile raises many classes on damaged headers
        yield _Found(str(path), path.stem, path, None, f"cannot be read as a tar to its end: {error}")


def _of_path(label: str, path: Path) -> Iterator[_Found]:
    if _is_archive(path):
        yield from _members(path)
    else:
        yield _Found(label, path.stem, path)


def _as_people_count(path: Path) -> tuple[list[str | int], str]:
    """A key for sorting in which 2 comes before 10."""
    parts = re.split("([0-9]+)", str(path))
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], str(path)


def _in_folder(folder: Path, say: Callable[[str], None]) -> Iterator[_Found]:
    """The images of a folder; what else is there is named, but for hidden files."""
    entries = sorted(folder.iterdir(), key=_as_people_count)
    yield from (_Found(str(one), one.stem, one) for one in entries if _is_image(one))
    others = [one for one in entries if not _is_image(one) and not one.name.startswith(".")]
    if others:
        names = [_printable(one.name) + ("/" if one.is_dir() else "") for one in others[:_NAMED]]
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        say(f"{folder}: left out, no images by their names: {', '.join(names)}{more}")


def _expand(argument: str, say: Callable[[str], None]) -> Iterator[_Found]:
    """Each image that an argument means; a path that does not exist is left to fail by name later."""
    if argument == "-":
        yield _Found("standard input", "stdin", None)
        return
    path = Path(argument)
    if path.is_dir():
        yield from _in_folder(path, say)
    elif path.exists() or not glob.has_magic(argument):
        yield from _of_path(argument, path)
    else:
        # A pattern means images and archives: its other matches (a text file, a folder) are passed over.
        # Path.glob refuses absolute patterns.
        matches = sorted(map(Path, glob.glob(argument, recursive=True)), key=_as_people_count)  # noqa: PTH207
        meant = [one for one in matches if _is_image(one) or _is_archive(one)]
        for one in meant:
            yield from _of_path(str(one), one)
        if not meant:
            yield _Found(argument, path.stem, path, fault="no image and no archive matches this pattern")


def _has_results(one: _Found) -> bool:
    return one.fault is None and (one.path is None or one.path.exists())


def find_inputs(arguments: Iterable[str], say: Callable[[str], None] = lambda _line: None) -> list[Input]:
    """The images of all arguments, each once. Where two have one stem, the later gets another name (_2, _3, ...).

    What cannot be read, as it is not there or damaged, keeps its stem and takes no name from others: it has no results.
    `say` is told, in a line for each folder, which of its files are left out.
    """
    found: dict[Any, _Found] = {}
    for argument in arguments:
        for one in _expand(argument, say):
            found.setdefault((one.path.absolute() if one.path else None, one.span), one)
    stems = {one.stem for one in found.values() if _has_results(one)}
    taken: set[str] = set()
    inputs = []
    numbers: dict[str, int] = {}
    for one in found.values():
        if not _has_results(one):
            inputs.append(Input(one.label, one.stem, one.path, one.span, one.fault))
            continue
        name, number = one.stem, numbers.get(one.stem, 1)
        # A new name must be neither given already nor the stem of an input that follows.
        while name in taken or (number > 1 and name in stems):
            number += 1
            name = f"{one.stem}_{number}"
        taken.add(name)
        numbers[one.stem] = number
        inputs.append(Input(one.label, name, one.path, one.span, one.fault, renamed=name != one.stem))
    return inputs


def _read_bytes(source: Input) -> bytes:
    if source.path is None:
        data = sys.stdin.buffer.read(_LARGEST_FILE + 1)
    else:
        offset, size = source.span or (0, _LARGEST_FILE + 1)
        with source.path.open("rb") as file:
            if offset:
                file.seek(offset)
            data = file.read(min(size, _LARGEST_FILE + 1))
        if source.span and len(data) < min(size, _LARGEST_FILE + 1):
            raise InputError(f"the archive ends after {len(data)} of the image's {size} bytes")
    if len(data) > _LARGEST_FILE:
        raise InputError(f"the file is larger than {_LARGEST_FILE} bytes")
    return data


def read_image(
    source: Input,
    tone_map: str = "auto",
    max_pixels: int = LARGEST_PIXELS,
    say: Callable[[str], None] = lambda _line: None,
) -> NDArray[Any]:
    """The image as readers.decode_image gives it: (H, W, 3) of uint8, uint16, or float32 in [0, 1]. `say` is told what
    is left out of the file.

    InputError or OSError if that is impossible, MissingExtra if it takes a library that is not installed.
    """
    if source.fault is not None:
        raise InputError(source.fault)
    return decode_image(_read_bytes(source), tone_map, max_pixels, lambda line: say(f"{source.label}: {line}"))


def field_of_view(source: Input) -> float | None:
    """Degrees across the longer side, where the photograph's EXIF has the focal length that would give the same view on
    film of 36 mm; else None."""
    try:
        return read_field_of_view(_read_bytes(source))
    except (OSError, InputError):
        return None

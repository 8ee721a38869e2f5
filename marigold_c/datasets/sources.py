"""Where the files of a data set lie: a folder or a plain tar. Both give a file's bytes by its name.

Called by dataset.py and folders.py. A source can be pickled, and used after a fork or from several threads: reading has
no position that could be shared.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ..errors import DatasetError, DatasetNotFoundError
from ..images.readers import InputError
from .tar_index import TarIndex, open_index
from .tar_scan import BLOCK

_LARGEST_FILE = 2**31  # bytes of one file of a sample
_AT_ONCE = 1 << 30  # the system reads at most a little less than 2 GiB in one call


class Source(Protocol):
    """Files by their names. read raises InputError or OSError; `most` asks for that many first bytes only."""

    path: Path

    def read(self, name: str, most: int | None = None) -> bytes: ...

    def names(self) -> Iterator[str]: ...

    def close(self) -> None: ...


def _read_at(handle: int, size: int, offset: int) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        part = os.pread(handle, min(size, _AT_ONCE), offset)
        if not part:
            raise InputError(f"the file ends {size} bytes too early")
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_length(size: int) -> None:
    if size > _LARGEST_FILE:
        raise InputError(f"is larger than {_LARGEST_FILE} bytes: {size}")


class FolderSource:
    """The files below a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str, most: int | None = None) -> bytes:
        """InputError: missing, no file, too large. OSError: the system refuses."""
        try:
            handle = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise InputError(f"there is no such file in {self.path}") from None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise InputError("is no file")
            _check_length(status.st_size)
            return _read_at(handle, status.st_size if most is None else min(most, status.st_size), 0)
        finally:
            os.close(handle)

    def names(self) -> Iterator[str]:
        """All files, sorted by name."""
        found = ((Path(folder) / file for file in files) for folder, _, files in os.walk(self.path))
        return iter(sorted(path.relative_to(self.path).as_posix() for paths in found for path in paths))

    def close(self) -> None:
        """Nothing is kept open."""


class TarSource:
    """The files in a plain tar, found through its index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = -1
        self._open()

    def _open(self) -> None:
        try:
            self._handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DatasetError(f"{self.path}: {error.strerror}") from error
        try:
            self._index: TarIndex = open_index(self._handle, self.path)
        except BaseException:
            self.close()
            raise

    def read(self, name: str, most: int | None = None) -> bytes:
        """InputError: no such member, no file, too large. DatasetError: the tar or its index has changed."""
        if self._handle < 0:
            raise ValueError(f"{self.path} is closed")
        member = self._index.find(name)
        if member is None:
            raise InputError(f"there is no such member in {self.path}")
        _check_length(member.size)
        if not member.fits(os.pread(self._handle, BLOCK, member.header)):
            raise InputError(f"{self.path} has changed since its index was made")
        return _read_at(self._handle, member.size if most is None else min(most, member.size), member.data)

    def names(self) -> Iterator[str]:
        """All files, sorted by name."""
        return iter(sorted(self._index.names()))

    def close(self) -> None:
        """Closes the archive; it is not read again."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            self.close()

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.path = path
        self._handle = -1
        self._open()


def open_source(path: Path) -> Source:
    """The folder or tar at `path`; where only the other of the two is there (NAME and NAME.tar), that one.

    DatasetNotFoundError: there is neither. DatasetError: the archive cannot be read.
    """
    other = path.with_suffix("") if path.suffix == ".tar" else path.with_name(path.name + ".tar")
    for one in (path, other):
        if one.is_dir():
            return FolderSource(one)
        if one.is_file():
            return TarSource(one)
    raise DatasetNotFoundError(f"the data set is neither at {path} nor at {other}")

"""Files that appear whole or not at all. Called by everything that writes."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """`path` appears whole or not at all.

    The file has no name until it is whole, so a process that is killed leaves nothing behind. Where there are no such
    files (some network file systems), it is .NAME.*.part until then; and for the moment between its first name and its
    own where `path` is replaced, since a link cannot replace.
    """
    try:
        _write_unnamed(path, write)
    except OSError as error:
        if error.errno and error.filename is None:  # of a full disk, for example
            error.filename = str(path)
        raise


def _write_unnamed(path: Path, write: Callable[[BinaryIO], object]) -> None:
    try:
        handle = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in _NO_UNNAMED_FILES:
            raise
        _write_and_rename(path, write)
        return
    with os.fdopen(handle, "w+b") as file:
        _write_through(file, write)
        _name(file, path)


# From file systems without unnamed files, and from kernels that take the flag for O_DIRECTORY.
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


def _write_through(file: BinaryIO, write: Callable[[BinaryIO], object]) -> None:
    write(file)
    file.flush()
    os.fsync(file.fileno())


def _name(file: BinaryIO, path: Path) -> None:
    """Gives the whole, unnamed file its name; in the place of an older file by way of another name."""
    source = f"/proc/self/fd/{file.fileno()}"
    # Beside an absolute path a descriptor says nothing, but with one Python calls the function that follows links.
    unused = file.fileno()
    try:
        os.link(source, path, src_dir_fd=unused, follow_symlinks=True)
    except FileExistsError:
        temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.{id(file):x}.part")
        os.link(source, temporary, src_dir_fd=unused, follow_symlinks=True)
        try:
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise


def _write_and_rename(path: Path, write: Callable[[BinaryIO], object]) -> None:
    handle, temporary_name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    temporary = Path(temporary_name)
    try:
        with os.fdopen(handle, "w+b") as file:
            _write_through(file, write)
        # mkstemp makes files for the owner only; results are ordinary files.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise

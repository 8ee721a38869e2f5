"""Members of a plain tar found by name in a memory-mapped index, so that opening a large archive takes no time.

Called by sources.py. The index is built once (tar_scan.py), written beside the tar, or into the user's cache folder
where the tar's own may not be written, and used while the tar keeps its size and time of change.

Layout of the file, little-endian; all sections begin at a multiple of 8 bytes:
    header   64 bytes, _HEADER: what it is, the tar's size and time of change, how many members and bytes follow
    hashes   uint64 (n), ascending: BLAKE2b of the name, 8 bytes
    records  _RECORD (n), in the same order
    names    UTF-8, one after the other
Whoever looks a name up touches a few pages of each section. Nothing in the file is trusted: every number is checked
against the tar before it is used, and a checksum over a member's header block and place tells whether both are still
what they were.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic_files import write_atomically
from ..errors import DatasetError
from ..images.readers import InputError
from .names import LONGEST_NAME
from .tar_scan import BLOCK, FILE, LINK, NOTHING, SPARSE, Found, TarScan

SUFFIX = ".members"  # of the index beside its tar
_MAGIC, _VERSION = b"MGTARIDX", 1
# Magic, version, bytes of a record, size and time of the tar, n, bytes of names, checksum of all that follows.
_HEADER = struct.Struct("<8sIIqqQQI12x")
_RECORD = np.dtype(
    [
        *(("name", "<u8"), ("header", "<u8"), ("data", "<u8"), ("size", "<u8")),
        *(("name_length", "<u4"), ("checksum", "<u4"), ("kind", "<u4"), ("unused", "<u4")),
    ]
)
_MOST_LINKS = 16  # from one link to the next
_REASONS = {
    SPARSE: "is stored without its holes (tar --sparse), which is not read; make the archive without that option",
    LINK: "is a link to a file that is not in the archive",
    NOTHING: "is no file",
}


@dataclass(frozen=True)
class Member:
    """Where a file lies in the archive: its header block and its content, in bytes."""

    header: int
    data: int
    size: int
    checksum: int

    def fits(self, block: bytes) -> bool:
        """Whether `block`, read from the archive at `header`, is what was there when the index was built."""
        return _checksum(block, self.header, self.data, self.size) == self.checksum


def _checksum(block: bytes, *places: int) -> int:
    """CRC-32 of a member's header block and of where the index says that it lies."""
    return zlib.crc32(struct.pack("<QQQ", *places), zlib.crc32(block))


def _hash(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def _follow(found: dict[str, Found], member: Found) -> Found:
    """The file that a link stands for, under the link's name; the link itself if there is none."""
    target = member
    for _ in range(_MOST_LINKS):
        if target.kind != LINK:
            return replace(target, name=member.name)
        if target.target not in found:
            break
        target = found[target.target]
    return member


def build_index(handle: int, path: Path, size: int, modified_ns: int) -> bytes:
    """The bytes of the index of the tar in the open file `handle`. Of members with one name the last counts, as in tar.

    DatasetError: the archive is damaged or hostile.
    """
    found = {member.name: member for member in TarScan(handle, size, path).members()}
    members = [_follow(found, member) for member in found.values() if member.kind != NOTHING]
    names = [member.name.encode("utf-8", "surrogateescape") for member in members]
    hashes = np.array([_hash(name) for name in names], "<u8")
    lengths = np.array([len(name) for name in names], np.uint64)
    records = np.zeros(len(members), _RECORD)
    records["name"] = np.cumsum(lengths) - lengths
    records["name_length"] = lengths
    for key in ("header", "data", "size", "kind"):
        records[key] = [getattr(member, key) for member in members]
    places = ((member.header, member.data, member.size) for member in members)
    records["checksum"] = [_checksum(os.pread(handle, BLOCK, place[0]), *place) for place in places]
    order = np.argsort(hashes, kind="stable")
    body = hashes[order].tobytes() + records[order].tobytes() + b"".join(names)
    fields = (_MAGIC, _VERSION, _RECORD.itemsize, size, modified_ns, len(members), int(lengths.sum()))
    return _HEADER.pack(*fields, zlib.crc32(body)) + body


class TarIndex:
    """The index in `buffer` (bytes or a mapping) of a tar of `tar_size` bytes. `origin` names it in messages.

    DatasetError: the buffer is no index of this version, or not as long as it says.
    """

    def __init__(self, buffer: Any, tar_size: int, modified_ns: int, origin: str) -> None:
        self._buffer, self._tar_size, self._origin = buffer, tar_size, origin
        if len(buffer) < _HEADER.size:
            raise self._damaged("it is too short")
        magic, version, record_bytes, size, modified, count, name_bytes, self._checksum = _HEADER.unpack_from(buffer)
        if (magic, version, record_bytes) != (_MAGIC, _VERSION, _RECORD.itemsize):
            raise self._damaged("it is of another version")
        if (size, modified) != (tar_size, modified_ns):
            raise self._damaged("the archive has changed since")
        if len(buffer) != _HEADER.size + count * (8 + _RECORD.itemsize) + name_bytes:
            raise self._damaged(f"its length is {len(buffer)} bytes")
        self._hashes: NDArray[np.uint64] = np.frombuffer(buffer, "<u8", count, _HEADER.size)
        self._records = np.frombuffer(buffer, _RECORD, count, _HEADER.size + 8 * count)
        self._names = _HEADER.size + count * (8 + _RECORD.itemsize)
        self._name_bytes = name_bytes

    def _damaged(self, why: str) -> DatasetError:
        return DatasetError(f"{self._origin} is not the index of this archive: {why}; delete it")

    def __len__(self) -> int:
        return len(self._records)

    def _name(self, record: Any) -> bytes:
        start, length = int(record["name"]), int(record["name_length"])
        if length > 4 * LONGEST_NAME or start + length > self._name_bytes:
            raise self._damaged("a name lies outside of it")
        return bytes(self._buffer[self._names + start : self._names + start + length])

    def names(self) -> Iterator[str]:
        """The names of all members that are files, in no particular order."""
        return (self._name(record).decode("utf-8", "surrogateescape") for record in self._records)

    def _check_body(self) -> None:
        """Reads all of the index; asked for only when a name was not found, which damage would also explain."""
        body = memoryview(self._buffer)[_HEADER.size :]
        if zlib.crc32(body) != self._checksum:
            raise self._damaged("its checksum does not fit")

    def find(self, name: str) -> Member | None:
        """Where the member lies; None if there is none of that name.

        InputError: it is there, but no file that can be read. DatasetError: the index is damaged.
        """
        wanted = name.encode("utf-8", "surrogateescape")
        key = np.uint64(_hash(wanted))
        position = int(np.searchsorted(self._hashes, key))
        while position < len(self) and self._hashes[position] == key:
            record = self._records[position]
            if self._name(record) == wanted:
                return self._member(record)
            position += 1
        self._check_body()
        return None

    def _member(self, record: Any) -> Member:
        if record["kind"] != FILE:
            raise InputError(_REASONS.get(int(record["kind"]), "is no file"))
        member = Member(*(int(record[key]) for key in ("header", "data", "size", "checksum")))
        if member.data + member.size > self._tar_size or member.header + BLOCK > self._tar_size:
            raise self._damaged("a member lies beyond the end of the archive")
        return member


def index_paths(tar: Path) -> list[Path]:
    """Where the index of `tar` is looked for, and written if it can be: beside it, then in the user's cache."""
    paths = [tar.with_name(tar.name + SUFFIX)]
    with suppress(RuntimeError):  # there is no home folder
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        digest = hashlib.blake2b(os.fsencode(tar.absolute()), digest_size=16).hexdigest()
        paths.append(cache / "marigold_c" / "tar_index" / f"{tar.name[:80]}.{digest}{SUFFIX}")
    return paths


def _mapped(path: Path, size: int, modified_ns: int) -> TarIndex:
    with path.open("rb") as file:
        return TarIndex(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), size, modified_ns, str(path))


def _store(content: bytes, paths: list[Path]) -> Path | None:
    """Writes the index to the first of the places that takes it."""
    for path in paths:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: file.write(content))
            return path
    return None


def open_index(handle: int, tar: Path) -> TarIndex:
    """The index of the tar in the open file `handle`, built and stored if there is none that fits.

    DatasetError: `tar` is no plain tar, damaged, cut off or hostile, or changed while it was read.
    """
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise DatasetError(f"{tar} is no file")
    state = (status.st_size, status.st_mtime_ns)
    paths = index_paths(tar)
    for path in paths:
        with suppress(OSError, DatasetError, ValueError):  # ValueError: an empty file cannot be mapped
            return _mapped(path, *state)
    content = build_index(handle, tar, *state)
    status = os.fstat(handle)
    if (status.st_size, status.st_mtime_ns) != state:
        raise DatasetError(f"{tar} changed while it was read")
    stored = _store(content, paths)
    return TarIndex(content, *state, f"the index of {tar}") if stored is None else _mapped(stored, *state)

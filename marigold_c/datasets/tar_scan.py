"""The members of a plain tar in the order of the file: header blocks are read, contents are passed over.

Called by tar_index.py. Headers are decoded by tarfile.TarInfo.frombuf; what stands around them (long names, pax
records, sizes, where the next header lies) is checked here, because archives are untrusted: tarfile itself reads a long
name of any length into memory and follows negative sizes backwards.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DatasetError
from .names import clean_name

BLOCK = tarfile.BLOCKSIZE
# A header of a header: a long name, or pax records. POSIX sets no limit; paths and attributes are far below this.
_LARGEST_EXTENSION = 1 << 20
_GZIP, _XZ, _BZIP2, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd"
_PAX_KEYS = ("path", "linkpath", "size")
_SPARSE_CONTINUES, _SPARSE_CONTINUES_AGAIN = 482, 504  # offsets of the flag in a header and in an extension of it
FILE, SPARSE, LINK, NOTHING = range(4)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_EXTENSIONS = (*_PAX, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass(frozen=True)
class Found:
    """A member: where its header block and its content lie, in bytes. target: the name that a link stands for.

    kind: FILE, SPARSE (stored without its holes), LINK, or NOTHING: a folder, a device, a pipe.
    """

    name: str
    kind: int
    header: int
    data: int
    size: int
    target: str = ""


@dataclass
class _Extensions:
    """What the headers before a member's own one say about it."""

    name: str | None = None
    target: str | None = None
    size: int | None = None
    sparse: bool = False


class TarScan:
    """One pass over the archive in the open file `handle`, which has `size` bytes; `path` is for messages."""

    def __init__(self, handle: int, size: int, path: Path) -> None:
        self._handle, self._size, self._path = handle, size, path

    def _fail(self, offset: int, reason: str) -> DatasetError:
        return DatasetError(f"{self._path}: at byte {offset}: {reason}")

    def _block(self, offset: int) -> bytes:
        block = os.pread(self._handle, BLOCK, offset)
        if len(block) < BLOCK:
            raise self._fail(offset, f"the archive ends without its end mark after {self._size} bytes: incomplete?")
        return block

    def _header(self, offset: int, block: bytes) -> tarfile.TarInfo:
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            if offset == 0 and block.startswith((_GZIP, _XZ, _BZIP2, _ZSTD)):
                raise self._fail(0, "a compressed archive; decompress it, so that members can be read alone") from None
            raise self._fail(offset, f"no header of a tar member: {error}") from None

    def _check_extent(self, what: str, offset: int, data: int, size: int) -> None:
        if size < 0 or data + size > self._size:
            end = f"bytes {data} to {data + size}, but the archive has {self._size}"
            raise self._fail(offset, f"{what} would take {end}" if size >= 0 else f"{what} has the size {size}")

    def _extension(self, offset: int, size: int) -> bytes:
        if size > _LARGEST_EXTENSION:
            raise self._fail(offset, f"a long name or pax header of {size} bytes; at most {_LARGEST_EXTENSION}")
        self._check_extent("a long name or pax header", offset, offset + BLOCK, size)
        return os.pread(self._handle, size, offset + BLOCK)

    def _pax_records(self, offset: int, content: bytes) -> dict[str, str]:
        """The records "LENGTH KEY=VALUE\\n" that concern where a member lies and what it is called."""
        records: dict[str, str] = {}
        while content.rstrip(b"\0"):
            digits, _, rest = content.partition(b" ")
            length = int(digits) if digits.isdigit() and len(digits) < 10 else 0
            key, equals, value = rest[: length - len(digits) - 1].partition(b"=")
            if not equals or length > len(content) or not value.endswith(b"\n"):
                raise self._fail(offset, "a damaged pax header")
            name = key.decode("utf-8", "replace")
            if name in _PAX_KEYS or name.startswith("GNU.sparse."):
                records[name] = value[:-1].decode("utf-8", "surrogateescape")
            content = content[length:]
        return records

    def _apply_pax(self, offset: int, content: bytes, known: _Extensions) -> None:
        records = self._pax_records(offset, content)
        known.name = records.get("GNU.sparse.name", records.get("path", known.name))
        known.target = records.get("linkpath", known.target)
        known.sparse |= any(key.startswith("GNU.sparse.") for key in records)
        if "size" in records:
            if not records["size"].isdecimal() or len(records["size"]) > 19:
                raise self._fail(offset, f"a pax header with the size {records['size'][:40]!r}")
            known.size = int(records["size"])

    def _after_sparse_map(self, offset: int) -> int:
        """Where the content of a member of the old GNU sparse type begins: after the blocks of its map."""
        flag = self._block(offset)[_SPARSE_CONTINUES]
        offset += BLOCK
        while flag:
            flag = self._block(offset)[_SPARSE_CONTINUES_AGAIN]
            offset += BLOCK
        return offset

    def _clean(self, offset: int, name: str) -> str:
        try:
            return clean_name(name)
        except ValueError as error:
            raise self._fail(offset, f"the member {name[:200]!r} {error}") from None

    def _learn(self, header: tarfile.TarInfo, offset: int, known: _Extensions) -> None:
        """Takes a header that only says something about the next member, or about all that follow."""
        content = self._extension(offset, header.size)
        if header.type in _PAX:
            self._apply_pax(offset, content, known)
            return
        text = content.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        if header.type == tarfile.GNUTYPE_LONGNAME:
            known.name = text
        else:
            known.target = text

    def _member(self, header: tarfile.TarInfo, offset: int, known: _Extensions) -> Found:
        name = self._clean(offset, header.name if known.name is None else known.name)
        size = header.size if known.size is None else known.size
        data = offset + BLOCK
        if header.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
            target = header.linkname if known.target is None else known.target
            if header.type == tarfile.SYMTYPE:
                target = f"{name.rpartition('/')[0]}/{target}"
            return Found(name, LINK, offset, data, 0, _resolved(target))
        if not header.isreg() and header.type in tarfile.SUPPORTED_TYPES:
            return Found(name, NOTHING, offset, data, 0)
        if header.type == tarfile.GNUTYPE_SPARSE:
            data = self._after_sparse_map(offset)
        self._check_extent(f"the member {name[:200]!r}", offset, data, size)
        sparse = known.sparse or header.type == tarfile.GNUTYPE_SPARSE
        return Found(name, SPARSE if sparse else FILE, offset, data, size)

    def members(self) -> Iterator[Found]:
        """All members. Of those that are not files, links included, nothing can be read.

        DatasetError: not a tar, damaged, cut off; a member that lies beyond the end, or whose name leads elsewhere.
        """
        offset, everywhere, known = 0, _Extensions(), _Extensions()
        while any(block := self._block(offset)):
            header = self._header(offset, block)
            if header.type in _EXTENSIONS:
                for one in (everywhere, known) if header.type == tarfile.XGLTYPE else (known,):
                    self._learn(header, offset, one)
                end = offset + BLOCK + header.size
            else:
                member = self._member(header, offset, known)
                yield member
                end = member.data + member.size
                known = replace(everywhere)
            offset = (end + BLOCK - 1) // BLOCK * BLOCK


def _resolved(path: str) -> str:
    """The target of a link as a name in the archive; empty if it lies outside."""
    parts: list[str] = []
    for part in path.lstrip("/").split("/"):
        if part == ".." and not parts:
            return ""
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)

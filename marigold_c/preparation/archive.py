"""A tar that appears whole or not at all. Called by interiorverse.py and vkitti.py."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def archived(path: Path) -> Iterator[tarfile.TarFile]:
    """A new uncompressed tar, renamed to `path` when the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with tarfile.open(temporary, "w") as tar:
            yield tar
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

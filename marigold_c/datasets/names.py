"""Names of files inside a data set: relative, with '/', and never out of it. Called by lists.py and tar_index.py."""

from __future__ import annotations

import re

# What a name must hold before a look at its parts can find anything.
_UNUSUAL = re.compile(r"^[./]|//|/\.|\0")
LONGEST_NAME = 4096  # bytes; longer than any file system takes


def clean_name(name: str) -> str:
    """`name` without "./" and doubled slashes; empty for the folder itself.

    ValueError says why a name is refused: it is absolute, leads out of the data set, or is no name.
    """
    if len(name) > LONGEST_NAME:
        raise ValueError(f"is longer than {LONGEST_NAME} characters")
    if not _UNUSUAL.search(name):
        return name.rstrip("/")
    if "\0" in name:
        raise ValueError("holds a zero byte")
    if name.startswith("/"):
        raise ValueError("is absolute; names in a data set are relative to its folder")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("leads out of the data set by '..'")
    return "/".join(parts)

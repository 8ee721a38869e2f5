"""Files that browsers and programs sent, as Gradio names them. What is named is untrusted: only files within the upload
folder are opened, no other path of this machine and no URL."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from .limits import Limits, Photograph, Refused, printable_name, read_photograph

Taken = TypeVar("Taken")


def take_upload(sent: Any, uploads: Path, use: Callable[[Path, str], Taken]) -> Taken:
    """use(path, name) of an uploaded file, which is deleted afterwards, whatever comes of it. `sent`: a FileData of
    Gradio, as an object or a dictionary. Refused: anything else."""
    data = sent if isinstance(sent, dict) else sent.model_dump() if hasattr(sent, "model_dump") else {}
    named, name = data.get("path"), data.get("orig_name")
    if not isinstance(named, str):
        raise Refused("no file was sent")
    path = Path(named).resolve()
    if not path.is_relative_to(uploads) or not path.is_file() or path.parent == uploads:
        raise Refused(f"{printable_name(named)}: not a file that was uploaded here")
    try:
        return use(path, name if isinstance(name, str) and name else path.name)
    finally:
        with suppress(OSError):
            path.unlink()
            path.parent.rmdir()


def take_photograph(sent: Any, uploads: Path, limits: Limits) -> Photograph:
    """The photograph in an uploaded file. Refused as of read_photograph and take_upload."""
    return take_upload(sent, uploads, lambda path, name: read_photograph(path, name, limits))

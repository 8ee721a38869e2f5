"""How the predictions in a folder were made: marigold_infer.json, written by `marigold infer` and read by it and by
`marigold eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .._C import __version__
from ..atomic_files import write_atomically

RECORD_FILE = "marigold_infer.json"
_FORMAT = 1


class Record:
    """marigold_infer.json of a folder of predictions."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORD_FILE
        self.settings: dict[str, Any] | None = None
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            self.settings = dict(stored["settings"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path}: not a record of predictions ({error}): --overwrite, or another folder"
            ) from error

    def seed(self) -> int | None:
        seed = (self.settings or {}).get("seed")
        return seed if isinstance(seed, int) else None

    def check(self, settings: dict[str, Any]) -> None:
        """ValueError unless the folder's predictions were made with the same settings."""
        if self.settings is None:
            return
        names = sorted({*settings, *self.settings})
        changes = [
            f"{name} {self.settings.get(name)} (now {settings.get(name)})"
            for name in names
            if self.settings.get(name) != settings.get(name)
        ]
        if changes:
            raise ValueError(
                f"{self.path.parent} holds predictions with {', '.join(changes)}: --overwrite, or another folder"
            )

    def write(self, settings: dict[str, Any], preset: str | None) -> None:
        record = {"format": _FORMAT, "version": __version__, "preset": preset, "settings": settings}
        text = json.dumps(record, indent=2) + "\n"
        write_atomically(self.path, lambda file: file.write(text.encode()))


def recorded_settings(folder: Path) -> dict[str, Any]:
    """How the predictions of a folder were made; empty where that is not known."""
    try:
        return Record(folder).settings or {}
    except (OSError, ValueError):
        return {}

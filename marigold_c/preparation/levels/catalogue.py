"""Models that a folder has to put into levels: furniture, people, cars and things. They are read when they are wanted.

Calls ac3d.py, game_files.py, md2.py, md3.py, sh3f.py, world.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .ac3d import read_ac3d_model
from .game_files import GameFiles
from .md2 import read_md2
from .md3 import POSES, read_person
from .sh3f import catalogue, read_furniture
from .ufo import UNITS_PER_METRE as UFO_UNITS
from .world import LevelError, Model

# How often a thing is of each kind, where there are some of all.
SHARES = {"furniture": 0.6, "person": 0.16, "thing": 0.14, "car": 0.1}
LARGEST, SMALLEST = 6.0, 0.12  # metres
MOST_TRIANGLES = 60000
QUAKE_UNITS = 32.0
KEPT_BYTES = 1 << 30  # of the models that stay in memory; reading one again takes a tenth of a second


@dataclass(frozen=True)
class Entry:
    name: str
    kind: str
    read: Callable[[], Model]


class Catalogue:
    """The models below some folders. rng decides which are taken; damaged ones are left out and counted."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """LevelError: there is no model at all."""
        self.entries: list[Entry] = []
        self.damaged: dict[str, str] = {}
        self._kept: dict[str, Model | None] = {}
        self.held_bytes = 0
        for folder in folders:
            self._add_furniture(folder)
            self._add_cars(folder)
            self._add_game(folder)
        if folders and not self.entries:
            raise LevelError(f"{', '.join(map(str, folders))}: no furniture (.sh3f), people, cars or things")

    def _add_furniture(self, folder: Path) -> None:
        for path in sorted(folder.rglob("*.sh3f")):
            for row in catalogue(path):
                self.entries.append(
                    Entry(f"{path.name}:{row['model']}", "furniture", partial(read_furniture, path, row))
                )

    def _add_cars(self, folder: Path) -> None:
        textures = [path for path in (folder / "data" / "textures",) if path.is_dir()]
        for path in sorted(folder.rglob("cars/*/*.acc")):
            if path.stem == path.parent.name:
                self.entries.append(Entry(str(path), "car", partial(read_ac3d_model, path, [path.parent, *textures])))

    def _add_game(self, folder: Path) -> None:
        game = GameFiles(folder)
        for name in game.names("models/players/", "/animation.cfg"):
            person = name.rsplit("/", 1)[0]
            for skin in game.names(f"{person}/head_", ".skin"):
                for pose in range(len(POSES)):
                    read = partial(read_person, game, person, skin[len(person) + 6 : -5], pose, 1 / QUAKE_UNITS)
                    self.entries.append(Entry(f"{skin}-{pose}", "person", read))
        for name in game.names("models/", ".md2"):
            if not any(word in name.lower() for word in ("head", "weapon", "geoscape", "aircraft")):
                self.entries.append(Entry(name, "thing", partial(read_md2, game, name, scale=1 / UFO_UNITS)))

    def _read(self, entry: Entry) -> Model | None:
        if entry.name not in self._kept:
            try:
                model: Model | None = entry.read()
            except LevelError as error:
                self.damaged[entry.name], model = str(error), None
            self._kept[entry.name] = model if model is not None and _fits(model) else None
            self.held_bytes += _bytes(self._kept[entry.name])
        kept = self._kept[entry.name]
        while self.held_bytes > KEPT_BYTES:
            self.held_bytes -= _bytes(self._kept.pop(next(iter(self._kept))))
        return kept

    def some(
        self, count: int, rng: np.random.Generator, wanted: Callable[[str], bool] = lambda name: True
    ) -> list[Model]:
        """About `count` models, by SHARES, of those whose name is wanted."""
        by_kind = {kind: [e for e in self.entries if e.kind == kind and wanted(e.name)] for kind in SHARES}
        kinds = [kind for kind, entries in by_kind.items() if entries]
        if not kinds:
            return []
        shares = np.array([SHARES[kind] for kind in kinds])
        chosen = [kinds[i] for i in rng.choice(len(kinds), count, p=shares / shares.sum())]
        found = [self._read(by_kind[kind][rng.integers(len(by_kind[kind]))]) for kind in chosen]
        return [model for model in found if model is not None]


def _bytes(model: Model | None) -> int:
    arrays = (value for part in model.parts for value in vars(part).values()) if model is not None else ()
    return sum(value.nbytes for value in arrays if isinstance(value, np.ndarray))


def _fits(model: Model) -> bool:
    low, high = model.box()
    return (
        SMALLEST < float((high - low).max()) < LARGEST and sum(len(p.triangles) for p in model.parts) <= MOST_TRIANGLES
    )

"""Folders of views of levels and meshes: which worlds there are, which are held out, workers, going on after a break.

Called by commands/prepare.py. Calls the other files of this folder. The layout is that of rendered scenes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..frames import write_npy, write_png, write_text
from ..workers import end_with_parent
from .ac3d import read_ac3d_world
from .catalogue import Catalogue
from .game_files import GameFiles
from .meshes import SUFFIXES, read_mesh
from .quake3 import read_quake3
from .rasteriser import Rasteriser
from .shots import Shot, shots
from .ufo import read_ufo
from .world import LevelError, World

SETTINGS = "levels.json"
PARTS = ("train", "val", "test")
# Which worlds and models are held out; the package's weights were trained by this division.
DIVISION = 5
# Of a hundred worlds: tested on, watched during training. Of eight models: held out with them.
TEST, WATCHED, HELD_MODELS = 6, 5, 8
THINGS = 36  # models to choose from, of each world
MAGIC = 8


@dataclass(frozen=True)
class Settings:
    """size: height and width. views: of each world. relight: part of the views of levels with baked light that get new
    light. recolour: part of the views of worlds that are trained on whose surfaces get other colours. metres, up: of
    meshes, see read_mesh."""

    seed: int = 0
    size: tuple[int, int] = (192, 256)
    views: int = 24
    relight: float = 0.2
    recolour: float = 0.0
    metres: float = 1.0
    up: str | None = None


@dataclass(frozen=True)
class Job:
    """A world. kind: level, track or mesh; group: what is held out together (themes of tiles, all else by itself)."""

    kind: str
    folder: Path
    name: str
    group: str

    @property
    def label(self) -> str:
        plain = self.name.removeprefix("maps/").rsplit(".", 1)[0] if self.kind == "level" else Path(self.name).stem
        return f"{self.folder.name}-{plain.replace('/', '-')}"


@dataclass(frozen=True)
class Made:
    """What became of a world. views: -1: they were there. notes: missing textures. error: why there is none."""

    label: str
    part: str
    views: int
    notes: tuple[str, ...] = ()
    error: str | None = None


def _number(*words: object) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(map(str, words)).encode()).digest()[:8], "big")


def part_of(job: Job) -> str:
    """train, val or test, by the job's group alone: what one seed holds out, no other may train on."""
    share = _number("part", DIVISION, job.kind, job.group) % 100
    return "test" if share < TEST else "val" if share < TEST + WATCHED else "train"


def level_jobs(folder: Path) -> list[Job]:
    """The levels (maps/*.bsp, in archives or not) and tracks (tracks/*/NAME/NAME.acc) of a game's folder.
    LevelError: there is none."""
    game = _game(folder)
    jobs = []
    for name in game.names("maps/", ".bsp"):
        inner = name.split("/", 1)[1]
        group = inner.split("/")[0] if "/" in inner else inner
        jobs.append(Job("level", folder, name, group))
    for path in sorted(folder.glob("**/tracks/*/*/*.ac*")):
        twin = path.suffix == ".ac" and path.with_suffix(".acc").exists()
        if path.stem == path.parent.name and path.suffix in (".ac", ".acc") and not twin:
            jobs.append(Job("track", folder, str(path), path.stem))
    if not jobs:
        raise LevelError(f"{folder}: no levels (maps/*.bsp, .pk3) and no tracks (tracks/*/NAME/NAME.acc) in it")
    return jobs


def mesh_jobs(folder: Path) -> list[Job]:
    """The 3-D scenes below a folder. LevelError: there is none."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise LevelError(f"{folder}: no {', '.join(SUFFIXES)} in it")
    return [Job("mesh", folder, str(path), str(path.relative_to(folder))) for path in paths]


@cache
def _game(folder: Path) -> GameFiles:
    return GameFiles(folder)


@cache
def _rasteriser(size: tuple[int, int]) -> Rasteriser:
    return Rasteriser(size[1], size[0])


@cache
def _catalogue(folders: tuple[Path, ...]) -> Catalogue:
    return Catalogue(folders)


def open_world(job: Job, settings: Settings) -> World:
    """LevelError: what it is damaged by."""
    if job.kind == "mesh":
        return read_mesh(Path(job.name), settings.metres, settings.up)
    if job.kind == "track":
        path = Path(job.name)
        shared = [top / "data" / "textures" for top in path.parents if (top / "data" / "textures").is_dir()]
        return read_ac3d_world(path, [path.parent, *shared[:1]])
    game = _game(job.folder)
    version = int.from_bytes(game.read(job.name)[4:MAGIC], "little")
    return read_ufo(game, job.name) if version in (78, 79) else read_quake3(game, job.name)


def _write(folder: Path, stem: str, shot: Shot) -> None:
    picture = shot.picture
    arrays: dict[str, NDArray[Any]] = {
        "depth": picture.depth,
        "normals": picture.normals.astype(np.float16),
        "albedo": picture.albedo.astype(np.float16),
        "shading": picture.shading.astype(np.float16),
        "residual": np.zeros_like(picture.albedo, np.float16),
    }
    for name, values in arrays.items():
        write_npy(folder / name / f"{stem}.npy", values)
    facts = {"fov": shot.view.fov, "origin": shot.view.origin.tolist(), "rotation": shot.view.rotation.tolist()}
    write_text(folder / "metadata" / f"{stem}.json", json.dumps(facts))
    write_png(folder / "rgb" / f"{stem}.png", picture.rgb)


def make_world(job: Job, out: Path, settings: Settings, models: tuple[Path, ...]) -> Made:
    """The views of a world, unless they are there; they follow from the seed and the world alone."""
    label, part = job.label, part_of(job)
    done = out / "done" / label
    if done.exists():
        return Made(label, part, -1)
    held = part != "train"
    views = max(4, settings.views // 4) if held else settings.views
    rng = np.random.default_rng(_number("views", settings.seed, label))
    try:
        world = open_world(job, settings)

        def is_held(name: str) -> bool:
            return (_number("model", DIVISION, name.rsplit("-", 1)[0]) % HELD_MODELS == 0) == held

        things = _catalogue(models).some(THINGS, rng, is_held) if models else []
        made = 0
        recolour = 0.0 if held else settings.recolour
        canvas = _rasteriser(settings.size)
        for shot in shots(world, things, views, canvas, rng, relight=settings.relight, recolour=recolour):
            _write(out / part, f"{label}_{made:04d}", shot)
            made += 1
    except LevelError as error:
        write_text(done, f"0 {error}\n")
        return Made(label, part, 0, error=str(error))
    write_text(done, f"{made}\n")
    return Made(label, part, made, tuple(world.missing))


def check_settings(out: Path, settings: Settings, jobs: Sequence[Job]) -> None:
    """Writes or compares the folder's settings. LevelError: it was made with others."""
    text = json.dumps(asdict(settings), sort_keys=True)
    path = out / SETTINGS
    if path.exists():
        if path.read_text(encoding="utf-8").strip() != text:
            raise LevelError(f"{path}: the folder was made with {path.read_text(encoding='utf-8').strip()}, not {text}")
    else:
        write_text(path, text + "\n")
    labels = [job.label for job in jobs]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise LevelError(f"two worlds are called {twice[0]}: give folders of different names")


def make_views(
    jobs: Sequence[Job], out: Path, settings: Settings, models: Sequence[Path] = (), workers: int = 1
) -> Iterator[Made]:
    """Views of all worlds, in an order that mixes them. LevelError: nothing can be made. A damaged world is
    named, and the others are made all the same."""
    check_settings(out, settings, jobs)
    if models:
        _catalogue(tuple(models))
    _rasteriser(settings.size)
    ordered = sorted(jobs, key=lambda job: _number("order", settings.seed, job.label))
    if workers == 1:
        for job in ordered:
            yield make_world(job, out, settings, tuple(models))
        return
    _rasteriser.cache_clear()
    os.environ.setdefault("LP_NUM_THREADS", "0")  # llvmpipe: each process draws with its own thread
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        futures = [pool.submit(make_world, job, out, settings, tuple(models)) for job in ordered]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

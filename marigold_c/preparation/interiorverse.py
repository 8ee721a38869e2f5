"""`marigold prepare interiorverse`: InteriorVerse's EXR files for normals (a folder) or appearance (a tar of them).

The steps are those of prs-eth/Marigold's preprocessing scripts. Of the raw data only scenes_85 is used.

    normals      scenes_85/SCENE/NNN_img.png, NNN_normal.npy, and the list interiorverse_filtered_all.txt
    appearance   InteriorVerse.tar with scenes_85/SCENE/NNN_{im,albedo,material,mask}.exr
"""

from __future__ import annotations

import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.readers import InputError, decode_stored
from . import frames
from .archive import archived
from .frames import Outcome
from .tone import picture

SCENES = "scenes_85"
_APPEARANCE = ("im", "albedo", "material", "mask")
_SHORTEST_NORMAL = 0.1  # shorter ones mean that nothing is known


def _read(path: Path) -> NDArray[Any]:
    try:
        return decode_stored(path.read_bytes())
    except InputError as error:
        raise ValueError(f"{path}: {error}") from error


def prepare_normals(scene: Path, number: str, out: Path) -> Outcome:
    """One view. Left out, as by the published script: pictures and normals with NaN, normals with unknown pixels."""
    name = f"{scene.name}/{number}"
    color, normals = _read(scene / f"{number}_im.exr"), _read(scene / f"{number}_normal.exr")
    frames.check_shape(scene / f"{number}_normal.exr", normals, color.shape)
    if np.isnan(color).any() or np.isnan(normals).any():
        return Outcome(name, skipped="the picture or the normals have NaN")
    unknown = np.count_nonzero(np.linalg.norm(normals, axis=2) < _SHORTEST_NORMAL)
    if unknown:
        return Outcome(name, skipped=f"{unknown} pixels have no normal")
    members = (f"{scene.name}/{number}_img.png", f"{scene.name}/{number}_normal.npy")
    frames.write_png(out / SCENES / members[0], picture(color))
    frames.write_npy(out / SCENES / members[1], frames.unit_vectors(normals).astype(np.float32))
    return Outcome(name, members)


def _numbers(scene: Path, kind: str) -> list[str]:
    return sorted(path.name.removesuffix(f"_{kind}.exr") for path in scene.glob(f"*_{kind}.exr"))


def prepare(raw: Path, out: Path, task: str, progress: frames.Progress = iter) -> list[Outcome]:
    """task: "normals" or "appearance". `raw` holds the folder scenes_85."""
    scenes = frames.sub_folders(raw / SCENES)
    if task == "appearance":
        return _archive(scenes, out, progress)
    views = [(scene, number) for scene in scenes for number in _numbers(scene, "normal")]
    if not views:
        raise ValueError(f"{raw / SCENES}: no scene has *_normal.exr")
    outcomes = []
    for scene, number in progress(views):
        attempt = frames.attempt(f"{scene.name}/{number}", partial(prepare_normals, scene, number, out))
        outcomes.append(attempt)
    frames.write_list(out / "interiorverse_filtered_all.txt", outcomes)
    return outcomes


def _archive(scenes: list[Path], out: Path, progress: frames.Progress) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with archived(out / "InteriorVerse.tar") as tar:
        for scene in progress(scenes):
            for number in _numbers(scene, "im"):
                outcomes.append(_add_view(tar, scene, number))
    if not any(outcome.members for outcome in outcomes):
        raise ValueError(f"{scenes[0].parent}: no view has all of {', '.join(f'*_{kind}.exr' for kind in _APPEARANCE)}")
    frames.write_list(out / "interiorverse_scenes_85.txt", outcomes)
    return outcomes


def _add_view(tar: tarfile.TarFile, scene: Path, number: str) -> Outcome:
    name = f"{scene.name}/{number}"
    paths = [scene / f"{number}_{kind}.exr" for kind in _APPEARANCE]
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        return Outcome(name, error=f"{scene / absent[0]}: No such file or directory")
    members = tuple(f"{SCENES}/{scene.name}/{path.name}" for path in paths)
    for path, member in zip(paths, members, strict=True):
        tar.add(path, arcname=member)
    return Outcome(name, members)

"""Models and tracks in AC3D's text format (.ac, and TORCS' .acc) as a Model or a World. Calls game_files.py, world.py.

Format: Inivis, The AC3D file format; TORCS adds triangle strips, and textures after the first, which are not read.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .game_files import GREY, LARGEST_FILE, decode_texture
from .world import Array, Batch, LevelError, Model, Part, Pixels, World

ROAD = re.compile(r"^(tr-|road|asphalt|.*(asphalt|concrete|dirt|mud|sand).*)")
STRIP, LINES = 4, (1, 2)
EYES = 1.2
NO_TEXTURE = "empty_texture_no_mapping"


@dataclass
class _Object:
    offset: NDArray[np.float64]
    vertices: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    surfaces: list[tuple[int, NDArray[np.float64]]] = field(default_factory=list)  # flags, (index, u, v) by row
    texture: str | None = None


class _Lines:
    def __init__(self, path: Path) -> None:
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise LevelError(f"{path}: {path.stat().st_size} bytes are too many")
            self._lines = path.read_text("latin1").split("\n")
        except OSError as error:
            raise LevelError(f"{path}: {error.strerror}") from None
        self.number = 0
        if not self._lines[0].startswith("AC3D"):
            raise LevelError(f"{path}: not in AC3D's format")

    def next(self) -> str | None:
        if self.number >= len(self._lines):
            return None
        self.number += 1
        return self._lines[self.number - 1]

    def rows(self, count: int, width: int) -> NDArray[np.float64]:
        """(count, width) numbers from as many lines. ValueError: there are fewer."""
        if not 0 <= count <= len(self._lines) - self.number:
            raise ValueError(f"{count} rows in {len(self._lines) - self.number} lines")
        block = self._lines[self.number : self.number + count]
        self.number += count
        values = np.array([[float(word) for word in line.split()[:width]] for line in block]).reshape(count, width)
        if not np.isfinite(values).all():
            raise ValueError("values that are no numbers")
        return values


def _objects(path: Path) -> list[_Object]:
    lines = _Lines(path)
    found: list[_Object] = []
    waiting: list[int] = []
    offsets = [np.zeros(3)]
    here = _Object(np.zeros(3))
    try:
        while (line := lines.next()) is not None:
            words = shlex.split(line) if '"' in line else line.split()
            if not words:
                continue
            key = words[0]
            if key == "OBJECT":
                here = _Object(offsets[-1].copy())
                found.append(here)
            elif key == "texture" and here.texture is None and words[1] != NO_TEXTURE:
                here.texture = Path(words[1]).name
            elif key == "loc":
                here.offset = here.offset + [float(word) for word in words[1:4]]
            elif key == "numvert":
                here.vertices = lines.rows(int(words[1]), 3)
            elif key == "data":
                lines.next()
            elif key == "SURF":
                flags = int(words[1], 16)
                while (line := lines.next()) is not None and not line.startswith("refs"):
                    pass
                if line is None:
                    raise ValueError("a surface without corners")
                here.surfaces.append((flags, lines.rows(int(line.split()[1]), 3)))
            elif key == "kids":
                if int(words[1]) > 0:
                    waiting.append(int(words[1]))
                    offsets.append(here.offset)
                while waiting and int(words[1]) == 0:
                    waiting[-1] -= 1
                    if waiting[-1] > 0:
                        break
                    waiting.pop()
                    offsets.pop()
    except (ValueError, IndexError) as error:
        raise LevelError(f"{path}: line {lines.number}: {error}") from None
    return found


def _corners(flags: int, count: int) -> NDArray[np.int64]:
    if flags & 0xF == STRIP:
        first = np.arange(count - 2)
        triangles = np.stack([first, first + 1, first + 2], axis=1)
        triangles[1::2] = triangles[1::2][:, [1, 0, 2]]
        return triangles
    fan = np.arange(1, count - 1)
    return np.stack([np.zeros_like(fan), fan, fan + 1], axis=1)


def _soup(path: Path) -> dict[str | None, tuple[Array, Array, Array]]:
    """By texture: position, uv, normal of corners; each triangle has three of its own, flat."""
    blocks: dict[str | None, list[tuple[Array, Array, Array]]] = {}
    for one in _objects(path):
        vertices = one.vertices + one.offset
        vertices = np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=1)  # y up there, z up here
        for flags, rows in one.surfaces:
            if flags & 0xF in LINES or len(rows) < 3:
                continue
            index = rows[:, 0].astype(np.int64)
            if index.min() < 0 or index.max() >= len(vertices):
                raise LevelError(f"{path}: a surface uses the vertex {index.max()} of {len(vertices)}")
            triangles = _corners(flags, len(rows))
            points, places = vertices[index][triangles], rows[:, 1:][triangles]
            across = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
            area = np.linalg.norm(across, axis=1)
            whole = area > 1e-8
            if whole.any():
                normals = np.repeat(across[whole] / area[whole, None], 3, axis=0)
                parts = (points[whole].reshape(-1, 3), places[whole].reshape(-1, 2), normals)
                position, uv, normal = (part.astype(np.float32) for part in parts)
                blocks.setdefault(one.texture, []).append((position, uv, normal))
    joined = {}
    for key, several in blocks.items():
        joined[key] = (
            np.concatenate([block[0] for block in several]),
            np.concatenate([block[1] for block in several]),
            np.concatenate([block[2] for block in several]),
        )
    return joined


def _texture(name: str | None, folders: list[Path], side: int) -> Pixels | None:
    for folder in folders if name else []:
        path = folder / str(name)
        if path.is_file() and path.stat().st_size <= LARGEST_FILE:
            pixels = decode_texture(path.read_bytes(), "RGBA", side)
            return None if pixels is None else np.flipud(pixels).copy()
    return None


def read_ac3d_world(path: Path, texture_folders: list[Path], side: int = 512) -> World:
    """A track; a person may stand on what looks like a road. LevelError: what it is damaged by."""
    position: list[Array] = []
    uv: list[Array] = []
    normal: list[Array] = []
    batches, textures, missing, seeds, count = [], {}, [], [], 0
    for key, (points, places, normals) in sorted(_soup(path).items(), key=lambda item: str(item[0])):
        pixels = _texture(key, texture_folders, side)
        if pixels is None:
            missing.append(str(key))
            pixels = np.full((4, 4, 4), GREY, np.uint8)
        name = str(key)
        textures[name] = pixels
        triangles = np.arange(len(points), dtype=np.int32).reshape(-1, 3) + count
        batches.append(Batch(name, triangles, alpha_test=bool((pixels[..., 3] < 128).any())))
        if ROAD.match(name):
            flat = np.abs(normals[::3, 2]) > 0.9
            seeds.append(points.reshape(-1, 3, 3).mean(axis=1)[flat] + np.array([0, 0, EYES], np.float32))
        position.append(points)
        uv.append(places)
        normal.append(normals)
        count += len(points)
    if not batches:
        raise LevelError(f"{path}: no surface can be drawn")
    points, places, normals = (np.concatenate(parts) for parts in (position, uv, normal))
    return World(
        name=path.stem,
        position=points,
        uv=places,
        lightmap_uv=np.zeros_like(places),
        normal=normals,
        light=np.ones_like(points),
        batches=batches,
        textures=textures,
        lightmaps=[],
        seeds=np.concatenate(seeds) if seeds else np.zeros((0, 3), np.float32),
        missing=missing,
    )


def read_ac3d_model(path: Path, texture_folders: list[Path], side: int = 512, kind: str = "car") -> Model:
    """A car or another thing. LevelError: what it is damaged by, or that it has no surface."""
    parts = []
    for key, (points, places, normals) in _soup(path).items():
        pixels = _texture(key, texture_folders, side)
        if pixels is None:
            pixels = np.full((4, 4, 4), GREY, np.uint8)
        triangles = np.arange(len(points), dtype=np.int32).reshape(-1, 3)
        parts.append(Part(pixels, points, places, normals, triangles))
    if not parts:
        raise LevelError(f"{path}: no surface can be drawn")
    return Model(path.stem, parts, kind)

"""Models of Quake 3 (.md3), and people put together of three of them. Calls game_files.py, md2.py, world.py.

Format: P. Salzmann et al., Description of the MD3 format; animation.cfg and .skin files as Quake 3 reads them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .game_files import GREY, GameFiles
from .shader_scripts import material_of
from .world import LevelError, Model, Part

HEADER, SURFACE = "<4si64s9i", "<4s64s10i"
TAG = np.dtype([("name", "S64"), ("origin", "<f4", 3), ("axis", "<f4", (3, 3))])
# Rows of animation.cfg: where the torso's own and the legs' own begin; poses as rows of (legs, torso).
TORSO_FIRST, LEGS_FIRST = 6, 13
POSES = ((22, 11), (14, 11), (15, 11), (22, 7), (23, 12))
LARGEST = 2**16


@dataclass(frozen=True)
class Surface:
    name: str
    shader: str
    uv: NDArray[np.float32]
    triangles: NDArray[np.int32]
    points: NDArray[np.float64]  # of all frames (F, V, 3)
    normals: NDArray[np.float64]


class Md3:
    """The surfaces and tags of a file. LevelError: what it is damaged by."""

    def __init__(self, game: GameFiles, name: str) -> None:
        data, self.file = game.read(name), f"{game.root}: {name}"
        try:
            self._read(data)
        except (struct.error, ValueError, IndexError) as error:
            raise LevelError(f"{self.file}: damaged: {error}") from None

    def _read(self, data: bytes) -> None:
        magic, version, _, _, self.frames, tags, surfaces, _, _, at_tags, at, _ = struct.unpack_from(HEADER, data)
        if magic != b"IDP3" or version != 15:
            raise ValueError("not the format IDP3 15")
        if not (0 < self.frames < LARGEST and 0 <= tags < 64 and 0 <= surfaces < 256 and min(at, at_tags) >= 0):
            raise ValueError(f"{self.frames} frames, {tags} tags, {surfaces} surfaces")
        self.tags = np.frombuffer(data, TAG, tags * self.frames, at_tags).reshape(self.frames, tags)
        self.surfaces = []
        for _ in range(surfaces):
            surface, length = _surface(data, at, self.frames)
            self.surfaces.append(surface)
            at += length

    def tag(self, frame: int, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Columns of the axes, and the origin, of a tag in a frame; the identity if there is none."""
        for one in self.tags[min(frame, self.frames - 1)]:
            if one["name"].split(b"\0")[0].decode("latin1").lower() == name:
                return one["axis"].T.astype(np.float64), one["origin"].astype(np.float64)
        return np.eye(3), np.zeros(3)


def _surface(data: bytes, at: int, frames: int) -> tuple[Surface, int]:
    _, name, _, own, shaders, vertices, count, tri, shader, st, xyz, end = struct.unpack_from(SURFACE, data, at)
    if own != frames or not (0 < vertices < LARGEST and 0 < count < LARGEST) or min(tri, shader, st, xyz, end) <= 0:
        raise ValueError(f"a surface with {own} frames, {vertices} vertices, {count} triangles")
    triangles = np.frombuffer(data, "<i4", 3 * count, at + tri).reshape(-1, 3)
    if triangles.min() < 0 or triangles.max() >= vertices:
        raise ValueError("triangles name vertices that are not there")
    packed = np.frombuffer(data, "<i2", 4 * vertices * frames, at + xyz).reshape(frames, vertices, 4)
    polar = (packed[..., 3] & 255) * (2 * np.pi / 255)
    azimuth = (packed[..., 3] >> 8 & 255) * (2 * np.pi / 255)
    normals = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=-1)
    uv = np.frombuffer(data, "<f4", 2 * vertices, at + st).reshape(-1, 2)
    first = data[at + shader : at + shader + 64] if shaders else b""
    words = [word.split(b"\0")[0].decode("latin1") for word in (name, first)]
    flipped = np.ascontiguousarray(triangles[:, ::-1])
    return Surface(words[0].lower(), words[1], uv, flipped, packed[..., :3] / 64, normals), end


def _part(
    game: GameFiles, surface: Surface, frame: int, picture: str, turn: Any, move: Any, scale: float
) -> Part | None:
    material = material_of(picture, game.shaders.get(re.sub(r"\.\w+$", "", picture.lower())))
    if material.skip:
        return None
    pixels = game.image(material.image)
    pixels = game.image(picture) if pixels is None else pixels
    if pixels is None:
        pixels = np.full((4, 4, 4), GREY, np.uint8)
    points = (surface.points[frame] @ turn.T + move) * scale
    normals = surface.normals[frame] @ turn.T
    return Part(
        pixels,
        points.astype(np.float32),
        surface.uv,
        normals.astype(np.float32),
        surface.triangles,
        material.alpha_test,
    )


def read_md3(game: GameFiles, name: str, scale: float, kind: str = "thing") -> Model:
    """The first frame of a model. LevelError: what it is damaged by, or that nothing of it is seen."""
    file = Md3(game, name)
    found = [_part(game, one, 0, one.shader, np.eye(3), np.zeros(3), scale) for one in file.surfaces]
    parts = [part for part in found if part is not None]
    if not parts:
        raise LevelError(f"{file.file}: nothing to see")
    return Model(str(PurePosixPath(name).with_suffix("")), parts, kind)


def _skin(game: GameFiles, name: str) -> dict[str, str]:
    lines = game.read(name).decode("latin1").replace("\r", "").split("\n")
    pairs = [line.split(",", 1) for line in lines if "," in line]
    return {left.strip().lower(): right.strip().strip('"') for left, right in pairs}


def _animations(game: GameFiles, folder: str) -> list[int]:
    """First frames by row; those of the legs without the frames that only the torso has."""
    rows = []
    for line in game.read(f"{folder}/animation.cfg").decode("latin1").split("\n"):
        found = re.match(r"\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", line)
        if found:
            rows.append(int(found[1]))
    if len(rows) > LEGS_FIRST:
        skip = rows[LEGS_FIRST] - rows[TORSO_FIRST]
        rows = rows[:LEGS_FIRST] + [row - skip for row in rows[LEGS_FIRST:]]
    return rows


def read_person(game: GameFiles, folder: str, skin: str, pose: int, scale: float) -> Model:
    """Legs, torso and head of models/players/NAME, in one of POSES. LevelError: what is missing or damaged."""
    rows, (legs_row, torso_row) = _animations(game, folder), POSES[pose % len(POSES)]
    if len(rows) <= max(legs_row, torso_row):
        raise LevelError(f"{game.root}: {folder}/animation.cfg has {len(rows)} animations")
    turn, move, frame, parts = np.eye(3), np.zeros(3), max(rows[legs_row], 0), []
    for piece, tag, following in (("lower", "tag_torso", rows[torso_row]), ("upper", "tag_head", 0), ("head", "", 0)):
        file = Md3(game, f"{folder}/{piece}.md3")
        frame = min(frame, file.frames - 1)
        pictures = _skin(game, f"{folder}/{piece}_{skin}.skin")
        for surface in file.surfaces:
            picture = pictures.get(surface.name, "")
            part = _part(game, surface, frame, picture, turn, move, scale) if picture else None
            if part is not None:
                parts.append(part)
        axes, origin = file.tag(frame, tag)
        turn, move, frame = turn @ axes, turn @ origin + move, following
    if not parts:
        raise LevelError(f"{game.root}: {folder}: nothing to see")
    return Model(f"{folder}-{skin}-{pose}", parts, "person")

"""Models of Quake 2 (.md2) out of a game's files. Calls game_files.py and world.py.

Format: D. Henry, MD2 file format.
"""

from __future__ import annotations

import struct
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .game_files import GREY, GameFiles
from .world import Array, LevelError, Model, Part

HEADER = 17
LARGEST = 2**16


def vertex_normals(points: Array, triangles: NDArray[Any]) -> Array:
    """Normals (V, 3) of vertices: the mean of their triangles', weighed by area."""
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    across = np.cross(b - a, c - a)
    normals = np.zeros_like(points)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], across)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0, normals / np.maximum(length, 1e-12), [0, 0, 1]).astype(np.float32)


def read_md2(
    game: GameFiles, name: str, frame: int = 0, skin: int = 0, scale: float = 1.0, kind: str = "thing"
) -> Model:
    """One frame of a model, its coordinates times `scale`. LevelError: what it is damaged by."""
    data, file = game.read(name), f"{game.root}: {name}"
    if len(data) < 4 * HEADER or data[:4] != b"IDP2":
        raise LevelError(f"{file}: no MD2 model")
    header = struct.unpack_from(f"<{HEADER}i", data)
    version, width, height, frame_size, skins, vertices, corners, count, _, frames = header[1:11]
    at_skins, at_corners, at_triangles, at_frames = header[11:15]
    if version != 8 or not (0 < vertices < LARGEST and 0 < corners < LARGEST and 0 < count < LARGEST and frames > 0):
        raise LevelError(f"{file}: version {version} with {vertices} vertices, {count} triangles, {frames} frames")
    start = at_frames + min(frame, frames - 1) * frame_size
    ends = (at_skins + 64 * skins, at_corners + 4 * corners, at_triangles + 12 * count, start + 40 + 4 * vertices)
    if min(at_skins, at_corners, at_triangles, at_frames, skins) < 0 or max(ends) > len(data):
        raise LevelError(f"{file}: says that it has {max(ends)} bytes, but has {len(data)}")
    spread = np.frombuffer(data, "<f4", 6, start)
    packed = np.frombuffer(data, np.uint8, 4 * vertices, start + 40).reshape(-1, 4)
    points = ((packed[:, :3] * spread[:3] + spread[3:]) * scale).astype(np.float32)
    places = np.frombuffer(data, "<i2", 2 * corners, at_corners).reshape(-1, 2) / np.array(
        [max(width, 1), max(height, 1)]
    )
    triangles = np.frombuffer(data, "<u2", 6 * count, at_triangles).reshape(-1, 6).astype(np.int64)
    if triangles[:, :3].max() >= vertices or triangles[:, 3:].max() >= corners or not np.isfinite(points).all():
        raise LevelError(f"{file}: triangles name vertices that are not there")
    triangles = triangles[:, [2, 1, 0, 5, 4, 3]]  # MD2 is clockwise
    normals = vertex_normals(points, triangles[:, :3])
    texture = None
    for number in [skin, 0] if skins else []:
        at = at_skins + 64 * min(number, skins - 1)
        word = data[at : at + 64].split(b"\0")[0].decode("latin1")
        beside = str(PurePosixPath(name).parent / PurePosixPath(word.lstrip(".")).name)
        texture = next((p for p in map(game.image, (word.lstrip("./"), beside)) if p is not None), None)
        if texture is not None:
            break
    if texture is None:
        texture = np.full((4, 4, 4), GREY, np.uint8)
    part = Part(
        texture,
        points[triangles[:, :3].ravel()],
        places[triangles[:, 3:].ravel()].astype(np.float32),
        normals[triangles[:, :3].ravel()],
        np.arange(3 * count, dtype=np.int32).reshape(-1, 3),
        bool((texture[..., 3] < 128).any()),
    )
    return Model(f"{PurePosixPath(name).with_suffix('')}-{skin}", [part], kind)

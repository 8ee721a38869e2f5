"""A user's own 3-D scene (glTF, GLB, OBJ, PLY, ...) as a World, read by trimesh. Calls world.py, md2.py.

A person may stand where a surface faces up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...extras import optional_module
from .game_files import LARGEST_SIDE
from .md2 import vertex_normals
from .world import Array, Batch, LevelError, Pixels, World

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
# Formats whose files say that y is up.
Y_UP = (".glb", ".gltf", ".obj")
UP = {"x": [[0, 1, 0], [0, 0, 1], [1, 0, 0]], "y": [[1, 0, 0], [0, 0, -1], [0, 1, 0]], "z": np.eye(3)}
MOST_TRIANGLES = 20_000_000
SEEDS = 512
HAND = 1.0  # metres over the floor
WHITE: Pixels = np.full((1, 1, 4), 255, np.uint8)


def _material(mesh: Any, side: int) -> tuple[Pixels, bool]:
    """Texture and whether it has holes; a plain colour where there is none."""
    material = getattr(mesh.visual, "material", None)
    image = getattr(material, "baseColorTexture", None)
    image = getattr(material, "image", None) if image is None else image
    colour = np.array([200, 200, 200, 255], np.uint8)
    for name in ("baseColorFactor", "diffuse", "main_color"):
        value = getattr(material, name, None)
        if value is not None and len(np.ravel(value)) in (3, 4):
            values = np.ravel(value).astype(np.float64) * (255 if np.ravel(value).dtype.kind == "f" else 1)
            colour[: len(values)] = np.clip(np.rint(values), 0, 255)
            break
    if not isinstance(image, Image.Image) or getattr(mesh.visual, "uv", None) is None:
        colour[3] = 255
        return colour[None, None], False
    if max(image.size) > LARGEST_SIDE:
        raise LevelError(f"a texture of {image.size[0]} x {image.size[1]}")
    picture = image.convert("RGBA")
    if max(picture.size) > side:
        part = side / max(picture.size)
        picture = picture.resize([max(1, int(length * part)) for length in picture.size], Image.Resampling.BOX)
    pixels = np.flipud(np.asarray(picture)).copy()
    return pixels, bool((pixels[..., 3] < 128).mean() > 0.01)


def _vertex_colours(mesh: Any) -> Array | None:
    """Linear colours (V, 3), where the mesh has colours and no texture."""
    if getattr(mesh.visual, "kind", None) not in ("vertex", "face"):
        return None
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3].astype(np.float32) / 255
    linear: Array = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return linear


def _normals(mesh: Any, points: Array, faces: NDArray[np.int64], turn: NDArray[np.float64]) -> Array:
    """Those of the file, or those of the triangles."""
    stored = mesh._cache.cache.get("vertex_normals") if hasattr(mesh, "_cache") else None
    if stored is not None and np.shape(stored) == points.shape and np.isfinite(stored).all():
        turned = np.asarray(stored, np.float64) @ turn.T
        unit: Array = (turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)).astype(np.float32)
        return unit
    return vertex_normals(points, faces)


def _floors(points: Array, triangles: NDArray[np.int32]) -> Array:
    """(N, 3): a metre above the middles of the largest triangles that face up."""
    corner = points[triangles]
    across = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = np.linalg.norm(across, axis=1)
    flat = np.flatnonzero(across[:, 2] > 0.9 * np.maximum(area, 1e-12))
    largest = flat[np.argsort(-area[flat], kind="stable")[:SEEDS]]
    seeds: Array = corner[largest].mean(axis=1) + np.array([0, 0, HAND], np.float32)
    return seeds


def read_mesh(path: Path, metres: float = 1.0, up: str | None = None, side: int = 1024) -> World:
    """metres: length of the file's unit. up: "x", "y" or "z"; None: y for glTF and OBJ, z for the others.
    LevelError: the file cannot be read, or holds no surface to stand on."""
    trimesh = optional_module("trimesh", "reading 3-D scenes")
    try:
        scene = trimesh.load(path, process=False)
        loose = scene.dump() if isinstance(scene, trimesh.Scene) else [scene]
        meshes = [mesh for mesh in loose if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)]
    except Exception as error:  # the libraries below it raise nearly every class
        raise LevelError(f"{path}: cannot be read: {type(error).__name__}: {error}") from None
    if not meshes:
        raise LevelError(f"{path}: holds no triangles")
    turn = np.array(UP[up or ("y" if path.suffix.lower() in Y_UP else "z")], np.float64) * metres
    position: list[Array] = []
    uv: list[Array] = []
    normal: list[Array] = []
    tint: list[Array] = []
    batches, textures, count, total = [], {}, 0, 0
    for number, mesh in enumerate(meshes):
        points = (np.asarray(mesh.vertices, np.float64) @ turn.T).astype(np.float32)
        faces = np.asarray(mesh.faces, np.int64)
        total += len(faces)
        if total > MOST_TRIANGLES:
            raise LevelError(f"{path}: more than {MOST_TRIANGLES} triangles")
        if not np.isfinite(points).all() or faces.min() < 0 or faces.max() >= len(points):
            raise LevelError(
                f"{path}: vertices that are no numbers, or triangles that name vertices that are not there"
            )
        places, colours = getattr(mesh.visual, "uv", None), _vertex_colours(mesh)
        try:
            texture, holes = (WHITE, False) if colours is not None else _material(mesh, side)
        except LevelError as error:
            raise LevelError(f"{path}: {error}") from None
        if places is None or len(places) != len(points):
            places = np.zeros((len(points), 2))
        textures[f"{number}"] = texture
        position.append(points)
        uv.append(np.asarray(places, np.float32))
        normal.append(_normals(mesh, points, faces, turn))
        tint.append(np.ones_like(points) if colours is None else colours)
        batches.append(Batch(f"{number}", (faces + count).astype(np.int32), alpha_test=holes))
        count += len(points)
    points, normals = np.concatenate(position), np.concatenate(normal)
    seeds = _floors(points, np.concatenate([batch.triangles for batch in batches]))
    if not len(seeds):
        raise LevelError(f"{path}: no surface faces up: is `up` right?")
    return World(
        name=path.stem,
        position=points,
        uv=np.concatenate(uv),
        lightmap_uv=np.zeros((count, 2), np.float32),
        normal=normals,
        light=np.ones_like(points),
        batches=batches,
        textures=textures,
        lightmaps=[],
        seeds=seeds,
        tint=np.concatenate(tint),
    )

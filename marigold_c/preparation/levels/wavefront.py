"""Wavefront OBJ models in an archive, y up there and z up here. Calls game_files.py, md2.py, world.py.

Format: Alias Wavefront, Object files. Read here: v, vt, f, usemtl, mtllib; of materials Kd, map_Kd, d. trimesh reads
OBJ files that lie in folders; catalogues of furniture have thousands of small ones in archives.
"""

from __future__ import annotations

import posixpath
import zipfile

import numpy as np

from .game_files import decode_texture
from .md2 import vertex_normals
from .world import LevelError, Model, Part, Pixels

SMOOTH = np.cos(np.radians(40))


def _text(archive: zipfile.ZipFile, name: str) -> list[str]:
    try:
        if archive.getinfo(name).file_size > 2**26:
            raise LevelError(f"{archive.filename}: {name} is too large")
        return archive.read(name).decode("latin1").replace("\\\n", " ").split("\n")
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise LevelError(f"{archive.filename}: {name}: {error}") from None


def _materials(archive: zipfile.ZipFile, name: str, side: int) -> dict[str, Pixels | None]:
    """The texture of each material; None: it is seen through."""
    found: dict[str, Pixels | None] = {}
    here, colour = "", np.array([0.8, 0.8, 0.8])
    try:
        lines = _text(archive, name)
    except LevelError:
        return found
    for line in lines:
        words = line.split()
        if not words:
            continue
        if words[0] == "newmtl" and len(words) > 1:
            here, colour = words[1], np.array([0.8, 0.8, 0.8])
        elif words[0] == "Kd" and len(words) > 3:
            colour = np.array([float(word) for word in words[1:4]])
            found[here] = np.concatenate([np.rint(np.clip(colour, 0, 1) * 255), [255]]).astype(np.uint8)[None, None]
        elif words[0] == "d" and len(words) > 1 and words[-1].replace(".", "", 1).isdigit() and float(words[-1]) < 0.4:
            found[here] = None
        elif words[0] == "map_Kd" and len(words) > 1:
            file = posixpath.normpath(posixpath.join(posixpath.dirname(name), words[-1].replace("\\", "/")))
            pixels = decode_texture(archive.read(file), "RGBA", side) if file in archive.namelist() else None
            if pixels is not None:
                found[here] = np.flipud(pixels).copy()
    return found


def read_obj(archive: zipfile.ZipFile, name: str, side: int = 256) -> Model:
    """A model; faces of more corners are fans. Normals are of the triangles, smooth where they meet flatly.
    LevelError: what it is damaged by."""
    points: list[list[float]] = []
    places: list[list[float]] = [[0.0, 0.0]]
    faces: dict[str, list[list[int]]] = {}
    materials: dict[str, Pixels | None] = {}
    here = ""
    try:
        for line in _text(archive, name):
            words = line.split()
            if not words:
                continue
            if words[0] == "v":
                points.append([float(word) for word in words[1:4]])
            elif words[0] == "vt":
                places.append([float(word) for word in words[1:3]])
            elif words[0] == "f":
                corners = [[int(number or 0) for number in word.split("/")[:2]] for word in words[1:]]
                rows = []
                for corner in corners:
                    point = corner[0] - 1 if corner[0] > 0 else len(points) + corner[0]
                    place = corner[1] if len(corner) > 1 else 0
                    rows.append([point, place if place >= 0 else len(places) + place])
                for second in range(1, len(rows) - 1):
                    faces.setdefault(here, []).append(rows[0] + rows[second] + rows[second + 1])
            elif words[0] == "usemtl" and len(words) > 1:
                here = words[1]
            elif words[0] == "mtllib" and len(words) > 1:
                file = posixpath.normpath(posixpath.join(posixpath.dirname(name), line.split(None, 1)[1].strip()))
                materials.update(_materials(archive, file, side))
        vertices = np.array(points, np.float32).reshape(-1, 3)[:, [0, 2, 1]] * np.array([1, -1, 1], np.float32)
        uv = np.array(places, np.float32).reshape(-1, 2)
        parts = []
        for material, triangles in faces.items():
            texture = materials.get(material, np.full((1, 1, 4), 200, np.uint8))
            if texture is None:
                continue
            table = np.array(triangles, np.int64).reshape(-1, 3, 2)
            shape = vertices[table[..., 0]]
            across = np.cross(shape[:, 1] - shape[:, 0], shape[:, 2] - shape[:, 0])
            length = np.linalg.norm(across, axis=1)
            whole = length > 1e-12
            table, shape, flat = table[whole], shape[whole], across[whole] / length[whole, None]
            if not len(table):
                continue
            smooth = vertex_normals(vertices, table[..., 0])[table[..., 0]]
            agree = (smooth * flat[:, None]).sum(axis=2, keepdims=True) > SMOOTH
            normals = np.where(agree, smooth, flat[:, None]).reshape(-1, 3).astype(np.float32)
            index = np.arange(3 * len(table), dtype=np.int32).reshape(-1, 3)
            places_of = uv[table[..., 1]].reshape(-1, 2)
            alpha = bool((texture[..., 3] < 128).any())
            parts.append(Part(texture, shape.reshape(-1, 3), places_of, normals, index, alpha))
    except (ValueError, IndexError) as error:
        raise LevelError(f"{archive.filename}: {name}: damaged: {error}") from None
    if not parts or not all(np.isfinite(part.position).all() for part in parts):
        raise LevelError(f"{archive.filename}: {name}: nothing to see")
    return Model(name, parts, "furniture")

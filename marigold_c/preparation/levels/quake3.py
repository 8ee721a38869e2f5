"""Levels of Quake 3 (IBSP 46 and 47: OpenArena, Nexuiz) as a World, with their baked light.

Calls game_files.py, shader_scripts.py, world.py, lumps.py. Format: K. Proudfoot, Unofficial Quake 3 Map Specs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .game_files import GREY, GameFiles
from .lumps import Lumps, entities, number_of, vector_of
from .shader_scripts import Material, material_of
from .world import Array, Batch, LevelError, Pixels, World

UNITS_PER_METRE = 32.0
SKY, NODRAW, HINT, SKIP = 0x4, 0x80, 0x100, 0x200
LIQUID, FOG = 8 | 16 | 32, 64
VERTEX = [("p", "<f4", 3), ("uv", "<f4", 2), ("lm", "<f4", 2), ("n", "<f4", 3), ("c", "u1", 4)]
FACE = [
    ("tex", "<i4"),
    ("fog", "<i4"),
    ("type", "<i4"),
    ("v", "<i4"),
    ("nv", "<i4"),
    ("m", "<i4"),
    ("nm", "<i4"),
    ("lm", "<i4"),
    ("lms", "<i4", 2),
    ("lmz", "<i4", 2),
    ("lmo", "<f4", 3),
    ("lmv", "<f4", 6),
    ("n", "<f4", 3),
    ("size", "<i4", 2),
]
TEXTURE = [("name", "S64"), ("flags", "<i4"), ("contents", "<i4")]
MODEL = [("mn", "<f4", 3), ("mx", "<f4", 3), ("f", "<i4"), ("nf", "<i4"), ("b", "<i4"), ("nb", "<i4")]
POLYGON, PATCH, MESH, BILLBOARD = 1, 2, 3, 4
PATCH_STEPS = 5
LARGEST_PATCH = 129
PEOPLE = ("info_player", "item_", "weapon_", "ammo_", "team_", "holdable_")
SIDES = ("rt", "lf", "bk", "ft", "up", "dn")


@dataclass(frozen=True)
class LightGrid:
    """Ambient and directed light in cells of 64 x 64 x 128 units (lump 15), for things that are put into the level."""

    origin: NDArray[np.float64]
    counts: tuple[int, int, int]
    cells: NDArray[np.uint8]
    scale: float

    def light(self, points: Array, normals: Array) -> Array:
        """Linear light (V, 3) of vertices: ambient and directed light of the cell of their middle."""
        cell = np.array([64, 64, 128])
        middle = points.mean(axis=0) * UNITS_PER_METRE + (0, 0, 16)
        at = np.clip(np.rint((middle - self.origin) / cell).astype(int), 0, np.array(self.counts) - 1)
        values = self.cells[(at[2] * self.counts[1] + at[1]) * self.counts[0] + at[0]].astype(np.float64)
        azimuth, polar = values[7] * (2 * np.pi / 255), values[6] * (2 * np.pi / 255)
        towards = np.array([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)])
        facing = np.maximum(normals @ towards, 0)[:, None]
        light = (values[:3] + facing * values[3:6]) / 255 * self.scale
        bounded: Array = np.maximum(light, 0.02).astype(np.float32)
        return bounded


def bezier_patch(control: Array, size: tuple[int, int], steps: int) -> tuple[Array, NDArray[np.int32]]:
    """A grid of biquadratic Bezier patches, `size` = columns and rows of control points (odd): vertices, triangles."""
    columns, rows = size
    grid = control.reshape(rows, columns, -1)
    t = np.linspace(0, 1, steps + 1)
    basis = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)

    def refine(points: Any) -> Any:
        curves = [np.einsum("tk,k...->t...", basis, points[i : i + 3])[1:] for i in range(0, len(points) - 2, 2)]
        return np.concatenate([points[:1], *curves])

    fine = refine(refine(grid).swapaxes(0, 1)).swapaxes(0, 1)
    height, width = fine.shape[:2]
    index = np.arange(height * width).reshape(height, width)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = [np.stack(corners, axis=-1).reshape(-1, 3) for corners in ((a, c, b), (b, c, d))]
    return fine.reshape(height * width, -1), np.concatenate(triangles).astype(np.int32)


class _Reader:
    def __init__(self, game: GameFiles, name: str) -> None:
        self.game, self.name = game, name
        self.lumps = Lumps(game.read(name), f"{game.root}: {name}", b"IBSP", (46, 47), 17)
        self.entities = entities(self.lumps.bytes(0))
        self.records = self.lumps.table(1, TEXTURE)
        self.vertices = self.lumps.table(10, VERTEX)
        self.indices = self.lumps.table(11, "<i4")
        colours = self.vertices["c"][:, :3].astype(np.float32) / 255
        columns = [self.vertices[key] for key in ("p", "uv", "lm", "n")]
        self.flat: Array = np.concatenate([*columns, colours], axis=1).astype(np.float32)
        self.materials: dict[str, Material] = {}

    def material(self, record: Any) -> Material:
        name = record["name"].split(b"\0")[0].decode("latin1")
        if name not in self.materials:
            shader = self.game.shaders.get(name.lower())
            material = material_of(name, shader)
            if shader is not None and shader.editor and self.game.find_image(material.image) is None:
                material.image = shader.editor
            flags, contents = int(record["flags"]), int(record["contents"])
            material.sky |= bool(flags & SKY)
            if (flags & (NODRAW | HINT | SKIP) or contents & FOG) and not material.sky:
                material.skip = True
            material.liquid |= bool(contents & LIQUID)
            self.materials[name] = material
        return self.materials[name]

    def faces_of(self, model: Any, faces: Any) -> Any:
        first, count = int(model["f"]), int(model["nf"])
        if first < 0 or count < 0 or first + count > len(faces):
            raise LevelError(f"{self.lumps.file}: a model has the faces {first} to {first + count} of {len(faces)}")
        return faces[first : first + count]

    def shape(self, face: Any) -> tuple[Array, NDArray[np.int32]] | None:
        """Vertices and triangles of a face; None: nothing to draw."""
        first, count = int(face["v"]), int(face["nv"])
        start, length = int(face["m"]), int(face["nm"])
        if first < 0 or count < 0 or first + count > len(self.flat):
            raise LevelError(
                f"{self.lumps.file}: a face has the vertices {first} to {first + count} of {len(self.flat)}"
            )
        own = self.flat[first : first + count]
        if face["type"] == PATCH:
            columns, rows = (int(side) for side in face["size"])
            if min(columns, rows) < 3 or max(columns, rows) > LARGEST_PATCH or columns * rows != count:
                return None
            if columns % 2 == 0 or rows % 2 == 0:
                return None
            return bezier_patch(own, (columns, rows), PATCH_STEPS)
        if face["type"] not in (POLYGON, MESH) or length < 3:
            return None
        if start < 0 or start + length > len(self.indices):
            raise LevelError(
                f"{self.lumps.file}: a face has the indices {start} to {start + length} of {len(self.indices)}"
            )
        triangles = self.indices[start : start + length // 3 * 3].reshape(-1, 3)
        if triangles.min() < 0 or triangles.max() >= count:
            raise LevelError(f"{self.lumps.file}: a face of {count} vertices uses the vertex {triangles.max()}")
        return own, triangles

    def lightmaps(self) -> tuple[list[Pixels], float]:
        folder = self.name.rsplit(".", 1)[0] + "/lm_"
        external = [self.game.image(name, "RGB") for name in self.game.names(folder)]
        pages = [page for page in external if page is not None]
        if pages:
            return pages, 2.0
        raw = np.frombuffer(self.lumps.bytes(14), np.uint8)
        bright = 2.0 if self.game.exists("progs.dat") or self.game.names("", "progs.dat") else 4.0
        return list(raw[: len(raw) // 49152 * 49152].reshape(-1, 128, 128, 3)), bright

    def seeds(self) -> Array:
        found = []
        for entity in self.entities:
            origin = vector_of(entity.get("origin", ""))
            if origin is not None and entity.get("classname", "").startswith(PEOPLE):
                found.append(origin + np.array([0, 0, 16]))
        waypoints = self.name.rsplit(".", 1)[0] + ".waypoints"
        if self.game.exists(waypoints):
            points = [
                vector_of(line.replace("'", " ")) for line in self.game.read(waypoints).decode("latin1").split("\n")
            ]
            found.extend(point + np.array([0, 0, 8]) for point in points if point is not None)
        return np.array(found, np.float32).reshape(-1, 3) / np.float32(UNITS_PER_METRE)

    def grid(self, models: Any, scale: float) -> LightGrid | None:
        cells = np.frombuffer(self.lumps.bytes(15), np.uint8)
        cells = cells[: len(cells) // 8 * 8].reshape(-1, 8)
        if not len(models) or not np.isfinite(models[0]["mn"] + models[0]["mx"]).all():
            return None
        size = np.array([64, 64, 128.0])
        low = np.ceil(models[0]["mn"].astype(np.float64) / size) * size
        high = np.floor(models[0]["mx"].astype(np.float64) / size) * size
        counts = tuple(int(n) for n in (high - low) / size + 1)
        if min(counts) < 1 or int(np.prod(counts)) != len(cells):
            return None
        return LightGrid(low, counts, cells, scale)  # type: ignore[arg-type]


def read_quake3(game: GameFiles, name: str) -> World:
    """The level in the file `name`. LevelError: what it is damaged by. Missing textures are grey, and named."""
    reader = _Reader(game, name)
    lightmaps, scale = reader.lightmaps()
    models, faces = reader.lumps.table(7, MODEL), reader.lumps.table(13, FACE)
    shift: dict[int, NDArray[np.float64]] = {}
    dead: set[int] = set()
    for entity in reader.entities:
        number = number_of(entity.get("model", ""))
        if number is not None:
            origin = vector_of(entity.get("origin", ""))
            shift[number] = np.zeros(3) if origin is None else origin
            if entity.get("classname", "").startswith("trigger"):
                dead.add(number)
    blocks: list[Array] = []
    buckets: dict[tuple[str, int, bool, bool, bool, bool], list[NDArray[np.int32]]] = {}
    sky_box, count = None, 0
    for number, model in enumerate(models):
        if number in dead:
            continue
        for face in reader.faces_of(model, faces):
            if not 0 <= face["tex"] < len(reader.records):
                raise LevelError(f"{reader.lumps.file}: a face has the texture {face['tex']} of {len(reader.records)}")
            material = reader.material(reader.records[face["tex"]])
            found = None if material.skip else reader.shape(face)
            if found is None:
                continue
            vertices = found[0].copy()
            vertices[:, :3] += shift.get(number, np.zeros(3))
            page = int(face["lm"]) if 0 <= face["lm"] < len(lightmaps) else -1
            key = (material.image, page, material.alpha_test, material.sky, material.liquid, material.lit)
            blocks.append(vertices)
            buckets.setdefault(key, []).append((found[1] + count).astype(np.int32))
            count += len(vertices)
            if material.sky and material.sky_box not in (None, "-"):
                sky_box = material.sky_box
    if not blocks:
        raise LevelError(f"{reader.lumps.file}: no face can be drawn")
    joined = np.concatenate(blocks)
    if not np.isfinite(joined).all():
        raise LevelError(f"{reader.lumps.file}: vertices that are no numbers")
    textures: dict[str, Pixels] = {}
    missing: set[str] = set()
    batches = []
    for (image, page, alpha, sky, liquid, lit), triangles in sorted(buckets.items()):
        if image not in textures:
            pixels = None if sky else game.image(image)
            if pixels is None and not sky:
                missing.add(image)
            textures[image] = np.full((4, 4, 4), GREY, np.uint8) if pixels is None else pixels
        batches.append(Batch(image, np.concatenate(triangles), page, alpha, sky, liquid, lit))
    normal = joined[:, 7:10] / np.maximum(np.linalg.norm(joined[:, 7:10], axis=1, keepdims=True), 1e-6)
    faces_of_sky = {side: game.image(f"{sky_box}_{side}", "RGB") for side in SIDES} if sky_box else {}
    return World(
        name=PurePosixPath(name).stem,
        position=joined[:, :3] / np.float32(UNITS_PER_METRE),
        uv=joined[:, 3:5].copy(),
        lightmap_uv=joined[:, 5:7].copy(),
        normal=normal.copy(),
        light=joined[:, 10:13].copy(),
        batches=batches,
        textures=textures,
        lightmaps=lightmaps,
        lightmap_scale=scale,
        baked=True,
        seeds=reader.seeds(),
        missing=sorted(missing),
        sky_faces={side: face for side, face in faces_of_sky.items() if face is not None},
        light_grid=reader.grid(models, scale),
    )

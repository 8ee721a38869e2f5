"""Map tiles of UFO: Alien Invasion (IBSP 78 and 79) as a World, with the models that stand in them, but no light.

Calls game_files.py, lumps.py, models.py, world.py. Format: ufoai's shared/typedefs.h; a storey is 64 units.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from .game_files import GREY, GameFiles
from .lumps import Lumps, entities, vector_of
from .md2 import read_md2
from .world import Array, Batch, LevelError, Model, Pixels, Placed, World, with_models

UNITS_PER_METRE = 27.0
FACE = [("plane", "<u2"), ("side", "<i2"), ("edge", "<i4"), ("n", "<i2"), ("tex", "<i2"), ("light", "<u4", 2)]
TEXTURE = [("v", "<f4", (2, 4)), ("flags", "<u4"), ("value", "<u4"), ("name", "S32")]
PLANE = [("n", "<f4", 3), ("d", "<f4"), ("t", "<i4")]
ALPHA_TEST, BLEND33, BLEND66, NODRAW = 0x2000000, 0x10, 0x20, 0x80
MISSING_SIZE = (64, 64)


def turn(pitch: float, yaw: float, roll: float) -> NDArray[np.float64]:
    """The matrix of angles in degrees, as Quake's AngleVectors has them: yaw about z, pitch down, roll."""
    p, y, r = np.radians([pitch, yaw, roll])
    about_z = np.array([[np.cos(y), -np.sin(y), 0], [np.sin(y), np.cos(y), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(p), 0, np.sin(p)], [0, 1, 0], [-np.sin(p), 0, np.cos(p)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(r), -np.sin(r)], [0, np.sin(r), np.cos(r)]])
    matrix: NDArray[np.float64] = about_z @ about_y @ about_x
    return matrix


def _furniture(game: GameFiles, blocks: list[dict[str, str]], missing: set[str]) -> list[Placed]:
    """The models that the level's own entities put into it."""
    placed = []
    models: dict[tuple[str, int], Model | None] = {}
    for entity in blocks:
        origin = vector_of(entity.get("origin", ""))
        file = entity.get("model", "")
        if entity.get("classname") != "misc_model" or origin is None or not file.lower().endswith(".md2"):
            continue
        skin = int(entity["skin"]) if entity.get("skin", "").isdigit() else 0
        key = (file, skin)
        if key not in models:
            try:
                models[key] = read_md2(game, file, skin=skin, scale=1 / UNITS_PER_METRE)
            except LevelError:
                models[key] = None
                missing.add(file)
        model = models[key]
        if model is None:
            continue
        angles = vector_of(entity.get("angles", ""))
        if angles is None:
            angle = vector_of(f"0 {entity.get('angle', '0')} 0")
            angles = np.zeros(3) if angle is None else angle
        scale = vector_of(entity.get("modelscale_vec", ""))
        matrix = turn(*angles) * (np.ones(3) if scale is None or np.abs(scale).min() < 1e-3 else scale)
        placed.append(Placed(model, matrix, origin / UNITS_PER_METRE))
    return placed


def read_ufo(game: GameFiles, name: str) -> World:
    """The tile in the file `name`. LevelError: what it is damaged by. Missing textures and models are named."""
    lumps = Lumps(game.read(name), f"{game.root}: {name}", b"IBSP", (78, 79), 17)
    vertices, info, faces = lumps.table(2, ("<f4", 3)), lumps.table(5, TEXTURE), lumps.table(6, FACE)
    edges, turns, planes = lumps.table(11, ("<u2", 2)), lumps.table(12, "<i4"), lumps.table(1, PLANE)
    position: list[Array] = []
    uv: list[Array] = []
    normal: list[Array] = []
    seeds: list[NDArray[np.float64]] = []
    buckets: dict[tuple[str, bool], list[NDArray[np.int32]]] = {}
    textures: dict[str, Pixels] = {}
    sizes: dict[str, tuple[int, int]] = {}
    missing: set[str] = set()
    count = 0
    for face in faces:
        if not (0 <= face["tex"] < len(info) and face["plane"] < len(planes)):
            raise LevelError(
                f"{lumps.file}: a face has texture {face['tex']} and plane {face['plane']}, which are not there"
            )
        surface = info[face["tex"]]
        texture = surface["name"].split(b"\0")[0].decode("latin1")
        if surface["flags"] & (NODRAW | BLEND33 | BLEND66) or texture.startswith("tex_common") or face["n"] < 3:
            continue
        if texture not in textures:
            pixels, size = game.image("textures/" + texture), game.image_size("textures/" + texture)
            if pixels is None or size is None:
                missing.add(texture)
                pixels, size = np.full((4, 4, 4), GREY, np.uint8), MISSING_SIZE
            textures[texture], sizes[texture] = pixels, size
        first, length = int(face["edge"]), int(face["n"])
        if first < 0 or first + length > len(turns):
            raise LevelError(f"{lumps.file}: a face has the edges {first} to {first + length} of {len(turns)}")
        sides = turns[first : first + length]
        if np.abs(sides).max() >= len(edges):
            raise LevelError(f"{lumps.file}: a face uses the edge {np.abs(sides).max()} of {len(edges)}")
        corners = np.where(sides >= 0, edges[np.abs(sides), 0], edges[np.abs(sides), 1])
        if corners.max() >= len(vertices):
            raise LevelError(f"{lumps.file}: a face uses the vertex {corners.max()} of {len(vertices)}")
        points = vertices[corners]
        across = planes[face["plane"]]["n"] * (-1 if face["side"] else 1)
        place = (points @ surface["v"][:, :3].T + surface["v"][:, 3]) / np.array(sizes[texture])
        position.append(points)
        uv.append(place)
        normal.append(np.repeat(across[None], length, axis=0))
        fan = np.arange(1, length - 1)
        triangles = np.stack([np.zeros_like(fan), fan, fan + 1], axis=1) + count
        buckets.setdefault((texture, bool(surface["flags"] & ALPHA_TEST)), []).append(triangles.astype(np.int32))
        count += length
        if across[2] > 0.9:
            seeds.append(points.mean(axis=0) + np.array([0, 0, 24]))
    if not position:
        raise LevelError(f"{lumps.file}: no face can be drawn")
    points, places, normals = (np.concatenate(parts).astype(np.float32) for parts in (position, uv, normal))
    if not (np.isfinite(points).all() and np.isfinite(places).all() and np.isfinite(normals).all()):
        raise LevelError(f"{lumps.file}: vertices that are no numbers")
    blocks = entities(lumps.bytes(0))
    furniture = _furniture(game, blocks, missing)
    world = World(
        name=PurePosixPath(name).with_suffix("").as_posix().removeprefix("maps/").replace("/", "-"),
        position=points / np.float32(UNITS_PER_METRE),
        uv=places,
        lightmap_uv=np.zeros_like(places),
        normal=normals,
        light=np.ones_like(points),
        batches=[
            Batch(key, np.concatenate(parts), alpha_test=alpha) for (key, alpha), parts in sorted(buckets.items())
        ],
        textures=textures,
        lightmaps=[],
        seeds=np.array(seeds, np.float32).reshape(-1, 3) / np.float32(UNITS_PER_METRE),
        missing=sorted(missing),
    )
    return with_models(world, furniture)

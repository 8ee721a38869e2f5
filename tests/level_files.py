"""Small levels and scenes for tests, written byte by byte. Called by test_levels.py and test_level_views.py."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from marigold_c.preparation.levels.world import Batch, World

# Corners of a box in [-1, 1], and its sides as quads that look inwards.
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
QUADS = [(2, 3, 1, 0), (5, 7, 6, 4), (1, 5, 4, 0), (6, 7, 3, 2), (4, 6, 2, 0), (3, 7, 5, 1)]


def box_world(half: tuple[float, float, float] = (4.0, 3.0, 2.0)) -> World:
    """The inside of a box about the origin, each side with normals and texture coordinates of its own."""
    points, normals, triangles = [], [], []
    for quad in QUADS:
        corner = CORNERS[list(quad)]
        middle = corner.mean(axis=0)
        first = len(points)
        points.extend(corner * np.array(half, np.float32))
        normals.extend([-middle] * 4)
        triangles.extend([[first, first + 1, first + 2], [first, first + 2, first + 3]])
    uv = np.tile(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32), (6, 1))
    texture = np.random.default_rng(0).integers(60, 230, (16, 16, 4)).astype(np.uint8)
    texture[..., 3] = 255
    return _world("box", points, uv, normals, triangles, texture, [[0, 0, -half[2] + 1]])


def sphere_world(radius: float, parts: int = 360) -> World:
    """A sphere about the origin: rings and meridians a degree apart, with normals of the true surface."""
    sides = np.linspace(0, np.pi, parts + 1), np.linspace(0, 2 * np.pi, 2 * parts + 1)
    polar, azimuth = np.meshgrid(*sides, indexing="ij")
    points = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], axis=-1)
    index = np.arange(points.shape[0] * points.shape[1]).reshape(points.shape[:2])
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.concatenate([np.stack(three, axis=-1).reshape(-1, 3) for three in ((a, c, b), (b, c, d))])
    flat = points.reshape(-1, 3)
    texture = np.full((2, 2, 4), 180, np.uint8)
    return _world("sphere", flat * radius, np.zeros((len(flat), 2)), flat, triangles, texture, np.zeros((0, 3)))


def _world(name: str, points, uv, normals, triangles, texture, seeds) -> World:  # type: ignore[no-untyped-def]
    points = np.array(points, np.float32)
    return World(
        name=name,
        position=points,
        uv=np.array(uv, np.float32),
        lightmap_uv=np.zeros((len(points), 2), np.float32),
        normal=np.array(normals, np.float32),
        light=np.ones_like(points),
        batches=[Batch("t", np.array(triangles, np.int32))],
        textures={"t": texture},
        lightmaps=[],
        seeds=np.array(seeds, np.float32).reshape(-1, 3),
    )


ENTITIES = b'{\n"classname" "worldspawn"\n}\n{\n"classname" "info_player_start"\n"origin" "0 0 -40"\n}\n\0'


def quake3_level(half: int = 128, textures: tuple[str, ...] = ("textures/wall",), entities: bytes = ENTITIES) -> bytes:
    """A level (IBSP 46): the inside of a box of 2 `half` units, the textures in turn, and a curved patch."""
    vertices, faces, indices = b"", b"", b""
    quad = [0, 1, 2, 0, 2, 3]
    indices = struct.pack("<6i", *quad)
    count = 0

    def face(texture: int, kind: int, number: int, rows: tuple[int, int]) -> bytes:
        own = (texture, -1, kind, count, number, 0, 6 if kind == 1 else 0, -1, 0, 0, 0, 0)
        return struct.pack("<12i", *own) + bytes(48) + struct.pack("<2i", *rows)

    def vertex(point, normal, uv) -> bytes:  # type: ignore[no-untyped-def]
        return struct.pack("<10f4B", *point, *uv, 0, 0, *normal, 128, 128, 128, 255)

    for number, corners in enumerate(QUADS):
        corner = CORNERS[list(corners)]
        for point, uv in zip(corner, ((0, 0), (1, 0), (1, 1), (0, 1)), strict=True):
            vertices += vertex(point * half, -corner.mean(axis=0), uv)
        faces += face(number % len(textures), 1, 4, (0, 0))
        count += 4
    for row in range(3):
        for column in range(3):
            vertices += vertex((column * 16.0, row * 16.0, -half + 16.0 * (row == 1)), (0, 0, 1), (column / 2, row / 2))
    faces += face(0, 2, 9, (3, 3))
    count += 9
    records = b"".join(struct.pack("<64s2i", name.encode(), 0, 1) for name in textures)
    model = struct.pack("<6f4i", *([-half] * 3), *([half] * 3), 0, len(QUADS) + 1, 0, 0)
    lumps = {0: entities, 1: records, 7: model, 10: vertices, 11: indices, 13: faces}
    return _with_lumps(b"IBSP", 46, lumps)


def ufo_tile(half: int = 128, texture: str = "wall") -> bytes:
    """A tile (IBSP 78): the inside of a box."""
    planes, faces, turns, edges, vertices = b"", b"", b"", struct.pack("<2H", 0, 0), b""
    for number, corners in enumerate(QUADS):
        corner = CORNERS[list(corners)]
        planes += struct.pack("<4fi", *-corner.mean(axis=0), -half, 0)
        faces += struct.pack("<Hhihh8x", number, 0, 4 * number, 4, 0)
        for side in range(4):
            edges += struct.pack("<2H", 4 * number + side, 4 * number + (side + 1) % 4)
            turns += struct.pack("<i", 1 + 4 * number + side)
            vertices += struct.pack("<3f", *(corner[side] * half))
    info = struct.pack("<8f2I32s", 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, texture.encode())
    lumps = {0: ENTITIES, 1: planes, 2: vertices, 5: info, 6: faces, 11: edges, 12: turns}
    return _with_lumps(b"IBSP", 78, lumps)


def _with_lumps(magic: bytes, version: int, lumps: dict[int, bytes]) -> bytes:
    directory, body, start = b"", b"", 8 + 8 * 17
    for number in range(17):
        data = lumps.get(number, b"")
        directory += struct.pack("<2i", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    return magic + struct.pack("<i", version) + directory + body


TRACK = """AC3Db
MATERIAL "road" rgb 1 1 1 amb 1 1 1 emis 0 0 0 spec 0 0 0 shi 1 trans 0
OBJECT world
kids 1
OBJECT poly
texture "road-asphalt.png"
loc 1 0 0
numvert 4
-10 0 -10
10 0 -10
10 0 10
-10 0 10
numsurf 1
SURF 0x20
mat 0
refs 4
3 0 0
2 1 0
1 1 1
0 0 1
kids 0
"""


def write_room(path: Path) -> None:
    """An OBJ file, y up: the inside of a room of 8 x 3 x 6 m, and a pillar in it."""
    lines, count = [], 0
    for size, middle, inside in (((4, 1.5, 3), (0, 1.5, 0), True), ((0.3, 1, 0.3), (1, 1, 0.5), False)):
        for corner in CORNERS:
            lines.append("v " + " ".join(f"{a * b + c:g}" for a, b, c in zip(corner, size, middle, strict=True)))
        for quad in QUADS:
            order = quad if inside else quad[::-1]
            lines.append("f " + " ".join(str(count + corner + 1) for corner in order))
        count += 8
    path.write_text("\n".join(lines) + "\n")

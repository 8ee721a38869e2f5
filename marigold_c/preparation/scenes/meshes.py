"""Triangle meshes of synthetic scenes, in numpy: boxes, surfaces of revolution, superellipsoids, blobs, sheets, prisms.

Called by furniture.py, rooms.py, plants.py and landscapes.py; knows nothing of materials or of the renderer. Lengths
are metres, z is up. Texture coordinates are metres along the surface, or [0, 1] over a sheet: what they mean is said by
the material (materials.Material.tile).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .noise import Noise3

Floats = NDArray[np.float64]
_PLACE_KEYS = np.array([0x1B873593CC9E2D51, 0x27D4EB2F165667C5, 0x0F1BBCDCBFA53E0B])  # products wrap around


@dataclass(frozen=True)
class Mesh:
    """vertices (N, 3), normals (N, 3) of unit length, uv (N, 2), triangles (M, 3) of indices of vertices."""

    vertices: Floats
    normals: Floats
    uv: Floats
    triangles: NDArray[np.int64]

    def moved(self, offset: ArrayLike) -> Mesh:
        return Mesh(self.vertices + np.asarray(offset, np.float64), self.normals, self.uv, self.triangles)

    def turned(self, degrees: float, axis: int = 2) -> Mesh:
        """Turned about an axis through the origin, counter-clockwise seen from its tip."""
        angle = np.deg2rad(degrees)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = np.cos(angle)
        matrix[second, first] = np.sin(angle)
        matrix[first, second] = -np.sin(angle)
        return Mesh(self.vertices @ matrix.T, self.normals @ matrix.T, self.uv, self.triangles)

    def scaled(self, factors: ArrayLike) -> Mesh:
        """Stretched by a number or by (x, y, z), all positive; texture coordinates stay."""
        scale = np.broadcast_to(np.asarray(factors, np.float64), 3)
        normals = self.normals / scale
        return Mesh(self.vertices * scale, _unit(normals), self.uv, self.triangles)

    def deformed(self, noise: Noise3, amount: float, cell: float) -> Mesh:
        """Every vertex moved along its normal by up to `amount` of smooth noise of that cell size; normals anew.

        Vertices at one place move together, so that closed meshes stay closed where their normals agree.
        """
        distance = (noise.fractal(self.vertices / cell, octaves=3) - 0.5) * 2 * amount
        vertices = self.vertices + self.normals * distance[:, None]
        return Mesh(vertices, vertex_normals(vertices, self.triangles), self.uv, self.triangles)


def _unit(vectors: NDArray[Any]) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Floats = np.divide(vectors, lengths, out=np.zeros(vectors.shape), where=lengths > 1e-12)
    return unit


def vertex_normals(vertices: Floats, triangles: NDArray[np.int64]) -> Floats:
    """Normals weighted by area; vertices at one place share theirs, so that seams of sheets do not show."""
    corners = vertices[triangles]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # Places as whole numbers of micrometres, in one integer each: sorting those is far faster than sorting rows.
    key = np.rint(vertices * 1e6).astype(np.int64) @ _PLACE_KEYS
    _, place = np.unique(key, return_inverse=True)
    place = place.reshape(-1)
    count = int(place.max()) + 1
    corner = place[triangles].T.ravel()
    sums = np.stack([np.bincount(corner, np.tile(faces[:, axis], 3), count) for axis in range(3)], -1)
    return _unit(sums[place])


def merged(meshes: Sequence[Mesh]) -> Mesh:
    counts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, counts[:-1], strict=True)]),
    )


def quad(corner: ArrayLike, along_u: ArrayLike, along_v: ArrayLike, picture: bool = False) -> Mesh:
    """A parallelogram; its front is where u x v points. uv in metres, or [0, 1] if it shows a picture."""
    origin, u, v = (np.asarray(one, np.float64) for one in (corner, along_u, along_v))
    vertices = np.stack([origin, origin + u, origin + u + v, origin + v])
    width, height = (1.0, 1.0) if picture else (float(np.linalg.norm(u)), float(np.linalg.norm(v)))
    uv = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    normals = np.repeat(_unit(np.cross(u, v))[None], 4, axis=0)
    return Mesh(vertices, normals, uv, np.array([[0, 1, 2], [0, 2, 3]]))


def _unit_box() -> tuple[Mesh, NDArray[np.int64]]:
    """The box from 0 to 1, and which axes each vertex's texture coordinates measure."""
    x, y, z = np.eye(3)
    sides = [quad(0 * x, x, z), quad(x, y, z), quad(x + y, -x, z), quad(y, -y, z), quad(z, x, y), quad(y, x, -y)]
    axes = np.repeat([[0, 2], [1, 2], [0, 2], [1, 2], [0, 1], [0, 1]], 4, axis=0)
    return merged(sides), axes


_UNIT_BOX, _BOX_AXES = _unit_box()


def box(size: ArrayLike, centre: ArrayLike = (0.0, 0.0, 0.0)) -> Mesh:
    """An axis-aligned box."""
    extent = np.broadcast_to(np.asarray(size, np.float64), 3)
    vertices = (_UNIT_BOX.vertices - 0.5) * extent + np.asarray(centre, np.float64)
    return Mesh(vertices, _UNIT_BOX.normals, _UNIT_BOX.uv * extent[_BOX_AXES], _UNIT_BOX.triangles)


def standing_box(size: ArrayLike, at: ArrayLike = (0.0, 0.0, 0.0)) -> Mesh:
    """A box whose bottom's centre is `at`."""
    x, y, z = np.asarray(at, np.float64)
    return box(size, (x, y, z + float(np.asarray(size, np.float64)[2]) / 2))


def sheet(points: Floats, uv: Floats | None = None) -> Mesh:
    """A smooth surface through a grid of points (R, C, 3); its front is where rows x columns point. uv: (R, C, 2)."""
    rows, columns = points.shape[:2]
    if uv is None:
        v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
        uv = np.stack([u, v], axis=-1)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    vertices = points.reshape(-1, 3).astype(np.float64)
    return Mesh(vertices, vertex_normals(vertices, triangles), uv.reshape(-1, 2).astype(np.float64), triangles)


def revolved(profile: ArrayLike, segments: int = 32) -> Mesh:
    """A surface of revolution about z through (radius, height) points, smooth; from the bottom up its front is outside.

    For an edge, give the point twice: the surface is smooth only between different points.
    """
    outline = np.asarray(profile, np.float64)
    breaks = [0, *(np.flatnonzero((np.diff(outline, axis=0) == 0).all(axis=1)) + 1), len(outline)]
    return merged([_revolved_piece(outline[a:b], segments) for a, b in pairwise(breaks) if b - a > 1])


def _revolved_piece(outline: Floats, segments: int) -> Mesh:
    angles = np.linspace(0, 2 * np.pi, segments + 1)
    angles[-1] = 0.0
    around = np.stack([np.cos(angles), np.sin(angles)], -1)
    points = np.empty((segments + 1, len(outline), 3))
    points[:, :, :2] = around[:, None] * outline[None, :, :1]
    points[:, :, 2] = outline[None, :, 1]
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
    turn = np.linspace(0, 2 * np.pi * float(outline[:, 0].max()), segments + 1)
    uv = np.stack(np.broadcast_arrays(turn[:, None], length[None]), -1)
    return sheet(points, uv)


def cylinder(radius: float, height: float, segments: int = 24, top_radius: float | None = None) -> Mesh:
    """Standing on z = 0, closed; a cone if the top's radius is 0."""
    top = radius if top_radius is None else top_radius
    side = [(0.0, 0.0), (radius, 0.0), (radius, 0.0), (top, height)]
    return revolved(side if top == 0 else [*side, (top, height), (0.0, height)], segments)


def superellipsoid(size: ArrayLike, squareness: tuple[float, float] = (1.0, 1.0), segments: int = 28) -> Mesh:
    """About the origin with these diameters. squareness: of the outline seen from the side and from above; 1: round,
    towards 0: a box with soft edges, 2: a double cone or an octahedron."""
    side, above = squareness
    latitude = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    longitude = np.linspace(0, 2 * np.pi, segments + 1)
    longitude[-1] = 0.0
    half = np.asarray(size, np.float64) / 2

    def power(values: Floats, exponent: float) -> Floats:
        return np.asarray(np.sign(values) * np.abs(values) ** exponent, np.float64)

    ring = power(np.cos(latitude).clip(0), side)
    points = np.empty((segments + 1, len(latitude), 3))
    points[:, :, 0] = power(np.cos(longitude), above)[:, None] * ring
    points[:, :, 1] = power(np.sin(longitude), above)[:, None] * ring
    points[:, :, 2] = power(np.sin(latitude), side)
    uv = np.stack(
        np.broadcast_arrays(
            np.linspace(0, float(half[0] + half[1]) * np.pi, segments + 1)[:, None],
            (latitude + np.pi / 2)[None] * float(half[2]) * 2,
        ),
        -1,
    )
    return sheet(points * half, uv)


def torus(radius: float, thickness: float, segments: int = 32) -> Mesh:
    """Lying about the origin; `radius` to the middle of the ring, `thickness` is the ring's radius."""
    turn = np.linspace(0, 2 * np.pi, 17)
    outline = np.stack([radius + thickness * np.cos(turn), thickness * np.sin(turn)], -1)
    outline[-1] = outline[0]
    return _revolved_piece(outline, segments)


def prism(outline: ArrayLike, length: float) -> Mesh:
    """A convex outline of (x, z) points, counter-clockwise seen from -y, stretched along y from 0 to `length`."""
    points = np.asarray(outline, np.float64)
    front = np.stack([points[:, 0], np.zeros(len(points)), points[:, 1]], -1)
    back = front + np.array([0, length, 0])
    sides = [
        quad(front[(i + 1) % len(points)], front[i] - front[(i + 1) % len(points)], (0, length, 0))
        for i in range(len(points))
    ]
    fan = np.array([[0, i, i + 1] for i in range(1, len(points) - 1)])
    towards, away = np.array([[0.0, -1, 0]]), np.array([[0.0, 1, 0]])
    ends = [
        Mesh(front, np.repeat(towards, len(points), axis=0), points.copy(), fan),
        Mesh(back, np.repeat(away, len(points), axis=0), points.copy(), fan[:, ::-1].copy()),
    ]
    return merged([*sides, *ends])


def blob(rng: np.random.Generator, size: ArrayLike, roughness: float = 0.25, segments: int = 20) -> Mesh:
    """A deformed ellipsoid: a rock, a bush, the crown of a tree."""
    ball = superellipsoid((1, 1, 1), segments=segments).deformed(Noise3(rng), roughness / 2, 0.35)
    return ball.scaled(size)

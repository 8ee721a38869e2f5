"""What every reader of levels and models returns: triangles in metres, z up, with textures and baked light.

Calls nothing of the package.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class LevelError(ValueError):
    """A level, model or script that cannot be used; the message names the file."""


@dataclass(frozen=True)
class Batch:
    """Triangles that are drawn in one way.

    texture: a key of World.textures. triangles: int32 (T, 3) into the arrays of vertices. lightmap: a page of
    World.lightmaps, or -1 for the light of vertices. alpha_test: texels below half alpha are holes. sky and liquid: no
    depth, no normal. lit False: the texture shines by itself."""

    texture: str
    triangles: NDArray[np.int32]
    lightmap: int = -1
    alpha_test: bool = False
    sky: bool = False
    liquid: bool = False
    lit: bool = True


@dataclass(frozen=True)
class World:
    """position, normal, light: (V, 3); light is linear. uv, lightmap_uv: (V, 2). textures: uint8 (H, W, 4), sRGB, row 0
    at v = 0. lightmaps: uint8 (H, W, 3), linear, to be multiplied by lightmap_scale / 255. baked: whether the light of
    vertices and lightmaps is the level's own. seeds: (N, 3), points where a person could be. missing: names of textures
    that were not found. sky_faces: pictures of the sky by side. light_grid: gives the baked light of things that are
    put in. tint: (V, 3), linear: what textures are multiplied by."""

    name: str
    position: Array
    uv: Array
    lightmap_uv: Array
    normal: Array
    light: Array
    batches: list[Batch]
    textures: dict[str, Pixels]
    lightmaps: list[Pixels]
    seeds: Array
    lightmap_scale: float = 1.0
    baked: bool = False
    missing: list[str] = field(default_factory=list)
    sky_faces: dict[str, Pixels] = field(default_factory=dict)
    light_grid: Any = None
    tint: Array | None = None

    def triangles(self, sky: bool = False, alpha: bool = True) -> NDArray[np.int32]:
        """(T, 3): those of the sky, or all others; alpha False leaves those with holes out."""
        parts = [batch.triangles for batch in self.batches if batch.sky == sky and (alpha or not batch.alpha_test)]
        return np.concatenate(parts) if parts else np.zeros((0, 3), np.int32)


@dataclass(frozen=True)
class Part:
    """Triangles of a model with one texture. position, normal: (V, 3); uv: (V, 2); texture: (H, W, 4)."""

    texture: Pixels
    position: Array
    uv: Array
    normal: Array
    triangles: NDArray[np.int32]
    alpha_test: bool = False


@dataclass(frozen=True)
class Model:
    """A thing that can be put into a world: metres, z up. kind: furniture, person, car or thing."""

    name: str
    parts: list[Part]
    kind: str = "thing"

    def box(self) -> tuple[Array, Array]:
        """The lowest and the highest corner."""
        points = np.concatenate([part.position for part in self.parts])
        return points.min(axis=0), points.max(axis=0)

    def standing(self) -> Model:
        """The same with the middle of its floor in the origin."""
        low, high = self.box()
        shift = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]], np.float32)
        return replace(self, parts=[replace(part, position=part.position - shift) for part in self.parts])


@dataclass(frozen=True)
class Placed:
    """A model in a world: position = matrix @ model + offset; light: linear, of all vertices, or by vertex."""

    model: Model
    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]


def with_models(world: World, things: list[Placed], light_of: Any = None) -> World:
    """The world and things in it. light_of(points, normals) -> (V, 3): the light of their vertices, if it is baked."""
    position, uv, normal, light = [world.position], [world.uv], [world.normal], [world.light]
    batches, textures, count = list(world.batches), dict(world.textures), len(world.position)
    buckets: dict[tuple[str, bool], list[NDArray[np.int32]]] = {}
    for thing in things:
        rotate = np.linalg.inv(thing.matrix).T
        mirrored = np.linalg.det(thing.matrix) < 0
        for number, part in enumerate(thing.model.parts):
            key = f"{thing.model.name}#{number}"
            textures[key] = part.texture
            points = (part.position @ thing.matrix.T + thing.offset).astype(np.float32)
            turned = part.normal @ rotate.T
            turned = (turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-9)).astype(np.float32)
            position.append(points)
            uv.append(part.uv)
            normal.append(turned)
            light.append(np.ones_like(points) if light_of is None else light_of(points, turned).astype(np.float32))
            triangles = part.triangles[:, ::-1] if mirrored else part.triangles
            buckets.setdefault((key, part.alpha_test), []).append((triangles + count).astype(np.int32))
            count += len(points)
    for (key, alpha), blocks in buckets.items():
        batches.append(Batch(key, np.concatenate(blocks), alpha_test=alpha))
    joined = [np.concatenate(parts).astype(np.float32) for parts in (position, uv, normal, light)]
    tint = None
    if world.tint is not None:
        tint = np.concatenate([world.tint, np.ones((count - len(world.tint), 3), np.float32)])
    lightmap_uv = np.zeros((count, 2), np.float32)
    lightmap_uv[: len(world.lightmap_uv)] = world.lightmap_uv
    return replace(
        world,
        position=joined[0],
        uv=joined[1],
        normal=joined[2],
        light=joined[3],
        lightmap_uv=lightmap_uv,
        batches=batches,
        textures=textures,
        tint=tint,
    )

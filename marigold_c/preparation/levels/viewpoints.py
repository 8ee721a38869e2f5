"""Where cameras stand in a World: as photographers hold them, on floors, with something to see. Calls world.py.

Rays are cast by Embree (embreex).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...extras import check_module, optional_module
from .rasteriser import View
from .world import World

Vector = NDArray[np.float64]


class Caster:
    """Rays against a world's triangles."""

    def __init__(self, world: World, alpha: bool = True) -> None:
        """alpha False: surfaces with holes are left out, as they would throw the shadow of a board."""
        check_module("embreex", "casting rays")
        solid, sky = world.triangles(alpha=alpha), world.triangles(sky=True)
        self._solid = len(solid)
        corners = world.position[np.concatenate([solid, sky])].astype(np.float32)
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self.normals = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
        self._scene = optional_module("embreex.rtcore_scene", "casting rays").EmbreeScene()
        self._mesh = optional_module("embreex.mesh_construction", "casting rays").TriangleMesh(self._scene, corners)

    def cast(self, origin: Vector, direction: Vector) -> tuple[Vector, NDArray[np.int64], NDArray[np.bool_]]:
        """Distances in lengths of `direction` (inf: nothing, or the sky), triangles (-1: none), whether it is the sky.

        origin: (3,) or (N, 3); direction: (N, 3)."""
        origins = np.ascontiguousarray(np.broadcast_to(origin, direction.shape), np.float32)
        found = self._scene.run(origins, np.ascontiguousarray(direction, np.float32), output=1)
        triangle = found["primID"].astype(np.int64)
        sky = triangle >= self._solid
        return np.where((triangle < 0) | sky, np.inf, found["tfar"].astype(np.float64)), triangle, sky

    def floor(self, point: Vector, reach: float = 8.0) -> Vector | None:
        """What lies flat below a point, at most `reach` metres; None: nothing does."""
        distance, triangle, _ = self.cast(point, np.array([[0.0, 0.0, -1.0]]))
        if not distance[0] < reach or abs(self.normals[triangle[0], 2]) < 0.6:
            return None
        floor: Vector = point - np.array([0, 0, distance[0]])
        return floor

    def reach(self, point: Vector, towards: Vector) -> float:
        """How far one can see from a point."""
        return float(self.cast(point, towards[None])[0][0])


@dataclass(frozen=True)
class Taste:
    """What views are taken. near, far: metres, of the nearest pixel at least and of the middle one at least; sky: part
    of a view at most; eye: metres over the floor; fov: degrees, horizontal; tilt: degrees, mean and deviation."""

    near: float = 0.3
    middle: float = 0.8
    sky: float = 0.45
    void: float = 0.02
    spread: float = 0.2
    eye: tuple[float, float] = (0.7, 1.8)
    fov: tuple[float, float] = (38.0, 75.0)
    tilt: tuple[float, float] = (-4.0, 7.0)
    roll: float = 1.5
    aspect: float = 0.75


@dataclass
class Refusals:
    """How often places and views were refused, by reason."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


def rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """A camera's axes (right, up, back) as columns, in the world's (z up); radians."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    forward, right = np.array([cy * cp, sy * cp, sp]), np.array([sy, -cy, 0.0])
    up = np.cross(right, forward)
    return np.stack([cr * right + sr * up, cr * up - sr * right, -forward], axis=1)


def why_not(caster: Caster, view: View, taste: Taste, closed: bool) -> str | None:
    """Why a view is no good, or None. closed: the level has a sky of its own, so rays that meet nothing leave it."""
    rays = View(view.origin, view.rotation, view.fov).rays(18, 24).reshape(-1, 3)
    depth, triangle, sky = caster.cast(view.origin, rays @ view.rotation.T)
    solid = np.isfinite(depth)
    if (triangle < 0).mean() > (taste.void if closed or sky.any() else taste.sky):
        return "void"
    if solid.mean() < 1 - taste.sky:
        return "sky"
    # Where there is no sky, what lies beyond the world's end shall be above: a hole below the horizon is no photograph.
    if not closed and (triangle < 0).reshape(18, 24)[12:].mean() > taste.void:
        return "edge"
    if depth[solid].min() < taste.near:
        return "near"
    if np.log(depth[solid]).std() < taste.spread or np.median(depth[solid]) < taste.middle:
        return "flat"
    return None


class Walker:
    """Walks at random from where a person could be; every place that it finds is one to go on from."""

    def __init__(self, world: World, caster: Caster, taste: Taste, rng: np.random.Generator) -> None:
        self._caster, self._taste, self._rng = caster, taste, rng
        self._places = [seed.astype(np.float64) for seed in world.seeds]
        self.closed = bool(world.lightmaps) or len(world.triangles(sky=True)) > 0
        self.refusals = Refusals()

    def place(self) -> Vector | None:
        """A point on a floor with room above it for a person to stand, or None."""
        rng, start = self._rng, self._places[self._rng.integers(len(self._places))]
        angle = rng.uniform(0, 2 * np.pi)
        towards = np.array([np.cos(angle), np.sin(angle), 0.0])
        free = min(self._caster.reach(start, towards) - 0.5, 12.0)
        floor = self._caster.floor(start + max(free * rng.uniform(0.1, 0.9), 0.0) * towards)
        if floor is None:
            self.refusals.add("fall")
            return None
        if self._caster.reach(floor + np.array([0, 0, 0.1]), np.array([0.0, 0, 1])) < 2.0:
            self.refusals.add("low")
            return None
        return floor

    def view(self) -> View | None:
        """A view from somewhere, or None. Of six directions, those that see far are likelier: else walls fill most."""
        rng, taste = self._rng, self._taste
        floor = self.place()
        if floor is None:
            return None
        eye = floor + np.array([0, 0, rng.uniform(*taste.eye)])
        yaws = rng.uniform(0, 2 * np.pi, 6)
        fan = (yaws[:, None] + np.linspace(-0.4, 0.4, 7)).ravel()
        reach = self._caster.cast(eye, np.stack([np.cos(fan), np.sin(fan), np.zeros_like(fan)], axis=1))[0]
        weight = np.exp(1.5 * np.log(np.clip(reach, 0.3, 15).reshape(6, 7)).mean(axis=1))
        yaw = rng.choice(yaws, p=weight / weight.sum())
        pitch, roll = np.radians(rng.normal(*taste.tilt)), np.radians(rng.normal(0, taste.roll))
        view = View(eye, rotation(yaw, pitch, roll), float(np.radians(rng.uniform(*taste.fov))))
        reason = why_not(self._caster, view, taste, self.closed)
        if reason:
            self.refusals.add(reason)
            return None
        self._places.append(floor + np.array([0, 0, 1.0]))
        return view

    def views(self, count: int, tries: int = 40) -> list[View]:
        """At most `count` views, from at most `tries` times as many places."""
        found: list[View] = []
        if self._places:
            for _ in range(count * tries):
                if len(found) == count:
                    break
                view = self.view()
                if view is not None:
                    found.append(view)
        return found


def view_of(target: Vector, size: float, caster: Caster, taste: Taste, rng: np.random.Generator) -> View | None:
    """A view of something of `size` metres that stands on a floor at `target`, near the middle of the picture."""
    angle, distance = rng.uniform(0, 2 * np.pi), max(size, 0.4) * np.exp(rng.uniform(np.log(1.1), np.log(3.5)))
    eye = target + np.array([np.cos(angle) * distance, np.sin(angle) * distance, rng.uniform(*taste.eye)])
    aim = target + np.array([0, 0, size * rng.uniform(0.2, 0.6)]) + rng.normal(0, 0.15 * distance, 3) * [1, 1, 0.4]
    towards = aim - eye
    length = float(np.linalg.norm(towards))
    if caster.floor(eye, taste.eye[1] + 0.5) is None or caster.reach(eye, towards / length) < 0.5 * length:
        return None
    yaw, pitch = np.arctan2(towards[1], towards[0]), np.arcsin(towards[2] / length)
    turn = rotation(float(yaw), float(pitch), np.radians(rng.normal(0, taste.roll)))
    return View(eye, turn, float(np.radians(rng.uniform(*taste.fov))))

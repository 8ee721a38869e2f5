"""Light for worlds that have none: sun with shadows, sky, and a lamp near the camera. Calls viewpoints.py, world.py.

Diffuse light alone, so that image = albedo * shading holds exactly. The sky's part is a mean over cosine-weighted rays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .rasteriser import Drawing, View
from .viewpoints import Caster

Array = NDArray[np.float64]
OPEN = 6.0  # metres: what is further away does not darken the sky's light
CLOSED = 0.22  # of the sky's light comes from surfaces instead


@dataclass(frozen=True)
class Sun:
    """towards: unit vector; colours are linear; lamp: of the light of a lamp near the camera."""

    towards: Array
    colour: Array
    sky: Array
    lamp: Array

    @staticmethod
    def random(rng: np.random.Generator) -> Sun:
        azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(15, 75))
        towards = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
        strength = rng.choice([0.0, rng.uniform(0.3, 1.2)], p=[0.3, 0.7])  # overcast or not
        warm = rng.uniform(0, 1)
        colour = strength * np.array([1.0, 0.98 - 0.12 * warm, 0.95 - 0.35 * warm])
        sky = rng.uniform(0.25, 0.6) * np.array([1 - 0.25 * strength * rng.uniform(), 0.95, 1.0 + 0.1 * strength])
        lamp = rng.choice([0.0, rng.uniform(0.3, 1.5)], p=[0.3, 0.7]) * np.array(
            [1.0, rng.uniform(0.8, 1), rng.uniform(0.6, 1)]
        )
        return Sun(towards, colour, sky, lamp)


def _visible(caster: Caster, start: Array, towards: Array) -> NDArray[np.bool_]:
    """Whether nothing lies between each start and start + towards (lengths matter)."""
    distance, _, _ = caster.cast(start, towards)
    return np.asarray(distance >= 1.0)


def light(
    drawing: Drawing, view: View, caster: Caster, sun: Sun, rng: np.random.Generator, sky_rays: int = 3
) -> Drawing:
    """The drawing with new shading. caster: without surfaces that have holes."""
    depth = np.abs(drawing.depth).astype(np.float64)
    valid = depth > 0
    points = (view.rays(*depth.shape) * depth[..., None]) @ view.rotation.T + view.origin
    normals = drawing.normal.astype(np.float64) @ view.rotation.T
    starts = points + normals * (0.02 + 0.002 * depth[..., None])
    shading = np.zeros((*depth.shape, 3))
    facing = normals @ sun.towards
    some = valid & (facing > 0)
    if sun.colour.any() and some.any():
        clear = _visible(caster, starts[some], np.broadcast_to(sun.towards * 1e4, (int(some.sum()), 3)))
        shading[some] += (facing[some] * clear)[:, None] * sun.colour
    # Indoors, where the camera has a roof over it, a lamp hangs.
    roof = caster.reach(view.origin, np.array([0.0, 0, 1]))
    if sun.lamp.any() and roof < 5:
        sideways = view.rotation[:, 0] * rng.normal(0, 0.7) - view.rotation[:, 2] * rng.uniform(0, 2.0)
        lamp = view.origin + np.array([0, 0, 0.8 * roof])
        if caster.reach(lamp, sideways / np.linalg.norm(sideways)) > np.linalg.norm(sideways):
            lamp = lamp + sideways
        towards = lamp - starts
        far = np.linalg.norm(towards, axis=-1)
        facing = (normals * towards).sum(axis=-1) / np.maximum(far, 1e-6)
        some = valid & (facing > 0)
        clear = _visible(caster, starts[some], towards[some])
        shading[some] += (facing[some] * clear / (0.3 + far[some] ** 2) * 4.0)[:, None] * sun.lamp
    shading += _sky(starts, normals, valid, depth, caster, rng, sky_rays)[..., None] * sun.sky
    return replace(drawing, shading=shading.astype(np.float32))


def _sky(
    starts: Array,
    normals: Array,
    valid: NDArray[np.bool_],
    depth: Array,
    caster: Caster,
    rng: np.random.Generator,
    rays: int,
) -> Array:
    """How open each point is, from every second pixel of every second row, smoothed over like surfaces."""
    part = (slice(None, None, 2), slice(None, None, 2))
    start, normal, here, z = starts[part], normals[part], valid[part], depth[part]
    open_ = np.zeros(z.shape)
    for _ in range(rays):
        towards = rng.normal(size=normal.shape)
        towards = normal + towards / np.linalg.norm(towards, axis=-1, keepdims=True)
        towards /= np.maximum(np.linalg.norm(towards, axis=-1, keepdims=True), 1e-6)
        distance = caster.cast(start[here], towards[here])[0]
        open_[here] += np.where(distance < OPEN, CLOSED, 1.0) / rays
    total, weight = np.zeros_like(z), np.zeros_like(z)
    for i in (-2, -1, 0, 1, 2):
        for j in (-2, -1, 0, 1, 2):
            shift = ((i, j), (0, 1))
            alike = (np.abs(np.roll(z, *shift) - z) < 0.05 * z + 1e-6) & np.roll(here, *shift)
            alike &= (np.roll(normal, *shift) * normal).sum(axis=-1) > 0.9
            total += alike * np.roll(open_, *shift)
            weight += alike
    smooth = np.where(weight > 0, total / np.maximum(weight, 1), 0.5)
    return np.repeat(np.repeat(smooth, 2, axis=0), 2, axis=1)[: depth.shape[0], : depth.shape[1]]

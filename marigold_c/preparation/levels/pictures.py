"""A drawing as a photograph: sky behind it, exposed, with a display's gamma. Calls world.py.

image = albedo * shading in linear light, exactly, before values above 1 are cut off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .rasteriser import Drawing, View
from .world import World

Array = NDArray[np.float32]
# Sides of a sky box: axis, sign, which rays go to the right and down of its picture.
SIDES = (
    ("rt", 0, 1, (1, -1), (2, -1)),
    ("lf", 0, -1, (1, 1), (2, -1)),
    ("bk", 1, 1, (0, 1), (2, -1)),
    ("ft", 1, -1, (0, -1), (2, -1)),
    ("up", 2, 1, (1, -1), (0, 1)),
    ("dn", 2, -1, (1, -1), (0, -1)),
)


def to_srgb(linear: Array) -> Array:
    """IEC 61966-2-1; values are cut off at 0 and 1."""
    values = np.clip(linear, 0, 1)
    curve = 1.055 * np.maximum(values, 1e-8) ** (1 / 2.4) - 0.055
    result: Array = np.where(values < 0.0031308, 12.92 * values, curve)
    return result


def from_srgb(encoded: Array) -> Array:
    linear: Array = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return linear


@dataclass(frozen=True)
class Picture:
    """rgb: uint8 (H, W, 3). depth (H, W): metres, 0: none. normals, albedo, shading (H, W, 3): zero there."""

    rgb: NDArray[np.uint8]
    depth: Array
    normals: Array
    albedo: Array
    shading: Array


def sky_behind(view: View, world: World, height: int, width: int, rng: np.random.Generator) -> Array:
    """Linear colours (H, W, 3) of the sky: the world's own box, or a gradient."""
    rays = view.rays(height, width) @ view.rotation.T
    if len(world.sky_faces) < 5:
        up = np.clip(rays[..., 2:] / np.linalg.norm(rays, axis=-1, keepdims=True), 0, 1) ** rng.uniform(0.3, 0.8)
        grey = rng.uniform(0, 1)
        zenith = np.array([0.2, 0.38, 0.75]) * (1 - grey) + grey * np.array([0.6, 0.63, 0.66])
        horizon = np.array([0.75, 0.82, 0.9]) * rng.uniform(0.7, 1.2)
        gradient: Array = ((1 - up) * horizon + up * zenith).astype(np.float32)
        return gradient
    out = np.zeros(rays.shape, np.float32)
    largest = np.abs(rays).argmax(axis=-1)
    for name, axis, sign, (right, right_sign), (down, down_sign) in SIDES:
        here = (largest == axis) & (np.sign(rays[..., axis]) == sign)
        if name not in world.sky_faces or not here.any():
            continue
        face = world.sky_faces[name]
        depth = np.abs(rays[..., axis])[here]
        across = (right_sign * rays[..., right][here] / depth + 1) / 2 * face.shape[1]
        along = (down_sign * rays[..., down][here] / depth + 1) / 2 * face.shape[0]
        rows, columns = (
            np.clip(along.astype(int), 0, face.shape[0] - 1),
            np.clip(across.astype(int), 0, face.shape[1] - 1),
        )
        out[here] = from_srgb(face[rows, columns] / np.float32(255))
    return out


def photograph(drawing: Drawing, view: View, world: World, rng: np.random.Generator) -> Picture | None:
    """The picture, exposed so that a high percentile of it is bright; None: it would be black, or without contrast."""
    seen, valid = drawing.depth != 0, drawing.depth > 0
    lit = drawing.albedo * drawing.shading
    brightness = lit.mean(axis=-1)[seen]
    if len(brightness) < 0.2 * seen.size:
        return None
    level = float(np.percentile(brightness, rng.uniform(80, 98)))
    if level < 1e-3:
        return None
    shading = drawing.shading * np.float32(np.clip(rng.uniform(0.35, 0.85) / level, 0.1, 30))
    cover = drawing.cover[..., None]
    linear: Array = drawing.albedo * shading * cover
    if cover.min() < 1:
        height, width = seen.shape
        linear = linear + (1 - cover) * sky_behind(view, world, height, width, rng)
    rgb = np.rint(to_srgb(linear) * 255).astype(np.uint8)
    if rgb.std() < 10:
        return None
    there = valid[..., None]
    return Picture(
        rgb,
        np.where(valid, drawing.depth, 0).astype(np.float32),
        drawing.normal * there,
        drawing.albedo * there,
        shading * there,
    )

"""The sky as a picture of radiance, and the sun: light of landscapes and what is seen through windows.

Called by landscapes.py and rooms.py. A smooth sky of three colours with drifting clouds; not a measured model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .noise import tiled


@dataclass(frozen=True)
class Sun:
    """towards: unit vector from the ground to the sun. irradiance: linear RGB on a surface that faces it."""

    towards: NDArray[np.float64]
    irradiance: NDArray[np.float32]


@dataclass(frozen=True)
class Sky:
    """radiance: (H, W, 3) linear, rows from the zenith to the nadir, columns around z as direction_rows says."""

    radiance: NDArray[np.float32]
    sun: Sun | None


def sun_at(elevation: float, azimuth: float, strength: float) -> Sun:
    """Angles in degrees, azimuth from x towards y. Lower suns are redder and weaker."""
    up, around = np.deg2rad(elevation), np.deg2rad(azimuth)
    towards = np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
    height = np.clip(np.sin(up), 0.05, 1)
    color = np.exp(-np.array([0.10, 0.19, 0.38]) / height)
    return Sun(towards, (strength * color / color.max()).astype(np.float32))


def _clouds(rng: np.random.Generator, height: int, width: int, elevation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of cloud (height, width), wider overhead than at the horizon."""
    noise = tiled(rng, (height, width), (6, 6), 5, 0.55)
    cover = rng.uniform(0.25, 0.75)
    share = np.clip((noise - (1 - cover)) / 0.22, 0, 1)
    fade = np.clip(elevation / np.deg2rad(12), 0, 1)
    return np.asarray(share * fade[:, None], np.float64)


def make_sky(
    rng: np.random.Generator,
    overcast: bool,
    sun: Sun | None,
    ground: NDArray[np.float32],
    shape: tuple[int, int] = (64, 128),
) -> Sky:
    """radiance is about 1 overhead. `ground`: the colour of what lies below the horizon and is not modelled."""
    height, width = shape
    elevation = np.pi / 2 - np.pi * (np.arange(height) + 0.5) / height
    rise = np.clip(np.sin(elevation), 0, 1)
    zenith = np.array([0.18, 0.38, 0.95]) * rng.uniform(0.7, 1.2, 3)
    horizon = np.array([0.75, 0.88, 1.05]) * rng.uniform(0.85, 1.15, 3)
    if sun is not None and sun.towards[2] < 0.35:
        horizon = horizon * np.array([1.35, 0.95, 0.65])
    if overcast:
        grey = rng.uniform(0.8, 1.1) * np.array([0.96, 0.98, 1.02])
        zenith, horizon = grey, grey * 0.75
    rows = horizon + (zenith - horizon) * (rise**0.5)[:, None]
    radiance = np.repeat(rows[:, None], width, axis=1)
    cloud = _clouds(rng, height, width, elevation) * (0.35 if overcast else 1.0)
    white = np.array([1.25, 1.25, 1.28]) * (0.75 + 0.5 * tiled(rng, shape, (8, 16), 4))[..., None]
    radiance = radiance + (white * (0.8 if overcast else 1.0) - radiance) * cloud[..., None]
    below = elevation < 0
    radiance[below] = np.asarray(ground, np.float64) * 0.5
    return Sky(radiance.astype(np.float32), sun)


def window_view(rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """What a window shows, rows from the bottom to the top, (48, 48, 3): greenery or houses under a bright sky."""
    size = 48
    height = np.linspace(0, 1, size)[:, None]
    skyline = rng.uniform(0.1, 0.4) + 0.15 * (tiled(rng, (1, size), (1, 6), 3) - 0.5)
    sky = np.array([0.85, 0.95, 1.1]) * (0.8 + 0.4 * height[..., None])
    sky = sky * (0.85 + 0.3 * tiled(rng, (size, size), (3, 3), 3))[..., None]
    ground = np.array([0.2, 0.26, 0.12]) * (0.4 + tiled(rng, (size, size), (8, 8), 3))[..., None]
    return (strength * np.where((height < skyline)[..., None], ground, sky)).astype(np.float32)

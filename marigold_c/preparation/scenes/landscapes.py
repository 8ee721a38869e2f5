"""Open country under the sky: hills or mountains, with trees, rocks, water and houses.

Called by generator.py. The ground is a fan around the camera, fine nearby and coarse far away; houses.py and plants.py
make what stands on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import houses, plants, textures
from .description import Camera, Part, Scene, moved_parts
from .materials import Material, linear_color, matte
from .meshes import Mesh, merged, quad, sheet, standing_box
from .noise import Noise3
from .sky import make_sky, sun_at

Floats = NDArray[np.float64]
_NEAR, _HALF_ANGLE = 0.4, 78.0


@dataclass(frozen=True)
class Terrain:
    """Height of the ground by place; 0 below the camera."""

    noise: Noise3
    hill: float
    hill_size: float
    mountain: float
    mountain_start: float
    bumps: float

    def height(self, x: Floats, y: Floats) -> Floats:
        return self._raw(x, y) - self._raw(np.zeros(1), np.zeros(1))

    def _raw(self, x: Floats, y: Floats) -> Floats:
        away = np.hypot(x, y)
        broad = self.noise.flat(x / self.hill_size, y / self.hill_size, 0, 5, 0.45) - 0.5
        small = self.noise.flat(x / 4, y / 4, 1, 3) - 0.5
        hills = 2 * self.hill * broad * (0.15 + 0.85 * np.clip(away / 35, 0, 1)) + self.bumps * small
        if self.mountain == 0:
            return np.asarray(hills, np.float64)
        rise = np.clip((away - self.mountain_start) / (self.mountain_start * 2), 0, 1)
        size = self.hill_size * 2.2
        ridges = 1 - np.abs(2 * self.noise.flat(x / size, y / size, 2, 6) - 1)
        return np.asarray(hills + self.mountain * rise * ridges**2, np.float64)


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def make_landscape(rng: np.random.Generator) -> Scene:
    terrain = _terrain(rng)
    far = _uniform(rng, 160, 500)
    camera = _camera(rng)
    ground_color, palette = _palette(rng)
    parts: list[Part] = [(_ground(terrain, far), Material(_cover(rng, terrain, far, palette)))]
    water = _water_level(rng, terrain, camera)
    if water is not None:
        surface = quad((-900, -200, water), (1800, 0, 0), (0, 1200, 0))
        color = linear_color(_uniform(rng, 0.42, 0.6), _uniform(rng, 0.3, 0.7), _uniform(rng, 0.15, 0.35))
        parts.append((surface, Material(color, "coated", _uniform(rng, 0.05, 0.2))))
    parts += _things(rng, terrain, camera, water)
    overcast = rng.random() < 0.25
    sun = None if overcast else sun_at(_uniform(rng, 12, 65), _uniform(rng, 0, 360), _uniform(rng, 5, 12))
    return Scene("landscape", camera, parts, make_sky(rng, overcast, sun, ground_color))


def _terrain(rng: np.random.Generator) -> Terrain:
    mountains = rng.random() < 0.5
    return Terrain(
        Noise3(rng),
        hill=_uniform(rng, 0.5, 14),
        hill_size=_uniform(rng, 25, 90),
        mountain=_uniform(rng, 30, 160) if mountains else 0.0,
        mountain_start=_uniform(rng, 50, 140),
        bumps=_uniform(rng, 0.03, 0.5),
    )


def _camera(rng: np.random.Generator) -> Camera:
    height = _uniform(rng, 1.2, 2.2) if rng.random() < 0.65 else _uniform(rng, 2.5, 12)
    origin = np.array([0.0, 0.0, height])
    pitch = _uniform(rng, -0.22, 0.06) if height < 2.5 else _uniform(rng, -0.4, -0.08)
    target = origin + np.array([_uniform(rng, -0.3, 0.3), 1.0, pitch])
    return Camera(origin, target, _uniform(rng, 40, 80), float(rng.normal(0, 1)))


def _fan(far: float, rows: int, columns: int) -> tuple[Floats, Floats]:
    """x and y of a grid of distances, growing by a constant factor, and of angles from the right to the left."""
    away = np.geomspace(_NEAR, far, rows)[:, None]
    angle = np.deg2rad(np.linspace(90 - _HALF_ANGLE, 90 + _HALF_ANGLE, columns))[None]
    return away * np.cos(angle), away * np.sin(angle)


def _ground(terrain: Terrain, far: float) -> Mesh:
    x, y = _fan(far, 150, 130)
    return sheet(np.stack([x, y, terrain.height(x, y)], -1))


def _palette(rng: np.random.Generator) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """The ground's mean colour, and the colours of its covers."""
    season = int(rng.choice(5, p=[0.45, 0.15, 0.15, 0.15, 0.1]))
    first = ((0.25, 0.5, 0.5), (0.15, 0.5, 0.65), (0.11, 0.4, 0.75), (0.09, 0.45, 0.55), (0.58, 0.04, 0.93))[season]
    second = ((0.2, 0.45, 0.42), (0.12, 0.5, 0.5), (0.1, 0.45, 0.6), (0.3, 0.3, 0.35), (0.58, 0.06, 0.85))[season]
    shift = _uniform(rng, -0.03, 0.03)
    colors = {
        "grass": linear_color(first[0] + shift, first[1], first[2] * _uniform(rng, 0.8, 1.1)),
        "patch": linear_color(second[0] + shift, second[1], second[2] * _uniform(rng, 0.8, 1.1)),
        "rock": linear_color(_uniform(rng, 0.05, 0.12), _uniform(rng, 0.02, 0.3), _uniform(rng, 0.35, 0.6)),
        "top": linear_color(0.58, 0.03, 0.95) if rng.random() < 0.5 else linear_color(0.08, 0.15, 0.6),
    }
    return colors["grass"], colors


def _cover(
    rng: np.random.Generator, terrain: Terrain, far: float, palette: dict[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """The ground's colours as a texture over the fan."""
    size = 256
    x, y = _fan(far, size, size)
    z = terrain.height(x, y)
    step = np.hypot(x[1:] - x[:-1], y[1:] - y[:-1])
    slope = np.zeros_like(z)
    slope[1:] = np.abs(z[1:] - z[:-1]) / step
    broad, fine = _uniform(rng, 6, 25), _uniform(rng, 3, 8)
    patches = terrain.noise.flat(x / broad, y / broad, 3, 5, 0.6)
    blades = terrain.noise.flat(x * fine, y * fine, 4, 3, 0.8)
    color = palette["grass"] + (palette["patch"] - palette["grass"]) * _step(patches, 0.4, 0.6)
    color = color + (palette["rock"] - color) * _step(slope + 0.3 * (patches - 0.5), 0.45, 0.75)
    if terrain.mountain > 0:
        color = color + (palette["top"] - color) * _step(z / terrain.mountain + 0.4 * (patches - 0.5), 0.35, 0.6)
    return np.clip(color * (0.55 + 0.9 * blades[..., None]), 0.01, 0.92).astype(np.float32)


def _step(values: Floats, low: float, high: float) -> Floats:
    share = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray((share * share * (3 - 2 * share))[..., None], np.float64)


def _water_level(rng: np.random.Generator, terrain: Terrain, camera: Camera) -> float | None:
    """In a third of the scenes: the height below which much of the middle distance lies."""
    x, y = _fan(150, 40, 40)
    away = np.hypot(x, y)
    middle = terrain.height(x, y)[(away > 15) & (away < 120)]
    level = float(np.quantile(middle, _uniform(rng, 0.3, 0.6)))
    wanted = rng.random() < 0.4
    return level if wanted and level < -0.25 and level < camera.origin[2] - 1.0 else None


def _places(
    rng: np.random.Generator,
    terrain: Terrain,
    camera: Camera,
    water: float | None,
    count: int,
    distance: tuple[float, float],
    clustered: bool = False,
) -> Floats:
    """Random places on dry ground within the view, (N, 3)."""
    away = np.exp(rng.uniform(np.log(distance[0]), np.log(distance[1]), count))
    forward = -camera.axes()[2]
    heading = np.arctan2(forward[1], forward[0])
    half = np.deg2rad(camera.field_of_view / 2 + 8)
    angle = heading + rng.uniform(-half, half, count)
    x, y = away * np.cos(angle), away * np.sin(angle)
    z = terrain.height(x, y)
    keep = np.ones(count, bool) if water is None else z > water + 0.1
    if clustered:
        keep &= terrain.noise.flat(x / 18, y / 18, 5, 3) > 0.5
    return np.stack([x, y, z - 0.05], -1)[keep]


def _things(rng: np.random.Generator, terrain: Terrain, camera: Camera, water: float | None) -> list[Part]:
    parts: list[Part] = []
    autumn = rng.random() < 0.2
    trees = _places(rng, terrain, camera, water, int(rng.integers(0, 110)), (6, 150), bool(rng.random() < 0.6))
    if len(trees):
        parts += plants.forest(rng, trees, (3.5, 11), autumn)
    bushes = _places(rng, terrain, camera, water, int(rng.integers(0, 50)), (3.5, 60))
    if len(bushes):
        mesh = plants.scattered(rng, [plants.bush(rng) for _ in range(3)], bushes, (0.4, 1.8))
        parts.append((mesh, plants.foliage(rng, autumn)))
    rocks = _places(rng, terrain, camera, water, int(rng.integers(0, 30)), (2.5, 60))
    if len(rocks):
        mesh = plants.scattered(rng, [plants.rock(rng) for _ in range(3)], rocks, (0.25, 2.2))
        parts.append((mesh, matte(textures.stone(rng), (1.5, 1.5))))
    if rng.random() < 0.5:
        look = houses.make_look(rng)
        for place in _places(rng, terrain, camera, water, int(rng.integers(1, 6)), (14, 80)):
            parts += moved_parts(houses.cottage(rng, look), place - [0, 0, 0.4], _uniform(rng, 0, 360))
    if rng.random() < 0.25:
        parts += _fence(rng, terrain)
    return parts


def _fence(rng: np.random.Generator, terrain: Terrain) -> list[Part]:
    """A wooden fence across the view, following the ground."""
    away, slant, gap = _uniform(rng, 4, 14), _uniform(rng, -0.5, 0.5), 2.2
    x = np.arange(-25, 25, gap)
    y = away + slant * x
    keep = y > 2.5
    x, y = x[keep], y[keep]
    z = terrain.height(x, y)
    posts = [standing_box((0.12, 0.12, 1.3), (a, b, c - 0.2)) for a, b, c in zip(x, y, z, strict=True)]
    rails = []
    for i in range(len(x) - 1):
        along = np.array([x[i + 1] - x[i], y[i + 1] - y[i], z[i + 1] - z[i]])
        for height in (0.4, 0.85):
            start = np.array([x[i], y[i], z[i] + height])
            rails += [quad(start, along, (0, 0, 0.12)), quad(start + along, -along, (0, 0, 0.12))]
    return [(merged([*posts, *rails]), matte(textures.wood(rng), (0.5, 0.5)))] if posts else []

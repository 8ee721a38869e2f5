"""Procedural textures: linear reflectance (H, W, 3) that repeats without a seam.

Called by rooms.py, furniture.py and landscapes.py, which say how large one repetition is (materials.Material.tile).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .materials import linear_color, random_color
from .noise import tiled

Texture = NDArray[np.float32]
Color = NDArray[np.float32]
_SIZE = 192


def _finished(values: NDArray[np.float64]) -> Texture:
    return np.clip(values, 0.01, 0.92).astype(np.float32)


def _shaded(color: NDArray[np.float64] | Color, brightness: NDArray[np.float64]) -> Texture:
    return _finished(np.asarray(color, np.float64) * brightness[..., None])


def _mixed(first: Color, second: Color, share: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(first + (second - first) * share[..., None], np.float64)


def _grid(shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns of pixels' centres from 0 to 1."""
    rows, columns = ((np.arange(size) + 0.5) / size for size in shape)
    v, u = np.meshgrid(rows, columns, indexing="ij")
    return v, u


def plaster(rng: np.random.Generator, color: Color, strength: float = 0.12) -> Texture:
    """Paint with faint blotches."""
    return _shaded(color, 1 + strength * (tiled(rng, (_SIZE, _SIZE), (4, 4), 6, 0.7) - 0.5) * 2)


def wood(rng: np.random.Generator, color: Color | None = None) -> Texture:
    """Grain along v."""
    hue = (
        color
        if color is not None
        else linear_color(rng.uniform(0.05, 0.1), rng.uniform(0.35, 0.7), rng.uniform(0.35, 0.85))
    )
    wave = tiled(rng, (_SIZE, _SIZE), (1, 3), 3)
    fine = tiled(rng, (_SIZE, _SIZE), (3, 48), 2)
    _, u = _grid((_SIZE, _SIZE))
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (u * rng.integers(3, 8) + wave * rng.uniform(0.6, 2.0)))
    return _shaded(hue, 0.72 + 0.28 * rings + 0.3 * (fine - 0.5))


def planks(rng: np.random.Generator) -> Texture:
    """A wooden floor: 6 boards across, joints at random heights."""
    boards, size = 6, 252
    hue = linear_color(rng.uniform(0.04, 0.1), rng.uniform(0.3, 0.65), rng.uniform(0.35, 0.85))
    texture = np.zeros((size, size, 3))
    width = size // boards
    fine = tiled(rng, (size, size), (4, 64), 2)
    wave = tiled(rng, (size, size), (2, 12), 3)
    contrast = rng.uniform(0.08, 0.3)
    for board in range(boards):
        joints = np.sort(rng.integers(0, size, 2))
        part = np.searchsorted(joints, np.arange(size)) % 2
        shade = 1 + contrast * rng.uniform(-1, 1, 2)[part]
        column = slice(board * width, (board + 1) * width)
        grain = shade[:, None] * (1 + 0.25 * (fine[:, column] - 0.5) + 0.3 * (wave[:, column] - 0.5))
        grain[:, 0] *= 0.35
        grain[joints] *= 0.35
        texture[:, column] = hue * grain[..., None]
    return _finished(texture)


def tiles(rng: np.random.Generator, colors: tuple[Color, Color] | None = None, grout: bool = True) -> Texture:
    """A chequer of 4 x 4, or tiles of one colour if both are alike."""
    if colors is None:
        first = random_color(rng, (0.0, 0.35), (0.55, 0.95))
        second = first if rng.random() < 0.5 else random_color(rng, (0.0, 0.5), (0.15, 0.8))
        colors = (first, second)
    cells = 4
    v, u = _grid((_SIZE, _SIZE))
    row, column = np.floor(v * cells).astype(int), np.floor(u * cells).astype(int)
    shade = 1 + 0.12 * (rng.random((cells, cells)) - 0.5)[row, column]
    shade = shade * (1 + 0.15 * (tiled(rng, (_SIZE, _SIZE), (6, 6), 4) - 0.5))
    values = _mixed(colors[0], colors[1], ((row + column) % 2).astype(np.float64)) * shade[..., None]
    if grout:
        edge = np.minimum(np.abs(v * cells - np.round(v * cells)), np.abs(u * cells - np.round(u * cells)))
        values = np.where((edge < 0.035)[..., None], values.mean(axis=(0, 1)) * rng.uniform(0.35, 0.9), values)
    return _finished(values)


def bricks(rng: np.random.Generator, color: Color | None = None) -> Texture:
    """8 courses of 4 bricks, every other one offset by half a brick."""
    hue = (
        color
        if color is not None
        else linear_color(rng.uniform(0.0, 0.07), rng.uniform(0.3, 0.75), rng.uniform(0.35, 0.75))
    )
    size, courses, across = 256, 8, 4
    v, u = _grid((size, size))
    course = np.floor(v * courses).astype(int)
    along = u * across + 0.5 * (course % 2)
    brick = np.floor(along).astype(int) % across
    shade = (0.75 + 0.5 * rng.random((courses, across)))[course, brick]
    shade = shade * (0.8 + 0.4 * tiled(rng, (size, size), (32, 32), 3))
    in_course, in_brick = v * courses - course, along - np.floor(along)
    joint = (np.minimum(in_course, 1 - in_course) < 0.07) | (np.minimum(in_brick, 1 - in_brick) < 0.035)
    mortar = (
        linear_color(0.1, 0.1, rng.uniform(0.4, 0.8)) * (0.8 + 0.3 * tiled(rng, (size, size), (32, 32), 2))[..., None]
    )
    return _finished(np.where(joint[..., None], mortar, hue * shade[..., None]))


def stripes(rng: np.random.Generator, first: Color | None = None, second: Color | None = None) -> Texture:
    """Stripes along v of random widths: wallpaper, blankets, awnings."""
    colors = [
        first if first is not None else random_color(rng),
        second if second is not None else random_color(rng, (0.0, 0.4), (0.5, 0.95)),
        random_color(rng, (0.1, 0.6), (0.3, 0.9)),
    ]
    edges = np.sort(rng.random(int(rng.integers(2, 8))))
    choice = rng.integers(0, 3, len(edges) + 1)
    choice[:2] = 0, 1
    _, u = _grid((_SIZE, _SIZE))
    values = np.stack(colors)[choice[np.searchsorted(edges, u) % len(choice)]]
    return _shaded(values.astype(np.float64), 0.92 + 0.16 * tiled(rng, (_SIZE, _SIZE), (24, 24), 2))


def plaid(rng: np.random.Generator) -> Texture:
    """Two sets of stripes woven across each other."""
    first, second = stripes(rng), stripes(rng)
    return _finished(0.5 * (first + second.transpose(1, 0, 2)).astype(np.float64))


def dots(rng: np.random.Generator, ground: Color | None = None) -> Texture:
    """Dots in two staggered grids of 4 x 4."""
    base = ground if ground is not None else random_color(rng)
    v, u = _grid((_SIZE, _SIZE))
    radius = rng.uniform(0.2, 0.42)
    away = np.hypot((u * 4) % 1 - 0.5, (v * 4) % 1 - 0.5)
    between = np.hypot((u * 4 + 0.5) % 1 - 0.5, (v * 4 + 0.5) % 1 - 0.5)
    inside = np.minimum(away, between if rng.random() < 0.5 else away) < radius * 0.7
    values = _mixed(base, random_color(rng, (0.1, 0.8), (0.3, 0.95)), inside.astype(np.float64))
    return _shaded(values, 0.94 + 0.12 * tiled(rng, (_SIZE, _SIZE), (32, 32), 2))


def carpet(rng: np.random.Generator, color: Color | None = None) -> Texture:
    """Short pile: fine noise, and broad tracks."""
    hue = color if color is not None else random_color(rng, (0.05, 0.5), (0.3, 0.8))
    fine = rng.random((_SIZE, _SIZE))
    return _shaded(hue, 0.65 + 0.4 * fine + 0.3 * (tiled(rng, (_SIZE, _SIZE), (3, 3), 4) - 0.5))


def marble(rng: np.random.Generator) -> Texture:
    light, dark = random_color(rng, (0.0, 0.15), (0.7, 0.97)), random_color(rng, (0.0, 0.4), (0.2, 0.6))
    v, u = _grid((_SIZE, _SIZE))
    warp = tiled(rng, (_SIZE, _SIZE), (3, 3), 5, 0.6)
    vein = np.abs(np.sin(np.pi * (2 * u + 2 * v + 3.5 * warp))) ** 0.35
    return _finished(_mixed(dark, light, 0.25 + 0.75 * vein))


def rug(rng: np.random.Generator) -> Texture:
    """A picture of a rug: nested borders, and a field of diamonds. Not periodic in meaning; for uv in [0, 1]."""
    palette = np.stack([random_color(rng, (0.2, 0.8), (0.2, 0.85)) for _ in range(5)])
    v, u = _grid((_SIZE, _SIZE))
    rim = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    band = np.searchsorted(np.sort(rng.uniform(0.02, 0.22, 3)), rim)
    turns = int(rng.integers(2, 7))
    diamond = np.floor(turns * (np.abs(u - 0.5) + np.abs(v - 0.5)) * 2).astype(int) % 2
    choice = np.where(band == 3, 3 + diamond, band)
    return _shaded(palette[choice].astype(np.float64), 0.75 + 0.4 * rng.random((_SIZE, _SIZE)))


def painting(rng: np.random.Generator) -> Texture:
    """A picture to hang on a wall: a ground, hills or rectangles, a disc."""
    v, u = _grid((_SIZE, _SIZE))
    values = _mixed(random_color(rng, (0.1, 0.6), (0.4, 0.95)), random_color(rng, (0.1, 0.6), (0.4, 0.95)), v)
    for layer in range(int(rng.integers(2, 6))):
        color = random_color(rng, (0.2, 0.9), (0.1, 0.9))
        if rng.random() < 0.5:
            line = 0.3 + 0.12 * layer + 0.3 * tiled(rng, (1, _SIZE), (1, 3), 3)[0]
            inside = v > line[None]
        else:
            left, top, width, height = rng.uniform(0, 0.8), rng.uniform(0, 0.8), *rng.uniform(0.1, 0.5, 2)
            inside = (np.abs(u - left) < width / 2) & (np.abs(v - top) < height / 2)
        values = np.where(inside[..., None], color, values)
    disc = np.hypot(u - rng.uniform(0.2, 0.8), v - rng.uniform(0.1, 0.5)) < rng.uniform(0.05, 0.2)
    values = np.where(disc[..., None], random_color(rng, (0.2, 0.9), (0.5, 1)), values)
    return _finished(values)


def book_spines(rng: np.random.Generator, books: int = 14) -> Texture:
    """Spines side by side, for uv in [0, 1]."""
    _, u = _grid((16, _SIZE))
    edges = np.concatenate([[0], np.sort(rng.random(books - 1)), [1]])
    book = np.clip(np.searchsorted(edges, u) - 1, 0, books - 1)
    palette = np.stack([random_color(rng, (0.1, 0.8), (0.15, 0.85)) for _ in range(books)]).astype(np.float64)
    rounded = (u - edges[book]) / np.maximum(edges[book + 1] - edges[book], 1e-6)
    return _shaded(palette[book], 0.45 + 0.55 * np.sqrt(np.clip(4 * rounded * (1 - rounded), 0, 1)))


def asphalt(rng: np.random.Generator) -> Texture:
    base = linear_color(0.6, 0.05, rng.uniform(0.3, 0.5))
    fine = rng.random((_SIZE, _SIZE))
    return _shaded(base, 0.6 + 0.5 * fine + 0.5 * (tiled(rng, (_SIZE, _SIZE), (3, 3), 5, 0.6) - 0.5))


def bark(rng: np.random.Generator) -> Texture:
    base = linear_color(rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.5), rng.uniform(0.25, 0.5))
    return _shaded(base, 0.5 + tiled(rng, (_SIZE, _SIZE), (4, 24), 4, 0.7))


def leaves(rng: np.random.Generator, color: Color) -> Texture:
    """Speckled with light and dark leaves."""
    speckle = tiled(rng, (_SIZE, _SIZE), (24, 24), 3, 0.8)
    return _shaded(color, 0.35 + 1.3 * speckle**1.5)


def stone(rng: np.random.Generator) -> Texture:
    base = random_color(rng, (0.0, 0.25), (0.3, 0.7))
    return _shaded(base, 0.5 + tiled(rng, (_SIZE, _SIZE), (6, 6), 6, 0.7))


def shingles(rng: np.random.Generator) -> Texture:
    """A roof: 8 courses of 8, darker to their upper edge."""
    hue = linear_color(rng.choice([0.02, 0.05, 0.6]), rng.uniform(0.1, 0.7), rng.uniform(0.25, 0.6))
    v, u = _grid((_SIZE, _SIZE))
    course = np.floor(v * 8).astype(int)
    shingle = np.floor(u * 8 + 0.5 * (course % 2)).astype(int) % 8
    shade = (0.75 + 0.5 * rng.random((8, 8)))[course, shingle] * (0.55 + 0.5 * (v * 8 - course))
    return _shaded(hue, shade)


# What walls, floors and fabrics may be covered with: makers that need no more than the generator.
FABRICS: tuple[Callable[[np.random.Generator], Texture], ...] = (stripes, plaid, dots, carpet)
FLOORS: tuple[Callable[[np.random.Generator], Texture], ...] = (planks, tiles, carpet, marble, planks)

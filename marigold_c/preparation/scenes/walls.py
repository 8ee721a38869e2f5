"""Walls of rooms with their windows, doors, skirtings, pictures and curtains; and ceiling lamps.

Called by rooms.py. A wall is built in its own coordinates, x along it, y outwards, z up, its inner face at y = 0; so is
furniture that stands with its back to it. `Wall.into_room` brings both into the room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from . import furniture, textures
from .description import Part, moved_parts
from .materials import (
    Material,
    any_finish,
    glossy,
    light,
    linear_color,
    matte,
    metal,
    opening,
    random_color,
    warm_white,
)
from .meshes import Mesh, box, cylinder, merged, quad, revolved, sheet, standing_box, superellipsoid
from .sky import window_view

_REVEAL = 0.22  # how thick walls are at openings


@dataclass(frozen=True)
class Opening:
    """A window in a wall: its lower left corner and its size."""

    left: float
    bottom: float
    width: float
    height: float


@dataclass(frozen=True)
class Wall:
    """corner: where x = 0 lies in the room. degrees: how its x axis is turned."""

    corner: tuple[float, float]
    degrees: float
    length: float
    height: float

    def into_room(self, parts: Sequence[Part]) -> list[Part]:
        return moved_parts(parts, (*self.corner, 0.0), self.degrees)

    def outwards(self) -> float:
        """Azimuth in degrees of the direction out of the room."""
        return self.degrees + 90.0


def room_walls(width: float, depth: float, height: float) -> dict[str, Wall]:
    return {
        "back": Wall((0.0, depth), 0.0, width, height),
        "left": Wall((0.0, 0.0), 90.0, depth, height),
        "right": Wall((width, depth), -90.0, depth, height),
        "front": Wall((width, 0.0), 180.0, width, height),
    }


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def panel(wall: Wall, openings: Sequence[Opening], low: float = 0.0, high: float | None = None) -> Mesh:
    """The wall's inner face from height `low` to `high`, without its openings; with their reveals."""
    top = wall.height if high is None else high
    columns = sorted({0.0, wall.length, *(x for one in openings for x in (one.left, one.left + one.width))})
    rows = sorted({low, top, *(z for one in openings for z in (one.bottom, one.bottom + one.height) if low < z < top)})
    cells = []
    for x, right in pairwise(columns):
        for z, upper in pairwise(rows):
            if not any(_inside(one, (x + right) / 2, (z + upper) / 2) for one in openings):
                cell = quad((x, 0, z), (right - x, 0, 0), (0, 0, upper - z))
                cells.append(Mesh(cell.vertices, cell.normals, cell.uv + np.array([x, z]), cell.triangles))
    for one in openings:
        if low <= one.bottom and one.bottom + one.height <= top:
            cells += _reveal(one)
    return merged(cells)


def _inside(one: Opening, x: float, z: float) -> bool:
    return one.left < x < one.left + one.width and one.bottom < z < one.bottom + one.height


def _reveal(one: Opening) -> list[Mesh]:
    low = np.array([one.left, 0, one.bottom])
    x, y, z = np.array([one.width, 0, 0]), np.array([0, _REVEAL, 0]), np.array([0, 0, one.height])
    return [quad(low, x, y), quad(low, y, z), quad(low + x + y, -y, z), quad(low + z + y, x, -y)]


def window(rng: np.random.Generator, one: Opening, strength: float, sunny: bool) -> list[Part]:
    """Frame, bars, sill and what is seen outside. Where the sun shall come in, the outside is a metre away."""
    frame = matte(random_color(rng, (0.0, 0.3), (0.6, 0.97))) if rng.random() < 0.7 else furniture.wooden(rng)
    bar, middle = _uniform(rng, 0.04, 0.08), _REVEAL * 0.6
    centre_x, centre_z = one.left + one.width / 2, one.bottom + one.height / 2
    upright, across = (bar, 0.05, one.height), (one.width, 0.05, bar)
    bars = [box(upright, (x, middle, centre_z)) for x in (one.left + bar / 2, one.left + one.width - bar / 2)]
    bars += [box(across, (centre_x, middle, z)) for z in (one.bottom + bar / 2, one.bottom + one.height - bar / 2)]
    for i in range(1, int(rng.integers(1, 4))):
        bars.append(box((bar * 0.7, 0.04, one.height), (one.left + one.width * i / 3, middle, centre_z)))
    if rng.random() < 0.6:
        bars.append(
            box((one.width, 0.04, bar * 0.7), (centre_x, middle, one.bottom + one.height * _uniform(rng, 0.5, 0.7)))
        )
    bars.append(box((one.width + 0.1, 0.12, 0.03), (centre_x, -0.05, one.bottom - 0.015)))
    view = opening(window_view(rng, strength))
    outside = (
        _outside(one) if sunny else [quad((one.left, _REVEAL, one.bottom), (one.width, 0, 0), (0, 0, one.height), True)]
    )
    return [(merged(bars), frame), (merged(outside), view)]


def _outside(one: Opening) -> list[Mesh]:
    """What is seen through a window a metre away, left and right and below it; above it the sun comes in."""
    away, margin = 1.1, 0.55
    left, low = one.left - margin, one.bottom - 0.4
    width, height = one.width + 2 * margin, one.height + 0.8
    near, deep = _REVEAL, away - _REVEAL
    return [
        quad((left, away, low), (width, 0, 0), (0, 0, height), True),
        quad((left, near, low), (0, deep, 0), (0, 0, height), True),
        quad((left + width, away, low), (0, -deep, 0), (0, 0, height), True),
        quad((left, near, low), (width, 0, 0), (0, deep, 0), True),
    ]


def curtains(rng: np.random.Generator, one: Opening) -> list[Part]:
    fabric = matte(
        textures.stripes(rng) if rng.random() < 0.4 else random_color(rng, (0.05, 0.7), (0.3, 0.95)), (0.4, 0.4)
    )
    top = one.bottom + one.height + 0.12
    low = 0.04 if rng.random() < 0.6 else max(one.bottom - 0.25, 0.1)
    rod = cylinder(0.015, one.width + 0.9, 12).turned(90, 1).moved((one.left - 0.45, -0.1, top))
    parts: list[Part] = [(rod, metal(rng))]
    width = _uniform(rng, 0.25, 0.5)
    for left in (one.left - 0.35, one.left + one.width + 0.35 - width):
        x = np.linspace(0, width, 40)
        waves, amplitude = rng.uniform(14, 30), rng.uniform(0.02, 0.04)
        y = -0.1 + amplitude * np.sin(waves * x + _uniform(rng, 0, 6))
        heights = np.linspace(low, top, 6)
        points = np.empty((6, 40, 3))
        points[:, :, 0], points[:, :, 1], points[:, :, 2] = left + x, y, heights[:, None]
        uv = np.stack(np.broadcast_arrays(x[None] * 1.6, heights[:, None]), -1)
        parts.append((sheet(points[::-1], uv[::-1]), fabric))
    return parts


def door(rng: np.random.Generator, left: float) -> list[Part]:
    """A closed door with its frame, on the wall's face."""
    width, height = 0.85, 2.05
    leaf = furniture.wooden(rng) if rng.random() < 0.5 else matte(random_color(rng, (0.0, 0.5), (0.5, 0.95)))
    slab = box((width, 0.03, height), (left + width / 2, -0.015, height / 2))
    fields = [
        box((width * 0.7, 0.02, height * share), (left + width / 2, -0.035, z))
        for share, z in ((0.28, 0.5), (0.42, 1.4))
    ]
    rim = [
        box((0.08, 0.05, height + 0.08), (x, -0.025, (height + 0.08) / 2)) for x in (left - 0.04, left + width + 0.04)
    ]
    rim.append(box((width + 0.16, 0.05, 0.08), (left + width / 2, -0.025, height + 0.04)))
    knob = superellipsoid((0.06, 0.06, 0.06), segments=14).moved((left + width - 0.09, -0.07, 1.0))
    return [
        (merged([slab, *fields]), leaf),
        (merged(rim), matte(random_color(rng, (0.0, 0.2), (0.7, 0.97)))),
        (knob, metal(rng)),
    ]


def skirting(rng: np.random.Generator, wall: Wall, material: Material, height: float) -> list[Part]:
    return [(box((wall.length, 0.03, height), (wall.length / 2, 0.0, height / 2)), material)]


def decoration(rng: np.random.Generator, x: float) -> list[Part]:
    """A picture, a mirror, a clock, or a board with things on it, at x of a wall."""
    draw, z = rng.random(), _uniform(rng, 1.3, 1.75)
    rim = any_finish(rng, random_color(rng, (0.0, 0.6), (0.1, 0.9)), metals=0.3)
    if draw < 0.15:
        clock = cylinder(_uniform(rng, 0.12, 0.22), 0.05, 40).turned(90, 0).moved((x, 0, z))
        face = cylinder(0.1, 0.055, 40).turned(90, 0).moved((x, 0, z))
        return [(clock, rim), (face, matte(linear_color(0.1, 0.05, 0.95)))]
    if draw < 0.3:
        width = _uniform(rng, 0.5, 1.1)
        board = box((width, 0.22, 0.03), (x, -0.11, z - 0.2))
        things = [
            moved_parts(furniture.trinket(rng, 0.3), (x + width * place, -0.11, z - 0.185))
            for place in np.linspace(-0.38, 0.38, int(rng.integers(1, 5)))
        ]
        return [(board, rim), *(part for thing in things for part in thing)]
    width, height = _uniform(rng, 0.35, 1.2), _uniform(rng, 0.35, 0.9)
    border = _uniform(rng, 0.02, 0.07)
    back = box((width + 2 * border, 0.03, height + 2 * border), (x, -0.015, z))
    shown = quad((x - width / 2, -0.033, z + height / 2), (width, 0, 0), (0, 0, -height), picture=True)
    shown = Mesh(shown.vertices, -shown.normals, shown.uv, shown.triangles[:, ::-1].copy())
    if draw < 0.42:
        surface = Material(np.array([0.9, 0.9, 0.9], np.float32), "metal", 0.03)
    else:
        surface = Material(
            textures.painting(rng), "diffuse" if rng.random() < 0.6 else "coated", _uniform(rng, 0.2, 0.9)
        )
        surface = surface if surface.kind == "coated" else matte(surface.color)
    return [(back, rim), (shown, surface)]


def ceiling_lamp(rng: np.random.Generator, x: float, y: float, height: float) -> list[Part]:
    """A panel, spots, a tube or a pendant below a ceiling of this height."""
    color, draw = warm_white(rng), rng.random()
    white = matte(linear_color(0.1, 0.03, 0.9))
    if draw < 0.35:
        width, depth = _uniform(rng, 0.3, 1.3), _uniform(rng, 0.3, 0.9)
        frame = box((width + 0.06, depth + 0.06, 0.05), (x, y, height - 0.03))
        glow = quad((x - width / 2, y - depth / 2, height - 0.06), (0, depth, 0), (width, 0, 0))
        return [(frame, white), (glow, light(color, _uniform(rng, 8, 18) / (width * depth + 0.3)))]
    if draw < 0.55:
        discs = [
            cylinder(0.07, 0.01, 16).moved((x + i * 0.9, y + j * 0.9, height - 0.02))
            for i in (-1, 0, 1)
            for j in (-1, 1)
        ]
        return [(merged(discs), light(color, _uniform(rng, 80, 160)))]
    drop = _uniform(rng, 0.3, 0.9)
    cord = cylinder(0.008, drop, 8).moved((x, y, height - drop))
    radius = _uniform(rng, 0.1, 0.2)
    if draw < 0.8:
        ball = superellipsoid((2 * radius,) * 3, segments=20).moved((x, y, height - drop - radius))
        return [(cord, metal(rng)), (ball, light(color, _uniform(rng, 1.5, 4) / radius**2 / 3))]
    shade = revolved([(radius * 2.2, 0), (radius * 0.6, radius * 1.8)], 32).moved((x, y, height - drop - radius * 1.8))
    bulb = superellipsoid((0.14,) * 3, segments=16).moved((x, y, height - drop - radius * 0.9))
    finish = glossy(rng, random_color(rng, (0.0, 0.8), (0.2, 0.95)))
    return [(merged([cord]), metal(rng)), (shade, finish), (bulb, light(color, _uniform(rng, 60, 140)))]


def baseboard_height(rng: np.random.Generator) -> float:
    return _uniform(rng, 0.05, 0.16)


def radiator(one: Opening) -> list[Part]:
    """Ribs below a window."""
    width, height = one.width * 0.8, max(one.bottom - 0.3, 0.3)
    ribs = [
        standing_box((0.05, 0.08, height), (one.left + one.width * 0.1 + x, -0.07, 0.12))
        for x in np.arange(0.03, width, 0.075)
    ]
    return [(merged(ribs), Material(linear_color(0.1, 0.03, 0.92), "coated", 0.4))]

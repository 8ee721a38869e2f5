"""Furniture and other things of rooms, each about the origin on z = 0, its front towards -y.

Called by rooms.py. Makers take the generator alone and choose proportions and materials themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import textures
from .description import Part, moved_parts
from .materials import Material, any_finish, light, linear_color, matte, metal, random_color, warm_white
from .meshes import Mesh, blob, box, cylinder, merged, quad, revolved, sheet, standing_box, superellipsoid, torus


@dataclass(frozen=True)
class Furniture:
    """footprint: (width, depth). tops: (x, y, z, width, depth) of surfaces on which small things may stand."""

    parts: list[Part]
    footprint: tuple[float, float]
    tops: tuple[tuple[float, float, float, float, float], ...] = ()


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def wooden(rng: np.random.Generator) -> Material:
    texture = textures.wood(rng)
    return any_finish(rng, texture, (0.8, 0.8), metals=0.0, coated=0.5)


def _frame_material(rng: np.random.Generator) -> Material:
    return (
        wooden(rng) if rng.random() < 0.6 else any_finish(rng, random_color(rng, (0.0, 0.6), (0.1, 0.95)), metals=0.3)
    )


def _fabric(rng: np.random.Generator) -> Material:
    if rng.random() < 0.5:
        return matte(textures.carpet(rng), (0.5, 0.5))
    maker = textures.FABRICS[int(rng.integers(len(textures.FABRICS)))]
    return matte(maker(rng), (0.6, 0.6))


def _legs(width: float, depth: float, height: float, thickness: float, round_: bool) -> Mesh:
    x, y = width / 2 - thickness, depth / 2 - thickness
    leg = cylinder(thickness / 2, height, 12) if round_ else standing_box((thickness, thickness, height))
    return merged([leg.moved((i * x, j * y, 0)) for i in (-1, 1) for j in (-1, 1)])


def table(rng: np.random.Generator) -> Furniture:
    height, thickness = _uniform(rng, 0.42, 0.78), _uniform(rng, 0.025, 0.06)
    material = _frame_material(rng)
    under = material if rng.random() < 0.6 else metal(rng)
    if rng.random() < 0.35:
        radius = _uniform(rng, 0.35, 0.75)
        foot = revolved([(0, 0), (radius * 0.5, 0), (radius * 0.45, 0.03), (0.05, 0.06), (0.05, height)], 24)
        parts = [(cylinder(radius, thickness, 48).moved((0, 0, height)), material), (foot, under)]
        return Furniture(parts, (2 * radius, 2 * radius), ((0, 0, height + thickness, radius * 1.3, radius * 1.3),))
    width, depth = _uniform(rng, 0.7, 1.9), _uniform(rng, 0.5, 1.0)
    top = standing_box((width, depth, thickness), (0, 0, height))
    legs = _legs(width, depth, height, _uniform(rng, 0.035, 0.09), bool(rng.random() < 0.4))
    surface = ((0.0, 0.0, height + thickness, width * 0.85, depth * 0.85),)
    return Furniture([(top, material), (legs, under)], (width, depth), surface)


def chair(rng: np.random.Generator) -> Furniture:
    width, seat = _uniform(rng, 0.38, 0.52), _uniform(rng, 0.42, 0.48)
    frame = _frame_material(rng)
    covering = _fabric(rng) if rng.random() < 0.5 else frame
    back_height, thickness = _uniform(rng, 0.35, 0.6), _uniform(rng, 0.025, 0.05)
    legs = _legs(width, width, seat, thickness, bool(rng.random() < 0.5))
    cushion = superellipsoid((width, width, 0.07), (0.25, 0.25)).moved((0, 0, seat + 0.02))
    posts = merged(
        [
            standing_box((thickness, thickness, back_height), (x, width / 2 - thickness, seat))
            for x in (-width / 2.3, width / 2.3)
        ]
    )
    slats = int(rng.integers(1, 4))
    rails = [
        box(
            (width * 0.9, 0.02, back_height / slats * 0.6),
            (0, width / 2 - thickness, seat + back_height * (i + 0.6) / slats),
        )
        for i in range(slats)
    ]
    return Furniture([(merged([legs, posts, *rails]), frame), (cushion, covering)], (width, width))


def sofa(rng: np.random.Generator) -> Furniture:
    seats = int(rng.integers(1, 4))
    width, depth, arm = 0.35 + 0.62 * seats, _uniform(rng, 0.8, 0.95), _uniform(rng, 0.12, 0.22)
    seat, back = _uniform(rng, 0.36, 0.46), _uniform(rng, 0.7, 0.95)
    covering, soft = _fabric(rng), (0.25, 0.25)
    cushions = covering if rng.random() < 0.5 else _fabric(rng)
    base = superellipsoid((width, depth, seat), (0.12, 0.12)).moved((0, 0, seat / 2 + 0.03))
    rear = superellipsoid((width, 0.28, back), (0.2, 0.12)).moved((0, depth / 2 - 0.14, back / 2 + 0.03))
    arms = [
        superellipsoid((arm, depth, seat + 0.2), (0.3, 0.12)).moved((x, 0, (seat + 0.2) / 2 + 0.03))
        for x in (-(width - arm) / 2, (width - arm) / 2)
    ]
    each = (width - 2 * arm) / seats
    pads = [
        superellipsoid((each * 0.98, depth * 0.72, 0.17), soft).moved(
            (-width / 2 + arm + each * (i + 0.5), -0.08, seat + 0.09)
        )
        for i in range(seats)
    ]
    parts: list[Part] = [(merged([base, rear, *arms]), covering), (merged(pads), cushions)]
    for _ in range(int(rng.integers(0, 3))):
        pillow = superellipsoid((0.42, 0.16, 0.4), (0.6, 0.5)).turned(_uniform(rng, -20, 5), 0)
        x = _uniform(rng, -width / 2 + arm + 0.2, width / 2 - arm - 0.2)
        parts.append((pillow.moved((x, depth / 2 - 0.4, seat + 0.36)), _fabric(rng)))
    return Furniture(parts, (width, depth))


def bed(rng: np.random.Generator) -> Furniture:
    width, length, height = _uniform(rng, 0.9, 1.8), 2.05, _uniform(rng, 0.35, 0.55)
    frame, blanket, linen = _frame_material(rng), _fabric(rng), matte(random_color(rng, (0.0, 0.2), (0.7, 0.97)))
    board = standing_box((width + 0.08, 0.06, height + _uniform(rng, 0.3, 0.8)), (0, length / 2, 0))
    base = standing_box((width + 0.04, length, height * 0.5))
    mattress = superellipsoid((width, length - 0.05, height * 0.65), (0.12, 0.08)).moved((0, 0, height * 0.78))
    cover = superellipsoid((width + 0.06, length * 0.68, height * 0.7), (0.15, 0.1)).moved(
        (0, -length * 0.155, height * 0.79)
    )
    count = 1 if width < 1.2 else 2
    pillows = [
        superellipsoid((0.6, 0.36, 0.16), (0.6, 0.5)).moved(
            ((i - (count - 1) / 2) * 0.7, length / 2 - 0.3, height * 1.14)
        )
        for i in range(count)
    ]
    parts = [(merged([board, base]), frame), (merged([mattress, *pillows]), linen), (cover, blanket)]
    return Furniture(parts, (width + 0.1, length))


def shelf(rng: np.random.Generator) -> Furniture:
    width, depth, height = _uniform(rng, 0.7, 1.6), _uniform(rng, 0.25, 0.4), _uniform(rng, 0.9, 2.2)
    boards = max(2, round(height / 0.36))
    material, thickness = _frame_material(rng), 0.025
    sides = [standing_box((thickness, depth, height), (x, 0, 0)) for x in (-width / 2, width / 2)]
    levels = np.linspace(0.06, height - thickness, boards + 1)
    planks = [standing_box((width, depth, thickness), (0, 0, float(z))) for z in levels]
    back = [box((width, 0.01, height), (0, depth / 2, height / 2))] if rng.random() < 0.6 else []
    parts: list[Part] = [(merged([*sides, *planks, *back]), material)]
    gap = float(levels[1] - levels[0]) - thickness
    for z in levels[:-1]:
        draw = rng.random()
        if draw < 0.55:
            filled, tall = _uniform(rng, 0.4, 0.95) * width, gap * _uniform(rng, 0.6, 0.92)
            left = -width / 2 + thickness + _uniform(rng, 0, width - filled - thickness)
            books = merged(
                [
                    quad((left, -depth * 0.35, z + thickness), (filled, 0, 0), (0, 0, tall), picture=True),
                    quad(
                        (left, -depth * 0.35, z + thickness + tall), (filled, 0, 0), (0, depth * 0.7, 0), picture=True
                    ),
                    quad((left + filled, -depth * 0.35, z + thickness), (0, depth * 0.7, 0), (0, 0, tall)),
                    quad((left, depth * 0.35, z + thickness), (0, -depth * 0.7, 0), (0, 0, tall)),
                ]
            )
            parts.append((books, matte(textures.book_spines(rng, int(rng.integers(6, 24))))))
        elif draw < 0.85:
            for _ in range(int(rng.integers(1, 4))):
                at = (_uniform(rng, -width * 0.38, width * 0.38), -depth * 0.1, float(z) + thickness)
                parts += moved_parts(trinket(rng, gap * 0.85), at)
    return Furniture(parts, (width, depth), ((0, 0, height, width * 0.8, depth * 0.7),) if height < 1.5 else ())


def cabinet(rng: np.random.Generator) -> Furniture:
    width, depth, height = _uniform(rng, 0.5, 1.8), _uniform(rng, 0.38, 0.6), _uniform(rng, 0.5, 2.1)
    material, handles = _frame_material(rng), metal(rng)
    fronts = material if rng.random() < 0.5 else _frame_material(rng)
    rows, columns = max(1, round(height / _uniform(rng, 0.25, 0.9))), max(1, round(width / 0.55))
    body = standing_box((width, depth, height - 0.06), (0, 0, 0.06))
    plinth = standing_box((width * 0.94, depth * 0.9, 0.06))
    cell_width, cell_height = width / columns, (height - 0.06) / rows
    doors, knobs = [], []
    for row in range(rows):
        for column in range(columns):
            x = -width / 2 + cell_width * (column + 0.5)
            z = 0.06 + cell_height * (row + 0.5)
            doors.append(box((cell_width - 0.015, 0.02, cell_height - 0.015), (x, -depth / 2 - 0.01, z)))
            knobs.append(box((min(0.14, cell_width / 2), 0.02, 0.014), (x, -depth / 2 - 0.035, z + cell_height * 0.28)))
    parts = [(merged([body, plinth]), material), (merged(doors), fronts), (merged(knobs), handles)]
    top = ((0.0, 0.0, height, width * 0.85, depth * 0.7),) if height < 1.4 else ()
    return Furniture(parts, (width, depth + 0.05), top)


def desk(rng: np.random.Generator) -> Furniture:
    """A table with a screen on it."""
    width, depth, height = _uniform(rng, 1.1, 1.7), 0.7, 0.74
    material = _frame_material(rng)
    legs = merged([standing_box((0.04, depth, height), (x, 0, 0)) for x in (-width / 2 + 0.03, width / 2 - 0.03)])
    parts: list[Part] = [(merged([standing_box((width, depth, 0.03), (0, 0, height)), legs]), material)]
    parts += moved_parts(screen(rng).parts, (_uniform(rng, -0.25, 0.25), 0.12, height + 0.03))
    keys = box((0.42, 0.13, 0.02), (0, -0.18, height + 0.04))
    parts.append((keys, matte(linear_color(0, 0, _uniform(rng, 0.15, 0.9)))))
    return Furniture(parts, (width, depth), ((-width * 0.3, -0.05, height + 0.03, width * 0.25, 0.4),))


def screen(rng: np.random.Generator) -> Furniture:
    width = _uniform(rng, 0.5, 1.2)
    height = width * 0.58
    case = Material(linear_color(0, 0, 0.15), "coated", 0.3)
    panel = Material(linear_color(0.6, 0.2, 0.12), "coated", 0.12)
    foot = merged([cylinder(width * 0.22, 0.015), standing_box((0.06, 0.04, 0.16))])
    shown = quad((-width * 0.48, -0.022, 0.16), (width * 0.96, 0, 0), (0, 0, height * 0.96), picture=True)
    parts = [(merged([box((width, 0.04, height * 1.03), (0, 0, 0.15 + height / 2)), foot]), case), (shown, panel)]
    return Furniture(parts, (width, 0.3))


def plant(rng: np.random.Generator) -> Furniture:
    pot_height, radius = _uniform(rng, 0.2, 0.45), _uniform(rng, 0.12, 0.24)
    pot = revolved(
        [
            (0, 0),
            (radius * 0.7, 0),
            (radius * 0.7, 0),
            (radius, pot_height),
            (radius * 0.9, pot_height),
            (0, pot_height * 0.9),
        ],
        28,
    )
    green = linear_color(_uniform(rng, 0.2, 0.38), _uniform(rng, 0.4, 0.8), _uniform(rng, 0.3, 0.65))
    tall = _uniform(rng, 0.4, 1.2)
    stem = cylinder(0.02, tall * 0.6, 8).moved((0, 0, pot_height * 0.9))
    blades = [_leaf(rng, tall) for _ in range(int(rng.integers(9, 22)))]
    # Leaves that droop far grow higher up, so as not to reach through the floor.
    lowest = [0.03 - float(blade.vertices[:, 2].min()) for blade in blades]
    roots = [max(pot_height + tall * _uniform(rng, 0.0, 0.55), low) for low in lowest]
    crown = merged([blade.moved((0, 0, root)) for blade, root in zip(blades, roots, strict=True)])
    parts = [
        (pot, any_finish(rng, random_color(rng, (0.0, 0.7), (0.2, 0.9)))),
        (stem, matte(textures.bark(rng), (0.2, 0.2))),
        (crown, any_finish(rng, green, metals=0.0)),
    ]
    return Furniture(parts, (2 * radius + tall * 0.4, 2 * radius + tall * 0.4))


def _leaf(rng: np.random.Generator, length: float) -> Mesh:
    """A bent blade from the origin outwards, in a random direction."""
    along = np.linspace(0, 1, 7)
    half = 0.12 * length * np.sin(np.pi * np.clip(along, 0.03, 0.97)) ** 0.8 * _uniform(rng, 0.4, 1.0)
    rise, droop = _uniform(rng, 0.2, 0.9), _uniform(rng, 0.3, 0.9)
    middle = np.stack([along * 0.45, np.zeros(7), rise * along - droop * along**2], -1) * length
    points = np.stack([middle - np.outer(half, [0, 1, 0]), middle, middle + np.outer(half, [0, 1, 0])], 1)
    points[:, 1, 2] -= half * 0.4
    return sheet(points).turned(_uniform(rng, 0, 360))


def trinket(rng: np.random.Generator, height: float) -> list[Part]:
    """Something to stand on a shelf or a table, up to this height."""
    tall = height * _uniform(rng, 0.45, 1.0)
    radius = tall * _uniform(rng, 0.2, 0.45)
    color = textures.stripes(rng) if rng.random() < 0.15 else random_color(rng, (0.1, 0.9), (0.15, 0.95))
    material = any_finish(rng, color, (0.15, 0.15), metals=0.2, coated=0.5)
    draw = int(rng.integers(7))
    if draw == 0:  # a vase
        belly = np.interp(np.linspace(0, 1, 14), np.linspace(0, 1, 5), rng.uniform(0.35, 1.0, 5))
        outline = [(0.0, 0.0), *zip(belly * radius, np.linspace(0, tall, 14), strict=True)]
        return [(revolved(outline, 28), material)]
    if draw == 1:  # a bowl
        turn = np.linspace(-np.pi / 2, 0, 9)
        shell = np.stack([radius * 1.4 * np.cos(turn), radius * (1 + np.sin(turn))], -1)
        return [(revolved([*shell, *(shell[::-1] * [0.93, 1.0] + [0, 0.01])], 32), material)]
    if draw == 2:  # a ball
        return [(superellipsoid((2 * radius,) * 3).moved((0, 0, radius)), material)]
    if draw == 3:  # a bottle
        neck = radius * 0.35
        outline = [(0, 0), (radius, 0), (radius, tall * 0.55), (neck, tall * 0.72), (neck, tall), (0, tall)]
        return [(revolved(outline, 24), material)]
    if draw == 4:  # a stack of books
        stack: list[Part] = []
        z = 0.0
        for _ in range(int(rng.integers(1, 5))):
            thick = tall * 0.18
            book = standing_box((radius * 2.4, radius * 1.7, thick), (0, 0, z)).turned(_uniform(rng, -15, 15))
            stack.append((book, matte(random_color(rng))))
            z += thick
        return stack
    if draw == 5:  # a cup
        outline = [
            (0, 0),
            (radius * 0.8, 0),
            (radius, tall * 0.6),
            (radius * 0.92, tall * 0.6),
            (radius * 0.7, 0.02),
            (0, 0.02),
        ]
        return [(revolved(outline, 24), material)]
    return [(shape(rng, tall), material)]


def shape(rng: np.random.Generator, size: float) -> Mesh:
    """An abstract solid standing on z = 0, about as tall as `size`."""
    solid = _solid(rng, size)
    return solid.moved((0, 0, -float(solid.vertices[:, 2].min())))


def _solid(rng: np.random.Generator, size: float) -> Mesh:
    draw = int(rng.integers(6))
    if draw == 0:
        return torus(size * 0.36, size * 0.13).turned(_uniform(rng, 60, 90), 0)
    if draw == 1:
        squareness = (_uniform(rng, 0.2, 2.0), _uniform(rng, 0.2, 2.0))
        return superellipsoid((size, size, size), squareness)
    if draw == 2:
        return cylinder(size * 0.4, size, 32, top_radius=0.0)
    if draw == 3:
        return blob(rng, (size, size, size), 0.5)
    if draw == 4:
        outline = np.stack([size * rng.uniform(0.1, 0.45, 9), np.linspace(0, size, 9)], -1)
        fine = np.linspace(0, 8, 40)
        smooth = np.stack([np.interp(fine, np.arange(9), outline[:, i]) for i in (0, 1)], -1)
        return revolved([(0, 0), *smooth, (0, size)], 32)
    return standing_box((size, size * _uniform(rng, 0.3, 1), size)).turned(_uniform(rng, 0, 90))


def sculpture(rng: np.random.Generator) -> Furniture:
    """A solid on a pedestal, or a few on the floor."""
    size = _uniform(rng, 0.3, 0.8)
    material = any_finish(rng, random_color(rng, (0.1, 0.9), (0.2, 0.9)), metals=0.3, coated=0.4)
    if rng.random() < 0.5:
        pedestal = _uniform(rng, 0.3, 0.9)
        block = standing_box((size, size, pedestal))
        stand = (block, any_finish(rng, textures.marble(rng), (0.6, 0.6), metals=0.0))
        return Furniture([stand, (shape(rng, size).moved((0, 0, pedestal)), material)], (size, size))
    return Furniture([(shape(rng, size), material)], (size, size))


def boxes(rng: np.random.Generator) -> Furniture:
    parts: list[Part] = []
    z = 0.0
    width = _uniform(rng, 0.35, 0.7)
    card = linear_color(0.08, _uniform(rng, 0.2, 0.6), _uniform(rng, 0.5, 0.8))
    for level in range(int(rng.integers(1, 4))):
        side, height = width * 0.85**level, _uniform(rng, 0.2, 0.5)
        block = standing_box((side, side * 0.8, height), (0, 0, z)).turned(_uniform(rng, -25, 25))
        parts.append((block, matte(card if rng.random() < 0.5 else random_color(rng))))
        z += height
    return Furniture(parts, (width * 1.2, width * 1.2))


def floor_lamp(rng: np.random.Generator) -> Furniture:
    height, radius = _uniform(rng, 1.2, 1.75), _uniform(rng, 0.13, 0.22)
    stand = merged([cylinder(radius * 0.8, 0.03), cylinder(0.015, height, 12)])
    shade = revolved([(radius, 0.0), (radius * _uniform(rng, 0.5, 1.0), 0.3)], 28).moved((0, 0, height - 0.05))
    bulb = superellipsoid((0.12, 0.12, 0.16), segments=16).moved((0, 0, height + 0.08))
    parts = [
        (stand, metal(rng)),
        (shade, matte(random_color(rng, (0.0, 0.5), (0.5, 0.95)))),
        (bulb, light(warm_white(rng, (2700, 4000)), _uniform(rng, 20, 60))),
    ]
    return Furniture(parts, (2 * radius, 2 * radius))


# (maker, weight, whether it stands against a wall)
Maker = Callable[[np.random.Generator], Furniture]
CATALOGUE: Sequence[tuple[Maker, float, bool]] = (
    (table, 3.0, False),
    (chair, 3.0, False),
    (sofa, 2.0, True),
    (bed, 1.0, True),
    (shelf, 2.0, True),
    (cabinet, 2.0, True),
    (desk, 1.2, True),
    (plant, 1.5, True),
    (sculpture, 1.5, False),
    (boxes, 1.0, False),
    (floor_lamp, 0.8, True),
)

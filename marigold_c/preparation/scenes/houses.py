"""Houses, cars, lamp posts and streets between houses.

Called by landscapes.py (single houses) and generator.py (streets).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import plants, textures
from .description import Camera, Part, Scene, moved_parts
from .materials import Material, any_finish, glossy, linear_color, matte, metal, random_color
from .meshes import Mesh, box, cylinder, merged, prism, quad, standing_box, superellipsoid
from .sky import make_sky, sun_at


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _facade(rng: np.random.Generator) -> Material:
    if rng.random() < 0.4:
        return matte(textures.bricks(rng), (1.6, 1.0))
    return matte(textures.plaster(rng, random_color(rng, (0.0, 0.5), (0.5, 0.95)), _uniform(rng, 0.05, 0.25)), (5, 5))


@dataclass(frozen=True)
class Look:
    """The materials of a place, of which its houses choose."""

    facades: tuple[Material, ...]
    trims: tuple[Material, ...]
    roofs: tuple[Material, ...]
    awnings: tuple[Material, ...]
    bricks: Material
    glass: Material
    tyres: Material


def make_look(rng: np.random.Generator) -> Look:
    return Look(
        facades=tuple(_facade(rng) for _ in range(5)),
        trims=tuple(matte(random_color(rng, (0.0, 0.3), (0.3, 0.97))) for _ in range(3)),
        roofs=tuple(matte(textures.shingles(rng), (2.0, 2.0)) for _ in range(2)),
        awnings=tuple(matte(textures.stripes(rng), (1.0, 1.0)) for _ in range(2)),
        bricks=matte(textures.bricks(rng), (1.6, 1.0)),
        glass=Material(linear_color(0.58, 0.25, _uniform(rng, 0.1, 0.3)), "coated", _uniform(rng, 0.05, 0.15)),
        tyres=matte(linear_color(0, 0, 0.18)),
    )


def _one_of(rng: np.random.Generator, materials: tuple[Material, ...]) -> Material:
    return materials[int(rng.integers(len(materials)))]


def _windows(
    rng: np.random.Generator, width: float, height: float, storey: float, ground: float = 0.0
) -> tuple[list[Mesh], list[Mesh]]:
    """Panes and frames of a facade in the plane y = 0 that looks to -y; its lower left corner is the origin."""
    wide, tall = _uniform(rng, 0.9, 1.7), min(_uniform(rng, 1.1, 2.0), storey - 0.8)
    columns = max(1, int(width / (wide + _uniform(rng, 0.6, 1.8))))
    panes, frames = [], []
    for row in range(int((height - ground) / storey)):
        z = ground + row * storey + 0.9 + tall / 2
        for column in range(columns):
            x = width * (column + 0.5) / columns
            panes.append(box((wide, 0.02, tall), (x, -0.02, z)))
            frames.append(box((wide + 0.16, 0.06, 0.1), (x, -0.03, z - tall / 2 - 0.05)))
            frames.append(box((wide + 0.16, 0.06, 0.08), (x, -0.03, z + tall / 2 + 0.04)))
            frames += [box((0.08, 0.05, tall), (x + side * (wide / 2 + 0.04), -0.025, z)) for side in (-1, 1)]
            frames.append(box((0.05, 0.04, tall), (x, -0.03, z)))
    return panes, frames


def cottage(rng: np.random.Generator, look: Look) -> list[Part]:
    """A house with a gable roof, centred on the origin."""
    width, depth = _uniform(rng, 6, 11), _uniform(rng, 5, 8)
    storeys = int(rng.integers(1, 3))
    height = 2.9 * storeys + 0.4
    roof_height, eaves = _uniform(rng, 1.5, 3.5), 0.5
    walls = standing_box((width, depth, height))
    gable = prism([(-depth / 2, 0), (depth / 2, 0), (0, roof_height)], width).turned(-90).moved((-width / 2, 0, height))
    slope = np.array([0, -depth / 2 - eaves, -roof_height * (1 + 2 * eaves / depth)])
    mirrored = slope * [1, -1, 1]
    ridge = np.array([-width / 2 - eaves, 0, height + roof_height + 0.05])
    along = np.array([width + 2 * eaves, 0, 0])
    roof = merged([quad(ridge + slope, along, -slope), quad(ridge + mirrored + along, -along, -mirrored)])
    panes, frames = _windows(rng, width, height, 2.9)
    glass, frame = [], []
    for degrees, side in ((0, depth), (180, depth)):
        offset = (-width / 2, -side / 2, 0.3)
        glass.append(merged(panes).moved(offset).turned(degrees))
        frame.append(merged(frames).moved(offset).turned(degrees))
    entrance = box((1.0, 0.1, 2.1), (_uniform(rng, -0.3, 0.3) * width, -depth / 2 - 0.02, 1.3))
    chimney = standing_box((0.7, 0.7, roof_height + 1), (width * 0.25, depth * 0.1, height))
    return [
        (merged([walls, gable]), _one_of(rng, look.facades)),
        (roof, _one_of(rng, look.roofs)),
        (merged(glass), look.glass),
        (merged(frame), _one_of(rng, look.trims)),
        (entrance, any_finish(rng, random_color(rng), metals=0.0)),
        (chimney, look.bricks),
    ]


def building(rng: np.random.Generator, look: Look, width: float, depth: float) -> list[Part]:
    """A town house whose facade lies in the plane y = 0, from x = 0 to `width`, looking to -y."""
    storey = _uniform(rng, 2.8, 3.6)
    height = storey * int(rng.integers(2, 8)) + 0.6
    body = standing_box((width, depth, height), (width / 2, depth / 2, 0))
    panes, frames = _windows(rng, width, height - 0.6, storey, storey)
    ledges = [box((width + 0.2, 0.3, 0.25), (width / 2, -0.05, z)) for z in (storey, height - 0.12)]
    shop_width = width * _uniform(rng, 0.5, 0.9)
    shop = box((shop_width, 0.06, storey * 0.6), (width / 2, -0.02, storey * 0.42))
    parts: list[Part] = [
        (body, _one_of(rng, look.facades)),
        (merged([*panes, shop]), look.glass),
        (merged([*frames, *ledges]), _one_of(rng, look.trims)),
    ]
    if rng.random() < 0.4:
        awning = quad((width / 2 - shop_width / 2, -1.3, storey * 0.72), (shop_width, 0, 0), (0, 1.3, storey * 0.15))
        parts.append((awning, _one_of(rng, look.awnings)))
    if rng.random() < 0.5:
        rise = _uniform(rng, 1.5, 3.5)
        ridge = prism([(0, 0), (depth, 0), (depth / 2, rise)], width).turned(90).moved((width, 0, height))
        parts.append((ridge, _one_of(rng, look.roofs)))
    return parts


def car(rng: np.random.Generator, look: Look) -> list[Part]:
    """Along y, about the origin."""
    paint = Material(random_color(rng, (0.0, 0.9), (0.1, 0.95)), "coated", _uniform(rng, 0.1, 0.3))
    length = _uniform(rng, 3.6, 4.7)
    body = superellipsoid((1.75, length, 0.75), (0.35, 0.3)).moved((0, 0, 0.65))
    cabin = superellipsoid((1.5, length * 0.55, 0.75), (0.5, 0.4)).moved((0, 0.15, 1.1))
    wheels = [
        cylinder(0.31, 0.22, 20).turned(90, 1).moved((x - 0.11, y, 0.31))
        for x in (-0.75, 0.75)
        for y in (-length * 0.3, length * 0.3)
    ]
    return [(body, paint), (cabin, look.glass), (merged(wheels), look.tyres)]


def lamp_post(rng: np.random.Generator, height: float) -> Mesh:
    pole = cylinder(0.07, height, 10, top_radius=0.05)
    head = superellipsoid((0.5, 0.9, 0.2), (0.6, 0.5), segments=14).moved((0, -0.5, height))
    return merged([pole, head])


def make_street(rng: np.random.Generator) -> Scene:
    """A street along y between two rows of houses."""
    road, pavement = _uniform(rng, 5, 10), _uniform(rng, 1.5, 4.5)
    half = road / 2 + pavement
    side = int(rng.choice([-1, 0, 1]))
    height = _uniform(rng, 1.3, 2.2) if rng.random() < 0.75 else _uniform(rng, 3, 8)
    origin = np.array([side * _uniform(rng, 0, half - 0.8), 0.0, height])
    yaw = _uniform(rng, -0.5, 0.5)
    camera = Camera(
        origin,
        origin + np.array([yaw, 1.0, _uniform(rng, -0.12, 0.12)]),
        _uniform(rng, 45, 85),
        float(rng.normal(0, 1)),
    )
    look = make_look(rng)
    parts = _roadway(rng, road, pavement)
    for sign in (-1, 1):
        parts += _row(rng, look, sign, half)
    parts += _along_the_road(rng, look, road, half)
    overcast = rng.random() < 0.3
    sun = None if overcast else sun_at(_uniform(rng, 25, 65), _uniform(rng, 0, 360), _uniform(rng, 5, 12))
    sky = make_sky(rng, overcast, sun, linear_color(0.1, 0.1, 0.4))
    return Scene("street", camera, parts, sky)


def _roadway(rng: np.random.Generator, road: float, pavement: float) -> list[Part]:
    length, back = 220.0, 12.0
    surface = matte(textures.asphalt(rng), (4, 4)) if rng.random() < 0.7 else matte(textures.tiles(rng), (1.2, 1.2))
    parts: list[Part] = [
        (quad((-road / 2, -back, 0), (road, 0, 0), (0, length, 0)), surface),
        (
            quad((-300, -back, -0.05), (600, 0, 0), (0, 500, 0)),
            matte(textures.leaves(rng, linear_color(0.22, 0.4, 0.45)), (12, 12)),
        ),
    ]
    stones = matte(textures.tiles(rng, (linear_color(0.1, 0.08, 0.6), linear_color(0.1, 0.1, 0.55))), (2.0, 2.0))
    slab = 22.0  # in pieces, so that the texture does not repeat too often for one mesh
    sides = [
        standing_box((pavement, slab, 0.14), (sign * (road + pavement) / 2, y + slab / 2, 0))
        for sign in (-1, 1)
        for y in np.arange(-back, length - back, slab)
    ]
    parts.append((merged(sides), stones))
    if rng.random() < 0.7:
        dashes = [quad((-0.07, float(y), 0.012), (0.14, 0, 0), (0, 2.0, 0)) for y in np.arange(-4, 150, 5)]
        parts.append((merged(dashes), matte(linear_color(0.12, 0.05, 0.95))))
    return parts


def _row(rng: np.random.Generator, look: Look, sign: int, half: float) -> list[Part]:
    """Houses along one side; here and there a gap with trees."""
    parts: list[Part] = []
    y = _uniform(rng, -12, -6)
    while y < 110:
        width, depth = _uniform(rng, 7, 18), _uniform(rng, 8, 14)
        if rng.random() < 0.14:
            trunks = np.array([[sign * (half + 3 + 4 * i), y + 3 + 2 * i, 0.0] for i in range(3)])
            parts += plants.forest(rng, trunks, (5, 9), False)
            y += 9
            continue
        one = building(rng, look, width, depth)
        setback = _uniform(rng, 0, 0.8)
        if sign > 0:
            parts += moved_parts(one, (half + setback, y + width, 0.0), -90)
        else:
            parts += moved_parts(one, (-half - setback, y, 0.0), 90)
        y += width + (0.0 if rng.random() < 0.7 else _uniform(rng, 1, 4))
    return parts


def _along_the_road(rng: np.random.Generator, look: Look, road: float, half: float) -> list[Part]:
    parts: list[Part] = []
    if rng.random() < 0.6:
        places = [
            [sign * (road / 2 + 0.7), float(y), 0.1]
            for y in np.arange(_uniform(rng, 5, 9), 90, _uniform(rng, 7, 14))
            for sign in (-1, 1)
        ]
        parts += plants.forest(rng, np.array(places), (3.5, 6.5), bool(rng.random() < 0.2))
    if rng.random() < 0.6:
        height = _uniform(rng, 4, 7)
        posts = [
            lamp_post(rng, height).turned(-90 * sign).moved((sign * (road / 2 + 0.4), float(y), 0))
            for y in np.arange(_uniform(rng, 4, 12), 100, 18)
            for sign in (-1, 1)
        ]
        parts.append(
            (merged(posts), metal(rng, (0.3, 0.6)) if rng.random() < 0.5 else glossy(rng, linear_color(0.3, 0.2, 0.25)))
        )
    for y in np.arange(_uniform(rng, 4, 9), 70, 5.6):
        for sign in (-1, 1):
            if rng.random() < 0.45:
                parts += moved_parts(car(rng, look), (sign * (road / 2 - 1.05), float(y), 0.0), 180.0 * (sign > 0))
    if rng.random() < 0.4:
        bins = [cylinder(0.25, 0.9, 18).moved((sign * (half - 0.5), _uniform(rng, 3, 30), 0.14)) for sign in (-1, 1)]
        parts.append((merged(bins), any_finish(rng, random_color(rng, (0.1, 0.8), (0.15, 0.7)), metals=0.3)))
    return parts

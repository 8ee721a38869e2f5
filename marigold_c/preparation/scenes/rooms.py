"""Rooms: walls, windows, lamps, furniture and a camera among them.

Called by generator.py. Everything follows from the generator.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from . import furniture, textures, walls
from .description import Camera, Part, Scene, moved_parts
from .materials import Material, glossy, linear_color, matte, random_color
from .meshes import Mesh, box, cylinder, quad
from .sky import Sky, Sun, sun_at
from .walls import Opening, Wall

_CAMERA_SPACE = 0.75  # metres around the camera, and before it, where nothing stands


@dataclass
class _Room:
    """A room while it is furnished. taken: rectangles (x0, y0, x1, y1) of the floor."""

    width: float
    depth: float
    height: float
    camera: Camera
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)

    def is_free(self, x: float, y: float, width: float, depth: float) -> bool:
        low_x, low_y, high_x, high_y = x - width / 2, y - depth / 2, x + width / 2, y + depth / 2
        if low_x < 0 or low_y < 0 or high_x > self.width or high_y > self.depth:
            return False
        sight = -self.camera.axes()[2][:2]
        for step in (0.0, 0.5, 1.0):
            near = self.camera.origin[:2] + sight * step * _CAMERA_SPACE
            away_x = max(low_x - near[0], 0, near[0] - high_x)
            away_y = max(low_y - near[1], 0, near[1] - high_y)
            if np.hypot(away_x, away_y) < _CAMERA_SPACE * 0.7:
                return False
        return not any(low_x < x1 and x0 < high_x and low_y < y1 and y0 < high_y for x0, y0, x1, y1 in self.taken)

    def take(self, x: float, y: float, width: float, depth: float) -> None:
        self.taken.append((x - width / 2, y - depth / 2, x + width / 2, y + depth / 2))


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def make_room(rng: np.random.Generator) -> Scene:
    width, depth = _uniform(rng, 2.6, 7.0), _uniform(rng, 3.2, 8.5)
    height = _uniform(rng, 2.3, 3.4)
    camera = _camera(rng, width, depth, height)
    room = _Room(width, depth, height, camera)
    sun = _shell(rng, room)
    _furnish(rng, room)
    if rng.random() < 0.3:
        room.camera = _closer(rng, room) or camera
    sky = Sky(np.zeros((2, 4, 3), np.float32), sun) if sun else None
    return Scene("room", room.camera, room.parts, sky)


def _camera(rng: np.random.Generator, width: float, depth: float, height: float) -> Camera:
    """Near the front wall, looking to the back."""
    origin = np.array(
        [
            _uniform(rng, 0.15, 0.85) * width,
            _uniform(rng, 0.25, 0.3 * depth),
            min(_uniform(rng, 0.8, 1.9), height - 0.4),
        ]
    )
    target = np.array([_uniform(rng, 0.1, 0.9) * width, depth, _uniform(rng, 0.2, 1.3)])
    return Camera(origin, target, _uniform(rng, 45, 85), float(rng.normal(0, 1.5)))


def _closer(rng: np.random.Generator, room: _Room) -> Camera | None:
    """A camera one to two metres from something, if there is room for it."""
    for _ in range(8):
        if not room.taken:
            return None
        x0, y0, x1, y1 = room.taken[int(rng.integers(len(room.taken)))]
        focus = np.array([(x0 + x1) / 2, (y0 + y1) / 2, _uniform(rng, 0.3, 0.9)])
        around, away = _uniform(rng, 0, 2 * np.pi), _uniform(rng, 0.9, 1.8) + max(x1 - x0, y1 - y0) / 2
        origin = focus + np.array([away * np.cos(around), away * np.sin(around), 0])
        origin[2] = _uniform(rng, 0.7, 1.8)
        inside = 0.2 < origin[0] < room.width - 0.2 and 0.2 < origin[1] < room.depth - 0.2
        clear = all(
            np.hypot(max(a - origin[0], 0, origin[0] - c), max(b - origin[1], 0, origin[1] - d)) > 0.35
            for a, b, c, d in room.taken
        )
        if inside and clear:
            return Camera(origin, focus, _uniform(rng, 40, 75), float(rng.normal(0, 2)))
    return None


# ---- walls, floor, ceiling, light ----


def _wall_material(rng: np.random.Generator) -> Material:
    draw = rng.random()
    pale = random_color(rng, (0.0, 0.35), (0.65, 0.98))
    if draw < 0.55:
        return matte(textures.plaster(rng, pale, _uniform(rng, 0.02, 0.15)), (2.5, 2.5))
    if draw < 0.68:
        return matte(textures.stripes(rng, pale), (_uniform(rng, 0.4, 1.2),) * 2)
    if draw < 0.78:
        return matte(textures.dots(rng, pale), (_uniform(rng, 0.5, 1.0),) * 2)
    if draw < 0.88:
        return matte(textures.bricks(rng), (1.0, 0.6))
    if draw < 0.94:
        return glossy(rng, textures.tiles(rng), (0.1, 0.4), (_uniform(rng, 0.4, 1.0),) * 2)
    return matte(textures.plaster(rng, random_color(rng, (0.3, 0.8), (0.3, 0.7))), (2.5, 2.5))


def _floor(rng: np.random.Generator) -> tuple[NDArray[np.float32], bool]:
    """A texture, and whether it may shine."""
    maker = textures.FLOORS[int(rng.integers(len(textures.FLOORS)))]
    return maker(rng), maker is not textures.carpet


def _windows(rng: np.random.Generator, room: _Room, wall: Wall) -> list[Opening]:
    """One to three windows of one size, side by side."""
    bottom = _uniform(rng, 0.05, 1.0)
    tall = min(_uniform(rng, 0.9, 2.0), room.height - bottom - 0.2)
    wide = min(_uniform(rng, 0.7, 2.0), wall.length - 0.8)
    count = int(rng.integers(1, 4))
    while count > 1 and count * (wide + 0.4) > wall.length - 0.4:
        count -= 1
    gap = (wall.length - count * wide) / (count + 1)
    return [Opening(gap + i * (wide + gap), bottom, wide, tall) for i in range(count)]


def _shell(rng: np.random.Generator, room: _Room) -> Sun | None:
    """Everything that does not stand on the floor. Returns the sun, where it comes in."""
    sides = walls.room_walls(room.width, room.depth, room.height)
    lit = {
        name: rng.random() < chance for name, chance in (("back", 0.3), ("left", 0.4), ("right", 0.4), ("front", 0.3))
    }
    sunny = next((name for name in sides if lit[name]), None) if rng.random() < 0.55 else None
    strength = _uniform(rng, 4, 12)
    main = _wall_material(rng)
    accent = _wall_material(rng) if rng.random() < 0.4 else main
    trim = matte(random_color(rng, (0.0, 0.25), (0.6, 0.97)))
    trim_height = walls.baseboard_height(rng)
    for name, wall in sides.items():
        openings = _windows(rng, room, wall) if lit[name] else []
        material = accent if name == "back" else main
        parts: list[Part] = [(walls.panel(wall, openings), material), *walls.skirting(rng, wall, trim, trim_height)]
        hung = rng.random() < 0.6
        for one in openings:
            parts += walls.window(rng, one, strength, name == sunny)
            parts += walls.curtains(rng, one) if hung else []
            parts += walls.radiator(one) if one.bottom > 0.6 and hung else []
        if not openings:
            parts += _wall_things(rng, wall, name)
        room.parts += wall.into_room(parts)
    _floor_and_ceiling(rng, room)
    if not any(lit.values()) or rng.random() < (0.75 if sunny else 0.45):
        x, y = room.width * _uniform(rng, 0.3, 0.7), room.depth * _uniform(rng, 0.35, 0.75)
        room.parts += walls.ceiling_lamp(rng, x, y, room.height)
    if sunny is None:
        return None
    azimuth = sides[sunny].outwards() + _uniform(rng, -50, 50)
    return sun_at(_uniform(rng, 42, 62), azimuth, strength * _uniform(rng, 2, 7))


def _wall_things(rng: np.random.Generator, wall: Wall, name: str) -> list[Part]:
    parts: list[Part] = []
    start = 0.5
    if name != "front" and wall.length > 2.2 and rng.random() < 0.35:
        left = 0.3 if rng.random() < 0.5 else wall.length - 1.3
        parts += walls.door(rng, left)
        start = 1.8 if left < 1 else 0.5
    x = start
    while x < wall.length - 0.9:
        if rng.random() < 0.5:
            parts += walls.decoration(rng, x + 0.3)
        x += _uniform(rng, 1.3, 2.2)
    return parts


def _floor_and_ceiling(rng: np.random.Generator, room: _Room) -> None:
    texture, may_shine = _floor(rng)
    size = _uniform(rng, 0.8, 2.4)
    shines = may_shine and rng.random() < 0.6
    ground = glossy(rng, texture, (0.12, 0.5), (size, size)) if shines else matte(texture, (size, size))
    room.parts.append((quad((0, 0, 0), (room.width, 0, 0), (0, room.depth, 0)), ground))
    if rng.random() < 0.8:
        above = matte(
            textures.plaster(rng, linear_color(0.1, _uniform(rng, 0, 0.1), _uniform(rng, 0.8, 0.97)), 0.05), (3, 3)
        )
    else:
        above = matte(textures.planks(rng), (1.2, 1.2))
    room.parts.append((quad((0, 0, room.height), (0, room.depth, 0), (room.width, 0, 0)), above))
    if rng.random() < 0.15:
        beam = furniture.wooden(rng)
        for y in np.arange(0.6, room.depth, _uniform(rng, 0.8, 1.6)):
            room.parts.append((box((room.width, 0.14, 0.18), (room.width / 2, float(y), room.height - 0.09)), beam))


# ---- what stands on the floor ----


def _furnish(rng: np.random.Generator, room: _Room) -> None:
    sides = walls.room_walls(room.width, room.depth, room.height)
    if rng.random() < 0.45:
        _lay_rug(rng, room)
    weights = np.array([weight for _, weight, _ in furniture.CATALOGUE])
    density = room.width * room.depth / 4.0
    for _ in range(int(rng.integers(4, 8) + density)):
        maker, _, at_wall = furniture.CATALOGUE[int(rng.choice(len(weights), p=weights / weights.sum()))]
        item = maker(rng)
        for _ in range(12):
            if _place(rng, room, item, list(sides.values())[int(rng.integers(3))] if at_wall else None):
                break
        if maker is furniture.table and room.taken and rng.random() < 0.6:
            _seat(rng, room)


def _place(rng: np.random.Generator, room: _Room, item: furniture.Furniture, wall: Wall | None) -> bool:
    width, depth = item.footprint
    if wall is not None:
        along = _uniform(rng, width / 2, max(wall.length - width / 2, width / 2 + 0.01))
        local = np.array([along, -depth / 2 - 0.04])
        angle = np.deg2rad(wall.degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        x, y = turn @ local + np.asarray(wall.corner)
        degrees = wall.degrees
        span = (width, depth) if wall.degrees % 180 == 0 else (depth, width)
    else:
        x, y, degrees = _uniform(rng, 0, room.width), _uniform(rng, 0, room.depth), _uniform(rng, 0, 360)
        c, s = abs(np.cos(np.deg2rad(degrees))), abs(np.sin(np.deg2rad(degrees)))
        span = (float(width * c + depth * s), float(width * s + depth * c))
    if not room.is_free(float(x), float(y), *span):
        return False
    room.take(float(x), float(y), *span)
    parts = list(item.parts)
    for top in item.tops:
        parts += _set_out(rng, top)
    room.parts += moved_parts(parts, (float(x), float(y), 0.0), degrees)
    return True


def _set_out(rng: np.random.Generator, top: tuple[float, float, float, float, float]) -> list[Part]:
    """Small things on a surface."""
    x, y, z, width, depth = top
    parts: list[Part] = []
    places: list[tuple[float, float]] = []
    for _ in range(int(rng.integers(0, 6))):
        at = (x + width * _uniform(rng, -0.45, 0.45), y + depth * _uniform(rng, -0.45, 0.45))
        if all(np.hypot(at[0] - a, at[1] - b) > 0.22 for a, b in places):
            places.append(at)
            parts += moved_parts(furniture.trinket(rng, 0.32), (*at, z), _uniform(rng, 0, 360))
    return parts


def _seat(rng: np.random.Generator, room: _Room) -> None:
    """Chairs around the last thing that was placed."""
    x0, y0, x1, y1 = room.taken[-1]
    chair = furniture.chair(rng)
    width, depth = chair.footprint
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    gap = depth / 2 - 0.1
    for x, y, degrees in (
        (middle_x, y1 + gap, 0),
        (middle_x, y0 - gap, 180),
        (x0 - gap, middle_y, 90),
        (x1 + gap, middle_y, -90),
    ):
        if rng.random() < 0.75 and room.is_free(x, y, width * 0.6, depth * 0.55):
            room.take(x, y, width, depth)
            room.parts += moved_parts(chair.parts, (x, y, 0), degrees + _uniform(rng, -12, 12))


def _lay_rug(rng: np.random.Generator, room: _Room) -> None:
    width, depth = _uniform(rng, 1.0, max(room.width * 0.7, 1.1)), _uniform(rng, 1.0, max(room.depth * 0.6, 1.1))
    x, y = room.width * _uniform(rng, 0.35, 0.65), room.depth * _uniform(rng, 0.4, 0.7)
    if rng.random() < 0.75:
        mesh: Mesh = quad((-width / 2, -depth / 2, 0.012), (width, 0, 0), (0, depth, 0), picture=True)
        material = matte(textures.rug(rng))
    else:
        mesh = cylinder(min(width, depth) / 2, 0.012, 48)
        material = matte(textures.carpet(rng), (0.5, 0.5))
    room.parts += moved_parts([(mesh, material)], (x, y, 0.0), _uniform(rng, -10, 10))

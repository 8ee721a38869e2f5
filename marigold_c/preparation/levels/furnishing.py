"""Puts models into a World: before the cameras, on floors, where there is room. Calls viewpoints.py, world.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .rasteriser import View
from .viewpoints import Caster, Vector
from .world import Model, Placed

AROUND = np.linspace(0, 2 * np.pi, 8, endpoint=False)
# What people are as tall as, in metres; other things are as large as their makers say, give or take.
PERSON = (1.55, 1.9)
STRETCH = (0.8, 1.25)


def _room(caster: Caster, floor: Vector, radius: float, height: float) -> bool:
    around = np.stack([np.cos(AROUND), np.sin(AROUND), np.zeros_like(AROUND)], axis=1)
    free = caster.cast(floor + np.array([0, 0, min(0.4, 0.7 * height)]), around)[0]
    above = caster.reach(floor + np.array([0, 0, 0.05]), np.array([0.0, 0, 1]))
    return bool(free.min() > 0.8 * radius and above > height)


def place_before(
    view: View, models: Sequence[Model], caster: Caster, rng: np.random.Generator, tries: int = 6
) -> Placed | None:
    """One of the models on the floor before a camera, near the middle of its picture; None where there is no room."""
    forward = -view.rotation[:, 2]
    yaw = np.arctan2(forward[1], forward[0])
    for _ in range(tries):
        model = models[int(rng.integers(len(models)))].standing()
        low, high = model.box()
        extent = high - low
        scale = rng.uniform(*PERSON) / max(float(extent[2]), 1e-3) if model.kind == "person" else rng.uniform(*STRETCH)
        extent = extent * scale
        size = float(extent.max())
        distance = np.exp(rng.uniform(np.log(max(0.7, 0.8 * size)), np.log(max(7.0, 2.5 * size))))
        angle = yaw + rng.normal(0, 0.22) * view.fov
        towards = np.array([np.cos(angle), np.sin(angle), 0.0])
        if caster.reach(view.origin, towards) < distance:
            continue
        floor = caster.floor(view.origin + distance * towards, 2.4)
        if floor is None or not _room(caster, floor, 0.5 * float(np.hypot(*extent[:2])), float(extent[2])):
            continue
        turn = rng.uniform(0, 2 * np.pi)
        matrix = scale * np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        return Placed(model, matrix, floor)
    return None

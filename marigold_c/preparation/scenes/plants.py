"""Trees, bushes and rocks of landscapes. A scene makes a few of each and repeats them turned and scaled.

Called by landscapes.py and streets.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from . import textures
from .description import Part
from .materials import Material, linear_color, matte
from .meshes import Mesh, blob, cylinder, merged, revolved

# Hue and saturation of leaves: summer, spring, autumn, blue-green of conifers.
_SUMMER, _SPRING, _AUTUMN, _DARK = (0.27, 0.55), (0.22, 0.65), (0.08, 0.8), (0.36, 0.45)


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def foliage(rng: np.random.Generator, autumn: bool = False) -> Material:
    hue, saturation = _AUTUMN if autumn else (_SUMMER, _SPRING, _DARK)[int(rng.integers(3))]
    color = linear_color(hue + _uniform(rng, -0.04, 0.04), saturation, _uniform(rng, 0.35, 0.65))
    return matte(textures.leaves(rng, color), (2.0, 2.0))


def trunk_bark(rng: np.random.Generator) -> Material:
    return matte(textures.bark(rng), (0.6, 0.6))


def conifer(rng: np.random.Generator) -> tuple[Mesh, Mesh]:
    """Trunk and crown, 1 m tall in all."""
    tiers, trunk = int(rng.integers(2, 6)), _uniform(rng, 0.06, 0.16)
    width = _uniform(rng, 0.14, 0.26)
    crown = []
    for tier in range(tiers):
        low = trunk + (1 - trunk) * 0.8 * tier / tiers
        top = trunk + (1 - trunk) * min((tier + 1.7) / tiers, 1.0)
        radius = width * (1 - 0.75 * tier / tiers)
        cone = revolved([(radius * 0.3, low), (radius, low + 0.01), (radius, low + 0.01), (0.0, top)], 14)
        crown.append(cone)
    return cylinder(0.025, trunk + 0.1, 8), merged(crown)


def broadleaf(rng: np.random.Generator) -> tuple[Mesh, Mesh]:
    """Trunk and crown, about 1 m tall in all."""
    trunk, count = _uniform(rng, 0.2, 0.42), int(rng.integers(3, 7))
    crown = []
    for _ in range(count):
        size = rng.uniform(0.28, 0.5, 3)
        offset = np.array([*rng.uniform(-0.16, 0.16, 2), trunk + 0.16 + _uniform(rng, 0, 0.4)])
        crown.append(blob(rng, size, 0.45, 14).moved(offset))
    return cylinder(_uniform(rng, 0.02, 0.035), trunk + 0.25, 8, top_radius=0.015), merged(crown)


def bush(rng: np.random.Generator) -> Mesh:
    """About 1 m wide."""
    lumps = [
        blob(rng, rng.uniform(0.4, 0.8, 3), 0.5, 12).moved((*rng.uniform(-0.25, 0.25, 2), 0.15))
        for _ in range(int(rng.integers(1, 4)))
    ]
    return merged(lumps)


def rock(rng: np.random.Generator) -> Mesh:
    """About 1 m wide, a third of it below the ground."""
    return blob(rng, (_uniform(rng, 0.7, 1.2), _uniform(rng, 0.7, 1.2), _uniform(rng, 0.5, 1.0)), 0.6, 18).moved(
        (0, 0, 0.1)
    )


Height = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def planted(
    rng: np.random.Generator, kinds: list[tuple[Mesh, Mesh]], places: NDArray[np.float64], size: tuple[float, float]
) -> tuple[Mesh, Mesh]:
    """One of `kinds` of tree at each place (N, 3): all trunks and all crowns."""
    trunks, crowns = [], []
    for place in places:
        trunk, crown = kinds[int(rng.integers(len(kinds)))]
        scale, turn = _uniform(rng, *size), _uniform(rng, 0, 360)
        trunks.append(trunk.scaled(scale).turned(turn).moved(place))
        crowns.append(crown.scaled(scale).turned(turn).moved(place))
    return merged(trunks), merged(crowns)


def scattered(
    rng: np.random.Generator, kinds: list[Mesh], places: NDArray[np.float64], size: tuple[float, float]
) -> Mesh:
    """One of `kinds` at each place (N, 3)."""
    return merged(
        [
            kinds[int(rng.integers(len(kinds)))]
            .scaled(rng.uniform(*size, 1) * rng.uniform(0.7, 1.3, 3))
            .turned(_uniform(rng, 0, 360))
            .moved(place)
            for place in places
        ]
    )


def forest(
    rng: np.random.Generator, places: NDArray[np.float64], size: tuple[float, float], autumn: bool
) -> list[Part]:
    """Trees of two kinds at these places, with leaves of two colours."""
    parts: list[Part] = []
    maker = (conifer, broadleaf)[int(rng.random() < 0.55)]
    mixed = rng.random() < 0.35
    wood = trunk_bark(rng)
    share = rng.random(len(places)) < 0.5
    for group, chosen in enumerate((places[share], places[~share])):
        if len(chosen) == 0:
            continue
        make = (broadleaf if maker is conifer else conifer) if mixed and group else maker
        trunks, crowns = planted(rng, [make(rng) for _ in range(3)], chosen, size)
        parts += [(trunks, wood), (crowns, foliage(rng, autumn))]
    return parts

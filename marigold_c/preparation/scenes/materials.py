"""What surfaces are made of, without the renderer: colour, kind of reflection, roughness, metallicity, emitted light.

Called by everything that builds scenes; rendering.py turns materials into the renderer's own.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# diffuse: Lambert. coated: Disney's principled model of a dielectric. metal: of a conductor, without a diffuse part.
# light: an emitting surface. opening: the bright outside seen through a window; not a surface, it has no labels.
KINDS = ("diffuse", "coated", "metal", "light", "opening")

# Reflectance at normal incidence in linear sRGB.
METALS = {
    "aluminium": (0.91, 0.92, 0.92),
    "chromium": (0.55, 0.55, 0.55),
    "copper": (0.93, 0.61, 0.50),
    "gold": (0.99, 0.73, 0.33),
    "iron": (0.53, 0.51, 0.49),
    "brass": (0.89, 0.76, 0.42),
    "silver": (0.95, 0.93, 0.88),
}


@dataclass(frozen=True, eq=False)
class Material:
    """color: linear reflectance in [0, 1], (3,) or a texture (H, W, 3) that repeats; for a metal at normal incidence.

    tile: how many units of the meshes' texture coordinates one repetition takes, along u and v.
    radiance: of what emits, (3,) or (H, W, 3), linear.
    """

    color: NDArray[np.float32]
    kind: str = "diffuse"
    roughness: float = 1.0
    tile: tuple[float, float] = (1.0, 1.0)
    radiance: NDArray[np.float32] = field(default_factory=lambda: np.zeros(3, np.float32))

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}: choose from {', '.join(KINDS)}")

    @property
    def metallicity(self) -> float:
        return 1.0 if self.kind == "metal" else 0.0


def linear_color(hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    """Of a hue in turns, a saturation and a value in [0, 1] of what a camera shows."""
    shown = np.array(colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1)))
    return np.clip(shown**2.2, 0.01, 0.9).astype(np.float32)


def random_color(
    rng: np.random.Generator, saturation: tuple[float, float] = (0.1, 0.7), value: tuple[float, float] = (0.3, 0.9)
) -> NDArray[np.float32]:
    return linear_color(float(rng.random()), float(rng.uniform(*saturation)), float(rng.uniform(*value)))


def matte(color: NDArray[np.float32], tile: tuple[float, float] = (1.0, 1.0)) -> Material:
    return Material(color, tile=tile)


def glossy(
    rng: np.random.Generator,
    color: NDArray[np.float32],
    roughness: tuple[float, float] = (0.15, 0.6),
    tile: tuple[float, float] = (1.0, 1.0),
) -> Material:
    """Lacquer, plastic, glazed clay, polished stone."""
    return Material(color, "coated", float(rng.uniform(*roughness)), tile)


def metal(rng: np.random.Generator, roughness: tuple[float, float] = (0.08, 0.5)) -> Material:
    name = sorted(METALS)[int(rng.integers(len(METALS)))]
    return Material(np.array(METALS[name], np.float32), "metal", float(rng.uniform(*roughness)))


def any_finish(
    rng: np.random.Generator,
    color: NDArray[np.float32],
    tile: tuple[float, float] = (1.0, 1.0),
    metals: float = 0.12,
    coated: float = 0.35,
) -> Material:
    """Matte, coated or metal, with these probabilities of the last two."""
    draw = rng.random()
    if draw < metals:
        return metal(rng)
    return glossy(rng, color, tile=tile) if draw < metals + coated else matte(color, tile)


def light(color: NDArray[np.float32], strength: float) -> Material:
    """An emitting surface; `color` is scaled to a mean of 1."""
    hue = np.asarray(color, np.float32) / max(float(np.mean(color)), 1e-6)
    return Material(np.full(3, 0.5, np.float32), "light", 1.0, radiance=(hue * np.float32(strength)))


def opening(radiance: NDArray[np.float32]) -> Material:
    """The outside of a window as a picture of radiance (H, W, 3)."""
    return Material(np.full(3, 0.01, np.float32), "opening", 1.0, radiance=radiance.astype(np.float32))


def warm_white(rng: np.random.Generator, kelvin: tuple[float, float] = (2700, 6500)) -> NDArray[np.float32]:
    """The colour of a lamp of a temperature in this range, by a straight line between its ends' linear colours."""
    share = (float(rng.uniform(*kelvin)) - 2700) / (6500 - 2700)
    warm, cool = np.array([1.0, 0.65, 0.32]), np.array([1.0, 0.97, 0.98])
    color: NDArray[np.float32] = (warm + (cool - warm) * share).astype(np.float32)
    return color

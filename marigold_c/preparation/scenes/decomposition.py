"""A picture out of samples, taken apart into albedo, shading and residual.

Called by rendering.py, whose head says what the parts mean.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..tone import exposure
from .denoising import Guides, despeckled, filtered
from .surfaces import Surfaces

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]
Light = NDArray[np.float64]

_OUTLIER = 8.0  # samples are cut at this many times the picture's 90th percentile: rare ones would show as dots
_BLACK = 1e-4
_BRIGHTNESS = np.array([0.3, 0.59, 0.11])


class Tracer(Protocol):
    """One sample of each pixel at a time; the same seed means the same camera rays."""

    surfaces: Surfaces
    size: tuple[int, int]

    @property
    def has_coats(self) -> bool:
        """Whether the Lambertian scene is another one than the scene itself."""

    def hits(self, seed: int) -> tuple[Numbers, Floats]:
        """Material and colour of the surfaces behind the samples."""

    def radiance(self, seed: int, lambertian: bool) -> Light:
        """What the samples see, in the scene or in the Lambertian one."""


class _Sums:
    """Sums over samples. The Lambertian scene is traced for every other sample only: those on coated surfaces and on
    metal know their diffuse light, the rest has what these have, in proportion to albedo."""

    def __init__(self, size: tuple[int, int]) -> None:
        names = ("rgb", "base", "matte", "matte_light", "coat", "coat_seen", "coat_light", "metal", "metal_light")
        self._colors = {name: np.zeros((*size, 3)) for name in names}
        self._moments = {name: np.zeros(size) for name in ("shading", "shading2", "residual", "residual2", "lit")}
        self._samples, self._complete = 0, 0

    def add(self, surfaces: Surfaces, hits: tuple[Numbers, Floats], true: Light, plain: Light | None) -> None:
        """plain: the radiance of the Lambertian scene, if it was traced."""
        number, color = hits
        reflects, matte = surfaces.reflects[number][..., None], surfaces.is_diffuse[number][..., None]
        metal = surfaces.is_metal[number][..., None]
        coat = reflects & ~matte & ~metal
        base = np.where(reflects, color, 0).astype(np.float64)
        added = {"rgb": true, "base": base, "matte": base * matte, "matte_light": true * matte, "coat": base * coat}
        if plain is not None:
            added |= {"coat_seen": base * coat, "coat_light": plain * coat}
            added |= {"metal": base * metal, "metal_light": plain * metal}
            diffuse = true * matte + plain * coat
            lit = np.where(reflects, diffuse + plain * metal, 0) @ _BRIGHTNESS
            self._add_moments("shading", lit / np.maximum(base @ _BRIGHTNESS, 0.01))
            self._add_moments("residual", (true - diffuse) @ _BRIGHTNESS)
            self._moments["lit"] += reflects[..., 0]
            self._complete += 1
        for name, values in added.items():
            self._colors[name] += values
        self._samples += 1

    def _add_moments(self, name: str, values: Light) -> None:
        self._moments[name] += values
        self._moments[f"{name}2"] += values**2

    def variance(self, name: str) -> Light:
        """Of the mean of all samples' "shading" or "residual"."""
        count = np.maximum(self._moments["lit"] if name == "shading" else float(self._complete), 2)
        spread = np.maximum(self._moments[f"{name}2"] / count - (self._moments[name] / count) ** 2, 0)
        return np.asarray(spread / (count - 1), np.float64)

    def means(self) -> dict[str, Light]:
        """base_color, albedo, shading, residual. Shading is the mean light on reflecting surfaces, weighted by what
        they reflect; that on metal where there is nothing else."""
        total = self._colors
        albedo = total["matte"] + total["coat"]
        unseen = np.divide(total["coat"], total["coat_seen"], out=np.zeros_like(albedo), where=total["coat_seen"] > 0)
        # Noise may make the diffuse part exceed the whole.
        diffuse = np.minimum(total["matte_light"] + total["coat_light"] * unseen, total["rgb"])
        shading, least = np.zeros_like(diffuse), _BLACK * self._samples
        np.divide(total["metal_light"], total["metal"], out=shading, where=total["metal"] > least)
        np.divide(diffuse, albedo, out=shading, where=albedo > least)
        parts = {"base_color": total["base"], "albedo": albedo, "residual": total["rgb"] - diffuse}
        return {**{name: values / self._samples for name, values in parts.items()}, "shading": shading}


def _traced(source: Tracer, seed: int, samples: int) -> _Sums:
    sums, cut = _Sums(source.size), np.inf
    for k in range(samples):
        true = source.radiance(seed + k, lambertian=False)
        if k == 0:
            cut = _OUTLIER * max(float(np.quantile(true @ _BRIGHTNESS, 0.9)), 1e-3)
        true = np.minimum(true, cut)
        plain: Any = true if not source.has_coats else None
        if source.has_coats and k % 2 == 0:
            plain = np.minimum(source.radiance(seed + k, lambertian=True), cut)
        sums.add(source.surfaces, source.hits(seed + k), true, plain)
    return sums


def decomposed(source: Tracer, guides: Guides, seed: int, samples: int) -> dict[str, Floats]:
    """Picture (rgb), base colour, albedo, shading and residual, exposed as the picture. guides: what lies behind the
    centres of pixels, groups being numbers of materials."""
    sums, surfaces, number = _traced(source, seed, samples), source.surfaces, guides.group
    parts = sums.means()
    lit = Guides(guides.point, guides.normal, np.where(surfaces.reflects[number], 1, -1))
    shines = surfaces.reflects[number] & ~surfaces.is_diffuse[number]
    glossy = Guides(guides.point, guides.normal, np.where(shines, number, -1))
    parts["shading"] = filtered(despeckled(parts["shading"], lit.group), sums.variance("shading"), lit, 4)
    parts["residual"] = filtered(despeckled(parts["residual"], glossy.group), sums.variance("residual"), glossy, 3)
    scale = exposure(parts["albedo"] * parts["shading"] + parts["residual"])
    for name in ("shading", "residual"):
        parts[name] = parts[name] * scale
    exact = {name: values.astype(np.float32) for name, values in parts.items()}
    return {**exact, "rgb": exact["albedo"] * exact["shading"] + exact["residual"]}


def darkness(rgb: Floats) -> str | None:
    """Why a picture is too dark to be of use, or None."""
    shown = np.quantile(rgb @ _BRIGHTNESS, [0.3, 0.6]) ** (1 / 2.2)
    return None if shown[0] >= 0.06 and shown[1] >= 0.12 else f"it is dark: 60% of the picture is below {shown[1]:.2f}"

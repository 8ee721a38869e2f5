"""Less noise in rendered shading and reflections, by averages over neighbours that lie on the same smooth surface.

Called by rendering.py. An edge-avoiding a-trous wavelet filter whose tolerance follows from each pixel's own variance
(Dammertz et al. 2010; Schied et al. 2017, without their reuse over time). Colours of surfaces are not touched: what is
filtered is light.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_KERNEL = np.array([1, 4, 6, 4, 1]) / 16
_TOLERANCE = 3.0  # standard deviations
_SHARPNESS = 48  # power of the cosine between normals
_SPECKLE = 1.3
_OFF_PLANE = 0.02  # of the distance from the camera
_BRIGHTNESS = np.array([0.3, 0.59, 0.11])


@dataclass(frozen=True)
class Guides:
    """What is known without noise. point, normal: (H, W, 3); group: (H, W), light is not mixed between groups; negative
    ones are left as they are."""

    point: Floats
    normal: Floats
    group: NDArray[np.int64]


class _Window:
    """An image and its neighbours: at(i, j)[y, x] is image[y + i * step, x + j * step]; `outside` beyond."""

    def __init__(self, image: NDArray[Any], step: int, reach: int, outside: float = 0.0) -> None:
        self._margin, self._step, (self._height, self._width) = step * reach, step, image.shape[:2]
        pad = [(self._margin, self._margin)] * 2 + [(0, 0)] * (image.ndim - 2)
        self._padded = np.pad(image, pad, constant_values=outside)

    def at(self, i: int, j: int) -> NDArray[Any]:
        row, column = self._margin + i * self._step, self._margin + j * self._step
        return self._padded[row : row + self._height, column : column + self._width]


def filtered(light: Floats, variance: Floats, guides: Guides, levels: int) -> Floats:
    """light (H, W, 3) with `variance` (H, W) of its brightness. The filter reaches 2 * (2 ** levels - 1) pixels far."""
    for level in range(levels):
        light, variance = _level(light, variance, guides, 2**level)
    return light


def _level(light: Floats, variance: Floats, guides: Guides, step: int) -> tuple[Floats, Floats]:
    reach = -1 / (np.linalg.norm(guides.point, axis=2) * _OFF_PLANE + 1e-6)
    offset = (guides.point * guides.normal).sum(-1)
    brightness = light @ _BRIGHTNESS
    tolerance = -1 / (_TOLERANCE * np.sqrt(_smoothed(variance)) + 1e-6)
    lights, variances, shades = (_Window(one, step, 2) for one in (light, variance, brightness))
    points, normals = _Window(guides.point, step, 2), _Window(guides.normal, step, 2)
    groups = _Window(guides.group, step, 2, -1)
    centre = _KERNEL[2] ** 2
    total, total_variance, weights = centre * light, centre**2 * variance, np.full(variance.shape, centre)
    for i, j in itertools.product(range(-2, 3), repeat=2):
        if not i and not j:
            continue
        cosine = np.clip((normals.at(i, j) * guides.normal).sum(-1), 0, 1)
        away = np.abs((points.at(i, j) * guides.normal).sum(-1) - offset)
        differs = np.abs(shades.at(i, j) - brightness)
        weight = _KERNEL[i + 2] * _KERNEL[j + 2] * cosine**_SHARPNESS * np.exp(away * reach + differs * tolerance)
        weight *= (groups.at(i, j) == guides.group) & (guides.group >= 0)
        total += weight[..., None] * lights.at(i, j)
        total_variance += weight**2 * variances.at(i, j)
        weights += weight
    return total / weights[..., None], total_variance / weights**2


def despeckled(light: Floats, group: NDArray[np.int64]) -> Floats:
    """Pixels much brighter than all but one of their eight neighbours of the same group, or much darker than all,
    brought to these."""
    brightness = np.maximum(light @ _BRIGHTNESS, 1e-9)
    highest, second, lowest = np.zeros_like(brightness), np.zeros_like(brightness), np.full_like(brightness, np.inf)
    shades, groups = _Window(brightness, 1, 1), _Window(group, 1, 1, -1)
    for i, j in itertools.product((-1, 0, 1), repeat=2):
        alike = (groups.at(i, j) == group) & bool(i or j)
        shade = np.where(alike, shades.at(i, j), 0)
        second = np.maximum(second, np.minimum(highest, shade))
        highest = np.maximum(highest, shade)
        lowest = np.minimum(lowest, np.where(alike, shades.at(i, j), np.inf))
    known = (second > 0) & (group >= 0)
    kept = np.where(known, np.clip(brightness, lowest / _SPECKLE, second * _SPECKLE), brightness)
    return np.asarray(light * (kept / brightness)[..., None], np.float64)


def _smoothed(values: Floats) -> Floats:
    """A variance is itself noisy: the weighted mean over 3 x 3 pixels."""
    window = _Window(values, 1, 1)
    pairs = itertools.product((-1, 0, 1), repeat=2)
    return np.asarray(sum(window.at(i, j) * (2 - abs(i)) * (2 - abs(j)) for i, j in pairs) / 16, np.float64)

"""Smooth random functions: periodic ones for textures and the sky, of two and three coordinates for terrain and rocks.

Called by meshes.py, textures.py, landscapes.py and sky.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _smooth(t: Floats) -> Floats:
    return t * t * t * (t * (t * 6 - 15) + 10)


def tiled(
    rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int], octaves: int = 4, gain: float = 0.5
) -> Floats:
    """Fractal value noise (height, width) that repeats without a seam, from 0 to 1.

    cells: how many cells of the coarsest octave lie along height and width; each octave doubles them.
    """
    total = np.zeros(shape)
    weight = 1.0
    for octave in range(octaves):
        rows, columns = (min(count * 2**octave, size) for count, size in zip(cells, shape, strict=True))
        # Not as products of matrices: for these sizes a BLAS would wake all its threads.
        stretched = _stretched(rng.random((rows, columns)), shape[0])
        total += weight * _stretched(np.ascontiguousarray(stretched.T), shape[1]).T
        weight *= gain
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-9)


def _stretched(lattice: Floats, size: int) -> Floats:
    """(cells, n) as (size, n), smooth between the cells and periodic."""
    position = np.arange(size) * len(lattice) / size
    first = np.floor(position).astype(np.int64)
    fraction = _smooth(position - first)[:, None]
    low, high = lattice[first % len(lattice)], lattice[(first + 1) % len(lattice)]
    return np.asarray(low + (high - low) * fraction, np.float64)


class Noise3:
    """Value noise of three coordinates, from 0 to 1, with cells of size 1; it repeats after 32 cells."""

    _CELLS = 32

    def __init__(self, rng: np.random.Generator) -> None:
        self._lattice = rng.random(self._CELLS**3)

    def at(self, x: Floats, y: Floats, z: Floats) -> Floats:
        first, second, third = (self._cell(one) for one in (x, y, z))
        total = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape))
        for i, weight_x in first:
            for j, weight_y in second:
                row, weight_xy = (i * self._CELLS + j) * self._CELLS, weight_x * weight_y
                for k, weight_z in third:
                    total += weight_xy * weight_z * self._lattice[row + k]
        return total

    def _cell(self, position: Floats) -> tuple[tuple[NDArray[np.int64], Floats], ...]:
        """The two neighbours along one axis with their weights; one, if all positions are whole."""
        first = np.floor(position)
        fraction = _smooth(position - first)
        low = first.astype(np.int64) % self._CELLS
        if not fraction.any():
            return ((low, np.ones_like(fraction)),)
        return (low, 1 - fraction), ((low + 1) % self._CELLS, fraction)

    def fractal(self, points: Floats, octaves: int = 4, gain: float = 0.5) -> Floats:
        """Of points (..., 3): octaves, each half as wide as the last and of `gain` times its height; from 0 to 1."""
        x, y, z = np.moveaxis(points, -1, 0)
        return self._octaves(x, y, z, octaves, gain)

    def flat(self, x: Floats, y: Floats, layer: int, octaves: int = 4, gain: float = 0.5) -> Floats:
        """As fractal, of two coordinates; layers are independent of each other."""
        return self._octaves(x, y, np.full((1,) * x.ndim, float(layer)), octaves, gain)

    def _octaves(self, x: Floats, y: Floats, z: Floats, octaves: int, gain: float) -> Floats:
        total = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape))
        weight, sum_of_weights = 1.0, 0.0
        for octave in range(octaves):
            scale, shift = 2.0**octave, 7.3 * octave
            total += weight * self.at(x * scale + shift, y * scale + shift, z * scale)
            sum_of_weights += weight
            weight *= gain
        return total / sum_of_weights

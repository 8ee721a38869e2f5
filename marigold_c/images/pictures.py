"""Maps as pictures that are made a strip at a time: the colours of a map of 48 megapixels never lie in memory together.

Called by writers.py and target_views.py, which write the strips as PNG (png_writer.py), and by image_processor.py,
which takes them whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import colormaps

LEVELS_16 = 65535


@dataclass(frozen=True)
class Picture:
    """height: in rows, at least 1. rows: of (top, bottom), uint8 or uint16 (bottom - top, W) or (bottom - top, W, 3);
    several threads may ask at once."""

    height: int
    rows: Callable[[int, int], NDArray[Any]]

    def whole(self) -> NDArray[Any]:
        return self.rows(0, self.height)


def _each_strip(values: NDArray[Any], show: Callable[[NDArray[Any]], NDArray[Any]]) -> Picture:
    return Picture(len(values), lambda top, bottom: show(values[top:bottom]))


def picture_of(pixels: NDArray[Any]) -> Picture:
    """Pixels that are there already."""
    return _each_strip(pixels, lambda part: part)


def coloured(
    values: NDArray[Any], color_map: str, before: Callable[[NDArray[Any]], NDArray[Any]] | None = None
) -> Picture:
    """A map (H, W) of values in [0, 1] in the colours of a colour map; `before` changes values first."""
    return _each_strip(values, lambda part: colormaps.apply(before(part) if before else part, color_map))


def as_it_is(values: NDArray[Any], before: Callable[[NDArray[Any]], NDArray[Any]] | None = None) -> Picture:
    """A map (H, W, 3) of colours in [0, 1]; `before` changes values first."""
    return _each_strip(values, lambda part: colormaps.as_bytes(before(part) if before else part))


def normals(values: NDArray[Any], flips: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Picture:
    """Normals (H, W, 3) in [-1, 1]: red to the right, green up, blue towards the viewer; each times its flip."""
    signs = np.array(flips, values.dtype)
    return as_it_is(values, lambda part: (part * signs + 1.0) * 0.5)


def uncertainty(values: NDArray[Any], saturation_percentile: float, name: str = "Uncertainty") -> Picture:
    """Uncertainty (H, W) or (H, W, 3): white at this percentile of the values and above. ValueError: less than 0."""
    if values.min() < 0:
        raise ValueError(f"{name}: unexpected data range, min={values.min()}.")
    saturation = np.percentile(values, saturation_percentile)

    def show(part: NDArray[Any]) -> NDArray[Any]:
        # Where nearly everything is certain, whatever is not is white.
        scaled = part * 255 / saturation if saturation > 0 else np.where(part > 0, 255.0, 0.0)
        shown: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
        return shown

    return _each_strip(values, show)


def cut_to_16_bits(values: NDArray[Any]) -> NDArray[np.uint16]:
    """65535 at 1 and beyond, rounded down; 0 where there is no number."""
    wide = values.astype(np.promote_types(values.dtype, np.float32), copy=False)  # half ends at 65504
    steps: NDArray[np.uint16] = np.fmin(np.fmax(wide * LEVELS_16, 0), LEVELS_16).astype(np.uint16)
    return steps


def depth_16_bits(values: NDArray[Any]) -> Picture:
    """Depth (H, W) in [0, 1] as diffusers exports it: rounded down."""
    return _each_strip(values, cut_to_16_bits)


def rounded_16_bits(values: NDArray[Any], low: float = 0.0) -> Picture:
    """Values from `low` (0 or -1) to 1, (H, W) or (H, W, 3), to the nearest of 65536 steps."""

    def show(part: NDArray[Any]) -> NDArray[Any]:
        part = (part - low) / (1 - low) if low else part
        return np.rint(np.fmin(np.fmax(part, 0), 1) * np.float32(LEVELS_16)).astype(np.uint16)

    return _each_strip(values, show)

"""Colour maps: Spectral and binary built in, every other one from matplotlib when it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..messages import suggestion

# ColorBrewer's eleven-class Spectral, and white to black.
_STOPS = {
    "Spectral": (
        *((158, 1, 66), (213, 62, 79), (244, 109, 67), (253, 174, 97), (254, 224, 139), (255, 255, 191)),
        *((230, 245, 152), (171, 221, 164), (102, 194, 165), (50, 136, 189), (94, 79, 162)),
    ),
    "binary": ((255, 255, 255), (0, 0, 0)),
}


def _has_matplotlib() -> bool:
    return find_spec("matplotlib") is not None


def check_name(name: str) -> None:
    """ValueError if there is no such colour map here."""
    if name == "Spectral":
        return
    if _has_matplotlib():
        import matplotlib

        if name not in matplotlib.colormaps:
            known = sorted(matplotlib.colormaps)
            raise ValueError(f"Unexpected color map {name}{suggestion(name, known)}; available: {', '.join(known)}")
    elif name.removesuffix("_r") not in _STOPS:
        raise ValueError(
            f"Only {', '.join(_STOPS)} (and these with _r) are available without installing matplotlib: "
            "pip install 'marigold-c[colormaps]'"
        )


def _built_in(image: NDArray[Any], name: str) -> NDArray[np.float32]:
    stops = (np.array(_STOPS[name.removesuffix("_r")]) / 255).astype(np.float32)
    if name.endswith("_r"):
        stops = stops[::-1]
    values = image.astype(np.float32)
    if image.dtype == np.uint8:
        values /= np.float32(255)
    # A value that is not a number takes the first colour rather than an index out of range.
    position = np.nan_to_num(np.clip(values, 0, 1)) * np.float32(len(stops) - 1)
    left = position.astype(np.int64)
    weight = (position - left.astype(np.float32))[..., None]
    return (1 - weight) * stops[left] + weight * stops[np.minimum(left + 1, len(stops) - 1)]


def as_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values in [0, 1] as bytes, rounded down; what lies outside takes the nearest end, what is no number 0."""
    steps: NDArray[Any] = np.nan_to_num(np.clip(values * 255, 0, 255))
    return steps.astype(np.uint8)


def apply(image: NDArray[Any], name: str = "Spectral") -> NDArray[np.uint8]:
    """A map of values in [0, 1] (..., H, W) as colours (..., H, W, 3)."""
    check_name(name)
    if name != "Spectral" and _has_matplotlib():
        import matplotlib

        colours: NDArray[np.uint8] = matplotlib.colormaps[name](image, bytes=True)[..., :3]
        return colours
    return as_bytes(_built_in(image, name))

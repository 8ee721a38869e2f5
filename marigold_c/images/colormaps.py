"""Colour maps: Spectral and binary built in, every other one from matplotlib when it is installed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _C
from ..extras import install_command
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
            f"{install_command('colormaps')}"
        )


def _built_in(image: NDArray[Any], name: str) -> NDArray[np.uint8]:
    stops = (np.array(_STOPS[name.removesuffix("_r")]) / 255).astype(np.float32)
    values = image.astype(np.float32, copy=False)
    if image.dtype == np.uint8:
        values = values / np.float32(255)
    colours = _C.colormap_linear(values.reshape(-1), stops[::-1] if name.endswith("_r") else stops)
    return colours.reshape(*image.shape, 3)


@cache
def _table(name: str) -> NDArray[np.uint8]:
    """The colours of one of matplotlib's maps, and behind them those of values below, beyond and of no number."""
    import matplotlib

    colormap = matplotlib.colormaps[name]
    rows = [colormap(np.arange(colormap.N), bytes=True), colormap(np.array([-1, np.inf, np.nan]), bytes=True)]
    table: NDArray[np.uint8] = np.concatenate(rows)[:, :3]
    return np.ascontiguousarray(table)


def _of_matplotlib(image: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if image.dtype == np.float32:
        return _C.colormap_listed(image.reshape(-1), _table(name)).reshape(*image.shape, 3)
    import matplotlib

    colours: NDArray[np.uint8] = matplotlib.colormaps[name](image, bytes=True)[..., :3]
    return colours


def as_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values in [0, 1] as bytes, rounded down; what lies outside takes the nearest end, what is no number 0."""
    steps: NDArray[Any] = np.fmin(np.fmax(values * 255, 0), 255)  # of a number and none, these take the number
    return steps.astype(np.uint8)


def apply(image: NDArray[Any], name: str = "Spectral") -> NDArray[np.uint8]:
    """A map of values in [0, 1] (..., H, W), at least one, as colours (..., H, W, 3)."""
    check_name(name)
    return _of_matplotlib(image, name) if name != "Spectral" and _has_matplotlib() else _built_in(image, name)

"""Scene-referred (linear) colours as display-referred ones in [0, 1], which the networks were trained on.

"percentile": exposed so that the 90th percentile of the luminance appears as 0.8, then clipped and given the sRGB
    curve. The exposure is the one of the Hypersim data set's tone mapping, on which Marigold was trained.
"clip": 1 is white; clipped and given the sRGB curve.
"none": the values are display-referred already and stay as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TONE_MAPS = ("percentile", "clip", "none")
_PERCENTILE, _SHOWN_AS = 90.0, 0.8
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)  # of linear sRGB (ITU-R BT.709)


def srgb_from_linear(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sRGB curve (IEC 61966-2-1) of linear values in [0, 1]."""
    curve = 1.055 * np.power(np.maximum(values, 0.0031308), 1 / 2.4) - 0.055
    return np.where(values <= 0.0031308, values * 12.92, curve).astype(np.float32)


def linear_from_srgb(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of srgb_from_linear."""
    curve = np.power((np.maximum(values, 0.04045) + 0.055) / 1.055, 2.4)
    return np.where(values <= 0.04045, values / 12.92, curve).astype(np.float32)


def _exposure(colours: NDArray[np.float32]) -> float:
    luminance = colours @ _LUMINANCE
    luminance = luminance[np.isfinite(luminance)]
    white = float(np.percentile(luminance, _PERCENTILE)) if luminance.size else 0.0
    if white <= 0:  # less than a tenth of the picture is lit
        white = float(luminance.max(initial=0))
    shown_as = float(linear_from_srgb(np.array(_SHOWN_AS, np.float32)))
    return shown_as / white if white > 0 else 1.0


def tone_map(colours: NDArray[np.float32], method: str) -> NDArray[np.float32]:
    """Linear colours (H, W, 3) by one of TONE_MAPS. Infinite values become white, negative ones black.

    ValueError: an unknown method; values that are not numbers.
    """
    if method not in TONE_MAPS:
        raise ValueError(f"tone_map={method!r}: choose from {', '.join(TONE_MAPS)}")
    if method == "none":
        return colours
    missing = np.count_nonzero(np.isnan(colours))
    if missing:
        raise ValueError(f"{missing} of {colours.size} values are not numbers")
    lit = np.maximum(colours, 0)
    # In double, for exposures of very dark and very bright scenes.
    exposed = lit * np.float64(_exposure(lit) if method == "percentile" else 1.0)
    return srgb_from_linear(np.minimum(exposed, 1).astype(np.float32))

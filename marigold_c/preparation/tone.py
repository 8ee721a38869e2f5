"""Linear colours as 8-bit pictures the way Hypersim's are made: the 90th percentile of brightness appears as 0.8, gamma
2.2.

Called by scenes/rendering.py, scenes/generator.py, hypersim.py and interiorverse.py. This is the tone mapping of the
training data. The pictures that commands read from EXR files are mapped by marigold_c.images.tone_mapping, with the
sRGB curve.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GAMMA = 2.2
_PERCENTILE, _SHOWN_AS, _DARKEST = 90.0, 0.8, 1e-4
_BRIGHTNESS = np.array([0.3, 0.59, 0.11])  # CCIR 601


def exposure(rgb: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> float:
    """The factor of linear rgb (H, W, 3) before gamma. `mask`: the pixels that count; 1 if there is none of them, 0 if
    they are all but black."""
    brightness = np.asarray(rgb, np.float64) @ _BRIGHTNESS
    counted = brightness[mask] if mask is not None else brightness.ravel()
    if counted.size == 0:
        return 1.0
    bright = float(np.percentile(counted, _PERCENTILE))
    return _SHOWN_AS**GAMMA / bright if bright >= _DARKEST else 0.0


def picture(rgb: NDArray[Any], scale: float = 1.0) -> NDArray[np.uint8]:
    """uint8 of the linear colours times `scale`; what is beyond white is cut."""
    shown = np.maximum(np.asarray(rgb, np.float64) * scale, 0) ** (1 / GAMMA)
    return (np.clip(shown, 0, 1) * 255).astype(np.uint8)

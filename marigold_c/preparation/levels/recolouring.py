"""Other paint on the same surfaces: albedo changed from colour to colour, light and shadow kept. Calls nothing.

A network that saw levels alone takes dark for near and bright for far, as their walls are painted and lit. Surfaces
whose colours are redrawn at random (domain randomisation, J. Tobin et al., arXiv 1703.06907) leave it only shapes,
shading and texture to go by, which photographs have, too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
PAINTS = 7  # colours of a picture that are changed, each in its own way
BRIGHTNESS, TINT = 0.9, 0.25  # deviations of the changes, in natural logarithms
SOFTNESS = 0.5  # squared distance between logarithms of colours that still share a change: texture stays texture
DARKEST, BRIGHTEST = 0.02, 0.92


def recoloured(albedo: Array, rng: np.random.Generator) -> Array:
    """albedo: linear (H, W, 3), 0 where there is no surface. The same with other colours in [DARKEST, BRIGHTEST]."""
    there = albedo.max(axis=-1) > 0
    if not there.any():
        return albedo
    logs = np.log(np.clip(albedo[there], DARKEST, 1))
    centres = logs[rng.integers(0, len(logs), PAINTS)]
    changes = rng.normal(0, BRIGHTNESS, (PAINTS, 1)) + rng.normal(0, TINT, (PAINTS, 3))
    distances = np.stack([((logs - centre) ** 2).sum(axis=-1) for centre in centres], axis=-1)
    weights = np.exp((distances.min(axis=-1, keepdims=True) - distances) / SOFTNESS)
    weights /= weights.sum(axis=-1, keepdims=True)
    result = np.zeros_like(albedo)
    result[there] = np.clip(np.exp(logs + weights @ changes), DARKEST, BRIGHTEST)
    return result

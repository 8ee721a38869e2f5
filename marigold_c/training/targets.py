"""What the network learns to produce: ground truth as images in [-1, 1], and which latent cells count in the loss.

Arrays are channel first, (C, H, W). Called by examples.py. Rules of prs-eth/Marigold (src/util/depth_transform.py,
src/dataset); what it leaves open (values that are no numbers, maps without contrast) is decided here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

LATENT_BLOCK = 8  # pixels of a latent cell along one side
_CUT_OFF_QUANTILE = 0.98


class EmptyTarget(ValueError):
    """A sample has nothing to learn from; the message says what, not which sample."""


def depth_image(
    depth: Array,
    valid: Mask,
    quantile: float = 0.02,
    low: float = -1.0,
    high: float = 1.0,
    clip: bool = True,
    far_invalid: bool = False,
) -> Array:
    """Depth (1, H, W) in metres to (3, H, W): its lower and upper quantile over the valid pixels go to low and high.

    Invalid pixels follow the same line and are clipped (0 m, what sensors say for unknown, becomes `low`); those that
    are no number become `high`, the far plane, as do all with `far_invalid`. EmptyTarget: no valid pixel above 0, or
    both quantiles equal.
    """
    finite = np.isfinite(depth)
    counted = valid & finite & (np.where(finite, depth, 0) > 0)
    if not counted.any():
        raise EmptyTarget("no pixel has a valid depth")
    near, far = np.quantile(depth[counted], np.array([quantile, 1 - quantile], np.float32))
    if not far > near:
        raise EmptyTarget(f"the depth is {near:g} everywhere between its quantiles {quantile:g} and {1 - quantile:g}")
    image = (depth - near) / (far - near) * np.float32(high - low) + np.float32(low)
    if clip:
        image = np.clip(image, low, high)
    image = np.where(finite & (valid | (not far_invalid)), image, np.float32(high)).astype(np.float32)
    return np.repeat(image, 3, axis=0)


def normals_image(normals: Array) -> Array:
    """Normals (3, H, W) in [-1, 1] as they are: x right, y up, z towards the camera; zero where there is none."""
    if not np.isfinite(normals).all():
        raise EmptyTarget("the normals hold values that are no numbers")
    if not normals.any():
        raise EmptyTarget("no pixel has a normal")
    return np.clip(normals, -1, 1).astype(np.float32)


def lighting_scale(*maps: Array) -> float:
    """What maps that are known up to one common scale are divided by: the largest of their 98th percentiles."""
    scale = max(float(np.quantile(one, np.float32(_CUT_OFF_QUANTILE))) for one in maps)
    if not scale > 0 or not np.isfinite(scale):
        raise EmptyTarget(f"the largest 98th percentile of shading and residual is {scale:g}")
    return scale


def lighting_targets(*maps: Array) -> list[Array]:
    """Shading and residual, linear and known up to one common scale, to [0, 1]: clipped at and divided by
    lighting_scale."""
    scale = np.float32(lighting_scale(*maps))
    return [np.clip(one, 0, scale) / scale for one in maps]


def intrinsic_image(values: Array, name: str = "the map") -> Array:
    """A target (3, H, W) in [0, 1] to [-1, 1]. name: for the message."""
    if not np.isfinite(values).all():
        raise EmptyTarget(f"{name} holds values that are no numbers")
    return np.clip(values, 0, 1).astype(np.float32) * 2 - 1


def latent_mask(valid: Mask, block: int = LATENT_BLOCK) -> Mask:
    """(..., H, W) of pixels to (..., H // block, W // block): cells whose every pixel is valid.

    Rows and columns beyond the last whole block have no cell.
    """
    *rest, height, width = valid.shape
    rows, columns = height // block, width // block
    whole = valid[..., : rows * block, : columns * block]
    blocks = whole.reshape(*rest, rows, block, columns, block)
    return np.asarray(blocks.all(axis=(-3, -1)))

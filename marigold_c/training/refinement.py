"""What the second UNet of Marigold-HR (arXiv 2505.09358) is trained on: a coarse prediction aligned to the truth, and
where both agree. After BetterDepth (arXiv 2407.17952): where the coarse map is wrong by more than detail, there is
nothing to learn but to distrust it. For Trainer's objective "refine"."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import _C
from .targets import LATENT_BLOCK, latent_mask

THRESHOLD = 0.1  # of depth in [-1, 1]

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


def align_coarse(coarse: Array, truth: Array, mask: Mask) -> Array:
    """scale * coarse + shift, fitted to the truth by least squares over the mask, clipped to [-1, 1].

    coarse, truth: (H, W), the truth in [-1, 1]; mask: bool (H, W). ValueError: no pixel is valid.
    """
    aligned, _, _ = _C.align_least_squares(coarse, truth, mask, "depth", 0)
    return np.clip(aligned, -1, 1)


def agreement_mask(
    coarse: Array, truth: Array, mask: Mask, threshold: float = THRESHOLD, cell: int = LATENT_BLOCK
) -> Mask:
    """Cells of the latent, (H // cell, W // cell), that count: those whose every pixel is valid, and where the norm of
    the difference of coarse and truth over the cell's pixels is cell * threshold at most.

    coarse, truth: (H, W) in [-1, 1]; mask: bool (H, W); cell: pixels of its side, 8 for a VAE of four levels.
    """
    rows, columns = mask.shape[0] // cell, mask.shape[1] // cell

    difference = np.where(mask, coarse.astype(np.float64) - truth, 0.0)[: rows * cell, : columns * cell]
    squares = (difference * difference).reshape(rows, cell, columns, cell).sum(axis=(1, 3))
    agrees: Mask = np.logical_and(latent_mask(mask, cell), squares <= (cell * threshold) ** 2)
    return agrees

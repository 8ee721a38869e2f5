"""Merging many predictions of one scene: functions on arrays. The arithmetic is the
engine's (csrc/ensemble); this file checks shapes as diffusers' static methods of the same names do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _C
from ..images.arrays import as_array
from .arguments import ensembling_options

Array = NDArray[np.float32]


def _check_reduction(reduction: str, known: tuple[str, ...]) -> None:
    if reduction not in known:
        raise ValueError(f"`reduction` must be one of {', '.join(known)}; got {reduction!r}")


def ensemble_depth(
    depth: Any,
    scale_invariant: bool = True,
    shift_invariant: bool = True,
    output_uncertainty: bool = False,
    reduction: str = "median",
    regularizer_strength: float = 0.02,
    max_iter: int = 2,
    tol: float = 1e-3,
    max_res: int | None = 1024,
    solver: str = "closed-form",
) -> tuple[Array, Array | None]:
    """Merges depth maps of one scene.

    Members are aligned first: by a factor and an offset each (affine-invariant depth), by a factor (scale_invariant
    alone), or not at all. Then their median is taken (uncertainty: median absolute deviation) or their mean (standard
    deviation).

    Args:
        depth: (E, 1, H, W), or (E, H, W, 1) as pipelines return them; finite.
        scale_invariant: Members differ by a factor.
        shift_invariant: Members differ by an offset, too; needs scale_invariant.
        output_uncertainty: Return the uncertainty.
        reduction: "median" or "mean".
        regularizer_strength: Of "reference" only: weight of the distance of the result from [0, 1].
        max_iter: Of "reference" only: iterations of BFGS; diffusers has 2, the authors' code 50.
        tol: Of "reference" only: its tolerance; diffusers has 1e-3, the authors' code 1e-6.
        max_res: Align on maps of at most so many pixels a side; None: all pixels.
        solver: "closed-form": weights from the leading eigenvector of the members' correlations. "reference": BFGS on
            the sum of the pairs' root mean square differences, as in diffusers and the authors' code (arXiv
            2312.02145).

    Returns:
        (1, 1, H, W), or (1, H, W, 1), in [0, 1], and its uncertainty of the same shape or None.

    Raises:
        ValueError: Another shape, values that are not finite, arguments that do not fit.
    """
    maps = as_array(depth)
    channels_last = maps.ndim == 4 and maps.shape[1] != 1 and maps.shape[3] == 1
    if channels_last:
        maps = maps.transpose(0, 3, 1, 2)
    if maps.ndim != 4 or maps.shape[1] != 1:
        raise ValueError(f"`depth` has shape {maps.shape}; expected (E, 1, H, W) or (E, H, W, 1)")
    _check_reduction(reduction, ("mean", "median"))
    if shift_invariant and not scale_invariant:
        raise ValueError("`shift_invariant` without `scale_invariant`: members cannot be aligned by a shift alone")
    options = ensembling_options(reduction, solver, regularizer_strength, max_iter, tol, max_res)
    merged, uncertainty = _C.ensemble_depth(
        maps[:, 0],
        output_uncertainty=output_uncertainty,
        scale_invariant=scale_invariant,
        shift_invariant=shift_invariant,
        **options,
    )
    axes = (0, 3) if channels_last else (0, 1)
    return np.expand_dims(merged, axes), None if uncertainty is None else np.expand_dims(uncertainty, axes)


def ensemble_normals(
    normals: Any, output_uncertainty: bool = False, reduction: str = "closest"
) -> tuple[Array, Array | None]:
    """Merges surface normals of one scene.

    Args:
        normals: Unit vectors (E, 3, H, W).
        output_uncertainty: Return the uncertainty.
        reduction: "closest": the member nearest to the direction of the mean vector; "mean": that direction.

    Returns:
        (1, 3, H, W), and its uncertainty (1, 1, H, W), the mean angle to the result divided by pi, or None.

    Raises:
        ValueError: Another shape or reduction.
    """
    maps = as_array(normals)
    if maps.ndim != 4 or maps.shape[1] != 3:
        raise ValueError(f"`normals` has shape {maps.shape}; expected (E, 3, H, W)")
    _check_reduction(reduction, ("closest", "mean"))
    merged, uncertainty = _C.ensemble_normals(maps, output_uncertainty=output_uncertainty, reduction=reduction)
    return merged[None], None if uncertainty is None else uncertainty[None]


def ensemble_intrinsics(
    targets: Any, output_uncertainty: bool = False, reduction: str = "median"
) -> tuple[Array, Array | None]:
    """Merges intrinsic images of one scene, each value by itself.

    Args:
        targets: (E, T, 3, H, W).
        output_uncertainty: Return the uncertainty.
        reduction: "median" (uncertainty: median absolute deviation) or "mean" (standard deviation).

    Returns:
        (T, 3, H, W), and its uncertainty of the same shape or None.

    Raises:
        ValueError: Another shape or reduction.
    """
    maps = as_array(targets)
    if maps.ndim != 5 or maps.shape[2] != 3:
        raise ValueError(f"`targets` has shape {maps.shape}; expected (E, T, 3, H, W)")
    _check_reduction(reduction, ("median", "mean"))
    return _C.ensemble_intrinsics(maps, output_uncertainty=output_uncertainty, reduction=reduction)

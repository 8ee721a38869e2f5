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
    """Depth maps (E, 1, H, W) of one scene to one (1, 1, H, W) in [0, 1], and its uncertainty or None; or (E, H, W, 1),
    as pipelines return them, to (1, H, W, 1).

    Members are first aligned, each by a factor and an offset (affine-invariant depth), by a factor (scale_invariant
    only), or not at all. solver "closed-form" takes the best-conditioned answer, from the correlations of the members;
    "reference" repeats diffusers' (max_iter 2, tol 1e-3) and the paper's code (50, 1e-6): BFGS on the sum of the pairs'
    root mean square differences plus regularizer_strength times the distance of the result from [0, 1], which only that
    solver uses. Both look at maps of at most max_res pixels a side (None: all). Then the median (uncertainty: median
    absolute deviation) or mean (standard deviation) is taken. ValueError for other shapes and for values not finite.
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
    """Unit normals (E, 3, H, W) of one scene to one (1, 3, H, W), and its uncertainty (1, 1, H, W) or None.

    reduction "mean" is the direction of the mean vector, "closest" the member nearest to that; the uncertainty is the
    mean angle to it over pi.
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
    """Intrinsic images (E, T, 3, H, W) of one scene to one (T, 3, H, W), and its uncertainty (T, 3, H, W) or None.

    Each value by itself: median and median absolute deviation, or mean and standard deviation.
    """
    maps = as_array(targets)
    if maps.ndim != 5 or maps.shape[2] != 3:
        raise ValueError(f"`targets` has shape {maps.shape}; expected (E, T, 3, H, W)")
    _check_reduction(reduction, ("median", "mean"))
    return _C.ensemble_intrinsics(maps, output_uncertainty=output_uncertainty, reduction=reduction)

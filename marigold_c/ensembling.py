"""Merging many predictions of one scene, and aligning one to a ground truth: functions on arrays. The arithmetic is the
engine's (csrc/ensemble); this file checks shapes as diffusers' static methods of the same names do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _C
from .arguments import ensembling_options
from .images import is_torch_tensor

Array = NDArray[np.float32]


def _array(value: Any) -> NDArray[Any]:
    if is_torch_tensor(value):
        value = value.detach().cpu().float().numpy()
    return np.asarray(value)


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
    """Depth maps (E, 1, H, W) of one scene to one (1, 1, H, W) in [0, 1], and its uncertainty or None.

    Members are first aligned, each by a factor and an offset (affine-invariant depth), by a factor (scale_invariant
    only), or not at all. solver "closed-form" takes the best-conditioned answer, from the correlations of the members;
    "reference" repeats diffusers' (max_iter 2, tol 1e-3) and the paper's code (50, 1e-6): BFGS on the sum of the pairs'
    root mean square differences plus regularizer_strength times the distance of the result from [0, 1], which only that
    solver uses. Both look at maps of at most max_res pixels a side (None: all). Then the median (uncertainty: median
    absolute deviation) or mean (standard deviation) is taken. ValueError for other shapes and for values not finite.
    """
    maps = _array(depth)
    if maps.ndim != 4 or maps.shape[1] != 1:
        raise ValueError(f"`depth` has shape {maps.shape}; expected (E, 1, H, W)")
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
    return merged[None, None], None if uncertainty is None else uncertainty[None, None]


def ensemble_normals(
    normals: Any, output_uncertainty: bool = False, reduction: str = "closest"
) -> tuple[Array, Array | None]:
    """Unit normals (E, 3, H, W) of one scene to one (1, 3, H, W), and its uncertainty (1, 1, H, W) or None.

    reduction "mean" is the direction of the mean vector, "closest" the member nearest to that; the uncertainty is the
    mean angle to it over pi.
    """
    maps = _array(normals)
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
    maps = _array(targets)
    if maps.ndim != 5 or maps.shape[2] != 3:
        raise ValueError(f"`targets` has shape {maps.shape}; expected (E, T, 3, H, W)")
    _check_reduction(reduction, ("median", "mean"))
    return _C.ensemble_intrinsics(maps, output_uncertainty=output_uncertainty, reduction=reduction)


def _plane(value: Any, name: str) -> NDArray[Any]:
    """(H, W) of an array with axes of size 1 around it."""
    array = _array(value)
    planes = [size for size in array.shape if size != 1]
    if array.ndim < 2 or len(planes) > 2:
        raise ValueError(f"`{name}` must be a map (H, W); got shape {array.shape}")
    return array if array.ndim == 2 else array.reshape(_map_shape(array.shape))


def _map_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(1, H, W, 1) and (1, 1, H, W) are both maps of H x W."""
    return (shape[-3], shape[-2]) if shape[-1] == 1 and shape[-2] != 1 else (shape[-2], shape[-1])


def align_least_squares(
    prediction: Any,
    target: Any,
    mask: ArrayLike | None = None,
    space: str = "depth",
    max_resolution: int | None = None,
) -> tuple[Array, float, float]:
    """(aligned, scale, shift): the depth map nearest to `target` among those that the prediction is affine to.

    Least squares over the valid pixels (mask true, both values finite) of scale*prediction + shift to the target
    (space "depth"), to its inverse ("disparity": the result is 1 / max(fit, 1e-3)) or to its logarithm ("log": the
    result is exp(fit)). max_resolution: fit on maps reduced to that longer side, as evaluations of large
    images do. A constant prediction gets scale 0. ValueError without valid pixels.
    """
    if max_resolution is not None and max_resolution < 1:
        raise ValueError(f"`max_resolution` must be positive, or None for all pixels; got {max_resolution}")
    predicted = _plane(prediction, "prediction")
    valid = None if mask is None else _plane(mask, "mask").astype(bool)
    aligned, scale, shift = _C.align_least_squares(
        predicted, _plane(target, "target"), valid, space, 0 if max_resolution is None else max_resolution
    )
    return aligned.reshape(np.shape(prediction)), scale, shift

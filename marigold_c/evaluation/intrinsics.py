"""Intrinsic images as prs-eth's eval script compares them: colour spaces, and what is known up to a factor. Called by
scoring.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..datasets import Truth
from . import metrics
from .prediction_files import Maps
from .settings import EvaluationSettings

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
_GAMMA = 2.2
_UP_TO_SCALE = ("shading", "residual")
_BRIGHTNESS = (0.3, 0.59, 0.11)
_QUANTILE, _BRIGHT, _DARKEST = 0.9, 0.8, 1e-4  # the quantile that becomes _BRIGHT unless it is below _DARKEST


def _power(values: Array, exponent: float) -> Array:
    """Of values in [0, 1]; a network's rounding below 0 is 0, where torch's power would be no number."""
    return np.power(np.maximum(values, np.float32(0)), np.float32(exponent))


def _in_space(
    name: str, settings: EvaluationSettings, count: int, target: str, prediction: Array, truth: Array
) -> tuple[Array, Array]:
    """Both in the space that they are compared in."""
    if target in settings.linear_targets:
        prediction, truth = _power(prediction, _GAMMA), _power(truth, _GAMMA)
    if "hypersim" in name and count == 3 and target == "albedo":  # stored linear, compared as it is seen
        prediction, truth = _power(prediction, 1 / _GAMMA), _power(truth, 1 / _GAMMA)
    return prediction, truth


def _scaled(prediction: Array, truth: Array, valid: Mask) -> tuple[Array, Array]:
    """Scaled to the truth by least squares; then both so that 9 of 10 pixels of the truth are darker than 0.8."""
    x, y = prediction[valid].astype(np.float64), truth[valid].astype(np.float64)
    norm = float(x @ x)
    factor = float(x @ y) / norm if norm > 0 else 0.0
    bright = truth.astype(np.float64) @ _BRIGHTNESS
    seen = bright[valid[:, :, 0]]
    quantile = float(np.quantile(seen, _QUANTILE)) if seen.size else 0.0
    brightening = 0.0 if quantile < _DARKEST else _BRIGHT / quantile
    return (
        np.clip(prediction * (factor * brightening), 0, 1).astype(np.float32),
        np.clip(truth * brightening, 0, 1).astype(np.float32),
    )


def compared_targets(
    name: str, settings: EvaluationSettings, targets: tuple[str, ...], truth: Truth, maps: Maps
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Mask]]:
    """(predictions, truths, masks (H, W, 3)) by target, ready to be compared."""
    assert isinstance(truth.target, dict)
    predicted, wanted, masks = {}, {}, {}
    for target in targets:
        known = truth.target_masks if settings.use_mask else None
        valid = np.ones(truth.target[target].shape, bool) if known is None else known[target]
        prediction, right = _in_space(name, settings, len(targets), target, maps[target], truth.target[target])
        if target in _UP_TO_SCALE:
            prediction, right = _scaled(prediction, right, valid)
        predicted[target], wanted[target], masks[target] = prediction, right, valid
    return predicted, wanted, masks


def scored_targets(
    name: str, settings: EvaluationSettings, targets: tuple[str, ...], truth: Truth, maps: Maps
) -> dict[str, float]:
    """PSNR, SSIM and LPIPS of each target: {"psnr_albedo": ...}, in the order of the columns."""
    predicted, wanted, masks = compared_targets(name, settings, targets, truth, maps)
    values = {}
    for target in targets:
        mask = masks[target] if settings.use_mask else None
        for metric, value in metrics.intrinsics(predicted[target], wanted[target], mask).items():
            values[f"{metric}_{target}"] = value
    return values

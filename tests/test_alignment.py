"""Fits of a prediction to a ground truth: least squares in three spaces, random sample consensus, medians; what is
valid, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import marigold_c as mc
from marigold_c import _C

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]


def random_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


SPACES: dict[str, tuple[Callable[[Doubles], Doubles], Callable[[Doubles], Doubles]]] = {
    "depth": (lambda t: t, lambda fit: fit),
    "disparity": (lambda t: 1 / t, lambda fit: 1 / np.maximum(fit, 1e-3)),
    "log": (np.log, np.exp),
}


def least_squares(prediction: Array, target: Array, mask: NDArray[np.bool_], space: str) -> tuple[Doubles, Doubles]:
    to_space, from_space = SPACES[space]
    x, y = prediction[mask].astype(np.float64), to_space(target[mask].astype(np.float64))
    scale, shift = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]
    return from_space(scale * prediction.astype(np.float64) + shift), np.array([scale, shift])


def scene(seed: int, h: int = 30, w: int = 41) -> tuple[Array, Array, NDArray[np.bool_]]:
    random = random_of(seed)
    prediction = random.random((h, w)).astype(np.float32) + np.float32(0.01)
    target = (3 * prediction + 1 + random.normal(0, 0.1, (h, w))).astype(np.float32)
    return prediction, target, random.random((h, w)) > 0.3


@pytest.mark.parametrize("space", SPACES)
def test_least_squares(space: str) -> None:
    for seed in range(3):
        prediction, target, mask = scene(seed)
        for valid in (None, mask, mask.astype(np.uint8) * 255):
            used = np.ones_like(mask) if valid is None else mask
            expected, line = least_squares(prediction, target, used, space)
            aligned, scale, shift = mc.align_least_squares(prediction, target, valid, space)
            np.testing.assert_allclose([scale, shift], line, rtol=1e-9)
            np.testing.assert_allclose(aligned, expected, rtol=1e-6)
            assert aligned.dtype == np.float32


def test_least_squares_far_from_zero() -> None:
    """Sums of squares without centring would lose the variation: 1e4 beside 1."""
    prediction, _, mask = scene(1)
    prediction = prediction + np.float32(10000)
    target = (2 * (prediction.astype(np.float64) - 10000) + 5).astype(np.float32)
    _, scale, shift = mc.align_least_squares(prediction, target, mask)
    np.testing.assert_allclose([scale, shift + 20000], [2, 5], rtol=1e-5)


def test_least_squares_reads_valid_pixels_only() -> None:
    prediction, target, _ = scene(2)
    expected, _, _ = mc.align_least_squares(prediction[:, :30], target[:, :30])
    target[:, 30:36] = np.nan
    target[:, 36:] = np.inf
    aligned, _, _ = mc.align_least_squares(prediction, target)
    np.testing.assert_allclose(aligned[:, :30], expected, rtol=1e-6)
    for space in ("disparity", "log"):
        target[:, 30:] = -1
        fewer, _, _ = mc.align_least_squares(prediction[:, :30], target[:, :30], None, space)
        aligned, _, _ = mc.align_least_squares(prediction, target, None, space)
        np.testing.assert_allclose(aligned[:, :30], fewer, rtol=1e-6)


def test_least_squares_at_a_maximal_resolution_samples_columns() -> None:
    for h, w, resolution in ((30, 41, 17), (41, 30, 17), (30, 41, 41), (30, 41, 100)):
        prediction, target, mask = scene(4, h, w)
        factor = min(1.0, resolution / max(h, w))
        columns = np.floor(np.arange(int(w * factor)) * np.float32(1 / factor)).astype(int)
        _, line = least_squares(prediction[:, columns], target[:, columns], mask[:, columns], "depth")
        aligned, scale, shift = mc.align_least_squares(prediction, target, mask, max_resolution=resolution)
        np.testing.assert_allclose([scale, shift], line, rtol=1e-9)
        np.testing.assert_allclose(aligned, prediction * line[0] + line[1], rtol=1e-6)


@pytest.mark.parametrize("shape", [(30, 41), (1, 30, 41), (1, 1, 30, 41), (1, 30, 41, 1)], ids=str)
def test_least_squares_keeps_the_shape(shape: tuple[int, ...]) -> None:
    prediction, target, mask = scene(5)
    expected, _, _ = mc.align_least_squares(prediction, target, mask)
    aligned, _, _ = mc.align_least_squares(prediction.reshape(shape), target, mask.reshape(shape))
    np.testing.assert_array_equal(aligned, expected.reshape(shape))


def test_least_squares_without_variation_gives_the_mean() -> None:
    _, target, mask = scene(6)
    constant = np.full_like(target, 0.7)
    one = np.zeros_like(mask)
    one[3, 4] = True
    for valid, mean in ((mask, target[mask].astype(np.float64).mean()), (one, target[3, 4])):
        aligned, scale, shift = mc.align_least_squares(constant, target, valid)
        assert scale == 0
        np.testing.assert_allclose(shift, mean, rtol=1e-9)
        np.testing.assert_allclose(aligned, mean, rtol=1e-6)
    for space in SPACES:
        aligned, scale, _ = mc.align_least_squares(np.ones((1, 1)), np.full((1, 1), 4.0), None, space)
        assert scale == 0
        np.testing.assert_allclose(aligned, 4.0, rtol=1e-6)


def test_bad_least_squares() -> None:
    prediction, target, mask = scene(7)
    nothing: list[tuple[Any, Any, Any, str]] = [
        (prediction, target, np.zeros_like(mask), "depth"),
        (prediction, target * np.nan, None, "depth"),
        (prediction * np.nan, target, None, "log"),
        (prediction, -target, None, "log"),
        (prediction, np.zeros_like(target), mask, "disparity"),
        (-prediction, target, mask, "disparity"),
    ]
    for x, y, valid, space in nothing:
        with pytest.raises(ValueError, match="no valid pixel"):
            mc.align_least_squares(x, y, valid, space)
    with pytest.raises(ValueError, match="inverse"):
        mc.align_least_squares(prediction, target, mask, "inverse")
    for x, y, valid in (
        (prediction[:5], target, mask),
        (prediction, target[:5], mask),
        (prediction, target, mask[:5]),
        (prediction[0], target[0], None),
        (np.stack([prediction, prediction]), target, None),
        (prediction[:0], target[:0], None),
    ):
        with pytest.raises(ValueError):
            mc.align_least_squares(x, y, valid)
    for resolution in (-1, 0):
        with pytest.raises(ValueError, match="max_resolution"):
            mc.align_least_squares(prediction, target, mask, max_resolution=resolution)


def test_least_squares_of_a_large_map_is_the_same_for_all_threads() -> None:
    prediction, target, mask = scene(9, 400, 500)
    one = _C.align_least_squares(prediction, target, mask, "log", 0, 1)
    for threads in (2, 3):
        other = _C.align_least_squares(prediction, target, mask, "log", 0, threads)
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]
    expected, _ = least_squares(prediction, target, mask, "log")
    np.testing.assert_allclose(one[0], expected, rtol=1e-6)


# ---- random sample consensus ----


def test_ransac_of_clean_samples_is_least_squares() -> None:
    prediction, _, mask = scene(10)
    for space, (_, from_space) in SPACES.items():
        target = from_space(0.4 * prediction.astype(np.float64) + 0.3).astype(np.float32)
        aligned, scale, shift = mc.align_ransac(prediction, target, mask, space)
        np.testing.assert_allclose([scale, shift], [0.4, 0.3], rtol=1e-5)
        np.testing.assert_allclose(aligned, target, rtol=1e-5)


def test_ransac_ignores_gross_errors_that_least_squares_follows() -> None:
    random = random_of(11)
    prediction = random.random((60, 80)).astype(np.float32)
    truth = np.exp(1.5 * prediction.astype(np.float64) - 0.5)
    target = truth * np.exp(random.normal(0, 0.01, truth.shape))
    wrong = random.random(truth.shape) < 0.3
    target[wrong] = 80.0
    aligned, scale, shift = mc.align_ransac(prediction, target.astype(np.float32))
    np.testing.assert_allclose([scale, shift], [1.5, -0.5], atol=0.02)
    fitted, _, _ = mc.align_least_squares(prediction, target.astype(np.float32), None, "log")
    error, of_all = (np.abs(one - truth)[~wrong].mean() for one in (aligned, fitted))
    assert error < 0.1 * of_all


def test_ransac_refines_over_what_agrees() -> None:
    """The definition again: the inliers of the result, refitted, give the result."""
    prediction, target, _ = scene(12)
    y = np.log(target.astype(np.float64))
    tolerance = np.median(np.abs(y - np.median(y)))
    _, scale, shift = mc.align_ransac(prediction, target, seed=3)
    near = np.abs(scale * prediction + shift - y) <= 0.9 * tolerance
    assert near.mean() > 0.5
    x = prediction.astype(np.float64)
    again = np.polyfit(x[near], y[near], 1)
    np.testing.assert_allclose([scale, shift], again, rtol=0.1)
    assert mc.align_ransac(prediction, target, seed=3)[1:] == (scale, shift)


def test_ransac_without_variation_gives_the_mean() -> None:
    for size in ((1, 1), (5, 7)):
        aligned, scale, _ = mc.align_ransac(np.full(size, 0.5, np.float32), np.full(size, 4, np.float32))
        assert scale == 0
        np.testing.assert_allclose(aligned, 4, rtol=1e-6)


# ---- medians ----


def test_median_scaling() -> None:
    for h, w in ((30, 41), (4, 4), (1, 1), (1, 2)):
        prediction, target, mask = scene(13, h, w)
        mask[0, 0] = True
        for valid in (None, mask):
            used = np.ones_like(mask) if valid is None else mask
            ratio = np.median(target[used].astype(np.float64)) / np.median(prediction[used].astype(np.float64))
            aligned, scale, shift = mc.align_median(prediction, target, valid)
            np.testing.assert_allclose(scale, ratio, rtol=1e-12)
            np.testing.assert_allclose(aligned, prediction * ratio, rtol=1e-6)
            assert shift == 0.0


def test_bad_fits() -> None:
    prediction, target, mask = scene(14)
    for align in (mc.align_ransac, mc.align_median):
        with pytest.raises(ValueError, match="no valid pixel"):
            align(prediction, target, np.zeros_like(mask))
        with pytest.raises(ValueError, match="max_resolution"):
            align(prediction, target, mask, max_resolution=0)
        with pytest.raises(ValueError, match="shape"):
            align(prediction[:5], target, mask)
    with pytest.raises(ValueError, match="the median of the prediction over 1230 valid pixels is 0"):
        mc.align_median(np.zeros_like(target), target)
    with pytest.raises(ValueError, match="inverse"):
        mc.align_ransac(prediction, target, mask, "inverse")

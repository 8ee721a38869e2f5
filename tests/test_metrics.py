"""Metrics of depth, normals and intrinsic images against NumPy in float64; degenerate inputs; threads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from marigold_c import _C
from marigold_c.evaluation import metrics

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


def depth_metrics(prediction: Array, target: Array, mask: Mask) -> dict[str, float]:
    """The definitions, in float64; ratios of the deltas in float32, as published."""
    p, t = prediction[mask].astype(np.float64), target[mask].astype(np.float64)
    with np.errstate(all="ignore"):
        logs = np.log(p) - np.log(t)
        ratio = np.maximum(prediction[mask] / target[mask], target[mask] / prediction[mask])
        return {
            "abs_relative_difference": np.mean(np.abs(p - t) / t),
            "squared_relative_difference": np.mean((p - t) ** 2 / t),
            "rmse_linear": np.sqrt(np.mean((p - t) ** 2)),
            "rmse_log": np.sqrt(np.mean(logs**2)),
            "log10": np.mean(np.abs(np.log10(p) - np.log10(t))),
            "delta1_acc": np.mean(ratio < np.float32(1.25)),
            "delta2_acc": np.mean(ratio < np.float32(1.25**2)),
            "delta3_acc": np.mean(ratio < np.float32(1.25**3)),
            "i_rmse": np.sqrt(np.mean((1 / p - 1 / t) ** 2)),
            "silog_rmse": 100 * np.sqrt(np.maximum(np.mean(logs**2) - np.mean(logs) ** 2, 0)),
        }


def depth_case(seed: int, h: int, w: int) -> tuple[Array, Array, Mask]:
    random = np.random.default_rng(seed)
    target = random.uniform(0.5, 10, (h, w)).astype(np.float32)
    prediction = (target * np.exp(random.normal(0, 0.3, (h, w)))).astype(np.float32)
    mask = random.random((h, w)) > 0.4
    mask[0, 0] = True
    return prediction, target, mask


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 47), (480, 640)], ids=str)
def test_depth(size: tuple[int, int]) -> None:
    prediction, target, mask = depth_case(sum(size), *size)
    for valid in (mask, None):
        found = metrics.depth(prediction, target, valid)
        assert tuple(found) == metrics.DEPTH_METRICS
        expected = depth_metrics(prediction, target, np.ones_like(mask) if valid is None else mask)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-6 if size == (1, 1) else 0), name


def test_depth_of_equal_maps_is_perfect() -> None:
    _, target, mask = depth_case(1, 20, 30)
    found = metrics.depth(target, target, mask)
    assert [found[f"delta{k}_acc"] for k in (1, 2, 3)] == [1, 1, 1]
    assert all(value == 0 for name, value in found.items() if not name.startswith("delta"))


def test_depth_reads_valid_pixels_only() -> None:
    prediction, target, mask = depth_case(2, 20, 30)
    expected = metrics.depth(prediction, target, mask)
    for junk in (np.nan, np.inf, 0, -1):
        dirty, dirty_target = prediction.copy(), target.copy()
        dirty[~mask] = junk
        dirty_target[~mask] = junk
        assert metrics.depth(dirty, dirty_target, mask) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -2.0])
@pytest.mark.parametrize("where", ["prediction", "target"])
def test_what_is_no_depth_gives_what_the_formulas_give(bad: float, where: str) -> None:
    prediction, target, mask = depth_case(3, 20, 30)
    (prediction if where == "prediction" else target)[0, 0] = bad
    found, expected = metrics.depth(prediction, target, mask), depth_metrics(prediction, target, mask)
    for name, value in expected.items():
        if math.isnan(value):
            assert math.isnan(found[name]), name
        else:
            assert found[name] == pytest.approx(value, rel=1e-6), name


def test_depth_on_a_threshold_falls_on_the_published_side() -> None:
    """1.25 is not below 1.25, and 0.8 in float32 is just above four fifths."""
    target = np.array([[1.0, 1.0, 4.0]], np.float32)
    prediction = np.array([[1.25, 0.8, 5.0]], np.float32)
    assert metrics.depth(prediction, target)["delta1_acc"] == np.mean(
        [False, target[0, 1] / prediction[0, 1] < 1.25, False]
    )


def angles(prediction: Array, target: Array, mask: Mask) -> Doubles:
    a, b = prediction[mask].astype(np.float64), target[mask].astype(np.float64)
    lengths = [np.maximum(np.linalg.norm(v, axis=1), 1e-8) for v in (a, b)]
    return np.degrees(np.arccos(np.clip((a * b).sum(1) / (lengths[0] * lengths[1]), -1, 1)))


def normals_case(seed: int, h: int, w: int) -> tuple[Array, Array, Mask]:
    random = np.random.default_rng(seed)
    target = random.normal(size=(h, w, 3))
    target /= np.linalg.norm(target, axis=2, keepdims=True)
    prediction = target + random.normal(0, 0.3, (h, w, 3))
    mask = random.random((h, w)) > 0.3
    mask[0, 0] = True
    return prediction.astype(np.float32), target.astype(np.float32), mask


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (31, 45), (300, 400)], ids=str)
def test_normals(size: tuple[int, int]) -> None:
    prediction, target, mask = normals_case(sum(size), *size)
    errors = angles(prediction, target, mask)
    np.testing.assert_allclose(metrics.angular_errors(prediction, target, mask), errors, rtol=1e-6, atol=1e-5)
    found = metrics.normals(prediction, target, mask)
    assert tuple(found) == metrics.NORMALS_METRICS
    assert found["mean_angular_error"] == pytest.approx(errors.mean(), rel=1e-6)
    assert found["median_angular_error"] == pytest.approx(np.median(errors), rel=1e-6)
    assert found["rmse_angular_error"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-6)
    for name, bound in (("5", 5), ("7_5", 7.5), ("11_25", 11.25), ("22_5", 22.5), ("30", 30)):
        assert found[f"sub{name}_error"] == pytest.approx(100 * np.mean(errors < bound), rel=1e-6)


def test_normals_of_no_length() -> None:
    prediction, target, _ = normals_case(5, 4, 5)
    target[0] = 0
    prediction[1] = 0
    errors = metrics.angular_errors(prediction, target)
    assert errors.size == 15
    np.testing.assert_allclose(errors[:5], 90, rtol=1e-6)
    with pytest.raises(ValueError, match="no valid pixel"):
        metrics.normals(prediction, np.zeros_like(target))


def test_opposite_and_equal_normals() -> None:
    _, target, _ = normals_case(6, 9, 9)
    assert metrics.normals(-target, target)["mean_angular_error"] == pytest.approx(180, abs=0.01)
    assert metrics.normals(3 * target, target)["mean_angular_error"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("exact", [10**9, 1000])
def test_pooled_normals(exact: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pixels of several images as one, however they are merged; the median to a bin where there are many."""
    monkeypatch.setattr(metrics.NormalsPool, "EXACT", exact)
    cases = [normals_case(seed, 20 + seed, 31) for seed in range(6)]
    errors = np.concatenate([angles(*case) for case in cases])
    whole, left, right = metrics.NormalsPool(), metrics.NormalsPool(), metrics.NormalsPool()
    for index, case in enumerate(cases):
        whole.add(*case)
        (left if index < 2 else right).add(*case)
    left.merge(right)
    for pool in (whole, left):
        found = pool.result()
        assert pool.pixels == errors.size
        assert found["mean_angular_error"] == pytest.approx(errors.mean(), rel=1e-6)
        assert found["rmse_angular_error"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-6)
        tolerance = 1e-6 if exact > errors.size else 2**-12
        assert found["median_angular_error"] == pytest.approx(np.median(errors), rel=tolerance)
        assert found["sub11_25_error"] == pytest.approx(100 * np.mean(errors < 11.25), rel=1e-6)
    assert left.result()["sub30_error"] == whole.result()["sub30_error"]
    with pytest.raises(ValueError, match="no valid pixel"):
        metrics.NormalsPool().result()


def ssim(x: Doubles, y: Doubles) -> float:
    """Means under a Gaussian window of 11 x 11 around each pixel of the reflected image, by the definition."""
    line = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2

    def mean(z: Doubles) -> Doubles:
        padded = np.pad(z, ((5, 5), (5, 5), (0, 0)), mode="reflect")
        views = np.lib.stride_tricks.sliding_window_view(padded, (11, 11), axis=(0, 1))
        return np.einsum("hwcij,ij->hwc", views, window)

    mx, my = mean(x), mean(y)
    vx, vy, xy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float(np.mean((2 * mx * my + c1) * (2 * xy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def images(seed: int, h: int, w: int) -> tuple[Array, Array, Mask]:
    random = np.random.default_rng(seed)
    target = random.random((h, w, 3))
    target = (target + np.roll(target, 1, 0) + np.roll(target, 1, 1)) / 3
    prediction = np.clip(target + random.normal(0, 0.1, target.shape), 0, 1)
    return prediction.astype(np.float32), target.astype(np.float32), random.random(target.shape) > 0.2


@pytest.fixture
def without_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_lpips", lambda: None)


@pytest.mark.usefixtures("without_lpips")
@pytest.mark.parametrize("size", [(6, 6), (7, 40), (37, 29), (60, 81)], ids=str)
def test_images(size: tuple[int, int]) -> None:
    prediction, target, mask = images(sum(size), *size)
    x, y = prediction.astype(np.float64), target.astype(np.float64)
    found = metrics.intrinsics(prediction, target)
    assert tuple(found) == metrics.INTRINSICS_METRICS
    assert found["psnr"] == pytest.approx(-10 * np.log10(np.mean((x - y) ** 2)), rel=1e-9)
    assert found["ssim"] == pytest.approx(ssim(x, y), rel=1e-9)
    masked = metrics.intrinsics(prediction, target, mask)
    assert masked["psnr"] == pytest.approx(-10 * np.log10(np.mean((x - y)[mask] ** 2)), rel=1e-9)
    assert masked["ssim"] == pytest.approx(ssim(np.where(mask, x, 0), np.where(mask, y, 0)), rel=1e-9)
    plane = mask.all(axis=2)
    assert metrics.intrinsics(prediction, target, plane) == pytest.approx(
        metrics.intrinsics(prediction, target, np.repeat(plane[:, :, None], 3, 2)), nan_ok=True
    )


@pytest.mark.usefixtures("without_lpips")
def test_images_at_the_edges() -> None:
    prediction, target, mask = images(3, 20, 24)
    equal = metrics.intrinsics(target, target)
    assert equal["psnr"] == math.inf
    assert equal["ssim"] == pytest.approx(1)
    assert math.isnan(metrics.intrinsics(prediction, target, np.zeros_like(mask))["psnr"])
    assert math.isnan(metrics.intrinsics(prediction[:5], target[:5])["ssim"])
    assert math.isfinite(metrics.intrinsics(prediction[:5], target[:5])["psnr"])
    flat = np.full_like(target, 0.5)
    assert metrics.intrinsics(flat, flat)["ssim"] == pytest.approx(1)


def test_lpips_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics", None)
    metrics._lpips.cache_clear()
    with pytest.warns(UserWarning, match=r"LPIPS is left out.*marigold-c\[lpips\]"):
        assert metrics._lpips() is None
    metrics._lpips.cache_clear()


def test_threads_do_not_change_a_bit() -> None:
    prediction, target, mask = depth_case(7, 300, 401)
    assert len({tuple(_C.depth_metrics(prediction, target, mask, n).values()) for n in (1, 2, 3)}) == 1
    vectors = normals_case(8, 200, 301)
    one, two = (_C.angular_errors(*vectors, n) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
    pair = images(9, 60, 90)
    assert len({_C.ssim(*pair, n) for n in (1, 2, 3)}) == 1


@pytest.mark.parametrize(
    ("function", "shapes", "message"),
    [
        (metrics.depth, [(3, 4), (3, 5)], "`target` has shape"),
        (metrics.depth, [(3, 4), (3, 4), (4, 3)], "`mask` has shape"),
        (metrics.depth, [(2, 3, 4), (2, 3, 4)], r"must be a map \(H, W\)"),
        (metrics.normals, [(3, 4), (3, 4)], r"must be an image \(H, W, 3\)"),
        (metrics.normals, [(3, 4, 2), (3, 4, 2)], "has 2 channels"),
        (metrics.intrinsics, [(12, 12, 3), (12, 13, 3)], "`target` has shape"),
    ],
)
def test_refused_shapes(function: Any, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(*(np.ones(shape, np.float32) for shape in shapes))


def test_no_valid_pixel() -> None:
    prediction, target, mask = depth_case(4, 6, 7)
    with pytest.raises(ValueError, match="no valid pixel to compare among 42"):
        metrics.depth(prediction, target, np.zeros_like(mask))

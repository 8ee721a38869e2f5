"""Metrics against torchmetrics, and against torch's float32 arithmetic in the order of the published evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_metrics import depth_case, images, normals_case

from marigold_c import align_least_squares
from marigold_c.evaluation import metrics

torch = pytest.importorskip("torch")
torchmetrics = pytest.importorskip("torchmetrics")


def planes(image: np.ndarray[Any, Any]) -> Any:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


@pytest.mark.parametrize("size", [(11, 13), (40, 31), (96, 128)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_psnr_and_ssim(size: tuple[int, int], masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_lpips", lambda: None)
    prediction, target, mask = images(sum(size), *size)
    found = metrics.intrinsics(prediction, target, mask if masked else None)
    x, y = planes(prediction), planes(target)
    valid = planes(mask) if masked else torch.ones_like(x, dtype=torch.bool)
    psnr = torchmetrics.image.PeakSignalNoiseRatio(data_range=1.0)(x[valid], y[valid])
    x[~valid] = y[~valid] = 0
    ssim = torchmetrics.image.StructuralSimilarityIndexMeasure(data_range=1.0)(x, y)
    assert found["psnr"] == pytest.approx(float(psnr), rel=1e-5)
    assert found["ssim"] == pytest.approx(float(ssim), rel=1e-5)


def published_depth(prediction: Any, target: Any, mask: Any) -> dict[str, float]:
    """Sums over the whole map with zeros where it is not valid, divided by the number of valid pixels; float32."""
    count = mask.sum()

    def mean(values: Any) -> Any:
        return torch.where(mask, values, torch.zeros_like(values)).sum() / count

    logs = torch.log(prediction) - torch.log(target)
    ratio = torch.maximum(prediction / target, target / prediction)
    return {
        "abs_relative_difference": mean((prediction - target).abs() / target),
        "squared_relative_difference": mean((prediction - target).abs() ** 2 / target),
        "rmse_linear": mean((prediction - target) ** 2).sqrt(),
        "rmse_log": mean(logs**2).sqrt(),
        "log10": (torch.log10(prediction[mask]) - torch.log10(target[mask])).abs().mean(),
        **{f"delta{k}_acc": mean((ratio < 1.25**k).float()) for k in (1, 2, 3)},
        "i_rmse": mean((1 / prediction - 1 / target) ** 2).sqrt(),
        "silog_rmse": (mean(logs**2) - mean(logs) ** 2).sqrt() * 100,
    }


@pytest.mark.parametrize("seed", range(4))
def test_depth(seed: int) -> None:
    case = depth_case(seed, 48, 64)
    expected = published_depth(*map(torch.from_numpy, case))
    for name, value in metrics.depth(*case).items():
        assert value == pytest.approx(float(expected[name]), rel=2e-5), name


@pytest.mark.parametrize("resolution", [None, 40])
def test_aligned_depth(resolution: int | None) -> None:
    """Least squares as the published code solves it, on columns that torch's nearest resize picks."""
    prediction, target, mask = depth_case(9, 48, 64)
    x, y, valid = (torch.from_numpy(one.astype(np.float32))[None] for one in (prediction, target, mask))
    if resolution:
        resize = torch.nn.Upsample(scale_factor=resolution / 64, mode="nearest")
        x, y, valid = resize(x), resize(y), resize(valid)
    x, y = (one[valid.bool()].numpy().astype(np.float64) for one in (x, y))
    line = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]
    _, scale, shift = align_least_squares(prediction, target, mask, max_resolution=resolution)
    np.testing.assert_allclose([scale, shift], line, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_angles(seed: int) -> None:
    prediction, target, mask = normals_case(seed, 30, 40)
    target[0] = 0
    valid = torch.from_numpy(mask & (np.abs(target).sum(2) > 0))
    x, y = (torch.from_numpy(one)[valid].double() for one in (prediction, target))
    errors = torch.rad2deg(torch.acos(torch.cosine_similarity(x, y, dim=1).clamp(-1, 1))).numpy()
    np.testing.assert_allclose(metrics.angular_errors(prediction, target, mask), errors, rtol=1e-6, atol=1e-4)
    assert metrics.normals(prediction, target, mask)["median_angular_error"] == pytest.approx(
        np.median(errors), rel=1e-6
    )

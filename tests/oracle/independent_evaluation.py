"""A data set evaluated without any of this package: files decoded as the benchmarks describe them, alignment and
metrics in float64 NumPy. (Predictions are made in test_evaluation.py.)

It follows prs-eth/Marigold's src/dataset, script/*/eval.py and src/util/metric.py. Files come from the memory of the
tool that wrote the fixtures, not from its archives.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import correlate1d

Array = NDArray[np.float64]
GAMMA = 2.2
# Smallest and largest depth in metres, and whole units in one.
DEPTH = {
    "nyu_depth": (1e-3, 10, 1000),
    "kitti_depth": (1e-5, 80, 256),
    "eth3d_depth": (1e-5, np.inf, None),
    "scannet_depth": (1e-3, 10, 1000),
    "diode_depth": (0.6, 350, None),
    "hypersim_depth": (1e-5, 65, 1000),
    "vkitti_depth": (1e-5, 80, 100),
}
KITTI_LIKE = ("kitti_depth", "vkitti_depth")


def exr(data: bytes) -> NDArray[np.float32]:
    import OpenEXR

    channels = OpenEXR.File(io.BytesIO(data)).channels()
    if "RGB" in channels:
        return np.asarray(channels["RGB"].pixels)
    return np.stack([channels[name].pixels for name in "RGB"], axis=2)


def kitti_crop(array: NDArray[Any]) -> NDArray[Any]:
    """The lowest 352 rows, the middle 1216 columns."""
    height, width = array.shape[:2]
    top, left = int(height - 352), int((width - 1216) / 2)
    return array[top : top + 352, left : left + 1216]


def image_of(name: str, data: bytes) -> NDArray[np.uint8]:
    if name == "interiorverse_iid":
        return (np.clip(exr(data), 0, 1).astype(np.float64) ** (1 / GAMMA) * 255).astype(np.uint8)
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    if name in KITTI_LIKE:
        return kitti_crop(pixels)
    return pixels[:, 221:-221] if name == "sintel_normals" else pixels


def depth_truth(name: str, files: list[bytes], size: tuple[int, int]) -> tuple[Array, NDArray[np.bool_]]:
    low, high, units = DEPTH[name]
    if name == "eth3d_depth":
        depth = np.frombuffer(files[1], np.float32).copy().reshape(size)
        depth[depth == np.inf] = 0
    elif name == "diode_depth":
        depth = np.load(io.BytesIO(files[1])).squeeze()
        return depth.astype(np.float64), np.load(io.BytesIO(files[2])).astype(bool)
    else:
        depth = (np.asarray(Image.open(io.BytesIO(files[1]))) / units).astype(np.float32)
    if name in KITTI_LIKE:
        depth = kitti_crop(depth)
    valid = (depth > np.float32(low)) & (depth < np.float32(high))
    inside = np.zeros(depth.shape, bool)
    if name == "nyu_depth":
        inside[45:471, 41:601] = True
    elif name in KITTI_LIKE:
        height, width = depth.shape
        rows = slice(int(0.3324324 * height), int(0.91351351 * height))
        inside[rows, int(0.0359477 * width) : int(0.96405229 * width)] = True
    else:
        inside[:] = True
    return depth.astype(np.float64), valid & inside


def depth_scores(
    name: str, prediction: NDArray[np.float32], files: list[bytes], stretch: float = 1
) -> dict[str, float]:
    """Least squares over the valid pixels, the clips, and the ten metrics; thresholds times `stretch`."""
    truth, valid = depth_truth(name, files, prediction.shape)
    x, y = prediction.astype(np.float64)[valid], truth[valid]
    scale, shift = np.linalg.lstsq(np.stack([x, np.ones_like(x)], axis=1), y, rcond=None)[0]
    low, high, _ = DEPTH[name]
    p = np.maximum(np.clip(x * scale + shift, low, high), 1e-6)
    log_error, ratio = np.log(p) - np.log(y), np.maximum(p / y, y / p)
    return {
        "abs_relative_difference": np.mean(np.abs(p - y) / y),
        "squared_relative_difference": np.mean((p - y) ** 2 / y),
        "rmse_linear": np.sqrt(np.mean((p - y) ** 2)),
        "rmse_log": np.sqrt(np.mean(log_error**2)),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(y))),
        "delta1_acc": np.mean(ratio < 1.25 * stretch),
        "delta2_acc": np.mean(ratio < 1.25**2 * stretch),
        "delta3_acc": np.mean(ratio < 1.25**3 * stretch),
        "i_rmse": np.sqrt(np.mean((1 / p - 1 / y) ** 2)),
        "silog_rmse": np.sqrt(np.mean(log_error**2) - np.mean(log_error) ** 2) * 100,
    }


def normals_errors(name: str, prediction: NDArray[np.float32], files: list[bytes]) -> Array:
    """Angles in degrees at the valid pixels; prediction (H, W, 3)."""
    truth = np.load(io.BytesIO(files[1])).astype(np.float32)
    if name == "sintel_normals":
        truth[np.linalg.norm(truth, axis=2) <= 0.1] = (0, 0, 1)
        truth = truth[:, 221:-221]
    valid = np.linalg.norm(truth, axis=2) > 0
    a, b = prediction.astype(np.float64)[valid], truth.astype(np.float64)[valid]
    cosine = (a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-8)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def normals_scores(errors: Array, stretch: float = 1) -> dict[str, float]:
    """Thresholds times `stretch`."""
    limits = {"sub5_error": 5, "sub7_5_error": 7.5, "sub11_25_error": 11.25, "sub22_5_error": 22.5, "sub30_error": 30}
    return {
        "mean_angular_error": errors.mean(),
        "median_angular_error": float(np.median(errors)),
        **{name: 100 * np.mean(errors < limit * stretch) for name, limit in limits.items()},
    }


# ---- intrinsic images ----


def psnr(p: Array, t: Array) -> float:
    """Infinite for equal pictures, as both are where a truth that is known up to a factor is black."""
    error = np.mean((p - t) ** 2)
    return float(-10 * np.log10(error)) if error else np.inf


def ssim(p: Array, t: Array) -> float:
    """Gaussian windows of 11 x 11, sigma 1.5, of the reflected image around each pixel; the mean over all values."""
    at = np.arange(-5, 6)
    kernel = np.exp(-((at / 1.5) ** 2) / 2)
    kernel /= kernel.sum()

    def blurred(x: Array) -> Array:
        return correlate1d(correlate1d(x, kernel, axis=0, mode="mirror"), kernel, axis=1, mode="mirror")

    mean_p, mean_t = blurred(p), blurred(t)
    spread_p = np.maximum(blurred(p * p) - mean_p**2, 0)
    spread_t = np.maximum(blurred(t * t) - mean_t**2, 0)
    together = blurred(p * t) - mean_p * mean_t
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_p * mean_t + c1) * (2 * together + c2)
    return float(np.mean(value / ((mean_p**2 + mean_t**2 + c1) * (spread_p + spread_t + c2))))


def brightened(p: Array, t: Array, valid: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Up to scale: fitted to the truth, then the truth's 90th percentile of brightness to 0.8, clipped."""
    factor = np.linalg.lstsq(p[valid].reshape(-1, 1), t[valid].reshape(-1, 1), rcond=None)[0].item()
    brightness = 0.3 * t[:, :, 0] + 0.59 * t[:, :, 1] + 0.11 * t[:, :, 2]
    current = np.quantile(brightness[valid[:, :, 0]], 0.9)
    scale = 0 if current < 1e-4 else 0.8 / current
    return np.clip(scale * factor * p, 0, 1), np.clip(scale * t, 0, 1)


def lighting_truth(files: list[bytes]) -> tuple[dict[str, Array], dict[str, NDArray[np.bool_]]]:
    albedo, shading, residual = (np.load(io.BytesIO(data)) for data in files[1:4])
    cut = max(np.quantile(shading, 0.98), np.quantile(residual, 0.98))
    truth = {"albedo": albedo, "shading": np.clip(shading, 0, cut) / cut, "residual": np.clip(residual, 0, cut) / cut}
    truth = {name: one.astype(np.float32).astype(np.float64) for name, one in truth.items()}
    masks = {name: np.isfinite(one) for name, one in truth.items()}
    masks["albedo"] &= ~(truth["albedo"] == 0).all(axis=2, keepdims=True)
    return truth, masks


def lighting_scores(maps: dict[str, NDArray[np.float32]], files: list[bytes]) -> dict[str, float]:
    """Masked; albedo as it is seen, shading and residual up to scale."""
    truths, masks = lighting_truth(files)
    scores = {}
    for name in ("albedo", "shading", "residual"):
        p, t, valid = maps[name].astype(np.float64), truths[name], masks[name]
        if name == "albedo":
            p, t = np.maximum(p, 0) ** (1 / GAMMA), t ** (1 / GAMMA)
        else:
            p, t = brightened(p, t, valid)
        scores[f"psnr_{name}"] = psnr(p[valid], t[valid])
        scores[f"ssim_{name}"] = ssim(np.where(valid, p, 0), np.where(valid, t, 0))
    return scores


def appearance_scores(maps: dict[str, NDArray[np.float32]], files: list[bytes]) -> dict[str, float]:
    """Not masked; albedo as it is seen, material linear."""
    scores = {}
    for name, data in zip(("albedo", "material"), files[1:3], strict=True):
        truth = np.clip(exr(data), 0, 1).copy()
        if name == "material":
            truth[:, :, 2] = 0
        p, t = maps[name].astype(np.float64), truth.astype(np.float64) ** (1 / GAMMA)
        if name == "material":
            p, t = p**GAMMA, t**GAMMA
        scores[f"psnr_{name}"], scores[f"ssim_{name}"] = psnr(p, t), ssim(p, t)
    return scores


INTRINSICS: dict[str, Callable[..., dict[str, float]]] = {
    "hypersim_iid": lighting_scores,
    "interiorverse_iid": appearance_scores,
}

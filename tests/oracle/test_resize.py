"""Resizing against torch.nn.functional.interpolate, preprocessing against diffusers' MarigoldImageProcessor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numeric import geometry, preprocess, resize
from numeric_cases import ANTIALIASED, FILTERS, MODES
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

SIZES = [(1, 1), (1, 7), (2, 3), (5, 1), (7, 13), (16, 16), (33, 47), (96, 64), (100, 101), (3, 500)]
IMAGES: dict[str, Any] = {"uint8": 255, "uint16": 65535, "float32": 1}


def interpolate(x: NDArray[np.float32], size: tuple[int, int], mode: str, antialias: bool) -> NDArray[np.float32]:
    tensor = torch.from_numpy(x)
    if size[1] == 1 and antialias:
        # On contiguous planes torch 2.13 returns wrong values for one column (up to 1 off the float64 matrices of
        # tests/test_resize.py); channels-last they are right.
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    result: NDArray[np.float32] = torch.nn.functional.interpolate(tensor, size, mode=mode, antialias=antialias).numpy()
    return result


def tolerance(mode: str, before: tuple[int, int], after: tuple[int, int]) -> float:
    """Places are float32 numbers, of which torch fuses some products and sums; a place that is off by one digit moves
    the result by the slope of the image there, at most 1 (bilinear) or about 2 (bicubic) for pixels in [0, 1]."""
    if mode not in ANTIALIASED:
        return 1e-6  # float32 means of many pixels
    return 1e-6 + 4 * max(*before, *after) * 2.0**-24


@pytest.mark.parametrize(("mode", "antialias"), FILTERS)
@pytest.mark.parametrize("before", SIZES, ids=str)
def test_equals_interpolate(mode: str, antialias: bool, before: tuple[int, int]) -> None:
    x = np.random.default_rng(0).random((2, 2, *before), np.float32)
    for after in [*SIZES, (64, 17), (255, 256)]:
        expected = interpolate(x, after, mode, antialias)
        limit = tolerance(mode, before, after)
        np.testing.assert_allclose(resize(x, after, mode, antialias), expected, rtol=0, atol=limit, err_msg=str(after))


@pytest.mark.parametrize(("mode", "antialias"), FILTERS)
@pytest.mark.parametrize(
    ("before", "after"),
    [((1200, 1600), (576, 768)), ((576, 768), (1200, 1600)), ((3, 10000), (1, 768)), ((1, 768), (3, 10000))],
    ids=str,
)
def test_large(mode: str, antialias: bool, before: tuple[int, int], after: tuple[int, int]) -> None:
    x = np.random.default_rng(1).random((1, 1, *before), np.float32)
    expected = interpolate(x, after, mode, antialias)
    limit = tolerance(mode, before, after)
    np.testing.assert_allclose(resize(x, after, mode, antialias), expected, rtol=0, atol=limit)


def image_of(kind: str, h: int, w: int, channels: int) -> NDArray[Any]:
    values = np.random.default_rng(h * 1000 + w).random((2, h, w, channels))
    return (values * IMAGES[kind]).round().astype(kind) if kind != "float32" else values.astype(np.float32)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resolution", [0, 16, 64, 104])
def test_preprocess(kind: str, channels: int, mode: str, resolution: int) -> None:
    processor = diffusers.pipelines.marigold.MarigoldImageProcessor(vae_scale_factor=8)
    for h, w in [(8, 8), (1, 1), (1, 9), (37, 61), (61, 37), (104, 80), (200, 13), (50, 401)]:
        image = image_of(kind, h, w, channels)
        if resolution and not min(h, w) * resolution // max(h, w):
            with pytest.raises(ValueError, match="extreme aspect ratio"):
                preprocess(image, resolution, mode)
            with pytest.raises(ValueError, match="Extreme aspect ratio"):
                processor.preprocess(image, resolution, mode)
            continue
        # One column of grey meets torch's fault that `interpolate` above tells of; as equal RGB channels it does not.
        same = image.repeat(3, axis=3) if channels == 1 else image
        expected, padding, original = processor.preprocess(same, resolution, mode)
        where = geometry(h, w, resolution)
        assert where[:2] == tuple(original)
        assert (where[4] - where[2], where[5] - where[3]) == padding
        limit = 2 * tolerance(mode, (h, w), (where[2], where[3]))
        np.testing.assert_allclose(preprocess(image, resolution, mode), expected.numpy(), rtol=0, atol=limit)


def test_geometry_everywhere() -> None:
    processor = diffusers.pipelines.marigold.MarigoldImageProcessor
    rng = np.random.default_rng(3)
    for _ in range(200):
        h, w = (int(side) for side in rng.integers(1, 3000, 2))
        resolution = 8 * int(rng.integers(1, 24))
        if not min(h, w) * resolution // max(h, w):
            continue
        shape = processor.resize_to_max_edge(torch.zeros(1, 1, h, w), resolution, "nearest").shape[-2:]
        assert geometry(h, w, resolution)[2:4] == tuple(shape)

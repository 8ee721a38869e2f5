"""Resizing and preprocessing: stored results of torch and diffusers, float64 matrices, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numeric import geometry, preprocess, resize
from numeric_cases import FILTERS, MODES, PREPROCESS_CASES, RESIZE_SIZES, Shape, pixels, planes, references
from numpy.typing import NDArray

REFERENCES = references()


@pytest.mark.parametrize(("mode", "antialias"), FILTERS)
@pytest.mark.parametrize(("before", "after"), RESIZE_SIZES, ids=str)
def test_equals_stored_torch(mode: str, antialias: bool, before: tuple[int, int], after: tuple[int, int]) -> None:
    expected = REFERENCES[f"resize/{mode}/{antialias}/{before}/{after}"]
    # Places are float32 numbers up to 50, rounded in another order: 50 * 2^-24 each way.
    np.testing.assert_allclose(resize(planes(*before), after, mode, antialias), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "shape", "resolution", "mode"), PREPROCESS_CASES, ids=str)
def test_equals_stored_diffusers(kind: str, shape: Shape, resolution: int, mode: str) -> None:
    expected = REFERENCES[f"preprocess/{kind}/{shape}/{resolution}/{mode}"]
    np.testing.assert_allclose(preprocess(pixels(kind, shape), resolution, mode), expected, rtol=0, atol=1e-5)


# ---- float64 ----


def triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


def cubic(x: float, a: float) -> float:
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def interpolation_matrix(before: int, after: int, reach: int, kernel: Callable[[float], float]) -> NDArray[np.float64]:
    """Rows of weights; taps outside go to the border pixel."""
    matrix = np.zeros((after, before))
    for i in range(after):
        place = (i + 0.5) * before / after - 0.5
        for j in range(math.floor(place) - reach + 1, math.floor(place) + reach + 1):
            matrix[i, min(max(j, 0), before - 1)] += kernel(place - j)
    return matrix


def antialiased_matrix(before: int, after: int, reach: int, kernel: Callable[[float], float]) -> NDArray[np.float64]:
    """The kernel widened by the factor of reduction; taps outside are left out and the rest scaled to sum 1."""
    matrix = np.zeros((after, before))
    stretch = max(1.0, before / after)
    for i in range(after):
        place = (i + 0.5) * before / after
        for j in range(max(0, int(place - reach * stretch + 0.5)), min(before, int(place + reach * stretch + 0.5))):
            matrix[i, j] = kernel((j + 0.5 - place) / stretch)
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))


def area_matrix(before: int, after: int) -> NDArray[np.float64]:
    matrix = np.zeros((after, before))
    for i in range(after):
        begin, end = i * before // after, -(-(i + 1) * before // after)
        matrix[i, begin:end] = 1 / (end - begin)
    return matrix


def matrix_of(mode: str, antialias: bool, before: int, after: int) -> NDArray[np.float64]:
    if mode == "area":
        return area_matrix(before, after)
    if mode.startswith("nearest"):
        shift = 0.5 if mode == "nearest-exact" else 0.0
        return np.eye(before)[[min(int((i + shift) * before / after), before - 1) for i in range(after)]]
    make = antialiased_matrix if antialias else interpolation_matrix
    if mode == "bilinear":
        return make(before, after, 1, triangle)
    return make(before, after, 2, lambda x: cubic(x, -0.5 if antialias else -0.75))


@pytest.mark.parametrize(("mode", "antialias"), FILTERS)
def test_equals_float64_matrices(mode: str, antialias: bool) -> None:
    sizes = [(1, 1), (1, 9), (9, 1), (2, 3), (16, 24), (31, 17), (64, 5)]
    for before in sizes:
        x = planes(*before)
        for after in [*sizes, (13, 40), (1, 70), (70, 1)]:
            rows, columns = (matrix_of(mode, antialias, before[axis], after[axis]) for axis in (0, 1))
            expected = rows @ x.astype(np.float64) @ columns.T
            ours = resize(x, after, mode, antialias)
            np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5, err_msg=f"{before} -> {after}")


@pytest.mark.parametrize(("mode", "antialias"), FILTERS)
def test_same_size_changes_nothing(mode: str, antialias: bool) -> None:
    x = planes(17, 23)
    np.testing.assert_array_equal(resize(x, (17, 23), mode, antialias), x)


@pytest.mark.parametrize(("mode", "antialias"), FILTERS)
def test_constant_stays_constant(mode: str, antialias: bool) -> None:
    for before, after in [((1, 10000), (3, 768)), ((5, 7), (1, 1)), ((1, 1), (1, 5000)), ((4001, 3), (7, 2))]:
        ours = resize(np.full((1, 1, *before), 0.25, np.float32), after, mode, antialias)
        np.testing.assert_allclose(ours, 0.25, rtol=1e-5)  # area: a float32 sum of 572 equal terms


# ---- geometry and preprocessing ----


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((480, 640), 768, (576, 768, 576, 768)),
        ((640, 481), 768, (768, 577, 768, 584)),
        ((480, 641), 0, (480, 641, 480, 648)),
        ((1, 1), 8, (8, 8, 8, 8)),
        ((1, 1), 0, (1, 1, 8, 8)),
        ((1, 10000), 10000, (1, 10000, 8, 10000)),
        ((7, 5), 16, (16, 11, 16, 16)),
        ((3, 7), 16, (6, 16, 8, 16)),  # 6.86 and 6.86: floor, not round
        ((7, 3), 16, (16, 6, 16, 8)),
    ],
    ids=str,
)
def test_geometry(size: tuple[int, int], resolution: int, expected: tuple[int, int, int, int]) -> None:
    assert geometry(*size, resolution) == (*size, *expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 10000, 768), r"extreme aspect ratio: an image of 10000 x 1 would be resized to 768 x 0"),
        ((10000, 1, 768), r"extreme aspect ratio: an image of 1 x 10000 would be resized to 0 x 768"),
        ((0, 5, 8), "an image of 5 x 0"),
        ((5, -2, 8), "an image of -2 x 5"),
        ((2**40, 5, 8), "an image of 5 x 1099511627776"),
        ((5, 5, -8), "processing_resolution is -8"),
        ((5, 5, 12), "processing_resolution is 12; it must be a multiple of 8"),
        ((5, 5, 2**60), "processing_resolution is 1152921504606846976"),
        ((5, 5, 8, 0), "multiples of 0"),
    ],
    ids=str,
)
def test_geometry_refuses(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        geometry(*arguments)


def test_preprocess_scales_and_pads() -> None:
    image = np.arange(15, dtype=np.uint8).reshape(1, 3, 5, 1) * 17
    ours = preprocess(image, 0)
    plane = image[0, :, :, 0] / np.float64(255) * 2 - 1
    expected = np.pad(plane, ((0, 5), (0, 3)), mode="edge")
    assert ours.shape == (1, 3, 8, 8)
    for channel in range(3):
        np.testing.assert_allclose(ours[0, channel], expected, atol=1.2e-7)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_full_range(kind: str) -> None:
    top = 1 if kind == "float32" else np.iinfo(kind).max
    image = np.array([0, top], kind).reshape(1, 1, 2, 1)
    np.testing.assert_array_equal(preprocess(image, 0)[0, :, 0, :2], [[-1, 1]] * 3)


@pytest.mark.parametrize(("value", "message"), [(1.5, r"span \[0.5, 1.5\]"), (-0.25, r"span \[-0.25, 0.5\]")])
def test_values_outside_the_range_are_refused(value: float, message: str) -> None:
    image = np.full((2, 4, 4, 3), 0.5, np.float32)
    image[1, 2, 3, 1] = value
    with pytest.raises(ValueError, match=message):
        preprocess(image, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    image = np.full((2, 4, 4, 3), 0.5, np.float32)
    image[1, 2, 3, 1] = value
    with pytest.raises(ValueError, match="must be finite: the value at row 2, column 3 of image 1"):
        preprocess(image, 0)


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_channel_counts_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"the image has {channels} channels"):
        preprocess(np.zeros((1, 4, 4, channels), np.uint8), 0)


def test_geometry_of_another_image_is_refused() -> None:
    with pytest.raises(ValueError, match="1 images of 4 x 4 do not fit a geometry of 9 x 9"):
        preprocess(np.zeros((1, 4, 4, 3), np.uint8), 0, where=geometry(9, 9, 0))


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 1, 0, 4), (2, 2)), ((1, 1, 4, 4), (0, 2)), ((1, 1, 4, 4), (2, -1)), ((0, 1, 4, 4), (2, 2))]
)
def test_sizes_below_one_are_refused(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="sizes must be positive"):
        resize(np.zeros(shape, np.float32), size)


def test_names_of_modes() -> None:
    with pytest.raises(ValueError, match='mode is "lanczos"; allowed: nearest, nearest-exact, bilinear, bicubic, area'):
        resize(planes(2, 2), (3, 3), "lanczos")


@pytest.mark.parametrize("mode", [mode for mode in MODES if not mode.startswith("bi")])
def test_antialias_is_refused_where_it_means_nothing(mode: str) -> None:
    with pytest.raises(ValueError, match=f'antialias is not defined for the mode "{mode}"'):
        resize(planes(2, 2), (3, 3), mode, True)


def test_batches_are_resized_one_by_one() -> None:
    image: NDArray[Any] = pixels("uint8", (3, 12, 9, 3))
    together = preprocess(image, 16)
    for i in range(3):
        np.testing.assert_array_equal(together[i], preprocess(image[i : i + 1], 16)[0])


def test_a_filter_has_no_more_pixels_than_float32_can_place() -> None:
    """Beyond 2^23 pixels the window of a filter may hold none."""
    most = 2**23
    row = np.random.default_rng(0).random((1, 1, 1, most + 1), np.float32)
    with pytest.raises(ValueError, match="with antialias, sides have at most 8388608"):
        resize(row, (1, most), "bilinear", True)
    with pytest.raises(ValueError, match="with antialias, sides have at most 8388608"):
        resize(row[..., :9], (1, most + 1), "bicubic", True)
    # Of the same size, the filters have the weight 1 at their pixel and 0 beside it.
    np.testing.assert_array_equal(resize(row[..., 1:], (1, most), "bilinear", True), row[..., 1:])

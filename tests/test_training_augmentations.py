"""Random changes of images against direct, slow definitions. tests/oracle compares them with torch as well."""

from __future__ import annotations

import colorsys
import random
from typing import Any

import numpy as np
import pytest

from marigold_c.training import augmentations as aug
from marigold_c.training.sections import Augmentation

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def picture() -> Array:
    return np.random.default_rng(4).integers(0, 256, (40, 51, 3)).astype(np.uint8)


def correlate(image: Array, kernel: Array, mode: str) -> Array:
    half = kernel.shape[0] // 2
    padded = np.pad(image.astype(np.float64), ((half, half), (half, half), (0, 0)), mode=mode)  # type: ignore[call-overload]
    out = np.zeros(image.shape)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            window = padded[y : y + 2 * half + 1, x : x + 2 * half + 1]
            out[y, x] = (window * kernel[:, :, None]).sum(axis=(0, 1))
    return out


@pytest.mark.parametrize("sigma", [0.3, 1.7, 4.0])
def test_gaussian_blur(picture: Array, sigma: float) -> None:
    taps = np.array([np.exp(-((i - 16) ** 2) / (2 * sigma**2)) for i in range(33)])
    expected = correlate(picture, np.outer(taps, taps) / taps.sum() ** 2, "reflect")
    found = aug.gaussian_blur(picture, sigma)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.5 + 1e-3


def test_motion_kernels_are_lines() -> None:
    assert aug.motion_kernel(5, 0).tolist() == [[0] * 5, [0] * 5, [np.float32(0.2)] * 5, [0] * 5, [0] * 5]
    np.testing.assert_array_equal(aug.motion_kernel(7, 90), aug.motion_kernel(7, 0).T)
    rising = np.argwhere(aug.motion_kernel(9, 45))  # counter-clockwise: to the right is up
    assert (rising[:, 0] + rising[:, 1] == 8).all() and len(rising) >= 5
    for angle in np.linspace(0, 360, 37):
        kernel = aug.motion_kernel(11, float(angle))
        assert kernel.sum() == pytest.approx(1, abs=1e-6) and kernel[5, 5] > 0
        np.testing.assert_array_equal(kernel > 0, kernel[::-1, ::-1] > 0)


def test_motion_blur(picture: Array) -> None:
    kernel = aug.motion_kernel(7, 30)
    expected = correlate(picture, kernel.astype(np.float64), "constant")
    assert np.abs(aug.motion_blur(picture, kernel) - expected).max() <= 0.5 + 1e-3


def test_brightness_contrast_saturation(picture: Array) -> None:
    image = picture.astype(np.float32) / 255
    exact = image.astype(np.float64)
    grey = exact @ [0.2989, 0.587, 0.114]
    for factor in (0.5, 0.83, 1.5):
        np.testing.assert_allclose(aug.adjust_brightness(image, factor), np.clip(factor * exact, 0, 1), atol=1e-6)
        contrast = np.clip(factor * exact + (1 - factor) * grey.mean(), 0, 1)
        np.testing.assert_allclose(aug.adjust_contrast(image, factor), contrast, atol=1e-6)
        saturation = np.clip(factor * exact + (1 - factor) * grey[:, :, None], 0, 1)
        np.testing.assert_allclose(aug.adjust_saturation(image, factor), saturation, atol=1e-6)


def test_hue(picture: Array) -> None:
    image = picture[:12, :12].astype(np.float32) / 255
    image[0, :3] = [[0.5, 0.5, 0.5], [0, 0, 0], [1, 1, 0]]
    for turns in (-0.2, 0.0, 0.13, 0.5):
        expected = np.empty(image.shape)
        for y in range(12):
            for x in range(12):
                hue, saturation, value = colorsys.rgb_to_hsv(*(float(one) for one in image[y, x]))
                expected[y, x] = colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
        np.testing.assert_allclose(aug.adjust_hue(image, turns), expected, atol=3e-6)


FULL = Augmentation(
    gaussian_blur=0.3, motion_blur=0.3, jitter=0.3, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2
)


def test_changes_happen_as_often_as_asked(picture: Array) -> None:
    small = np.ascontiguousarray(picture[:20, :20])

    def changed(settings: Augmentation, blur: bool) -> float:
        return float(
            np.mean(
                [
                    not np.array_equal(small, aug.change_image(small, settings, blur, random.Random(seed)))
                    for seed in range(300)
                ]
            )
        )

    assert changed(Augmentation(), True) == 0
    assert changed(Augmentation(motion_blur=0.3), False) == 0
    assert abs(changed(Augmentation(motion_blur=0.3), True) - 0.3) < 0.08
    assert abs(changed(FULL, False) - 0.3) < 0.08
    assert abs(changed(FULL, True) - (1 - 0.7**3)) < 0.08


def test_changes_follow_from_the_generator(picture: Array) -> None:
    certain = Augmentation(gaussian_blur=1, motion_blur=1, jitter=1, brightness=0.5, contrast=0.5, hue=0.2)
    before = picture.copy()
    first, second, other = (aug.change_image(picture, certain, True, random.Random(seed)) for seed in ("a", "a", "b"))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)
    np.testing.assert_array_equal(picture, before)

"""Changes of training images as cameras make them, against formulas in float64 and Pillow."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from marigold_c.training.augmentations import change_image, jpeg, vignette, white_balance
from marigold_c.training.sections import Augmentation


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)


def test_white_balance(image):
    wanted = np.clip(np.rint(image.astype(np.float64) * [1.5, 1.0, 0.25]), 0, 255)
    assert np.abs(white_balance(image, (1.5, 1.0, 0.25)) - wanted).max() == 0


def test_vignetting():
    found = vignette(np.full((48, 64, 3), 200, np.uint8), 0.5).astype(np.float64)
    for row, column in ((0, 0), (23, 31), (24, 63), (47, 10)):
        y, x = (row + 0.5) / 24 - 1, (column + 0.5) / 32 - 1
        assert np.abs(found[row, column] - 200 * (1 - 0.5 * (x * x + y * y) / 2)).max() <= 0.51


def test_jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=40)
    np.testing.assert_array_equal(jpeg(image, 40), np.asarray(Image.open(file)))
    errors = [np.abs(jpeg(image, quality).astype(int) - image).mean() for quality in (20, 60, 95)]
    assert errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize("key", ["white_balance", "vignetting", "jpeg"])
def test_each_happens_as_often_as_asked(image, key):
    changed = [
        (change_image(image, Augmentation(**{key: 0.3}), True, random.Random(seed)) != image).any()
        for seed in range(200)
    ]
    assert 35 <= sum(changed) <= 85
    assert not Augmentation(**{key: 0.3}).only_flips


def test_what_is_not_asked_draws_no_numbers(image):
    """So that runs of older configurations go on with the same images."""
    generator, plain = random.Random(3), random.Random(3)
    change_image(image, Augmentation(noise=1.0), True, generator)
    for _ in range(4):
        plain.random()
    plain.uniform(0, 1)
    plain.getrandbits(64)
    assert generator.random() == plain.random()

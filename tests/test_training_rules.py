"""The rules of a run against independent code: rate, seeds, noise, targets, masks, which batch has which samples."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import marigold_c as mc
from marigold_c.training.latents import draw_noise
from marigold_c.training.learning_rate import exponential_ratio
from marigold_c.training.mixed_sampler import MixedSampler
from marigold_c.training.sections import Noise
from marigold_c.training.seeds import BatchSeeds, seed_sequence
from marigold_c.training.targets import (
    EmptyTarget,
    depth_image,
    intrinsic_image,
    latent_mask,
    lighting_targets,
    normals_image,
)
from marigold_c.training.validation import improves, more_is_better


def test_the_learning_rate_rises_falls_and_stays() -> None:
    """0.01 at 25000, halfway in the logarithm halfway after the warm-up; the first iteration changes nothing."""
    ratios = [exponential_ratio(n, 25000, 0.01, 100) for n in (0, 1, 50, 99, 100, 12550, 25000, 40000)]
    np.testing.assert_allclose(ratios, [0, 0.01, 0.5, 0.99, 1, 0.1, 0.01, 0.01], rtol=1e-12)
    steps = np.array([exponential_ratio(n, 25000, 0.01, 100) for n in range(100, 25000)])
    factor = 0.01 ** (1 / 24900)
    np.testing.assert_allclose(steps, factor ** np.arange(24900), rtol=1e-9)
    assert exponential_ratio(0, 10, 0.5, 0) == 1


def test_seeds_are_pythons_and_come_from_the_end() -> None:
    random.seed(2024)
    drawn = [random.randint(-(2**63), 2**64 - 1) for _ in range(50)]
    assert seed_sequence(2024, 50) == drawn
    assert len({one < 0 for one in drawn}) == 2  # torch's generator takes negative seeds, and so does ours
    seeds = BatchSeeds(2024, 50)
    assert [seeds[number] for number in range(110)] == [*drawn[::-1], *drawn[::-1], *drawn[:-11:-1]]
    state = random.getstate()
    seed_sequence(1, 10)
    assert random.getstate() == state  # nobody else's generator is touched


def test_time_steps_and_noise_come_from_one_generator() -> None:
    for seed in (-5, 3, 2**64 - 1):
        generator = mc.Generator(seed)
        steps = generator.randint(1000, (3,))
        white = generator.randn(3, 4, 6, 8)
        found_steps, found = draw_noise(seed, (3, 4, 6, 8), None, 1000)
        np.testing.assert_array_equal(found_steps, steps)
        np.testing.assert_array_equal(found, white)


def test_multi_resolution_noise_is_annealed_for_each_sample() -> None:
    shape = (3, 4, 12, 16)
    steps, found = draw_noise(9, shape, Noise(strength=0.9, annealed=True), 1000)
    generator = mc.Generator(9)
    generator.randint(1000, (3,))
    expected = generator.multi_resolution_noise(shape, (0.9 * steps / 1000).astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    _, constant = draw_noise(9, shape, Noise(strength=0.9, annealed=False), 1000)
    assert np.abs(constant - found).max() > 0.1


def quantile(values: np.ndarray[Any, Any], share: float) -> float:
    """Linear between the two nearest of the sorted values."""
    ordered = np.sort(values.astype(np.float64))
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (position - low) * (ordered[high] - ordered[low]))


def test_depth_goes_from_its_quantiles_to_minus_one_and_one() -> None:
    generator = np.random.default_rng(3)
    depth = generator.uniform(0.5, 40, (1, 37, 53)).astype(np.float32)
    valid = generator.uniform(size=depth.shape) > 0.3
    depth[0, :4] = 0  # "not known"
    counted = depth[valid & (depth > 0)]
    near, far = quantile(counted, 0.02), quantile(counted, 0.98)
    expected = np.clip((depth.astype(np.float64) - near) / (far - near) * 2 - 1, -1, 1)
    image = depth_image(depth, valid)
    assert image.shape == (3, 37, 53) and image.dtype == np.float32
    np.testing.assert_allclose(image, np.repeat(expected, 3, axis=0), atol=2e-6)
    assert (image[:, :4] == -1).all()
    outside = depth_image(depth, valid, quantile=0.1, clip=False)
    assert outside.min() < -1.1 and outside.max() > 1.1
    far_away = depth_image(depth, valid, far_invalid=True)
    assert (far_away[0][~valid[0]] == 1).all() and (far_away[0][valid[0]] == image[0][valid[0]]).all()


def test_depth_that_is_no_number_is_far_and_does_not_count() -> None:
    depth = np.linspace(1, 5, 64, dtype=np.float32).reshape(1, 8, 8)
    expected = depth_image(depth, np.arange(64).reshape(1, 8, 8) < 60)
    depth[0, 7, 4:] = [np.nan, np.inf, -np.inf, np.nan]
    image = depth_image(depth, np.ones_like(depth, bool))
    assert (image[:, 7, 4:] == 1).all()
    np.testing.assert_array_equal(image[:, :7], expected[:, :7])


@pytest.mark.parametrize("depth", [np.zeros((1, 4, 4)), np.full((1, 4, 4), 2.0), np.full((1, 4, 4), np.nan)])
def test_depth_without_anything_to_learn(depth: np.ndarray[Any, Any]) -> None:
    with pytest.raises(EmptyTarget, match=r"no pixel has a valid depth|is 2 everywhere"):
        depth_image(depth.astype(np.float32), np.ones(depth.shape, bool))


def test_lighting_has_one_scale() -> None:
    generator = np.random.default_rng(1)
    shading = generator.gamma(2.0, 3.0, (3, 20, 30)).astype(np.float32)
    residual = generator.gamma(1.0, 0.5, (3, 20, 30)).astype(np.float32)
    scale = max(quantile(shading.ravel(), 0.98), quantile(residual.ravel(), 0.98))
    found = lighting_targets(shading, residual)
    np.testing.assert_allclose(found[0], np.minimum(shading / scale, 1), rtol=1e-5)
    np.testing.assert_allclose(found[1], np.minimum(residual / scale, 1), rtol=1e-5)
    assert found[1].max() < 0.9 < found[0].max() == 1  # both by the larger one
    with pytest.raises(EmptyTarget):
        lighting_targets(np.zeros_like(shading), np.zeros_like(shading))


def test_other_targets() -> None:
    normals = np.zeros((3, 2, 2), np.float32)
    normals[:, 0, 0] = (0.6, 0, 0.8)
    np.testing.assert_array_equal(normals_image(normals), normals)
    with pytest.raises(EmptyTarget, match="no pixel has a normal"):
        normals_image(np.zeros((3, 2, 2), np.float32))
    with pytest.raises(EmptyTarget, match="no numbers"):
        normals_image(np.full((3, 2, 2), np.nan, np.float32))
    np.testing.assert_allclose(intrinsic_image(np.array([0, 0.25, 1.5], np.float32)), [-1, -0.5, 1])
    with pytest.raises(EmptyTarget, match="no numbers"):
        intrinsic_image(np.array([np.inf], np.float32))


def test_cells_of_the_mask_are_valid_as_a_whole() -> None:
    valid = np.random.default_rng(0).uniform(size=(2, 1, 35, 44)) > 0.02
    found = latent_mask(valid)
    assert found.shape == (2, 1, 4, 5) and 0 < found.mean() < 1
    for n in range(2):
        for row in range(4):
            for column in range(5):
                block = valid[n, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                assert found[n, 0, row, column] == (not (~block).any())


def test_batches_have_one_set_each_and_every_sample_once_per_round() -> None:
    sampler = MixedSampler([7, 20], ["a", "b"], 2, [0.25, 0.75], seed=5)
    assert sampler.epoch_batches == 3 + 10
    plans = [plan for plan, _ in zip(sampler.batches(), range(4000), strict=False)]
    assert [plan.number for plan in plans] == list(range(4000))
    share = np.mean([plan.data_set for plan in plans])
    assert abs(share - 0.75) < 0.03
    for data_set, length, rounds in ((0, 7, 3), (1, 20, 10)):
        drawn = [plan.samples for plan in plans if plan.data_set == data_set]
        assert all(len(set(samples)) == 2 and max(samples) < length for samples in drawn)
        for start in range(0, len(drawn) - rounds, rounds):
            used = [index for samples in drawn[start : start + rounds] for index in samples]
            assert len(set(used)) == len(used) == 2 * rounds
    assert len({plan.samples for plan in plans if plan.data_set == 0}) > 20  # the odd one out changes


def test_a_sampler_goes_on_where_another_stopped() -> None:
    def plans(first: int, seed: int = 5) -> list[Any]:
        sampler = MixedSampler([9, 4], ["a", "b"], 2, None, seed)
        return [plan for plan, _ in zip(sampler.batches(first), range(30), strict=False)]

    assert plans(0)[13:] == plans(13)[:17]
    assert plans(0) != plans(0, seed=6)
    first, second = plans(3)[0].sample_generator(0), plans(0)[3].sample_generator(0)
    assert first.random() == second.random() != plans(0)[3].sample_generator(1).random()


def test_a_set_smaller_than_a_batch() -> None:
    with pytest.raises(ValueError, match="data set b has 1 samples; a batch takes 2"):
        MixedSampler([9, 1], ["a", "b"], 2, None, 0)
    MixedSampler([9, 1], ["a", "b"], 2, [1.0, 0.0], 0)  # never drawn


@pytest.mark.parametrize(
    ("metric", "more"),
    [
        ("abs_relative_difference", False),
        ("delta1_acc", True),
        ("mean_angular_error", False),
        ("sub11_25_error", True),
        ("psnr_albedo", True),
        ("lpips_albedo", False),
    ],
)
def test_the_better_of_two_values(metric: str, more: bool) -> None:
    assert more_is_better(metric) == more
    assert improves(metric, 2.0, 1.0) == more and improves(metric, 1.0, 2.0) == (not more)
    assert improves(metric, 1.0, None) and not improves(metric, 1.0, 1.0) and not improves(metric, float("nan"), None)

"""The generator's further draws: shapes, refusals, and what the multi-resolution noise is made of."""

from __future__ import annotations

import numpy as np
import pytest

import marigold_c as mc


def test_shapes_and_ranges() -> None:
    generator = mc.Generator(3)
    assert generator.rand(2, 3).shape == generator.rand((2, 3)).shape == (2, 3)
    assert generator.rand(0).shape == (0,)
    drawn = generator.randint(5, (1000,))
    assert drawn.dtype == np.int64
    assert set(drawn) == set(range(5))
    uniform = generator.rand(10000)
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.02


@pytest.mark.parametrize("high", [0, -1, 2**28 + 1])
def test_refused_ranges(high: int) -> None:
    with pytest.raises(ValueError, match=f"`high` is {high}; expected 1 to"):
        mc.Generator(0).randint(high, (2,))


def test_strength_zero_is_white_noise_of_two_fields() -> None:
    """0 to the power of 0 is 1: the first level, of full size, counts whatever the strength."""
    noise = mc.Generator(5).multi_resolution_noise((1, 2, 6, 8), 0.0)
    generator = mc.Generator(5)
    first = generator.randn(1, 2, 6, 8)
    generator.rand(1)
    both = first + generator.randn(1, 2, 6, 8)
    np.testing.assert_allclose(noise, both / both.std(ddof=1), rtol=0, atol=1e-6)


def test_one_strength_for_all_samples_or_one_each() -> None:
    same = mc.Generator(1).multi_resolution_noise((2, 4, 16, 16), 0.5)
    np.testing.assert_array_equal(same, mc.Generator(1).multi_resolution_noise((2, 4, 16, 16), np.array([0.5, 0.5])))
    assert np.any(same != mc.Generator(1).multi_resolution_noise((2, 4, 16, 16), np.array([0.5, 0.6])))


@pytest.mark.parametrize(
    ("shape", "strength", "message"),
    [
        ((2, 4, 8, 8), [0.1, 0.2, 0.3], "one for each of the 2 samples"),
        ((1, 4, 8, 8), 1.5, "`strength` of sample 0 is 1.5; expected 0 to 1"),
        ((1, 4, 8, 8), float("nan"), "`strength` of sample 0 is nan"),
        ((1, 1, 1, 1), 0.5, "no standard deviation"),
        ((1, 4, 0, 8), 0.5, "must be positive"),
        ((2**40, 2**40, 2**40, 2), [0.5], "one for each of the"),
    ],
)
def test_refused_arguments(shape: tuple[int, int, int, int], strength: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mc.Generator(0).multi_resolution_noise(shape, strength)  # type: ignore[arg-type]

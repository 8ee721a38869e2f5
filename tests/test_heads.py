"""The heads of the tasks and the arithmetic of a scheduler's step, plain passes over arrays, against float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numeric import Floats, head, scheduler_step
from numpy.typing import NDArray

UNIT = 2.0**-24
SIZES = (1, 7, 16, 1000, 4099)  # numbers: less than a vector, and what no vector's length divides


def decoded(pixels: int, channels: int = 3, scale: float = 2.0) -> Floats:
    return np.random.default_rng(pixels).uniform(-scale, scale, (channels, pixels)).astype(np.float32)


@pytest.mark.parametrize("pixels", SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_depth(pixels: int, channels: int) -> None:
    x = decoded(pixels, channels)
    expected = (np.clip(x.astype(np.float64).mean(axis=0), -1, 1) + 1) / 2
    np.testing.assert_allclose(head("depth", x)[0], expected, rtol=0, atol=8 * UNIT)


@pytest.mark.parametrize("pixels", SIZES)
@pytest.mark.parametrize("full_z", [False, True])
@pytest.mark.parametrize("scale", [2.0, 0.3, 1e-7, 0.0])
def test_normals(pixels: int, full_z: bool, scale: float) -> None:
    x = decoded(pixels, scale=scale)
    vectors = np.clip(x.astype(np.float64), -1, 1)
    if not full_z:
        vectors[2] = (vectors[2] + 1) / 2
    expected = vectors / np.maximum(np.linalg.norm(vectors, axis=0), 1e-6)
    # Halving the range of z near -1 cancels: its rounding is that of 1, not of the result.
    length = np.maximum(np.linalg.norm(vectors, axis=0), 1e-6)
    allowed = 4 * UNIT * (1 + (0 if full_z else 1 / length))
    assert np.all(np.abs(head("normals", x, full_z) - expected) <= allowed)


@pytest.mark.parametrize("pixels", SIZES)
def test_intrinsics(pixels: int) -> None:
    x = decoded(pixels)
    expected = (np.clip(x.astype(np.float64), -1, 1) + 1) / 2
    np.testing.assert_allclose(head("intrinsics", x), expected, rtol=0, atol=2 * UNIT)


@pytest.mark.parametrize("task", ["depth", "normals", "intrinsics"])
def test_a_nan_stays_one(task: str) -> None:
    x = decoded(50)
    x[:, 17] = np.nan
    result = head(task, x)
    assert np.isnan(result[:, 17]).all()
    assert np.isfinite(np.delete(result, 17, axis=1)).all()


def arrays(count: int) -> tuple[Floats, ...]:
    rng = np.random.default_rng(count)
    return tuple(rng.standard_normal(count).astype(np.float32) for _ in range(4))


def close(actual: Floats | None, terms: list[NDArray[np.float64]]) -> None:
    assert actual is not None
    magnitude = sum((np.abs(term) for term in terms), np.zeros(1))
    assert np.all(np.abs(actual - sum(terms, np.zeros(1))) <= 3 * UNIT * magnitude)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("by_noise", [0.0, -0.3])
@pytest.mark.parametrize("by_last", [0.0, 0.7])
def test_a_step(count: int, by_noise: float, by_last: float) -> None:
    sample, output, noise, last = arrays(count)
    by_sample, by_output, origin_sample, origin_output = (np.float32(f).item() for f in (1.3, -0.4, 0.9, -1.7))
    by_noise, by_last = np.float32(by_noise).item(), np.float32(by_last).item()
    factors = (by_sample, by_output, by_noise, origin_sample, origin_output, by_last)
    following, estimate = scheduler_step(sample, output, factors, noise if by_noise else None, last)
    x, y, z, e = (part.astype(np.float64) for part in (sample, output, noise, last))
    close(following, [by_sample * x, by_output * y, by_noise * z, by_last * e])
    close(estimate, [origin_sample * x, origin_output * y])
    if not by_last:
        alone, none = scheduler_step(sample, output, factors, noise if by_noise else None)
        assert none is None
        close(alone, [by_sample * x, by_output * y, by_noise * z])


def test_an_estimate_that_is_not_asked_for_may_be_anything() -> None:
    sample, output, _, last = arrays(100)
    last[:] = np.nan
    following, estimate = scheduler_step(sample, output, (0.5, 0.5, 0.0, 1.0, 1.0, 0.0), None, last)
    assert estimate is not None
    assert np.isfinite(following).all()
    assert np.isfinite(estimate).all()

"""The random stream: stored draws of torch, a Mersenne Twister of NumPy's, and the shape of the distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numeric import randn
from numeric_cases import RANDN_CASES, references
from numpy.typing import NDArray

import marigold_c as mc

REFERENCES = references()


@pytest.mark.parametrize(("seed", "counts"), RANDN_CASES, ids=str)
def test_equals_stored_torch_draws(seed: int, counts: list[int]) -> None:
    expected = REFERENCES[f"randn/{seed}/{'-'.join(map(str, counts))}"]
    np.testing.assert_allclose(np.concatenate(randn(seed, counts)), expected, rtol=0, atol=2e-6)


def mersenne_twister(seed: int, count: int) -> NDArray[np.uint64]:
    """NumPy's generator in the state that init_genrand(seed) gives, which is torch's."""
    state = np.empty(624, np.uint32)
    state[0] = seed
    for i in range(1, 624):
        before = int(state[i - 1])
        state[i] = (1812433253 * (before ^ before >> 30) + i) & 0xFFFFFFFF
    bits = np.random.MT19937()
    bits.state = {"bit_generator": "MT19937", "state": {"key": state, "pos": 624}}
    return bits.random_raw(count)


def box_muller(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    uniform = (words & 0xFFFFFF).astype(np.float64) * 2.0**-24
    first, second = uniform.reshape(-1, 2, 8).transpose(1, 0, 2)
    radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_blocks_equal_float64(seed: int) -> None:
    words = mersenne_twister(seed, 1600)
    np.testing.assert_allclose(randn(seed, [1600])[0], box_muller(words), rtol=1e-7, atol=1e-7)


def test_tail_is_drawn_anew() -> None:
    words = mersenne_twister(9, 37 + 16)
    ours = randn(9, [37])[0]
    np.testing.assert_allclose(ours[:21], box_muller(words[:32])[:21], rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(ours[21:], box_muller(words[37:]), rtol=1e-7, atol=1e-7)


def test_short_draws_are_one_stream_across_long_ones() -> None:
    three, block, one = randn(11, [3, 16, 1])
    np.testing.assert_array_equal(np.concatenate([three, one]), randn(11, [4])[0])
    np.testing.assert_allclose(block, box_muller(mersenne_twister(11, 24)[8:]), rtol=1e-7, atol=1e-7)


def test_only_32_bits_of_the_seed_count() -> None:
    np.testing.assert_array_equal(randn(3, [20])[0], randn(2**32 + 3, [20])[0])
    assert not np.array_equal(randn(3, [20])[0], randn(4, [20])[0])


def test_nothing_drawn_changes_nothing() -> None:
    np.testing.assert_array_equal(randn(1, [0, 0, 5])[2], randn(1, [5])[0])


def test_distribution() -> None:
    draw = randn(5, [200_000])[0].astype(np.float64)
    assert np.isfinite(draw).all()
    assert abs(draw.mean()) < 5 / np.sqrt(draw.size)
    assert abs(draw.var() - 1) < 5 * np.sqrt(2 / draw.size)


@pytest.mark.parametrize("bad", [2**70, 2**64, -(2**63) - 1, 1.5, "7"])
def test_a_seed_that_is_refused_changes_nothing(bad: Any) -> None:
    generator, expected = mc.Generator(7), mc.Generator(7)
    with pytest.raises((ValueError, TypeError)):
        generator.manual_seed(bad)
    assert generator.initial_seed() == 7
    assert generator.get_state() == expected.get_state()


@pytest.mark.parametrize("bad", [b"", bytes(5055), bytes(5056)])
def test_a_state_that_is_refused_changes_nothing(bad: bytes) -> None:
    generator, expected = mc.Generator(7), mc.Generator(7)
    with pytest.raises(ValueError, match="state"):
        generator.set_state(bad)
    assert generator.get_state() == expected.get_state()

"""Uniform numbers, time steps and the multi-resolution noise of fine-tuning against torch: the same generator, the same
order of draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import marigold_c as mc

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("seed", [0, 2024, 2**40 + 7])
def test_uniform_numbers_and_integers(seed: int) -> None:
    theirs, ours = torch.Generator().manual_seed(seed), mc.Generator(seed)
    for high in (1, 2, 1000, 2**27 + 3):
        np.testing.assert_array_equal(ours.rand(3, 5), torch.rand((3, 5), generator=theirs).numpy())
        np.testing.assert_array_equal(ours.randint(high, (7,)), torch.randint(0, high, (7,), generator=theirs).numpy())
        np.testing.assert_allclose(ours.randn(9), torch.randn(9, generator=theirs).numpy(), rtol=0, atol=2e-6)
    assert ours.get_state() == bytes(theirs.get_state().numpy())


def multi_resolution_noise(shape: tuple[int, ...], strength: Any, generator: Any) -> Any:
    """The definition in torch: a level is as large as the last one over a random ratio to the power of its number."""
    size = shape[2:]
    total = torch.randn(shape, generator=generator)
    for level in range(10):
        ratio = 2 * torch.rand(1, generator=generator) + 2
        size = [max(1, int(length / ratio**level)) for length in size]
        field = torch.randn((*shape[:2], *size), generator=generator)
        total += (
            torch.nn.functional.interpolate(field, shape[2:], mode="bilinear") * strength[:, None, None, None] ** level
        )
        if 1 in size:
            break
    return total / total.std()


@pytest.mark.parametrize(
    "shape", [(1, 4, 60, 80), (2, 4, 60, 80), (3, 8, 12, 19), (2, 4, 1, 9), (1, 1, 3, 3), (2, 4, 128, 37)]
)
@pytest.mark.parametrize("seed", [0, 7, 2024])
def test_multi_resolution_noise(shape: tuple[int, int, int, int], seed: int) -> None:
    timesteps = np.random.default_rng(seed).integers(0, 1000, shape[0])
    timesteps[0] = (0, 999, 500)[seed % 3]
    theirs, ours = torch.Generator().manual_seed(seed), mc.Generator(seed)
    strength = 0.9 * (torch.from_numpy(timesteps) / 1000)
    expected = multi_resolution_noise(shape, strength, theirs).numpy()
    found = ours.multi_resolution_noise(shape, strength.numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert ours.get_state() == bytes(theirs.get_state().numpy())
    assert abs(found.std(ddof=1) - 1) < 1e-5

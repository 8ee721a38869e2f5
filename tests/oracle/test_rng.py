"""The random stream against torch.randn of the installed torch, over many draws."""

from __future__ import annotations

import numpy as np
import pytest
from numeric import randn

torch = pytest.importorskip("torch")

SEEDS = [0, 1, 2024, 123456789, 2**32 - 1, 2**32, 2**40 + 7, 2**63 - 1]
DRAWS = [
    [1],
    [15],
    [16],
    [17],
    [31],
    [2049],
    [3, 16, 2, 1, 15, 100, 7, 8, 5],  # a number that waits in the double stream, across blocks
    [1000, 1, 33, 1, 2, 10003],
    [4 * 96 * 72] * 2,
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("counts", DRAWS, ids=str)
def test_equals_torch_randn(seed: int, counts: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    for ours, count in zip(randn(seed, counts), counts, strict=True):
        theirs = torch.randn(count, generator=generator).numpy()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)

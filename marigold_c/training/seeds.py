"""The seed of every batch. Called by learner.py and validation.py.

A batch's time steps and noise come from a generator of its own, so that a run that was interrupted can go on at any
batch as if it had not been.
"""

from __future__ import annotations

import random

_LOWEST, _HIGHEST = -0x8000_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF


def seed_sequence(initial_seed: int, length: int) -> list[int]:
    """`length` seeds from one, as prs-eth/Marigold draws them: by Python's generator, over all that torch accepts."""
    generator = random.Random(initial_seed)
    return [generator.randint(_LOWEST, _HIGHEST) for _ in range(length)]


class BatchSeeds:
    """Seeds by the number of the batch, counted from 0. As in prs-eth they are taken from the end of the sequence,
    which begins again when it is used up."""

    def __init__(self, initial_seed: int, length: int) -> None:
        self._sequence = seed_sequence(initial_seed, length)

    def __getitem__(self, batch: int) -> int:
        return self._sequence[-1 - batch % len(self._sequence)]

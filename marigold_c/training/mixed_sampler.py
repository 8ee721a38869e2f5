"""Which samples make up which batch. Called by loader.py.

A batch comes from one data set, since sizes may differ between them; the set is drawn by the probabilities given, its
samples in a random order that begins anew when all were used. Everything follows from the seed and the number of the
batch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchPlan:
    """number: counted from 0 over the whole run. samples: indices into the data set. seed: of the batch's random
    changes; position i of the batch has the generator sample_generator(i)."""

    number: int
    data_set: int
    samples: tuple[int, ...]
    seed: int

    def sample_generator(self, position: int) -> random.Random:
        return random.Random(f"{self.seed}/{self.number}/{position}")


class MixedSampler:
    """Batches without end. An epoch is as many batches as the sets have in all, whatever was drawn."""

    def __init__(
        self, lengths: Sequence[int], names: Sequence[str], batch: int, probabilities: Sequence[float] | None, seed: int
    ) -> None:
        """lengths and names: of the data sets. probabilities None: in proportion to the number of batches.

        ValueError: a set has fewer samples than a batch and could be drawn.
        """
        batches = [length // batch for length in lengths]
        self.epoch_batches = sum(batches)
        self._weights = list(probabilities) if probabilities is not None else [float(count) for count in batches]
        for length, name, weight in zip(lengths, names, self._weights, strict=True):
            if length < batch and (weight > 0 or probabilities is None):
                raise ValueError(f"data set {name} has {length} samples; a batch takes {batch}")
        self._lengths, self._batch, self._seed = list(lengths), batch, seed

    def _shuffled(self, data_set: int, generator: random.Random) -> list[tuple[int, ...]]:
        order = list(range(self._lengths[data_set]))
        generator.shuffle(order)
        whole = len(order) - len(order) % self._batch
        return [tuple(order[start : start + self._batch]) for start in range(0, whole, self._batch)]

    def batches(self, first: int = 0) -> Iterator[BatchPlan]:
        """The batches from number `first` on; those before it are drawn and passed over, no file is read for them."""
        generator = random.Random(self._seed)
        waiting: list[list[tuple[int, ...]]] = [[] for _ in self._lengths]
        choices = range(len(self._lengths))
        number = 0
        while True:
            data_set = generator.choices(choices, self._weights)[0]
            if not waiting[data_set]:
                waiting[data_set] = self._shuffled(data_set, generator)
            samples = waiting[data_set].pop()
            if number >= first:
                yield BatchPlan(number, data_set, samples, self._seed)
            number += 1


class ShareOfSteps:
    """What one of several processes has of the batches of a sampler: of the `accumulation` batches of each step every
    `size`-th, from number `rank` on. accumulation >= size."""

    def __init__(self, sampler: MixedSampler, accumulation: int, rank: int, size: int) -> None:
        self._sampler, self._accumulation, self._rank, self._size = sampler, accumulation, rank, size
        self.batches_of_step = len(range(rank, accumulation, size))

    def batches(self, first: int = 0) -> Iterator[BatchPlan]:
        """Those from number `first` on."""
        for plan in self._sampler.batches(first):
            if plan.number % self._accumulation % self._size == self._rank:
                yield plan

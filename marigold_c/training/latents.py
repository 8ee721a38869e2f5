"""Batches as the engine takes them: latents, masks, time steps and noise. Called by learner.py, on its own thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._C import Generator
from .latent_cache import CachedLatents, LatentCache
from .loader import Batch, Item
from .sections import Noise
from .targets import latent_mask

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LatentBatch:
    """image: (N, C, h, w), scaled. target: (N, C T, h, w), scaled. mask: bool (N, 1, h, w)."""

    image: Array
    target: Array
    mask: NDArray[np.bool_]


class LatentEncoder:
    """Encodes what the cache does not have, and fills it."""

    def __init__(
        self, encode: Callable[[Array], Array], scale: float, caches: Sequence[LatentCache] | None = None
    ) -> None:
        """encode: (N, 3, H, W) in [-1, 1] to the mean of the posterior (N, C, h, w); scale: what latents are multiplied
        by."""
        self._encode, self._scale, self._caches = encode, np.float32(scale), caches

    def images(self, batch: Batch) -> Array:
        """The images' latents alone, of a batch that has pixels: (N, C, h, w), scaled."""
        return self.planes(np.stack([item.example.image for item in batch.items if item.example is not None]))

    def planes(self, pixels: Array) -> Array:
        """(N, 3, H, W) in [-1, 1] to latents (N, C, h, w), scaled."""
        latents: Array = self._encode(pixels) * self._scale
        return latents

    def _encoded(self, items: Sequence[Item]) -> list[CachedLatents]:
        examples = [item.example for item in items if item.example is not None]
        images = self._encode(np.stack([one.image for one in examples])) * self._scale
        maps = np.stack([one.target for one in examples])
        targets = [
            self._encode(np.ascontiguousarray(maps[:, first : first + 3])) * self._scale
            for first in range(0, maps.shape[1], 3)
        ]
        target = np.concatenate(targets, axis=1)
        block = maps.shape[2] // images.shape[2]  # pixels of a latent cell along one side
        masks = [latent_mask(one.mask, block) for one in examples]
        return [
            CachedLatents(images[i], target[i], masks[i], (one.image.shape[1], one.image.shape[2]))
            for i, one in enumerate(examples)
        ]

    def __call__(self, batch: Batch) -> LatentBatch:
        missing = [item for item in batch.items if item.latents is None]
        made = iter(self._encoded(missing) if missing else [])
        parts: list[CachedLatents] = []
        for item in batch.items:
            part = item.latents
            if part is None:
                part = next(made)
                if self._caches is not None:
                    self._caches[batch.plan.data_set].store(item.index, item.flip, part)
            parts.append(part)
        return LatentBatch(
            np.stack([part.image for part in parts]),
            np.stack([part.target for part in parts]),
            np.stack([part.mask for part in parts]),
        )


def draw_noise(
    seed: int, shape: tuple[int, int, int, int], noise: Noise | None, train_steps: int, last_step: float = 0.0
) -> tuple[NDArray[np.int64], Array]:
    """Time steps (N,), uniform below train_steps, then noise of `shape`, from one generator. noise None: white.

    last_step: the part of the samples that get the last time step instead.
    """
    generator = Generator(seed)
    steps = generator.randint(train_steps, (shape[0],))
    if last_step:
        steps = np.where(generator.rand((shape[0],)) < last_step, train_steps - 1, steps)
    if noise is None:
        return steps, generator.randn(shape)
    strength = np.full(shape[0], noise.strength, np.float32)
    if noise.annealed:
        strength = np.float32(noise.strength) * (steps.astype(np.float32) / np.float32(train_steps))
    return steps, generator.multi_resolution_noise(shape, strength)

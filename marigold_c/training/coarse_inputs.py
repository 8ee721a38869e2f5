"""What objective "refine" takes of a batch: crops of images with their coarse predictions, which the base model makes
now, aligned to the truth (refinement.py). Called by learner.py.

All chance follows from the batch's seed: the noise of the predictions, the windows, the noise of training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pipelines.tasks import MarigoldDepthPipeline
from .examples import Example
from .inputs import TRAIN_STEPS, Inputs
from .latents import LatentEncoder, draw_noise
from .loader import Batch
from .refinement import agreement_mask, align_coarse
from .settings import TrainingConfig
from .targets import LATENT_BLOCK, latent_mask

Array = NDArray[np.float32]


class CoarseInputs:
    """A batch as arguments of Trainer.forward_backward."""

    def __init__(self, config: TrainingConfig, base: MarigoldDepthPipeline, encode: LatentEncoder) -> None:
        """base: makes the coarse predictions; it is not trained."""
        self._config, self._base, self._encode = config, base, encode
        self._cell = base.vae_scale_factor
        base.set_progress_bar_config(disable=True)

    def __call__(self, batch: Batch, seed: int) -> Inputs:
        random = np.random.default_rng(seed % 2**64)  # seeds have a sign
        parts = [self._part(item.example, random) for item in batch.items if item.example is not None]
        images, coarse, truths, cells = zip(*parts, strict=True)
        target = self._encode.planes(np.stack([np.repeat(one[None], 3, axis=0) for one in truths]))
        steps, noise = draw_noise(
            seed, target.shape, self._config.latent_noise, TRAIN_STEPS, self._config.trainer.last_step
        )
        return {
            "image_latent": self._encode.planes(np.stack(images)),
            "coarse_latent": self._encode.planes(np.stack([np.repeat(one[None], 3, axis=0) for one in coarse])),
            "target_latent": target,
            "noise": noise,
            "timesteps": steps,
            "mask": np.stack(cells)[:, None],
        }

    def _part(self, example: Example, random: np.random.Generator) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
        """Image (3, h, w), coarse depth and truth (h, w) of a window in [-1, 1], and the cells that count."""
        truth, mask = example.target[0], example.mask[0]
        coarse = align_coarse(self._predicted(example, int(random.integers(2**31))), truth, mask)
        window = self._window(mask, random)
        image, coarse, truth, mask = example.image[:, *window], coarse[window], truth[window], mask[window]
        return image, coarse, truth, self._agreement(coarse, truth, mask)

    def _predicted(self, example: Example, seed: int) -> Array:
        """Depth (H, W) in [-1, 1], predicted at a part of the example's resolution."""
        settings = self._config.trainer.refinement
        image = np.ascontiguousarray((example.image.transpose(1, 2, 0) + 1) / 2)
        out = self._base(
            np.clip(image, 0, 1),
            num_inference_steps=settings.base_steps,
            processing_resolution=coarse_resolution(max(image.shape[:2]), settings.upscale_factor),
            generator=seed,
        )
        return 2 * out.prediction[0, :, :, 0] - 1

    def _window(self, mask: NDArray[np.bool_], random: np.random.Generator) -> tuple[slice, slice]:
        """Of the crop's size, of whole latent cells, about a valid one."""
        crop = self._config.trainer.refinement.crop
        if crop is None:
            return slice(None), slice(None)
        size = self._cell
        rows, columns = np.nonzero(latent_mask(mask, size))
        chosen = random.integers(len(rows))
        begins = []
        for cell, side, length in zip((rows[chosen], columns[chosen]), mask.shape, crop, strict=True):
            cells, within = min(length, side) // size, side // size
            first = int(random.integers(max(0, cell - cells + 1), min(cell, within - cells) + 1))
            begins.append(slice(first * size, (first + cells) * size))
        return begins[0], begins[1]

    def _agreement(self, coarse: Array, truth: Array, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """agreement_mask; of a window that agrees nowhere, the cells that agree best."""
        threshold = self._config.trainer.refinement.agreement
        cells = agreement_mask(coarse, truth, mask, threshold, self._cell)
        while not cells.any() and threshold <= 2:  # the most that values in [-1, 1] differ by
            threshold *= 2
            cells = agreement_mask(coarse, truth, mask, threshold, self._cell)
        return cells


def coarse_resolution(longest: int, factor: float) -> int:
    """The longer side of the base prediction for a refinement whose longer side is `longest`: whole latent cells."""
    return max(LATENT_BLOCK, round(longest / factor / LATENT_BLOCK) * LATENT_BLOCK)


def refined_call(options: dict[str, Any], image: NDArray[Any], config: TrainingConfig) -> dict[str, Any]:
    """Options of a base pipeline's call as those of Marigold-HR, for a refinement of that processing resolution."""
    factor = config.trainer.refinement.upscale_factor
    longest = options["processing_resolution"] or max(image.shape[:2])
    return {
        **options,
        "processing_resolution": coarse_resolution(longest, factor),
        "upscale_factor": factor,
        "boosted_num_inference_steps": options["num_inference_steps"],
        "boosted_ensemble_size": options["ensemble_size"],
    }

"""What the engine takes of a batch, for each objective. Called by learner.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._C import Generator
from .latents import LatentEncoder, draw_noise
from .loader import Batch
from .settings import TrainingConfig

TRAIN_STEPS = 1000  # time steps of the noise schedule

# Named arguments of Trainer.forward_backward.
Inputs = dict[str, Any]


def _latent_inputs(config: TrainingConfig, encode: LatentEncoder, batch: Batch, seed: int) -> Inputs:
    latents = encode(batch)
    steps, noise = draw_noise(seed, latents.target.shape, config.latent_noise, TRAIN_STEPS, config.trainer.last_step)
    return {
        "image_latent": latents.image,
        "target_latent": latents.target,
        "noise": noise,
        "timesteps": steps,
        "mask": latents.mask if config.masked else None,
    }


def _distillation_inputs(config: TrainingConfig, encode: LatentEncoder, batch: Batch, seed: int) -> Inputs:
    """Time steps are the last ones of equal parts of the schedule; the noise is white, as in prs-eth/Marigold."""
    latents = encode(batch)
    parts = config.trainer.ddim_timesteps
    index, noise = draw_noise(seed, latents.target.shape, None, parts)
    return {
        "image_latent": latents.image,
        "target_latent": latents.target,
        "noise": noise,
        "timesteps": (index + 1) * (TRAIN_STEPS // parts) - 1,
        "mask": latents.mask if config.masked else None,
    }


def _pixel_inputs(config: TrainingConfig, encode: LatentEncoder, batch: Batch, seed: int) -> Inputs:
    """Depth has three equal channels where it is encoded, of which one is compared. The noise, if any, is white."""
    examples = [item.example for item in batch.items if item.example is not None]
    targets = np.stack([one.target for one in examples])
    images, noise = encode.images(batch), None
    if config.starts_from_noise:
        samples, channels, height, width = images.shape
        maps = targets.shape[1] // 3
        noise = Generator(seed).randn((samples, maps * channels, height, width))
    return {
        "image_latent": images,
        "noise": noise,
        "pixel_target": targets[:, :1] if config.task == "depth" else targets,
        "pixel_mask": np.stack([one.mask for one in examples]),
    }


_INPUTS: dict[str, Callable[[TrainingConfig, LatentEncoder, Batch, int], Inputs]] = {
    "latent": _latent_inputs,
    "e2e": _pixel_inputs,
    "lcm": _distillation_inputs,
}


def engine_inputs(config: TrainingConfig, encode: LatentEncoder, batch: Batch, seed: int) -> Inputs:
    """seed: the batch's own."""
    return _INPUTS[config.objective](config, encode, batch, seed)

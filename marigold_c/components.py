"""The parts of a pipeline for work stage by stage: VAE and UNet, on NCHW float32 arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _C
from .config import Config


class VAE:
    """The autoencoder: `encode` gives the posterior's mean, unscaled, and `decode` takes unscaled latents."""

    def __init__(self, engine: _C.Pipeline, config: Config) -> None:
        self._engine = engine
        self.config = config

    def encode(self, x: ArrayLike) -> NDArray[np.float32]:
        """(N, 3, H, W) in [-1, 1] to (N, channels, H/8, W/8) for a VAE of four levels."""
        return self._engine.vae_encode(x)

    def decode(self, z: ArrayLike) -> NDArray[np.float32]:
        """(N, channels, h, w) to (N, 3, 8h, 8w) for a VAE of four levels."""
        return self._engine.vae_decode(z)


class UNet:
    """The denoiser: unet(sample, timestep, encoder_hidden_states)."""

    def __init__(self, engine: _C.Pipeline, config: Config) -> None:
        self._engine = engine
        self.config = config

    def __call__(self, sample: ArrayLike, timestep: ArrayLike, encoder_hidden_states: ArrayLike) -> NDArray[np.float32]:
        """(N, in_channels, h, w), one time step for all or N of them, one text for all or N of them."""
        array = np.asarray(sample)
        if array.ndim != 4:
            raise ValueError(f"`sample` has shape {array.shape}; expected (N, C, h, w)")
        steps: NDArray[Any] = np.asarray(timestep, dtype=np.float32)
        if steps.size == 1:
            steps = np.broadcast_to(steps.reshape(1), (array.shape[0],))
        return self._engine.unet(array, steps, encoder_hidden_states)

"""The trainer in C as a run uses it. Called by learner.py and run.py."""

from __future__ import annotations

from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .processes import Processes
from .settings import TrainingConfig
from .trainer import Trainer

Array = NDArray[np.float32]


class Engine(Protocol):
    """mc.Trainer's part that a run needs. Arrays are NCHW; latents are scaled as the UNet takes them."""

    def forward_backward(
        self,
        image_latent: Array,
        target_latent: Array | None = None,
        noise: Array | None = None,
        timesteps: NDArray[np.int64] | None = None,
        mask: NDArray[np.bool_] | None = None,
        weight: float = 1.0,
        *,
        pixel_target: Array | None = None,
        pixel_mask: NDArray[np.bool_] | None = None,
        coarse_latent: Array | None = None,
    ) -> float: ...

    def train_step(
        self,
        image_latent: Array,
        target_latent: Array | None = None,
        noise: Array | None = None,
        timesteps: NDArray[np.int64] | None = None,
        mask: NDArray[np.bool_] | None = None,
        learning_rate: float | None = None,
        *,
        pixel_target: Array | None = None,
        pixel_mask: NDArray[np.bool_] | None = None,
        coarse_latent: Array | None = None,
    ) -> tuple[float, float]:
        """forward_backward and optimizer_step, for engines opened with keep_gradients False."""
        ...

    def reconstruct(self, images: Array, noise: Array | None = None, weight: float = 1.0) -> dict[str, float]: ...

    def summed_over(self, communicator: Processes) -> AbstractContextManager[None]: ...

    def optimizer_step(self, learning_rate: float | None = None) -> float:
        """Returns the norm of all gradients. NotFiniteError, and nothing moves, if it is no number."""
        ...

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Writes scheduler/ and what was trained: unet/, boosting_unet/ or vae/."""
        ...

    def save_state(self, path: str | PathLike[str]) -> None: ...

    def load_state(self, path: str | PathLike[str]) -> None: ...


class OpenEngine(Protocol):
    """Opens the weights in `folder`: a checkpoint of the run, or `base`, the one that it starts from."""

    def __call__(
        self, config: TrainingConfig, folder: Path, base: Path, device: str, threads: int | None, keep_gradients: bool
    ) -> Engine: ...


def needs_gradients(config: TrainingConfig, processes: Processes) -> bool:
    """Whether the gradients of a step must be there all together: to be summed over batches or processes, or clipped.
    Else each weight moves as soon as its own is whole, which comes to the same and takes less memory."""
    return (
        config.loader.accumulation > 1
        or processes.size > 1
        or bool(config.max_gradient_norm)
        or config.objective == "autoencoder"
    )


def open_engine(
    config: TrainingConfig, folder: Path, base: Path, device: str, threads: int | None, keep_gradients: bool
) -> Engine:
    """mc.Trainer as the configuration wants it."""
    options, terms = config.optimizer.options, config.trainer.reconstruction
    engine: Engine = Trainer.from_pretrained(
        folder,
        task=config.task,
        objective=config.objective,
        optimizer=config.optimizer.name.lower(),
        learning_rate=config.learning_rate,
        dtype=config.trainer.dtype,
        gradient_checkpointing=config.trainer.gradient_checkpointing,
        device=device,
        num_threads=threads,
        betas=options.betas,
        epsilon=options.epsilon,
        weight_decay=options.weight_decay,
        max_gradient_norm=config.max_gradient_norm,
        keep_gradients=keep_gradients,
        num_targets=len(config.target_names),
        teacher=base if config.objective == "lcm" else None,
        ema_decay=config.trainer.ema_decay,
        num_ddim_timesteps=config.trainer.ddim_timesteps,
        reconstruction=(terms.absolute, terms.square, terms.edges, terms.divergence),
        pixel_loss=config.trainer.pixel_loss,
    )
    return engine

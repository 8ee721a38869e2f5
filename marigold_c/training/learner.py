"""What a process adds to an iteration: the gradients of its share of the batches. Called by run.py; drives the loader,
the encoder of latents and the engine.

Which batches there are, and all chance in them, follows from their numbers and the seeds, so a learner that begins at
batch n does what one that began at 0 does then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from .._C import Generator
from ..configurations.yaml_tree import ConfigError
from ..errors import NotFiniteError
from ..pipelines.pipeline import MarigoldPipeline
from ..pipelines.tasks import MarigoldDepthPipeline
from .coarse_inputs import CoarseInputs
from .engine import Engine, needs_gradients
from .examples import TrainingSet
from .gradient_sums import decline
from .inputs import engine_inputs
from .latent_cache import LatentCache, autoencoder_digest
from .latents import LatentEncoder
from .loader import Batch, Loader
from .mixed_sampler import MixedSampler, ShareOfSteps
from .processes import Processes
from .reconstructions import pictures_of
from .seeds import BatchSeeds
from .settings import TrainingConfig
from .state import State


class Learner:
    """Batches of the configuration's data sets, from the one that `state` says on."""

    def __init__(
        self,
        config: TrainingConfig,
        sets: Sequence[TrainingSet],
        base: Path,
        pipe: MarigoldPipeline[Any],
        engine: Engine,
        state: State,
        processes: Processes,
        workers: int,
        cache: Path | None,
        stopped: Callable[[str], Exception],
    ) -> None:
        """base: the checkpoint that the run started from; pipe: a pipeline of it, whose autoencoder makes the latents,
        and which makes coarse predictions where they are refined; workers:
        threads that read ahead; cache: the folder for latents, or None; stopped: the error to raise when training
        cannot go on, by its reason. ConfigError: the autoencoder is not what the configuration says."""
        self._config, self._engine, self._processes, self._stopped = config, engine, processes, stopped
        vae = pipe.vae
        self._adds_up = needs_gradients(config, processes)
        self._latent_channels: int = vae.config["latent_channels"]
        self._block = pipe.vae_scale_factor
        scale = float(vae.config["scaling_factor"])
        given = config.model.latent_scale
        if given is not None and not math.isclose(given, scale, rel_tol=1e-6):
            raise ConfigError(
                f"{config.file}: model.latent_scale_factor is {given:g}, but {base / 'vae'} has {scale:g}"
            )
        caches = None
        if cache is not None:
            digest = autoencoder_digest(base / "vae")
            caches = [LatentCache(cache, one, digest) for one in sets]
        self._encode = LatentEncoder(vae.encode, scale, caches)
        self._coarse: CoarseInputs | None = None
        if config.objective == "refine":
            self._coarse = CoarseInputs(config, MarigoldDepthPipeline.from_pipe(pipe), self._encode)
        sizes, names = [len(one) for one in sets], [one.name for one in sets]
        sampler = MixedSampler(sizes, names, config.loader.batch, config.probabilities, state.loader_seed)
        self.epoch_batches: int = sampler.epoch_batches
        self._seeds = BatchSeeds(state.seed, state.seed_count)
        self._share = ShareOfSteps(sampler, config.loader.accumulation, processes.rank, processes.size)
        skips = config.loader.on_bad_sample == "skip"
        self._loader = Loader(sets, self._share, workers, skips, caches, first=state.batches)

    def close(self) -> None:
        self._loader.close()

    def take_skipped(self) -> list[str]:
        """Why samples were skipped since this was asked last."""
        return self._loader.bad_samples.take_news()

    def learn(self, rate: float) -> tuple[dict[int, float], float | None]:
        """Adds up the gradients of this process's batches of an iteration, and then those of all processes; the losses
        of its batches by their numbers. What cannot be learned is told to the other processes.

        Where there is nothing to add up, the weights have moved, too, at the learning rate `rate`; then the second
        result is the norm of the gradients, else None."""
        if self._adds_up:
            return self._add_up(), None
        batch = next(self._loader)
        try:
            loss, norm = self._engine.train_step(**self._inputs(batch), learning_rate=rate)
        except NotFiniteError as error:
            raise self._stopped(f"batch {batch.plan.number}: {error}; its files: {', '.join(batch.files)}") from error
        return {batch.plan.number: loss}, norm

    def _add_up(self) -> dict[int, float]:
        losses: dict[int, float] = {}
        try:
            for _ in range(self._share.batches_of_step - 1):
                batch = next(self._loader)
                losses[batch.plan.number] = self._learn_batch(batch)
            batch = next(self._loader)
        except Exception as error:
            decline(self._processes, error)
            raise
        with self._summing():
            losses[batch.plan.number] = self._learn_batch(batch)
        return losses

    def _summing(self) -> AbstractContextManager[None]:
        return nullcontext() if self._processes.size == 1 else self._engine.summed_over(self._processes)

    def _learn_batch(self, batch: Batch) -> float:
        loss = self._reconstruct(batch) if self._config.objective == "autoencoder" else self._denoise(batch)
        if not math.isfinite(loss):
            files = ", ".join(batch.files)
            raise self._stopped(f"the loss of batch {batch.plan.number} is {loss}; its files: {files}")
        return loss

    def _denoise(self, batch: Batch) -> float:
        return self._engine.forward_backward(**self._inputs(batch), weight=1 / self._config.loader.accumulation)

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        seed = self._seeds[batch.plan.number]
        if self._coarse is not None:
            return self._coarse(batch, seed)
        return engine_inputs(self._config, self._encode, batch, seed)

    def _reconstruct(self, batch: Batch) -> float:
        images = pictures_of([item.example for item in batch.items if item.example is not None])
        sides = (side // self._block for side in images.shape[2:])
        latent = (len(images), self._latent_channels, *sides)
        noise = Generator(self._seeds[batch.plan.number]).randn(latent)
        return self._engine.reconstruct(images, noise, 1 / self._config.loader.accumulation)["total"]

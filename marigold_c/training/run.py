"""A training run: from a configuration to checkpoints. Called by train_command.py, and by scripts (train).

    RUN/config.yaml    the configuration, merged
    RUN/checkpoint     checkpoints.py
    RUN/evaluation     scores of each validation as text
    RUN/visualization  pictures of held-out samples
    RUN/*.csv, RUN/tensorboard: logs.py

What an iteration does follows from its number, the seeds and the files alone, so a run that goes on from a checkpoint
repeats the uninterrupted one bit for bit: the sampler is moved on to the batch, each batch has its own seed, and the
engine's state is restored.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import read_config
from ..errors import CheckpointError, DatasetError
from ..extras import optional_module
from ..files import write_atomically
from ..loading import default_checkpoint, resolve_folder
from ..messages import explain
from ..pipelines import MarigoldPipeline, load
from ..schedulers import DDIMScheduler, LCMScheduler
from .checkpoints import (
    BEST,
    LATEST,
    STATE_FILE,
    TRAINER_FILE,
    CheckpointStore,
    backup_name,
    complete_checkpoint,
    model_index,
    read_state,
    with_scheduler,
    write_scheduler,
    write_state,
)
from .engine import OpenEngine, open_engine
from .examples import TrainingSet
from .latent_cache import LatentCache, autoencoder_digest
from .latents import LatentEncoder, draw_noise
from .learning_rate import exponential_ratio
from .loader import Batch, Loader
from .logs import RunLog, duration
from .mixed_sampler import MixedSampler
from .seeds import BatchSeeds
from .settings import TrainingConfig
from .validation import HeldOut, goal_complaint, improves, main_metric, save_pictures, summary
from .yaml_tree import ConfigError, load_tree, plain

_STATE_VERSION = 1
TRAIN_STEPS = 1000  # time steps of the noise schedule
# Keys that may change between the parts of a run; any other would make it another run.
_FREE_KEYS = (
    *("logging", "wandb", "validation", "eval", "dataset.val", "dataset.vis"),
    *("dataloader.num_workers", "dataloader.latent_cache", "trainer.keep_backups"),
    *(f"trainer.{one}_period" for one in ("save", "backup", "validation", "visualization")),
)


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says at which iteration, why, and what the last good checkpoint is."""


@dataclass(frozen=True)
class RunOptions:
    """What does not belong to the configuration. folder: of the run. exit_after: in minutes, or None. say, show: as for
    RunLog. should_stop: asked after each iteration."""

    folder: Path
    base_data_dir: Path = Path()
    base_checkpoint_dir: Path | None = None
    resume: bool = False
    exit_after: float | None = None
    device: str = "cpu"
    threads: int | None = None
    say: Callable[[str], None] = print
    show: Callable[[int, str], None] | None = None
    should_stop: Callable[[], bool] = lambda: False


@dataclass
class State:
    """Where a run is. batches: how many were used. in_validation: the validation of this iteration is not done."""

    seed: int
    loader_seed: int
    seed_count: int
    iteration: int = 0
    batches: int = 0
    best_metric: float | None = None
    best_iteration: int | None = None
    in_validation: bool = False
    version: int = _STATE_VERSION


def _state_from(folder: Path) -> State:
    values = read_state(folder)
    if values.get("version") != _STATE_VERSION or set(values) != set(State.__dataclass_fields__):
        raise CheckpointError(f"{folder / STATE_FILE}: not the state of a run that this version can go on from")
    return State(**values)


def _flattened(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        parts = [_flattened(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
        return {key: item for part in parts for key, item in part.items()}
    return {path: value}


def _check_same(config: TrainingConfig, saved: Path) -> None:
    """ConfigError if the configuration differs from the one that the run began with in what decides the weights."""
    before, now = _flattened(plain(load_tree(saved))), _flattened(config.plain)
    for key in sorted({*before, *now}):
        free = any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in _FREE_KEYS)
        if not free and before.get(key) != now.get(key):
            raise ConfigError(
                f"{config.file}: {key} is {now.get(key)!r}, but the run in {saved.parent} began with "
                f"{before.get(key)!r}; go on with that, or choose another folder"
            )


class TrainingRun:
    """One part of a run: from its start or its latest checkpoint until it is done, time is up, or it fails."""

    def __init__(self, config: TrainingConfig, options: RunOptions, open_with: OpenEngine = open_engine) -> None:
        self.config, self.options, self._open_with = config, options, open_with
        self.say = options.say
        self._started = time.monotonic()
        self._stack = ExitStack()
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise

    # ---- opening ----

    def _open(self) -> None:
        config, options = self.config, self.options
        folder = options.folder
        saved = folder / "config.yaml"
        self.store = CheckpointStore(folder / "checkpoint")
        self._stack.callback(self.store.close)
        latest = self.store.latest
        if latest is not None and not options.resume:
            raise FileExistsError(f"{folder} holds a run already: give --resume to go on with it, or another folder")
        if latest is not None:
            _check_same(config, saved)
        elif options.resume:
            self.say(f"marigold: nothing to go on from in {folder}: the run begins")
        self.base = self._base_checkpoint()
        self.sets = [TrainingSet(entry, config, options.base_data_dir) for entry in config.train_sets]
        for one in self.sets:
            self._stack.callback(one.close)
        self.held_out = HeldOut(config.validation_sets, config, options.base_data_dir)
        self.shown = HeldOut(config.picture_sets, config, options.base_data_dir)
        complaint = goal_complaint(config.validation)
        if complaint:
            self.say(f"marigold: warning: {complaint}")
        self.engine = self._open_with(config, latest or self._start(), options.device, options.threads)
        if latest is None:
            self._begin(saved)
        else:
            self.state = _state_from(latest)
            self.engine.load_state(latest / TRAINER_FILE)
            self.say(f"marigold: going on from {latest}, iteration {self.state.iteration}")
        self._open_data()
        self.log = RunLog(folder, self.state.iteration, config.max_iterations, self.say, options.show)
        self._stack.callback(self.log.close)

    def _base_checkpoint(self) -> Path:
        """The checkpoint to start from: below base_checkpoint_dir, beside the configuration, one of the package's small
        ones by its name, any folder, or a hub id."""
        name, root = self.config.base, self.options.base_checkpoint_dir
        places = [self.config.file.absolute().parent / name, default_checkpoint().parent / name]
        if root is not None:
            places.insert(0, root / name)
        return next((place for place in places if (place / "unet").is_dir()), None) or resolve_folder(name)

    def _begin(self, saved: Path) -> None:
        """Seeds are chosen, the configuration is kept, and the start becomes the first checkpoint."""
        config = self.config
        chance = random.SystemRandom()
        self.state = State(
            seed=config.seed if config.seed is not None else chance.getrandbits(32),
            loader_seed=config.loader.seed if config.loader.seed is not None else chance.getrandbits(32),
            seed_count=config.max_iterations * config.loader.accumulation,
        )
        text: str = optional_module("yaml", "writing YAML").safe_dump(dict(config.plain), sort_keys=False)
        write_atomically(saved, lambda file: file.write(text.encode()))
        self._save()

    def _open_data(self) -> None:
        config, state = self.config, self.state
        self.pipe = self._pipeline()
        scale = float(self.pipe.vae.config["scaling_factor"])
        if config.latent_scale is not None and not math.isclose(config.latent_scale, scale, rel_tol=1e-6):
            raise ConfigError(
                f"{config.file}: model.latent_scale_factor is {config.latent_scale:g}, but {self.base / 'vae'} has "
                f"{scale:g}"
            )
        caches = None
        if config.loader.latent_cache is not None:
            digest = autoencoder_digest(self.base / "vae")
            caches = [LatentCache(config.loader.latent_cache, one, digest) for one in self.sets]
        self.encode = LatentEncoder(self.pipe.vae.encode, scale, caches)
        self.sampler = MixedSampler(
            [len(one) for one in self.sets],
            [one.name for one in self.sets],
            config.loader.batch,
            config.probabilities,
            state.loader_seed,
        )
        self.seeds = BatchSeeds(state.seed, state.seed_count)
        self.loader = Loader(
            self.sets,
            self.sampler,
            config.loader.workers,
            config.loader.on_bad_sample == "skip",
            caches,
            first=state.batches,
        )
        self._stack.callback(self.loader.close)

    def _pipeline(self) -> MarigoldPipeline:
        """The latest checkpoint as a pipeline."""
        latest = self.store.path(LATEST)
        pipe: MarigoldPipeline = load(latest, device=self.options.device, num_threads=self.options.threads)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    # ---- checkpoints ----

    def _write(self, folder: Path) -> None:
        config = self.config
        self.engine.save_pretrained(folder)
        scheduler = self._scheduler()
        write_scheduler(folder, scheduler)
        index = model_index(config.task, config.class_name, config.pipeline_options, scheduler["_class_name"])
        complete_checkpoint(folder, self.base, index, config.copy_base)
        self.engine.save_state(folder / TRAINER_FILE)
        write_state(folder, asdict(self.state))

    def _scheduler(self) -> dict[str, Any]:
        """The configuration of what predictions are made with: the base's betas at zero terminal signal, trailing."""
        kind = LCMScheduler if self.config.objective == "lcm" else DDIMScheduler
        base = {"clip_sample": False, **read_config(self.base / "scheduler" / "scheduler_config.json")}
        scheduler = kind.from_config(base, rescale_betas_zero_snr=True, timestep_spacing="trailing")
        return {key: value for key, value in scheduler.config.items() if key != "_use_default_values"}

    def _start(self) -> Path:
        """The base; where it samples by a schedule that the engine does not have (Stable Diffusion 2: Euler's), with
        the one that it is trained for, which has the same betas."""
        known = (DDIMScheduler.__name__, LCMScheduler.__name__)
        if read_config(self.base / "scheduler" / "scheduler_config.json").get("_class_name") in known:
            return self.base
        return with_scheduler(self.base, self.store.scratch, self._scheduler())

    def _save(self) -> None:
        try:
            self.store.save(LATEST, self._write)
        except OSError as error:
            raise self._stopped(0, f"the checkpoint cannot be saved: {explain(error)}") from error

    def _update_state(self) -> None:
        try:
            write_state(self.store.path(LATEST), asdict(self.state))
        except OSError as error:
            raise self._stopped(0, f"the checkpoint cannot be saved: {explain(error)}") from error

    def _duplicate(self, name: str) -> None:
        try:
            self.store.duplicate(self.store.path(LATEST), name)
        except OSError as error:
            raise self._stopped(0, f"the checkpoint {name} cannot be saved: {explain(error)}") from error

    def _stopped(self, ahead: int, reason: str) -> TrainingStopped:
        """ahead: 1 for the iteration that is being done, 0 for the one that was."""
        latest = self.store.latest
        good = "there is no checkpoint yet"
        if latest is not None:
            good = f"the last good checkpoint is {latest}, of iteration {_state_from(latest).iteration}"
        return TrainingStopped(f"iteration {self.state.iteration + ahead}: {reason}; {good}")

    # ---- the loop ----

    def train(self) -> str:
        """Trains until "done", or "paused" because time is up or a stop was asked for. Closes the run.

        TrainingStopped: the loss is no number, or a checkpoint cannot be saved. DatasetError: a sample cannot be read.
        """
        with self._stack:
            if self.state.in_validation:
                self.say("marigold: the last validation was not finished, it is done first")
                self._validate()
            if self.state.iteration >= self.config.max_iterations:
                return self._finish()
            while True:
                began = time.monotonic()
                losses = [self._learn(self._next_batch()) for _ in range(self.config.loader.accumulation)]
                self._step(sum(losses) / len(losses), time.monotonic() - began)
                ended = self._after_step()
                if ended is not None:
                    return ended

    def _next_batch(self) -> Batch:
        """Where the data are at fault, the iterations that were done are saved before that is raised."""
        try:
            batch = next(self.loader)
        except DatasetError:
            latest = self.store.latest
            if latest is None or _state_from(latest).iteration < self.state.iteration:
                self._save()
            raise
        for reason in self.loader.bad_samples.take_news():
            self.say(f"marigold: warning: skipped ({len(self.loader.bad_samples)} so far): {reason}")
        return batch

    def _learn(self, batch: Batch) -> float:
        """Adds the gradients of a batch; returns its loss."""
        config = self.config
        latents = self.encode(batch)
        steps, noise = draw_noise(self.seeds[batch.plan.number], latents.target.shape, config.noise, TRAIN_STEPS)
        mask = latents.mask if config.masked else None
        weight = 1 / config.loader.accumulation
        loss = self.engine.forward_backward(latents.image, latents.target, noise, steps, mask, weight)
        if not math.isfinite(loss):
            files = ", ".join(batch.files)
            raise self._stopped(1, f"the loss of batch {batch.plan.number} is {loss}; its files: {files}")
        return loss

    def _step(self, loss: float, seconds: float) -> None:
        config, state = self.config, self.state
        rate = config.optimizer.learning_rate
        schedule = config.schedule
        if schedule.total_iter is not None:
            rate *= exponential_ratio(state.iteration, schedule.total_iter, schedule.final_ratio, schedule.warmup_steps)
        try:
            self.engine.optimizer_step(rate)
        except ValueError as error:
            raise self._stopped(1, explain(error)) from error
        state.iteration += 1
        state.batches += config.loader.accumulation
        epoch = 1 + (state.batches - 1) // self.sampler.epoch_batches
        self.log.iteration(state.iteration, epoch, state.batches, loss, rate, seconds)

    def _after_step(self) -> str | None:
        """Checkpoints, validation and pictures of an iteration; how the run ends, if it does."""
        config, state = self.config, self.state
        epoch = 1 + state.batches // self.sampler.epoch_batches
        done = state.iteration >= config.max_iterations or epoch > config.max_epochs

        def due(period: int) -> bool:
            return period > 0 and state.iteration % period == 0

        periods = config.periods
        validating = due(periods.validation) and len(self.held_out) > 0
        showing = due(periods.visualization) and len(self.shown) > 0
        pausing = not done and (self._time_is_up() or self.options.should_stop())
        if done or pausing or validating or showing or due(periods.save) or due(periods.backup):
            state.in_validation = validating
            self._save()
        if due(periods.backup):
            self._duplicate(backup_name(state.iteration))
            if periods.keep_backups is not None:
                self.store.drop_backups(periods.keep_backups)
        if validating:
            self._validate()
        if showing:
            self._show()
        if done:
            return self._finish()
        if pausing:
            passed = duration(time.monotonic() - self._started)
            self.say(f"marigold: paused after {passed} at iteration {state.iteration}; --resume goes on")
            return "paused"
        return None

    def _time_is_up(self) -> bool:
        minutes = self.options.exit_after
        return minutes is not None and time.monotonic() - self._started >= 60 * minutes

    def _finish(self) -> str:
        self._duplicate(backup_name(self.state.iteration))
        self.say(f"marigold: done: {self.store.path(backup_name(self.state.iteration))}")
        return "done"

    # ---- held-out samples ----

    def _validate(self) -> None:
        """Scores the latest checkpoint, which holds the current weights; the best so far is kept."""
        state, wanted = self.state, main_metric(self.config)
        pipe = self._pipeline()
        scores: dict[str, dict[str, float]] = {}
        for name, values in self.held_out.scores(pipe):
            scores[name] = values
            self.log.validation(state.iteration, name, values)
        folder = self.options.folder / "evaluation"
        folder.mkdir(exist_ok=True)
        text = summary(scores)
        write_atomically(folder / f"eval-iter{state.iteration:06d}.txt", lambda file: file.write(text.encode()))
        first = next(iter(scores.values()), {})
        if wanted is not None and wanted not in first:
            raise ConfigError(
                f"{self.config.file}: validation.main_val_metric: there is no {wanted}; there are {', '.join(first)}"
            )
        if wanted is not None and improves(wanted, first[wanted], state.best_metric):
            state.best_metric, state.best_iteration = first[wanted], state.iteration
            self._duplicate(BEST)
            self.say(f"marigold: best {wanted} so far: {first[wanted]:.5g}, kept in {self.store.path(BEST)}")
        state.in_validation = False
        self._update_state()

    def _show(self) -> None:
        state = self.state
        folder = self.options.folder / "visualization" / backup_name(state.iteration)
        for name, pictures in self.shown.pictures(self._pipeline()):
            save_pictures(folder / name, pictures)
            self.log.picture(state.iteration, f"{name}/{pictures.name}", pictures.strip)


def train(config: TrainingConfig, options: RunOptions, open_with: OpenEngine = open_engine) -> str:
    """Trains as the configuration says: "done" or "paused". See TrainingRun.train for what may be raised."""
    return TrainingRun(config, options, open_with).train()

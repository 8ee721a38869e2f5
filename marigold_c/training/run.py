"""A training run: from a configuration to checkpoints. Called by commands/train.py, and by scripts (train).

    RUN/config.yaml    the configuration, merged
    RUN/checkpoint     checkpoints.py
    RUN/evaluation     scores of each validation as text
    RUN/visualization  pictures of held-out samples
    RUN/*.csv, RUN/tensorboard: logs.py

What an iteration does follows from its number, the seeds and the files alone, so a run that goes on from a checkpoint
repeats the uninterrupted one bit for bit: the sampler is moved on to the batch, each batch has its own seed, and the
engine's state is restored.

Several processes do the same run: each learns its share of an iteration's batches, the gradients are summed, and all
take the same step. The first one writes everything; what one of them cannot do ends all of them (processes.py).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..atomic_files import write_atomically
from ..configurations.yaml_tree import ConfigError
from ..errors import NotFiniteError, ProcessFailed
from ..extras import optional_module
from ..loading.config import read_config
from ..loading.folders import default_checkpoint, resolve_folder
from ..messages import explain
from ..pipelines.opening import load
from ..pipelines.pipeline import MarigoldPipeline
from .checkpoints import (
    BEST,
    LATEST,
    TRAINER_FILE,
    CheckpointStore,
    backup_name,
    boosting_index,
    complete_checkpoint,
    model_index,
    write_state,
)
from .engine import OpenEngine, needs_gradients, open_engine
from .examples import TrainingSet
from .learner import Learner
from .learning_rate import exponential_ratio
from .loader import reading_threads
from .logs import RunLog, duration
from .processes import Alone, Processes, exchange, only_first, results, together
from .reconstructions import Reconstructions, write_scaling_factor
from .settings import TrainingConfig
from .state import State, check_same, state_from
from .validation import HeldOut, goal_complaint, improves, main_metric, save_pictures, summary


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says at which iteration, why, and what the last good checkpoint is."""


@dataclass(frozen=True)
class RunOptions:
    """What does not belong to the configuration. folder: of the run. exit_after: in minutes, or None. say, show: as for
    RunLog. should_stop: asked after each iteration. processes: which do the run together, with the same options and
    the same files."""

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
    processes: Processes = field(default_factory=Alone)


class TrainingRun:
    """One part of a run: from its start or its latest checkpoint until it is done, time is up, or it fails."""

    def __init__(self, config: TrainingConfig, options: RunOptions, open_with: OpenEngine = open_engine) -> None:
        self.config, self.options, self._open_with = config, options, open_with
        self.processes = options.processes
        self.say = options.say if self.processes.rank == 0 else lambda text: None
        self._skipped: set[str] = set()
        self._started = time.monotonic()
        self._stack = ExitStack()
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise

    # ---- opening ----

    def _open(self) -> None:
        processes = self.processes
        together(processes, self._check_processes)
        resuming: bool = only_first(processes, self._open_folder)
        if processes.rank:
            self.store = CheckpointStore(self.options.folder / "checkpoint", writes=False)
        self.base = Path(only_first(processes, lambda: str(self._base_checkpoint())))
        together(processes, self._open_sets)
        start = Path(only_first(processes, lambda: str(self.store.latest or self.base)))
        together(processes, lambda: self._open_trainer(start, resuming))
        state = only_first(processes, lambda: asdict(state_from(start) if resuming else self._begin()))
        self.state = State(**state)
        if resuming:
            self.say(f"marigold: going on from {start}, iteration {self.state.iteration}")
        together(processes, self._open_learner)
        only_first(processes, self._open_log)

    def _check_processes(self) -> None:
        loader, size = self.config.loader, self.processes.size
        if loader.accumulation < size:
            raise ConfigError(
                f"{self.config.file}: dataloader: an iteration has {loader.accumulation} batches (effective_batch_size "
                f"{loader.effective_batch} / max_train_batch_size {loader.batch}), which {size} processes cannot share"
            )
        if size > 1:
            self.say(f"marigold: {size} processes share the {loader.accumulation} batches of an iteration")

    def _open_folder(self) -> bool:
        """Whether there is a run to go on with."""
        options, folder = self.options, self.options.folder
        self.store = CheckpointStore(folder / "checkpoint")
        self._stack.callback(self.store.close)
        latest = self.store.latest
        if latest is not None and not options.resume:
            raise FileExistsError(f"{folder} holds a run already: give --resume to go on with it, or another folder")
        if latest is not None:
            check_same(self.config, folder / "config.yaml")
        elif options.resume:
            self.say(f"marigold: nothing to go on from in {folder}: the run begins")
        complaint = goal_complaint(self.config.validation)
        if complaint:
            self.say(f"marigold: warning: {complaint}")
        return latest is not None

    def _open_sets(self) -> None:
        config, options = self.config, self.options
        self.sets = [TrainingSet(entry, config, options.base_data_dir) for entry in config.train_sets]
        for one in self.sets:
            self._stack.callback(one.close)
        if self.processes.rank == 0:
            kind = Reconstructions if config.objective == "autoencoder" else HeldOut
            self.held_out: HeldOut | Reconstructions = kind(config.validation_sets, config, options.base_data_dir)
            self.shown: HeldOut | Reconstructions = kind(config.picture_sets, config, options.base_data_dir)

    def _open_trainer(self, start: Path, resuming: bool) -> None:
        options, keep = self.options, needs_gradients(self.config, self.processes)
        self.engine = self._open_with(self.config, start, self.base, options.device, options.threads, keep)
        if self.processes.size > 1:
            self.engine.summed_over(self.processes)  # refuses now what it cannot do later
        if resuming:
            self.engine.load_state(start / TRAINER_FILE)

    def _open_log(self) -> None:
        options = self.options
        self.log = RunLog(options.folder, self.state.iteration, self.config.max_iterations, self.say, options.show)
        self._stack.callback(self.log.close)

    def _base_checkpoint(self) -> Path:
        """The checkpoint to start from: below base_checkpoint_dir, beside the configuration, one of the package's small
        ones by its name, any folder, or a hub id."""
        name, root = self.config.model.base, self.options.base_checkpoint_dir
        places = [self.config.file.absolute().parent / name, default_checkpoint().parent / name]
        if root is not None:
            places.insert(0, root / name)
        return next((place for place in places if (place / "unet").is_dir()), None) or resolve_folder(name)

    def _begin(self) -> State:
        """Seeds are chosen, the configuration is kept, and the start becomes the first checkpoint."""
        config = self.config
        chance = random.SystemRandom()
        self.state = State(
            seed=config.trainer.seed if config.trainer.seed is not None else chance.getrandbits(32),
            loader_seed=config.loader.seed if config.loader.seed is not None else chance.getrandbits(32),
            seed_count=config.max_iterations * config.loader.accumulation,
        )
        text: str = optional_module("yaml", "writing YAML").safe_dump(dict(config.plain), sort_keys=False)
        write_atomically(self.options.folder / "config.yaml", lambda file: file.write(text.encode()))
        self._save()
        return self.state

    def _open_learner(self) -> None:
        config, state = self.config, self.state
        cache = config.loader.latent_cache
        self.learner = Learner(
            config,
            self.sets,
            self.base,
            self._pipeline(),
            self.engine,
            state,
            self.processes,
            reading_threads(config.loader.workers, self.options.device, self.options.threads),
            None if cache is None else self.options.base_data_dir / cache,
            lambda reason: self._stopped(1, reason),
        )
        self._stack.callback(self.learner.close)

    def _pipeline(self) -> MarigoldPipeline[Any]:
        """The latest checkpoint as a pipeline."""
        latest = self.store.path(LATEST)
        pipe: MarigoldPipeline[Any] = load(latest, device=self.options.device, num_threads=self.options.threads)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    # ---- checkpoints ----

    def _write(self, folder: Path) -> None:
        config = self.config
        self.engine.save_pretrained(folder)
        scheduler = read_config(folder / "scheduler" / "scheduler_config.json")["_class_name"]
        index = model_index(config.task, config.class_name, config.pipeline_options, scheduler)
        if config.objective == "refine":
            index |= boosting_index(self.base)
        complete_checkpoint(folder, self.base, index, config.trainer.base_components == "copy")
        if config.objective == "autoencoder":
            write_scaling_factor(folder, self.sets)
        self.engine.save_state(folder / TRAINER_FILE)
        write_state(folder, asdict(self.state))

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
            good = f"the last good checkpoint is {latest}, of iteration {state_from(latest).iteration}"
        return TrainingStopped(f"iteration {self.state.iteration + ahead}: {reason}; {good}")

    # ---- the loop ----

    def train(self) -> str:
        """Trains until "done", or "paused" because time is up or a stop was asked for. Closes the run.

        TrainingStopped: the loss is no number, or a checkpoint cannot be saved. DatasetError: a sample cannot be read.
        ProcessFailed: another process has one of these.
        """
        with self._stack:
            if self.state.in_validation:
                self.say("marigold: the last validation was not finished, it is done first")
                only_first(self.processes, self._validate)
            if self.state.iteration >= self.config.max_iterations:
                return self._finish()
            while True:
                began = time.monotonic()
                stopping = self._step(began)
                ended = self._after_step(stopping)
                if ended is not None:
                    return ended

    def _learn(self, rate: float) -> tuple[dict[int, float], float | None]:
        try:
            return self.learner.learn(rate)
        except (Exception, SystemExit) as error:
            self._end(error)
            raise

    def _end(self, error: BaseException) -> None:
        """The iterations that were done are saved before the processes end, but for a loss that is no number: who knows
        what led to it."""
        kind = error.kind if isinstance(error, ProcessFailed) else type(error).__name__
        self._tell_skipped(self.learner.take_skipped())
        try:
            if self.processes.rank == 0 and kind != TrainingStopped.__name__:
                self._save_what_was_done()
        finally:
            if self.processes.parted:
                self.processes.gather(None)  # launchers end all processes with the first

    def _save_what_was_done(self) -> None:
        latest = self.store.latest
        if latest is None or state_from(latest).iteration < self.state.iteration:
            try:
                self._save()
            except TrainingStopped as error:
                self.say(f"marigold: warning: {error}")

    def _tell_skipped(self, news: list[str]) -> None:
        for reason in news:
            if reason not in self._skipped:
                self._skipped.add(reason)
                self.say(f"marigold: warning: skipped ({len(self._skipped)} so far): {reason}")

    def _rate(self) -> float:
        rate, scheduler = self.config.learning_rate, self.config.lr_scheduler
        if scheduler is None:
            return rate
        schedule = scheduler.schedule
        done = self.state.iteration
        return rate * exponential_ratio(done, schedule.total_iter, schedule.final_ratio, schedule.warmup_steps)

    def _step(self, began: float) -> bool:
        """An iteration; whether one of the processes was asked to stop."""
        config, state, rate = self.config, self.state, self._rate()
        losses, norm = self._learn(rate)
        reports = results(self.processes, lambda: self._move(rate, losses, norm))
        if any(report["norm"] != reports[0]["norm"] for report in reports):
            norms = ", ".join(repr(report["norm"]) for report in reports)
            apart = self._stopped(1, f"the processes went apart: their gradients have the norms {norms}")
            exchange(self.processes, failure=apart)
        state.iteration += 1
        state.batches += config.loader.accumulation
        if self.processes.rank == 0:
            every = dict(pair for report in reports for pair in report["losses"])
            loss = sum(every[number] for number in sorted(every)) / len(every)
            epoch = 1 + (state.batches - 1) // self.learner.epoch_batches
            self.log.iteration(state.iteration, epoch, state.batches, loss, rate, time.monotonic() - began)
            self._tell_skipped([reason for report in reports for reason in report["skipped"]])
        return any(report["stop"] for report in reports)

    def _move(self, rate: float, losses: dict[int, float], norm: float | None) -> dict[str, Any]:
        """Moves the weights, if learning has not; what the others are to know of the step."""
        try:
            if norm is None:
                norm = self.engine.optimizer_step(rate)
        except NotFiniteError as error:
            raise self._stopped(1, explain(error)) from error
        return {
            "norm": norm,
            "losses": list(losses.items()),
            "skipped": self.learner.take_skipped(),
            "stop": self._time_is_up() or self.options.should_stop(),
        }

    def _after_step(self, stopping: bool) -> str | None:
        """Checkpoints, validation and pictures of an iteration; how the run ends, if it does."""
        config, state = self.config, self.state
        epoch = 1 + state.batches // self.learner.epoch_batches
        done = state.iteration >= config.max_iterations or epoch > config.max_epochs
        periods = config.trainer
        # The last weights are judged, too, so that the best checkpoint can be theirs.
        due = self._is_due(periods.validation) or (done and periods.validation > 0)
        validating = due and bool(config.validation_sets)
        showing = self._is_due(periods.visualization) and bool(config.picture_sets)
        pausing = not done and stopping
        state.in_validation = validating
        if done or pausing or validating or showing or self._is_due(periods.save) or self._is_due(periods.backup):
            only_first(self.processes, lambda: self._keep(validating, showing))
        state.in_validation = False
        if done:
            return self._finish()
        if pausing:
            passed = duration(time.monotonic() - self._started)
            self.say(f"marigold: paused after {passed} at iteration {state.iteration}; --resume goes on")
            return "paused"
        return None

    def _is_due(self, period: int) -> bool:
        return period > 0 and self.state.iteration % period == 0

    def _keep(self, validating: bool, showing: bool) -> None:
        periods = self.config.trainer
        self._save()
        if self._is_due(periods.backup):
            self._duplicate(backup_name(self.state.iteration))
            if periods.keep_backups is not None:
                self.store.drop_backups(periods.keep_backups)
        try:
            if validating:
                self._validate()
            if showing:
                self._show()
        except OSError as error:
            raise self._stopped(0, explain(error)) from error

    def _time_is_up(self) -> bool:
        minutes = self.options.exit_after
        return minutes is not None and time.monotonic() - self._started >= 60 * minutes

    def _finish(self) -> str:
        name = backup_name(self.state.iteration)
        only_first(self.processes, lambda: self._duplicate(name))
        self.say(f"marigold: done: {self.store.path(name)}")
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

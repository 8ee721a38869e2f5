"""Open models, and one run at a time on them, which others can watch and end. Knows nothing of pages."""

from __future__ import annotations

import threading
import time
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..loading.folders import default_checkpoint
from ..pipelines.completion import MarigoldDepthCompletionPipeline
from ..pipelines.opening import open_pipeline
from ..pipelines.outputs import MarigoldOutput
from ..pipelines.pipeline import MarigoldPipeline
from .command import Command, Pixels, VideoCommand

Pipe = MarigoldPipeline[Any]
Watch = Callable[[int, int, float], object]
_ASK_AGAIN = 0.02  # seconds


class Cancelled(Exception):
    """The run was ended by who asked for it."""


class Models:
    """At most `most` open pipelines, one for each task, checkpoint and precision; the one that was used least recently
    goes first. For one thread at a time."""

    def __init__(self, most: int, device: str = "cpu", threads: int | None = None) -> None:
        self._most, self._device, self._threads = most, device, threads
        self._open: OrderedDict[tuple[str, str | None, str | None], Pipe] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, task: str, checkpoint: str | None, dtype: str | None) -> Pipe:
        """The pipeline, opened unless it is. Errors as of marigold_c.load."""
        key = (task, checkpoint, dtype)
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        while len(self._open) >= self._most:  # before the next is opened: both together may not fit
            self._open.popitem(last=False)
        place = default_checkpoint(task) if checkpoint is None else checkpoint
        pipe = open_pipeline(task, place, dtype=dtype, device=self._device, num_threads=self._threads)
        pipe.set_progress_bar_config(disable=True)
        self._open[key] = pipe
        return pipe


class Job:
    """One run. owner: who may end it."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.pipe: Pipe | None = None
        self.cancelled, self.ended = threading.Event(), threading.Event()

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled


class Engine:
    """Runs one after the other, in the order in which they come, whoever asks."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._turn = threading.Lock()
        self._jobs: dict[str, Job] = {}

    @property
    def busy(self) -> bool:
        return self._turn.locked()

    @contextmanager
    def job(self, owner: str) -> Iterator[Job]:
        """Waits for its turn; several runs (frames, sides of a comparison) may be in one. Cancelled comes out of it."""
        with self._turn:
            job = self._jobs[owner] = Job(owner)
            try:
                yield job
            finally:
                del self._jobs[owner]
                job.ended.set()

    def cancel(self, owner: str) -> bool:
        """Ends the job of this owner, if it is running, and returns when the engine is free; whether there was one."""
        job = self._jobs.get(owner)
        if job is None:
            return False
        job.cancelled.set()
        while not job.ended.wait(_ASK_AGAIN):  # between its runs there is nothing to end: asked until it has noticed
            if job.pipe is not None:
                job.pipe.cancel()
        return True

    def open(self, job: Job, command: Command, args: Namespace) -> Pipe:
        """The pipeline that the flags mean."""
        job.check()
        return self.models.get(command.name, args.checkpoint, args.dtype)

    @contextmanager
    def watching(self, job: Job, pipe: Pipe, watch: Watch) -> Iterator[None]:
        """Calls of the pipeline within this can be ended; `watch` is told steps done, steps in all, seconds left."""
        started = time.monotonic()

        def progress(done: int, total: int) -> None:
            job.check()
            watch(done, total, (time.monotonic() - started) / done * (total - done))

        pipe.set_progress_callback(progress)
        job.pipe = pipe
        try:
            job.check()
            yield
        except KeyboardInterrupt as error:
            if job.cancelled.is_set():
                raise Cancelled from error
            raise
        finally:
            job.pipe = None
            pipe.set_progress_callback(None)

    def predict(
        self, job: Job, command: Command, args: Namespace, pixels: Pixels, watch: Watch
    ) -> tuple[Pipe, MarigoldOutput]:
        """One image, as the command computes it."""
        pipe = self.open(job, command, args)
        with self.watching(job, pipe, watch):
            out: MarigoldOutput = pipe(pixels, **command.options(args))
        job.check()
        return pipe, out

    def complete(
        self, job: Job, command: Command, args: Namespace, pixels: Pixels, sparse: Pixels, watch: Watch
    ) -> Pixels:
        """Depth (H, W) in metres of one image, guided by measured points (H, W), with the options of the command."""
        pipe = MarigoldDepthCompletionPipeline.from_pipe(self.open(job, command, args))
        pipe.set_progress_bar_config(disable=True)
        options = command.options(args)
        resolution = options["processing_resolution"]
        if resolution is None:
            resolution = pipe.default_processing_resolution or 0
        with self.watching(job, pipe, watch):
            out = pipe(
                pixels,
                sparse,
                num_inference_steps=options["num_inference_steps"],
                ensemble_size=options["ensemble_size"],
                processing_resolution=resolution,
                generator=options["generator"],
            )
        job.check()
        metres: Pixels = out.prediction[0, :, :, 0]
        return metres

    def convert(self, job: Job, command: VideoCommand, args: Namespace, watch: Watch) -> list[Path]:
        """One video. watch: as of watching, of frames; 0 in all where the clip does not say how many."""
        pipe = self.models.get(args.task, args.checkpoint, args.dtype)
        started = time.monotonic()

        def done(frames: int, total: int) -> None:
            job.check()
            watch(frames, total, (time.monotonic() - started) / frames * max(total - frames, 0))

        with self.watching(job, pipe, lambda *_steps: None):
            return command.convert(args, pipe, done)

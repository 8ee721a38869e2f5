"""`marigold depth`, `normals` and `iid`: images in, files out. Called by cli.py with parsed arguments."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .command_tasks import TASKS, CommandTask, Result
from .files import Input, find_inputs, read_image
from .hub import quiet_downloads
from .loading import default_checkpoint
from .messages import explain
from .pipelines import MarigoldPipeline, load
from .progress import tqdm
from .sequences import predict_sequence


class _Progress:
    """A bar on a terminal, plain lines elsewhere, nothing with --quiet. Errors always show."""

    def __init__(self, title: str, images: int, quiet: bool) -> None:
        self.images = images
        self.on_terminal = sys.stderr.isatty() and not quiet
        self.plain = not quiet and not self.on_terminal
        self._bar = tqdm(total=images, desc=title, unit="image", disable=not self.on_terminal)

    def say(self, text: str) -> None:
        if self.on_terminal:
            tqdm.write(text, file=sys.stderr)
        elif self.plain:
            print(text, file=sys.stderr, flush=True)

    def complain(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    def start(self, source: Input) -> None:
        self._bar.set_postfix_str(source.name)

    def done(self, source: Input, number: int, seconds: float) -> None:
        self._bar.update(1)
        if self.plain:
            self.say(f"[{number}/{self.images}] {source.label} ({seconds:.1f} s)")

    def close(self) -> None:
        self._bar.close()


def _open(task: CommandTask, args: argparse.Namespace, say: Callable[[str], None]) -> MarigoldPipeline:
    checkpoint, variant = args.checkpoint, args.variant
    if checkpoint is None:
        if variant == "fp16":  # the only weights that it has, whatever their files are called
            variant = None
        checkpoint = default_checkpoint(task.name)
        say(
            "marigold: using the small checkpoint in the package, a demonstration; "
            f"for real results: --checkpoint {task.checkpoint}"
        )
    if args.quiet:
        quiet_downloads()
    pipe: MarigoldPipeline = load(
        checkpoint,
        variant=variant,
        dtype=args.dtype,
        device=args.device,
        num_threads=args.threads,
        vae=args.vae,
    )
    command = "iid" if pipe.task == "intrinsics" else pipe.task
    if command != task.name:
        raise ValueError(f"{checkpoint} is a checkpoint for {pipe.task}: use marigold {command}")
    return pipe


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the pipeline's call that are the same for all images, but those of the noise."""
    ensembling = {
        name: getattr(args, name) for name in ("reduction", "solver") if getattr(args, name, None) is not None
    }
    return {
        "num_inference_steps": args.denoise_steps,
        "ensemble_size": args.ensemble_size,
        "processing_resolution": args.processing_res,
        "match_input_resolution": not args.output_processing_res,
        "resample_method_input": args.resample_method,
        "resample_method_output": args.resample_method,
        "batch_size": args.batch_size or 1,
        "output_uncertainty": args.output_uncertainty,
        "ensembling_kwargs": ensembling or None,
        "preset": args.preset,
    }


def _noise(args: argparse.Namespace) -> dict[str, Any]:
    return {"latents": "zeros"} if args.noise == "zeros" else {"generator": args.seed}


@contextmanager
def _warnings_as_lines(progress: _Progress) -> Iterator[None]:
    """What the pipeline warns of, without the places in its code that Python names."""

    def show(message: Warning | str, *_args: Any, **_options: Any) -> None:
        progress.say(f"marigold: warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _check_output(folder: Path) -> None:
    """Before a checkpoint is downloaded; what else may stand in the way shows when the folders are made."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def _say_new_names(inputs: Sequence[Input], progress: _Progress) -> None:
    for source in inputs:
        if source.renamed:
            progress.say(f"marigold: {source.label}: another input has this name; results are named {source.name}")


class _Run:
    """One command on many images: predicts, saves, counts failures and names them."""

    def __init__(
        self,
        task: CommandTask,
        args: argparse.Namespace,
        pipe: MarigoldPipeline,
        inputs: list[Input],
        progress: _Progress,
    ) -> None:
        self.task, self.args, self.pipe, self.inputs, self.progress = task, args, pipe, inputs, progress
        self.failed = 0

    def fail(self, source: Input, error: Exception) -> None:
        self.failed += 1
        self.progress.complain(f"marigold: error: {source.label}: {explain(error)}")

    def finish(self, source: Input, number: int, started: float) -> None:
        self.progress.done(source, number, time.perf_counter() - started)

    def images_by_themselves(self) -> None:
        for number, source in enumerate(self.inputs, 1):
            self.progress.start(source)
            started = time.perf_counter()
            try:
                pixels = read_image(source, self.args.tone_map)
                out = self.pipe(pixels, **_noise(self.args), **_options(self.args))
                self.task.save(Result(out.prediction, out.uncertainty, pixels), source.name, self.pipe, self.args)
            except Exception as error:
                self.fail(source, error)
                continue
            self.finish(source, number, started)

    def one_sequence(self) -> None:
        """Frames that cannot be read are named and left out; the next one goes on from the last that could."""
        read: list[tuple[Input, int, NDArray[np.generic]]] = []

        def frames() -> Iterator[NDArray[np.generic]]:
            for number, source in enumerate(self.inputs, 1):
                self.progress.start(source)
                try:
                    pixels = read_image(source, self.args.tone_map)
                except Exception as error:
                    self.fail(source, error)
                    continue
                read[:] = [(source, number, pixels)]
                yield pixels

        started = time.perf_counter()
        outputs = predict_sequence(self.pipe, frames(), self.args.blend, self.args.seed, **_options(self.args))
        while True:
            try:
                out = next(outputs)
            except StopIteration:
                return
            except Exception as error:  # a generator that raised is at its end
                self.fail(read[0][0], error)
                left = len(self.inputs) - read[0][1]
                self.failed += left
                if left:
                    self.progress.complain(f"marigold: the sequence ends there, {left} before its end")
                return
            source, number, pixels = read[0]
            try:
                self.task.save(Result(out.prediction, out.uncertainty, pixels), source.name, self.pipe, self.args)
            except Exception as error:
                self.fail(source, error)
                continue
            self.finish(source, number, started)
            started = time.perf_counter()


def run_prediction(args: argparse.Namespace, sources: Sequence[str]) -> bool:
    """Whether every image was done; those that were not are named on stderr."""
    task = TASKS[args.task]
    inputs = find_inputs(sources)
    if not inputs:
        raise ValueError(f"no images in {', '.join(sources)}")
    _check_output(args.output_dir)
    progress = _Progress(task.title, len(inputs), args.quiet)
    with closing(progress), _warnings_as_lines(progress):
        pipe = _open(task, args, progress.say)
        pipe.set_progress_bar_config(disable=not progress.on_terminal, leave=False, position=1, desc="steps")
        for folder in task.folders(pipe, args):
            folder.mkdir(parents=True, exist_ok=True)
        _say_new_names(inputs, progress)
        run = _Run(task, args, pipe, inputs, progress)
        if args.sequence:
            run.one_sequence()
        else:
            run.images_by_themselves()
    if run.failed:
        progress.complain(f"marigold: {run.failed} of {len(inputs)} inputs failed")
    else:
        progress.say(f"marigold: {len(inputs)} done, results in {args.output_dir}")
    return not run.failed

"""`marigold depth`, `normals` and `iid`: images in, files out. Called by cli.py with parsed arguments."""

from __future__ import annotations

import argparse
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.files import Input, find_inputs, read_image
from ..loading.folders import default_checkpoint
from ..loading.hub import quiet_downloads
from ..messages import explain
from ..pipelines.pipeline import MarigoldPipeline, load
from ..pipelines.sequences import predict_sequence
from ..progress import CommandProgress
from .tasks import TASKS, CommandTask, Result


def choose_checkpoint(
    task: CommandTask, args: argparse.Namespace, say: Callable[[str], None]
) -> tuple[str | Path, str | None]:
    """The checkpoint and the variant that the flags mean; the shipped one is said in a line."""
    if args.quiet:
        quiet_downloads()
    if args.checkpoint is not None:
        return args.checkpoint, args.variant
    say(
        "marigold: using the small checkpoint in the package, a demonstration; "
        f"for real results: --checkpoint {task.checkpoint}"
    )
    # fp16 are the only weights that it has, whatever their files are called.
    return default_checkpoint(task.name), None if args.variant == "fp16" else args.variant


def open_pipeline(task: CommandTask, checkpoint: str | Path, **options: Any) -> MarigoldPipeline:
    """load(), and ValueError if the checkpoint is for another task than the command."""
    pipe: MarigoldPipeline = load(checkpoint, **options)
    command = "iid" if pipe.task == "intrinsics" else pipe.task
    if command != task.name:
        raise ValueError(f"{checkpoint} is a checkpoint for {pipe.task}: use marigold {command}")
    return pipe


def _open(task: CommandTask, args: argparse.Namespace, say: Callable[[str], None]) -> MarigoldPipeline:
    checkpoint, variant = choose_checkpoint(task, args, say)
    return open_pipeline(
        task,
        checkpoint,
        variant=variant,
        dtype=args.dtype,
        device=args.device,
        num_threads=args.threads,
        vae=args.vae,
    )


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
        "batch_size": args.batch_size,
        "output_uncertainty": args.output_uncertainty,
        "ensembling_kwargs": ensembling or None,
        "preset": args.preset,
    }


def _noise(args: argparse.Namespace) -> dict[str, Any]:
    return {"latents": "zeros"} if args.noise == "zeros" else {"generator": args.seed}


def check_output(folder: Path) -> None:
    """Before a checkpoint is downloaded; what else may stand in the way shows when the folders are made."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def _say_new_names(inputs: Sequence[Input], progress: CommandProgress) -> None:
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
        progress: CommandProgress,
    ) -> None:
        self.task, self.args, self.pipe, self.inputs, self.progress = task, args, pipe, inputs, progress
        self.failed = 0

    def fail(self, source: Input, error: Exception) -> None:
        self.failed += 1
        self.progress.complain(f"marigold: error: {source.label}: {explain(error)}")

    def finish(self, source: Input, number: int, started: float) -> None:
        self.progress.done(source.label, number, time.perf_counter() - started)

    def images_by_themselves(self) -> None:
        for number, source in enumerate(self.inputs, 1):
            self.progress.start(source.name)
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
                self.progress.start(source.name)
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
    check_output(args.output_dir)
    progress = CommandProgress(task.title, len(inputs), args.quiet)
    with closing(progress), progress.warnings_as_lines():
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

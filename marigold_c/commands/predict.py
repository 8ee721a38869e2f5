"""What `marigold depth`, `normals` and `iid` share: their flags, images in, files out. Called by depth.py, normals.py
and iid.py."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.files import Input, read_image
from ..images.readers import LARGEST_PIXELS
from ..images.tone_mapping import TONE_MAPS
from ..pipelines.arguments import LARGEST_ENSEMBLE, PRESETS, RESAMPLE_METHODS
from ..pipelines.opening import open_pipeline
from ..pipelines.pipeline import MarigoldPipeline
from ..pipelines.sequences import predict_sequence
from ..progress import CommandProgress
from .flag_types import (
    SEED,
    add_blend,
    add_model,
    add_steps_and_resolution,
    check_output,
    check_variant,
    choose_checkpoint,
    formats,
    integer,
    opening_options,
)
from .image_runs import ImageRun, add_images, found_images
from .tasks import CommandTask, Result


def _add_files(parser: argparse.ArgumentParser, task: CommandTask) -> None:
    group = parser.add_argument_group("images in, results out")
    add_images(group, "*")
    group.add_argument("--input-rgb-dir", metavar="DIR", help="a folder of images, as prs-eth's scripts take it")
    group.add_argument("-o", "--output-dir", required=True, type=Path, metavar="DIR", help="where the results go")
    group.add_argument(
        "--format",
        type=formats(task.formats),
        default=task.default_formats,
        metavar="LIST",
        help=f"what is written, separated by commas: {', '.join(task.formats)}; png is the picture to look at, the "
        f"others keep the values; default: {','.join(task.default_formats)}",
    )
    group.add_argument(
        "--tone-map",
        choices=("auto", *TONE_MAPS),
        default="auto",
        help="how linear light (EXR, HDR, floating-point TIFF) becomes what a camera shows; auto: percentile for EXR "
        "and HDR, none for TIFF; default: auto",
    )
    group.add_argument(
        "--max-pixels",
        type=integer(1, 2**40),
        default=LARGEST_PIXELS,
        metavar="N",
        help=f"refuse images of more pixels, before they are decoded; default: {LARGEST_PIXELS}",
    )
    group.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out images whose results are all there",
    )
    group.add_argument("--quiet", action="store_true", help="print errors only")
    group.add_argument("--apple-silicon", action="store_true", help="accepted for prs-eth's scripts; has no effect")


class Members(argparse.Action):
    """Stores the number, and that it was given: --hr has another default."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        namespace.ensemble_size = values
        namespace.members_are_given = True


def _add_run(parser: argparse.ArgumentParser, reductions: tuple[str, ...], hr: bool) -> None:
    group = parser.add_argument_group("prediction")
    add_steps_and_resolution(group, "the image's own")
    group.add_argument(
        "--output-processing-res",
        action="store_true",
        help="leave results at that size (they are resized to the image's otherwise)",
    )
    group.add_argument(
        "--resample-method",
        choices=RESAMPLE_METHODS,
        metavar="METHOD",
        help=f"how images and results are resized: {', '.join(RESAMPLE_METHODS)}; default: bilinear, of Lotus' results "
        "nearest-exact",
    )
    group.add_argument(
        "--preset",
        choices=PRESETS,
        default="diffusers",
        help="whose resizing and padding are repeated: of diffusers, or of the paper's code; default: diffusers",
    )
    group.add_argument(
        "--seed",
        type=SEED,
        metavar="N",
        help="where the random noise starts, the same for each image; default: another each time",
    )
    group.add_argument(
        "--noise",
        choices=("gaussian", "zeros"),
        default="gaussian",
        help="what is denoised; zeros for checkpoints of E2E-FT; default: gaussian",
    )
    group = parser.add_argument_group("ensembles")
    group.add_argument(
        "--ensemble-size",
        action=Members,
        type=integer(1, LARGEST_ENSEMBLE),
        default=1,
        metavar="N",
        help=f"how many predictions of each image are merged; default: 1{', with --hr 10' if hr else ''}",
    )
    group.add_argument("--reduction", choices=reductions, help=f"how they are merged; default: {reductions[0]}")
    group.add_argument("--output-uncertainty", action="store_true", help="also write how much they disagree")
    group.add_argument(
        "--batch-size",
        type=integer(0),
        default=0,
        metavar="N",
        help="how many are computed at once; 0: what a GPU's memory holds, 1 on a CPU; default: 0",
    )
    group = parser.add_argument_group("videos")
    group.add_argument(
        "--sequence",
        action="store_true",
        help="the images are frames of a video, in this order: each starts from the last one's result, to flicker less",
    )
    add_blend(group, "--sequence")


def add_arguments(parser: argparse.ArgumentParser, task: CommandTask) -> None:
    """The flags that the three commands share; the command's own follow."""
    parser.usage = f"marigold {task.name} IMAGE [IMAGE ...] -o DIR [options]"
    parser.description = (
        f"Writes {task.about}. Flags may also be written with underscores, as prs-eth's scripts have them."
    )
    _add_files(parser, task)
    add_model(parser, task.checkpoint)
    _add_run(parser, task.reductions, task.name == "depth")


# ---- running ----


def _open(task: CommandTask, args: argparse.Namespace, say: Callable[[str], None]) -> MarigoldPipeline[Any]:
    checkpoint, variant = choose_checkpoint(task.name, task.checkpoint, args, say)
    return open_pipeline(task.name, checkpoint, variant=variant, **opening_options(args), **task.opening(args))


def options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the pipeline's call that are the same for all images, but those of the noise."""
    ensembling = {
        name: getattr(args, name) for name in ("reduction", "solver") if getattr(args, name, None) is not None
    }
    return {
        "num_inference_steps": args.denoise_steps,
        "ensemble_size": args.ensemble_size,
        "processing_resolution": args.processing_res,
        "match_input_resolution": not args.output_processing_res,
        "resample_method_input": args.resample_method or "bilinear",
        "resample_method_output": args.resample_method,
        "batch_size": args.batch_size,
        "output_uncertainty": args.output_uncertainty,
        "ensembling_kwargs": ensembling or None,
        "preset": args.preset,
    }


def noise(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the pipeline's call that say what is denoised."""
    return {"latents": "zeros"} if args.noise == "zeros" else {"generator": args.seed}


class _Run(ImageRun):
    """Predicts and saves."""

    def __init__(
        self,
        task: CommandTask,
        args: argparse.Namespace,
        pipe: MarigoldPipeline[Any],
        inputs: list[Input],
        progress: CommandProgress,
    ) -> None:
        super().__init__(inputs, progress, args.skip_existing)
        self.task, self.args, self.pipe = task, args, pipe

    def files(self, source: Input) -> list[Path]:
        return self.task.files(source.name, self.pipe, self.args)

    def predict(self, source: Input) -> None:
        pixels = read_image(source, self.args.tone_map, self.args.max_pixels, self.note)
        out = self.pipe(pixels, **noise(self.args), **options(self.args), **self.task.options(self.args))
        result = Result(out.prediction, out.uncertainty, pixels, source)
        self.task.save(result, source.name, self.pipe, self.args)

    def one_sequence(self) -> None:
        """Frames that cannot be read are named and left out; the next one goes on from the last that could."""
        read: list[tuple[Input, int, NDArray[np.generic]]] = []

        def frames() -> Iterator[NDArray[np.generic]]:
            for number, source in enumerate(self.inputs, 1):
                self.progress.start(source.name)
                try:
                    pixels = read_image(source, self.args.tone_map, self.args.max_pixels, self.note)
                except Exception as error:
                    self.fail(source, error)
                    continue
                self.is_done(source, self.files(source))
                read[:] = [(source, number, pixels)]
                yield pixels

        started = time.perf_counter()
        outputs = predict_sequence(self.pipe, frames(), self.args.blend, self.args.seed, **options(self.args))
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
                result = Result(out.prediction, out.uncertainty, pixels, source)
                self.task.save(result, source.name, self.pipe, self.args)
            except Exception as error:
                self.fail(source, error)
                continue
            self.finish(source, number, started)
            started = time.perf_counter()


def run(args: argparse.Namespace, task: CommandTask) -> bool:
    """Whether every image was done; those that were not are named on stderr."""
    sources = [*args.images, *([args.input_rgb_dir] if args.input_rgb_dir else [])]
    if not sources:
        args.parser.error("no images: give files, folders, patterns, archives, - or --input-rgb-dir")
    if args.input_rgb_dir and not Path(args.input_rgb_dir).is_dir():
        args.parser.error(f"--input-rgb-dir {args.input_rgb_dir}: no such folder")
    check_variant(args)
    if args.output_uncertainty and task.members(args) < 2:
        args.parser.error("--output-uncertainty needs an --ensemble-size of 2 or more")
    if args.preset == "diffusers" and args.processing_res is not None and args.processing_res % 8:
        args.parser.error(f"--processing-res {args.processing_res} must be a multiple of 8, unless with --preset paper")
    if args.noise == "zeros" and args.sequence:
        args.parser.error("--noise zeros and --sequence exclude each other: frames of a video share noise")
    if args.skip_existing and args.sequence:
        args.parser.error("--skip-existing and --sequence exclude each other: a frame starts from the one before")
    inputs, left_out = found_images(sources)
    check_output(args.output_dir)
    progress = CommandProgress(task.title, len(inputs), args.quiet)
    with closing(progress), progress.warnings_as_lines():
        pipe = _open(task, args, progress.say)
        pipe.set_progress_bar_config(disable=not progress.on_terminal, leave=False, position=1, desc="steps")
        for folder in task.folders(pipe, args):
            folder.mkdir(parents=True, exist_ok=True)
        run = _Run(task, args, pipe, inputs, progress)
        run.begin(left_out)
        if args.sequence:
            run.one_sequence()
        else:
            run.each(run.files, run.predict)
    return run.end(args.output_dir)

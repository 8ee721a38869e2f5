"""`marigold complete`: metres for every pixel of a photograph from measured points of it. Listed in cli.py."""

from __future__ import annotations

import argparse
import math
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..images.files import Input, read_image
from ..images.sparse_depth import MILLIMETRE, SUFFIXES, read_sparse_depth, sparse_map
from ..images.writers import depth_map, uncertainty_map, write_map
from ..pipelines.arguments import LARGEST_ENSEMBLE
from ..pipelines.completion import (
    GUIDED_RESOLUTION,
    GUIDED_STEPS,
    MarigoldDepthCompletionOutput,
    MarigoldDepthCompletionPipeline,
)
from ..progress import CommandProgress
from .completion_flags import EXAMPLE, add_method, check_resolution, method_of, recompute_of
from .flag_types import (
    POSITIVE,
    SEED,
    add_model,
    check_output,
    check_variant,
    choose_checkpoint,
    integer,
    opening_options,
)
from .image_runs import ImageRun, add_images, found_images


def _known(text: str) -> tuple[float, float, float]:
    try:
        x, y, metres = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y,METRES, as 320,240,1.85") from None
    return x, y, metres


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "marigold complete IMAGE [IMAGE ...] (--depth PATH | --known X,Y,METRES ...) -o DIR [options]"
    parser.description = (
        "Writes the distance of every pixel of a photograph in metres, from a few that were measured: guides the "
        "prediction by them (Marigold-DC), or fits scale and shift of an ordinary one. Of many photographs the "
        "measured points lie in a folder, under the photographs' names."
    )
    group = parser.add_argument_group("images and measured points in, metres out")
    add_images(group, "+")
    group.add_argument(
        "--depth",
        type=Path,
        metavar="PATH",
        help=f"measured points of the image: a map of its size, 0 where there is none, or x,y,metres in each line of a "
        f".csv; {', '.join(SUFFIXES)}; or a folder of such files with the images' names",
    )
    group.add_argument(
        "--known",
        type=_known,
        action="append",
        default=[],
        metavar="X,Y,METRES",
        help="one measured point of the one image: column and row in pixels, from 0; may be given again, and beside "
        "--depth",
    )
    group.add_argument(
        "--png-unit",
        type=POSITIVE,
        default=MILLIMETRE,
        metavar="METRES",
        help="what 1 in a PNG of --depth stands for; 0.00390625 for KITTI; default: 0.001, millimetres",
    )
    group.add_argument("-o", "--output-dir", required=True, type=Path, metavar="DIR", help="where the results go")
    group.add_argument("--skip-existing", action="store_true", help="leave out images whose results are all there")
    group.add_argument("--quiet", action="store_true", help="print errors only")
    add_model(parser, EXAMPLE)
    group = parser.add_argument_group("prediction")
    add_method(group)
    group.add_argument(
        "--denoise-steps",
        type=integer(1),
        metavar="N",
        help=f"default: {GUIDED_STEPS}; with --method align the checkpoint's",
    )
    group.add_argument(
        "--ensemble-size",
        type=integer(1, LARGEST_ENSEMBLE),
        default=1,
        metavar="N",
        help="how many predictions are merged; default: 1",
    )
    group.add_argument(
        "--processing-res",
        type=integer(0),
        default=GUIDED_RESOLUTION,
        metavar="N",
        help=f"the longer side in pixels while it is computed; 0: the image's own; default: {GUIDED_RESOLUTION}",
    )
    group.add_argument("--seed", type=SEED, metavar="N", help="of the noise; default: another each time")


def _points_file(folder: Path, source: Input) -> Path:
    """The measured points of an image in a folder of them. ValueError: none, or more than one."""
    found = [path for suffix in SUFFIXES if (path := folder / f"{source.name}{suffix}").is_file()]
    if len(found) != 1:
        names = ", ".join(f"{source.name}{suffix}" for suffix in SUFFIXES)
        have = "none" if not found else "more than one"
        raise ValueError(f"measured points are one of {names} in {folder}; there is {have}")
    return found[0]


def _measured(source: Input, args: argparse.Namespace, height: int, width: int) -> NDArray[np.float32]:
    known = sparse_map(args.known, height, width, name="--known")
    if args.depth is None:
        return known
    path = _points_file(args.depth, source) if args.depth.is_dir() else args.depth
    return np.where(known > 0, known, read_sparse_depth(path, height, width, args.png_unit)).astype(np.float32)


def _result_files(source: Input, args: argparse.Namespace) -> list[Path]:
    """Metres, a picture of them from the nearest to the farthest, and of a guided ensemble how its members differ."""
    endings = ["metres.npy", "metres_colored.png"]
    if args.ensemble_size > 1 and method_of(args) == "guided":
        endings.append("metres_uncertainty.npy")
    return [args.output_dir / f"{source.name}_{ending}" for ending in endings]


def _write(out: MarigoldDepthCompletionOutput, files: list[Path], threads: int | None) -> None:
    metres = out.prediction[0, :, :, 0]
    low, high = float(metres.min()), float(metres.max())
    maps = [(depth_map(metres), "npy"), (depth_map((metres - low) / (high - low or 1.0)), "png")]
    if out.uncertainty is not None:
        maps.append((uncertainty_map(out.uncertainty[0]), "npy"))
    for path, (one, kind) in zip(files, maps, strict=True):
        write_map(path, one, kind, threads)


class _Run(ImageRun):
    """Completes and saves."""

    def __init__(
        self,
        args: argparse.Namespace,
        pipe: MarigoldDepthCompletionPipeline,
        inputs: list[Input],
        progress: CommandProgress,
    ) -> None:
        super().__init__(inputs, progress, args.skip_existing)
        self.args, self.pipe = args, pipe

    def files(self, source: Input) -> list[Path]:
        return _result_files(source, self.args)

    def complete(self, source: Input) -> None:
        args, files = self.args, self.files(source)
        pixels = read_image(source, "auto", say=self.note)
        sparse = _measured(source, args, *pixels.shape[:2])
        out = self.pipe(
            pixels,
            sparse,
            num_inference_steps=args.denoise_steps,
            ensemble_size=args.ensemble_size,
            processing_resolution=args.processing_res,
            generator=args.seed,
            method=method_of(args),
            recompute=recompute_of(args),
        )
        _write(out, files, args.threads)
        count = int(np.count_nonzero(sparse))
        low, high = float(out.prediction.min()), float(out.prediction.max())
        self.note(f"{count} measured points, {low:.3f} m to {high:.3f} m: {', '.join(map(str, files))}")


def _check(args: argparse.Namespace) -> None:
    if args.depth is None and not args.known:
        args.parser.error("no measured points: give --depth PATH or --known X,Y,METRES")
    check_resolution(args)
    if any(not math.isfinite(value) for point in args.known for value in point):
        args.parser.error("--known takes finite numbers")
    check_variant(args)


def run(args: argparse.Namespace) -> bool:
    """Whether every image was done; those that were not are named on stderr."""
    _check(args)
    inputs, left_out = found_images(args.images)
    if len(inputs) > 1 and args.known:
        raise ValueError(f"--known has points of one image; there are {len(inputs)}: --depth FOLDER")
    if len(inputs) > 1 and not args.depth.is_dir():
        raise ValueError(f"--depth {args.depth} is no folder; {len(inputs)} images need one, with a file for each")
    check_output(args.output_dir)
    progress = CommandProgress("Completion", len(inputs), args.quiet)
    with closing(progress), progress.warnings_as_lines():
        checkpoint, variant = choose_checkpoint("depth", EXAMPLE, args, progress.say)
        pipe = MarigoldDepthCompletionPipeline.from_pretrained(checkpoint, variant=variant, **opening_options(args))
        pipe.set_progress_bar_config(disable=not progress.on_terminal, leave=False, position=1, desc="steps")
        args.output_dir.mkdir(parents=True, exist_ok=True)
        run = _Run(args, pipe, inputs, progress)
        run.begin(left_out)
        run.each(run.files, run.complete)
    return run.end(args.output_dir)

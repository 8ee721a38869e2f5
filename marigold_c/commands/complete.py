"""`marigold complete`: metres for every pixel of a photograph from measured points of it. Listed in cli.py."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..images.files import Input, find_inputs, read_image
from ..images.sparse_depth import MILLIMETRE, SUFFIXES, read_sparse_depth, sparse_map
from ..images.writers import depth_map, uncertainty_map, write_map
from ..pipelines.arguments import LARGEST_ENSEMBLE
from ..pipelines.completion import (
    GUIDED_RESOLUTION,
    GUIDED_STEPS,
    METHODS,
    MarigoldDepthCompletionOutput,
    MarigoldDepthCompletionPipeline,
)
from ..progress import CommandProgress
from .flag_types import POSITIVE, SEED, add_model, check_output, check_variant, choose_checkpoint, integer, kind_options

_EXAMPLE = "prs-eth/marigold-depth-v1-0"


def _known(text: str) -> tuple[float, float, float]:
    try:
        x, y, metres = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y,METRES, as 320,240,1.85") from None
    return x, y, metres


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "marigold complete IMAGE (--depth FILE | --known X,Y,METRES ...) -o DIR [options]"
    parser.description = (
        "Writes the distance of every pixel of a photograph in metres, from a few that were measured: guides the "
        "prediction by them (Marigold-DC), or fits scale and shift of an ordinary one."
    )
    group = parser.add_argument_group("image and measured points in, metres out")
    group.add_argument("image", metavar="IMAGE", help='a file, or "-" for standard input')
    group.add_argument(
        "--depth",
        type=Path,
        metavar="FILE",
        help=f"measured points of the image: a map of its size, 0 where there is none, or x,y,metres in each line of a "
        f".csv; {', '.join(SUFFIXES)}",
    )
    group.add_argument(
        "--known",
        type=_known,
        action="append",
        default=[],
        metavar="X,Y,METRES",
        help="one measured point: column and row in pixels, from 0; may be given again, and beside --depth",
    )
    group.add_argument(
        "--png-unit",
        type=POSITIVE,
        default=MILLIMETRE,
        metavar="METRES",
        help="what 1 in a PNG of --depth stands for; 0.00390625 for KITTI; default: 0.001, millimetres",
    )
    group.add_argument("-o", "--output-dir", required=True, type=Path, metavar="DIR", help="where the results go")
    group.add_argument("--quiet", action="store_true", help="print errors only")
    add_model(parser, _EXAMPLE)
    group = parser.add_argument_group("prediction")
    group.add_argument(
        "--method",
        choices=METHODS,
        default=METHODS[0],
        help="guided: gradients through the networks in each step; align: fit an ordinary prediction, at once; "
        "default: guided",
    )
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
    group.add_argument("--recompute", action="store_true", help="take less memory and more time; guided only")


def _measured(args: argparse.Namespace, height: int, width: int) -> NDArray[np.float32]:
    known = sparse_map(args.known, height, width, name="--known")
    if args.depth is None:
        return known
    depth = read_sparse_depth(args.depth, height, width, args.png_unit)
    return np.where(known > 0, known, depth).astype(np.float32)


def _files(out: MarigoldDepthCompletionOutput, source: Input, folder: Path, threads: int | None) -> list[Path]:
    """Writes the metres, and pictures of them from the nearest to the farthest."""
    metres = out.prediction[0, :, :, 0]
    low, high = float(metres.min()), float(metres.max())
    picture = depth_map((metres - low) / (high - low or 1.0))
    written = [folder / f"{source.name}_metres.npy", folder / f"{source.name}_metres_colored.png"]
    write_map(written[0], depth_map(metres), "npy", threads)
    write_map(written[1], picture, "png", threads)
    if out.uncertainty is not None:
        written.append(folder / f"{source.name}_metres_uncertainty.npy")
        write_map(written[-1], uncertainty_map(out.uncertainty[0]), "npy", threads)
    return written


def _complete(source: Input, args: argparse.Namespace, progress: CommandProgress, say: Callable[[str], None]) -> None:
    pixels = read_image(source, "auto", say=lambda line: say(f"marigold: {line}"))
    sparse = _measured(args, *pixels.shape[:2])  # before a checkpoint is opened
    checkpoint, variant = choose_checkpoint("depth", _EXAMPLE, args, say)
    pipe = MarigoldDepthCompletionPipeline.from_pretrained(
        checkpoint,
        variant=variant,
        dtype=args.dtype,
        device=args.device,
        num_threads=args.threads,
        vae=args.vae,
        **kind_options(args),
    )
    pipe.set_progress_bar_config(disable=not progress.on_terminal, leave=False, position=1, desc="steps")
    out = pipe(
        pixels,
        sparse,
        num_inference_steps=args.denoise_steps,
        ensemble_size=args.ensemble_size,
        processing_resolution=args.processing_res,
        generator=args.seed,
        method=args.method,
        recompute=args.recompute,
    )
    written = _files(out, source, args.output_dir, args.threads)
    count = int(np.count_nonzero(sparse))
    low, high = float(out.prediction.min()), float(out.prediction.max())
    say(f"marigold: {count} measured points, {low:.3f} m to {high:.3f} m: {', '.join(map(str, written))}")


def run(args: argparse.Namespace) -> bool:
    if args.depth is None and not args.known:
        args.parser.error("no measured points: give --depth FILE or --known X,Y,METRES")
    if args.processing_res % 8:
        args.parser.error(f"--processing-res {args.processing_res} must be a multiple of 8")
    if any(not math.isfinite(value) for point in args.known for value in point):
        args.parser.error("--known takes finite numbers")
    check_variant(args)
    inputs = find_inputs([args.image], lambda _line: None)
    if len(inputs) != 1:
        raise ValueError(f"{args.image}: {len(inputs)} images; complete takes one at a time")
    check_output(args.output_dir)
    progress = CommandProgress("Completion", 1, args.quiet)
    with closing(progress), progress.warnings_as_lines():
        args.output_dir.mkdir(parents=True, exist_ok=True)
        _complete(inputs[0], args, progress, progress.say)
    return True

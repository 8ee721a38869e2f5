"""The command `marigold`: argument parsing and exit codes. 0: all done; 1: something failed, named on stderr; 2: wrong
usage; 130: interrupted."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import __version__, colormaps
from .arguments import PRESETS, RESAMPLE_METHODS, SOLVERS
from .command_tasks import GEOMETRIES, TASKS
from .inspection import describe, inspect_checkpoint
from .loading import resolve_folder
from .messages import explain
from .pipelines import MarigoldDepthPipeline, MarigoldIntrinsicsPipeline, MarigoldNormalsPipeline
from .point_clouds import ASSUMED_FIELD_OF_VIEW, EDGE_THRESHOLD
from .predict_command import run_prediction
from .tone_mapping import TONE_MAPS
from .writers import FORMATS, check_formats

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
EXIT_INTERRUPTED = 128 + signal.SIGINT


def _add(parser: argparse.ArgumentParser, *names: str, **options: Any) -> None:
    """A flag that can also be written with underscores, as prs-eth's scripts have them."""
    spellings = [spelling for name in names for spelling in dict.fromkeys((name, "--" + name[2:].replace("-", "_")))]
    parser.add_argument(*(s for s in dict.fromkeys(spellings) if s != "--"), **options)


def _at_least(minimum: int) -> Any:
    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is less than {minimum}")
        return value

    parse.__name__ = "integer"  # argparse names it in "invalid integer value"
    return parse


def _seed(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**64:
        raise argparse.ArgumentTypeError(f"{value} does not fit in 64 bits")
    return value


def _formats(allowed: Sequence[str]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not names or any(name not in allowed for name in names):
            raise argparse.ArgumentTypeError(f"{text!r}: choose from {','.join(allowed)}")
        try:
            check_formats([name for name in names if name in FORMATS])
        except ImportError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return names

    return parse


def _color_map(text: str) -> str:
    try:
        colormaps.check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 1")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help='files, folders, patterns, archives (.tar), or "-" for standard input',
    )
    _add(parser, "--input-rgb-dir", metavar="DIR", help="a folder of images, as prs-eth's scripts take it")
    parser.add_argument(
        "-o", "--output-dir", "--output_dir", required=True, type=Path, metavar="DIR", help="where the results go"
    )
    _add(
        parser,
        "--tone-map",
        choices=("auto", *TONE_MAPS),
        default="auto",
        help="linear images (EXR, HDR, float TIFF) to what a camera shows; default: auto, percentile for EXR and HDR",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    _add(parser, "--checkpoint", metavar="PATH", help="folder or hub id; default: the small one in the package")
    _add(parser, "--variant", help="which weight files, for example fp16")
    _add(parser, "--vae", metavar="PATH", help="folder or hub id of an AutoencoderTiny that replaces the VAE")
    _add(parser, "--dtype", default="float32", help="precision of the computation: float32 or auto")
    _add(parser, "--device", default="cpu", help="default: cpu")
    _add(parser, "--threads", type=_at_least(1), metavar="N", help="default: all processors of this process")
    _add(parser, "--half-precision", "--fp16", dest="fp16", action="store_true", help="read the fp16 weight files")
    _add(parser, "--apple-silicon", action="store_true", help="accepted for prs-eth's scripts; has no effect")


def _add_run(parser: argparse.ArgumentParser, reductions: tuple[str, ...]) -> None:
    _add(parser, "--denoise-steps", type=_at_least(1), metavar="N", help="default: the checkpoint's")
    _add(parser, "--ensemble-size", type=_at_least(1), default=1, metavar="N", help="predictions merged; default: 1")
    _add(parser, "--reduction", choices=reductions, help=f"how they are merged; default: {reductions[0]}")
    _add(parser, "--output-uncertainty", action="store_true", help="write the uncertainty of the ensemble")
    _add(
        parser,
        "--processing-res",
        type=_at_least(0),
        metavar="N",
        help="longer side in the network; 0: the image's own",
    )
    _add(parser, "--output-processing-res", action="store_true", help="results at the processing resolution")
    _add(parser, "--resample-method", choices=RESAMPLE_METHODS, default="bilinear", help="default: bilinear")
    _add(
        parser, "--preset", choices=PRESETS, default="diffusers", help="whose resizing is repeated; default: diffusers"
    )
    _add(parser, "--seed", type=_seed, help="the same for each image; default: random")
    _add(parser, "--batch-size", type=_at_least(0), default=0, metavar="N", help="samples at once; 0: automatic")
    _add(parser, "--sequence", action="store_true", help="the images are frames of a video, in this order")
    _add(
        parser,
        "--blend",
        type=_fraction,
        default=0.1,
        metavar="X",
        help="with --sequence: how much of the last frame's latent a frame starts from; default: 0.1",
    )
    _add(parser, "--quiet", action="store_true", help="only errors")


def _add_depth(parser: argparse.ArgumentParser) -> None:
    _add(parser, "--color-map", type=_color_map, default="Spectral", help="Spectral, binary, or one of matplotlib's")
    _add(parser, "--solver", choices=SOLVERS, help="how members of an ensemble are aligned; default: closed-form")
    _add(parser, "--geometry", choices=tuple(GEOMETRIES), default="mesh", help="what ply and glb hold; default: mesh")
    _add(parser, "--focal-length", type=_positive, metavar="PIXELS", help="of the camera, for ply and glb")
    _add(
        parser,
        "--field-of-view",
        type=_positive,
        metavar="DEGREES",
        help=f"across the longer side, for ply and glb; assumed: {ASSUMED_FIELD_OF_VIEW:g}",
    )
    _add(parser, "--near", type=_positive, default=1.0, help="distance of depth 0 in ply and glb; default: 1")
    _add(parser, "--far", type=_positive, default=10.0, help="distance of depth 1 in ply and glb; default: 10")
    _add(parser, "--max-points", type=_at_least(1), metavar="N", help="thins ply and glb to at most so many vertices")
    _add(
        parser,
        "--edge-threshold",
        type=_positive,
        default=EDGE_THRESHOLD,
        metavar="X",
        help=f"meshes are cut where neighbours differ by more than this part of the distance; default: {EDGE_THRESHOLD}",
    )


def _add_normals(parser: argparse.ArgumentParser) -> None:
    for axis in "xyz":
        _add(parser, f"--flip-{axis}", action="store_true", help=f"turn the {axis} axis around in what is written")


_PREDICTIONS: dict[str, tuple[str, tuple[str, ...], Callable[[argparse.ArgumentParser], None] | None]] = {
    "depth": ("depth maps of photographs", MarigoldDepthPipeline._reductions, _add_depth),
    "normals": ("surface normals of photographs", MarigoldNormalsPipeline._reductions, _add_normals),
    "iid": ("intrinsic images of photographs: albedo, shading, ...", MarigoldIntrinsicsPipeline._reductions, None),
}


def _add_prediction(commands: Any, name: str) -> None:
    about, reductions, add_own = _PREDICTIONS[name]
    task = TASKS[name]
    parser = commands.add_parser(name, allow_abbrev=False, help=about, description=f"Writes {about}.")
    _add_images(parser)
    _add_model(parser)
    _add_run(parser, reductions)
    if add_own:
        add_own(parser)
    _add(
        parser,
        "--format",
        type=_formats(task.formats),
        default=task.default_formats,
        metavar="LIST",
        help=f"of {','.join(task.formats)}; default: {','.join(task.default_formats)}",
    )
    parser.set_defaults(run=_predict, task=name, parser=parser)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="marigold", allow_abbrev=False, description="Marigold: dense predictions from a photograph, without torch."
    )
    parser.add_argument("--version", action="version", version=f"marigold {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in _PREDICTIONS:
        _add_prediction(commands, name)
    info = commands.add_parser("info", allow_abbrev=False, help="what a checkpoint holds")
    info.add_argument("checkpoint", metavar="CHECKPOINT", help="folder or hub id")
    info.add_argument("--json", action="store_true", help="machine-readable")
    info.set_defaults(run=_info, parser=info)
    return parser


def _predict(args: argparse.Namespace) -> int:
    sources = [*args.images, *([args.input_rgb_dir] if args.input_rgb_dir else [])]
    if not sources:
        args.parser.error("no images: give files, folders, patterns, archives, - or --input-rgb-dir")
    if args.input_rgb_dir and not Path(args.input_rgb_dir).is_dir():
        args.parser.error(f"--input-rgb-dir {args.input_rgb_dir}: no such folder")
    if args.fp16 and args.variant not in (None, "fp16"):
        args.parser.error(f"--fp16 and --variant {args.variant} exclude each other")
    if args.output_uncertainty and args.ensemble_size < 2:
        args.parser.error("--output-uncertainty needs an --ensemble-size of 2 or more")
    if args.preset == "diffusers" and args.processing_res is not None and args.processing_res % 8:
        args.parser.error(f"--processing-res {args.processing_res} is not a multiple of 8, which --preset paper allows")
    if args.task == "depth" and args.near >= args.far:
        args.parser.error(f"--near {args.near:g} is not less than --far {args.far:g}")
    if args.task == "depth" and args.focal_length is not None and args.field_of_view is not None:
        args.parser.error("--focal-length and --field-of-view say the same thing; give one of them")
    if args.fp16:
        args.variant = "fp16"
    return EXIT_DONE if run_prediction(args, sources) else EXIT_FAILED


def _info(args: argparse.Namespace) -> int:
    facts = inspect_checkpoint(resolve_folder(args.checkpoint))
    print(json.dumps(facts, indent=2) if args.json else describe(facts))
    return EXIT_DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code; errors are one line on stderr."""
    try:
        args = _parser().parse_args(arguments)
        return int(args.run(args))
    except SystemExit as leaving:  # argparse: --help, --version, wrong usage
        return int(leaving.code or 0)
    except KeyboardInterrupt:
        print("marigold: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        print(f"marigold: error: {explain(error)}", file=sys.stderr)
        return EXIT_FAILED

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

from .. import __version__
from ..images import colormaps
from ..images.point_clouds import ASSUMED_FAR, ASSUMED_FIELD_OF_VIEW, ASSUMED_NEAR, EDGE_THRESHOLD
from ..images.tone_mapping import TONE_MAPS
from ..images.writers import FORMATS, check_formats
from ..loading.conversion import convert, verify
from ..loading.folders import resolve_folder
from ..loading.inspection import describe, inspect_checkpoint
from ..messages import explain
from ..pipelines.arguments import LARGEST_ENSEMBLE, PRESETS, RESAMPLE_METHODS, SOLVERS
from ..pipelines.pipeline import MarigoldDepthPipeline, MarigoldIntrinsicsPipeline, MarigoldNormalsPipeline
from .bench import run_bench
from .evaluation_flags import add_evaluation_commands
from .flag_types import POSITIVE, SEED, add_model, check_variant, integer, number
from .predict import run_prediction
from .prepare import add_prepare_command
from .tasks import GEOMETRIES, TASKS
from .train_flags import add_train_command

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
EXIT_INTERRUPTED = 128 + signal.SIGINT


def _with_dashes(arguments: Sequence[str]) -> list[str]:
    """prs-eth's scripts write --output_dir, this command --output-dir: flags (not their values) in the second way."""
    spelled, flags = [], True
    for argument in arguments:
        flags = flags and argument != "--"
        name, equals, value = argument.partition("=")
        spelled.append(name.replace("_", "-") + equals + value if flags and name.startswith("--") else argument)
    return spelled


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


def _add_files(parser: argparse.ArgumentParser, name: str) -> None:
    task = TASKS[name]
    group = parser.add_argument_group("images in, results out")
    group.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help='files, folders (their images in order of names), patterns, archives (.tar), or "-" for standard input',
    )
    group.add_argument("--input-rgb-dir", metavar="DIR", help="a folder of images, as prs-eth's scripts take it")
    group.add_argument("-o", "--output-dir", required=True, type=Path, metavar="DIR", help="where the results go")
    group.add_argument(
        "--format",
        type=_formats(task.formats),
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
    group.add_argument("--quiet", action="store_true", help="print errors only")
    group.add_argument("--apple-silicon", action="store_true", help="accepted for prs-eth's scripts; has no effect")


def _add_run(parser: argparse.ArgumentParser, reductions: tuple[str, ...]) -> None:
    group = parser.add_argument_group("prediction")
    group.add_argument(
        "--denoise-steps", type=integer(1), metavar="N", help="steps of denoising; default: the checkpoint's"
    )
    group.add_argument(
        "--processing-res",
        type=integer(0),
        metavar="N",
        help="the longer side in pixels while it is computed; 0: the image's own; default: the checkpoint's",
    )
    group.add_argument(
        "--output-processing-res",
        action="store_true",
        help="leave results at that size (they are resized to the image's otherwise)",
    )
    group.add_argument(
        "--resample-method",
        choices=RESAMPLE_METHODS,
        default="bilinear",
        metavar="METHOD",
        help=f"how images and results are resized: {', '.join(RESAMPLE_METHODS)}; default: bilinear",
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
        type=integer(1, LARGEST_ENSEMBLE),
        default=1,
        metavar="N",
        help="how many predictions of each image are merged; default: 1",
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
    group.add_argument(
        "--blend",
        type=number(lambda value: 0 <= value <= 1, "between 0 and 1"),
        default=0.1,
        metavar="X",
        help="with --sequence: how much of the last frame, from 0 to 1; default: 0.1",
    )


def _add_depth(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("depth")
    group.add_argument(
        "--color-map",
        type=_color_map,
        default="Spectral",
        metavar="NAME",
        help="of the picture: Spectral, binary, or one of matplotlib's; default: Spectral",
    )
    group.add_argument(
        "--solver",
        choices=SOLVERS,
        help="how the members of an ensemble are aligned; reference: as in diffusers and the paper's code, to repeat "
        "old runs; default: closed-form",
    )
    group = parser.add_argument_group(
        "shapes", "What --format ply and glb write. Depth has no unit: distances are assumed."
    )
    group.add_argument("--geometry", choices=tuple(GEOMETRIES), default="mesh", help="default: mesh")
    group.add_argument("--focal-length", type=POSITIVE, metavar="PIXELS", help="of the camera, in pixels of the image")
    group.add_argument(
        "--field-of-view",
        type=number(lambda value: 0 < value < 180, "between 0 and 180"),
        metavar="DEGREES",
        help=f"of the camera, across the longer side, instead of the focal length; default: {ASSUMED_FIELD_OF_VIEW:g}",
    )
    group.add_argument(
        "--near", type=POSITIVE, default=ASSUMED_NEAR, metavar="X", help=f"nearest distance; default: {ASSUMED_NEAR:g}"
    )
    group.add_argument(
        "--far", type=POSITIVE, default=ASSUMED_FAR, metavar="X", help=f"farthest distance; default: {ASSUMED_FAR:g}"
    )
    group.add_argument(
        "--max-points", type=integer(1), metavar="N", help="take fewer pixels, so that at most N points result"
    )
    group.add_argument(
        "--edge-threshold",
        type=number(lambda value: value > 0, "a positive number"),
        default=EDGE_THRESHOLD,
        metavar="X",
        help="cut meshes where distances of neighbours differ by more than this part of them; inf: never; "
        f"default: {EDGE_THRESHOLD:g}",
    )


def _add_normals(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("normals")
    for axis, meaning in {"x": "to the right", "y": "up", "z": "towards the camera"}.items():
        group.add_argument(
            f"--flip-{axis}",
            action="store_true",
            help=f"turn the {axis} axis around ({meaning} otherwise), in all files",
        )


_PREDICTIONS: dict[str, tuple[str, tuple[str, ...], Callable[[argparse.ArgumentParser], None] | None]] = {
    "depth": ("depth maps of photographs", MarigoldDepthPipeline._reductions, _add_depth),
    "normals": ("surface normals of photographs", MarigoldNormalsPipeline._reductions, _add_normals),
    "iid": ("intrinsic images of photographs: albedo, shading, ...", MarigoldIntrinsicsPipeline._reductions, None),
}


def _add_prediction(commands: Any, name: str) -> None:
    about, reductions, add_own = _PREDICTIONS[name]
    parser = commands.add_parser(
        name,
        allow_abbrev=False,
        usage=f"marigold {name} IMAGE [IMAGE ...] -o DIR [options]",
        help=about,
        description=f"Writes {about}. Flags may also be written with underscores, as prs-eth's scripts have them.",
    )
    _add_files(parser, name)
    add_model(parser, TASKS[name].checkpoint)
    _add_run(parser, reductions)
    if add_own:
        add_own(parser)
    parser.set_defaults(run=_predict, task=name, parser=parser)


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        allow_abbrev=False,
        help="pack a checkpoint into one file that opens at once",
        description="Packs a checkpoint into one file, its weights as this processor reads them: it opens without "
        "re-ordering them. Other processors open it, too, and re-order the weights then.",
    )
    parser.add_argument("src", metavar="SRC", help="folder, hub id or packed file")
    parser.add_argument("dst", metavar="DST", help="the file to write, for example depth.safetensors")
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        help="precision: float32, bfloat16 or int8; default: that of a packed file, else float32",
    )
    parser.add_argument("--variant", metavar="NAME", help="which weight files, for example fp16")
    parser.add_argument("--vae", metavar="PATH", help="folder or hub id of an AutoencoderTiny, in the place of the VAE")
    parser.add_argument("--force", action="store_true", help="replace DST if it exists")
    parser.add_argument(
        "--threads", type=integer(1), metavar="N", help="how many work; default: all processors of this process"
    )
    parser.set_defaults(run=_convert, parser=parser)


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        allow_abbrev=False,
        help="how fast this machine is",
        description="Measures this machine and the stages of a checkpoint on it, at 576x768, in under a minute.",
    )
    parser.add_argument("--checkpoint", metavar="PATH", help="folder or hub id; default: the small one in the package")
    parser.add_argument("--variant", metavar="NAME", help="which weight files, for example fp16")
    parser.add_argument("--dtype", metavar="TYPE", help="precision; default: that of a packed file, else float32")
    parser.add_argument("--threads", type=integer(1), metavar="N", help="default: all processors of this process")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.set_defaults(run=_bench, parser=parser)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="marigold", allow_abbrev=False, description="Marigold: dense predictions from a photograph, without torch."
    )
    parser.add_argument("--version", action="version", version=f"marigold {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in _PREDICTIONS:
        _add_prediction(commands, name)
    add_evaluation_commands(commands)
    _add_convert(commands)
    info = commands.add_parser("info", allow_abbrev=False, help="what a checkpoint holds")
    info.add_argument("checkpoint", metavar="CHECKPOINT", help="folder, packed file or hub id")
    info.add_argument(
        "--verify", action="store_true", help="read every weight of a packed file and compare it with its checksum"
    )
    info.add_argument("--json", action="store_true", help="machine-readable")
    info.set_defaults(run=_info, parser=info)
    add_train_command(commands)
    add_prepare_command(commands)
    _add_bench(commands)
    return parser


def _predict(args: argparse.Namespace) -> int:
    sources = [*args.images, *([args.input_rgb_dir] if args.input_rgb_dir else [])]
    if not sources:
        args.parser.error("no images: give files, folders, patterns, archives, - or --input-rgb-dir")
    if args.input_rgb_dir and not Path(args.input_rgb_dir).is_dir():
        args.parser.error(f"--input-rgb-dir {args.input_rgb_dir}: no such folder")
    check_variant(args)
    if args.output_uncertainty and args.ensemble_size < 2:
        args.parser.error("--output-uncertainty needs an --ensemble-size of 2 or more")
    if args.preset == "diffusers" and args.processing_res is not None and args.processing_res % 8:
        args.parser.error(f"--processing-res {args.processing_res} is not a multiple of 8, which --preset paper allows")
    if args.noise == "zeros" and args.sequence:
        args.parser.error("--noise zeros and --sequence exclude each other: frames of a video share noise")
    if args.task == "depth" and args.near >= args.far:
        args.parser.error(f"--near {args.near:g} is not less than --far {args.far:g}")
    if args.task == "depth" and args.focal_length is not None and args.field_of_view is not None:
        args.parser.error("--focal-length and --field-of-view say the same thing; give one of them")
    return EXIT_DONE if run_prediction(args, sources) else EXIT_FAILED


def _convert(args: argparse.Namespace) -> int:
    path = convert(
        args.src,
        args.dst,
        dtype=args.dtype,
        variant=args.variant,
        force=args.force,
        num_threads=args.threads,
        vae=args.vae,
    )
    packed = inspect_checkpoint(path)["packed"]
    print(f"{path}: {packed['bytes'] / 1e6:.1f} MB, {packed['dtype']} for {packed['isa']}")
    return EXIT_DONE


def _info(args: argparse.Namespace) -> int:
    checkpoint = resolve_folder(args.checkpoint)
    facts = inspect_checkpoint(checkpoint)
    if args.verify:
        verify(checkpoint)
        facts["verified"] = True
    print(json.dumps(facts, indent=2) if args.json else describe(facts))
    return EXIT_DONE


def _bench(args: argparse.Namespace) -> int:
    run_bench(args)
    return EXIT_DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code; errors are one line on stderr."""
    try:
        words = _with_dashes(sys.argv[1:] if arguments is None else arguments)
        args, unknown = _parser().parse_known_args(words)
        if unknown:  # said by the command's own parser, with its usage
            args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        return int(args.run(args))
    except SystemExit as leaving:  # argparse: --help, --version, wrong usage
        return int(leaving.code or 0)
    except KeyboardInterrupt:
        print("marigold: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        print(f"marigold: error: {explain(error)}", file=sys.stderr)
        return EXIT_FAILED

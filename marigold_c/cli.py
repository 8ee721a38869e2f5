"""The command `marigold`: argument parsing and exit codes. 0: all done; 1: something failed, named on stderr; 2: wrong
usage; 130: interrupted."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__, colormaps
from .arguments import RESAMPLE_METHODS
from .depth_command import FORMATS, run_depth
from .inspection import describe, inspect_checkpoint
from .loading import resolve_folder
from .messages import explain

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


def _resolution(text: str) -> int:
    value = _at_least(0)(text)
    if value % 8:
        raise argparse.ArgumentTypeError(f"{value} is not a multiple of 8")
    return int(value)


def _seed(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**64:
        raise argparse.ArgumentTypeError(f"{value} does not fit in 64 bits")
    return value


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{text!r}: choose from {','.join(FORMATS)}")
    return names


def _color_map(text: str) -> str:
    try:
        colormaps.check_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _ensemble(text: str) -> int:
    value = int(_at_least(1)(text))
    if value > 1:
        raise argparse.ArgumentTypeError(f"{value}: ensembling is not supported yet, use 1")
    return value


def _add_depth(commands: Any) -> None:
    parser = commands.add_parser(
        "depth",
        allow_abbrev=False,
        help="depth maps of photographs",
        description="Writes the depth maps of photographs.",
    )
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help='files, folders, patterns, or "-" for standard input'
    )
    _add(parser, "--input-rgb-dir", metavar="DIR", help="a folder of images, as prs-eth's script takes it")
    parser.add_argument(
        "-o", "--output-dir", "--output_dir", required=True, type=Path, metavar="DIR", help="where the results go"
    )
    _add(parser, "--checkpoint", metavar="PATH", help="folder or hub id; default: the small one in the package")
    _add(parser, "--variant", help="which weight files, for example fp16")
    _add(parser, "--dtype", default="float32", help="precision of the computation: float32 or auto")
    _add(parser, "--device", default="cpu", help="default: cpu")
    _add(parser, "--threads", type=_at_least(1), metavar="N", help="default: all processors of this process")
    _add(parser, "--denoise-steps", type=_at_least(1), metavar="N", help="default: the checkpoint's")
    _add(parser, "--ensemble-size", type=_ensemble, default=1, metavar="N", help="1; ensembling is not supported yet")
    _add(
        parser, "--processing-res", type=_resolution, metavar="N", help="longer side in the network; 0: the image's own"
    )
    _add(parser, "--output-processing-res", action="store_true", help="results at the processing resolution")
    _add(parser, "--resample-method", choices=RESAMPLE_METHODS, default="bilinear", help="default: bilinear")
    _add(parser, "--seed", type=_seed, help="the same for each image; default: random")
    _add(parser, "--batch-size", type=_at_least(0), default=0, metavar="N", help="samples at once; 0: automatic")
    _add(parser, "--color-map", type=_color_map, default="Spectral", help="Spectral, binary, or one of matplotlib's")
    _add(parser, "--half-precision", "--fp16", dest="fp16", action="store_true", help="read the fp16 weight files")
    _add(
        parser, "--format", type=_formats, default=FORMATS, metavar="LIST", help=f"of {','.join(FORMATS)}; default: all"
    )
    _add(parser, "--apple-silicon", action="store_true", help="accepted for prs-eth's scripts; has no effect")
    _add(parser, "--quiet", action="store_true", help="only errors")
    parser.set_defaults(run=_depth, parser=parser)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="marigold", allow_abbrev=False, description="Marigold: dense predictions from a photograph, without torch."
    )
    parser.add_argument("--version", action="version", version=f"marigold {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_depth(commands)
    info = commands.add_parser("info", allow_abbrev=False, help="what a checkpoint holds")
    info.add_argument("checkpoint", metavar="CHECKPOINT", help="folder or hub id")
    info.add_argument("--json", action="store_true", help="machine-readable")
    info.set_defaults(run=_info, parser=info)
    return parser


def _depth(args: argparse.Namespace) -> int:
    sources = [*args.images, *([args.input_rgb_dir] if args.input_rgb_dir else [])]
    if not sources:
        args.parser.error("no images: give files, folders, patterns, - or --input-rgb-dir")
    if args.input_rgb_dir and not Path(args.input_rgb_dir).is_dir():
        args.parser.error(f"--input-rgb-dir {args.input_rgb_dir}: no such folder")
    if args.fp16 and args.variant not in (None, "fp16"):
        args.parser.error(f"--fp16 and --variant {args.variant} exclude each other")
    if args.fp16:
        args.variant = "fp16"
    return EXIT_DONE if run_depth(args, sources) else EXIT_FAILED


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

"""The command `marigold`: the table of its subcommands, and exit codes. 0: all done; 1: something failed, named on
stderr; 2: wrong usage; 130: interrupted.

A subcommand is a module beside this one with add_arguments(parser) and run(args), which says whether all was done. Only
the one that is asked for is imported.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from .._C import __version__
from ..messages import explain, suggestion

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
EXIT_INTERRUPTED = 128 + signal.SIGINT

COMMANDS = {
    "depth": "depth maps of photographs",
    "normals": "surface normals of photographs",
    "iid": "intrinsic images of photographs: albedo, shading, ...",
    "video": "depth or surface normals of a video",
    "app": "a page in the browser",
    "complete": "metres for every pixel of a photograph from measured points",
    "infer": "predictions for a data set",
    "eval": "metrics of predictions for a data set",
    "convert": "pack a checkpoint into one file that opens at once",
    "info": "what a checkpoint holds",
    "train": "fine-tune a checkpoint",
    "prepare": "make training data: render scenes, or convert published data sets",
    "bench": "how fast this machine is",
}


class _Parser(argparse.ArgumentParser):
    """Of the values that an argument may have, the one that was probably meant is named."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            raise argparse.ArgumentError(
                action, f"{error.message}{suggestion(str(value), map(str, action.choices or ()))}"
            ) from None


def _unrecognized(parser: argparse.ArgumentParser, words: Sequence[str]) -> str:
    flags = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", parser.format_help()))
    meant = next((near for word in words if word.startswith("-") and (near := suggestion(word, flags))), "")
    return f"unrecognized arguments: {' '.join(words)}{meant}"


def _with_dashes(arguments: Sequence[str]) -> list[str]:
    """prs-eth's scripts write --output_dir, this command --output-dir: flags (not their values) in the second way."""
    spelled, flags = [], True
    for argument in arguments:
        flags = flags and argument != "--"
        name, equals, value = argument.partition("=")
        spelled.append(name.replace("_", "-") + equals + value if flags and name.startswith("--") else argument)
    return spelled


def _subcommand(name: str) -> Any:
    return import_module(f".{name}", __package__)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of the subcommand that is named, with `run`, the function to call with them, and `parser`, its own."""
    words = _with_dashes(arguments)
    top = _Parser(
        prog="marigold", allow_abbrev=False, description="Marigold: dense predictions from a photograph, without torch."
    )
    top.add_argument("--version", action="version", version=f"marigold {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, about in COMMANDS.items():
        parser = commands.add_parser(name, allow_abbrev=False, help=about)
        if name == chosen:
            subcommand = _subcommand(name)
            parser.set_defaults(run=subcommand.run, parser=parser)
            subcommand.add_arguments(parser)
    args, unknown = top.parse_known_args(words)
    if unknown:  # said by the command's own parser, with its usage
        args.parser.error(_unrecognized(args.parser, [word.partition("=")[0] for word in unknown]))
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code; errors are one line on stderr."""
    try:
        args = parse(sys.argv[1:] if arguments is None else arguments)
        return EXIT_DONE if args.run(args) else EXIT_FAILED
    except SystemExit as leaving:  # argparse: --help, --version, wrong usage
        return int(leaving.code or 0)
    except KeyboardInterrupt:
        print("marigold: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        print(f"marigold: error: {explain(error)}", file=sys.stderr)
        return EXIT_FAILED

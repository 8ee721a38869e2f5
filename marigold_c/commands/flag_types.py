"""What several commands' flags share: types of values, the flags of the checkpoint and the machine. Called by cli.py
and evaluation/flags.py."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any


def integer(minimum: int, maximum: int = 2**31 - 1) -> Any:
    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is less than {minimum}")
        if value > maximum:
            raise argparse.ArgumentTypeError(f"{value} is more than {maximum}")
        return value

    parse.__name__ = "integer"  # argparse names it in "invalid integer value"
    return parse


def number(allowed: Callable[[float], bool], what: str) -> Any:
    def parse(text: str) -> float:
        value = float(text)
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"{text} is not {what}")
        return value

    parse.__name__ = "number"
    return parse


POSITIVE = number(lambda value: 0 < value < math.inf, "a positive number")
SEED = integer(-(2**63), 2**64 - 1)


def add_model(parser: argparse.ArgumentParser, example: str) -> None:
    """Which checkpoint is opened and how. example: a hub id that the help shows."""
    group = parser.add_argument_group("checkpoint and machine")
    group.add_argument(
        "--checkpoint",
        metavar="PATH",
        help=f"folder, packed file or hub id, for example {example}; default: the small one in the package, a "
        "demonstration",
    )
    group.add_argument("--variant", metavar="NAME", help="which weight files, for example fp16")
    group.add_argument(
        "--vae", metavar="PATH", help="folder or hub id of an AutoencoderTiny, instead of the checkpoint's VAE"
    )
    group.add_argument(
        "--dtype",
        metavar="TYPE",
        help="precision: float32, bfloat16, int8, on a GPU also float16, or auto; default: that of a packed file, else "
        "float32",
    )
    group.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="what computes: cpu, cuda or, of several GPUs, cuda:1; default: cpu",
    )
    group.add_argument(
        "--threads", type=integer(1), metavar="N", help="how many compute; default: all processors of this process"
    )
    group.add_argument(
        "--half-precision", "--fp16", dest="fp16", action="store_true", help="the same as --variant fp16"
    )


def check_variant(args: argparse.Namespace) -> None:
    """--fp16 as the variant that it means."""
    if args.fp16 and args.variant not in (None, "fp16"):
        args.parser.error(f"--fp16 and --variant {args.variant} exclude each other")
    if args.fp16:
        args.variant = "fp16"

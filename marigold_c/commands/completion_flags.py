"""The flags of depth completion that `marigold complete` and `marigold infer completion` share."""

from __future__ import annotations

import argparse
from typing import Any

from ..pipelines.completion import METHODS

RECOMPUTE: dict[str, bool | str] = {"auto": "auto", "off": False, "unet": "unet", "on": True}
EXAMPLE = "prs-eth/marigold-depth-v1-0"  # what the authors complete with


def add_method(group: Any) -> None:
    group.add_argument(
        "--method",
        choices=METHODS,
        metavar="NAME",
        help="of completion: guided in each step, or align afterwards, at once; default: guided",
    )
    group.add_argument(
        "--recompute",
        choices=RECOMPUTE,
        metavar="WHAT",
        help="what a guided step computes twice for less memory: off, unet, on (both networks), auto (what memory "
        "asks for); default: auto",
    )


def recompute_of(args: argparse.Namespace) -> bool | str:
    return RECOMPUTE[args.recompute or "auto"]


def method_of(args: argparse.Namespace) -> str:
    return str(args.method or METHODS[0])


def check_resolution(args: argparse.Namespace) -> None:
    if (args.processing_res or 0) % 8:
        args.parser.error(f"--processing-res {args.processing_res} must be a multiple of 8")

"""The flags of depth completion that `marigold complete` and `marigold infer completion` share."""

from __future__ import annotations

import argparse
from typing import Any

from ..pipelines.completion import METHODS

EXAMPLE = "prs-eth/marigold-depth-v1-0"  # what the authors complete with


def add_method(group: Any) -> None:
    group.add_argument(
        "--method",
        choices=METHODS,
        help="of completion; guided: gradients through the networks in each step; align: fit an ordinary prediction, "
        "at once; default: guided",
    )
    group.add_argument(
        "--recompute", action="store_true", help="of --method guided: take less memory and more time for it"
    )


def method_of(args: argparse.Namespace) -> str:
    return str(args.method or METHODS[0])


def check_resolution(args: argparse.Namespace) -> None:
    if (args.processing_res or 0) % 8:
        args.parser.error(f"--processing-res {args.processing_res} must be a multiple of 8")

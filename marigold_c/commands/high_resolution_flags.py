"""The flags of `marigold depth --hr`, and what they mean to the pipeline. Called by depth.py."""

from __future__ import annotations

import argparse
from typing import Any

from ..pipelines.arguments import LARGEST_ENSEMBLE
from ..pipelines.high_resolution import BOOSTED_MEMBERS, MEMBERS, STEPS, TILE_SIZE, UPSCALE_FACTOR
from .flag_types import integer, number

CHECKPOINT = "prs-eth/marigold-depth-hr-v1-1"
# Flags that mean nothing without --hr, and their defaults.
_DEFAULTS: dict[str, Any] = {
    "upscale_factor": UPSCALE_FACTOR,
    "boosted_denoise_steps": None,
    "boosted_ensemble_size": BOOSTED_MEMBERS,
    "tile_size": TILE_SIZE,
    "tile_overlap": None,
    "boosting_inputs": None,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "high resolution",
        "An ordinary prediction, enlarged, is made finer by a second UNet in overlapping tiles (Marigold-HR).",
    )
    group.add_argument(
        "--hr",
        action="store_true",
        help=f"refine the prediction; needs a --checkpoint of Marigold-HR, as {CHECKPOINT}",
    )
    group.add_argument(
        "--upscale-factor",
        type=number(lambda value: 1 <= value < 100, "from 1 to 100"),
        metavar="X",
        help=f"the longer side of the refinement, in that of the prediction; default: {UPSCALE_FACTOR:g}",
    )
    group.add_argument(
        "--boosted-denoise-steps",
        type=integer(1),
        metavar="N",
        help=f"steps of the refinement; default: the checkpoint's, else {STEPS}",
    )
    group.add_argument(
        "--boosted-ensemble-size",
        type=integer(1, LARGEST_ENSEMBLE),
        metavar="N",
        help=f"how many refinements are merged; default: {BOOSTED_MEMBERS}",
    )
    group.add_argument(
        "--tile-size",
        type=integer(8),
        metavar="PIXELS",
        help=f"side of the tiles, a multiple of 8; default: {TILE_SIZE}",
    )
    group.add_argument(
        "--tile-overlap",
        type=integer(0),
        metavar="PIXELS",
        help="of two tiles, a multiple of 8; default: half of a tile",
    )
    group.add_argument(
        "--boosting-inputs",
        metavar="LIST",
        help="the order in which the second UNet takes its latents; default: as the checkpoint says, else "
        "image,coarse,sample",
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def check(args: argparse.Namespace) -> None:
    """Fills in the defaults; ends with what is wrong."""
    given = [_flag(name) for name in _DEFAULTS if getattr(args, name) is not None]
    if not args.hr and given:
        args.parser.error(f"{', '.join(given)}: for --hr")
    for name, default in _DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    if not args.hr:
        return
    if "members_are_given" not in args:
        args.ensemble_size = MEMBERS
    if args.checkpoint is None:
        args.parser.error(f"--hr needs a --checkpoint of Marigold-HR, for example {CHECKPOINT}")
    if args.sequence:
        args.parser.error("--hr and --sequence exclude each other: a frame starts from a latent of the size before")
    for name in ("tile_size", "tile_overlap"):
        if (getattr(args, name) or 0) % 8:
            args.parser.error(f"{_flag(name)} {getattr(args, name)} must be a multiple of 8")
    if args.tile_overlap is not None and args.tile_overlap >= args.tile_size:
        args.parser.error(f"--tile-overlap {args.tile_overlap} must be less than --tile-size {args.tile_size}")


def opening(args: argparse.Namespace) -> dict[str, Any]:
    """Options of open_pipeline."""
    if args.hr and args.boosting_inputs is not None:
        return {"high_resolution": True, "boosting_inputs": args.boosting_inputs}
    return {"high_resolution": args.hr}


def options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the pipeline's call."""
    if not args.hr:
        return {}
    return {
        "boosted_num_inference_steps": args.boosted_denoise_steps,
        "boosted_ensemble_size": args.boosted_ensemble_size,
        "boosted_latents": "zeros" if args.noise == "zeros" else None,
        "upscale_factor": args.upscale_factor,
        "tile_size": args.tile_size,
        "tile_overlap": args.tile_overlap,
    }


def members(args: argparse.Namespace) -> int:
    """Of the ensemble whose uncertainty is told."""
    size: int = args.boosted_ensemble_size if args.hr else args.ensemble_size
    return size

"""`marigold depth`: depth maps of photographs, as values, pictures and shapes. Listed in cli.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..images.files import field_of_view
from ..images.geometry_files import GEOMETRY_FORMATS
from ..images.point_clouds import (
    ASSUMED_FAR,
    ASSUMED_FIELD_OF_VIEW,
    ASSUMED_NEAR,
    EDGE_THRESHOLD,
    Geometry,
    depth_to_mesh,
    depth_to_points,
)
from ..images.relief import MEDIANS, depth_to_relief
from ..images.writers import FORMATS, Map, depth_map
from ..pipelines.arguments import SOLVERS
from ..pipelines.pipeline import MarigoldPipeline
from ..pipelines.tasks import MarigoldDepthPipeline
from . import high_resolution_flags, predict
from .flag_types import PART, POSITIVE, color_map, integer, number, optional
from .tasks import CommandTask, Result, one_uncertainty

MAX_POINTS = 2_000_000  # a mesh of 48 million would have 2 GB
# Flags of the relief: type, default, what it is.
RELIEF: dict[str, tuple[Callable[[str], Any], Any, str]] = {
    "near_plane": (PART, 0.0, "what is nearer than this part of the depths is cut off flat"),
    "far_plane": (PART, 1.0, "what is further away, too"),
    "embossing": (PART, 0.2, "height of the nearest over the farthest, as a part of the longer side"),
    "size": (POSITIVE, 10.0, "longest side, in centimetres"),
    "pixels": (integer(2), 512, "of the longer side, at most"),
    "median": (integer(1), 3, f"width of the filter against spikes: {', '.join(map(str, MEDIANS))}"),
    "frame": (PART, 0.05, "width of the frame, as a part of the longer side; 0: none"),
    "frame_near": (number(lambda value: -1 <= value <= 1, "between -1 and 1"), 0.01, "the frame over the nearest"),
    "frame_far": (number(lambda value: 0 < value <= 1, "above 0 and at most 1"), 0.01, "thickness of the plate"),
}
GEOMETRIES: dict[str, Callable[..., Geometry]] = {"mesh": depth_to_mesh, "points": depth_to_points}


def _depth_maps(result: Result, _pipe: MarigoldPipeline[Any], args: argparse.Namespace) -> dict[str, Map]:
    return {"": depth_map(result.prediction[0], args.color_map)}


def _relief(result: Result, prediction_type: str, args: argparse.Namespace) -> Geometry:
    options = {name: getattr(args, f"relief_{name}") for name in RELIEF}
    return depth_to_relief(result.prediction[0], prediction_type=prediction_type, **options)


def _geometry(result: Result, pipe: MarigoldPipeline[Any], args: argparse.Namespace, kind: str) -> Geometry:
    prediction_type = "disparity" if pipe.prediction_type == "disparity" else "depth"
    if kind == "stl":
        return _relief(result, prediction_type, args)
    depth = result.prediction[0]
    focal_length = args.focal_length
    if focal_length is not None:  # given for the image; the map may have the processing resolution
        focal_length *= max(depth.shape[:2]) / max(result.pixels.shape[:2])
    options = {
        "focal_length": focal_length,
        "field_of_view": args.field_of_view if focal_length or args.field_of_view else field_of_view(result.source),
        "near": args.near,
        "far": args.far,
        "max_points": args.max_points,
        "prediction_type": prediction_type,
    }
    if args.geometry == "mesh":
        options["edge_threshold"] = args.edge_threshold
    return GEOMETRIES[args.geometry](depth, result.pixels, **options)


TASK = CommandTask(
    name="depth",
    about="depth maps of photographs",
    title="Depth",
    checkpoint="prs-eth/marigold-depth-v1-1",
    formats=(*FORMATS, *GEOMETRY_FORMATS),
    default_formats=("npy", "png16", "png"),
    reductions=MarigoldDepthPipeline._reductions,
    maps=_depth_maps,
    uncertainties=one_uncertainty,
    folder=lambda _pipe: "depth",
    folder_endings={"png16": "bw", "png": "colored"},
    ending="_depth",
    old_ending="_pred",
    picture_ending="_colored",
    geometry=_geometry,
    opening=high_resolution_flags.opening,
    options=high_resolution_flags.options,
    members=high_resolution_flags.members,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    predict.add_arguments(parser, TASK)
    high_resolution_flags.add_arguments(parser)
    group = parser.add_argument_group("depth")
    group.add_argument(
        "--color-map",
        type=optional(color_map),
        default="Spectral",
        metavar="NAME",
        help="of the picture: Spectral, binary, or one of matplotlib's; None: no picture; default: Spectral",
    )
    group.add_argument(
        "--old-names",
        action="store_true",
        help="end names in pred instead of depth, as the first versions of prs-eth's scripts did",
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
        help="of the camera, across the longer side, instead of the focal length; default: by the photograph's EXIF, "
        f"else {ASSUMED_FIELD_OF_VIEW:g}",
    )
    group.add_argument(
        "--near", type=POSITIVE, default=ASSUMED_NEAR, metavar="X", help=f"nearest distance; default: {ASSUMED_NEAR:g}"
    )
    group.add_argument(
        "--far", type=POSITIVE, default=ASSUMED_FAR, metavar="X", help=f"farthest distance; default: {ASSUMED_FAR:g}"
    )
    group.add_argument(
        "--max-points",
        type=integer(1),
        default=MAX_POINTS,
        metavar="N",
        help=f"take every 2nd, 3rd, ... pixel, so that at most N points result; default: {MAX_POINTS}, some 90 MB",
    )
    group.add_argument(
        "--edge-threshold",
        type=number(lambda value: value > 0, "a positive number"),
        default=EDGE_THRESHOLD,
        metavar="X",
        help="cut meshes where distances of neighbours differ by more than this part of them; inf: never; "
        f"default: {EDGE_THRESHOLD:g}",
    )
    group = parser.add_argument_group("relief", "What --format stl writes: a closed solid for a 3-D printer.")
    for name, (kind, default, about) in RELIEF.items():
        flag = f"--relief-{name.replace('_', '-')}"
        group.add_argument(flag, type=kind, default=default, metavar="X", help=f"{about}; default: {default:g}")


def run(args: argparse.Namespace) -> bool:
    high_resolution_flags.check(args)
    if args.relief_near_plane >= args.relief_far_plane:
        args.parser.error(f"--relief-near-plane {args.relief_near_plane:g} is not less than --relief-far-plane")
    if args.relief_median not in MEDIANS:
        args.parser.error(f"--relief-median {args.relief_median}: choose from {', '.join(map(str, MEDIANS))}")
    if args.near >= args.far:
        args.parser.error(f"--near {args.near:g} is not less than --far {args.far:g}")
    if args.focal_length is not None and args.field_of_view is not None:
        args.parser.error("--focal-length and --field-of-view say the same thing; give one of them")
    if args.color_map is None:
        args.format = tuple(kind for kind in args.format if kind != "png")
        if not args.format:
            args.parser.error("--color-map None leaves nothing to write of --format png")
    return predict.run(args, TASK)

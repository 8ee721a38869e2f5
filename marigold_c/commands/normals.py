"""`marigold normals`: surface normals of photographs. Listed in cli.py."""

from __future__ import annotations

import argparse
from typing import Any

from ..images.writers import FORMATS, Map, normals_map
from ..pipelines.pipeline import MarigoldPipeline
from ..pipelines.tasks import MarigoldNormalsPipeline
from . import predict
from .tasks import CommandTask, Result, one_uncertainty


def _normals_maps(result: Result, _pipe: MarigoldPipeline[Any], args: argparse.Namespace) -> dict[str, Map]:
    return {"": normals_map(result.prediction[0], args.flip_x, args.flip_y, args.flip_z)}


TASK = CommandTask(
    name="normals",
    about="surface normals of photographs",
    title="Normals",
    checkpoint="prs-eth/marigold-normals-v1-1",
    formats=tuple(FORMATS),
    default_formats=("npy", "png"),
    reductions=MarigoldNormalsPipeline._reductions,
    maps=_normals_maps,
    uncertainties=one_uncertainty,
    folder=lambda _pipe: "normals",
    folder_endings={"png": "vis"},
    ending="_normals",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    predict.add_arguments(parser, TASK)
    group = parser.add_argument_group("normals")
    for axis, meaning in {"x": "to the right", "y": "up", "z": "towards the camera"}.items():
        group.add_argument(
            f"--flip-{axis}",
            action="store_true",
            help=f"turn the {axis} axis around ({meaning} otherwise), in all files",
        )


def run(args: argparse.Namespace) -> bool:
    return predict.run(args, TASK)

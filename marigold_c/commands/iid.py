"""`marigold iid`: intrinsic images of photographs. Listed in cli.py."""

from __future__ import annotations

import argparse
from typing import Any

from ..images.target_views import target_names
from ..images.writers import FORMATS, Map, intrinsic_maps, uncertainty_map
from ..pipelines.pipeline import MarigoldPipeline
from ..pipelines.targets import intrinsic_properties, map_names
from ..pipelines.tasks import MarigoldIntrinsicsPipeline
from . import predict
from .tasks import CommandTask, Result


def _intrinsic_maps(result: Result, pipe: MarigoldPipeline[Any], _args: argparse.Namespace) -> dict[str, Map]:
    return intrinsic_maps(result.prediction, intrinsic_properties(pipe))


def _intrinsic_uncertainties(result: Result, pipe: MarigoldPipeline[Any]) -> dict[str, Map]:
    assert result.uncertainty is not None
    names = target_names(intrinsic_properties(pipe))
    return {name: uncertainty_map(one) for name, one in zip(names, result.uncertainty, strict=True)}


def _map_names(pipe: MarigoldPipeline[Any]) -> list[str]:
    return map_names(intrinsic_properties(pipe))


def _intrinsic_folder(pipe: MarigoldPipeline[Any]) -> str:
    """As the paper's script, which asks the checkpoint's name; targets tell where the name does not."""
    appearance = "appearance" in pipe.folder.absolute().name or "material" in target_names(intrinsic_properties(pipe))
    return "iid_appearance" if appearance else "iid_lighting"


TASK = CommandTask(
    name="iid",
    about="intrinsic images of photographs: albedo, shading, ...",
    title="Intrinsic images",
    checkpoint="prs-eth/marigold-iid-lighting-v1-1",
    formats=tuple(FORMATS),
    default_formats=("npy", "png"),
    reductions=MarigoldIntrinsicsPipeline._reductions,
    maps=_intrinsic_maps,
    uncertainties=_intrinsic_uncertainties,
    parts=_map_names,
    uncertain_parts=lambda pipe: target_names(intrinsic_properties(pipe)),
    folder=_intrinsic_folder,
    folder_endings={"png": "vis"},
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    predict.add_arguments(parser, TASK)


def run(args: argparse.Namespace) -> bool:
    return predict.run(args, TASK)

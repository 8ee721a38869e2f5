"""What the commands depth, normals and iid differ in: names of folders and files, flags, how maps are written.
Called by cli.py (flags) and predict_command.py (the run)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..images.geometry_files import write_geometry
from ..images.point_clouds import Geometry, depth_to_mesh, depth_to_points
from ..images.target_views import target_names, target_pictures, target_values
from ..images.writers import FORMATS, Map, depth_map, intrinsic_maps, normals_map, uncertainty_map, write_map
from ..pipelines.pipeline import MarigoldIntrinsicsPipeline, MarigoldPipeline

GEOMETRY_FORMATS = ("ply", "glb")
GEOMETRIES: dict[str, Callable[..., Geometry]] = {"mesh": depth_to_mesh, "points": depth_to_points}
_TARGET_NAME = re.compile(r"[\w.+ -]{1,100}")  # by itself no path, and nothing that steers a terminal


@dataclass(frozen=True)
class Result:
    """What a pipeline said of one image: (T, H, W, C), and the image itself for the colours of a mesh."""

    prediction: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None
    pixels: NDArray[Any]


@dataclass(frozen=True)
class CommandTask:
    """One command. maps: of a result, by the part of a file's name that tells maps of one image apart ("" if none)."""

    name: str
    title: str
    checkpoint: str  # the paper's, for people who use the shipped one
    formats: tuple[str, ...]  # all it can write
    default_formats: tuple[str, ...]
    maps: Callable[[Result, MarigoldPipeline, argparse.Namespace], dict[str, Map]]
    uncertainties: Callable[[Result, MarigoldPipeline], dict[str, Map]]
    folder: Callable[[MarigoldPipeline], str]  # beginning of the folders' names
    folder_endings: Mapping[str, str] = field(default_factory=dict)  # by format; else the format's name
    endings: Mapping[str, str] = field(default_factory=dict)  # of files, by format; else `ending` and the suffix
    ending: str = ""

    def folder_of(self, pipe: MarigoldPipeline, kind: str) -> str:
        return f"{self.folder(pipe)}_{self.folder_endings.get(kind, kind)}"

    def file_name(self, name: str, part: str, kind: str) -> str:
        stem = f"{name}_{part}" if part else name
        if kind in self.endings:
            return f"{stem}{self.endings[kind]}"
        suffix = f".{kind}" if kind in GEOMETRY_FORMATS else FORMATS[kind].suffix
        return f"{stem}{self.ending}{suffix}"

    def save(self, result: Result, name: str, pipe: MarigoldPipeline, args: argparse.Namespace) -> None:
        """Writes all files of one image."""
        out: Path = args.output_dir
        for part, one in self.maps(result, pipe, args).items():
            for kind in (kind for kind in args.format if kind in FORMATS):
                write_map(out / self.folder_of(pipe, kind) / self.file_name(name, part, kind), one, kind)
        for kind in (kind for kind in args.format if kind in GEOMETRY_FORMATS):
            shape = _geometry(result, pipe, args)
            write_geometry(out / self.folder_of(pipe, kind) / self.file_name(name, "", kind), shape)
        if result.uncertainty is None:
            return
        # The 16-bit and the 8-bit PNG would have one name, and uncertainty has no unit that 16 bits could keep.
        kinds = [kind for kind in args.format if kind in FORMATS and kind != "png16"] or ["npy"]
        for part, one in self.uncertainties(result, pipe).items():
            for kind in kinds:
                stem = f"{name}_{part}" if part else name
                write_map(
                    out / self.folder_of(pipe, "uncertainty") / f"{stem}_uncertainty{FORMATS[kind].suffix}", one, kind
                )

    def folders(self, pipe: MarigoldPipeline, args: argparse.Namespace) -> list[Path]:
        kinds = [*args.format, *(["uncertainty"] if args.output_uncertainty else [])]
        return [args.output_dir / self.folder_of(pipe, kind) for kind in kinds]


# ---- depth ----


def _depth_maps(result: Result, _pipe: MarigoldPipeline, args: argparse.Namespace) -> dict[str, Map]:
    return {"": depth_map(result.prediction[0], args.color_map)}


def _geometry(result: Result, pipe: MarigoldPipeline, args: argparse.Namespace) -> Geometry:
    depth = result.prediction[0]
    focal_length = args.focal_length
    if focal_length is not None:  # given for the image; the map may have the processing resolution
        focal_length *= max(depth.shape[:2]) / max(result.pixels.shape[:2])
    options = {
        "focal_length": focal_length,
        "field_of_view": args.field_of_view,
        "near": args.near,
        "far": args.far,
        "max_points": args.max_points,
        "prediction_type": "disparity" if pipe.prediction_type == "disparity" else "depth",
    }
    if args.geometry == "mesh":
        options["edge_threshold"] = args.edge_threshold
    return GEOMETRIES[args.geometry](depth, result.pixels, **options)


# ---- normals ----


def _normals_maps(result: Result, _pipe: MarigoldPipeline, args: argparse.Namespace) -> dict[str, Map]:
    return {"": normals_map(result.prediction[0], args.flip_x, args.flip_y, args.flip_z)}


def _one_uncertainty(result: Result, _pipe: MarigoldPipeline) -> dict[str, Map]:
    assert result.uncertainty is not None
    return {"": uncertainty_map(result.uncertainty[0])}


# ---- intrinsic images ----


def _check_names(pipe: MarigoldPipeline, properties: Mapping[str, Any], targets: int) -> None:
    """CheckpointError unless every target, and channel of one, has a name of its own that a file's name can hold."""
    where = pipe.folder / "model_index.json"
    try:
        count = len(target_names(properties))
        dot = np.zeros((targets, 1, 1, 3), np.float32)
        names = [name for name, _, _ in target_values(dot, properties)]
        target_pictures(dot, properties, "binary")  # refuses what lacks an entry of its own
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: target_properties: {error}") from error
    if count != targets:
        raise CheckpointError(f"{where}: {count} target_names for the {targets} targets of the network")
    for name in names:
        if not isinstance(name, str) or not _TARGET_NAME.fullmatch(name) or names.count(name) > 1:
            raise CheckpointError(f"{where}: files cannot be named after the target {str(name)[:100]!r}")


def intrinsic_properties(pipe: MarigoldPipeline) -> Mapping[str, Any]:
    """The checkpoint's target_properties; targets without a name are numbered."""
    assert isinstance(pipe, MarigoldIntrinsicsPipeline)
    properties = pipe.target_properties
    if properties is None:
        names = [f"target{index}" for index in range(pipe.n_targets)]
        return {"target_names": names, **{name: {"prediction_space": "srgb"} for name in names}}
    _check_names(pipe, properties, pipe.n_targets)
    return properties


def _intrinsic_maps(result: Result, pipe: MarigoldPipeline, _args: argparse.Namespace) -> dict[str, Map]:
    return intrinsic_maps(result.prediction, intrinsic_properties(pipe))


def _intrinsic_uncertainties(result: Result, pipe: MarigoldPipeline) -> dict[str, Map]:
    assert result.uncertainty is not None
    names = target_names(intrinsic_properties(pipe))
    return {name: uncertainty_map(one) for name, one in zip(names, result.uncertainty, strict=True)}


def _intrinsic_folder(pipe: MarigoldPipeline) -> str:
    """As the paper's script, which asks the checkpoint's name; targets tell where the name does not."""
    appearance = "appearance" in pipe.folder.absolute().name or "material" in target_names(intrinsic_properties(pipe))
    return "iid_appearance" if appearance else "iid_lighting"


TASKS = {
    task.name: task
    for task in (
        CommandTask(
            name="depth",
            title="Depth",
            checkpoint="prs-eth/marigold-depth-v1-1",
            formats=(*FORMATS, *GEOMETRY_FORMATS),
            default_formats=("npy", "png16", "png"),
            maps=_depth_maps,
            uncertainties=_one_uncertainty,
            folder=lambda _pipe: "depth",
            folder_endings={"png16": "bw", "png": "colored"},
            endings={"png": "_pred_colored.png"},
            ending="_pred",
        ),
        CommandTask(
            name="normals",
            title="Normals",
            checkpoint="prs-eth/marigold-normals-v1-1",
            formats=tuple(FORMATS),
            default_formats=("npy", "png"),
            maps=_normals_maps,
            uncertainties=_one_uncertainty,
            folder=lambda _pipe: "normals",
            folder_endings={"png": "vis"},
            ending="_normals",
        ),
        CommandTask(
            name="iid",
            title="Intrinsic images",
            checkpoint="prs-eth/marigold-iid-lighting-v1-1",
            formats=tuple(FORMATS),
            default_formats=("npy", "png"),
            maps=_intrinsic_maps,
            uncertainties=_intrinsic_uncertainties,
            folder=_intrinsic_folder,
            folder_endings={"png": "vis"},
        ),
    )
}

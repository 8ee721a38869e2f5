"""What the commands depth, normals and iid differ in: names of folders and files, how maps are written. Each has a row
of its own (depth.py, normals.py, iid.py), which predict.py reads.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.geometry_files import write_geometry
from ..images.point_clouds import Geometry
from ..images.writers import FORMATS, Map, uncertainty_map, write_map
from ..pipelines.pipeline import MarigoldPipeline

GEOMETRY_FORMATS = ("ply", "glb")


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
    about: str  # what it writes
    title: str
    checkpoint: str  # the paper's, for people who use the shipped one
    formats: tuple[str, ...]  # all it can write
    default_formats: tuple[str, ...]
    reductions: tuple[str, ...]  # how ensembles are merged; the first is the default
    maps: Callable[[Result, MarigoldPipeline[Any], argparse.Namespace], dict[str, Map]]
    uncertainties: Callable[[Result, MarigoldPipeline[Any]], dict[str, Map]]
    folder: Callable[[MarigoldPipeline[Any]], str]  # beginning of the folders' names
    folder_endings: Mapping[str, str] = field(default_factory=dict)  # by format; else the format's name
    endings: Mapping[str, str] = field(default_factory=dict)  # of files, by format; else `ending` and the suffix
    ending: str = ""
    geometry: Callable[[Result, MarigoldPipeline[Any], argparse.Namespace], Geometry] | None = None

    def folder_of(self, pipe: MarigoldPipeline[Any], kind: str) -> str:
        return f"{self.folder(pipe)}_{self.folder_endings.get(kind, kind)}"

    def file_name(self, name: str, part: str, kind: str) -> str:
        stem = f"{name}_{part}" if part else name
        if kind in self.endings:
            return f"{stem}{self.endings[kind]}"
        suffix = f".{kind}" if kind in GEOMETRY_FORMATS else FORMATS[kind].suffix
        return f"{stem}{self.ending}{suffix}"

    def save(self, result: Result, name: str, pipe: MarigoldPipeline[Any], args: argparse.Namespace) -> None:
        """Writes all files of one image."""
        out: Path = args.output_dir
        for part, one in self.maps(result, pipe, args).items():
            for kind in (kind for kind in args.format if kind in FORMATS):
                write_map(out / self.folder_of(pipe, kind) / self.file_name(name, part, kind), one, kind)
        for kind in (kind for kind in args.format if kind in GEOMETRY_FORMATS):
            assert self.geometry is not None
            shape = self.geometry(result, pipe, args)
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

    def folders(self, pipe: MarigoldPipeline[Any], args: argparse.Namespace) -> list[Path]:
        kinds = [*args.format, *(["uncertainty"] if args.output_uncertainty else [])]
        return [args.output_dir / self.folder_of(pipe, kind) for kind in kinds]


def one_uncertainty(result: Result, _pipe: MarigoldPipeline[Any]) -> dict[str, Map]:
    """Of tasks with one map."""
    assert result.uncertainty is not None
    return {"": uncertainty_map(result.uncertainty[0])}

"""What the commands depth, normals and iid differ in: names of folders and files, how maps are written. Each has a row
of its own (depth.py, normals.py, iid.py), which predict.py reads.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.files import Input
from ..images.geometry_files import GEOMETRY_FORMATS, write_geometry
from ..images.point_clouds import Geometry
from ..images.writers import FORMATS, Map, uncertainty_map, write_map
from ..pipelines.pipeline import MarigoldPipeline


@dataclass(frozen=True)
class Result:
    """What a pipeline said of one image: (T, H, W, C); the image itself for the colours of a mesh, and where it
    came from."""

    prediction: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None
    pixels: NDArray[Any]
    source: Input


def _kinds(args: argparse.Namespace) -> tuple[list[str], list[str], list[str]]:
    """The formats of maps, shapes and uncertainties."""
    maps = [kind for kind in args.format if kind in FORMATS]
    shapes = [kind for kind in args.format if kind in GEOMETRY_FORMATS]
    # The 16-bit and the 8-bit PNG would have one name, and uncertainty has no unit that 16 bits could keep.
    return maps, shapes, [kind for kind in maps if kind != "png16"] or ["npy"]


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
    ending: str = ""  # of files' names, before the suffix
    old_ending: str = ""  # with --old-names
    picture_ending: str = ""  # of the format png, after the other one
    parts: Callable[[MarigoldPipeline[Any]], Sequence[str]] = lambda _pipe: ("",)  # the keys of maps
    uncertain_parts: Callable[[MarigoldPipeline[Any]], Sequence[str]] = lambda _pipe: ("",)  # those of uncertainties
    geometry: Callable[[Result, MarigoldPipeline[Any], argparse.Namespace, str], Geometry] | None = None
    # What its own flags mean: options of open_pipeline, of the pipeline's call; members whose disagreement is told.
    opening: Callable[[argparse.Namespace], dict[str, Any]] = lambda _args: {}
    options: Callable[[argparse.Namespace], dict[str, Any]] = lambda _args: {}
    members: Callable[[argparse.Namespace], int] = lambda args: int(args.ensemble_size)

    def folder_of(self, pipe: MarigoldPipeline[Any], kind: str) -> str:
        return f"{self.folder(pipe)}_{self.folder_endings.get(kind, kind)}"

    def _file(self, name: str, part: str, kind: str, pipe: MarigoldPipeline[Any], args: argparse.Namespace) -> Path:
        stem = f"{name}_{part}" if part else name
        ending = self.old_ending if getattr(args, "old_names", False) else self.ending
        picture = self.picture_ending if kind == "png" else ""
        suffix = f".{kind}" if kind in GEOMETRY_FORMATS else FORMATS[kind].suffix
        out: Path = args.output_dir
        return out / self.folder_of(pipe, kind) / f"{stem}{ending}{picture}{suffix}"

    def _uncertainty_file(
        self, name: str, part: str, kind: str, pipe: MarigoldPipeline[Any], args: argparse.Namespace
    ) -> Path:
        stem = f"{name}_{part}" if part else name
        out: Path = args.output_dir
        return out / self.folder_of(pipe, "uncertainty") / f"{stem}_uncertainty{FORMATS[kind].suffix}"

    def files(self, name: str, pipe: MarigoldPipeline[Any], args: argparse.Namespace) -> list[Path]:
        """All that save writes of one image."""
        maps, shapes, uncertain = _kinds(args)
        found = [self._file(name, part, kind, pipe, args) for part in self.parts(pipe) for kind in maps]
        found += [self._file(name, "", kind, pipe, args) for kind in shapes]
        if args.output_uncertainty:
            parts = self.uncertain_parts(pipe)
            found += [self._uncertainty_file(name, part, kind, pipe, args) for part in parts for kind in uncertain]
        return found

    def save(self, result: Result, name: str, pipe: MarigoldPipeline[Any], args: argparse.Namespace) -> None:
        """Writes all files of one image."""
        maps, shapes, uncertain = _kinds(args)
        for part, one in self.maps(result, pipe, args).items():
            for kind in maps:
                write_map(self._file(name, part, kind, pipe, args), one, kind, args.threads)
        for kind in shapes:
            assert self.geometry is not None
            write_geometry(self._file(name, "", kind, pipe, args), self.geometry(result, pipe, args, kind))
        if result.uncertainty is None:
            return
        for part, one in self.uncertainties(result, pipe).items():
            for kind in uncertain:
                write_map(self._uncertainty_file(name, part, kind, pipe, args), one, kind, args.threads)

    def folders(self, pipe: MarigoldPipeline[Any], args: argparse.Namespace) -> list[Path]:
        kinds = [*args.format, *(["uncertainty"] if args.output_uncertainty else [])]
        return [args.output_dir / self.folder_of(pipe, kind) for kind in kinds]


def one_uncertainty(result: Result, _pipe: MarigoldPipeline[Any]) -> dict[str, Map]:
    """Of tasks with one map."""
    assert result.uncertainty is not None
    return {"": uncertainty_map(result.uncertainty[0])}

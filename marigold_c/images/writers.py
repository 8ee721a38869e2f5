"""Predictions as files: one table of formats, and what each writes.

Called by the commands: check_formats before any work is done, then write_map for each file, inside
atomic_files.write_atomically. Point clouds and meshes are in point_clouds.py.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..atomic_files import write_atomically
from ..extras import check_module, optional_module
from . import pictures
from .pictures import Picture
from .png_writer import write_png
from .target_views import target_pictures, target_values

# Names of the channels of an EXR by kind of map; Z is what the format calls depth.
_EXR_CHANNELS = {"depth": ("Z",), "normals": ("X", "Y", "Z"), "uncertainty": ("Y",), "intrinsics": ("Y",)}
_EXR_COLOURS = ("R", "G", "B")


@dataclass(frozen=True)
class Map:
    """One map to be written.

    kind: "depth" in [0, 1], "normals" in [-1, 1], "intrinsics" in [0, 1] or "uncertainty" >= 0.
    values: float32 (H, W) or (H, W, 3). picture: the visualisation, which the format png writes.
    """

    kind: str
    values: NDArray[np.float32]
    picture: Callable[[], Picture]

    def __post_init__(self) -> None:
        shape = self.values.shape
        if self.kind not in _EXR_CHANNELS:
            raise ValueError(f"a map of kind {self.kind!r}; known: {', '.join(_EXR_CHANNELS)}")
        if self.values.ndim not in (2, 3) or 0 in shape or (self.values.ndim == 3 and shape[2] != 3):
            raise ValueError(f"a map to be written has shape (H, W) or (H, W, 3), not {shape}")
        if self.kind == "depth" and self.values.ndim != 2:
            raise ValueError(f"depth to be written has shape (H, W), not {shape}")
        if self.kind == "normals" and self.values.ndim != 3:
            raise ValueError(f"normals to be written have shape (H, W, 3), not {shape}")


def depth_map(values: NDArray[Any], color_map: str = "Spectral") -> Map:
    """Depth (H, W) or (H, W, 1) in [0, 1]."""
    values = _map_values(values)
    return Map("depth", values, lambda: pictures.coloured(values, color_map))


def normals_map(values: NDArray[Any], flip_x: bool = False, flip_y: bool = False, flip_z: bool = False) -> Map:
    """Normals (H, W, 3) in [-1, 1]. The flips concern all formats, as they do in visualize_normals."""
    values = _map_values(values)
    if flip_x or flip_y or flip_z:
        values = values * np.where([flip_x, flip_y, flip_z], -1, 1).astype(np.float32)
    return Map("normals", values, lambda: pictures.normals(values))


def uncertainty_map(values: NDArray[Any], saturation_percentile: float = 95) -> Map:
    """Uncertainty (H, W), (H, W, 1) or (H, W, 3), at least 0."""
    values = _map_values(values)
    return Map("uncertainty", values, lambda: pictures.uncertainty(values, saturation_percentile))


def intrinsic_maps(
    values: NDArray[Any], target_properties: Mapping[str, Any], color_map: str | dict[str, str] = "binary"
) -> dict[str, Map]:
    """The targets (T, H, W, 3) of one image by name; the channels of a stack as maps (H, W) beside it."""
    values = values.astype(np.float32, copy=False)
    shown = target_pictures(values, target_properties, color_map)
    return {
        name: Map("intrinsics", np.ascontiguousarray(one), lambda name=name: shown[name])  # type: ignore[misc]
        for name, _, one in target_values(values, target_properties)
    }


def _map_values(values: NDArray[Any]) -> NDArray[np.float32]:
    values = values[:, :, 0] if values.ndim == 3 and values.shape[2] == 1 else values
    return values.astype(np.float32, copy=False)


def _write_npy(file: BinaryIO, one: Map, _threads: int | None) -> None:
    """Normals as (3, H, W), all else as (H, W) or (H, W, 3): so the paper's scripts write and read them."""
    np.save(file, one.values.transpose(2, 0, 1) if one.kind == "normals" else one.values)


def _write_npz(file: BinaryIO, one: Map, _threads: int | None) -> None:
    arrays: dict[str, Any] = {one.kind: one.values}
    np.savez_compressed(file, **arrays)


def _write_png(file: BinaryIO, one: Map, threads: int | None) -> None:
    write_png(file, one.picture(), threads)


def _write_png16(file: BinaryIO, one: Map, threads: int | None) -> None:
    """Depth is cut to 65535 steps as diffusers exports it; all else rounded, normals from [-1, 1]."""
    if one.kind == "depth":
        picture = pictures.depth_16_bits(one.values)
    else:
        picture = pictures.rounded_16_bits(one.values, -1.0 if one.kind == "normals" else 0.0)
    write_png(file, picture, threads)


def _write_exr(file: BinaryIO, one: Map, _threads: int | None) -> None:
    openexr = optional_module("OpenEXR", "writing EXR")
    names = _EXR_CHANNELS[one.kind]
    if one.values.ndim == 3 and len(names) == 1:
        names = _EXR_COLOURS
    planes = one.values[:, :, None] if one.values.ndim == 2 else one.values
    channels = {name: np.ascontiguousarray(planes[:, :, index]) for index, name in enumerate(names)}
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    openexr.File(header, channels).write(file)


def _write_tiff(file: BinaryIO, one: Map, _threads: int | None) -> None:
    tifffile = optional_module("tifffile", "writing TIFF")
    photometric = "minisblack" if one.values.ndim == 2 else "rgb"
    whole = io.BytesIO()  # tifffile takes no file without a name
    tifffile.imwrite(whole, one.values, photometric=photometric, compression="zlib", metadata=None)
    file.write(whole.getbuffer())


@dataclass(frozen=True)
class Format:
    """suffix: of the file's name. write: of a file, a map and the number of threads (None: all processors). module:
    what it needs beyond the package's own dependencies, or None."""

    suffix: str
    write: Callable[[BinaryIO, Map, int | None], None]
    module: str | None = None


FORMATS = {
    "npy": Format(".npy", _write_npy),  # float32
    "npz": Format(".npz", _write_npz),  # float32, compressed, under the name of the kind
    "png16": Format(".png", _write_png16),
    "png": Format(".png", _write_png),  # the visualisation
    "exr": Format(".exr", _write_exr, "OpenEXR"),  # float32
    "tiff": Format(".tiff", _write_tiff, "tifffile"),  # float32
}


def check_formats(names: Iterable[str]) -> None:
    """ValueError for a format that there is not; MissingExtra for one whose library is not installed."""
    for name in names:
        if name not in FORMATS:
            raise ValueError(f"format {name!r}: choose from {', '.join(FORMATS)}")
        module = FORMATS[name].module
        if module is not None:
            check_module(module, f"format {name!r}")


def write_map(path: Path, one: Map, format_name: str, threads: int | None = None) -> None:
    """Writes `path` in one of FORMATS, whole or not at all. threads: of PNG; default, all processors."""
    check_formats([format_name])
    write_atomically(path, lambda file: FORMATS[format_name].write(file, one, threads))

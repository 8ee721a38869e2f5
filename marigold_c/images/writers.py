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
from PIL import Image

from ..atomic_files import write_atomically
from ..extras import check_module, optional_module
from . import png16
from .image_processor import MarigoldImageProcessor
from .target_views import target_values

# Names of the channels of an EXR by kind of map; Z is what the format calls depth.
_EXR_CHANNELS = {"depth": ("Z",), "normals": ("X", "Y", "Z"), "uncertainty": ("Y",), "intrinsics": ("Y",)}
_EXR_COLOURS = ("R", "G", "B")


@dataclass(frozen=True)
class Map:
    """One map to be written.

    kind: "depth" in [0, 1], "normals" in [-1, 1], "intrinsics" in [0, 1] or "uncertainty" >= 0.
    values: float32 (H, W) or (H, W, 3). picture: makes the visualisation, which the format png writes.
    """

    kind: str
    values: NDArray[np.float32]
    picture: Callable[[], Image.Image]

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
    return Map("depth", values, lambda: MarigoldImageProcessor.visualize_depth(values, color_map=color_map)[0])


def normals_map(values: NDArray[Any], flip_x: bool = False, flip_y: bool = False, flip_z: bool = False) -> Map:
    """Normals (H, W, 3) in [-1, 1]. The flips concern all formats, as they do in visualize_normals."""
    flips = np.where([flip_x, flip_y, flip_z], -1, 1).astype(np.float32)
    values = _map_values(values) * flips
    return Map("normals", values, lambda: MarigoldImageProcessor.visualize_normals(values)[0])


def uncertainty_map(values: NDArray[Any], saturation_percentile: float = 95) -> Map:
    """Uncertainty (H, W), (H, W, 1) or (H, W, 3), at least 0."""
    values = _map_values(values)

    def picture() -> Image.Image:
        return MarigoldImageProcessor.visualize_uncertainty(values, saturation_percentile)[0]

    return Map("uncertainty", values, picture)


def intrinsic_maps(
    values: NDArray[Any], target_properties: Mapping[str, Any], color_map: str | dict[str, str] = "binary"
) -> dict[str, Map]:
    """The targets (T, H, W, 3) of one image by name; the channels of a stack as maps (H, W) beside it."""
    values = values.astype(np.float32, copy=False)
    pictures = MarigoldImageProcessor.visualize_intrinsics([values], target_properties, color_map)[0]
    return {
        name: Map("intrinsics", np.ascontiguousarray(one), lambda name=name: pictures[name])  # type: ignore[misc]
        for name, _, one in target_values(values, target_properties)
    }


def _map_values(values: NDArray[Any]) -> NDArray[np.float32]:
    values = values[:, :, 0] if values.ndim == 3 and values.shape[2] == 1 else values
    return values.astype(np.float32, copy=False)


def _write_npy(file: BinaryIO, one: Map) -> None:
    """Normals as (3, H, W), all else as (H, W) or (H, W, 3): so the paper's scripts write and read them."""
    np.save(file, one.values.transpose(2, 0, 1) if one.kind == "normals" else one.values)


def _write_npz(file: BinaryIO, one: Map) -> None:
    arrays: dict[str, Any] = {one.kind: one.values}
    np.savez_compressed(file, **arrays)


def _write_png(file: BinaryIO, one: Map) -> None:
    one.picture().save(file, format="PNG")


def _write_png16(file: BinaryIO, one: Map) -> None:
    """Depth is cut to 65535 steps as diffusers exports it; all else rounded, normals from [-1, 1]."""
    if one.kind == "depth":
        MarigoldImageProcessor.export_depth_to_16bit_png(one.values)[0].save(file, format="PNG")
        return
    values = (one.values + 1) / 2 if one.kind == "normals" else one.values
    steps = np.rint(np.nan_to_num(np.clip(values, 0, 1)) * np.float32(65535)).astype(np.uint16)
    if steps.ndim == 2:
        Image.fromarray(steps).save(file, format="PNG")
    else:
        png16.write_colour(file, steps)


def _write_exr(file: BinaryIO, one: Map) -> None:
    openexr = optional_module("OpenEXR", "writing EXR")
    names = _EXR_CHANNELS[one.kind]
    if one.values.ndim == 3 and len(names) == 1:
        names = _EXR_COLOURS
    planes = one.values[:, :, None] if one.values.ndim == 2 else one.values
    channels = {name: np.ascontiguousarray(planes[:, :, index]) for index, name in enumerate(names)}
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    openexr.File(header, channels).write(file)


def _write_tiff(file: BinaryIO, one: Map) -> None:
    tifffile = optional_module("tifffile", "writing TIFF")
    photometric = "minisblack" if one.values.ndim == 2 else "rgb"
    whole = io.BytesIO()  # tifffile takes no file without a name
    tifffile.imwrite(whole, one.values, photometric=photometric, compression="zlib", metadata=None)
    file.write(whole.getbuffer())


@dataclass(frozen=True)
class Format:
    """suffix: of the file's name. module: what it needs beyond the package's own dependencies, or None."""

    suffix: str
    write: Callable[[BinaryIO, Map], None]
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


def write_map(path: Path, one: Map, format_name: str) -> None:
    """Writes `path` in one of FORMATS, whole or not at all."""
    check_formats([format_name])
    write_atomically(path, lambda file: FORMATS[format_name].write(file, one))

"""The truth of a sample out of its files: one function for each encoding, named in a row of table.py.

Each takes the sample's files and the settings of the data set and returns a Truth. Values, masks and their order of
operations are those of the data sets of prs-eth/Marigold (src/dataset), which define the published numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..images.readers import InputError, decode_stored
from .crops import CROPS, WINDOWS
from .decoding import as_map, as_vectors, decode_npy, decode_raw_float32, decode_unit_colours, decode_units
from .settings import Settings, Truth

_CUT_OFF = 0.98  # the quantile of shading and residual that becomes 1
_SHORTEST_NORMAL = 0.1  # below it Sintel has sky


class SampleReader(Protocol):
    """The files of one sample by what they are (the columns of the list). dataset.py has the only implementation."""

    def decode(self, role: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(bytes of the file, *arguments); faults become a SampleError that names the file."""

    def blame(self, role: str) -> AbstractContextManager[None]:
        """Faults inside of the block are faults of that file."""

    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image as it is stored."""

    def member(self, role: str) -> str | None:
        """The name of the file; None if the sample has none of that kind."""


def check_size(sample: SampleReader, role: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """SampleError: the file has another size."""
    with sample.blame(role):
        if shape[:2] != expected[:2]:
            raise InputError(f"is {shape[0]} x {shape[1]}, but {expected[0]} x {expected[1]} is expected")


def _depth_truth(
    sample: SampleReader, settings: Settings, depth: NDArray[np.float32], valid: NDArray[np.bool_] | None = None
) -> Truth:
    """Crops, and masks by `valid` or else by the range of the data set."""
    check_size(sample, "truth", depth.shape, sample.image_size())
    with sample.blame("truth"):
        if settings.crop is not None:
            depth = np.ascontiguousarray(depth[CROPS[settings.crop](*depth.shape)])
        if valid is None:
            with np.errstate(invalid="ignore"):
                valid = (depth > np.float32(settings.min_depth)) & (depth < np.float32(settings.max_depth))
        if settings.window is not None:
            inside = np.zeros(depth.shape, bool)
            inside[WINDOWS[settings.window](*depth.shape)] = True
            valid = valid & inside
    return Truth(depth, valid)


def read_depth_units(sample: SampleReader, settings: Settings) -> Truth:
    """16-bit grey PNG of whole units."""
    units = sample.decode("truth", decode_units)
    return _depth_truth(sample, settings, (units / settings.units_per_metre).astype(np.float32))


def read_depth_raw(sample: SampleReader, settings: Settings) -> Truth:
    """float32 without a header, as large as the image; infinite where nothing was measured, which becomes 0."""
    depth = sample.decode("truth", decode_raw_float32, *sample.image_size())
    return _depth_truth(sample, settings, np.where(np.isposinf(depth), np.float32(0), depth))


def read_depth_with_mask(sample: SampleReader, settings: Settings) -> Truth:
    """Two arrays: depth, and a mask that alone says what is valid; the range only clips predictions."""
    depth = sample.decode("truth", lambda data: as_map(decode_npy(data)).astype(np.float32))
    mask = sample.decode("mask", lambda data: as_map(decode_npy(data)).astype(bool))
    check_size(sample, "mask", mask.shape, depth.shape)
    return _depth_truth(sample, settings, depth, mask)


def _lengths(normals: NDArray[np.float32]) -> NDArray[np.float32]:
    length: NDArray[np.float32] = np.sqrt(np.square(normals).sum(axis=2))
    return length


def _normals_truth(normals: NDArray[np.float32], valid: NDArray[np.bool_] | None = None) -> Truth:
    """Valid where the vector is not zero (and a number)."""
    with np.errstate(invalid="ignore"):
        mask = _lengths(normals) > 0
    return Truth(normals, mask if valid is None else mask & valid)


def read_normals(sample: SampleReader, settings: Settings) -> Truth:
    """An array (H, W, 3), zero where there is no truth."""
    normals = sample.decode("truth", lambda data: as_vectors(decode_npy(data)))
    check_size(sample, "truth", normals.shape, sample.image_size())
    return _normals_truth(normals)


def read_normals_with_sky(sample: SampleReader, settings: Settings) -> Truth:
    """As read_normals, but zero means sky, which faces the camera; cropped."""
    normals = read_normals(sample, settings).target
    assert isinstance(normals, np.ndarray)
    with np.errstate(invalid="ignore"):
        normals[~(_lengths(normals) > np.float32(_SHORTEST_NORMAL))] = (0, 0, 1)
    if settings.crop is not None:
        with sample.blame("truth"):
            normals = np.ascontiguousarray(normals[CROPS[settings.crop](*normals.shape[:2])])
    return _normals_truth(normals)


def _intrinsics_truth(
    target: dict[str, NDArray[np.float32]], masks: Mapping[str, NDArray[np.bool_]] | None = None
) -> Truth:
    if masks is None:
        shape = next(iter(target.values())).shape[:2]
        return Truth(target, np.ones(shape, bool))
    common = np.logical_and.reduce([mask.all(axis=2) for mask in masks.values()])
    return Truth(target, common, dict(masks))


def _same_size(sample: SampleReader, planes: Mapping[str, NDArray[Any]]) -> None:
    first = next(iter(planes.values())).shape
    for role, plane in planes.items():
        check_size(sample, role, plane.shape, first)


def read_appearance(sample: SampleReader, settings: Settings) -> Truth:
    """Albedo and material (roughness, metallicity, 0) in EXR, clipped to [0, 1] and gamma encoded (^1/2.2)."""
    planes = {role: sample.decode(role, decode_unit_colours, True) for role in ("albedo", "material")}
    planes["mask"] = sample.decode("mask", decode_unit_colours, False)
    _same_size(sample, planes)
    mask = planes.pop("mask") != 0
    planes["material"][:, :, 2] = 0
    return _intrinsics_truth(planes, dict.fromkeys(planes, mask))


def _lighting_array(data: bytes) -> NDArray[Any]:
    array = decode_npy(data)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind != "f":
        raise InputError(f"floating-point numbers (H, W, 3) are expected, not {array.dtype} {array.shape}")
    return array


def _quantile(sample: SampleReader, role: str, values: NDArray[Any]) -> float:
    quantile = float(np.quantile(values, _CUT_OFF))
    with sample.blame(role):
        if not np.isfinite(quantile):
            raise InputError(f"its values cannot be brought to [0, 1]: their {_CUT_OFF:.0%} quantile is {quantile}")
    return quantile


def read_lighting(sample: SampleReader, settings: Settings) -> Truth:
    """Linear albedo, shading and residual as arrays; the latter two divided by the larger of their 98 % quantiles.

    Invalid are values that are not finite, and of albedo pixels that are black.
    """
    planes = {role: sample.decode(role, _lighting_array) for role in ("albedo", "shading", "residual")}
    _same_size(sample, planes)
    cut_off = max(_quantile(sample, role, planes[role]) for role in ("shading", "residual"))
    with sample.blame("shading"):
        if cut_off <= 0:
            raise InputError("shading and residual are black: they cannot be brought to [0, 1]")
    target = {"albedo": planes["albedo"].astype(np.float32, order="C")}
    with np.errstate(invalid="ignore"):
        for role in ("shading", "residual"):
            target[role] = (np.clip(planes[role], 0, cut_off) / cut_off).astype(np.float32)
    masks = {role: np.isfinite(values) for role, values in target.items()}
    masks["albedo"] &= (target["albedo"] != 0).any(axis=2, keepdims=True)
    return _intrinsics_truth(target, masks)


def _decode_any(data: bytes, name: str) -> NDArray[Any]:
    return decode_npy(data) if PurePosixPath(name).suffix.lower() == ".npy" else decode_stored(data)


def _own_mask(sample: SampleReader, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Where the mask's file is not zero, in any channel; None if there is no mask."""
    name = sample.member("mask")
    if name is None:
        return None
    values: NDArray[Any] = sample.decode("mask", _decode_any, name)
    mask: NDArray[np.bool_] = np.asarray(values.any(axis=2) if values.ndim == 3 else values.astype(bool))
    check_size(sample, "mask", mask.shape, shape)
    return mask


def decode_depth(data: bytes, name: str, units_per_metre: float) -> NDArray[np.float32]:
    """Metres (H, W): .npy and EXR hold them, PNG whole units."""
    values = _decode_any(data, name)
    if values.ndim == 3 and values.dtype == np.float32 and not name.endswith(".npy"):
        values = values[:, :, 0]  # of an EXR, whose single channel is repeated
    values = as_map(values)
    if values.dtype.kind in "ui" and not name.endswith(".npy"):
        values = values / units_per_metre
    return values.astype(np.float32)


def read_own_depth(sample: SampleReader, settings: Settings) -> Truth:
    """.npy and EXR in metres, PNG in units; valid in the range, where the mask (if any) is not zero."""
    name = sample.member("truth") or ""
    depth = sample.decode("truth", decode_depth, name, settings.units_per_metre)
    truth = _depth_truth(sample, settings, depth)
    mask = _own_mask(sample, depth.shape)
    return truth if mask is None else Truth(truth.target, truth.mask & mask)


def _own_normals(data: bytes, name: str) -> NDArray[np.float32]:
    values = _decode_any(data, name)
    if name.endswith(".npy") or values.dtype.kind == "f":
        return as_vectors(np.moveaxis(values, 0, 2) if values.ndim == 3 and values.shape[0] == 3 else values)
    if values.ndim != 3:
        raise InputError("normals are colours; this image is grey")
    normals = values.astype(np.float32) * np.float32(2 / np.iinfo(values.dtype).max) - 1
    normals /= np.maximum(_lengths(normals), np.float32(1e-6))[:, :, None]
    normals[~values.any(axis=2)] = 0
    return normals


def read_own_normals(sample: SampleReader, settings: Settings) -> Truth:
    """.npy (H, W, 3) or (3, H, W); or PNG of 8 or 16 bits, (n + 1) / 2, black where there is no truth."""
    normals = sample.decode("truth", _own_normals, sample.member("truth") or "")
    check_size(sample, "truth", normals.shape, sample.image_size())
    return _normals_truth(normals, _own_mask(sample, normals.shape))


def _own_intrinsics(data: bytes, name: str) -> NDArray[np.float32]:
    return as_vectors(decode_npy(data)) if name.endswith(".npy") else decode_unit_colours(data, False)


def read_own_intrinsics(sample: SampleReader, settings: Settings) -> Truth:
    """Each target from a folder of its own, as stored: .npy (H, W, 3), EXR, PNG as fractions of its largest value."""
    target = {role: sample.decode(role, _own_intrinsics, sample.member(role) or "") for role in settings.targets}
    for role, values in target.items():
        check_size(sample, role, values.shape, sample.image_size())
    shape = next(iter(target.values())).shape
    mask = _own_mask(sample, shape)
    masks = None if mask is None else dict.fromkeys(target, np.repeat(mask[:, :, None], 3, axis=2))
    return _intrinsics_truth(target, masks)

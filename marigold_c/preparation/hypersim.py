"""`marigold prepare hypersim`: the raw HDF5 frames of Hypersim as pictures and labels for depth, normals or lighting.

The steps are those of prs-eth/Marigold's three preprocessing scripts; where they fail on data that exists, the
difference is said at the function.

    depth     SPLIT/SCENE/rgb_CAMERA_frNNNN.png, depth_plane_CAMERA_frNNNN.png (uint16, millimetres along the axis, 0:
              not known)
    normals   SPLIT/SCENE/rgb_..., normal_cam_CAMERA_frNNNN.npy
    iid       SPLIT/SCENE/rgb_..., albedo_..., shading_..., residual_....npy, shading_stats_....json
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import frames
from .frames import Outcome, Size
from .tone import exposure, picture

HEIGHT, WIDTH, FOCAL_LENGTH = 768, 1024, 886.81
SPLITS = ("train", "val", "test")
COLUMNS = ("scene_name", "camera_name", "frame_id", "included_in_public_release", "split_partition_name")
_NOWHERE = -1  # the render_entity_id of pixels without a surface
_LEAST_PSNR = 40.0
_BACK_FACING = -1e-3
_FARTHEST = 65535  # millimetres, beyond the data set's range of 65 m

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Frame:
    """One row of the table of splits, and where its raw files are."""

    raw: Path
    scene: str
    camera: str
    number: int
    split: str

    @property
    def name(self) -> str:
        return f"{self.scene} {self.camera} frame {self.number}"

    @property
    def suffix(self) -> str:
        return f"{self.camera}_fr{self.number:04d}"

    def read(self, group: str, kind: str) -> NDArray[Any]:
        """group: "final" or "geometry"; kind: as in frame.0000.KIND.hdf5."""
        path = (
            self.raw
            / self.scene
            / "images"
            / f"scene_{self.camera}_{group}_hdf5"
            / f"frame.{self.number:04d}.{kind}.hdf5"
        )
        values = frames.read_hdf5(path)
        frames.check_shape(path, values, (HEIGHT, WIDTH, 3) if values.ndim == 3 else (HEIGHT, WIDTH))
        return values


def frames_of(table: Path, raw: Path) -> list[Frame]:
    """The published frames of metadata_images_split_scene_v1.csv. ValueError: other columns, no frames."""
    rows = frames.read_table(table, COLUMNS)
    found = [
        Frame(raw, row["scene_name"], row["camera_name"], int(row["frame_id"]), row["split_partition_name"])
        for row in rows
        if row["included_in_public_release"].lower() == "true"
    ]
    if not found:
        raise ValueError(f"{table}: lists no published frame")
    return found


def plane_depth(distance: NDArray[Any]) -> NDArray[np.float64]:
    """Distance along the ray of a pixel as distance along the optical axis."""
    x = np.arange(WIDTH) - (WIDTH - 1) / 2
    y = np.arange(HEIGHT) - (HEIGHT - 1) / 2
    return np.asarray(distance, np.float64) * (FOCAL_LENGTH / np.sqrt(x[None] ** 2 + y[:, None] ** 2 + FOCAL_LENGTH**2))


def _tone_mapped(color: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return picture(color, exposure(color, valid))


def _statistics(prefix: str, values: NDArray[Any]) -> dict[str, float]:
    return {f"{prefix}_{name}": float(getattr(np, name)(values)) for name in ("mean", "std", "min", "max")}


# ---- depth ----


def prepare_depth(frame: Frame, out: Path, size: Size | None = None) -> tuple[Outcome, dict[str, Any]]:
    """Millimetres are cut off, not rounded. Depths that do not fit are stored as the largest number, which is beyond
    the range that data sets accept; the published script lets them wrap around to small ones."""
    color, distance = frame.read("final", "color"), frame.read("geometry", "depth_meters")
    valid = frame.read("geometry", "render_entity_id") != _NOWHERE
    shown = _tone_mapped(color, valid)
    with np.errstate(invalid="ignore"):
        millimetres = np.where(valid & ~np.isnan(distance), np.minimum(plane_depth(distance) * 1000, _FARTHEST), 0)
    stored = np.maximum(millimetres, 0).astype(np.uint16)
    if size is not None:
        shown, stored = frames.nearest_exact(shown, size), frames.nearest_exact(stored, size)
    members = (f"{frame.scene}/rgb_{frame.suffix}.png", f"{frame.scene}/depth_plane_{frame.suffix}.png")
    frames.write_png(out / frame.split / members[0], shown)
    frames.write_png(out / frame.split / members[1], stored)
    row = {
        "scene_name": frame.scene,
        "camera_name": frame.camera,
        "frame_id": frame.number,
        "split_partition_name": frame.split,
        "rgb_path": members[0],
        **_statistics("rgb", shown),
        "depth_path": members[1],
        **_statistics("depth", stored / 1000),
        "invalid_ratio": float(1 - valid.mean()),
    }
    return Outcome(frame.name, members), row


# ---- normals ----


def _finite_positions(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Infinite coordinates (scene ai_051_004 has some) taken from the row above, in the first row from below."""
    position = position.copy()
    for row, column, axis in np.argwhere(np.isinf(position)):
        position[row, column, axis] = position[row - 1 if row else 1, column, axis]
    return position


def prepare_normals(frame: Frame, out: Path) -> Outcome:
    """Unit normals in camera coordinates; those that point away from the camera are turned around. Frames with NaN are
    left out. Stored in single precision."""
    normals = frame.read("geometry", "normal_cam").astype(np.float64)
    if np.isnan(normals).any():
        return Outcome(frame.name, skipped="the normals have NaN")
    world = frame.read("geometry", "normal_world").astype(np.float64)
    position = _finite_positions(frame.read("geometry", "position").astype(np.float64))
    path = frame.raw / frame.scene / "_detail" / frame.camera / "camera_keyframe_positions.hdf5"
    cameras = frames.read_hdf5(path)
    if cameras.ndim != 2 or cameras.shape[1] != 3 or frame.number >= len(cameras):
        raise ValueError(f"{path}: shape {cameras.shape} has no position of frame {frame.number}")
    towards = frames.unit_vectors(cameras[frame.number].astype(np.float64) - position)
    turned = (world * towards).sum(-1) < _BACK_FACING
    normals = frames.unit_vectors(normals) * np.where(turned, -1, 1)[..., None]
    valid = frame.read("geometry", "render_entity_id") != _NOWHERE
    members = (f"{frame.scene}/rgb_{frame.suffix}.png", f"{frame.scene}/normal_cam_{frame.suffix}.npy")
    frames.write_png(out / frame.split / members[0], _tone_mapped(frame.read("final", "color"), valid))
    frames.write_npy(out / frame.split / members[1], normals.astype(np.float32))
    return Outcome(frame.name, members)


# ---- lighting ----


def _lighting_statistics(images: Arrays) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in ("albedo", "shading", "residual"):
        values = images[name]
        found |= {f"{name}_{key}": float(getattr(np, key)(values)) for key in ("min", "max", "mean", "std")}
        found[f"{name}_98"] = float(np.percentile(values, 98))
    found["residual_02"] = float(np.percentile(images["residual"], 2))
    return found


def psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    error = float(np.mean((first.astype(np.float32) - second.astype(np.float32)) ** 2))
    return math.inf if error == 0 else 20 * math.log10(255 / math.sqrt(error))


def _lighting_fault(color: NDArray[Any], images: Arrays, statistics: Mapping[str, float]) -> str | None:
    """Why a frame is not used for training or validation."""
    for name, values in images.items():
        if not np.isfinite(values).all():
            return f"{name} has values that are not finite"
    if statistics["albedo_min"] < 0 or statistics["albedo_max"] > 1:
        return f"albedo is from {statistics['albedo_min']:.4f} to {statistics['albedo_max']:.4f}"
    for name in ("shading", "residual"):
        if statistics[f"{name}_min"] < 0:
            return f"{name} is as low as {statistics[f'{name}_min']:.4f}"
    scale = exposure(color)
    if not math.isfinite(scale):
        return f"the exposure is {scale}"
    # Both are clipped at the shading's quantile, so that they stay on one scale.
    clipped = [np.clip(images[name], 0, statistics["shading_98"]) for name in ("shading", "residual")]
    composed = images["albedo"] * clipped[0] + clipped[1]
    likeness = psnr(picture(color, scale), picture(composed, exposure(composed)))
    return f"the PSNR after clipping is {likeness:.2f} dB" if likeness < _LEAST_PSNR else None


def prepare_iid(frame: Frame, out: Path) -> Outcome:
    """Albedo, shading and residual, linear, in single precision. Frames with pixels without a surface are left out;
    those for training and validation also if their images are not what I = A * S + R needs."""
    valid = frame.read("geometry", "render_entity_id") != _NOWHERE
    if not valid.all():
        return Outcome(frame.name, skipped=f"{np.count_nonzero(~valid)} pixels without a surface")
    color = frame.read("final", "color").astype(np.float64)
    kinds = {"albedo": "diffuse_reflectance", "shading": "diffuse_illumination", "residual": "residual"}
    images = {name: frame.read("final", kind).astype(np.float64) for name, kind in kinds.items()}
    statistics = _lighting_statistics(images)
    fault = _lighting_fault(color, images, statistics) if frame.split != "test" else None
    if fault is not None:
        return Outcome(frame.name, skipped=fault)
    folder = out / frame.split / frame.scene
    images["albedo"] = np.clip(images["albedo"], 0, 1)
    frames.write_png(folder / f"rgb_{frame.suffix}.png", _tone_mapped(color, valid))
    for name, values in images.items():
        frames.write_npy(folder / f"{name}_{frame.suffix}.npy", values.astype(np.float32))
    frames.write_text(folder / f"shading_stats_{frame.suffix}.json", json.dumps(statistics))
    names = ("rgb_{}.png", "albedo_{}.npy", "shading_{}.npy", "residual_{}.npy", "shading_stats_{}.json")
    return Outcome(frame.name, tuple(f"{frame.scene}/{name.format(frame.suffix)}" for name in names))


# ---- all of a data set ----


def prepare(
    table: Path,
    raw: Path,
    out: Path,
    task: str,
    splits: tuple[str, ...] = SPLITS,
    size: Size | None = None,
    progress: frames.Progress = iter,
) -> list[Outcome]:
    """Every frame, and the lists of files. task: "depth", "normals" or "iid". size: depth alone; None: as it is."""
    chosen = [frame for frame in frames_of(table, raw) if frame.split in splits]
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in splits}

    def depth(frame: Frame) -> Outcome:
        outcome, row = prepare_depth(frame, out, size)
        rows[frame.split].append(row)
        return outcome

    makers: dict[str, Callable[[Frame], Outcome]] = {
        "depth": depth,
        "normals": lambda frame: prepare_normals(frame, out),
        "iid": lambda frame: prepare_iid(frame, out),
    }
    make = makers[task]
    done: list[tuple[Frame, Outcome]] = []
    for frame in progress(chosen):
        done.append((frame, frames.attempt(frame.name, partial(make, frame))))
    listed: list[tuple[str, list[Outcome]]] = [
        (split, [outcome for frame, outcome in done if frame.split == split]) for split in splits
    ]
    for split, outcomes in listed:
        if task == "iid":
            frames.write_list(out / f"filename_list_{split}.txt", outcomes, f"{split}/")
            continue
        name = "filename_list" if task == "depth" else "hypersim_filtered"
        frames.write_list(out / split / f"{name}_{split}.txt", outcomes)
        if task == "depth":
            frames.write_table(out / split / f"filename_meta_{split}.csv", rows[split])
    if task == "normals":
        everything = [_with_split(split, outcome) for split, outcomes in listed for outcome in outcomes]
        frames.write_list(out / "hypersim_filtered_all.txt", everything)
    return [outcome for _, outcome in done]


def _with_split(split: str, outcome: Outcome) -> Outcome:
    return Outcome(outcome.frame, tuple(f"{split}/{member}" for member in outcome.members))

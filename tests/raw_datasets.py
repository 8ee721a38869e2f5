"""Small raw data in the official layouts of Hypersim, InteriorVerse, Sintel and Virtual KITTI 2, for test_prepare.py.

Hypersim's frames are made at another size: the tests set the module's constants to these.
"""

from __future__ import annotations

import csv
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from marigold_c.preparation import hypersim

HEIGHT, WIDTH, FOCAL_LENGTH = 24, 32, 27.7
SCENES = (("ai_001_001", "cam_00", 0, "train"), ("ai_001_002", "cam_01", 3, "val"), ("ai_001_003", "cam_00", 7, "test"))


def ray_lengths() -> np.ndarray:
    """Of the ray through each pixel, for a plane at distance 1."""
    lengths = np.empty((HEIGHT, WIDTH))
    for row in range(HEIGHT):
        for column in range(WIDTH):
            x, y = column + 0.5 - WIDTH / 2, row + 0.5 - HEIGHT / 2
            lengths[row, column] = (x * x + y * y + FOCAL_LENGTH**2) ** 0.5 / FOCAL_LENGTH
    return lengths


def write_hdf5(path: Path, values: np.ndarray) -> None:
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["dataset"] = values


def hypersim_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """A consistent frame: I = A * S + R, a wall 2 m away, its normals towards the camera at the origin."""
    rng = np.random.default_rng(seed)
    albedo = rng.uniform(0.1, 0.9, (HEIGHT, WIDTH, 3))
    shading = rng.uniform(0.5, 1.5, (HEIGHT, WIDTH, 3))
    residual = rng.uniform(0.0, 0.2, (HEIGHT, WIDTH, 3))
    towards = np.broadcast_to([0.0, 0.0, 1.0], (HEIGHT, WIDTH, 3))
    x = (np.arange(WIDTH) + 0.5 - WIDTH / 2) / FOCAL_LENGTH * 2
    y = -(np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / FOCAL_LENGTH * 2
    position = np.stack(np.broadcast_arrays(x[None], y[:, None], -2.0), axis=-1)
    return {
        "final/color": (albedo * shading + residual).astype(np.float32),
        "final/diffuse_reflectance": albedo.astype(np.float32),
        "final/diffuse_illumination": shading.astype(np.float32),
        "final/residual": residual.astype(np.float32),
        "geometry/depth_meters": (2 * ray_lengths()).astype(np.float32),
        "geometry/render_entity_id": np.ones((HEIGHT, WIDTH), np.int32),
        "geometry/normal_cam": (3 * towards).astype(np.float32),
        "geometry/normal_world": towards.astype(np.float32),
        "geometry/position": position.astype(np.float32),
    }


def write_hypersim(root: Path, changes: Mapping[str, Mapping[str, np.ndarray | None]] | None = None) -> Path:
    """A frame for each split, with other arrays (None: no file) in the scenes that `changes` names; the table."""
    for seed, (scene, camera, number, _) in enumerate(SCENES):
        arrays: dict[str, Any] = {**hypersim_arrays(seed), **(changes or {}).get(scene, {})}
        for name, values in arrays.items():
            group, kind = name.split("/")
            if values is not None:
                write_hdf5(root / scene / f"images/scene_{camera}_{group}_hdf5/frame.{number:04d}.{kind}.hdf5", values)
        write_hdf5(root / scene / f"_detail/{camera}/camera_keyframe_positions.hdf5", np.zeros((10, 3)))
    table = root / "split.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*hypersim.COLUMNS[:4], "exclude_reason", hypersim.COLUMNS[4]])
        for scene, camera, number, split in SCENES:
            writer.writerow([scene, camera, number, "True", "", split])
        writer.writerow(["ai_009_009", "cam_00", 1, "False", "no", "train"])
    return table


def write_exr(path: Path, values: np.ndarray) -> None:
    import OpenEXR

    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": np.ascontiguousarray(values, np.float32)}).write(str(path))


def write_sintel(root: Path, sequence: str, number: str, depth: np.ndarray, focal: float, picture: np.ndarray) -> None:
    height, width = depth.shape
    for folder in ("final", "clean", "depth", "camdata_left"):
        (root / folder / sequence).mkdir(parents=True, exist_ok=True)
    for folder in ("final", "clean"):
        Image.fromarray(picture).save(root / folder / sequence / f"frame_{number}.png")
    head = struct.pack("<fii", 202021.25, width, height)
    (root / "depth" / sequence / f"frame_{number}.dpt").write_bytes(head + depth.astype("<f4").tobytes())
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], "<f8")
    camera = struct.pack("<f", 202021.25) + intrinsics.tobytes() + np.eye(3, 4, dtype="<f8").tobytes()
    (root / "camdata_left" / sequence / f"frame_{number}.cam").write_bytes(camera)


def write_vkitti(root: Path, kind: str, size: tuple[int, int] = (8, 20)) -> list[str]:
    """Two frames of each of two cameras; the names of the files of `kind`, "rgb" or "depth"."""
    rng = np.random.default_rng(5)
    names = []
    for camera in (0, 1):
        for number in (0, 1):
            name = (
                f"Scene01/clone/frames/{kind}/Camera_{camera}/{kind}_{number:05d}.{'jpg' if kind == 'rgb' else 'png'}"
            )
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "rgb":
                Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
            else:
                Image.fromarray(rng.integers(1, 65536, size, dtype=np.uint16)).save(path)
            names.append(name)
    return names

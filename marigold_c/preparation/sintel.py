"""`marigold prepare sintel`: pictures and normals of MPI Sintel for the training of normals.

The paper's normals of Sintel were published ready-made; here they are computed from the data set's depth and cameras,
so that the layout can be had from the original files.

    SEQUENCE/frame_NNNN_img.png, SEQUENCE/frame_NNNN_normal.npy     the zero vector is the sky
"""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..images.readers import InputError, decode_stored
from . import frames
from .frames import Outcome

_TAG = 202021.25
_SKY = 1e4  # metres; the sky is farther
PASSES = ("clean", "final")


def read_depth(path: Path) -> NDArray[np.float64]:
    """A .dpt file: (H, W) metres along the optical axis. ValueError: damaged."""
    data = path.read_bytes()
    if len(data) < 12:
        raise ValueError(f"{path}: is no .dpt file: {len(data)} bytes")
    tag, width, height = struct.unpack("<fii", data[:12])
    if tag != _TAG or width < 1 or height < 1 or len(data) != 12 + 4 * width * height:
        raise ValueError(f"{path}: is no .dpt file: tag {tag}, {width} x {height} pixels in {len(data)} bytes")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width).astype(np.float64)


def read_intrinsics(path: Path) -> NDArray[np.float64]:
    """The intrinsic matrix (3, 3) of a .cam file. ValueError: damaged."""
    data = path.read_bytes()
    if len(data) != 4 + 21 * 8 or struct.unpack("<f", data[:4])[0] != _TAG:
        raise ValueError(f"{path}: is no .cam file")
    return np.frombuffer(data, "<f8", count=9, offset=4).reshape(3, 3)


def _difference(points: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Along rows (0) or columns (1), to the neighbour that is nearer in depth, so as not to bridge edges."""
    step = np.diff(points, axis=axis)
    pad = [(0, 0)] * 3
    pad[axis] = (0, 1)
    after = np.pad(step, pad, mode="edge")
    pad[axis] = (1, 0)
    before = np.pad(step, pad, mode="edge")
    return np.where(np.abs(after[..., 2:]) <= np.abs(before[..., 2:]), after, before)


def normals_of_depth(depth: NDArray[np.float64], intrinsics: NDArray[np.float64]) -> NDArray[np.float32]:
    """Unit normals (H, W, 3), x to the right, y up, z towards the viewer; the zero vector in the sky."""
    height, width = depth.shape
    x = (np.arange(width) - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (np.arange(height) - intrinsics[1, 2]) / intrinsics[1, 1]
    known = np.isfinite(depth) & (depth > 0) & (depth < _SKY)
    z = np.where(known, depth, _SKY)
    points = np.stack(np.broadcast_arrays(x[None] * z, -y[:, None] * z, -z), -1)
    normals = frames.unit_vectors(np.cross(_difference(points, 1), -_difference(points, 0)))
    facing = (normals * points).sum(-1, keepdims=True) <= 0
    normals = np.where(facing, normals, -normals)
    return np.where(known[..., None], normals, 0).astype(np.float32)


def _prepare_frame(raw: Path, sequence: str, number: str, rendering: str, out: Path) -> Outcome:
    picture = raw / rendering / sequence / f"frame_{number}.png"
    depth = read_depth(raw / "depth" / sequence / f"frame_{number}.dpt")
    normals = normals_of_depth(depth, read_intrinsics(raw / "camdata_left" / sequence / f"frame_{number}.cam"))
    try:
        pixels = decode_stored(picture.read_bytes())
    except InputError as error:
        raise ValueError(f"{picture}: {error}") from error
    frames.check_shape(picture, pixels, normals.shape)
    members = (f"{sequence}/frame_{number}_img.png", f"{sequence}/frame_{number}_normal.npy")
    frames.write_png(out / members[0], pixels)
    frames.write_npy(out / members[1], normals)
    return Outcome(f"{sequence} frame {number}", members)


def prepare(raw: Path, out: Path, rendering: str = "final", progress: frames.Progress = iter) -> list[Outcome]:
    """Every frame that has a depth map. `raw`: the folder `training`, with depth, camdata_left and pictures in it.

    rendering: "clean", or "final" with blur and fog.
    """
    found = [
        (sequence.name, path.stem.removeprefix("frame_"))
        for sequence in frames.sub_folders(raw / "depth")
        for path in sorted(sequence.glob("frame_*.dpt"))
    ]
    if not found:
        raise ValueError(f"{raw / 'depth'}: has no frame_*.dpt")
    outcomes = [
        frames.attempt(f"{sequence} frame {number}", partial(_prepare_frame, raw, sequence, number, rendering, out))
        for sequence, number in progress(found)
    ]
    frames.write_list(out / "sintel_all.txt", outcomes)
    return outcomes

"""Bas-reliefs: closed solids with the heights and sizes that were asked for; STL files; fields of view out of EXIF."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marigold_c as mc
from marigold_c.commands.cli import main
from marigold_c.images.geometry_files import write_stl
from marigold_c.images.readers import read_field_of_view

trimesh = pytest.importorskip("trimesh")
SMOOTH = np.add.outer(np.linspace(0, 1, 24) ** 2, np.linspace(0, 0.5, 32)).astype(np.float32) / np.float32(1.5)


def solid(**options: Any) -> Any:
    made = mc.depth_to_relief(SMOOTH, **options)
    return trimesh.Trimesh(made.vertices.astype(np.float64), made.triangles, process=False)


@pytest.mark.parametrize("frame", [0.0, 0.05])
@pytest.mark.parametrize("frame_near", [-0.5, 0.0, 0.01])
@pytest.mark.parametrize("shape", [(24, 32), (32, 24), (2, 9)])
def test_the_solid_is_closed(frame: float, frame_near: float, shape: tuple[int, int]) -> None:
    depth = np.random.default_rng(0).random(shape, np.float32)
    made = mc.depth_to_relief(depth, frame=frame, frame_near=frame_near, median=1)
    body = trimesh.Trimesh(made.vertices, made.triangles, process=False)
    assert body.is_watertight and body.is_winding_consistent
    assert body.volume > 0


def test_heights_and_sizes() -> None:
    """Without frame: a height field over a rectangle, whose corners, volume and extents are known."""
    body = solid(frame=0, embossing=0.3, frame_far=0.1, size=31, median=1)
    unit = 310.0 / body.extents[0] * 1  # the longer side is the longest extent
    assert unit == pytest.approx(1)
    np.testing.assert_allclose(body.extents, [310, 310 * 23 / 31, 310 * 0.4], rtol=1e-6)
    front = body.vertices[: 24 * 32].reshape(24, 32, 3)
    np.testing.assert_allclose(front[..., 2], 310 * (0.1 + 0.3 * (1 - SMOOTH.astype(np.float64))), rtol=1e-5)
    np.testing.assert_allclose(front[..., 0], np.broadcast_to(np.arange(32) * 10.0, (24, 32)), atol=1e-4)
    np.testing.assert_allclose(
        front[..., 1], np.broadcast_to(np.arange(23, -1, -1)[:, None] * 10.0, (24, 32)), atol=1e-4
    )
    corners = [front[:-1, :-1, 2], front[1:, :-1, 2], front[:-1, 1:, 2], front[1:, 1:, 2]]
    # Two triangles of a square share the diagonal from the upper right to the lower left corner.
    under = (corners[0] + 2 * corners[1] + 2 * corners[2] + corners[3]).sum() / 6 * 100
    assert body.volume == pytest.approx(under, rel=1e-6)


def test_the_frame() -> None:
    body = solid(frame=0.25, frame_near=0.1, embossing=0.2, frame_far=0.05, size=15, median=1)
    # 1 + 2 * 0.25 wide: 100 mm of the picture is 1.
    np.testing.assert_allclose(body.extents, [150, (23 / 31 + 0.5) * 100, 35], rtol=1e-6)
    assert body.vertices[: 24 * 32, 2].max() == pytest.approx(25, abs=1e-4)
    low = solid(frame=0.25, frame_near=-1, embossing=0.2, frame_far=0.05, size=15, median=1)
    assert low.extents[2] == pytest.approx(25)  # the frame lies as deep as the farthest, not deeper


def test_planes_median_and_conventions() -> None:
    body = solid(near_plane=0.25, far_plane=0.75, frame=0, median=1, embossing=1.0, frame_far=1.0, size=1)
    heights = body.vertices[: 24 * 32, 2].reshape(24, 32) / 10 * 2 - 1  # plate and relief are as high as each other
    np.testing.assert_allclose(heights * (2 / body.extents.max() * 5), 1 - np.clip(SMOOTH * 2 - 0.5, 0, 1), atol=1e-5)
    same = mc.depth_to_relief(1 - SMOOTH, prediction_type="disparity")
    np.testing.assert_allclose(same.vertices, mc.depth_to_relief(SMOOTH).vertices, atol=1e-4)
    spike = SMOOTH.copy()
    spike[12, 16] = 1.0
    kept, gone = (mc.depth_to_relief(spike, median=size).vertices[12 * 32 + 16, 2] for size in (1, 3))
    plain = mc.depth_to_relief(SMOOTH, median=3).vertices[12 * 32 + 16, 2]
    assert gone == pytest.approx(plain, abs=0.2) and kept < plain - 5


def test_large_maps_are_averaged() -> None:
    large = np.kron(SMOOTH, np.ones((8, 8), np.float32))
    made = mc.depth_to_relief(large, pixels=32, median=1)
    np.testing.assert_allclose(made.vertices, mc.depth_to_relief(SMOOTH, median=1).vertices, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"near_plane": 0.5, "far_plane": 0.5}, "near_plane=0.5 and far_plane=0.5"),
        ({"embossing": 1.5}, "embossing=1.5"),
        ({"embossing": math.nan}, "embossing=nan"),
        ({"frame_far": 0}, "frame_far=0"),
        ({"frame_near": -2}, "frame_near=-2"),
        ({"size": math.inf}, "size=inf"),
        ({"median": 4}, "median=4"),
        ({"pixels": 1}, "pixels=1"),
        ({"prediction_type": "far"}, "'far'"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mc.depth_to_relief(SMOOTH, **options)


def test_maps_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.5 everywhere"):
        mc.depth_to_relief(np.full((4, 4), 0.5, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        mc.depth_to_relief(np.full((4, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match="expected 0 to 1"):
        mc.depth_to_relief(np.array([[0.0, 2.0]], np.float32))


def test_stl_is_read_by_trimesh(tmp_path: Path) -> None:
    made = mc.depth_to_relief(SMOOTH)
    mc.write_geometry(tmp_path / "a.stl", made)
    read = trimesh.load_mesh(tmp_path / "a.stl", process=False)
    assert made.triangles is not None
    np.testing.assert_array_equal(read.triangles.astype(np.float32), made.vertices[made.triangles])
    np.testing.assert_allclose(
        read.face_normals, trimesh.Trimesh(made.vertices, made.triangles, process=False).face_normals, atol=1e-5
    )
    assert (tmp_path / "a.stl").stat().st_size == 84 + 50 * len(made.triangles)
    with pytest.raises(ValueError, match="3 points without any"):
        write_stl(io.BytesIO(), mc.depth_to_points(np.zeros((1, 3), np.float32)))


def photograph(length: int | None) -> bytes:
    exif = Image.Exif()
    if length is not None:
        exif.get_ifd(0x8769)[0xA405] = length
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_field_of_view_from_exif() -> None:
    assert read_field_of_view(photograph(18)) == pytest.approx(90)
    assert read_field_of_view(photograph(26)) == pytest.approx(69.39, abs=0.01)
    for data in (photograph(None), photograph(0), b"", b"no picture", photograph(26)[:40]):
        assert read_field_of_view(data) is None


def test_the_command_uses_both(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photograph(18))
    words = [
        "depth",
        str(tmp_path / "a.jpg"),
        "-o",
        str(tmp_path / "out"),
        "--format",
        "stl,ply",
        "--seed",
        "0",
        "--quiet",
    ]
    assert main([*words, "--geometry", "points", "--relief-size", "5", "--relief-frame", "0"]) == 0
    body = trimesh.load_mesh(tmp_path / "out/depth_stl/a_depth.stl")
    assert body.is_watertight and body.extents.max() == pytest.approx(50)
    points = trimesh.load(tmp_path / "out/depth_ply/a_depth.ply").vertices
    angle = math.degrees(2 * math.atan(np.abs(points[:, 0] / points[:, 2]).max() / (1 - 1 / 40)))
    assert angle == pytest.approx(90, abs=0.1)

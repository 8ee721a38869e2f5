"""Point clouds and meshes: where points lie, which edges are cut, files read back by other readers."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from strict_geometry import strict_glb, strict_ply

from marigold_c.images.geometry_files import write_geometry, write_glb, write_ply
from marigold_c.images.point_clouds import Geometry, depth_to_mesh, depth_to_points, distances, focal_length_in_pixels

RNG = np.random.default_rng(5)
DEPTH = RNG.random((12, 20), dtype=np.float32)
SMOOTH = np.linspace(0, 0.02, 240, dtype=np.float32).reshape(12, 20)
IMAGE = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)


def encoded(write: Any, geometry: Geometry) -> bytes:
    file = io.BytesIO()
    write(file, geometry)
    return file.getvalue()


# ---- where points lie ----


def test_points_project_back_to_their_pixels() -> None:
    focal = 17.5
    points = depth_to_points(DEPTH, IMAGE, focal_length=focal, near=2, far=7)
    x, y, z = points.vertices.astype(float).T
    assert points.vertices.dtype == np.float32
    assert points.triangles is None
    rows, columns = np.mgrid[:12, :20]
    assert np.allclose(-z, 2 + 5 * DEPTH.ravel(), atol=1e-5)
    assert np.allclose(focal * x / -z + 10, columns.ravel() + 0.5, atol=1e-4)
    assert np.allclose(6 - focal * y / -z, rows.ravel() + 0.5, atol=1e-4)
    assert points.colours is not None
    assert np.array_equal(points.colours, IMAGE.reshape(-1, 3))


def test_directions() -> None:
    """Right is +X, up is +Y, before the camera is -Z, far is farther."""
    points = depth_to_points(np.array([[0, 1], [0, 1]], np.float32), near=1, far=3).vertices.reshape(2, 2, 3)
    assert (points[:, 0, 0] < 0).all()
    assert (points[:, 1, 0] > 0).all()
    assert (points[0, :, 1] > 0).all()
    assert (points[1, :, 1] < 0).all()
    assert points[:, :, 2].tolist() == [[-1, -3], [-1, -3]]


def test_focal_lengths() -> None:
    assert focal_length_in_pixels(480, 640, field_of_view=90) == pytest.approx(320)
    assert focal_length_in_pixels(640, 480, field_of_view=90) == pytest.approx(320)
    assert focal_length_in_pixels(480, 640) == pytest.approx(320 / math.tan(math.radians(30)))
    assert focal_length_in_pixels(480, 640, focal_length=500) == 500


def test_distances() -> None:
    values = np.array([0, 0.5, 1], np.float32)
    assert distances(values, 2, 4).tolist() == [2, 3, 4]
    assert np.allclose(distances(values, 2, 4, "disparity"), [4, 1 / 0.375, 2])


def test_stride_and_most_points() -> None:
    every = depth_to_points(DEPTH, IMAGE)
    some = depth_to_points(DEPTH, IMAGE, stride=3)
    assert len(some.vertices) == 4 * 7
    assert np.array_equal(some.vertices, every.vertices.reshape(12, 20, 3)[::3, ::3].reshape(-1, 3))
    assert np.array_equal(some.colours, IMAGE[::3, ::3].reshape(-1, 3))  # type: ignore[arg-type]
    for most in (240, 239, 60, 59, 1):
        count = len(depth_to_points(DEPTH, max_points=most).vertices)
        assert count <= most
        assert count == {240: 240, 239: 60, 60: 60, 59: 28, 1: 1}[most]
    assert len(depth_to_points(DEPTH, stride=3, max_points=1000).vertices) == 28


def test_masks() -> None:
    mask = DEPTH < 0.5
    depth = np.where(mask, DEPTH, np.nan)
    points = depth_to_points(depth, IMAGE, mask=mask)
    assert np.array_equal(points.vertices, depth_to_points(DEPTH).vertices[mask.ravel()])
    assert np.array_equal(points.colours, IMAGE[mask])  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(12, 20, 1), (1, 12, 20, 1)])
def test_predictions_as_they_come(shape: tuple[int, ...]) -> None:
    assert np.array_equal(depth_to_points(DEPTH.reshape(shape)).vertices, depth_to_points(DEPTH).vertices)


def test_pictures_of_other_kinds() -> None:
    colours = depth_to_points(DEPTH, IMAGE).colours
    for image in (
        Image.fromarray(IMAGE),
        IMAGE.astype(np.uint16) * 257,
        IMAGE.astype(np.float32) / 255,
        IMAGE.repeat(3, axis=0).repeat(3, axis=1),
    ):
        assert np.array_equal(depth_to_points(DEPTH, image).colours, colours)  # type: ignore[arg-type]
    grey = depth_to_points(DEPTH, IMAGE[:, :, 0]).colours
    assert grey is not None
    assert np.array_equal(grey, IMAGE[:, :, :1].repeat(3, axis=2).reshape(-1, 3))
    # A picture of 1000 x 667 processed at 768 x 512.
    depth_to_points(np.zeros((512, 768), np.float32), np.zeros((667, 1000, 3), np.uint8), stride=64)


# ---- meshes ----


def test_whole_mesh() -> None:
    mesh = depth_to_mesh(SMOOTH, IMAGE, focal_length=10)
    assert mesh.triangles is not None
    assert mesh.triangles.dtype == np.uint32
    assert len(mesh.triangles) == 2 * 11 * 19
    assert np.array_equal(mesh.vertices, depth_to_points(SMOOTH, focal_length=10).vertices)
    assert np.array_equal(mesh.colours, IMAGE.reshape(-1, 3))  # type: ignore[arg-type]
    # Every triangle faces the camera, at the origin.
    a, b, c = (mesh.vertices[mesh.triangles[:, i]].astype(float) for i in range(3))
    normals = np.cross(b - a, c - a)
    assert ((normals * -a).sum(axis=1) > 0).all()
    # Seen from the camera they cover the picture's inner part once.
    flat = [np.stack([10 * p[:, 0] / -p[:, 2], 10 * p[:, 1] / -p[:, 2]], axis=1) for p in (a, b, c)]
    (x1, y1), (x2, y2) = (flat[1] - flat[0]).T, (flat[2] - flat[0]).T
    areas = x1 * y2 - x2 * y1
    assert areas.sum() / 2 == pytest.approx(11 * 19, rel=1e-4)
    edges = np.sort(np.concatenate([mesh.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    assert counts.max() == 2
    assert (counts == 1).sum() == 2 * (11 + 19)


def test_a_step_is_cut() -> None:
    depth = np.zeros((6, 8), np.float32)
    depth[:, 4:] = 0.5
    mesh = depth_to_mesh(depth, near=1, far=2)
    assert mesh.triangles is not None
    assert len(mesh.triangles) == 2 * 5 * (7 - 1)
    z = -mesh.vertices[mesh.triangles][:, :, 2]
    assert (z.min(axis=1) == z.max(axis=1)).all()
    # A step of exactly half the distance: cut below that threshold, whole above and without one.
    for threshold, count in ((0.49, 60), (0.51, 70), (math.inf, 70)):
        triangles = depth_to_mesh(depth, near=1, far=2, edge_threshold=threshold).triangles
        assert triangles is not None
        assert len(triangles) == count
    # The limit is for each pixel: at stride 2 the same step is 25 % a pixel.
    assert len(depth_to_mesh(depth, near=1, far=2, edge_threshold=0.26, stride=2).triangles) == 2 * 2 * 3  # type: ignore[arg-type]
    assert len(depth_to_mesh(depth, near=1, far=2, edge_threshold=0.24, stride=2).triangles) == 2 * 2 * 2  # type: ignore[arg-type]


def test_unused_points_are_left_out() -> None:
    mask = np.ones((6, 8), bool)
    mask[:, 3] = False
    mask[1, 0] = False
    mesh = depth_to_mesh(SMOOTH[:6, :8], IMAGE[:6, :8], mask=mask)
    points = depth_to_points(SMOOTH[:6, :8], IMAGE[:6, :8])
    kept = mask.copy()
    kept[0, 0] = False  # its only triangle lost the corner below
    assert mesh.triangles is not None
    assert np.array_equal(np.unique(mesh.triangles), np.arange(len(mesh.vertices)))
    assert {tuple(one) for one in mesh.vertices.tolist()} == {
        tuple(one) for one in points.vertices[kept.ravel()].tolist()
    }


# ---- bad arguments ----

BAD: list[tuple[dict[str, Any], str]] = [
    ({"depth": np.zeros((3, 4, 2), np.float32)}, r"\(3, 4, 2\)"),
    ({"depth": np.zeros((0, 4), np.float32)}, r"\(0, 4\)"),
    ({"depth": np.zeros((3, 4), np.uint16)}, "uint16"),
    ({"depth": np.full((3, 4), np.nan, np.float32)}, "12 of 12"),
    ({"depth": np.full((3, 4), 1.5, np.float32)}, "1.5"),
    ({"depth": np.full((3, 4), -0.25, np.float32)}, "-0.25"),
    ({"mask": np.ones((3, 4), bool)}, r"\(3, 4\)"),
    ({"mask": np.ones((12, 20), np.uint8)}, "uint8"),
    ({"mask": np.zeros((12, 20), bool)}, "no (point|triangle)"),
    ({"focal_length": 0}, "focal_length=0"),
    ({"focal_length": math.nan}, "nan"),
    ({"focal_length": 5, "field_of_view": 50}, "one of them"),
    ({"field_of_view": 180}, "180"),
    ({"near": 0}, "near=0"),
    ({"near": 3, "far": 2}, "near=3 and far=2"),
    ({"far": math.inf}, "inf"),
    ({"prediction_type": "log"}, "log"),
    ({"stride": 0}, "stride=0"),
    ({"max_points": 0}, "max_points=0"),
    ({"image": np.zeros((20, 12, 3), np.uint8)}, "12 x 20"),
    ({"image": np.zeros((12, 20, 4), np.uint8)}, r"\(12, 20, 4\)"),
    ({"image": np.zeros((12, 20, 3), np.int64)}, "int64"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_refused(options: dict[str, Any], message: str) -> None:
    for make in (depth_to_points, depth_to_mesh):
        with pytest.raises(ValueError, match=message):
            make(**({"depth": SMOOTH} | options))


def test_refused_meshes() -> None:
    with pytest.raises(ValueError, match="edge_threshold=0"):
        depth_to_mesh(SMOOTH, edge_threshold=0)
    with pytest.raises(ValueError, match="20 x 1 points"):
        depth_to_mesh(SMOOTH[:1])
    with pytest.raises(ValueError, match=r"edge_threshold=1e-0?9"):
        depth_to_mesh(DEPTH, edge_threshold=1e-9)


# ---- files ----

SHAPES = {
    "points": depth_to_points(DEPTH, IMAGE),
    "plain points": depth_to_points(DEPTH),
    "mesh": depth_to_mesh(SMOOTH, IMAGE),
    "plain mesh": depth_to_mesh(SMOOTH),
}


def same(got: Any, wanted: Any) -> bool:
    return got is None if wanted is None else bool(np.array_equal(got, wanted))


@pytest.mark.parametrize("name", SHAPES)
def test_ply(name: str) -> None:
    geometry = SHAPES[name]
    got = strict_ply(encoded(write_ply, geometry))
    assert np.array_equal(got.vertices, geometry.vertices)
    assert same(got.colours, geometry.colours)
    assert same(got.triangles, geometry.triangles)


def srgb(linear: Any) -> Any:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.power(np.maximum(linear, 1e-9), 1 / 2.4) - 0.055)


@pytest.mark.parametrize("name", SHAPES)
def test_glb(name: str) -> None:
    geometry = SHAPES[name]
    got = strict_glb(encoded(write_glb, geometry))
    assert np.array_equal(got.vertices, geometry.vertices)
    assert same(got.triangles, geometry.triangles)
    assert (got.colours is None) == (geometry.colours is None)
    if geometry.colours is not None:  # stored as linear light, back to the very bytes
        assert np.array_equal(np.rint(srgb(got.colours[:, :3] / 65535) * 255), geometry.colours)
    assert got.document is not None
    assert "KHR_materials_unlit" in got.document["materials"][0]["extensions"]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["ply", "glb"])
def test_read_by_trimesh(name: str, kind: str) -> None:
    trimesh = pytest.importorskip("trimesh")
    geometry = SHAPES[name]
    data = encoded({"ply": write_ply, "glb": write_glb}[kind], geometry)
    scene = trimesh.load_scene(io.BytesIO(data), file_type=kind, process=False)
    (got,) = scene.geometry.values()
    assert np.allclose(got.vertices, geometry.vertices, atol=1e-6)
    if geometry.triangles is not None:
        assert np.array_equal(got.faces, geometry.triangles)
    else:
        assert isinstance(got, trimesh.PointCloud)
    if geometry.colours is not None and kind == "ply":
        colours = got.colors if geometry.triangles is None else got.visual.vertex_colors
        assert np.array_equal(np.asarray(colours)[:, :3], geometry.colours)


def test_files_by_their_ending(tmp_path: Path) -> None:
    write_geometry(tmp_path / "a.ply", SHAPES["mesh"])
    write_geometry(tmp_path / "a.GLB", SHAPES["mesh"])
    assert (tmp_path / "a.ply").read_bytes() == encoded(write_ply, SHAPES["mesh"])
    assert (tmp_path / "a.GLB").read_bytes() == encoded(write_glb, SHAPES["mesh"])
    with pytest.raises(ValueError, match="obj"):
        write_geometry(tmp_path / "a.obj", SHAPES["mesh"])
    broken = Geometry(np.full((1, 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="finite"):
        write_geometry(tmp_path / "b.ply", broken)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.GLB", "a.ply"]


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(np.zeros((0, 3), np.float32)),
        Geometry(np.zeros((4, 2), np.float32)),
        Geometry(np.zeros((4, 3), np.float32), np.zeros((3, 3), np.uint8)),
        Geometry(np.zeros((4, 3), np.float32), np.zeros((4, 3), np.float32)),  # type: ignore[arg-type]
        Geometry(np.zeros((4, 3), np.float32), None, np.zeros((0, 3), np.uint32)),
        Geometry(np.zeros((4, 3), np.float32), None, np.full((1, 3), 4, np.uint32)),
    ],
)
def test_refused_geometry(geometry: Geometry) -> None:
    for write in (write_ply, write_glb):
        file = io.BytesIO()
        with pytest.raises(ValueError, match=r"\d"):
            write(file, geometry)
        assert file.getvalue() == b""

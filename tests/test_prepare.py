"""`marigold prepare hypersim | interiorverse | sintel | vkitti` on small raw data of the official layouts: values,
layout, lists; and what is left out or fails, and how that is said."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import raw_datasets as raw
from PIL import Image

from marigold_c import extras
from marigold_c.commands import cli
from marigold_c.datasets import open_dataset
from marigold_c.preparation import frames, hypersim, sintel, tone

pytest.importorskip("h5py")


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEIGHT", "WIDTH", "FOCAL_LENGTH"):
        monkeypatch.setattr(hypersim, name, getattr(raw, name))


def run(*arguments: Any) -> int:
    return cli.main(["prepare", *map(str, arguments)])


def run_hypersim(root: Path, out: Path, task: str, *arguments: Any) -> int:
    return run("hypersim", root, "--split-csv", root / "split.csv", "-o", out, "--task", task, "--quiet", *arguments)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


# ---- tone mapping ----


def test_the_90th_percentile_of_brightness_appears_as_0_8() -> None:
    grey = np.linspace(0.5, 7.5, 101)[:, None, None] * np.ones((1, 1, 3))
    shown = tone.picture(grey, tone.exposure(grey))
    assert shown[90].tolist() == [[204, 204, 204]] or shown[90].tolist() == [[203, 203, 203]]  # 0.8 * 255, truncated
    assert shown[100].max() == int(255 * (7.5 / (0.5 + 0.9 * 7.0)) ** (1 / 2.2) * 0.8)


def test_brightness_weighs_the_channels_and_only_valid_pixels_count() -> None:
    colors = np.zeros((4, 4, 3))
    colors[:2, :, 0], colors[2:, :, 1] = 1.0, 1.0
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    assert tone.exposure(colors, mask) == pytest.approx(0.8**2.2 / 0.3)
    assert tone.exposure(colors, ~mask) == pytest.approx(0.8**2.2 / 0.59)
    assert tone.exposure(colors, mask & ~mask) == 1
    assert tone.exposure(colors * 1e-5) == 0


# ---- Hypersim ----


def test_hypersims_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HEIGHT", 768), ("WIDTH", 1024), ("FOCAL_LENGTH", 886.81)):
        monkeypatch.setattr(hypersim, name, value)
    depth = hypersim.plane_depth(np.ones((768, 1024)))
    assert depth[0, 0] == pytest.approx(886.81 / (511.5**2 + 383.5**2 + 886.81**2) ** 0.5)
    assert depth[383, 512] == pytest.approx(886.81 / (0.5**2 + 0.5**2 + 886.81**2) ** 0.5)


def test_hypersim_depth(tmp_path: Path) -> None:
    distance = raw.hypersim_arrays()["geometry/depth_meters"]
    distance[5, 6], distance[7, 8], distance[9, 10] = np.nan, 100.0, 0.5
    entities = np.ones((raw.HEIGHT, raw.WIDTH), np.int32)
    entities[0, :4] = -1
    changes = {"ai_001_001": {"geometry/depth_meters": distance, "geometry/render_entity_id": entities}}
    raw.write_hypersim(tmp_path / "raw", changes)
    assert run_hypersim(tmp_path / "raw", tmp_path / "out", "depth") == 0
    folder = tmp_path / "out/train"
    assert lines(folder / "filename_list_train.txt") == [
        "ai_001_001/rgb_cam_00_fr0000.png ai_001_001/depth_plane_cam_00_fr0000.png"
    ]
    depth = np.asarray(Image.open(folder / "ai_001_001/depth_plane_cam_00_fr0000.png"))
    assert depth.dtype == np.uint16 and depth.shape == (raw.HEIGHT, raw.WIDTH)
    expected = (np.nan_to_num(distance.astype(np.float64)) / raw.ray_lengths() * 1000).astype(np.int64)
    usual = np.ones(depth.shape, bool)
    usual[0, :4] = usual[5, 6] = usual[7, 8] = False
    assert np.abs(depth[usual] - expected[usual]).max() <= 1
    assert (depth[0, :4] == 0).all() and depth[5, 6] == 0
    assert depth[7, 8] == 65535  # farther than fits, and not another depth
    shown = np.asarray(Image.open(folder / "ai_001_001/rgb_cam_00_fr0000.png"))
    color = raw.hypersim_arrays()["final/color"].astype(np.float64)
    bright = np.percentile((color @ [0.3, 0.59, 0.11])[entities != -1], 90)
    assert np.array_equal(shown, (np.clip((color * 0.8**2.2 / bright) ** (1 / 2.2), 0, 1) * 255).astype(np.uint8))
    with (folder / "filename_meta_train.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["invalid_ratio"]) == pytest.approx(4 / entities.size)
    assert float(row["depth_max"]) == pytest.approx(65.535)


def test_hypersim_depth_is_read_by_the_data_set(tmp_path: Path) -> None:
    raw.write_hypersim(tmp_path / "raw")
    assert run_hypersim(tmp_path / "raw", tmp_path / "out", "depth", "--splits", "val") == 0
    assert not (tmp_path / "out/train").exists()
    config = {
        "name": "hypersim_depth",
        "disp_name": "h",
        "dir": "val",
        "filenames": str(tmp_path / "out/val/filename_list_val.txt"),
    }
    with open_dataset(config, tmp_path / "out", task="depth") as data:
        truth = data.read_truth(0)
        assert data.read_image(0).shape == (raw.HEIGHT, raw.WIDTH, 3)
    assert np.allclose(truth.target, 2, atol=1.1e-3) and truth.mask.all()


def test_hypersim_at_the_size_of_training(tmp_path: Path) -> None:
    torch_rows = [0, 2, 4, 5, 7, 8, 10, 12, 13, 15, 16, 18, 20, 21, 23]  # torch's nearest-exact, 24 -> 15
    values = np.arange(24 * 4).reshape(24, 4)
    assert np.array_equal(frames.nearest_exact(values, (15, 4)), values[torch_rows])
    raw.write_hypersim(tmp_path / "raw")
    assert run_hypersim(tmp_path / "raw", tmp_path / "out", "depth", "--size", "15x20") == 0
    full, small = tmp_path / "full", tmp_path / "out/val/ai_001_002"
    assert run_hypersim(tmp_path / "raw", full, "depth") == 0
    for name in ("rgb_cam_01_fr0003.png", "depth_plane_cam_01_fr0003.png"):
        whole = np.asarray(Image.open(full / "val/ai_001_002" / name))
        assert np.array_equal(np.asarray(Image.open(small / name)), frames.nearest_exact(whole, (15, 20)))
    assert run_hypersim(tmp_path / "raw", full, "iid", "--size", "15x20") == 2


def test_hypersim_normals(tmp_path: Path) -> None:
    arrays = raw.hypersim_arrays()
    normals, world, position = (
        arrays[f"geometry/{name}"].copy() for name in ("normal_cam", "normal_world", "position")
    )
    normals[2, 3], world[2, 3] = -normals[2, 3], -world[2, 3]  # points away from the camera
    normals[4, 4] = 0
    position[6, 7, 2] = -np.inf
    changed = {"geometry/normal_cam": normals, "geometry/normal_world": world, "geometry/position": position}
    bad = arrays["geometry/normal_cam"].copy()
    bad[0, 0, 0] = np.nan
    raw.write_hypersim(tmp_path / "raw", {"ai_001_001": changed, "ai_001_002": {"geometry/normal_cam": bad}})
    assert run_hypersim(tmp_path / "raw", tmp_path / "out", "normals") == 0
    stored = np.load(tmp_path / "out/train/ai_001_001/normal_cam_cam_00_fr0000.npy")
    expected = np.broadcast_to([0.0, 0.0, 1.0], stored.shape).copy()
    expected[4, 4] = 0
    assert stored.dtype == np.float32 and np.array_equal(stored, expected)
    assert lines(tmp_path / "out/hypersim_filtered_all.txt") == [
        f"{split}/{scene}/rgb_cam_00_fr{number}.png {split}/{scene}/normal_cam_cam_00_fr{number}.npy"
        for split, scene, number in (("train", "ai_001_001", "0000"), ("test", "ai_001_003", "0007"))
    ]
    assert lines(tmp_path / "out/val/hypersim_filtered_val.txt") == []


def test_hypersim_lighting(tmp_path: Path) -> None:
    raw.write_hypersim(tmp_path / "raw")
    assert run_hypersim(tmp_path / "raw", tmp_path / "out", "iid") == 0
    (line,) = lines(tmp_path / "out/filename_list_train.txt")
    folder = "train/ai_001_001"
    kinds = (("rgb", "png"), ("albedo", "npy"), ("shading", "npy"), ("residual", "npy"), ("shading_stats", "json"))
    assert line.split() == [f"{folder}/{name}_cam_00_fr0000.{suffix}" for name, suffix in kinds]
    arrays = raw.hypersim_arrays()
    for name, kind in (
        ("albedo", "diffuse_reflectance"),
        ("shading", "diffuse_illumination"),
        ("residual", "residual"),
    ):
        assert np.array_equal(np.load(tmp_path / f"out/{folder}/{name}_cam_00_fr0000.npy"), arrays[f"final/{kind}"])
    statistics = json.loads((tmp_path / f"out/{folder}/shading_stats_cam_00_fr0000.json").read_text())
    shading = arrays["final/diffuse_illumination"].astype(np.float64)
    assert statistics["shading_98"] == pytest.approx(np.percentile(shading, 98))
    config = {
        "name": "hypersim_iid",
        "disp_name": "h",
        "dir": "out",
        "filenames": str(tmp_path / "out/filename_list_train.txt"),
    }
    with open_dataset(config, tmp_path, task="iid") as data:
        assert set(data.read_truth(0).target) == {"albedo", "shading", "residual"}


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (
            "geometry/render_entity_id",
            lambda a: np.where(np.eye(raw.HEIGHT, raw.WIDTH) > 0, -1, a),
            "24 pixels without",
        ),
        ("final/diffuse_illumination", lambda a: a - 1, "shading is as low as"),
        ("final/residual", lambda a: a - 0.1, "residual is as low as"),
        ("final/diffuse_reflectance", lambda a: a * 1.5, "albedo is from"),
        ("final/diffuse_reflectance", lambda a: np.where(a > 0.8, np.nan, a), "albedo has values that are not finite"),
        ("final/color", lambda a: a[::-1], "the PSNR after clipping is"),
    ],
)
def test_frames_that_do_not_fit_the_intrinsic_model_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, change: Any, reason: str
) -> None:
    spoilt = {name: change(raw.hypersim_arrays(0)[name])}
    raw.write_hypersim(tmp_path / "raw", {"ai_001_001": spoilt, "ai_001_003": spoilt})
    root, out = tmp_path / "raw", tmp_path / "out"
    assert run("hypersim", root, "--split-csv", root / "split.csv", "-o", out, "--task", "iid") == 0
    assert f"left out: ai_001_001 cam_00 frame 0: {reason}" in capsys.readouterr().out
    assert lines(out / "filename_list_train.txt") == [] and len(lines(out / "filename_list_val.txt")) == 1
    # The test split is kept as it is, but for pixels without a surface.
    assert len(lines(out / "filename_list_test.txt")) == (0 if "entity" in name else 1)


def test_a_frame_that_fails_is_named_and_the_others_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = np.ones((4, 4), np.float32)
    raw.write_hypersim(
        tmp_path / "raw",
        {"ai_001_001": {"geometry/depth_meters": None}, "ai_001_002": {"geometry/depth_meters": small}},
    )
    assert run_hypersim(tmp_path / "raw", tmp_path / "out", "depth") == 1
    errors = capsys.readouterr().err
    assert "ai_001_001 cam_00 frame 0: " in errors and "frame.0000.depth_meters.hdf5: No such file" in errors
    assert "ai_001_002 cam_01 frame 3: " in errors and "has shape (4, 4), not (24, 32)" in errors
    assert len(lines(tmp_path / "out/test/filename_list_test.txt")) == 1
    (tmp_path / "raw/ai_001_003/images/scene_cam_00_final_hdf5/frame.0007.color.hdf5").write_bytes(b"not HDF5")
    assert run_hypersim(tmp_path / "raw", tmp_path / "out", "depth") == 1
    assert "frame.0007.color.hdf5: cannot be read as HDF5" in capsys.readouterr().err


def test_a_table_of_other_columns_and_a_missing_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = raw.write_hypersim(tmp_path / "raw")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert run_hypersim(tmp_path / "raw", tmp_path / "out", "depth") == 1
    assert "pip install 'marigold-c[prepare]'" in capsys.readouterr().err
    table.write_text("scene_name,camera_name\nx,y\n")
    assert run_hypersim(tmp_path / "raw", tmp_path / "out", "depth") == 1
    assert "no column frame_id, included_in_public_release, split_partition_name" in capsys.readouterr().err


# ---- InteriorVerse ----


def _interiorverse(root: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    pytest.importorskip("OpenEXR")
    images = {
        "im": rng.uniform(0, 1.4, (6, 8, 3)),
        "normal": rng.normal(size=(6, 8, 3)) + np.array([0, 0, 3]),
        "albedo": rng.uniform(0, 1, (6, 8, 3)),
        "material": rng.uniform(0, 1, (6, 8, 3)),
        "mask": np.ones((6, 8, 3)),
        "depth": np.ones((6, 8, 3)),
    }
    for number in ("000", "001"):
        for kind, values in images.items():
            raw.write_exr(root / f"scenes_85/L3D1/{number}_{kind}.exr", values)
    return {kind: values.astype(np.float32) for kind, values in images.items()}


def test_interiorverse_normals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = _interiorverse(tmp_path / "raw")
    holes = images["normal"].copy()
    holes[0, 0] = 0
    raw.write_exr(tmp_path / "raw/scenes_85/L3D1/001_normal.exr", holes)
    assert run("interiorverse", tmp_path / "raw", "-o", tmp_path / "out", "--task", "normals") == 0
    assert "left out: L3D1/001: 1 pixels have no normal" in capsys.readouterr().out
    assert lines(tmp_path / "out/interiorverse_filtered_all.txt") == ["L3D1/000_img.png L3D1/000_normal.npy"]
    shown = np.asarray(Image.open(tmp_path / "out/scenes_85/L3D1/000_img.png")).astype(int)
    assert np.abs(shown - np.floor(np.clip(images["im"], 0, 1) ** (1 / 2.2) * 255)).max() <= 1
    normals = np.load(tmp_path / "out/scenes_85/L3D1/000_normal.npy")
    assert np.allclose(normals, images["normal"] / np.linalg.norm(images["normal"], axis=2, keepdims=True), atol=1e-6)


def test_interiorverse_appearance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = _interiorverse(tmp_path / "raw")
    (tmp_path / "raw/scenes_85/L3D1/001_mask.exr").unlink()
    assert run("interiorverse", tmp_path / "raw", "-o", tmp_path / "out", "--task", "appearance", "--quiet") == 1
    assert "L3D1/001: " in capsys.readouterr().err
    with tarfile.open(tmp_path / "out/InteriorVerse.tar") as tar:
        members = sorted(tar.getnames())
    assert members == sorted(f"scenes_85/L3D1/000_{kind}.exr" for kind in ("im", "albedo", "material", "mask"))
    config = {
        "name": "interiorverse_iid",
        "disp_name": "i",
        "dir": "InteriorVerse.tar",
        "filenames": str(tmp_path / "out/interiorverse_scenes_85.txt"),
    }
    with open_dataset(config, tmp_path / "out", task="iid") as data:
        truth = data.read_truth(0)
    assert np.allclose(truth.target["albedo"], images["albedo"] ** (1 / 2.2), atol=1e-5)


# ---- Sintel ----


def test_sintel_normals_of_a_tilted_plane_under_the_sky(tmp_path: Path) -> None:
    height, width, focal = 20, 30, 25.0
    normal = np.array([0.2, 0.9, 0.4]) / np.linalg.norm([0.2, 0.9, 0.4])  # x right, y up, z towards the viewer
    x = (np.arange(width) - (width - 1) / 2) / focal
    y = -(np.arange(height) - (height - 1) / 2) / focal
    rays = np.stack(np.broadcast_arrays(x[None], y[:, None], -1.0), axis=-1)
    with np.errstate(divide="ignore"):
        depth = -3.0 / (rays @ normal)
    depth = np.where((depth > 0) & (depth < 12), depth, 1e5)
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    raw.write_sintel(tmp_path / "training", "alley_1", "0001", depth, focal, picture)
    assert run("sintel", tmp_path / "training", "-o", tmp_path / "out", "--quiet") == 0
    assert lines(tmp_path / "out/sintel_all.txt") == ["alley_1/frame_0001_img.png alley_1/frame_0001_normal.npy"]
    normals = np.load(tmp_path / "out/alley_1/frame_0001_normal.npy")
    ground = depth < 12
    assert ground.sum() > 150 and (~ground).sum() > 50
    assert (normals[~ground] == 0).all()
    assert np.abs(normals[ground] - normal).max() < 1e-3
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/alley_1/frame_0001_img.png")), picture)


def test_sintel_edges_are_not_bridged() -> None:
    depth = np.full((12, 12), 2.0)
    depth[:, 6:] = 9.0
    normals = sintel.normals_of_depth(depth, np.array([[10.0, 0, 5.5], [0, 10, 5.5], [0, 0, 1]]))
    assert np.allclose(normals, [0, 0, 1], atol=1e-6)


def test_damaged_sintel_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw.write_sintel(tmp_path / "t", "alley_1", "0001", np.ones((4, 5)), 9.0, np.zeros((4, 5, 3), np.uint8))
    path = tmp_path / "t/depth/alley_1/frame_0001.dpt"
    path.write_bytes(path.read_bytes()[:-1])
    assert run("sintel", tmp_path / "t", "-o", tmp_path / "out", "--quiet") == 1
    assert "alley_1 frame 0001: " in (errors := capsys.readouterr().err) and "is no .dpt file" in errors


# ---- Virtual KITTI 2 ----


def test_vkitti_from_folders_and_from_the_official_archives(tmp_path: Path) -> None:
    names = {kind: raw.write_vkitti(tmp_path / "raw", kind) for kind in ("rgb", "depth")}
    archives = tmp_path / "archives"
    archives.mkdir()
    for kind, members in names.items():
        with tarfile.open(archives / f"vkitti_2.0.3_{kind}.tar", "w") as tar:
            for name in members:
                tar.add(tmp_path / "raw" / name, arcname=name)
    for source in ("raw", "archives"):
        out = tmp_path / f"from_{source}"
        assert run("vkitti", tmp_path / source, "-o", out, "--quiet") == 0
        pairs = [line.split() for line in lines(out / "vkitti_all.txt")]
        assert sorted(pair[0] for pair in pairs) == sorted(f"rgb/{name}" for name in names["rgb"])
        assert all(pair[1] == pair[0].replace("rgb", "depth").replace(".jpg", ".png") for pair in pairs)
        with tarfile.open(out / "vkitti.tar") as tar:
            for name in pairs[0]:
                file = tar.extractfile(f"./{name}")
                assert file is not None and file.read() == (tmp_path / "raw" / name.split("/", 1)[1]).read_bytes()
    config = {
        "name": "vkitti_depth",
        "disp_name": "v",
        "dir": "vkitti.tar",
        "filenames": str(tmp_path / "from_raw/vkitti_all.txt"),
        "kitti_bm_crop": False,
        "valid_mask_crop": None,
    }
    with open_dataset(config, tmp_path / "from_raw", task="depth") as data:
        truth = data.read_truth(0)
    stored = np.asarray(Image.open(tmp_path / "raw" / names["depth"][0]))
    assert np.allclose(truth.target, stored / 100)


def test_vkitti_pairs_that_do_not_fit_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw.write_vkitti(tmp_path / "raw", "rgb")
    depths = raw.write_vkitti(tmp_path / "raw", "depth")
    (tmp_path / "raw" / depths[1]).unlink()
    Image.fromarray(np.ones((3, 3), np.uint16)).save(tmp_path / "raw" / depths[2])
    assert run("vkitti", tmp_path / "raw", "-o", tmp_path / "out", "--quiet") == 1
    errors = capsys.readouterr().err
    assert "Camera_0/rgb_00001.jpg: has no depth map" in errors
    assert "is (8, 20), depth/Scene01/clone/frames/depth/Camera_1/depth_00000.png is (3, 3) pixels" in errors
    assert len(lines(tmp_path / "out/vkitti_all.txt")) == 2


@pytest.mark.parametrize("data", ["hypersim", "interiorverse", "sintel", "vkitti"])
def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str) -> None:
    (tmp_path / "empty").mkdir()
    words = {
        "hypersim": ["--task", "depth", "--split-csv", tmp_path / "no.csv"],
        "interiorverse": ["--task", "normals"],
    }
    for root in (tmp_path / "empty", tmp_path / "absent"):
        assert run(data, root, "-o", tmp_path / "out", "--quiet", *words.get(data, [])) == 1
        assert str(tmp_path) in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.tar"))

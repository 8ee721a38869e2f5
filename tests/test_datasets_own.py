"""The user's own data: images, truths and masks in folders or lists."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_cases import tool

from marigold_c.datasets import Dataset, open_dataset
from marigold_c.errors import DatasetError, SampleError
from marigold_c.images.pictures import picture_of
from marigold_c.images.png_writer import write_png

pytest.importorskip("yaml")
pytest.importorskip("pydantic")
pytest_plugins = ("dataset_cases",)
pytestmark = pytest.mark.usefixtures("dataset_warnings")


def own(tmp_path: Path, task: str, **keys: Any) -> Dataset:
    config = {"name": f"folder_{task}", "disp_name": "own", "dir": "mine", "images": "rgb", "truth": "truth", **keys}
    return open_dataset(config, tmp_path, task=task)


def put(tmp_path: Path, files: dict[str, bytes]) -> None:
    tool.write_folder(tmp_path / "mine", files)


def rgb(number: int = 0) -> bytes:
    return bytes(tool.png(np.full((6, 8, 3), 10 * number, np.uint8)))


def test_own_depth(tmp_path: Path) -> None:
    depth = np.linspace(0.1, 9, 48, dtype=np.float32).reshape(6, 8)
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:7] = 255
    units = np.rint(depth * 256).astype(np.uint16)
    put(tmp_path, {"rgb/a.png": rgb(1), "rgb/b/c.png": rgb(2), "rgb/._a.png": b"", "rgb/readme.txt": b""})
    put(tmp_path, {"truth/a.npy": tool.npy(depth), "truth/b/c.png": tool.png(units)})
    put(tmp_path, {"valid/a.png": tool.png(mask), "valid/b/c.npy": tool.npy(mask > 0)})
    data = own(tmp_path, "depth", units_per_metre=256, mask="valid", max_depth=8)
    assert [sample.name for sample in data.samples] == ["rgb/a.png", "rgb/b/c.png"]
    assert (data.min_depth, data.max_depth, data.prediction_path(1)) == (1e-5, 8, "rgb/b/pred_c.npy")
    np.testing.assert_array_equal(data.read_truth(0).target, depth)
    np.testing.assert_array_equal(data.read_truth(0).mask, (mask > 0) & (depth < 8))
    np.testing.assert_array_equal(data.read_truth(1).target, (units / 256).astype(np.float32))
    assert data.read_image(1)[0, 0].tolist() == [20, 20, 20]
    tool.write_tar(
        tmp_path / "packed.tar",
        {p.relative_to(tmp_path / "mine").as_posix(): p.read_bytes() for p in (tmp_path / "mine").rglob("*.*")},
    )
    packed = own(tmp_path, "depth", dir="packed.tar", units_per_metre=256, mask="valid", max_depth=8)
    np.testing.assert_array_equal(packed.read_truth(1).mask, data.read_truth(1).mask)


def test_own_depth_by_a_list(tmp_path: Path) -> None:
    put(tmp_path, {"x.png": rgb(), "d/x.npy": tool.npy(np.ones((6, 8), np.float32))})
    (tmp_path / "list.txt").write_text("x.png d/x.npy\n")
    config = {"name": "folder_depth", "disp_name": "own", "dir": "mine", "filenames": str(tmp_path / "list.txt")}
    assert open_dataset(config, tmp_path, task="depth").read_truth(0).mask.all()


def test_own_normals(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    normals = generator.standard_normal((6, 8, 3))
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    eight = np.rint((normals + 1) / 2 * 255).astype(np.uint8)
    sixteen = np.rint((normals + 1) / 2 * 65535).astype(np.uint16)
    eight[0, 0] = sixteen[0, 0] = 0
    wide = io.BytesIO()
    write_png(wide, picture_of(sixteen))
    put(tmp_path, {f"rgb/{name}.png": rgb() for name in "abcd"})
    put(tmp_path, {"truth/a.png": tool.png(eight), "truth/b.png": wide.getvalue()})
    put(tmp_path, {"truth/c.npy": tool.npy(normals), "truth/d.npy": tool.npy(normals.transpose(2, 0, 1))})
    data = own(tmp_path, "normals")
    assert data.prediction_path(0) == "rgb/a.npy"
    for index, tolerance in enumerate((0.01, 4e-5, 1e-7, 1e-7)):
        truth = data.read_truth(index)
        assert np.abs(truth.target - normals)[truth.mask].max() < tolerance
        assert truth.mask.sum() == (47 if index < 2 else 48)


def test_own_intrinsics(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    mask = np.zeros((6, 8), np.uint8)
    mask[2:] = 1
    put(tmp_path, {"rgb/a.png": rgb(), "A/a.png": tool.png(colours), "S/a.npy": tool.npy(colours / 255)})
    put(tmp_path, {"valid/a.png": tool.png(mask)})
    data = own(tmp_path, "iid", truth={"albedo": "A", "shading": "S"}, mask="valid")
    truth = data.read_truth(0)
    assert data.targets == ("albedo", "shading") and data.prediction_path(0, "shading") == "rgb/a_shading.npy"
    assert isinstance(truth.target, dict) and truth.target_masks is not None
    for name in data.targets:
        np.testing.assert_allclose(truth.target[name], colours / 255, rtol=0, atol=1e-7)
        np.testing.assert_array_equal(truth.target_masks[name].any(axis=2), mask > 0)
    np.testing.assert_array_equal(truth.mask, mask > 0)
    assert own(tmp_path, "iid", truth={"albedo": "A"}).read_truth(0).target_masks is None


def test_own_data_with_faults(tmp_path: Path) -> None:
    put(tmp_path, {"rgb/a.png": rgb(), "rgb/b.png": rgb(), "truth/b.npy": tool.npy(np.ones((6, 9)))})
    data = own(tmp_path, "depth")
    with pytest.raises(SampleError, match=r"own: sample rgb/a\.png: truth/a\.npy: there is no such file"):
        data.read_truth(0)
    with pytest.raises(SampleError, match=r"truth/b\.npy: is 6 x 9, but 6 x 8 is expected"):
        data.read_truth(1)
    put(tmp_path, {"rgb/a.jpg": rgb()})
    with pytest.raises(DatasetError, match="two images are called a"):
        own(tmp_path, "depth")
    for keys, message in (
        ({"images": "elsewhere"}, "there is no image in"),
        ({"images": "../x"}, r"the folder '\.\./x' leads out"),
        ({"truth": None}, "images and truth must be given as folders"),
        ({"units_per_metre": 0}, "units_per_metre: is 0; expected a number above 0"),
        ({"max_depth": "far"}, "max_depth: is 'far'; expected a number of at least 0"),
    ):
        with pytest.raises(DatasetError, match=message):
            own(tmp_path, "depth", **keys)
    with pytest.raises(DatasetError, match=r"truth \(a folder for each target\) must be given"):
        own(tmp_path, "iid")
    with pytest.raises(DatasetError, match="found by their folders, not by a list"):
        own(tmp_path, "iid", filenames="x")

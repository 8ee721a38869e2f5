"""Every data set in its official layout: what is decoded is the scene that went in, by formulas written down again."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from dataset_cases import COUNT, NEEDS_EXR, SETS, Array, MakeDataset, opened, repacked, rewritten, tool

from marigold_c.datasets import DATASETS
from marigold_c.errors import SampleError

pytest.importorskip("yaml")
pytest.importorskip("pydantic")
pytest_plugins = ("dataset_cases",)
pytestmark = pytest.mark.usefixtures("dataset_warnings")
Scene = dict[str, Array]


def benchmark_crop(array: Array) -> Array:
    """352 x 1216 of 375 x 1242: the lowest rows, the middle columns."""
    return array[375 - 352 :, 13 : 13 + 1216]


def rounded(depth: Array, units: float) -> Array:
    steps = np.floor(depth.astype(np.float64) * units + 0.5)
    return (steps / units).astype(np.float32)


def without_hole(mask: Array) -> Array:
    mask = mask.copy()
    mask[tool.hole(mask)] = False
    return mask


def window(mask: Array, top: int, bottom: int, left: int, right: int) -> Array:
    inside = np.zeros_like(mask)
    inside[top:bottom, left:right] = True
    return mask & inside


def expect_nyu(scene: Scene) -> tuple[Array, Array]:
    depth = rounded(scene["depth"], 1000)
    depth[tool.hole(depth)] = 0
    return depth, window((depth > 1e-3) & (depth < 10), 45, 471, 41, 601)


def expect_kitti(scene: Scene) -> tuple[Array, Array]:
    depth = np.zeros_like(scene["depth"])
    depth[::2, ::3] = rounded(scene["depth"], 256)[::2, ::3]
    depth[tool.hole(depth)] = 0
    depth = benchmark_crop(depth)
    # int(.3324324 * 352) = 117, int(.91351351 * 352) = 321, int(.0359477 * 1216) = 43, int(.96405229 * 1216) = 1172
    return depth, window((depth > 1e-5) & (depth < 80), 117, 321, 43, 1172)


def expect_vkitti(scene: Scene) -> tuple[Array, Array]:
    depth = rounded(scene["depth"], 100)
    depth[tool.hole(depth)] = 655.35
    depth = benchmark_crop(depth)
    return depth, window((depth > 1e-5) & (depth < 80), 117, 321, 43, 1172)


def expect_eth3d(scene: Scene) -> tuple[Array, Array]:
    depth = scene["depth"].copy()
    depth[tool.hole(depth)] = 0
    return depth, without_hole(np.ones(depth.shape, bool))


def expect_scannet(scene: Scene) -> tuple[Array, Array]:
    depth = rounded(scene["depth"], 1000)
    depth[tool.hole(depth)] = 0
    return depth, (depth > 1e-3) & (depth < 10)


def expect_diode(scene: Scene) -> tuple[Array, Array]:
    """The mask of the file alone, whatever the depth."""
    return expect_eth3d(scene)


def expect_hypersim(scene: Scene) -> tuple[Array, Array]:
    depth = (np.floor(scene["depth"].astype(np.float64) * 1000) / 1000).astype(np.float32)
    depth[tool.hole(depth)] = 0
    return depth, (depth > 1e-5) & (depth < 65)


def expect_normals(scene: Scene) -> tuple[Array, Array]:
    normals = scene["normal"].copy()
    normals[tool.hole(normals)] = 0
    return normals, without_hole(np.ones(normals.shape[:2], bool))


def expect_whole_normals(scene: Scene) -> tuple[Array, Array]:
    return scene["normal"], np.ones(scene["depth"].shape, bool)


def expect_oasis(scene: Scene) -> tuple[Array, Array]:
    mask = window(np.ones((96, 128), bool), 24, 48, 32, 64)
    return np.where(mask[..., None], scene["normal"], np.float32(0)), mask


def expect_sintel(scene: Scene) -> tuple[Array, Array]:
    normals = scene["normal"].copy()
    normals[tool.hole(normals)] = (0, 0, 1)
    return normals[:, 221:803], np.ones((436, 582), bool)


EXPECTED: dict[str, Callable[[Scene], tuple[Array, Array]]] = {
    "nyu_depth": expect_nyu,
    "kitti_depth": expect_kitti,
    "eth3d_depth": expect_eth3d,
    "scannet_depth": expect_scannet,
    "diode_depth": expect_diode,
    "hypersim_depth": expect_hypersim,
    "vkitti_depth": expect_vkitti,
    "nyu_normals": expect_normals,
    "scannet_normals": expect_normals,
    "ibims_normals": expect_normals,
    "diode_normals": expect_normals,
    "oasis_normals": expect_oasis,
    "hypersim_normals": expect_whole_normals,
    "sintel_normals": expect_sintel,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_truth_is_the_scene(name: str, make_dataset: MakeDataset, dataset_scenes: dict[str, Array]) -> None:
    with opened(make_dataset(name)) as data:
        assert len(data) == len(data.samples) == COUNT
        for index in range(COUNT):
            target, mask = EXPECTED[name](tool.scene_for(name, dataset_scenes, index))
            truth = data.read_truth(index)
            assert isinstance(truth.target, np.ndarray)
            assert (truth.target.dtype, truth.mask.dtype, truth.target_masks) == (np.float32, bool, None)
            np.testing.assert_array_equal(truth.target, target)
            np.testing.assert_array_equal(truth.mask, mask)
            assert truth.mask.any()


@pytest.mark.skipif(not tool.SCENES.is_file(), reason="no rendered scenes in tests/data")
def test_rendered_scenes_in_all_layouts(tmp_path: Path) -> None:
    names = [name for name in SETS if name != NEEDS_EXR or util.find_spec("OpenEXR")]
    for one in tool.write_fixtures(tmp_path, names, count=1).values():
        data = opened(one)
        assert data.read_image(0).shape[:2] == data.read_truth(0).mask.shape
        assert data.read_truth(0).mask.mean() > 0.01


def test_depth_is_exact_to_half_a_unit(make_dataset: MakeDataset, dataset_scenes: dict[str, Array]) -> None:
    """Against the scene itself, not against a rounding of it."""
    for name, unit in (("nyu_depth", 1e-3), ("scannet_depth", 1e-3), ("hypersim_depth", 2e-3), ("eth3d_depth", 0)):
        truth = opened(make_dataset(name)).read_truth(1)
        depth = tool.scene_for(name, dataset_scenes, 1)["depth"]
        assert np.abs(truth.target - depth)[truth.mask].max() <= unit / 2 + 1e-6


@pytest.mark.parametrize("name", SETS)
def test_image_is_the_photograph(name: str, make_dataset: MakeDataset, dataset_scenes: dict[str, Array]) -> None:
    data = opened(make_dataset(name))
    for index in range(COUNT):
        expected = tool.photograph(tool.scene_for(name, dataset_scenes, index)["rgb"])
        if "kitti" in name:
            expected = benchmark_crop(expected)
        if name == "sintel_normals":
            expected = expected[:, 221:803]
        image = data.read_image(index)
        assert (image.dtype, image.shape, image.flags.c_contiguous) == (np.uint8, expected.shape, True)
        difference = np.abs(image.astype(int) - expected)
        jpeg = data.samples[index].name.lower().endswith(".jpg")
        assert difference.mean() < 4 if jpeg else not difference.any()
        truth = data.read_truth(index)
        first = truth.target if isinstance(truth.target, np.ndarray) else next(iter(truth.target.values()))
        assert first.shape[:2] == truth.mask.shape == image.shape[:2]


def test_appearance(make_dataset: MakeDataset, dataset_scenes: dict[str, Array]) -> None:
    data = opened(make_dataset("interiorverse_iid"))
    assert data.targets == ("albedo", "material")
    truth = data.read_truth(1)
    assert isinstance(truth.target, dict) and truth.target_masks is not None
    scene = {key: dataset_scenes[key][1].astype(np.float64) for key in tool.KEYS}
    material = np.stack([scene["roughness"], scene["metallicity"], np.zeros((96, 128))], axis=2)
    for name, linear in (("albedo", scene["albedo"]), ("material", material)):
        np.testing.assert_allclose(truth.target[name], np.clip(linear, 0, 1) ** (1 / 2.2), rtol=0, atol=1e-6)
        assert truth.target[name].dtype == np.float32
        np.testing.assert_array_equal(truth.target_masks[name].all(axis=2), truth.mask)
    np.testing.assert_array_equal(truth.mask, without_hole(np.ones((96, 128), bool)))


def quantile(values: Array, fraction: float) -> float:
    """By sorting, linear between ranks."""
    ordered = np.sort(values, axis=None)
    rank = fraction * (ordered.size - 1)
    low = int(rank)
    return float(ordered[low] + (ordered[min(low + 1, ordered.size - 1)] - ordered[low]) * (rank - low))


def test_lighting(make_dataset: MakeDataset, dataset_scenes: dict[str, Array]) -> None:
    data = opened(make_dataset("hypersim_iid"))
    assert data.targets == ("albedo", "shading", "residual")
    truth = data.read_truth(0)
    assert isinstance(truth.target, dict) and truth.target_masks is not None
    scene = {key: dataset_scenes[key][0].astype(np.float64) for key in tool.KEYS}
    cut_off = max(quantile(scene["shading"], 0.98), quantile(scene["residual"], 0.98))
    for name in ("shading", "residual"):
        np.testing.assert_allclose(truth.target[name], np.clip(scene[name], 0, cut_off) / cut_off, rtol=1e-6, atol=1e-7)
        assert truth.target_masks[name].all()
    assert truth.target["shading"].max() == 1
    albedo = scene["albedo"].copy()
    albedo[tool.hole(albedo)] = 0
    np.testing.assert_array_equal(truth.target["albedo"], albedo.astype(np.float32))
    np.testing.assert_array_equal(truth.mask, without_hole(np.ones((96, 128), bool)))


def test_cut_off_of_lighting(make_dataset: MakeDataset) -> None:
    """On values of which no two are equal, the residual's larger than the shading's."""
    generator = np.random.default_rng(0)
    values = {name: generator.gamma(2, scale, (96, 128, 3)) for name, scale in (("shading", 1.0), ("residual", 1.5))}
    one = make_dataset("hypersim_iid")
    changed = {f"test/ai_001_001/{name}_cam_00_fr0000.npy": tool.npy(value) for name, value in values.items()}
    truth = repacked(one, lambda files: files.update(changed)).read_truth(0)
    assert isinstance(truth.target, dict)
    cut_off = quantile(values["residual"], 0.98)
    for name, value in values.items():
        np.testing.assert_allclose(truth.target[name], np.minimum(value, cut_off) / cut_off, rtol=1e-6)


def test_lighting_masks_values_that_are_no_numbers(make_dataset: MakeDataset) -> None:
    def damage(files: dict[str, bytes]) -> None:
        name = "test/ai_001_001/albedo_cam_00_fr0000.npy"
        albedo = np.load(io.BytesIO(files[name]))
        albedo[50, 60, 1], albedo[51, 61] = np.nan, (0, 0.1, 0)
        files[name] = tool.npy(albedo)

    truth = repacked(make_dataset("hypersim_iid"), damage).read_truth(0)
    assert truth.target_masks is not None
    assert truth.target_masks["albedo"][50, 60].tolist() == [True, False, True]
    assert truth.target_masks["albedo"][51, 61].all()
    assert not truth.mask[50, 60] and truth.mask[51, 61] and truth.target_masks["shading"].all()


def test_folder_and_archive_give_the_same(make_dataset: MakeDataset, tmp_path: Path) -> None:
    for name in ("nyu_depth", "diode_depth"):
        one = make_dataset(name)
        packed = opened(one)
        pairs = [(packed.read_image(index), packed.read_truth(index)) for index in range(COUNT)]
        with tarfile.open(one.directory) as archive:
            archive.extractall(one.directory.with_suffix(""), filter="data")
        one.directory.unlink()
        unpacked = opened(one)
        assert unpacked.source.path.is_dir()
        for index, (image, truth) in enumerate(pairs):
            np.testing.assert_array_equal(unpacked.read_image(index), image)
            np.testing.assert_array_equal(unpacked.read_truth(index).target, truth.target)
            np.testing.assert_array_equal(unpacked.read_truth(index).mask, truth.mask)


def test_switches_of_kitti(make_dataset: MakeDataset, dataset_scenes: dict[str, Array]) -> None:
    one = make_dataset("kitti_depth")
    full = np.zeros((375, 1242), np.float32)
    full[::2, ::3] = rounded(tool.scene_for("kitti_depth", dataset_scenes, 0)["depth"], 256)[::2, ::3]
    full[tool.hole(full)] = 0
    valid = full > 1e-5
    truth = rewritten(one, kitti_bm_crop="false", valid_mask_crop="null").read_truth(0)
    np.testing.assert_array_equal(truth.target, full)
    np.testing.assert_array_equal(truth.mask, valid)
    # int(.40810811 * 375) = 153, int(.99189189 * 375) = 371, int(.03594771 * 1242) = 44, int(.96405229 * 1242) = 1197
    garg = rewritten(one, kitti_bm_crop="false", valid_mask_crop="garg")
    np.testing.assert_array_equal(garg.read_truth(0).mask, window(valid, 153, 371, 44, 1197))
    assert garg.read_image(0).shape == (375, 1242, 3)
    cropped = rewritten(one, kitti_bm_crop="true", valid_mask_crop="garg").read_truth(0)
    np.testing.assert_array_equal(cropped.mask, window(benchmark_crop(valid), 143, 349, 43, 1172))


def test_nyu_without_its_window(make_dataset: MakeDataset) -> None:
    truth = rewritten(make_dataset("nyu_depth"), eigen_valid_mask="false").read_truth(0)
    assert isinstance(truth.target, np.ndarray)
    np.testing.assert_array_equal(truth.mask, (truth.target > 1e-3) & (truth.target < 10))
    assert truth.mask[20, 20]


PREDICTIONS = {
    "nyu_depth": "test/office_0000/pred_0001.npy",
    "kitti_depth": "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/pred_0000000000.npy",
    "eth3d_depth": "rgb/office/images/dslr_images/pred_DSC_0219.npy",
    "scannet_depth": "scene0406_02/color/pred_000000.npy",
    "diode_depth": "indoors/scene_00019/scan_00183/pred_00019_00183_indoors_000_010.npy",
    "hypersim_depth": "ai_001_001/pred_cam_00_fr0000.npy",
    "vkitti_depth": "rgb/Scene01/clone/frames/rgb/Camera_0/pred_rgb_00000.npy",
    "nyu_normals": "000000_img.npy",
    "scannet_normals": "scene0001_01/000000_img.npy",
    "ibims_normals": "corridor_01_img.npy",
    "diode_normals": "indoors/scene_00019/scan_00183/00019_00183_indoors_000_010.npy",
    "oasis_normals": "100001_DT_img.npy",
    "hypersim_normals": "ai_001_001/rgb_cam_00_fr0000.npy",
    "sintel_normals": "alley_1/frame_0001_img.npy",
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_names_of_predictions(name: str, make_dataset: MakeDataset) -> None:
    data = opened(make_dataset(name))
    assert data.prediction_path(0) == PREDICTIONS[name]
    assert len({data.prediction_path(index) for index in range(COUNT)}) == COUNT
    with pytest.raises(ValueError, match="name a target"):
        data.prediction_path(0, "albedo")


def test_names_of_predictions_of_intrinsics(make_dataset: MakeDataset) -> None:
    data = opened(make_dataset("hypersim_iid"))
    assert data.prediction_path(1, "shading") == "test/ai_001_001/rgb_cam_00_fr0001_shading.npy"
    with pytest.raises(ValueError, match="name a target"):
        data.prediction_path(1)


def test_attributes_and_table(make_dataset: MakeDataset) -> None:
    nyu, eth = opened(make_dataset("nyu_depth")), opened(make_dataset("eth3d_depth"))
    assert (nyu.name, nyu.display_name, nyu.task) == ("nyu_depth", "nyu_depth_tiny", "depth")
    assert (nyu.min_depth, nyu.max_depth, nyu.alignment_max_res, nyu.protocol.seed) == (1e-3, 10, None, 1234)
    assert (eth.min_depth, eth.max_depth, eth.alignment_max_res, eth.protocol.processing_resolution) == (
        *(1e-5, np.inf),
        *(1024, 756),
    )
    assert "2 samples" in repr(nyu)
    sample = nyu.samples[1]
    assert (sample.index, sample.name) == (1, "test/office_0001/rgb_0002.png")
    assert sample.members[2] == "test/office_0001/filled_0002.png"
    assert {name.rpartition("_")[2] for name in DATASETS} == {"depth", "normals", "iid", "completion"}
    with_lists = {name for name, row in DATASETS.items() if not row.by_folders and not row.layouts}
    assert set(SETS) == with_lists - {"interiorverse_normals"}


def test_dataset_travels_to_another_process(make_dataset: MakeDataset) -> None:
    for name in ("nyu_depth", "nyu_normals"):
        data = opened(make_dataset(name))
        copy = pickle.loads(pickle.dumps(data))
        np.testing.assert_array_equal(copy.read_image(1), data.read_image(1))
        np.testing.assert_array_equal(copy.read_truth(1).target, data.read_truth(1).target)
    error = SampleError("set", "sample", "file", "reason")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reason) == (str(error), "reason")

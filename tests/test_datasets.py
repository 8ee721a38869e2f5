"""Every data set in its official layout: what is decoded is the scene that went in, by formulas written down once more;
what is damaged is named; configurations and lists are checked."""

from __future__ import annotations

import io
import pickle
import tarfile
import warnings
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_cases import load_tool
from numpy.typing import NDArray
from PIL import Image

from marigold_c.datasets import DATASETS, Dataset, open_dataset
from marigold_c.datasets import lists as list_module
from marigold_c.errors import DatasetError, DatasetWarning, SampleError
from marigold_c.extras import MissingExtra
from marigold_c.images.pictures import picture_of
from marigold_c.images.png_writer import write_png

pytest.importorskip("yaml")
tool = load_tool()
COUNT = 2
SETS = tuple(tool.LAYOUTS)
NEEDS_EXR = "interiorverse_iid"
Array = NDArray[Any]
Scene = dict[str, Array]


@pytest.fixture(autouse=True)
def quiet(recwarn: pytest.WarningsRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are errors, unless a test expects them; indexes stay out of the user's cache."""
    warnings.simplefilter("error", DatasetWarning)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def scenes() -> dict[str, Array]:
    stored: dict[str, Array] = tool.stand_in_scenes(COUNT)
    return stored


@pytest.fixture
def fixture(tmp_path: Path, scenes: dict[str, Array]) -> Callable[[str], Any]:
    def make(name: str) -> Any:
        if name == NEEDS_EXR:
            pytest.importorskip("OpenEXR")
        return tool.write_fixture(tmp_path, name, scenes)

    return make


def opened(one: Any, **keys: Any) -> Dataset:
    return open_dataset(one.config, one.base, task=one.task, **keys)


def repacked(one: Any, change: Callable[[dict[str, bytes]], None]) -> Dataset:
    """The data set with other files."""
    files = dict(one.files)
    change(files)
    if one.directory.suffix == ".tar":
        tool.write_tar(one.directory, files)
    else:
        for path in sorted(one.directory.rglob("*")):
            if path.is_file():
                path.unlink()
        tool.write_folder(one.directory, files)
    return opened(one)


# ---------------------------------------------------------------------------------------------- truths


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
def test_truth_is_the_scene(name: str, fixture: Callable[[str], Any], scenes: dict[str, Array]) -> None:
    with opened(fixture(name)) as data:
        assert len(data) == len(data.samples) == COUNT
        for index in range(COUNT):
            target, mask = EXPECTED[name](tool.scene_for(name, scenes, index))
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


def test_depth_is_exact_to_half_a_unit(fixture: Callable[[str], Any], scenes: dict[str, Array]) -> None:
    """Against the scene itself, not against a rounding of it."""
    for name, unit in (("nyu_depth", 1e-3), ("scannet_depth", 1e-3), ("hypersim_depth", 2e-3), ("eth3d_depth", 0)):
        truth = opened(fixture(name)).read_truth(1)
        depth = tool.scene_for(name, scenes, 1)["depth"]
        assert np.abs(truth.target - depth)[truth.mask].max() <= unit / 2 + 1e-6


@pytest.mark.parametrize("name", SETS)
def test_image_is_the_photograph(name: str, fixture: Callable[[str], Any], scenes: dict[str, Array]) -> None:
    data = opened(fixture(name))
    for index in range(COUNT):
        expected = tool.photograph(tool.scene_for(name, scenes, index)["rgb"])
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


def test_appearance(fixture: Callable[[str], Any], scenes: dict[str, Array]) -> None:
    data = opened(fixture("interiorverse_iid"))
    assert data.targets == ("albedo", "material")
    truth = data.read_truth(1)
    assert isinstance(truth.target, dict) and truth.target_masks is not None
    scene = {key: scenes[key][1].astype(np.float64) for key in tool.KEYS}
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


def test_lighting(fixture: Callable[[str], Any], scenes: dict[str, Array]) -> None:
    data = opened(fixture("hypersim_iid"))
    assert data.targets == ("albedo", "shading", "residual")
    truth = data.read_truth(0)
    assert isinstance(truth.target, dict) and truth.target_masks is not None
    scene = {key: scenes[key][0].astype(np.float64) for key in tool.KEYS}
    cut_off = max(quantile(scene["shading"], 0.98), quantile(scene["residual"], 0.98))
    for name in ("shading", "residual"):
        np.testing.assert_allclose(truth.target[name], np.clip(scene[name], 0, cut_off) / cut_off, rtol=1e-6, atol=1e-7)
        assert truth.target_masks[name].all()
    assert truth.target["shading"].max() == 1
    albedo = scene["albedo"].copy()
    albedo[tool.hole(albedo)] = 0
    np.testing.assert_array_equal(truth.target["albedo"], albedo.astype(np.float32))
    np.testing.assert_array_equal(truth.mask, without_hole(np.ones((96, 128), bool)))


def test_cut_off_of_lighting(fixture: Callable[[str], Any]) -> None:
    """On values of which no two are equal, the residual's larger than the shading's."""
    generator = np.random.default_rng(0)
    values = {name: generator.gamma(2, scale, (96, 128, 3)) for name, scale in (("shading", 1.0), ("residual", 1.5))}
    one = fixture("hypersim_iid")
    changed = {f"test/ai_001_001/{name}_cam_00_fr0000.npy": tool.npy(value) for name, value in values.items()}
    truth = repacked(one, lambda files: files.update(changed)).read_truth(0)
    assert isinstance(truth.target, dict)
    cut_off = quantile(values["residual"], 0.98)
    for name, value in values.items():
        np.testing.assert_allclose(truth.target[name], np.minimum(value, cut_off) / cut_off, rtol=1e-6)


def test_lighting_masks_values_that_are_no_numbers(fixture: Callable[[str], Any], scenes: dict[str, Array]) -> None:
    def damage(files: dict[str, bytes]) -> None:
        name = "test/ai_001_001/albedo_cam_00_fr0000.npy"
        albedo = np.load(io.BytesIO(files[name]))
        albedo[50, 60, 1], albedo[51, 61] = np.nan, (0, 0.1, 0)
        files[name] = tool.npy(albedo)

    truth = repacked(fixture("hypersim_iid"), damage).read_truth(0)
    assert truth.target_masks is not None
    assert truth.target_masks["albedo"][50, 60].tolist() == [True, False, True]
    assert truth.target_masks["albedo"][51, 61].all()
    assert not truth.mask[50, 60] and truth.mask[51, 61] and truth.target_masks["shading"].all()


def test_folder_and_archive_give_the_same(fixture: Callable[[str], Any], tmp_path: Path) -> None:
    for name in ("nyu_depth", "diode_depth"):
        one = fixture(name)
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


def rewritten(one: Any, **keys: Any) -> Dataset:
    """The data set with other keys in its configuration."""
    lines = [line for line in one.config.read_text().splitlines() if line.split(":")[0] not in keys]
    one.config.write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in keys.items())]))
    return opened(one)


def test_switches_of_kitti(fixture: Callable[[str], Any], scenes: dict[str, Array]) -> None:
    one = fixture("kitti_depth")
    full = np.zeros((375, 1242), np.float32)
    full[::2, ::3] = rounded(tool.scene_for("kitti_depth", scenes, 0)["depth"], 256)[::2, ::3]
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


def test_nyu_without_its_window(fixture: Callable[[str], Any]) -> None:
    truth = rewritten(fixture("nyu_depth"), eigen_valid_mask="false").read_truth(0)
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
def test_names_of_predictions(name: str, fixture: Callable[[str], Any]) -> None:
    data = opened(fixture(name))
    assert data.prediction_path(0) == PREDICTIONS[name]
    assert len({data.prediction_path(index) for index in range(COUNT)}) == COUNT
    with pytest.raises(ValueError, match="name a target"):
        data.prediction_path(0, "albedo")


def test_names_of_predictions_of_intrinsics(fixture: Callable[[str], Any]) -> None:
    data = opened(fixture("hypersim_iid"))
    assert data.prediction_path(1, "shading") == "test/ai_001_001/rgb_cam_00_fr0001_shading.npy"
    with pytest.raises(ValueError, match="name a target"):
        data.prediction_path(1)


def test_attributes_and_table(fixture: Callable[[str], Any]) -> None:
    nyu, eth = opened(fixture("nyu_depth")), opened(fixture("eth3d_depth"))
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
    assert {name.rpartition("_")[2] for name in DATASETS} == {"depth", "normals", "iid"}
    assert set(SETS) == {name for name, row in DATASETS.items() if not row.by_folders} - {"interiorverse_normals"}


def test_dataset_travels_to_another_process(fixture: Callable[[str], Any]) -> None:
    for name in ("nyu_depth", "nyu_normals"):
        data = opened(fixture(name))
        copy = pickle.loads(pickle.dumps(data))
        np.testing.assert_array_equal(copy.read_image(1), data.read_image(1))
        np.testing.assert_array_equal(copy.read_truth(1).target, data.read_truth(1).target)
    error = SampleError("set", "sample", "file", "reason")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reason) == (str(error), "reason")


# ---------------------------------------------------------------------------------------------- damage


def corrupted(content: bytes) -> bytes:
    """One bit in the middle of the compressed pixels: only a checksum tells."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def grey8(content: bytes) -> bytes:
    return bytes(tool.png(np.zeros((480, 640), np.uint8)))


def huge_npy(content: bytes) -> bytes:
    head = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1), np.float32)) | {"shape": (2**30, 2**30)}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, head)
    return file.getvalue() + bytes(64)


def of_objects(content: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([[{}]], object), allow_pickle=True)
    return file.getvalue()


def npy_of(*shape: int) -> Callable[[bytes], bytes]:
    return lambda content: bytes(tool.npy(np.ones(shape, np.float32)))


def png_of(*shape: int) -> Callable[[bytes], bytes]:
    return lambda content: bytes(tool.png(np.ones(shape, np.uint16 if len(shape) == 2 else np.uint8)))


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(content: bytes) -> bytes:
    return b""


# Data set, column of the list, what happens to the file, what the message says, whether the image still can be read.
DAMAGE = {
    "corrupt depth": ("nyu_depth", 1, corrupted, "cannot be read as an image", True),
    "corrupt image": ("nyu_depth", 0, corrupted, "cannot be read as an image", False),
    "cut depth": ("kitti_depth", 1, cut, "cannot be read as an image", True),
    "empty depth": ("scannet_depth", 1, empty, "the file is empty", True),
    "depth of 8 bits": ("nyu_depth", 1, grey8, "grey images of 16 bits; this one holds uint8", True),
    "depth in colours": ("scannet_depth", 1, png_of(96, 128, 3), "grey images of 16 bits", True),
    "depth of another size": ("nyu_depth", 1, png_of(480, 639), "is 480 x 639, but 480 x 640 is expected", True),
    "small image": (
        "kitti_depth",
        0,
        png_of(351, 1242, 3),
        "smaller than the KITTI benchmark crop of 352 x 1216",
        False,
    ),
    "small sintel": ("sintel_normals", 0, png_of(436, 1023, 3), "is 436 x 1023; Sintel's crop is defined for", False),
    "raw too long": (
        "eth3d_depth",
        1,
        lambda content: content + bytes(4),
        "49156 bytes are no float32 of the size",
        True,
    ),
    "raw cut": ("eth3d_depth", 1, cut, "no float32 of the size of the image, 96 x 128", True),
    "npy cut": ("diode_depth", 1, cut, "does not take the", True),
    "npy no header": ("diode_depth", 1, lambda content: b"junk" * 50, "no array in NumPy's format", True),
    "npy huge": ("diode_depth", 1, huge_npy, "does not take the 64 bytes", True),
    "npy of objects": ("diode_depth", 2, of_objects, "an array of object", True),
    "npy of vectors": ("diode_depth", 1, npy_of(96, 128, 2), r"a map \(H, W\) is expected, not \(96, 128, 2\)", True),
    "mask of another size": ("diode_depth", 2, npy_of(96, 127), "is 96 x 127, but 96 x 128 is expected", True),
    "flat normals": ("scannet_normals", 1, npy_of(96, 128), r"\(H, W, 3\) is expected", True),
    "normals of another size": ("ibims_normals", 1, npy_of(97, 128, 3), "is 97 x 128, but 96 x 128", True),
    "lighting of another size": ("hypersim_iid", 3, npy_of(48, 64, 3), "is 48 x 64, but 96 x 128 is expected", True),
    "lighting of integers": (
        "hypersim_iid",
        2,
        lambda content: bytes(tool.npy(np.ones((96, 128, 3), int))),
        "floating",
        True,
    ),
    "black lighting": (
        "hypersim_iid",
        2,
        lambda content: bytes(tool.npy(np.full((96, 128, 3), np.nan))),
        "quantile is nan",
        True,
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_and_the_rest_is_read(case: str, fixture: Callable[[str], Any]) -> None:
    name, column, damage, message, image_is_fine = DAMAGE[case]
    one = fixture(name)
    file = one.lines[1].split()[column]
    data = repacked(one, lambda files: files.update({file: damage(files[file])}))
    with pytest.raises(SampleError, match=message) as caught:
        data.read_image(1) if column == 0 else data.read_truth(1)
    error = caught.value
    assert (error.dataset, error.sample, error.file) == (f"{name}_tiny", data.samples[1].name, file)
    for part in (error.dataset, error.sample, error.file, error.reason):
        assert part in str(error)
    data.read_truth(0)
    data.read_image(0)
    if image_is_fine:
        data.read_image(1)


@pytest.mark.parametrize("name", SETS)
def test_missing_files_are_named(name: str, fixture: Callable[[str], Any]) -> None:
    one = fixture(name)
    for column, role in enumerate(DATASETS[name].columns):
        file = one.lines[1].split()[column]
        data = repacked(one, lambda files, file=file: files.pop(file))  # type: ignore[misc]
        with pytest.raises(SampleError, match=r"there is no such (member|file) in") as caught:
            data.read_image(1) if role == "image" else data.read_truth(1)
        assert (caught.value.file, caught.value.sample) == (file, one.lines[1].split()[0])
        data.read_truth(0)


def test_appearance_without_numbers(fixture: Callable[[str], Any]) -> None:
    one = fixture("interiorverse_iid")
    file = one.lines[0].split()[1]
    colours = np.full((96, 128, 3), np.nan, np.float32)
    with pytest.raises(SampleError, match="36864 of 36864 values are not numbers"):
        repacked(one, lambda files: files.update({file: tool.exr(colours)})).read_truth(0)


def test_nyu_of_another_size(fixture: Callable[[str], Any]) -> None:
    one = fixture("nyu_depth")
    image, truth, _ = one.lines[0].split()
    small = {image: tool.png(np.zeros((240, 320, 3), np.uint8)), truth: tool.png(np.ones((240, 320), np.uint16))}
    with pytest.raises(SampleError, match="is 240 x 320; NYUv2's evaluation crop is defined for 480 x 640"):
        repacked(one, lambda files: files.update(small)).read_truth(0)


def test_images_are_not_turned(fixture: Callable[[str], Any]) -> None:
    """A photograph whose EXIF asks for turning keeps the place of its pixels, as its truth does."""
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[:, :64] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif.tobytes())
    one = fixture("eth3d_depth")
    name = one.lines[0].split()[0]
    data = repacked(one, lambda files: files.update({name: file.getvalue()}))
    assert data.read_image(0).shape == (96, 128, 3)
    assert data.read_image(0)[:, :60].mean() > 190 > 10 > data.read_image(0)[:, 68:].mean()
    data.read_truth(0)


def test_size_of_an_image_behind_long_metadata(fixture: Callable[[str], Any]) -> None:
    """The size of a JPEG stands behind its colour profile, which may be long."""
    file = io.BytesIO()
    Image.new("RGB", (128, 96)).save(file, "JPEG", icc_profile=bytes(200_000))
    one = fixture("eth3d_depth")
    name = one.lines[0].split()[0]
    repacked(one, lambda files: files.update({name: file.getvalue()})).read_truth(0)


# ------------------------------------------------------------------------------------- configurations and lists

NYU = {"name": "nyu_depth", "disp_name": "d", "dir": "nyuv2/nyu_labeled_extracted.tar", "eigen_valid_mask": True}
WRONG = {
    "no name": ({"disp_name": "d", "dir": "x"}, "name must be given as text"),
    "unknown set": ({**NYU, "name": "nyu_dept"}, r"unknown data set 'nyu_dept' \(meant: nyu_depth\?\)"),
    "other task": ({**NYU, "name": "nyu_normals"}, "nyu_normals is a data set for normals, not for depth"),
    "no list": (NYU, "filenames, the path of the list of samples, is missing"),
    "list of lists": ({**NYU, "filenames": ["a"]}, r"filenames is \['a'\], not the path"),
    "no switch": ({k: v for k, v in NYU.items() if k != "eigen_valid_mask"} | {"filenames": "a"}, "mask is missing"),
    "wrong switch": (
        {**NYU, "eigen_valid_mask": 1, "filenames": "a"},
        "eigen_valid_mask is 1; choose from true, false",
    ),
    "missing list": ({**NYU, "filenames": "nowhere.txt"}, r"the list nowhere\.txt is not in the working folder"),
    "training": ({"dataset": {"val": []}}, "a configuration of training"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_configurations(case: str, tmp_path: Path) -> None:
    config, message = WRONG[case]
    with pytest.raises(DatasetError, match=message):
        open_dataset(config, tmp_path, task="depth")


def test_unknown_keys_are_mentioned(fixture: Callable[[str], Any]) -> None:
    one = fixture("nyu_depth")
    with pytest.warns(DatasetWarning, match="without a meaning for nyu_depth are passed over: valid_mask_crop"):
        rewritten(one, valid_mask_crop="garg")


def test_keys_of_training_are_passed_over(fixture: Callable[[str], Any]) -> None:
    assert len(rewritten(fixture("nyu_depth"), resize_to_hw="null")) == COUNT


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for text, message in (("a: [1", "no YAML"), ("- 1\n", "has keys and values, not list"), ("", "not NoneType")):
        path.write_text(text)
        with pytest.raises(DatasetError, match=message) as caught:
            open_dataset(path, tmp_path, task="depth")
        assert str(path) in str(caught.value)
    with pytest.raises(DatasetError, match="No such file"):
        open_dataset(tmp_path / "b.yaml", tmp_path, task="depth")
    with pytest.raises(ValueError, match="task='flow': choose from depth, normals, iid"):
        open_dataset({}, tmp_path, task="flow")


def test_missing_yaml_is_named(fixture: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    one = fixture("nyu_depth")
    find = util.find_spec
    monkeypatch.setattr("marigold_c.extras.find_spec", lambda name: None if name == "yaml" else find(name))
    with pytest.raises(
        MissingExtra, match=r"needs PyYAML, which is not installed: pip install 'marigold-c\[evaluation\]'"
    ):
        opened(one)


def test_missing_data_set_is_named(fixture: Callable[[str], Any]) -> None:
    one = fixture("nyu_depth")
    one.directory.unlink()
    with pytest.raises(DatasetError, match=r"neither at .*nyu_labeled_extracted\.tar nor at .*nyu_labeled_extracted$"):
        opened(one)


def list_path(one: Any) -> Path:
    path: Path = one.config.parents[2] / "data_split" / one.name / f"{one.name}_tiny.txt"
    return path


LISTS = {
    "": "the list is empty",
    "\n \n": "the list is empty",
    "test/a.png\n": "line 1 names 1 files; nyu_depth has image, truth",
    "\n/etc/passwd b\n": "line 2: the name '/etc/passwd' is absolute",
    "a b\nc ../d\n": r"line 2: the name '\.\./d' leads out of the data set",
    "a x/../../y\n": "leads out of the data set",
    f"{'x' * 5000} b\n": "is longer than 4096 characters",
    ". b\n": "line 1: the name '.' is empty",
}


@pytest.mark.parametrize("text", LISTS)
def test_wrong_lists(text: str, fixture: Callable[[str], Any]) -> None:
    one = fixture("nyu_depth")
    list_path(one).write_text(text)
    with pytest.raises(DatasetError, match=LISTS[text]) as caught:
        opened(one)
    assert str(list_path(one)) in str(caught.value)


def test_lists_of_other_systems(fixture: Callable[[str], Any]) -> None:
    one = fixture("nyu_depth")
    text = list_path(one).read_text()
    list_path(one).write_bytes(("\n" + text.replace("\n", "\r\n").replace("test/", "./test//")).encode())
    data = opened(one)
    assert [sample.name for sample in data.samples] == [line.split()[0] for line in one.lines]
    data.read_truth(1)


def test_samples_without_a_truth_are_left_out(fixture: Callable[[str], Any]) -> None:
    one = fixture("kitti_depth")
    assert len(one.lines) == COUNT + 1 == len(opened(one)) + 1
    list_path(one).write_text(one.lines[-1])
    with pytest.raises(DatasetError, match="no sample of the list has a truth"):
        opened(one)


def test_images_named_twice_are_mentioned(fixture: Callable[[str], Any]) -> None:
    one = fixture("nyu_depth")
    list_path(one).write_text("\n".join([*one.lines, one.lines[0]]))
    with pytest.warns(DatasetWarning, match=r"lines 1 and 3 name one image, test/office_0000/rgb_0001\.png"):
        assert len(opened(one)) == COUNT + 1


def renamed(one: Any, name: str) -> Any:
    """The list under another name."""
    path = list_path(one)
    path.rename(path.with_name(name))
    one.config.write_text(one.config.read_text().replace(path.name, name))
    return one


def test_wrong_kitti_list_is_mentioned_with_its_consequence(fixture: Callable[[str], Any]) -> None:
    one = renamed(fixture("kitti_depth"), "eigen_test_files_with_gt.txt")
    with pytest.warns(
        DatasetWarning, match=r"not the published list.*3 lines instead of 697.*12\.3 where 9\.9 is right"
    ):
        data = opened(one)
    assert len(data.warnings) == 1 and "eigen_test_files_with_gt.txt" in data.warnings[0]


def test_right_list_is_taken_in_silence(fixture: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, with any line ends, folders above the drive and further columns; but not with another frame."""
    one = fixture("kitti_depth")
    digest = list_module.list_digest("kitti_depth", [line.split() for line in one.lines], 2)
    published = {"kitti_depth": {"official.txt": list_module.PublishedList(3, digest)}}
    monkeypatch.setattr(list_module, "PUBLISHED", published)
    one = renamed(one, "official.txt")
    assert opened(one).warnings == ()
    path = list_path(one).with_name("official.txt")
    lines = [line.rpartition(" ")[0].removeprefix("2011_09_26/") for line in reversed(one.lines)]
    path.write_text("\r\n".join(lines))
    assert opened(one).warnings == ()
    path.write_text("\n".join(lines).replace("0000000001.png", "0000000007.png"))
    with pytest.warns(DatasetWarning, match="checksum .* instead of"):
        opened(one)
    path.write_text("\n".join(line.replace("None", "a.png") for line in lines))
    with pytest.warns(DatasetWarning, match="checksum .* instead of"):
        opened(one)


def test_published_lists() -> None:
    """Numbers of lines as published; checksums where all of a list is known."""
    lines = {name: one.lines for rows in list_module.PUBLISHED.values() for name, one in rows.items()}
    assert lines["filename_list_test.txt"] == lines["nyuv2_test.txt"] == 654
    assert (lines["eigen_test_files_with_gt.txt"], lines["eth3d_filename_list.txt"]) == (697, 454)
    known = {name for name, rows in list_module.PUBLISHED.items() if all(one.digest for one in rows.values())}
    assert known >= {"nyu_depth", "kitti_depth", "eth3d_depth", "nyu_normals", "ibims_normals"}
    for rows in list_module.PUBLISHED.values():
        assert all(one.digest is None or len(bytes.fromhex(one.digest)) == 32 for one in rows.values())


# ---------------------------------------------------------------------------------------------- own data


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
        ({"units_per_metre": 0}, "units_per_metre must be above 0"),
        ({"max_depth": "far"}, "max_depth is 'far', not a number"),
    ):
        with pytest.raises(DatasetError, match=message):
            own(tmp_path, "depth", **keys)
    with pytest.raises(DatasetError, match=r"truth \(a folder for each target\) must be given"):
        own(tmp_path, "iid")
    with pytest.raises(DatasetError, match="found by their folders, not by a list"):
        own(tmp_path, "iid", filenames="x")

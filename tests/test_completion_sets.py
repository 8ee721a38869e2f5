"""Depth completion over data sets: the layouts of Marigold-DC's sets and of the archives that they come from, points
that are drawn or dropped, and `marigold infer completion`, `marigold eval completion`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_cases import contents, write_config
from numpy.typing import NDArray
from PIL import Image

import marigold_c as mc
from marigold_c.commands.cli import main, parse
from marigold_c.commands.evaluation_flags import apply_preset
from marigold_c.datasets import DATASETS, Dataset, open_dataset
from marigold_c.datasets.measured_points import drop_hidden
from marigold_c.errors import DatasetError, SampleError

pytest.importorskip("yaml")
pytest.importorskip("pydantic")
Array = NDArray[np.float32]
HEIGHT, WIDTH = 24, 40
SETS = sorted(name for name in DATASETS if name.endswith("_completion"))


def depth_of(number: int) -> Array:
    """Metres in whole 256ths, with a part that has no truth."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    depth = np.round((1 + number + x / WIDTH + y / HEIGHT) * 256) / 256
    depth[:3] = 0
    return depth.astype(np.float32)


def points_of(number: int, count: int = 30) -> Array:
    places = np.flatnonzero(depth_of(number))
    chosen = np.random.default_rng(number).permutation(places)[:count]
    points = np.zeros((HEIGHT, WIDTH), np.float32)
    points.flat[chosen] = depth_of(number).flat[chosen]
    return points


def image_of(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def write(path: Path, values: NDArray[Any]) -> None:
    """Depth in a PNG is in 256ths of a metre."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values if values.dtype == np.uint8 else (values * 256).astype(np.uint16)).save(path)


# By the name of a layout: where image, truth and points of a number lie.
PLACES = {
    "prepared": ("rgb/{:04d}.png", "gt/{:04d}.npy", "sparse/{:04d}.npy"),
    "kitti": (
        "image/2011_09_26_drive_0002_sync_image_{:010d}_image_02.png",
        "groundtruth_depth/2011_09_26_drive_0002_sync_groundtruth_depth_{:010d}_image_02.png",
        "velodyne_raw/2011_09_26_drive_0002_sync_velodyne_raw_{:010d}_image_02.png",
    ),
    "void": (
        "data/classroom{0}/image/15520{0}.5.png",
        "data/classroom{0}/ground_truth/15520{0}.5.png",
        "data/classroom{0}/sparse_depth/15520{0}.5.png",
    ),
    "ddad": ("rgb/{:010d}.png", "gt/{:010d}.png", "hints/{:010d}.png"),
}


def write_set(base: Path, layout: str, count: int = 3) -> None:
    for number in range(count):
        values = (image_of(number), depth_of(number), points_of(number))
        for place, one in zip(PLACES[layout], values, strict=True):
            write(base / "set" / place.format(number), one)


def opened(base: Path, name: str, **keys: Any) -> Dataset:
    return open_dataset({"name": name, "disp_name": "small", "dir": "set", **keys}, base, task="completion")


# ---- layouts ----
@pytest.mark.parametrize("name", SETS)
def test_prepared_layout_is_one_for_all_sets(name: str, tmp_path: Path) -> None:
    write_set(tmp_path, "prepared")
    data = opened(tmp_path, name)
    assert [sample.name for sample in data.samples] == [f"rgb/{number:04d}.png" for number in range(3)]
    for number in range(3):
        np.testing.assert_array_equal(data.read_image(number), image_of(number))
        np.testing.assert_array_equal(data.read_truth(number).target, depth_of(number))
        np.testing.assert_array_equal(data.read_truth(number).mask, depth_of(number) > 0)
        np.testing.assert_array_equal(data.read_points(number), points_of(number))
        assert data.prediction_path(number) == f"{number:04d}.npy"  # as Marigold-DC's script/infer.py


@pytest.mark.parametrize("name", ["kitti", "void", "ddad"])
def test_official_layouts(name: str, tmp_path: Path) -> None:
    write_set(tmp_path, name)
    data = opened(tmp_path, f"{name}_completion", layout="official", drops_hidden=False)
    assert [sample.members for sample in data.samples] == [
        tuple(place.format(number) for place in PLACES[name]) for number in range(3)
    ]
    for number in range(3):
        np.testing.assert_array_equal(data.read_truth(number).target, depth_of(number))
        np.testing.assert_array_equal(data.read_points(number), points_of(number))
    assert opened(tmp_path, f"{name}_completion", layout="official").settings.drops_hidden == (name != "void")
    images = {data.prediction_path(number) for number in range(3)}
    assert len(images) == 3 and not any(path.startswith(("image/", "data/", "rgb/")) for path in images)


def test_a_list_of_files(tmp_path: Path) -> None:
    """As VOID's own lists of its test set, side by side."""
    write_set(tmp_path, "void")
    lines = (" ".join(place.format(number) for place in PLACES["void"]) for number in (2, 0))
    (tmp_path / "test.txt").write_text("\n".join(lines))
    data = opened(tmp_path, "void_completion", filenames=str(tmp_path / "test.txt"))
    assert len(data) == 2
    np.testing.assert_array_equal(data.read_points(0), points_of(2))
    assert data.prediction_path(0) == "data/classroom2/image/155202.5.npy"
    (tmp_path / "test.txt").write_text("a.png b.png\n")
    with pytest.raises(DatasetError, match="line 1 names 2 files; void_completion has image, truth, sparse"):
        opened(tmp_path, "void_completion", filenames=str(tmp_path / "test.txt"))


def test_own_folders_and_units(tmp_path: Path) -> None:
    write(tmp_path / "set/photos/a.png", image_of(0))
    write(tmp_path / "set/laser/a.png", depth_of(0))
    write(tmp_path / "set/tape/a.npy", points_of(0))
    keys = {"images": "photos", "truth": "laser", "sparse": "tape", "units_per_metre": 512}
    data = opened(tmp_path, "folder_completion", **keys)
    np.testing.assert_array_equal(data.read_truth(0).target, depth_of(0) / 2)
    np.testing.assert_array_equal(data.read_points(0), points_of(0))


# ---- points that are drawn, and those that are dropped ----
def of_numpys_old_generator(valid: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.bool_]:
    """Rows of places shuffled by the global generator, as Marigold-DC's authors did it."""
    places = np.argwhere(valid)
    np.random.seed(seed)  # noqa: NPY002
    np.random.shuffle(places)  # noqa: NPY002
    chosen = np.zeros_like(valid)
    chosen[tuple(places[:count].T)] = True
    return chosen


@pytest.mark.parametrize(
    ("name", "keys", "count", "seed"),
    [
        ("scannet_completion", {}, 500, 2024),
        ("nyu_completion", {}, 500, 2024),
        ("ibims_completion", {}, 1000, 2024),
        ("void_completion", {"points": 150, "points_seed": 7}, 150, 7),
    ],
)
def test_points_are_drawn(name: str, keys: dict[str, Any], count: int, seed: int, tmp_path: Path) -> None:
    write_set(tmp_path, "prepared")
    if not keys:
        for path in (tmp_path / "set/sparse").glob("*"):
            path.unlink()
    data = opened(tmp_path, name, **keys)
    for number in range(2):
        expected = np.where(of_numpys_old_generator(depth_of(number) > 0, count, seed), depth_of(number), 0)
        np.testing.assert_array_equal(data.read_points(number), expected)
    assert (data.settings.points, data.settings.columns) == (count, ("image", "truth"))


def dropped_one_by_one(points: Array) -> Array:
    """The rule of Conti et al. written as loops."""
    behind, reach = np.zeros_like(points), 3
    for y, x in np.argwhere(points > 0):
        window = (slice(max(y - reach, 0), y + reach + 1), slice(max(x - reach, 0), x + reach + 1))
        nearest = points[window][points[window] > 0].min()
        behind[window] = np.maximum(behind[window], points[window] - nearest)
    return np.where(behind > 1.5, np.float32(0), points)


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_hidden_points_are_dropped(share: float) -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(1, 4, (19, 23)) * (rng.random((19, 23)) < share)
    points = points.astype(np.float32)
    found = drop_hidden(points)
    np.testing.assert_array_equal(found, dropped_one_by_one(points))
    assert 0 < np.count_nonzero(found) < np.count_nonzero(points)


def test_official_points_are_without_the_hidden_ones(tmp_path: Path) -> None:
    write_set(tmp_path, "kitti", 1)
    points = points_of(0, 200)
    points[12, 20:24] = (1, 9, 1, 9)
    write(tmp_path / "set" / PLACES["kitti"][2].format(0), points)
    data = opened(tmp_path, "kitti_completion", layout="official")
    np.testing.assert_array_equal(data.read_points(0), drop_hidden(points))
    assert data.read_points(0)[12, 20:24].tolist() == [1, 0, 1, 0]


# ---- what goes wrong ----
@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("void_completion", {"layout": "offical"}, "unknown layout 'offical'; choose from prepared, official"),
        ("scannet_completion", {"layout": "official"}, "unknown layout 'official'; choose from prepared"),
        ("ddad_completion", {"sparse": "nowhere"}, r"no measured points in .*nowhere; `points: N` draws N of each"),
        ("kitti_completion", {"points": 0}, "points"),
        ("kitti_completion", {"truth": {"a": "b"}}, "truth"),
        ("kitti", {}, "unknown data set 'kitti'"),
        ("nyu_depth", {}, "nyu_depth is a data set for depth, not for completion"),
    ],
)
def test_configurations_that_are_refused(name: str, keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_set(tmp_path, "prepared", 1)
    with pytest.raises(DatasetError, match=words):
        opened(tmp_path, name, **keys)


def test_other_tasks_have_no_points(tmp_path: Path) -> None:
    write_set(tmp_path, "prepared", 1)
    config = {"name": "folder_depth", "disp_name": "x", "dir": "set", "images": "rgb", "truth": "gt"}
    with pytest.raises(ValueError, match="x is a data set for depth: it has no measured points"):
        open_dataset(config, tmp_path, task="depth").read_points(0)


def test_points_of_another_size_are_named(tmp_path: Path) -> None:
    write_set(tmp_path, "prepared", 1)
    write(tmp_path / "set/sparse/0000.npy", points_of(0)[:, :-1])
    with pytest.raises(SampleError, match=r"rgb/0000\.png: sparse/0000\.npy: is 24 x 39, but 24 x 40 is expected"):
        opened(tmp_path, "ibims_completion").read_points(0)


# ---- the commands ----
@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_set(tmp_path, "prepared")
    write_config(tmp_path / "void.yaml", name="void_completion", disp_name="small VOID", dir="set")
    return tmp_path


def words_of(command: str, base: Path, *more: str | Path) -> list[str]:
    shared = [command, "completion", "--dataset-config", base / "void.yaml", "--base-data-dir", base, "--threads", "1"]
    return [str(one) for one in (*shared, *more)]


FEW = ("--denoise-steps", "2", "--processing-res", "0", "--seed", "5")


def infer(base: Path, out: Path, *more: str | Path) -> int:
    return main(words_of("infer", base, "-o", out, *FEW, *more))


def completed(number: int, **options: Any) -> Array:
    pipe = mc.MarigoldDepthCompletionPipeline.from_pretrained(mc.default_checkpoint("depth"), num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    few = {"num_inference_steps": 2, "processing_resolution": 0, "generator": 5, **options}
    return pipe(image_of(number), points_of(number), **few).prediction[0, :, :, 0]


@pytest.mark.parametrize(("method", "members"), [("guided", 3), ("align", 1)])
def test_predictions_are_the_pipelines(method: str, members: int, base: Path) -> None:
    out = base / "out"
    assert infer(base, out, "--method", method, "--ensemble-size", str(members)) == 0
    assert sorted(path.name for path in out.glob("*.npy")) == ["0000.npy", "0001.npy", "0002.npy"]
    expected = completed(1, method=method, ensemble_size=members)
    np.testing.assert_array_equal(np.load(out / "0001.npy"), expected)


def test_scores_are_numpys(base: Path) -> None:
    out = base / "out"
    assert infer(base, out) == 0
    assert main(words_of("eval", base, "--predictions", out)) == 0
    with (out / "evaluation/per_sample_metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["filename"] for row in rows] == ["0000.npy", "0001.npy", "0002.npy"]
    errors = []
    for number, row in enumerate(rows):
        valid = depth_of(number) > 0
        error = np.load(out / row["filename"])[valid].astype(np.float64) - depth_of(number)[valid]
        errors.append([np.mean(np.abs(error)), np.sqrt(np.mean(error**2))])
        np.testing.assert_allclose([float(row["mae"]), float(row["rmse"])], errors[-1], rtol=1e-12)
    facts = json.loads((out / "evaluation/eval_metrics.json").read_text())
    np.testing.assert_allclose(list(facts["means_over_images"].values()), np.mean(errors, axis=0), rtol=1e-12)
    assert facts["inference"]["method"] == "guided"
    page = (out / "evaluation/eval_metrics.html").read_text()
    assert page.count("<img") == 4 * 3 and "error, 0 to 1 m" in page


def test_at_once_is_the_same(base: Path) -> None:
    assert infer(base, base / "files", "--method", "align") == 0
    assert main(words_of("eval", base, "--predictions", base / "files", "-o", base / "a")) == 0
    assert infer(base, base / "b", "--method", "align", "--eval") == 0
    tables = [(base / name / "per_sample_metrics.csv").read_text() for name in "ab"]
    assert tables[0] == tables[1]


def test_resuming_keeps_what_is_finished(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = base / "out"
    assert infer(base, out) == 0
    whole = contents(out)
    (out / "0001.npy").unlink()
    kept = (out / "0000.npy").stat().st_mtime_ns
    capsys.readouterr()
    assert infer(base, out) == 0
    assert "2 of 3 are there already" in capsys.readouterr().err
    assert contents(out) == whole
    assert (out / "0000.npy").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("keys", "flags", "named"),
    [
        ({}, ("--method", "align"), "method guided (now align)"),
        ({"points": 9}, (), "points None (now 9)"),
        ({"points": 9}, (), "points_seed None (now 2024)"),
    ],
)
def test_other_settings_are_refused(
    keys: dict[str, Any], flags: tuple[str, ...], named: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(base, base / "out") == 0
    write_config(base / "void.yaml", name="void_completion", disp_name="small VOID", dir="set", **keys)
    assert infer(base, base / "out", *flags) == 1
    assert named in capsys.readouterr().err


def test_samples_that_fail_are_named_and_the_others_made(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = points_of(0)
    points[5, 7] = -1
    write(base / "set/sparse/0000.npy", points)
    (base / "set/sparse/0002.npy").unlink()
    assert infer(base, base / "out") == 1
    said = capsys.readouterr().err
    assert "rgb/0000.png: `sparse_depth` is -1 at row 5, column 7" in said
    assert "rgb/0002.png: sparse/0002.npy: there is no such file" in said
    assert "2 of 3 samples failed" in said
    np.testing.assert_array_equal(np.load(base / "out/0001.npy"), completed(1))
    assert main(words_of("eval", base, "--predictions", base / "out")) == 1
    assert "2 of 3 samples were left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--noise", "zeros"), "--noise is not for completion"),
        (("--output-processing-res",), "--output-processing-res is not for completion"),
        (("--resample-method", "nearest"), "--resample-method is not for completion"),
        (("--batch-size", "2"), "--batch-size is not for completion"),
        (("--solver", "reference"), "--solver is for depth"),
        (("--alignment", "least_square"), "--alignment is for depth"),
        (("--preset", "v1-1"), "for completion: marigold-dc"),
        (("--method", "align", "--recompute", "on"), "--recompute is of --method guided"),
        (("--processing-res", "100"), "must be a multiple of 8"),
    ],
)
def test_flags_that_are_refused(
    flags: tuple[str, ...], words: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(base, base / "out", *flags) == 2
    assert words in capsys.readouterr().err


def test_other_tasks_have_no_method(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_of("infer", base, "-o", base / "out", "--method", "align")
    assert main([words[0], "depth", *words[2:]]) == 2
    assert "--method and --recompute are for completion" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "resolution"),
    [("scannet", 0), ("ibims", 0), ("void", 0), ("nyu", 768), ("kitti", 0), ("ddad", 768), ("folder", None)],
)
def test_preset_of_the_paper(name: str, resolution: int | None, base: Path) -> None:
    """Marigold-DC's script/eval: 50 steps, 10 members, seed 2024, and the resolution of each data set."""
    args = parse(words_of("infer", base, "-o", "out", "--preset", "marigold-dc"))
    apply_preset(args, opened(base, f"{name}_completion"))
    seed = 2024
    assert (args.denoise_steps, args.ensemble_size, args.processing_res, args.seed) == (50, 10, resolution, seed)


def test_metrics_by_hand() -> None:
    found, truth = np.array([[1.0, 2.0], [5.0, 9.0]]), np.array([[1.5, 2.0], [4.0, 0.0]])
    assert mc.metrics.completion(found, truth, truth > 0) == {"mae": 0.5, "rmse": np.sqrt(1.25 / 3)}
    with pytest.raises(ValueError, match="no pixel is valid"):
        mc.metrics.completion(found, truth, np.zeros((2, 2), bool))

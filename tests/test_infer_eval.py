"""`marigold infer` and `marigold eval`: files, resuming, samples that fail, summaries, presets, flags."""

from __future__ import annotations

import argparse
import csv
import errno
import html.parser
import json
import math
import os
import pickle
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_cases import TARGETS, arguments, contents, evaluate, infer, scene, write_config, write_sets

import marigold_c as mc
from marigold_c.commands import cli, evaluation_flags
from marigold_c.datasets import open_dataset
from marigold_c.evaluation.inference import Outcome
from marigold_c.evaluation.presets import DATA_SETS, PRESETS, task_preset
from marigold_c.evaluation.published import PUBLISHED
from marigold_c.evaluation.results import Results
from marigold_c.evaluation.scoring import Score
from marigold_c.evaluation.settings import EvaluationSettings
from marigold_c.evaluation.summary import two_rows

pytest.importorskip("yaml", reason="configurations of data sets need the extra evaluation")

TASKS = ("depth", "normals", "iid")
NAMES = {
    "depth": ["pred_000.npy", "pred_002.npy", "pred_001.npy", "pred_003.npy"],
    "normals": ["000.npy", "002.npy", "001.npy", "003.npy"],
    "iid": [f"{number}_{target}.npy" for number in ("000", "002", "001", "003") for target in sorted(TARGETS)],
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_sets(tmp_path)
    return tmp_path


def predictions(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name.endswith(".npy")}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "per_sample_metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def summary(folder: Path, alignment: str = "") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"eval_metrics{alignment}.json").read_text())
    return found


# ---- predictions ----


@pytest.mark.parametrize("task", TASKS)
def test_files_are_those_of_the_pipeline(task: str, base: Path) -> None:
    """In the paper's preset, from the same seed for each image, in the layout of prs-eth's infer scripts."""
    out = base / "out"
    assert infer(task, base, out) == 0
    found = predictions(out)
    assert [Path(name).name for name in found] == NAMES[task]
    pipe = mc.load(mc.default_checkpoint(task), num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    for number in range(4):
        options = {"num_inference_steps": 1, "processing_resolution": 0, "generator": 5, "preset": "paper"}
        wanted = pipe(scene(number)["rgb"], **options).prediction
        folder = out / f"rgb/room{number % 2}"
        if task == "iid":
            got = np.stack([np.load(folder / f"{number:03d}_{target}.npy") for target in TARGETS])
            wanted = wanted.transpose(0, 3, 1, 2)
        elif task == "normals":
            got, wanted = np.load(folder / f"{number:03d}.npy"), wanted[0].transpose(2, 0, 1)
        else:
            got, wanted = np.load(folder / f"pred_{number:03d}.npy"), wanted[0, :, :, 0]
        assert got.dtype == np.float32
        assert np.array_equal(got, wanted)


def test_resuming_keeps_what_is_finished(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = base / "out"
    assert infer("iid", base, out) == 0
    whole = contents(out)
    missing = out / "rgb/room1/001_shading.npy"
    missing.unlink()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*_*.npy") if "001" not in path.name}
    capsys.readouterr()
    assert infer("iid", base, out) == 0
    said = capsys.readouterr().err
    assert "3 of 4 are there already" in said
    assert "[4/4] rgb/room1/001.png" in said
    assert contents(out) == whole
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_resuming_without_a_seed_goes_on_from_the_first_one(base: Path) -> None:
    out = base / "out"
    words = arguments("infer", "depth", base, "-o", out, "--denoise-steps", "1", "--processing-res", "0", "--quiet")
    assert cli.main(words) == 0
    whole = contents(out)
    (out / "rgb/room0/pred_002.npy").unlink()
    assert cli.main(words) == 0
    assert contents(out) == whole
    assert len({data for name, data in whole.items() if name.endswith(".npy")}) == 4


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--seed", "6"], "seed 5 (now 6)"),
        (["--ensemble-size", "2"], "ensemble_size 1 (now 2)"),
        (["--resample-method", "nearest"], "resample_method bilinear (now nearest)"),
        (["--noise", "zeros", "--seed", "5"], "noise gaussian (now zeros)"),
        (["--dtype", "bfloat16"], "dtype None (now bfloat16)"),
    ],
)
def test_other_settings_are_refused(
    more: list[str], named: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = base / "out"
    assert infer("depth", base, out) == 0
    before = contents(out)
    assert infer("depth", base, out, *more) == 1
    assert named in capsys.readouterr().err
    assert contents(out) == before
    assert infer("depth", base, out, "--overwrite", *more) == 0
    assert contents(out) != before


def test_predictions_of_unknown_settings_are_refused(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = base / "out"
    assert infer("depth", base, out) == 0
    record = out / "marigold_infer.json"
    record.unlink()
    assert infer("depth", base, out) == 1
    assert "no marigold_infer.json" in capsys.readouterr().err
    record.write_text("[")
    assert infer("depth", base, out) == 1
    assert str(record) in capsys.readouterr().err
    assert infer("depth", base, out, "--overwrite") == 0


def test_an_image_that_cannot_be_read(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (base / "set/rgb/room0/002.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    out = base / "out"
    assert infer("depth", base, out) == 1
    error = capsys.readouterr().err
    assert "rgb/room0/002.png" in error
    assert "1 of 4 samples failed" in error
    assert len(predictions(out)) == 3


def test_where_files_cannot_be_without_a_name(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On file systems that do not know O_TMPFILE a file is renamed when it is whole."""
    assert infer("depth", base, base / "wanted") == 0
    opened, asked = os.open, []

    def refusing(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            asked.append(path)
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(path))
        return opened(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refusing)
    assert infer("depth", base, base / "out") == 0
    assert len(asked) == 5
    assert contents(base / "out") == contents(base / "wanted")
    mode = (base / "wanted/marigold_infer.json").stat().st_mode
    assert (base / "out/marigold_infer.json").stat().st_mode == mode


# ---- evaluation ----


def test_depth_against_numpy(base: Path) -> None:
    """Least squares, the clip to the range, and two of the metrics, written out."""
    out = base / "out"
    assert infer("depth", base, out) == 0
    assert evaluate("depth", base, out, "--alignment", "least_square") == 0
    found = rows(out / "evaluation")
    relative, root = [], []
    for row in found:
        number = int(re.sub(r"\D", "", Path(row["filename"]).name))
        prediction, truth = np.load(out / row["filename"]).astype(np.float64), scene(number)["depth"]
        valid = (truth > np.float32(1e-5)) & (truth < 10)
        x, y = prediction[valid], truth[valid].astype(np.float64)
        scale, shift = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]
        aligned = np.clip(x * scale + shift, 1e-5, 10)
        relative.append(np.mean(np.abs(aligned - y) / y))
        root.append(np.sqrt(np.mean((aligned - y) ** 2)))
    assert np.allclose([float(row["abs_relative_difference"]) for row in found], relative, rtol=1e-5)
    assert np.allclose([float(row["rmse_linear"]) for row in found], root, rtol=1e-5)
    means = summary(out / "evaluation", "-least_square")["means_over_images"]
    assert math.isclose(means["rmse_linear"], np.mean(root), rel_tol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_streaming_is_the_same_as_files(task: str, base: Path) -> None:
    options = ["--alignment", "least_square"] if task == "depth" else []
    assert infer(task, base, base / "files") == 0
    assert evaluate(task, base, base / "files", "-o", base / "a", *options) == 0
    assert infer(task, base, base / "b", "--eval", *options) == 0
    assert not predictions(base / "b")
    assert rows(base / "a") == rows(base / "b")
    a, b = (summary(base / name, "-least_square" if options else "") for name in "ab")
    assert (a["means_over_images"], a["all_pixels_pooled"]) == (b["means_over_images"], b["all_pixels_pooled"])
    del a["inference"], b["inference"]["preset"]
    pages = [next((base / name).glob("*.html")).read_text() for name in "ab"]
    assert pages[0].count("<img") == pages[1].count("<img") == 4 * {"depth": 4, "normals": 4, "iid": 10}[task]


def test_the_text_is_that_of_the_paper_s_script(base: Path) -> None:
    out = base / "out"
    assert infer("depth", base, out) == 0
    assert evaluate("depth", base, out, "--alignment", "least_square") == 0
    lines = (out / "evaluation/eval_metrics-least_square.txt").read_text().split("\n")
    assert lines[:6] == [
        "Evaluation metrics:",
        f"    of predictions: {out}",
        "    on dataset: small depth",
        f"    with samples in: {base / 'set'}",
        "min_depth = 1e-05",
        "max_depth = 10.0",
    ]
    means = summary(out / "evaluation", "-least_square")["means_over_images"]
    assert lines[7].split() == list(means)
    assert [float(word) for word in lines[8].split()] == list(means.values())
    assert lines[6] == lines[9]
    assert len(lines) == 10
    header = (out / "evaluation/per_sample_metrics.csv").read_text().split("\n")[0]
    assert header == "filename," + ",".join(means)


def test_the_table_is_that_of_tabulate() -> None:
    """What tabulate 0.9 makes of [["abs_relative_difference", "log10"], [0.0552, 0.024000000000000004]]."""
    wanted = (
        "-----------------------  --------------------\n"
        "abs_relative_difference  log10\n"
        "0.0552                   0.024000000000000004\n"
        "-----------------------  --------------------"
    )
    assert two_rows(["abs_relative_difference", "log10"], ["0.0552", "0.024000000000000004"]) == wanted


class _Hostile:
    """Makes a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _damage(base: Path, out: Path) -> dict[str, str]:
    """Spoils six of eight samples; a word of the reason for each."""
    np.save(out / "rgb/room1/pred_001.npy", np.zeros((5, 5), np.float32))
    (out / "rgb/room0/pred_002.npy").unlink()
    nan = np.full((24, 40), np.nan, np.float32)
    np.save(out / "rgb/room1/pred_003.npy", nan)
    (out / "rgb/room0/pred_004.npy").write_bytes(pickle.dumps(_Hostile(base / "taken over")))
    (base / "set/depth/room1/005.npy").unlink()
    np.save(base / "set/depth/room0/006.npy", np.zeros((24, 40), np.float32))
    return {
        "001": "shape (5, 5)",
        "002": "there is no prediction",
        "003": "not finite",
        "004": "pickle",
        "005": "005.npy",
        "006": "no pixel of the truth is valid",
    }


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_samples_that_cannot_be_evaluated(engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sets(tmp_path, 8)
    out = tmp_path / "out"
    assert infer("depth", tmp_path, out, "--quiet") == 0
    reasons = _damage(tmp_path, out)
    workers = ["--workers", "2"] if engine == "processes" else []
    assert evaluate("depth", tmp_path, out, "--engine", engine, "--quiet", *workers) == 1
    error = capsys.readouterr().err.splitlines()
    for number, reason in reasons.items():
        assert any(f"{number}.png" in line and reason in line for line in error), (number, error)
    assert error[-1] == "marigold: 6 of 8 samples were left out"
    assert not (tmp_path / "taken over").exists()
    text = (out / "evaluation/eval_metrics.txt").read_text()
    assert "\n6 of 8 samples were left out:\n" in text
    facts = summary(out / "evaluation")
    assert (facts["samples"], facts["evaluated"], len(facts["left_out"])) == (8, 2, 6)
    assert len(rows(out / "evaluation")) == 2
    assert "6 samples were left out" in (out / "evaluation/eval_metrics.html").read_text()
    for number, reason in reasons.items():
        assert any(number in one["sample"] and reason in one["reason"] for one in facts["left_out"])


def test_nothing_can_be_evaluated(base: Path) -> None:
    (base / "empty").mkdir()
    assert evaluate("normals", base, base / "empty") == 1
    assert summary(base / "empty/evaluation")["means_over_images"]["mean_angular_error"] is None


def test_intrinsic_targets(base: Path) -> None:
    out = base / "out"
    assert infer("iid", base, out) == 0
    words = ["--target_names", "albedo", "residual", "--targets_to_eval_in_linear_space", "albedo", "--use_mask"]
    assert evaluate("iid", base, out, *words) == 0
    found = rows(out / "evaluation")[0]
    number = int(Path(found["filename"]).stem)
    prediction = np.load(out / f"rgb/room{number % 2}/{number:03d}_albedo.npy").astype(np.float64)
    error = np.mean((prediction.transpose(1, 2, 0) ** 2.2 - scene(number)["albedo"].astype(np.float64) ** 2.2) ** 2)
    assert math.isclose(float(found["psnr_albedo"]), -10 * math.log10(error), rel_tol=1e-5)
    assert "psnr_shading" not in found
    assert evaluate("iid", base, out, "--target-names", "albedo", "glitter") == 1


def test_pooling_chooses_the_summary(base: Path) -> None:
    out = base / "out"
    assert infer("normals", base, out) == 0
    texts = []
    for pooling in ("image", "pixels"):
        assert evaluate("normals", base, out, "--pooling", pooling, "-o", base / pooling) == 0
        texts.append((base / pooling / "eval_metrics.txt").read_text())
    facts = summary(base / "image")
    assert texts[0] != texts[1]
    for text, name in zip(texts, ("means_over_images", "all_pixels_pooled"), strict=True):
        assert float(text.split("\n")[6].split()[0]) == facts[name]["mean_angular_error"]


class _Page(html.parser.HTMLParser):
    """Tags that are open at the end, and all that refers to something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag


def test_report(base: Path) -> None:
    config = json.loads((base / "depth.yaml").read_text())
    write_config(base / "depth.yaml", **{**config, "disp_name": "<script>alert(1)</script>"})
    out = base / "out"
    assert infer("depth", base, out) == 0
    assert evaluate("depth", base, out, "--alignment", "least_square") == 0
    page = _Page()
    page.feed((out / "evaluation/eval_metrics-least_square.html").read_text())
    page.close()
    assert not page.open
    assert "script" not in page.seen
    assert page.seen.count("svg") == 10
    assert page.references
    assert all(one.startswith("data:image/jpeg;base64,") for one in page.references)
    assert evaluate("depth", base, out, "--no-report", "-o", base / "bare") == 0
    assert not list((base / "bare").glob("*.html"))


def test_order_of_outcomes_does_not_matter(base: Path) -> None:
    dataset = open_dataset(base / "depth.yaml", base, task="depth")
    settings = EvaluationSettings()
    outcomes = []
    for index in range(4):
        values = dict.fromkeys(Results(dataset, settings).names, 0.1 * (index + 1) ** 3)
        outcomes.append(Outcome(index, score=Score(f"row {index}", values)))
    first, second = Results(dataset, settings), Results(dataset, settings)
    for outcome in outcomes:
        first.add(outcome)
    for outcome in outcomes[::-1]:
        second.add(outcome)
    assert first.means() == second.means()
    assert [score.row for score in second.scores()] == [f"row {index}" for index in range(4)]
    assert (first.best(), first.worst()) == ([0, 1, 2, 3], [])


# ---- presets and flags ----

# preset, data set, and what the scripts of the sources say: steps, members, resolution, seed.
PUBLISHED_RUNS = [
    ("v1-1", "nyu_depth", 1, 10, 0, 1234),
    ("v1-1", "kitti_depth", 1, 10, 0, 1234),
    ("v1-1", "eth3d_depth", 1, 10, 756, 1234),
    ("v1-1", "scannet_depth", 1, 10, 0, 1234),
    ("v1-1", "diode_depth", 1, 10, 640, 1234),
    ("v1-1-paper", "eth3d_depth", 4, 10, 756, 1234),
    ("v1-0", "eth3d_depth", 50, 10, 756, 1234),
    ("v1-0", "diode_depth", 50, 10, 640, 1234),
    ("e2e-ft", "nyu_depth", 1, 1, 0, 1234),
    ("e2e-ft", "eth3d_depth", 1, 1, 756, 1234),
    ("log-ransac", "nyu_depth", 1, 10, 0, 1234),
    ("v1-1", "nyu_normals", 4, 10, 640, 4321),
    ("v1-1", "scannet_normals", 4, 10, 640, 1234),
    ("v1-1", "ibims_normals", 4, 10, 640, 4321),
    ("v1-1", "diode_normals", 4, 10, 768, 1234),
    ("v1-1-paper", "oasis_normals", 4, 10, 768, 1234),
    ("dsine-pooled", "nyu_normals", 4, 10, 640, 4321),
    ("e2e-ft", "nyu_normals", 1, 1, 0, 1234),
    ("v1-1", "interiorverse_iid", 4, 1, 640, 1234),
    ("v1-1", "hypersim_iid", 4, 1, 0, 1234),
]


class _Published:
    """What apply_preset asks of a data set."""

    def __init__(self, name: str) -> None:
        from marigold_c.datasets.table import DATASETS

        self.name = name
        self.settings = argparse.Namespace(description=DATASETS[name])
        self.protocol = DATASETS[name].protocol
        self.alignment_max_res = self.protocol.alignment_max_resolution
        self.task = DATASETS[name].task


def _parsed(command: str, *words: str) -> argparse.Namespace:
    needed = ["--dataset-config", "x.yaml", "--base-data-dir", ".", "-o", "out"]
    more = ["--predictions", "p"] if command == "eval" else []
    return cli.parse([command, *words, *needed, *more])


@pytest.mark.parametrize(("preset", "name", "steps", "members", "resolution", "seed"), PUBLISHED_RUNS)
def test_presets(preset: str, name: str, steps: int, members: int, resolution: int, seed: int) -> None:
    data = _Published(name)
    args = _parsed("infer", data.task, "--preset", preset)
    evaluation_flags.apply_preset(args, data)
    assert (args.denoise_steps, args.ensemble_size, args.processing_res, args.seed) == (
        steps,
        members,
        resolution,
        seed,
    )
    assert args.noise == ("zeros" if preset == "e2e-ft" else "gaussian")
    assert args.resample_method == "bilinear"
    assert args.solver == ("reference" if data.task == "depth" and members > 1 else None)
    alignment = "none" if data.task != "depth" else "ransac_log" if preset == "log-ransac" else "least_square"
    assert args.alignment == alignment
    assert args.alignment_max_res == (1024 if name == "eth3d_depth" else None)
    assert args.pooling == ("pixels" if data.task == "normals" and preset in ("e2e-ft", "dsine-pooled") else "image")
    evaluation = _parsed("eval", data.task, "--preset", preset)
    evaluation_flags.apply_preset(evaluation, data)
    for flag in ("alignment", "alignment_max_res", "pooling", "use_mask", "target_names"):
        assert getattr(evaluation, flag) == getattr(args, flag)


def test_presets_of_intrinsic_images() -> None:
    for name, names, linear, mask in (
        ("interiorverse_iid", ("albedo", "material"), ("material",), False),
        ("hypersim_iid", ("albedo", "shading", "residual"), (), True),
    ):
        args = _parsed("eval", "iid", "--preset", "v1-1")
        evaluation_flags.apply_preset(args, _Published(name))
        assert (args.target_names, args.targets_to_eval_in_linear_space, args.use_mask) == (names, linear, mask)
    assert set(DATA_SETS) == {"interiorverse_iid", "hypersim_iid"}


def test_flags_override_a_preset() -> None:
    words = [
        "--preset",
        "v1-0",
        "--denoise-steps",
        "2",
        "--seed",
        "9",
        "--alignment",
        "median",
        "--solver",
        "closed-form",
    ]
    args = _parsed("infer", "depth", *words)
    evaluation_flags.apply_preset(args, _Published("eth3d_depth"))
    assert (args.denoise_steps, args.seed, args.alignment, args.solver) == (2, 9, "median", "closed-form")
    assert (args.ensemble_size, args.processing_res, args.alignment_max_res) == (10, 756, None)


def test_own_data_keep_the_checkpoint_s_resolution() -> None:
    args = _parsed("infer", "depth", "--preset", "v1-1")
    evaluation_flags.apply_preset(args, _Published("folder_depth"))
    assert args.processing_res is None


def test_every_preset_is_for_a_task() -> None:
    for name, preset in PRESETS.items():
        assert preset
        for task in TASKS:
            if task not in preset:
                with pytest.raises(ValueError, match=name):
                    task_preset(name, task)


def test_published_numbers_are_fractions() -> None:
    assert PUBLISHED["kitti_depth"][0].values == {"abs_relative_difference": 0.099, "delta1_acc": 0.916}
    for rows_of_set in PUBLISHED.values():
        for row in rows_of_set:
            assert all(0 < value < 1 for value in row.values.values())


def test_the_lines_of_the_paper_s_scripts(base: Path) -> None:
    """As script/depth/eval has them, but for the interpreter and the program."""
    shared = f"--dataset_config {base}/depth.yaml --base_data_dir {base}"
    line = f"depth --seed 1234 {shared} --denoise_steps 1 --ensemble_size 2 --processing_res 0 --output_dir {base}/p"
    assert cli.main(["infer", *shlex.split(line), "--threads", "1", "--resample_method", "bilinear"]) == 0
    line = f"depth {shared} --alignment least_square --prediction_dir {base}/p --output_dir {base}/m"
    assert cli.main(["eval", *shlex.split(line), "--alignment_max_res", "1024", "--no_cuda"]) == 0
    assert (base / "m/eval_metrics-least_square.txt").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["infer", "depth", "--preset", "dsine-pooled"], "for normals, not for depth"),
        (["infer", "normals", "--preset", "v1-0"], "for depth, not for normals"),
        (["infer", "normals", "--solver", "reference"], "--solver is for depth"),
        (["infer", "normals", "--alignment", "median"], "--alignment is for depth"),
        (["infer", "depth", "--pooling", "pixels"], "--pooling is for normals"),
        (["infer", "depth", "--eval", "--output-processing-res"], "--output-processing-res"),
        (["infer", "depth", "--eval", "--overwrite"], "--overwrite"),
        (["infer", "depth", "--fp16", "--variant", "x"], "exclude each other"),
        (["infer", "depth", "--workers", "2"], "--workers needs"),
        (["eval", "depth", "--ray-address", "auto", "--predictions", "p"], "--ray-address needs"),
        (["eval", "depth", "--target-names", "albedo", "--predictions", "p"], "--target-names is for iid"),
        (
            [
                *("eval", "iid", "--predictions", "p", "--target-names", "albedo"),
                *("--targets-to-eval-in-linear-space", "material"),
            ],
            "names material",
        ),
        (["infer", "segmentation"], "invalid choice"),
    ],
)
def test_wrong_usage(words: list[str], said: str, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed = ["--dataset-config", str(base / "depth.yaml"), "--base-data-dir", str(base), "-o", str(base / "out")]
    assert cli.main([*words, *needed]) == 2
    assert said in capsys.readouterr().err
    assert not (base / "out").exists()


def test_wrong_folders(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("depth", base, base / "nothing") == 1
    assert "nothing" in capsys.readouterr().err
    (base / "file").write_text("")
    assert infer("depth", base, base / "file") == 1
    assert infer("normals", base, base / "out", "--checkpoint", mc.default_checkpoint("depth")) == 1
    assert "is a checkpoint for depth" in capsys.readouterr().err


def test_quiet(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert infer("depth", base, base / "out", "--quiet") == 0
    assert evaluate("depth", base, base / "out", "--quiet") == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")

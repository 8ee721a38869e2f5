"""The benchmark of real photographs: its alignment, its edges and its readers, on scenes whose depth is known."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marigold_c as mc

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "real_photos.py"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("real_photos", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_photos"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["real_photos"]


def step_scene(height: int = 24, width: int = 32) -> np.ndarray[Any, Any]:
    """A box at 1.2 m in front of a wall at 2 m that leans away by 10 %: what the aloe's disparities, bytes, can say."""
    depth = np.broadcast_to(np.linspace(2.0, 2.2, width), (height, width)).copy()
    depth[6:18, 8:20] = 1.2
    return depth


def plain_f1(prediction: np.ndarray[Any, Any], truth: np.ndarray[Any, Any], thresholds: np.ndarray[Any, Any]) -> float:
    """Depth Pro's boundary F1 (equations 2 to 4 of its supplement), pixel by pixel."""
    height, width = truth.shape
    total = 0.0
    for threshold in thresholds:
        precision = recall = 0.0
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            hits = found = wanted = 0
            for y in range(height):
                for x in range(width):
                    if not (0 <= y + dy < height and 0 <= x + dx < width):
                        continue
                    if np.isnan(truth[y, x]) or np.isnan(truth[y + dy, x + dx]):
                        continue
                    a = prediction[y + dy, x + dx] / prediction[y, x] > threshold
                    b = truth[y + dy, x + dx] / truth[y, x] > threshold
                    hits, found, wanted = hits + (a and b), found + a, wanted + b
            precision += hits / max(found, 1) / 4
            recall += hits / max(wanted, 1) / 4
        total += threshold * (2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return total / float(thresholds.sum())


def test_edges_are_those_of_the_definition(bench: ModuleType) -> None:
    rng = np.random.default_rng(0)
    truth = step_scene(12, 14) * rng.uniform(0.9, 1.1, (12, 14))
    truth[rng.random(truth.shape) < 0.1] = np.nan
    guess = step_scene(12, 14) * rng.uniform(0.85, 1.15, (12, 14))
    expected = plain_f1(guess, truth, bench.THRESHOLDS)
    assert 0.1 < expected < 0.9
    assert bench.boundary_f1(guess, truth) == pytest.approx(expected, rel=1e-12)


def test_a_sharp_map_has_edges_and_a_smooth_one_has_none(bench: ModuleType) -> None:
    truth = step_scene()
    assert bench.boundary_f1(truth, truth) == 1.0
    slope = np.broadcast_to(np.linspace(1.0, 2.2, truth.shape[1]), truth.shape)
    assert bench.boundary_f1(slope, truth) == 0.0


def test_scores_are_of_the_aligned_map(bench: ModuleType) -> None:
    truth = step_scene()
    truth[:3] = np.nan
    photo = bench.Photograph("box", np.zeros((*truth.shape, 3), np.uint8), truth, True)
    whole = np.where(np.isfinite(truth), truth, 5.0)
    assert bench.scores(0.25 * whole - 3.0, photo) == pytest.approx((0.0, 1.0, 1.0), abs=1e-9)
    known = truth[np.isfinite(truth)]
    relative, delta, edges = bench.scores(np.zeros_like(truth), photo)
    assert relative == pytest.approx(float(np.mean(np.abs(known.mean() - known) / known)))
    assert delta == pytest.approx(float(np.mean(np.maximum(known / known.mean(), known.mean() / known) < 1.25)))
    assert edges == 0.0


def write_photographs(folder: Path, bench: ModuleType) -> None:
    """Files as `fetch` leaves them: a leaning wall with a box for each of the two exact ones."""
    rng = np.random.default_rng(1)
    depth = step_scene(60, 80)
    for name, camera in (("motorcycle", bench.MOTORCYCLE), ("aloe", bench.ALOE)):
        focal, baseline, offset = camera
        disparity = focal * baseline / depth - offset
        image = Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8))
        if name == "motorcycle":
            disparity[:2] = np.inf
            image.save(folder / "motorcycle_left.png")
            np.savez(folder / "motorcycle_disp.npz", disparity.astype(np.float32))
        else:
            image.save(folder / "aloeL.jpg")
            Image.fromarray(np.clip(np.rint(disparity), 0, 255).astype(np.uint8)).save(folder / "aloeGT.png")
    facts = {"fx": 400.0, "baseline_meters": 0.075, "cx0": 0.0, "cx1": 0.0}
    (folder / "stereodemo_calibration.json").write_text(json.dumps(facts))


def test_disparities_become_metres(bench: ModuleType, tmp_path: Path) -> None:
    write_photographs(tmp_path, bench)
    motorcycle, aloe = bench.photographs(tmp_path)
    assert (motorcycle.name, aloe.name) == ("motorcycle", "aloe")
    for photo, tolerance in ((motorcycle, 1e-5), (aloe, 0.02)):
        assert photo.image.shape == (288, 384, 3) and photo.exact
        _, expected = bench.smaller(np.zeros((60, 80, 3), np.uint8), step_scene(60, 80))
        known = np.isfinite(photo.depth)
        assert known.mean() > 0.9
        np.testing.assert_allclose(photo.depth[known], expected[known], rtol=tolerance)
    assert np.isnan(motorcycle.depth[0]).all()


def test_the_table_has_a_row_for_each_photograph(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photographs(tmp_path, bench)
    monkeypatch.setattr(sys, "argv", ["real_photos.py", "score", str(tmp_path), str(mc.default_checkpoint())])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines if line] == ["photograph", "---", "motorcycle", "aloe", "mean"]
    assert lines[0].count("AbsRel, δ1, edge F1") == 4
    package, named = (cell.strip() for cell in lines[2].split("|")[4:6])
    assert package == named and all(float(part) >= 0 for part in package.split(","))

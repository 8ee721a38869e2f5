"""`marigold infer` and `marigold eval` on data sets in every official layout, against an evaluation that shares no code
with them: diffusers' networks, the paper's recipe, NumPy in float64 (independent_evaluation.py). One member, because
the references' ensembling is only defined up to its rounding noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import independent_evaluation as theirs
import numpy as np
import pytest
from cli_cases import changed_checkpoint
from dataset_cases import load_tool
from PIL import Image

from marigold_c.commands import cli

torch = pytest.importorskip("torch")
papers = pytest.importorskip("test_paper_preset")
pytest.importorskip("yaml")
pytest.importorskip("OpenEXR")

fixtures = load_tool()
SEED, STEPS = 1234, 2
# Processing resolutions: the image's own for small ones. 104 makes 78 rows, of which the VAE loses 6. (Factors like
# 100 / 128 put many values of the 8-bit resize halfway between two integers: which one it is then is chance.)
RESOLUTIONS = {"nyu_depth": 160, "kitti_depth": 256, "vkitti_depth": 256, "diode_depth": 104}
RELATIVE = 1e-4


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = fixtures.write_fixtures(tmp_path_factory.mktemp("sets"))
    return found


def samples(fixture: Any) -> list[list[bytes]]:
    """The files of each sample that has a truth, in the order of its line."""
    lines = [line.split() for line in fixture.lines]
    return [[fixture.files[name] for name in line if name in fixture.files] for line in lines if "None" not in line]


def predicted(task: str, image: np.ndarray, resolution: int) -> np.ndarray:
    """Maps (T, H, W, C)."""
    photo = Image.fromarray(image)
    options = {"resolution": resolution, "method": "bilinear"}
    with torch.no_grad():
        maps, _ = papers.papers_recipe(task, photo, SEED, STEPS, 1, 1, **options)
        found: np.ndarray = papers.delivered(task, maps, photo, True, "bilinear")
    return found


def independent(fixture: Any, resolution: int, targets: tuple[str, ...]) -> list[Any]:
    """Of each sample the scores; of normals the angular errors; of depth a function of the thresholds' stretch."""
    task = "intrinsics" if fixture.task == "iid" else fixture.task
    found: list[Any] = []
    for files in samples(fixture):
        maps = predicted(task, theirs.image_of(fixture.name, files[0]), resolution)
        if fixture.task == "depth":
            found.append(partial(theirs.depth_scores, fixture.name, maps[0, :, :, 0], files))
        elif fixture.task == "normals":
            found.append(theirs.normals_errors(fixture.name, maps[0], files))
        else:
            found.append(theirs.INTRINSICS[fixture.name](dict(zip(targets, maps, strict=True)), files))
    return found


def mean(scores: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}


def run(fixture: Any, out: Path, resolution: int, checkpoint: Path | None) -> dict[str, Any]:
    """infer and eval; the JSON of the summary."""
    shared = [fixture.task, "--dataset-config", str(fixture.config), "--base-data-dir", str(fixture.base), "--quiet"]
    options = ["--denoise-steps", str(STEPS), "--ensemble-size", "1", "--seed", str(SEED), "--threads", "1"]
    options += ["--checkpoint", str(checkpoint)] if checkpoint else []
    resolve = ["--processing-res", str(resolution)]
    assert cli.main(["infer", *shared, "--preset", "v1-1", "-o", str(out), *options, *resolve]) == 0
    preset = ["--preset", "v1-1"]
    assert cli.main(["eval", *shared, *preset, "--predictions", str(out), "-o", str(out / "eval")]) == 0
    found: dict[str, Any] = json.loads(next((out / "eval").glob("*.json")).read_text())
    return found


def check(got: dict[str, float], wanted: Callable[[float], dict[str, float]]) -> None:
    """Shares count pixels on one side of a threshold; they lie between those for thresholds a little to both sides."""
    below, exact, above = (wanted(stretch) for stretch in (1 - RELATIVE, 1, 1 + RELATIVE))
    for name, value in exact.items():
        if not np.isfinite(value):  # JSON has no word for it
            assert got[name] is None
        elif below[name] != above[name]:
            assert below[name] - 1e-9 <= got[name] <= above[name] + 1e-9, name
        else:
            assert got[name] == pytest.approx(value, rel=RELATIVE, abs=1e-9), name


@pytest.mark.filterwarnings("ignore::marigold_c.errors.DatasetWarning")  # tiny lists are not the published ones
@pytest.mark.parametrize("name", fixtures.LAYOUTS)
def test_a_data_set(name: str, written: dict[str, Any], tmp_path: Path) -> None:
    fixture, resolution = written[name], RESOLUTIONS.get(name, 0)
    targets, checkpoint = ("albedo", "shading", "residual"), None
    if name == "interiorverse_iid":  # the shipped checkpoint under the names of the other one's targets
        targets = ("albedo", "material", "rest")
        properties = {"target_names": list(targets), **{one: {"prediction_space": "srgb"} for one in targets}}
        checkpoint = changed_checkpoint("iid", tmp_path / "appearance", target_properties=properties)
    got = run(fixture, tmp_path / "out", resolution, checkpoint)
    found = independent(fixture, resolution, targets)
    assert (got["samples"], got["evaluated"]) == (len(found), len(found))
    if fixture.task == "depth":
        check(got["means_over_images"], lambda stretch: mean([one(stretch=stretch) for one in found]))
    elif fixture.task == "normals":
        check(got["means_over_images"], lambda stretch: mean([theirs.normals_scores(one, stretch) for one in found]))
        pooled = np.concatenate(found)
        check(got["all_pixels_pooled"], lambda stretch: theirs.normals_scores(pooled, stretch))
    else:
        check(got["means_over_images"], lambda _: mean(found))

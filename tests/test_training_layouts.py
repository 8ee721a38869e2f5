"""Training on the data sets of the papers, in their official layouts (tools/make_dataset_fixtures.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_cases import load_tool
from training_cases import final_weights, make_config, open_stand_in, settings, write_config

from marigold_c.datasets import open_dataset
from marigold_c.training.config import load_config
from marigold_c.training.examples import Example, TrainingSet
from marigold_c.training.run import RunOptions, train

NAMES = ("hypersim_depth", "vkitti_depth", "hypersim_normals", "sintel_normals", "interiorverse_iid", "hypersim_iid")
APPEARANCE = {
    "target_names": ["albedo", "material"],
    "albedo": {"prediction_space": "srgb"},
    "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
    "roughness": {"prediction_space": "linear", "up_to_scale": False},
    "metallicity": {"prediction_space": "linear", "up_to_scale": False},
}


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sets")
    return folder, load_tool().write_fixtures(folder, NAMES, count=2)


def entry(fixture: Any, **options: Any) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for line in fixture.config.read_text().splitlines():
        key, _, text = line.partition(": ")
        keys[key] = json.loads(text) if text in ("true", "false", "null") else text
    return {**keys, **options}


def example(fixtures: tuple[Path, dict[str, Any]], name: str, index: int = 0, **options: Any) -> Example:
    folder, made = fixtures
    changes: dict[str, Any] = {"dataset__train": entry(made[name], **options)}
    if name == "interiorverse_iid":
        changes["pipeline__kwargs__target_properties"] = APPEARANCE
    config = make_config(folder, name.split("_")[1], **changes)
    return TrainingSet(config.train_sets[0], config, folder / "data").example(index, False, None)


def truth(fixtures: tuple[Path, dict[str, Any]], name: str, index: int = 0) -> Any:
    fixture = fixtures[1][name]
    return open_dataset(fixture.config, fixture.base, task=fixture.task).read_truth(index)


def test_hypersim_depth(fixtures: Any) -> None:
    found, known = example(fixtures, "hypersim_depth"), truth(fixtures, "hypersim_depth")
    near, far = np.quantile(known.target[known.mask], [0.02, 0.98])
    expected = np.clip((known.target - near) / (far - near) * 2 - 1, -1, 1)
    np.testing.assert_allclose(found.target[0][known.mask], expected[known.mask], atol=1e-5)
    np.testing.assert_array_equal(found.mask[0], known.mask)
    assert 0 < known.mask.mean() < 1
    resized = example(fixtures, "hypersim_depth", resize_to_hw=[48, 64])
    assert resized.image.shape == resized.target.shape == (3, 48, 64)


def test_virtual_kitti(fixtures: Any) -> None:
    """The benchmark's crop; sky is too far to be valid."""
    found = example(fixtures, "vkitti_depth", valid_mask_crop=None)
    assert found.image.shape == found.target.shape == (3, 352, 1216)
    known = truth(fixtures, "vkitti_depth")
    assert (known.target[found.mask[0]] < 80).all()
    assert example(fixtures, "vkitti_depth").mask.sum() < found.mask.sum()  # Eigen's window


def test_normals(fixtures: Any) -> None:
    known = truth(fixtures, "hypersim_normals")
    found = example(fixtures, "hypersim_normals")
    np.testing.assert_allclose(found.target, known.target.transpose(2, 0, 1))
    sintel = example(fixtures, "sintel_normals", resize_to_hw=[480, 640], center_crop=True)
    assert sintel.image.shape == sintel.target.shape == (3, 480, 640)
    assert np.linalg.norm(sintel.target, axis=0).min() > 0.1
    folder, made = fixtures
    given = entry(made["hypersim_normals"], name="interiorverse_normals")
    config = make_config(folder, "normals", dataset__train=given)
    other = TrainingSet(config.train_sets[0], config, folder / "data").example(0, False, None)
    np.testing.assert_array_equal(other.target, found.target)
    assert not config.train_sets[0].blur and make_config(folder, "depth", dataset__train=entry(made["hypersim_depth"]))


def test_intrinsic_images(fixtures: Any) -> None:
    known = truth(fixtures, "interiorverse_iid").target
    found = example(fixtures, "interiorverse_iid").target
    expected = np.concatenate([known[name].transpose(2, 0, 1) for name in ("albedo", "material")]) * 2 - 1
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found[5] == -1).all()
    lighting = example(fixtures, "hypersim_iid").target
    assert lighting.shape[0] == 9 and lighting[3:].max() == 1 and lighting.min() >= -1


def test_a_run_on_two_sets_of_different_size(fixtures: Any, tmp_path: Path) -> None:
    folder, made = fixtures
    sets = [entry(made["hypersim_depth"], resize_to_hw=[48, 64]), entry(made["vkitti_depth"])]
    values = settings(
        dataset__train={"name": "mixed", "prob_ls": [0.7, 0.3], "dataset_list": sets},
        gt_mask_type="valid_mask_raw",
        max_iter=3,
    )
    config = load_config(write_config(folder / "mixed.yaml", values))
    said: list[str] = []
    options = RunOptions(tmp_path / "run", folder / "data", threads=1, say=said.append)
    assert train(config, options, open_stand_in) == "done"
    assert np.isfinite(final_weights(tmp_path / "run")).all()

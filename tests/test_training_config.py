"""Training configurations: prs-eth's files as they are, the recipes, and an error for everything that is not meant."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_cases import LIGHTING, data_entry, make_config, settings, write_config

from marigold_c.configurations.yaml_tree import ConfigError
from marigold_c.loading.folders import default_checkpoint
from marigold_c.training.config import load_config
from marigold_c.training.engine import open_engine

RECIPES = Path(__file__).parent.parent / "examples" / "recipes"


def refused(folder: Path, task: str = "depth", **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make_config(folder, task, **changes)
    message = str(caught.value)
    assert str(folder / "run.yaml") in message and "line " in message
    return message


def test_values_and_defaults(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert (config.task, config.objective, config.class_name) == ("depth", "latent", "MarigoldDepthPipeline")
    assert config.target_names == ("depth",)
    assert config.pipeline_options["default_denoising_steps"] == 4
    assert config.loader.accumulation == 2
    assert (config.depth_range.quantile, config.depth_range.low, config.depth_range.high) == (0.02, -1, 1)
    assert (config.optimizer.name, config.optimizer.options.betas, config.max_gradient_norm) == (
        "Adam",
        (0.9, 0.999),
        None,
    )
    assert not config.masked
    assert config.name == "run"


def test_base_files_are_merged_in_order(tmp_path: Path) -> None:
    """As prs-eth's: paths from a folder above, later files win, mappings are merged, lists replaced."""
    base = settings()
    base["eval"] = {"eval_metrics": ["abs_relative_difference", "delta1_acc"]}
    write_config(tmp_path / "config" / "all" / "base.yaml", base)
    write_config(
        tmp_path / "config" / "rate.yaml", {"lr": 0.5, "max_iter": 9, "eval": {"eval_metrics": ["delta1_acc"]}}
    )
    top = {"base_config": ["config/all/base.yaml", "config/rate.yaml"], "max_iter": 3, "dataloader": {"num_workers": 0}}
    config = load_config(write_config(tmp_path / "config" / "train.yaml", top))
    assert (config.learning_rate, config.max_iterations) == (0.5, 3)
    assert (config.loader.workers, config.loader.batch) == (0, 2)
    assert config.evaluation.metrics == ("delta1_acc",)


def test_a_null_in_a_later_file_takes_a_section_away(tmp_path: Path) -> None:
    write_config(tmp_path / "base.yaml", settings())
    config = load_config(write_config(tmp_path / "top.yaml", {"base_config": ["base.yaml"], "multi_res_noise": None}))
    assert config.noise is None


def test_an_error_names_the_file_that_the_value_is_in(tmp_path: Path) -> None:
    values = settings()
    values["lr"] = -1
    base = write_config(tmp_path / "base.yaml", values)
    with pytest.raises(ConfigError, match="lr: is -1; expected a number above 0") as caught:
        load_config(write_config(tmp_path / "top.yaml", {"base_config": ["base.yaml"], "max_iter": 5}))
    line = next(number for number, text in enumerate(base.read_text().splitlines(), 1) if '"lr"' in text)
    assert f"{base}, line {line}: " in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1}, "learning_rate: unknown key with the value 1; known here: "),
        ({"dataloader__workers": 3}, "dataloader.workers: unknown key with the value 3"),
        ({"dataset__test": []}, "dataset.test: unknown key"),
        ({"dataset__train": {**data_entry("depth"), "path": "x"}}, "dataset.train.path: unknown key"),
        ({"dataset__train": data_entry("normals")}, "is 'folder_normals', which is no data set for depth"),
        ({"dataset__train": {**data_entry("depth"), "name": "nyu_depth", "filenames": "run.yaml"}}, "not for training"),
        ({"dataset__train": {**data_entry("depth"), "name": "vkitti_depth"}}, "filenames: is missing"),
        ({"dataset__train": data_entry("depth", filenames="no.txt")}, "dataset.train.filenames: no file no.txt beside"),
        (
            {"dataset__train": data_entry("depth", resize_to_hw=[4, 64])},
            "is [4, 64]; expected a list of 2 integers, height and width of at least 8",
        ),
        ({"dataset__train": None}, "dataset.train: is missing"),
        (
            {"dataset__train": {"name": "mixed", "dataset_list": []}},
            "dataset_list: is []; expected a list of at least one data set",
        ),
        (
            {"dataset__train": {"name": "mixed", "dataset_list": [data_entry("depth")], "prob_ls": [0.5, 0.5]}},
            "expected one probability for each of 1 sets",
        ),
        ({"dataloader__effective_batch_size": 5}, "is 5, which is no multiple of max_train_batch_size 2"),
        ({"dataloader__num_workers": "two"}, "dataloader.num_workers: is 'two'; expected an integer from 0 to 256"),
        ({"dataloader__num_workers": True}, "dataloader.num_workers: is True; expected an integer"),
        ({"dataloader__on_bad_sample": "ignore"}, "is 'ignore'; expected one of error, skip"),
        ({"augmentation__lr_flip_p": 1.5}, "is 1.5; expected a number of at least 0 and at most 1"),
        ({"augmentation__lr_flip_p": float("nan")}, "expected a number"),
        ({"lr": "fast"}, "lr: is 'fast'; expected a number above 0"),
        ({"max_iter": None}, "max_iter: is missing"),
        ({"optimizer": {"name": "SGD"}}, "optimizer.name: is 'SGD'; expected one of Adam, AdamW"),
        ({"optimizer": {"name": "Adam", "kwargs": {"weight_decay": 0.1}}}, "expected 0 for Adam, or the name AdamW"),
        (
            {"optimizer": {"kwargs": {"betas": [0.9, 1]}}},
            "betas: is [0.9, 1]; expected a list of 2 numbers from 0 to below 1",
        ),
        ({"loss": {"name": "l1_loss"}}, "loss.name: is 'l1_loss'; expected one of mse_loss"),
        ({"lr_scheduler": {"name": "Cosine"}}, "lr_scheduler.name: is 'Cosine'"),
        ({"lr_scheduler__kwargs__warmup_steps": 8}, "expected less than total_iter"),
        ({"multi_res_noise__downscale_strategy": "random_step"}, "expected one of original"),
        ({"depth_normalization": {"norm_min": 1.0, "norm_max": 1.0}}, "expected more than norm_min 1"),
        ({"trainer__objective": "gan"}, "trainer.objective: is 'gan'; expected one of latent, e2e, lcm, refine"),
        ({"trainer__name": "MarigoldNormalsTrainer"}, "is for depth, but trainer.name is for normals"),
        ({"pipeline__name": "DepthAnything"}, "pipeline.name: is 'DepthAnything'; expected one of"),
        ({"gt_mask_type": "mask"}, "gt_mask_type: is 'mask'; expected one of valid_mask_raw"),
        ({"model": {}}, "model.pretrained_path: is missing"),
        ({"model": "x"}, "model: expected keys and values, found 'x'"),
        ({"validation": {"main_val_metric": "psnr"}}, "is 'psnr'; the metrics are abs_relative_difference, "),
        ({"validation": {"main_val_metric": "psnr"}, "eval": {"eval_metrics": ["delta1_acc"]}}, "does not list"),
        ({"trainer__objective": "e2e", "dataloader__latent_cache": "x"}, "its loss needs the pixels"),
        (
            {"augmentation__color_jitter_p": 0.1, "dataloader__latent_cache": "x"},
            "cannot be used with crops, blur, jitter or noise",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refused(tmp_path, **changes)


def test_all_that_does_not_fit_is_named_at_once(tmp_path: Path) -> None:
    lines = refused(tmp_path, max_iter=0, dataloader__seeed=3, augmentation__flip=0.5).splitlines()
    text = (tmp_path / "run.yaml").read_text().splitlines()
    for key, message in (
        ("flip", "augmentation.flip: unknown key with the value 0.5; known here: "),
        ("seeed", "dataloader.seeed: unknown key with the value 3; known here: "),
        ("max_iter", f"max_iter: is 0; expected an integer from 1 to {2**31}"),
    ):
        number = next(number for number, line in enumerate(text, 1) if f'"{key}"' in line)
        (line,) = [line for line in lines if message in line]
        assert line.startswith(f"{tmp_path / 'run.yaml'}, line {number}: {message}")
    assert [line.rpartition("; did you mean ")[2] for line in lines][:2] == ["lr_flip_p?", "seed?"]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("normals", {"depth_normalization": {"clip": True}}, "depth_normalization: is for depth, and this"),
        ("normals", {"eval": {"alignment": "least_square"}}, "eval.alignment: is for depth, and this"),
        ("depth", {"gt_normals_type": "normals"}, "gt_normals_type: is for normals, and this"),
        ("depth", {"pipeline__kwargs__target_properties": LIGHTING}, "target_properties: is for iid, and this"),
        ("depth", {"dataset__val": ["x"]}, "dataset.val[0]: expected keys and values, found 'x'"),
        ("depth", {"dataset__val": [data_entry("depth", min_depth=-1)]}, "dataset.val[0].min_depth: is -1; expected a"),
        ("depth", {"dataset__val": "x"}, "dataset.val: is 'x'; expected a list of data sets"),
        (
            "depth",
            {"eval": {"eval_metrics": ["rmse_log", 3]}},
            "eval.eval_metrics: is ['rmse_log', 3]; expected",
        ),
        ("depth", {"trainer__dtype": "bfloat"}, "trainer.dtype: is 'bfloat'; expected one of float32, bfloat16"),
        ("depth", {"trainer__gradient_checkpointing": 1}, "gradient_checkpointing: is 1; expected true or false"),
        ("depth", {"lr": "0.1"}, "lr: is '0.1'; expected a number above 0"),
    ],
)
def test_what_does_not_fit_a_task_or_a_type(tmp_path: Path, task: str, changes: dict[str, Any], message: str) -> None:
    assert message in refused(tmp_path, task, **changes)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"target_names": ["albedo", "albedo"]}, "expected different names"),
        ({"target_names": ["albedo"]}, "target_properties.albedo: is missing"),
        ({**LIGHTING, "gloss": {}}, "target_properties.gloss: unknown key"),
        ({"target_names": ["a"], "a": {"prediction_space": "xyz"}}, "expected one of srgb, linear, stack"),
        (
            {"target_names": ["a"], "a": {"prediction_space": "stack", "sub_target_names": ["r"]}},
            "expected three names",
        ),
    ],
)
def test_targets_of_intrinsic_images(tmp_path: Path, properties: dict[str, Any], message: str) -> None:
    assert message in refused(tmp_path, "iid", pipeline__kwargs__target_properties=properties)


def test_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads 8e-05 as a text; OmegaConf, which prs-eth uses, as a number."""
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(settings()).replace('"lr": 0.001', '"lr": 8e-05'))
    assert load_config(path).learning_rate == 8e-05


def test_a_data_set_for_training_needs_no_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    values = settings()
    values["dataset"]["train"].pop("disp_name", None)
    path.write_text(json.dumps(values))
    (entry,) = load_config(path).train_sets
    assert entry.display_name == entry.name


# Each names the one before eight times.
MANY_ALIASES = "".join(f"{key}: &{key} [{', '.join([f'*{before}'] * 8)}]\n" for before, key in pairwise("abcdefgh"))


def test_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    for text, message in {
        "a: [1": "not valid YAML",
        "- 1": "expected keys and values",
        "lr: 1\nlr: 2": "line 2: the key lr is there twice",
        "base_config: other.yaml": "base_config: expected a list of files",
        "base_config: [other.yaml]": "no file other.yaml",
        "base_config: [run.yaml]": "is its own base_config",
        "a: &a [*a]": "nested more than 32 levels deep",
        "lr: !!python/object/apply:os.getcwd []": "not valid YAML",
        "\x01": "not valid YAML",
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + MANY_ALIASES: "more than 100000 values",
    }.items():
        path.write_text(text)
        with pytest.raises(ConfigError, match=message) as caught:
            load_config(path)
        assert str(path) in str(caught.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(path)
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "none.yaml")


# The paper's settings (prs-eth/Marigold, config/train_marigold_*.yaml).
PAPER: dict[str, dict[str, Any]] = {
    "depth": {"lr": 3e-5, "max": 30000, "total": 25000, "sets": 2, "prob": (0.9, 0.1), "steps": 1, "masked": True},
    "normals": {"lr": 6e-5, "max": 30000, "total": 25000, "sets": 3, "prob": (0.5, 0.49, 0.01), "steps": 4},
    "iid-appearance": {"lr": 3e-5, "max": 50000, "total": 25000, "sets": 1, "prob": (1.0,), "steps": 4, "masked": True},
    "iid-lighting": {"lr": 8e-5, "max": 50000, "total": 45000, "sets": 1, "prob": (1.0,), "steps": 4},
}


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A folder with the recipes and the lists that they name, as prs-eth's repository has them."""
    for recipe in RECIPES.glob("*.yaml"):
        text = recipe.read_text()
        (tmp_path / recipe.name).write_text(text)
        for word in text.split():
            if word.startswith("data_split/") and word.endswith(".txt"):
                (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / word).write_text("a.png b.png\n")
    return tmp_path


@pytest.mark.parametrize("name", PAPER)
def test_recipes_of_the_papers(lists: Path, name: str) -> None:
    config, expected = load_config(lists / f"{name}.yaml"), PAPER[name]
    assert config.learning_rate == expected["lr"] and config.lr_scheduler is not None and config.noise is not None
    assert config.max_gradient_norm is None and config.optimizer.options.weight_decay is None
    schedule, periods = config.lr_scheduler.schedule, config.trainer
    assert config.max_iterations == expected["max"]
    assert (schedule.total_iter, schedule.final_ratio, schedule.warmup_steps) == (expected["total"], 0.01, 100)
    assert config.probabilities == expected["prob"] and len(config.train_sets) == expected["sets"]
    assert (config.loader.effective_batch, config.loader.batch, config.loader.seed) == (32, 2, 2024)
    assert config.trainer.seed == 2024 and config.augmentation.flip == 0.5
    assert config.masked == expected.get("masked", False)
    assert (config.noise.strength, config.noise.annealed) == (0.9, True)
    assert config.validation.steps == expected["steps"]
    assert (periods.save, periods.backup, periods.validation) == (50, 2000, 500)
    blur = config.augmentation.gaussian_blur
    assert blur == (0.3 if name == "normals" else 0)


def test_all_recipes_can_be_read(lists: Path) -> None:
    objectives = {path.stem: load_config(path).objective for path in sorted(lists.glob("*.yaml"))}
    assert {"autoencoder", "e2e", "lcm", "latent", "refine"} == set(objectives.values())
    assert len(objectives) == len(list(RECIPES.glob("*.yaml")))


def test_loss_of_pixels_by_task(tmp_path: Path) -> None:
    """It reaches the engine, which has it for depth alone."""
    config = make_config(tmp_path, trainer__objective="e2e", trainer__pixel_loss="sink")
    assert make_config(tmp_path).trainer.pixel_loss == "task"
    base = default_checkpoint()
    engine = open_engine(config, base, base, "cpu", 1, True)
    inputs = {"image_latent": np.ones((1, 4, 3, 4), np.float32)}
    target = np.full((1, 1, 24, 32), 20.5, np.float32)
    with pytest.raises(ValueError, match='loss "sink"'):
        engine.forward_backward(**inputs, pixel_target=target)
    for loss in ("sink", "absolute"):
        assert "trainer.pixel_loss" in refused(tmp_path, "normals", trainer__objective="e2e", trainer__pixel_loss=loss)
        assert "trainer.pixel_loss" in refused(tmp_path, trainer__pixel_loss=loss)

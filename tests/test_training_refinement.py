"""Training of Marigold-HR's second UNet by a configuration: objective refine, with coarse predictions of the base
model. Its loss and gradients: tests/oracle/test_refine.py."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors_files
from training_cases import data_entry, make_config, make_scenes, settings, write_config

import marigold_c as mc
from marigold_c.commands import cli
from marigold_c.configurations.yaml_tree import ConfigError
from marigold_c.errors import CheckpointError
from marigold_c.preparation.model import make_model
from marigold_c.training.coarse_inputs import CoarseInputs, coarse_resolution
from marigold_c.training.examples import TrainingSet
from marigold_c.training.latents import LatentEncoder
from marigold_c.training.refinement import agreement_mask, align_coarse
from marigold_c.training.targets import latent_mask

SIZE = (64, 96)
REFINE: dict[str, Any] = {
    "trainer__objective": "refine",
    "trainer__refinement": {"crop_hw": [32, 48], "base_denoising_steps": 1},
    "pipeline__name": "MarigoldDepthHRPipeline",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refine")
    make_scenes(folder / "train", 6, size=SIZE)
    make_scenes(folder / "val", 1, seed=5, size=SIZE)
    make_model(folder / "start", mc.default_checkpoint("depth"), mc.default_checkpoint("depth"), boosting=True)
    return folder


def changes(root: Path, **more: Any) -> dict[str, Any]:
    return {**REFINE, "model__pretrained_path": str(root / "start"), "dataset__train": data_entry("depth"), **more}


# ---- a checkpoint to begin with ----
def test_the_start_refines_as_the_base_predicts(root: Path) -> None:
    """The coarse prediction has zeros, all else is the base's: from one noise both predict the same."""
    assert isinstance(mc.load(root / "start"), mc.MarigoldDepthHRPipeline)
    pipe = mc.MarigoldDepthHRPipeline.from_pretrained(root / "start", num_threads=1)
    base = mc.MarigoldDepthPipeline.from_pipe(pipe)
    for one in (pipe, base):
        one.set_progress_bar_config(disable=True)
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    few: dict[str, Any] = {"num_inference_steps": 1, "ensemble_size": 1}
    refined = pipe(
        image, processing_resolution=48, boosted_num_inference_steps=1, boosted_ensemble_size=1,
        latents="zeros", boosted_latents="zeros", **few,
    )  # fmt: skip
    expected = base(image, processing_resolution=96, latents="zeros", **few)
    np.testing.assert_allclose(refined.prediction, expected.prediction, atol=2e-5)


def test_the_command_makes_the_start(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "model", "--like", "marigold-tiny-depth", "--boosting", "-o", str(tmp_path / "start")]
    assert cli.main([*words, "--weights-from", str(mc.default_checkpoint("depth"))]) == 0
    assert "boosting_unet: 0 new weights" in capsys.readouterr().out
    file = Path("boosting_unet/diffusion_pytorch_model.safetensors")
    assert (tmp_path / "start" / file).read_bytes() == (root / "start" / file).read_bytes()
    with pytest.raises(CheckpointError, match="that of depth takes two latents"):
        make_model(tmp_path / "iid", mc.default_checkpoint("intrinsics"), boosting=True)


# ---- the configuration ----
@pytest.mark.parametrize(
    ("task", "wrong", "message"),
    [
        ("depth", {"pipeline__name": "MarigoldDepthPipeline"}, "and objective refine go together"),
        ("depth", {"trainer__objective": "latent"}, "and objective refine go together"),
        ("depth", {"trainer__refinement": {"crop_hw": [32, 50]}}, r"crop_hw: is \[32, 50\]; expected multiples of 8"),
        ("depth", {"trainer__refinement": {"agreement": 0}}, "a number above 0"),
        ("depth", {"trainer__refinement": {"upscale_factor": 0.5}}, "of at least 1"),
        ("depth", {"trainer__refinement": {"crop": 3}}, "unknown key"),
        ("depth", {"dataloader__latent_cache": "x"}, "its loss needs the pixels"),
        ("normals", {"pipeline__name": "MarigoldNormalsPipeline"}, "is refine, which is for depth, not normals"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_configurations(tmp_path: Path, task: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(tmp_path, task, **{**REFINE, **wrong})


def test_keys_of_refinement_are_for_refine(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.refinement: is for objective refine, not latent"):
        make_config(tmp_path, trainer__refinement={"agreement": 0.2})
    named = make_config(tmp_path, **{**REFINE, "trainer__objective": None, "trainer__name": "MarigoldDepthHRTrainer"})
    assert (named.objective, named.class_name) == ("refine", "MarigoldDepthHRPipeline")
    assert named.trainer.refinement.agreement == 0.1 and named.latent_noise is not None
    values = settings(**{**REFINE, "trainer__objective": "refine"})
    del values["pipeline"]["name"]
    values["trainer"]["name"] = "MarigoldDepthTrainer"
    assert mc.training.config.load_config(write_config(tmp_path / "b.yaml", values)).class_name == named.class_name


# ---- a batch ----
class Batches:
    """Inputs of the same samples, with an autoencoder that keeps the mean of every cell and channel."""

    def __init__(self, root: Path, tmp_path: Path, **refinement: Any) -> None:
        keys = {**REFINE["trainer__refinement"], **refinement}
        self.config = make_config(tmp_path, **changes(root, trainer__refinement=keys))
        data = TrainingSet(self.config.train_sets[0], self.config, root)
        self.examples = [data.example(index, False, random.Random(0)) for index in (0, 3)]
        base = mc.MarigoldDepthPipeline.from_pretrained(mc.default_checkpoint("depth"), num_threads=1)
        self.inputs = CoarseInputs(self.config, base, LatentEncoder(self.encode, 2.0))

    @staticmethod
    def encode(pixels: Any) -> Any:
        n, _, h, w = pixels.shape
        cells = pixels.reshape(n, 3, h // 8, 8, w // 8, 8).mean((3, 5))
        return np.concatenate([cells, cells[:, :1]], axis=1)

    def __call__(self, seed: int) -> dict[str, Any]:
        batch: Any = SimpleNamespace(items=[SimpleNamespace(example=one) for one in self.examples])
        return self.inputs(batch, seed)


def test_crops_are_of_whole_cells_about_valid_ones(root: Path, tmp_path: Path) -> None:
    batches = Batches(root, tmp_path)
    whole = [LatentEncoder(Batches.encode, 2.0).planes(one.image[None])[0] for one in batches.examples]
    places = set()
    for seed in range(12):
        got = batches(seed)
        assert got["image_latent"].shape == got["coarse_latent"].shape == (2, 4, 4, 6)
        assert got["mask"].shape == (2, 1, 4, 6) and got["mask"].any(axis=(1, 2, 3)).all()
        for index, one in enumerate(whole):
            found = [
                (y, x)
                for y in range(SIZE[0] // 8 - 3)
                for x in range(SIZE[1] // 8 - 5)
                if np.allclose(one[:, y : y + 4, x : x + 6], got["image_latent"][index], atol=1e-5)
            ]
            assert len(found) == 1
            places.add(found[0])
    rows, columns = ({place[axis] for place in places} for axis in (0, 1))
    assert len(rows) >= 3 and len(columns) >= 4


def test_a_small_valid_part_is_found(root: Path, tmp_path: Path) -> None:
    batches = Batches(root, tmp_path)
    for one in batches.examples:
        one.mask[:] = False
        one.mask[:, 48:64, 80:96] = True  # four cells in a corner
    for seed in range(5):
        cells = batches(seed)["mask"]
        counts = cells.sum(axis=(1, 2, 3))
        assert (counts >= 1).all() and (counts <= 4).all()
        assert not cells[:, :, :2].any() and not cells[:, :, :, :4].any()


def test_cells_are_those_of_the_autoencoder(root: Path, tmp_path: Path) -> None:
    """One of three levels shrinks by 4: the package's."""
    folder = Path(mc.__file__).parent / "checkpoints" / "marigold-tiny-depth"
    base = mc.MarigoldDepthPipeline.from_pretrained(folder, num_threads=1)
    assert base.vae_scale_factor == 4
    batches = Batches(root, tmp_path)
    batches.inputs = CoarseInputs(batches.config, base, LatentEncoder(base.vae.encode, 1.0))
    got = batches(3)
    assert got["image_latent"].shape == (2, 4, 8, 12)
    assert got["mask"].shape == (2, 1, 8, 12) and got["mask"].any(axis=(1, 2, 3)).all()


def test_coarse_maps_are_the_bases_aligned(root: Path, tmp_path: Path) -> None:
    """Without a crop: the map that the base gives at half the size, fitted to the truth."""
    batches = Batches(root, tmp_path, crop_hw=None, agreement=0.05)
    got, again, other = batches(-1), batches(-1), batches(2)  # seeds of batches have a sign
    for name, values in got.items():
        np.testing.assert_array_equal(values, again[name])
    assert not np.array_equal(got["coarse_latent"], other["coarse_latent"])
    chance = np.random.default_rng(2**64 - 1)
    base = mc.MarigoldDepthPipeline.from_pretrained(mc.default_checkpoint("depth"), num_threads=1)
    base.set_progress_bar_config(disable=True)
    for index, one in enumerate(batches.examples):
        image = np.clip((one.image.transpose(1, 2, 0) + 1) / 2, 0, 1)
        seed = int(chance.integers(2**31))
        predicted = base(np.ascontiguousarray(image), 1, processing_resolution=48, generator=seed).prediction
        coarse = align_coarse(2 * predicted[0, :, :, 0] - 1, one.target[0], one.mask[0])
        expected = 2 * Batches.encode(np.repeat(coarse[None, None], 3, axis=1))
        np.testing.assert_allclose(got["coarse_latent"][index], expected[0], atol=1e-5)
        threshold = 0.05
        while not (cells := agreement_mask(coarse, one.target[0], one.mask[0], threshold)).any():
            threshold *= 2
        assert cells.sum() <= latent_mask(one.mask[0]).sum()
        np.testing.assert_array_equal(got["mask"][index, 0], cells)


def test_where_nothing_agrees_the_best_counts(root: Path, tmp_path: Path) -> None:
    cells = Batches(root, tmp_path, crop_hw=None, agreement=1e-9)(1)["mask"]
    assert 0 < cells.sum() < cells.size / 2
    assert coarse_resolution(100, 2) == 48 and coarse_resolution(5, 4) == 8


# ---- runs ----
def command(root: Path, name: str, *flags: str, **more: Any) -> Path:
    values = settings(**changes(root, **{"max_iter": 2, **more}))
    values["trainer"]["save_period"] = 1
    values.pop("multi_res_noise")
    config = write_config(root / f"{name}.yaml", values)
    words = ["train", str(config), "-o", str(root / "output"), "--base-data-dir", str(root), "--threads", "1"]
    assert cli.main([*words, *flags]) == 0
    return root / "output" / name


def trained(run: Path) -> dict[str, Any]:
    latest = run / "checkpoint" / "latest"
    return safetensors_files.read(latest / "boosting_unet" / "diffusion_pytorch_model.safetensors")


def test_a_run_in_parts_is_the_run_in_one(root: Path) -> None:
    held_out: dict[str, Any] = {
        "dataset__val": [data_entry("depth", "val")],
        "validation": {"main_val_metric": "abs_relative_difference", "denoising_steps": 1, "init_seed": 1},
        "trainer__validation_period": 2,
    }
    whole = command(root, "whole", **held_out)
    for _ in range(3):  # an iteration each, and one in which nothing is left to do
        parts = command(root, "parts", "--resume", "--exit-after", "1e-9", **held_out)
    one, other, start = (
        trained(whole),
        trained(parts),
        safetensors_files.read(root / "start" / "boosting_unet" / "diffusion_pytorch_model.safetensors"),
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert np.abs(one["conv_in.weight"] - start["conv_in.weight"]).max() > 1e-4
    for run in (whole, parts):
        with (run / "validation.csv").open(newline="") as file:
            rows = [row["value"] for row in csv.DictReader(file) if row["metric"] == "abs_relative_difference"]
        assert len(rows) == 1 and np.isfinite([float(row) for row in rows]).all()


def test_what_is_left_is_a_checkpoint_of_high_resolution(root: Path) -> None:
    folder = command(root, "left", max_iter=1) / "checkpoint" / "latest"
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "MarigoldDepthHRPipeline"
    assert index["boosting_unet"] == ["diffusers", "UNet2DConditionModel"]
    pipe: Any = mc.load(folder, num_threads=1)
    assert isinstance(pipe, mc.MarigoldDepthHRPipeline)
    pipe.set_progress_bar_config(disable=True)
    image = np.zeros((48, 64, 3), np.uint8)
    few = {"ensemble_size": 1, "boosted_ensemble_size": 1, "processing_resolution": 32, "generator": 0}
    assert np.isfinite(pipe(image, 1, boosted_num_inference_steps=1, **few).prediction).all()


def test_a_base_without_a_second_unet_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = settings(**changes(root, model__pretrained_path=str(mc.default_checkpoint("depth"))))
    config = write_config(root / "base.yaml", values)
    words = ["train", str(config), "-o", str(root / "output"), "--base-data-dir", str(root), "--threads", "1"]
    assert cli.main(words) == 1
    assert "has no boosting_unet" in capsys.readouterr().err

"""Training an autoencoder, and checkpoints with random weights to begin with. Gradients are compared with torch in
tests/oracle/test_autoencoder_trainer.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_cases import LIGHTING, data_entry, make_scenes, settings, write_config

import marigold_c as mc
from marigold_c.commands import cli
from marigold_c.preparation.model import make_model
from marigold_c.training.config import load_config
from marigold_c.training.run import RunOptions, train

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights; an autoencoder of four levels, as all are that Marigold uses, but narrow."""
    root = tmp_path_factory.mktemp("base")
    like = root / "like"
    like.mkdir()
    for part in mc.default_checkpoint("normals").iterdir():
        if part.name != "vae":
            (like / part.name).symlink_to(part)
    config = json.loads((mc.default_checkpoint("normals") / "vae" / "config.json").read_text())
    config |= {"block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4}
    (like / "vae").mkdir()
    (like / "vae" / "config.json").write_text(json.dumps(config))
    make_model(root / "start", like, seed=3)
    make_scenes(root / "train", 6)
    make_scenes(root / "val", 2, seed=1)
    return root


def configure(base: Path, folder: Path, **changes: Any) -> Path:
    entries = [data_entry(task, blur=False) for task in ("depth", "normals", "iid")]
    values = settings(
        "normals",
        **{
            "trainer__objective": "autoencoder",
            "model__pretrained_path": str(base / "start"),
            "dataset__train": {"name": "mixed", "prob_ls": [1, 1, 1], "dataset_list": entries},
            "dataset__val": [data_entry("iid", "val")],
            "dataset__vis": [data_entry("depth", "val")],
            "trainer__validation_period": 4,
            "trainer__visualization_period": 4,
            "validation": {"main_val_metric": "psnr"},
            **changes,
        },
    )
    return write_config(folder / "run.yaml", values)


def run(base: Path, folder: Path, steps: int | None = None, resume: bool = False, **changes: Any) -> Path:
    """Trains, at most `steps` iterations; the folder of the run."""
    config = load_config(configure(base, folder, **changes))
    count = iter(range(1, 100))
    stop = (lambda: next(count) >= steps) if steps else (lambda: False)
    train(
        config,
        RunOptions(
            folder=folder / "run",
            base_data_dir=base,
            resume=resume,
            threads=1,
            say=lambda text: None,
            should_stop=stop,
        ),
    )
    return folder / "run"


def weights(folder: Path) -> bytes:
    return (folder / "checkpoint" / "latest" / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(base, tmp_path_factory.mktemp("whole"), lr=0.003)


def test_it_learns_and_leaves_a_checkpoint(base: Path, whole: Path) -> None:
    losses = [float(line.split(",")[3]) for line in (whole / "training.csv").read_text().splitlines()[1:]]
    assert len(losses) == 6
    assert losses[-1] < 0.95 * losses[0]
    scores = (whole / "validation.csv").read_text()
    for name in ("psnr", "psnr_image", "psnr_albedo", "psnr_shading", "psnr_residual"):
        assert f"4,val,{name}," in scores
    assert list((whole / "visualization").rglob("*.png"))
    pipe = mc.MarigoldNormalsPipeline.from_pretrained(whole / "checkpoint" / "best", num_threads=1)
    assert pipe.vae.config["scaling_factor"] != 0.18215
    config = json.loads((whole / "checkpoint" / "latest" / "vae" / "config.json").read_text())
    assert config["scaling_factor"] > 0
    # The UNet is the base's.
    latest = whole / "checkpoint" / "latest"
    assert (latest / "unet").resolve() == (base / "start" / "unet").resolve()


def test_latents_have_the_variance_one(base: Path, whole: Path) -> None:
    pipe = mc.load(whole / "checkpoint" / "latest", num_threads=1)
    from marigold_c.training.examples import TrainingSet
    from marigold_c.training.reconstructions import pictures_of

    config = load_config(whole.parent / "run.yaml")
    latents = []
    for entry in config.train_sets:
        data = TrainingSet(entry, config, base)
        latents += [pipe.vae.encode(pictures_of([data.example(i, False, None)])).ravel() for i in range(len(data))]
    deviation = np.concatenate(latents).std()
    assert deviation * pipe.vae.config["scaling_factor"] == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("steps", [1, 3])
def test_going_on_repeats_the_uninterrupted_run(base: Path, whole: Path, steps: int, tmp_path: Path) -> None:
    run(base, tmp_path, steps=steps, lr=0.003)
    resumed = run(base, tmp_path, resume=True, lr=0.003)
    assert weights(resumed) == weights(whole)


def test_what_does_not_fit_is_refused(base: Path, tmp_path: Path) -> None:
    trainer = mc.Trainer.from_pretrained(base / "start", objective="autoencoder", num_threads=1)
    latent = np.zeros((1, 4, 6, 8), np.float32)
    with pytest.raises(ValueError, match="learns from images"):
        trainer.forward_backward(latent, latent, latent, [1])
    with pytest.raises(ValueError, match="multiples of 8"):
        trainer.reconstruct(np.zeros((1, 3, 44, 64), np.float32))
    with pytest.raises(ValueError, match="`noise` has shape"):
        trainer.reconstruct(np.zeros((1, 3, 48, 64), np.float32), np.zeros((1, 4, 6, 7), np.float32))
    usual = mc.Trainer.from_pretrained(base / "start", num_threads=1)
    with pytest.raises(ValueError, match='objective "autoencoder"'):
        usual.reconstruct(np.zeros((1, 3, 48, 64), np.float32))
    with pytest.raises(ValueError, match="latent_cache"):
        load_config(configure(base, tmp_path, dataloader__latent_cache="cache"))
    with pytest.raises(ValueError, match="main_val_metric"):
        load_config(configure(base, tmp_path, validation={"main_val_metric": "mean_angular_error"}))
    with pytest.raises(ValueError, match="MarigoldAutoencoderTrainer"):
        load_config(configure(base, tmp_path, trainer__name="MarigoldTrainer"))


def test_an_autoencoder_of_three_levels(base: Path, tmp_path: Path) -> None:
    """It shrinks by 4: it is trained, and so is a UNet on its latents, whose mask has a cell for each 4 x 4 pixels."""
    like = tmp_path / "like"
    like.mkdir()
    for part in (base / "start").iterdir():
        if part.name != "vae":
            (like / part.name).symlink_to(part)
    config = json.loads((base / "start" / "vae" / "config.json").read_text())
    for key in ("block_out_channels", "down_block_types", "up_block_types"):
        config[key] = config[key][:3]
    (like / "vae").mkdir()
    (like / "vae" / "config.json").write_text(json.dumps(config))
    start = tmp_path / "start"
    make_model(start, like, seed=3)
    found = run(base, tmp_path / "vae", steps=2, model__pretrained_path=str(start), trainer__validation_period=2)
    assert weights(found) != (start / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    values = settings("depth", model__pretrained_path=str(start), gt_mask_type="valid_mask_raw")
    path = write_config(tmp_path / "unet.yaml", values)
    options = RunOptions(folder=tmp_path / "unet", base_data_dir=base, threads=1, say=lambda text: None)
    train(load_config(path), options)
    assert (tmp_path / "unet" / "checkpoint" / "latest" / "unet").is_dir()


def test_threads_do_not_change_a_bit(base: Path) -> None:
    rng = np.random.default_rng(0)
    images = np.tanh(rng.standard_normal((3, 3, 48, 64))).astype(np.float32)
    results = []
    for threads in (1, 3):
        trainer = mc.Trainer.from_pretrained(base / "start", objective="autoencoder", num_threads=threads)
        results.append((trainer.reconstruct(images), trainer.gradients()))
    assert results[0][0] == results[1][0]
    for name, gradient in results[0][1].items():
        np.testing.assert_array_equal(gradient, results[1][1][name], err_msg=name)


# ---- checkpoints with random weights ----


def arrays_of(folder: Path) -> dict[str, Any]:
    return mc.Trainer.from_pretrained(folder, num_threads=1).parameters()


def test_new_weights_follow_from_the_seed(base: Path, tmp_path: Path) -> None:
    like = base / "start"
    assert make_model(tmp_path / "a", like, seed=3)["unet"][1] == 0
    make_model(tmp_path / "b", like, seed=4)
    first, same, other = arrays_of(like), arrays_of(tmp_path / "a"), arrays_of(tmp_path / "b")
    for name in first:
        np.testing.assert_array_equal(first[name], same[name], err_msg=name)
    assert not np.array_equal(first["conv_in.weight"], other["conv_in.weight"])
    weight, bias = first["conv_in.weight"], first["conv_in.bias"]
    bound = 1 / np.sqrt(weight[0].size)
    assert 0.95 * bound < np.abs(weight).max() <= bound
    assert np.abs(bias).max() <= bound
    np.testing.assert_array_equal(first["conv_norm_out.weight"], 1)
    np.testing.assert_array_equal(first["conv_norm_out.bias"], 0)


def test_weights_that_fit_are_taken(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three targets instead of one: the first and the last convolution are new, all else is the source's."""
    source = whole / "checkpoint" / "latest"
    like = tmp_path / "like"
    like.mkdir()
    for part in mc.default_checkpoint("iid").iterdir():
        if part.name != "vae":
            (like / part.name).symlink_to(part)
    (like / "vae").symlink_to(source / "vae")
    words = ["prepare", "model", "-o", str(tmp_path / "new"), "--like", str(like), "--weights-from", str(source)]
    assert cli.main(words) == 0
    assert "unet: 3 new weights" in capsys.readouterr().out
    new, old = arrays_of(tmp_path / "new"), arrays_of(source)
    assert new["conv_in.weight"].shape[1] == 4 * (1 + len(LIGHTING["target_names"]))
    for name in old.keys() - {"conv_in.weight", "conv_out.weight", "conv_out.bias"}:
        np.testing.assert_array_equal(new[name], old[name], err_msg=name)
    vae = json.loads((tmp_path / "new" / "vae" / "config.json").read_text())
    assert vae["scaling_factor"] == json.loads((source / "vae" / "config.json").read_text())["scaling_factor"]
    assert cli.main(words) == 1
    assert "is there already" in capsys.readouterr().err

"""True training of the small checkpoint on rendered scenes: it learns, goes on bit by bit, and leaves pipelines."""

from __future__ import annotations

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_checkpoints import make_thin
from PIL import Image
from training_cases import data_entry, make_text_to_image, settings, write_config

import marigold_c as mc
from marigold_c.commands import cli
from marigold_c.loading.folders import default_checkpoint
from marigold_c.training.checkpoints import read_state

pytestmark = pytest.mark.long

SCENES = Path(__file__).parent / "data" / "scenes.npz"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered scenes of 32 x 40 in the generic layout: all but one to train on, one held out."""
    folder = tmp_path_factory.mktemp("scenes")
    with np.load(SCENES) as scenes:
        names = ("rgb", "depth", "normal", "albedo", "shading", "residual")
        arrays = {name: scenes[name][:, ::3, :120:3] for name in names}
    count = len(arrays["rgb"])
    for index in range(count):
        part = folder / ("val" if index == count - 1 else "train")
        picture = np.clip(arrays["rgb"][index], 0, 1) ** (1 / 2.2)
        (part / "rgb").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(part / "rgb" / f"{index:03d}.png")
        for name in arrays:
            if name != "rgb":
                target = part / (name if name != "normal" else "normals")
                target.mkdir(exist_ok=True)
                np.save(target / f"{index:03d}.npy", arrays[name][index])
    return folder


def command(root: Path, config: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, "-m", "marigold_c", "train", str(config), "-o", str(root / "output")),
        *("--base-data-dir", str(root), "--threads", "1", *flags),
    ]


def train(root: Path, config: Path, *flags: str) -> None:
    """The command in this process, which has imported everything already."""
    assert cli.main(command(root, config, *flags)[3:]) == 0


def losses(run: Path) -> list[float]:
    with (run / "training.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def make(root: Path, name: str, task: str = "normals", **changes: Any) -> Path:
    values = settings(task, **{"dataset__train": data_entry(task), **changes})
    return write_config(root / f"{name}.yaml", values)


def test_a_model_of_depth_learns_normals(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The loss falls, and the held-out normals get better, in the CSV files and in the pipeline that is left."""
    config = make(
        root,
        "learns",
        model__pretrained_path=str(default_checkpoint("depth")),
        dataset__val=[data_entry("normals", "val")],
        dataset__vis=[data_entry("normals", "val")],
        validation={"main_val_metric": "mean_angular_error", "denoising_steps": 1, "init_seed": 1},
        trainer__validation_period=10,
        trainer__visualization_period=30,
        lr=0.0005,
        lr_scheduler={"name": "IterExponential", "kwargs": {"total_iter": 30, "final_ratio": 0.1, "warmup_steps": 4}},
        max_iter=30,
    )
    train(root, config)
    run = root / "output" / "learns"
    curve = losses(run)
    assert len(curve) == 30 and np.mean(curve[-10:]) < 0.6 * np.mean(curve[:4])
    with (run / "validation.csv").open(newline="") as file:
        errors = [float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "mean_angular_error"]
    assert len(errors) == 3 and min(errors) < 60
    assert "marigold: done: " in capsys.readouterr().err
    pipe = mc.load(run / "checkpoint" / "best")
    assert type(pipe) is mc.MarigoldNormalsPipeline
    picture = np.asarray(Image.open(next((root / "val" / "rgb").iterdir())))
    assert np.isfinite(pipe(picture, generator=1).prediction).all()
    assert len(list((run / "visualization" / "iter_000030" / "val").iterdir())) == 1


ADAMW = {"optimizer": {"name": "AdamW", "max_grad_norm": 1.0}}


@pytest.mark.parametrize(
    ("task", "latent", "iterations"), [("depth", "zeros", 32), ("normals", "noise", 12), ("iid", "zeros", 20)]
)
def test_end_to_end_fine_tuning(root: Path, task: str, latent: str, iterations: int) -> None:
    """The loss in pixels falls, and what is left predicts in one step."""
    start = {"depth": "normals", "normals": "depth"}.get(task, "intrinsics")
    metric = {"depth": "abs_relative_difference", "normals": "mean_angular_error"}.get(task, "psnr")
    config = make(
        root,
        f"e2e_{task}",
        task,
        **ADAMW,
        trainer__objective="e2e",
        trainer__start_latent=latent,
        trainer__validation_period=iterations // 4,
        dataset__val=[data_entry(task, "val")],
        validation={"denoising_steps": 1, "main_val_metric": metric},
        model__pretrained_path=str(default_checkpoint(start)),
        gt_mask_type="valid_mask_raw" if task == "depth" else None,
        lr=0.0004,
        lr_scheduler=None,
        max_iter=iterations,
    )
    train(root, config)
    run = root / "output" / f"e2e_{task}"
    curve = losses(run)
    assert len(curve) == iterations and np.mean(curve[-6:]) < 0.8 * np.mean(curve[:4])
    with (run / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["value"]) for row in rows if row["metric"] in (metric, f"{metric}_albedo")]
    assert len(scores) == 4 and np.isfinite(scores).all()
    pipe = mc.load(run / "checkpoint" / "best")
    picture = np.asarray(Image.open(next((root / "val" / "rgb").iterdir())))
    assert np.isfinite(pipe(picture, num_inference_steps=1, generator=1).prediction).all()


def test_distillation(root: Path) -> None:
    """prs-eth's configuration of the distillation: the loss falls, and what is left is a consistency model."""
    config = make(
        root,
        "lcm",
        "depth",
        **ADAMW,
        trainer__name="MarigoldDepthLCMTrainer",
        trainer__save_target=False,
        gt_mask_type="valid_mask_raw",
        lr=0.0002,
        lr_scheduler=None,
        max_iter=30,
    )
    train(root, config)
    run = root / "output" / "lcm"
    curve = losses(run)
    assert len(curve) == 30 and np.mean(curve[-8:]) < 0.9 * np.mean(curve[:8])
    pipe = mc.load(run / "checkpoint" / "latest")
    assert type(pipe.scheduler) is mc.LCMScheduler
    picture = np.asarray(Image.open(next((root / "val" / "rgb").iterdir())))
    for steps in (1, 4):
        assert np.isfinite(pipe(picture, num_inference_steps=steps, generator=1).prediction).all()


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint of random weights for a task: for what does not depend on the size of networks."""
    folder = tmp_path_factory.mktemp("thin")
    return cache(lambda task: make_thin(task, folder / task))


# Iterations of a training that is killed on the way, which takes more than one trial where it ends between two looks.
LAST, TRIES = 12, 5
RUNS = {
    "depth": ("depth", {"gt_mask_type": "valid_mask_raw"}),
    "iid": ("iid", {}),
    "e2e": ("normals", {**ADAMW, "trainer__objective": "e2e"}),
    "lcm": ("depth", {**ADAMW, "trainer__objective": "lcm", "gt_mask_type": "valid_mask_raw"}),
}


def kill(root: Path, config: Path, latest: Path, iteration: int, delay: float) -> bool:
    """Goes on with a training and kills it `delay` seconds after it saved `iteration`; false where it ended before."""
    process = subprocess.Popen(command(root, config, "--resume"), stderr=subprocess.DEVNULL)
    while process.poll() is None and iteration_of(latest) < iteration:
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def iteration_of(checkpoint: Path) -> int:
    """0 where there is none, or none for a moment."""
    try:
        return int(json.loads((checkpoint / "training_state.json").read_text())["iteration"])
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("kind", RUNS)
def test_killed_at_random_moments(root: Path, thin: Callable[[str], Path], kind: str) -> None:
    """The weights at the end are those of the uninterrupted run, to the bit."""
    task, changes = RUNS[kind]
    changes = {**changes, "model__pretrained_path": str(thin(task))}
    whole = make(root, f"{kind}_whole", task, max_iter=LAST, **changes)
    killed = make(root, f"{kind}_killed", task, max_iter=LAST, **changes)
    train(root, whole)
    generator = random.Random(2)
    latest = root / "output" / f"{kind}_killed" / "checkpoint" / "latest"
    for _ in range(TRIES):
        shutil.rmtree(latest.parent.parent, ignore_errors=True)
        moments = [(iteration, generator.uniform(0.0, 0.03)) for iteration in (1, 4)]
        if all(kill(root, killed, latest, *moment) for moment in moments) and iteration_of(latest) < LAST:
            break
    assert 1 <= iteration_of(latest) < LAST
    train(root, killed, "--resume")
    runs = [root / "output" / f"{kind}_{name}" / "checkpoint" / "latest" for name in ("whole", "killed")]
    for name in ("unet/diffusion_pytorch_model.safetensors", "trainer_state.safetensors"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    assert read_state(runs[0]) == read_state(runs[1])
    assert losses(runs[0].parent.parent) == losses(runs[1].parent.parent)


@pytest.mark.parametrize(("task", "maps"), [("depth", 1), ("iid", 3)])
def test_from_a_text_to_image_model(root: Path, tmp_path: Path, task: str, maps: int) -> None:
    """The first and the last convolution are widened; the result is a pipeline of the task."""
    base = make_text_to_image(tmp_path / "base")
    config = make(root, f"{task}_new", task, model__pretrained_path=str(base), max_iter=2)
    train(root, config)
    folder = root / "output" / f"{task}_new" / "checkpoint"
    pipe = mc.load(folder / "iter_000002")
    assert pipe.unet.config["in_channels"] == 4 * (maps + 1) and pipe.unet.config["out_channels"] == 4 * maps
    assert pipe.scheduler.config["timestep_spacing"] == "trailing"
    picture = np.asarray(Image.open(next((root / "val" / "rgb").iterdir())))
    assert pipe(picture, generator=1).prediction.shape[0] == maps


def test_stopping_by_a_signal(root: Path, thin: Callable[[str], Path]) -> None:
    config = make(root, "signal", max_iter=1000, model__pretrained_path=str(thin("normals")))
    process = subprocess.Popen(command(root, config), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "iteration 1/1000" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGTERM)
    said = process.stderr.read()
    assert process.wait() == 0
    assert "stopping after this iteration" in said and "--resume goes on" in said
    state = read_state(root / "output" / "signal" / "checkpoint" / "latest")
    assert 1 <= state["iteration"] < 1000

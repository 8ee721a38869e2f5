"""Runs from beginning to end with a stand-in for the engine: accumulation, checkpoints, going on, and how runs end."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_cases import (
    StandInEngine,
    data_entry,
    final_weights,
    make_config,
    make_scenes,
    open_stand_in,
    settings,
    write_config,
)

import marigold_c as mc
from marigold_c.configurations.yaml_tree import ConfigError
from marigold_c.errors import SampleError
from marigold_c.training.checkpoints import read_state
from marigold_c.training.learning_rate import exponential_ratio
from marigold_c.training.run import RunOptions, TrainingStopped, train
from marigold_c.training.settings import TrainingConfig


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    make_scenes(tmp_path / "train", 7)
    make_scenes(tmp_path / "val", 2, seed=99)
    return tmp_path


class Recorder:
    """Opens stand-ins and keeps the last one; `spoil` may change it."""

    def __init__(self, spoil: Any = None) -> None:
        self.spoil = spoil

    def __call__(
        self,
        config: TrainingConfig,
        folder: Path,
        base: Path,
        device: str,
        threads: int | None,
        keep_gradients: bool,
    ) -> StandInEngine:
        self.engine = open_stand_in(config, folder, base, device, threads, keep_gradients)
        self.keeps_gradients = keep_gradients
        if self.spoil is not None:
            self.spoil(self.engine)
        return self.engine


def run(root: Path, name: str = "run", open_with: Any = open_stand_in, task: str = "depth", **changes: Any) -> str:
    """One part of a run; options of RunOptions are those that are not of the configuration."""
    options = {key: changes.pop(key) for key in ("resume", "exit_after", "should_stop", "say") if key in changes}
    options.setdefault("say", lambda text: None)
    config = make_config(root, task, **changes)
    return train(config, RunOptions(folder=root / name, base_data_dir=root, threads=1, **options), open_with)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def without_times(path: Path) -> list[tuple[str, ...]]:
    return [tuple(value for key, value in row.items() if key != "seconds") for row in rows(path)]


def test_iterations_rates_and_accumulation(scenes: Path) -> None:
    recorder = Recorder()
    assert run(scenes, open_with=recorder) == "done"
    rates = [0.001 * exponential_ratio(n, 8, 0.1, 2) for n in range(6)]
    np.testing.assert_allclose(recorder.engine.rates, rates, rtol=1e-12)
    table = rows(scenes / "run" / "training.csv")
    assert [int(row["iteration"]) for row in table] == [1, 2, 3, 4, 5, 6]
    assert [int(row["batches"]) for row in table] == [2, 4, 6, 8, 10, 12]
    assert [int(row["epoch"]) for row in table] == [1, 2, 2, 3, 4, 4]  # an epoch has 3 batches of 2 out of 7 samples
    np.testing.assert_allclose([float(row["learning_rate"]) for row in table], rates, rtol=1e-6)
    state = read_state(scenes / "run" / "checkpoint" / "latest")
    assert (state["iteration"], state["batches"], state["seed"], state["loader_seed"]) == (6, 12, 7, 11)


@pytest.mark.parametrize("masked", [False, True])
def test_the_mask_of_the_loss(scenes: Path, masked: bool) -> None:
    for file in (scenes / "train" / "depth").iterdir():
        depth = np.load(file)
        depth[:9, :5] = 0  # touches 2 x 1 cells of the latent, or, mirrored, 2 x 1 others
        np.save(file, depth)
    masks: list[Any] = []

    def spy(engine: StandInEngine) -> None:
        learn = engine.forward_backward

        def remember(**inputs: Any) -> float:
            masks.append(inputs["mask"])
            return learn(**inputs)

        engine.forward_backward = remember  # type: ignore[method-assign]

    run(scenes, open_with=Recorder(spy), gt_mask_type="valid_mask_raw" if masked else None)
    if not masked:
        assert masks == [None] * 12
        return
    for mask in masks:
        assert mask.shape == (2, 1, 6, 8) and mask.dtype == bool
        for one in mask[:, 0]:
            assert np.argwhere(~one).tolist() in ([[0, 0], [1, 0]], [[0, 7], [1, 7]])


def test_checkpoints_are_pipelines(scenes: Path) -> None:
    run(scenes, trainer__backup_period=3, pipeline__kwargs__default_denoising_steps=2)
    folder = scenes / "run" / "checkpoint"
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "iter_000003", "iter_000006", "latest"]
    for name in ("latest", "iter_000003"):
        pipe = mc.load(folder / name)
        assert type(pipe) is mc.MarigoldDepthPipeline and pipe.default_denoising_steps == 2
        assert pipe.scheduler.config["timestep_spacing"] == "trailing"
        assert pipe.scheduler.config["rescale_betas_zero_snr"] is True
    assert not (folder / "iter_000003" / "trainer_state.safetensors").exists()
    assert (scenes / "run" / "config.yaml").read_text().startswith("pipeline:")


@pytest.mark.parametrize("task", ["depth", "normals", "iid"])
def test_a_run_in_parts_is_the_run_in_one(scenes: Path, task: str) -> None:
    options: dict[str, Any] = {"task": task, "dataloader__latent_cache": None, "dataloader__num_workers": 1}
    if task == "normals":
        options |= {"augmentation": {"lr_flip_p": 0.5, "color_jitter_p": 0.5, "jitter_hue_factor": 0.2}}
    if task == "depth":
        options |= {"gt_mask_type": "valid_mask_raw"}
    assert run(scenes, "whole", **options) == "done"
    parts = 0
    while run(scenes, "parts", resume=True, should_stop=lambda: True, **options) == "paused":
        parts += 1
    assert parts == 5
    np.testing.assert_array_equal(final_weights(scenes / "parts"), final_weights(scenes / "whole"))
    assert without_times(scenes / "parts" / "training.csv") == without_times(scenes / "whole" / "training.csv")
    start = StandInEngine(scenes, len(final_weights(scenes / "whole"))).weights
    assert np.abs(final_weights(scenes / "whole") - start).min() > 1e-4


def test_the_cache_changes_nothing(scenes: Path) -> None:
    run(scenes, "plain")
    for name, place in (("filled", "latents"), ("used", str(scenes / "latents"))):  # relative: in the data's folder
        run(scenes, name, dataloader__latent_cache=place)
        np.testing.assert_array_equal(final_weights(scenes / name), final_weights(scenes / "plain"))
    assert len(list((scenes / "latents").rglob("*.npz"))) > 5


def test_seeds_matter_and_no_seed_is_another_each_time(scenes: Path) -> None:
    run(scenes, "one")
    run(scenes, "other", trainer__init_seed=8)
    run(scenes, "shuffled", dataloader__seed=12)
    run(scenes, "free", trainer__init_seed=None, dataloader__seed=None)
    weights = [tuple(final_weights(scenes / name)) for name in ("one", "other", "shuffled", "free")]
    assert len(set(weights)) == 4


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_training_run import run
run(Path({root!r}), "killed", resume=True, max_iter=20, trainer__save_period=3, trainer__validation_period=6,
    dataset__val=[{entry!r}], validation={{"main_val_metric": "abs_relative_difference", "init_seed": 1}}, say=print)
"""


@pytest.mark.long
def test_killed_at_random_moments(scenes: Path) -> None:
    """Whatever a kill interrupts (an iteration, a checkpoint, a validation), the end is that of the run in one."""
    validation = {"main_val_metric": "abs_relative_difference", "init_seed": 1}
    entry = data_entry("depth", "val")
    shared: dict[str, Any] = {"max_iter": 20, "trainer__save_period": 3, "trainer__validation_period": 6}
    run(scenes, "whole", dataset__val=[entry], validation=validation, **shared)
    script = KILLED.format(tests=str(Path(__file__).parent), root=str(scenes), entry=entry)
    generator = random.Random(3)
    killed = 0
    for part in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        time.sleep(generator.uniform(0.0, 0.8))
        if part < 3:
            process.send_signal(signal.SIGKILL)
        process.stdout.read()
        process.stdout.close()
        killed += process.wait() == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL)
    assert killed >= 2 and process.returncode == 0
    np.testing.assert_array_equal(final_weights(scenes / "killed"), final_weights(scenes / "whole"))
    for table in ("training.csv", "validation.csv"):
        assert set(without_times(scenes / "killed" / table)) == set(without_times(scenes / "whole" / table))
    states = [read_state(scenes / name / "checkpoint" / "latest") for name in ("killed", "whole")]
    assert states[0] == states[1]


def test_exit_after_some_minutes(scenes: Path) -> None:
    said: list[str] = []
    assert run(scenes, exit_after=1e-6, say=said.append) == "paused"
    assert read_state(scenes / "run" / "checkpoint" / "latest")["iteration"] == 1
    assert "paused after" in said[-1] and "--resume goes on" in said[-1]
    assert run(scenes, resume=True, exit_after=60.0, say=said.append) == "done"
    assert run(scenes, resume=True) == "done"  # and nothing more to do


def test_a_loss_that_is_no_number(scenes: Path) -> None:
    def spoil(engine: StandInEngine) -> None:
        learn = engine.forward_backward
        engine.forward_backward = lambda **inputs: learn(**inputs) if engine.steps < 3 else float("nan")  # type: ignore

    with pytest.raises(TrainingStopped) as caught:
        run(scenes, open_with=Recorder(spoil))
    message = str(caught.value)
    assert "iteration 4: the loss of batch 6 is nan; its files: " in message
    assert message.count("rgb/000") == 2 and message.count("depth/000") == 2
    assert f"the last good checkpoint is {scenes / 'run' / 'checkpoint' / 'latest'}, of iteration 2" in message
    assert run(scenes, resume=True) == "done"


def test_gradients_that_are_no_numbers(scenes: Path) -> None:
    def refuse(rate: float) -> float:
        raise mc.NotFiniteError("the gradients are not finite")

    with pytest.raises(TrainingStopped, match=r"iteration 1: the gradients are not finite; .* of iteration 0"):
        run(scenes, open_with=Recorder(lambda engine: setattr(engine, "optimizer_step", refuse)))


ONE_BATCH = {"dataloader__effective_batch_size": 2}


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        (ONE_BATCH, False),
        ({}, True),
        ({**ONE_BATCH, "optimizer": {"name": "Adam", "max_grad_norm": 1.0}}, True),
    ],
    ids=["one batch", "accumulation", "clipping"],
)
def test_gradients_are_kept_where_they_are_needed(scenes: Path, changes: dict[str, Any], keeps: bool) -> None:
    recorder = Recorder()
    run(scenes, open_with=recorder, **changes)
    assert recorder.keeps_gradients is keeps


def test_steps_of_one_batch(scenes: Path) -> None:
    """The losses and rates of the table, and weights, are those of gradients that were kept; so is going on."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("these are not for engines that keep no gradients")

    def spoil(engine: StandInEngine) -> None:
        learn, step = engine.forward_backward, engine.optimizer_step
        engine.train_step = lambda *, learning_rate, **inputs: (learn(**inputs), step(learning_rate))  # type: ignore
        engine.forward_backward = engine.optimizer_step = refuse  # type: ignore

    clipped = {**ONE_BATCH, "optimizer": {"name": "Adam", "max_grad_norm": 1e9}}
    for part in ({"exit_after": 1e-6}, {"resume": True}):
        run(scenes, "one", Recorder(spoil), **ONE_BATCH, **part)
    run(scenes, "two", **clipped)
    assert without_times(scenes / "one" / "training.csv") == without_times(scenes / "two" / "training.csv")
    np.testing.assert_array_equal(final_weights(scenes / "one"), final_weights(scenes / "two"))


def test_steps_of_one_batch_that_are_no_numbers(scenes: Path) -> None:
    def spoil(engine: StandInEngine) -> None:
        learn = engine.train_step

        def fail(**inputs: Any) -> tuple[float, float]:
            if engine.steps == 3:
                raise mc.NotFiniteError("the loss is no number: no step was taken")
            return learn(**inputs)

        engine.train_step = fail  # type: ignore[method-assign]

    with pytest.raises(TrainingStopped) as caught:
        run(scenes, open_with=Recorder(spoil), **ONE_BATCH)
    message = str(caught.value)
    assert "iteration 4: batch 3: the loss is no number: no step was taken; its files: " in message
    assert message.count("rgb/000") == 2 and message.count("depth/000") == 2 and "of iteration 2" in message
    assert run(scenes, resume=True, **ONE_BATCH) == "done"


def test_what_came_after_the_checkpoint_is_done_again(scenes: Path) -> None:
    def spoil(engine: StandInEngine) -> None:
        learn = engine.forward_backward
        engine.forward_backward = lambda **inputs: learn(**inputs) if engine.steps < 5 else float("nan")  # type: ignore

    with pytest.raises(TrainingStopped, match=r"iteration 6: .* of iteration 3"):
        run(scenes, open_with=Recorder(spoil), trainer__save_period=3)
    assert [row["iteration"] for row in rows(scenes / "run" / "training.csv")] == ["1", "2", "3", "4", "5"]
    run(scenes, resume=True)
    run(scenes, "whole")
    assert without_times(scenes / "run" / "training.csv") == without_times(scenes / "whole" / "training.csv")


def test_a_validation_that_was_interrupted_is_done_first(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = held_out("depth", "abs_relative_difference")
    with monkeypatch.context() as patch:
        patch.setattr("marigold_c.training.validation.HeldOut.scores", lambda self, pipe: iter(interrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(scenes, **options)
    assert read_state(scenes / "run" / "checkpoint" / "latest")["in_validation"] is True
    said: list[str] = []
    run(scenes, resume=True, say=said.append, **options)
    assert any("the last validation was not finished" in text for text in said)
    found = [row["iteration"] for row in rows(scenes / "run" / "validation.csv") if row["metric"] == "delta1_acc"]
    assert found == ["2", "4", "6"]


def interrupt() -> Any:
    raise KeyboardInterrupt


def test_a_full_disk(scenes: Path) -> None:
    def spoil(engine: StandInEngine) -> None:
        save = engine.save_state

        def fill(path: Any) -> None:
            save(path)
            if engine.steps == 4:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        engine.save_state = fill  # type: ignore[method-assign]

    with pytest.raises(
        TrainingStopped,
        match=r"iteration 4: the checkpoint cannot be saved: .*No space left on device; the last good .*iteration 2",
    ):
        run(scenes, open_with=Recorder(spoil))
    folder = scenes / "run" / "checkpoint"
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "latest"]
    assert run(scenes, resume=True) == "done"
    run(scenes, "whole")
    np.testing.assert_array_equal(final_weights(scenes / "run"), final_weights(scenes / "whole"))


def test_bad_samples_stop_or_are_counted(scenes: Path) -> None:
    (scenes / "train" / "depth" / "0002.npy").unlink()
    with pytest.raises(SampleError, match=r"sample rgb/0002.png: depth/0002.npy: there is no such file"):
        run(scenes, trainer__save_period=50)
    done = len(rows(scenes / "run" / "training.csv"))
    assert read_state(scenes / "run" / "checkpoint" / "latest")["iteration"] == done > 0  # nothing is lost
    said: list[str] = []
    assert run(scenes, "skipping", dataloader__on_bad_sample="skip", say=said.append) == "done"
    assert sum("skipped (1 so far): train: sample rgb/0002.png" in text for text in said) == 1


def test_a_folder_that_holds_a_run(scenes: Path) -> None:
    run(scenes)
    with pytest.raises(FileExistsError, match="holds a run already: give --resume"):
        run(scenes)
    with pytest.raises(ConfigError, match=r"lr is 0.5, but the run in .* began with 0.001"):
        run(scenes, resume=True, lr=0.5)
    with pytest.raises(ConfigError, match=r"multi_res_noise.annealed is None, but .* began with True"):
        run(scenes, resume=True, multi_res_noise=None)
    assert run(scenes, resume=True, trainer__save_period=5, dataloader__num_workers=0) == "done"


def test_wrong_latent_scale(scenes: Path) -> None:
    scale = json.loads((mc.default_checkpoint() / "vae" / "config.json").read_text())["scaling_factor"]
    with pytest.raises(ConfigError, match=rf"latent_scale_factor is 0.18215, but .*vae has {scale:g}"):
        run(scenes, model__latent_scale_factor=0.18215)


def held_out(task: str, metric: str, goal: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "trainer__validation_period": 2,
        "trainer__visualization_period": 3,
        "dataset__val": [data_entry(task, "val")],
        "dataset__vis": [data_entry(task, "val")],
        "validation": {"main_val_metric": metric, "main_val_metric_goal": goal, "init_seed": 5, **more},
    }


@pytest.mark.parametrize(
    ("task", "metric", "name"),
    [
        ("depth", "abs_relative_difference", "abs_relative_difference"),
        ("normals", "mean_angular_error", "mean_angular_error"),
        ("iid", "psnr", "psnr_albedo"),
    ],
)
def test_validation_and_pictures(scenes: Path, task: str, metric: str, name: str) -> None:
    assert run(scenes, task=task, **held_out(task, metric, use_mask=False)) == "done"
    table = rows(scenes / "run" / "validation.csv")
    found = [row for row in table if row["metric"] == name]
    assert [row["iteration"] for row in found] == ["2", "4", "6"] and {row["data_set"] for row in found} == {"val"}
    assert (scenes / "run" / "evaluation" / "eval-iter000004.txt").read_text().startswith("val: ")
    shown = scenes / "run" / "visualization" / "iter_000003" / "val"
    assert sorted(path.name for path in shown.iterdir()) == ["rgb_0000.png", "rgb_0001.png"]
    mc.load(scenes / "run" / "checkpoint" / "best")


@pytest.mark.parametrize(("period", "expected"), [(2, ["2", "4", "5"]), (9, ["5"]), (0, [])])
def test_the_last_weights_are_validated(scenes: Path, period: int, expected: list[str]) -> None:
    options = held_out("depth", "abs_relative_difference") | {"trainer__validation_period": period}
    run(scenes, max_iter=5, **options)
    file = scenes / "run" / "validation.csv"
    table = rows(file) if file.exists() else []
    assert [row["iteration"] for row in table if row["metric"] == "delta1_acc"] == expected


def test_a_held_out_file_that_is_missing_is_found_at_the_start(scenes: Path) -> None:
    (scenes / "val" / "depth" / "0001.npy").unlink()
    with pytest.raises(SampleError, match=r"val: sample rgb/0001.png: depth/0001.npy: there is no such file"):
        run(scenes, **held_out("depth", "delta1_acc"))
    assert not (scenes / "run" / "checkpoint" / "latest").exists()
    assert run(scenes, **held_out("depth", "delta1_acc", max_samples=1)) == "done"


def test_the_best_psnr_is_the_largest(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """prs-eth's configurations say minimize."""
    values = iter([20.0, 30.0, 25.0])
    monkeypatch.setattr(
        "marigold_c.training.validation.HeldOut.scores", lambda self, pipe: [("val", {"psnr_albedo": next(values)})]
    )
    said: list[str] = []
    run(scenes, task="iid", say=said.append, **held_out("iid", "psnr", "minimize"))
    assert any("goal is minimize, but the best psnr is the largest" in text for text in said)
    state = read_state(scenes / "run" / "checkpoint" / "latest")
    assert (state["best_metric"], state["best_iteration"]) == (30.0, 4)


def test_the_command(scenes: Path) -> None:
    """Through the command line, to an error that names its place: there is no engine to stand in."""
    write_config(scenes / "mine.yaml", {**settings(), "lr": "x"})
    process = subprocess.run(
        [sys.executable, "-m", "marigold_c", "train", str(scenes / "mine.yaml"), "-o", str(scenes / "output")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert (
        process.stderr.startswith(f"marigold: error: {scenes / 'mine.yaml'}, line ") and "lr: is 'x'" in process.stderr
    )

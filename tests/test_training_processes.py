"""Runs of several processes, as threads around a stand-in for the engine: the same run as of one, and how all end."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from thread_processes import ThreadProcesses, run_together
from training_cases import StandInEngine, data_entry, final_weights, make_config, make_scenes, open_stand_in

from marigold_c.configurations.yaml_tree import ConfigError
from marigold_c.errors import NotFiniteError, ProcessFailed, SampleError
from marigold_c.messages import explain
from marigold_c.training.checkpoints import read_state
from marigold_c.training.mixed_sampler import MixedSampler, ShareOfSteps
from marigold_c.training.run import RunOptions, TrainingStopped, train
from marigold_c.training.settings import TrainingConfig


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    make_scenes(tmp_path / "train", 9)
    make_scenes(tmp_path / "val", 2, seed=99)
    return tmp_path


class Part:
    """What one process of a run does: its engine, what it said, how it ended."""

    def __init__(
        self,
        root: Path,
        name: str,
        config: TrainingConfig,
        processes: ThreadProcesses,
        spoil: Any,
        given: dict[str, Any],
    ) -> None:
        self.said: list[str] = []
        self.batches: list[NDArray[Any]] = []
        self.processes, self._spoil = processes, spoil
        if "should_stop" in given:
            stop = given["should_stop"]
            given = {**given, "should_stop": lambda: stop(self)}
        run_options = RunOptions(
            folder=root / name, base_data_dir=root, threads=1, say=self.said.append, processes=processes, **given
        )
        self.outcome: Any
        try:
            self.outcome = train(config, run_options, self._open)
        except (Exception, SystemExit) as error:
            self.outcome = error

    def _open(self, *what: Any) -> StandInEngine:
        self.engine = open_stand_in(*what)
        learn = self.engine.forward_backward

        def remember(*args: Any, **inputs: Any) -> float:
            self.batches.append(inputs["noise"] if inputs else args[2])
            return learn(*args, **inputs)

        self.engine.forward_backward = remember  # type: ignore[method-assign]
        if self._spoil is not None:
            self._spoil(self)
        return self.engine


def run(root: Path, name: str, size: int, spoil: Any = None, **options: Any) -> list[Part]:
    options.setdefault("dataloader__effective_batch_size", 8)  # 4 batches a step
    given = {key: options.pop(key) for key in ("resume", "should_stop", "exit_after") if key in options}
    config = make_config(root, **options)
    parts: list[Part] = run_together(size, lambda processes: Part(root, name, config, processes, spoil, given))
    return parts


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(root: Path, name: str, other: str, weights: float = 1e-6) -> None:
    np.testing.assert_allclose(final_weights(root / name), final_weights(root / other), rtol=weights)
    found, expected = table(root / name / "training.csv"), table(root / other / "training.csv")
    assert len(found) == len(expected) > 0
    for row, wanted in zip(found, expected, strict=True):
        assert {**row, "loss": ""} == {**wanted, "loss": ""}
        assert float(row["loss"]) == pytest.approx(float(wanted["loss"]), rel=1e-5)


VALIDATION: dict[str, Any] = {
    "dataset__val": [data_entry("depth", "val")],
    "dataset__vis": [data_entry("depth", "val")],
    "validation": {"main_val_metric": "abs_relative_difference", "init_seed": 1},
    "trainer__validation_period": 3,
    "trainer__visualization_period": 4,
    "trainer__backup_period": 5,
}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_run_of_several_is_the_run_of_one(scenes: Path, size: int) -> None:
    """4 batches an iteration, also where 3 processes share them unevenly; noise, order, losses, scores, files."""
    (alone,) = run(scenes, "alone", 1, **VALIDATION)
    parts = run(scenes, "together", size, **VALIDATION)
    assert [part.outcome for part in parts] == ["done"] * size
    assert_same_run(scenes, "together", "alone")
    assert [len(part.batches) for part in parts] == [6 * len(range(rank, 4, size)) for rank in range(size)]
    for number, noise in enumerate(alone.batches):
        step, position = divmod(number, 4)
        mine = parts[position % size].batches
        np.testing.assert_array_equal(
            mine[step * len(range(position % size, 4, size)) + position // size], noise, err_msg=str(number)
        )
    for part in parts[1:]:
        np.testing.assert_array_equal(part.engine.weights, parts[0].engine.weights)
        assert part.said == []
    assert any(f"{size} processes share the 4 batches" in text for text in parts[0].said)

    def files(name: str) -> list[str]:
        found = [str(path.relative_to(scenes / name)) for path in (scenes / name).rglob("*")]
        return sorted(one for one in found if not one.startswith("tensorboard"))

    assert files("together") == files("alone")
    scores = [table(scenes / name / "validation.csv") for name in ("together", "alone")]
    assert scores[0] == scores[1] and len(scores[0]) > 0


def test_going_on_with_another_number(scenes: Path) -> None:
    run(scenes, "whole", 1)
    stopping = [2, 4]
    for size, last in ((2, stopping[0]), (1, stopping[1]), (4, None)):
        parts = run(scenes, "parts", size, resume=True, should_stop=lambda part, at=last: part.engine.steps == at)
        assert [part.outcome for part in parts] == ["done" if last is None else "paused"] * size
    assert_same_run(scenes, "parts", "whole")


def test_a_stop_that_one_is_asked_for_stops_all(scenes: Path) -> None:
    parts = run(
        scenes, "run", 3, should_stop=lambda part: part.processes.rank == 2 and part.engine.steps == 3, max_iter=9
    )
    assert [part.outcome for part in parts] == ["paused"] * 3
    assert "at iteration 3; --resume goes on" in parts[0].said[-1]
    assert read_state(scenes / "run" / "checkpoint" / "latest")["iteration"] == 3


def test_time_is_up_for_all(scenes: Path) -> None:
    parts = run(scenes, "run", 2, exit_after=1e-6)
    assert [part.outcome for part in parts] == ["paused"] * 2


def test_a_bad_sample_of_one_ends_all(scenes: Path) -> None:
    """And the iterations that were done are saved."""
    (scenes / "train" / "depth" / "0002.npy").unlink()
    parts = run(scenes, "run", 2, trainer__save_period=50, dataloader__seed=3, max_iter=50)
    bad = [part for part in parts if isinstance(part.outcome, SampleError)]
    (other,) = [part for part in parts if isinstance(part.outcome, ProcessFailed)]
    assert len(bad) == 1 and other.outcome.rank == bad[0].processes.rank
    assert "sample rgb/0002.png: depth/0002.npy: there is no such file" in str(other.outcome)
    done = read_state(scenes / "run" / "checkpoint" / "latest")["iteration"]
    assert done == len(table(scenes / "run" / "training.csv")) == parts[0].engine.steps
    assert all(part.processes.parted for part in parts)


def test_bad_samples_are_skipped_by_all_alike(scenes: Path) -> None:
    (scenes / "train" / "depth" / "0002.npy").unlink()
    run(scenes, "alone", 1, dataloader__on_bad_sample="skip")
    parts = run(scenes, "together", 2, dataloader__on_bad_sample="skip")
    assert_same_run(scenes, "together", "alone")
    assert sum("skipped (1 so far): train: sample rgb/0002.png" in text for text in parts[0].said) == 1
    assert not any("skipped (2" in text for text in parts[0].said)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("position", [0, 1])
def test_a_loss_that_is_no_number(scenes: Path, rank: int, position: int) -> None:
    """In the first or the last batch of one process: all stop, no step is taken, and the message has everything."""

    def spoil(part: Part) -> None:
        learn, calls = part.engine.forward_backward, iter(range(1000))

        def fail(*args: Any, **inputs: Any) -> float:
            loss = learn(*args, **inputs)
            return float("nan") if part.processes.rank == rank and next(calls) == 2 * 3 + position else loss

        part.engine.forward_backward = fail  # type: ignore[method-assign]

    parts = run(scenes, "run", 2, spoil)
    mine, other = parts[rank].outcome, parts[1 - rank].outcome
    assert isinstance(mine, TrainingStopped) and isinstance(other, ProcessFailed)
    number = 4 * 3 + 2 * position + rank
    assert f"iteration 4: the loss of batch {number} is nan; its files: " in str(mine)
    assert "latest, of iteration 2" in str(mine) and str(mine) in str(other)
    assert [part.engine.steps for part in parts] == [3, 3]


def test_gradients_that_are_no_numbers(scenes: Path) -> None:
    def spoil(part: Part) -> None:
        def refuse(rate: float) -> float:
            raise NotFiniteError("the gradients are not finite")

        part.engine.optimizer_step = refuse  # type: ignore[method-assign, assignment]

    first, second = run(scenes, "run", 2, spoil)
    assert isinstance(first.outcome, TrainingStopped) and isinstance(second.outcome, SystemExit)


def test_processes_that_went_apart(scenes: Path) -> None:
    def spoil(part: Part) -> None:
        step = part.engine.optimizer_step
        part.engine.optimizer_step = (  # type: ignore[method-assign]
            lambda rate: step(rate) + 1e-9 * (part.processes.rank == 1 and part.engine.steps == 2)
        )

    first, second = run(scenes, "run", 2, spoil)
    assert isinstance(first.outcome, TrainingStopped) and "iteration 2: the processes went apart" in str(first.outcome)
    assert isinstance(second.outcome, SystemExit)


@pytest.mark.parametrize("what", ["save_state", "validation"])
def test_what_the_first_cannot_do_ends_all(scenes: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def spoil(part: Part) -> None:
        save = part.engine.save_state
        if what == "save_state":
            part.engine.save_state = lambda path: fill(path) if part.engine.steps == 4 else save(path)  # type: ignore

    if what == "validation":
        monkeypatch.setattr("marigold_c.training.validation.HeldOut.scores", lambda self, pipe: fill("scores"))
    first, second = run(scenes, "run", 2, spoil, **VALIDATION)
    assert isinstance(second.outcome, ProcessFailed) and second.outcome.rank == 0
    assert "No space left on device" in str(first.outcome) and explain(first.outcome) in str(second.outcome)
    assert read_state(scenes / "run" / "checkpoint" / "latest")["iteration"] in (2, 3)


def test_too_many_processes(scenes: Path) -> None:
    parts = run(scenes, "run", 5)
    message = r"an iteration has 4 batches \(effective_batch_size 8 / max_train_batch_size 2\), which 5 processes"
    with pytest.raises(ConfigError, match=message):
        raise parts[0].outcome
    assert all(isinstance(part.outcome, SystemExit) for part in parts[1:]) and not (scenes / "run").exists()


def test_a_folder_that_holds_a_run(scenes: Path) -> None:
    run(scenes, "run", 2)
    first, second = run(scenes, "run", 2)
    assert isinstance(first.outcome, FileExistsError) and isinstance(second.outcome, ProcessFailed)
    assert "--resume" in str(second.outcome)


@pytest.mark.parametrize(("accumulation", "size"), [(4, 2), (5, 3), (1, 1)])
def test_shares_are_disjoint_and_whole(accumulation: int, size: int) -> None:
    sampler = MixedSampler([9, 7], ["a", "b"], 2, [0.6, 0.4], 3)
    count = 6 * accumulation
    everything = [plan for plan, _ in zip(sampler.batches(), range(count), strict=False)]
    found = []
    for rank in range(size):
        share = ShareOfSteps(sampler, accumulation, rank, size)
        plans = [plan for plan, _ in zip(share.batches(accumulation), range(5 * share.batches_of_step), strict=False)]
        found += plans
    assert sorted(found, key=lambda plan: plan.number) == everything[accumulation:]

"""True processes under mpirun: `marigold train` and scripts. Left out where mpi4py or an MPI library is missing; make
test-mpi installs both."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from training_cases import make_scenes, settings, write_config

import marigold_c as mc
from marigold_c.training.checkpoints import read_state

_LAUNCHER = shutil.which("mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
pytestmark = pytest.mark.skipif(
    _LAUNCHER is None or find_spec("mpi4py") is None, reason="needs mpirun and mpi4py: make test-mpi"
)
_PATIENCE = 240  # seconds until a test is a deadlock


@pytest.fixture(scope="module")
def launcher() -> list[str]:
    assert _LAUNCHER is not None
    version = subprocess.run([_LAUNCHER, "--version"], capture_output=True, text=True, check=True).stdout
    if "Open MPI" in version or "OpenRTE" in version:
        return [_LAUNCHER, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
    return [_LAUNCHER]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    make_scenes(tmp_path / "train", 9)
    return tmp_path


def command(root: Path, config: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, "-m", "marigold_c", "train", str(config), "-o", str(root / "output")),
        *("--base-data-dir", str(root), *flags),
    ]


def make(root: Path, name: str, **changes: Any) -> Path:
    values = settings("depth", **{"dataloader__effective_batch_size": 8, "lr": 1e-4, **changes})
    return write_config(root / f"{name}.yaml", values)


def finish(arguments: list[str], code: int | None = 0) -> str:
    process = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    assert code is None or process.returncode == code, process.stderr
    return process.stderr


def weights(root: Path, name: str, checkpoint: str = "latest") -> dict[str, NDArray[np.float32]]:
    folder = root / "output" / name / "checkpoint" / checkpoint
    return mc.Trainer.from_pretrained(folder, num_threads=1).parameters()


def difference(a: dict[str, NDArray[np.float32]], b: dict[str, NDArray[np.float32]]) -> float:
    apart = sum(float(((a[name].astype(np.float64) - b[name]) ** 2).sum()) for name in a)
    return float(np.sqrt(apart / sum(float((b[name].astype(np.float64) ** 2).sum()) for name in b)))


def losses(root: Path, name: str) -> list[float]:
    with (root / "output" / name / "training.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_two_processes_are_one_with_twice_the_batches(launcher: list[str], scenes: Path) -> None:
    finish(command(scenes, make(scenes, "alone"), "--threads", "1"))
    said = finish([*launcher, "-n", "2", *command(scenes, make(scenes, "together"))])
    assert difference(weights(scenes, "together"), weights(scenes, "alone")) < 1e-6
    start = mc.Trainer.from_pretrained(mc.default_checkpoint("depth"), num_threads=1).parameters()
    assert difference(weights(scenes, "alone"), start) > 1e-5
    np.testing.assert_allclose(losses(scenes, "together"), losses(scenes, "alone"), rtol=1e-5)
    assert said.count("2 processes share the 4 batches") == 1 and said.count("marigold: done") == 1
    assert re.search(r"2 processes, threads each: \d+", said)


def test_going_on_with_another_number(launcher: list[str], scenes: Path) -> None:
    config = make(scenes, "parts")
    finish([*launcher, "-n", "2", *command(scenes, config, "--exit-after", "0.0001", "--threads", "1")])
    assert read_state(scenes / "output" / "parts" / "checkpoint" / "latest")["iteration"] == 1
    finish(command(scenes, config, "--resume", "--exit-after", "0.0001", "--threads", "1"))
    finish([*launcher, "-n", "3", *command(scenes, config, "--resume", "--threads", "1")])
    finish(command(scenes, make(scenes, "whole"), "--threads", "1"))
    assert difference(weights(scenes, "parts"), weights(scenes, "whole")) < 1e-6
    assert len(losses(scenes, "parts")) == 6


def wait_for(condition: Any) -> None:
    end = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes that train, below the launcher."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if b"train" in words and f"MARIGOLD_TEST={process.args[-1]}".encode() in environment:  # type: ignore[index]
                found.append(int(folder.name))
    return sorted(one for one in found if one != process.pid)


def start(launcher: list[str], root: Path, config: Path) -> subprocess.Popen[str]:
    mark = str(root / "output")
    arguments = [*launcher, "-n", "2", *command(root, config, "--threads", "1", "--base-ckpt-dir", mark)]
    environment = {**os.environ, "MARIGOLD_TEST": mark, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_killed_process_ends_all_and_leaves_the_checkpoint(launcher: list[str], scenes: Path) -> None:
    config = make(scenes, "killed", max_iter=400, trainer__save_period=2)
    table = scenes / "output" / "killed" / "training.csv"
    process = start(launcher, scenes, config)
    wait_for(lambda: table.exists() and table.read_text().count("\n") > 5)
    os.kill(children(process)[-1], signal.SIGKILL)
    assert process.stderr is not None
    process.stderr.read()
    assert process.wait(_PATIENCE) != 0
    wait_for(lambda: not children(process))
    done = read_state(scenes / "output" / "killed" / "checkpoint" / "latest")["iteration"]
    assert 4 <= done < 400
    # The checkpoint is whole, and the run goes on from it.
    weights(scenes, "killed")
    finish([*launcher, "-n", "2", *command(scenes, config, "--resume", "--exit-after", "0.0001", "--threads", "1")])
    assert read_state(scenes / "output" / "killed" / "checkpoint" / "latest")["iteration"] == done + 1


def test_a_signal_to_one_process_stops_all(launcher: list[str], scenes: Path) -> None:
    config = make(scenes, "signal", max_iter=400, trainer__save_period=400)
    table = scenes / "output" / "signal" / "training.csv"
    process = start(launcher, scenes, config)
    wait_for(lambda: table.exists() and table.read_text().count("\n") > 2)
    os.kill(children(process)[-1], signal.SIGTERM)
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(_PATIENCE) == 0, said
    assert "--resume goes on" in said
    assert 2 <= read_state(scenes / "output" / "signal" / "checkpoint" / "latest")["iteration"] < 400


def test_a_bad_sample_is_named(launcher: list[str], scenes: Path) -> None:
    (scenes / "train" / "depth" / "0002.npy").unlink()
    said = finish([*launcher, "-n", "2", *command(scenes, make(scenes, "bad"), "--threads", "1")], None)
    named = "train: sample rgb/0002.png: depth/0002.npy: there is no such file"
    assert f"marigold: error: {named}" in said or f"failed, and all end with it: {named}" in said
    state = read_state(scenes / "output" / "bad" / "checkpoint" / "latest")
    assert state["iteration"] == len(losses(scenes, "bad"))


def test_a_wrong_configuration_is_named_once(launcher: list[str], scenes: Path) -> None:
    said = finish([*launcher, "-n", "2", *command(scenes, make(scenes, "wrong", max_iter="x"))], None)
    assert said.count("marigold: error: ") == 1 and "max_iter" in said


SCRIPT = """
import sys
import numpy as np
from mpi4py import MPI
import marigold_c as mc

rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
trainer = mc.Trainer.from_pretrained(mc.default_checkpoint("depth"), num_threads=1, learning_rate=1e-4)
for step in range(3):
    for number in (rank, rank + size):
        rng = np.random.default_rng(100 * step + number)
        arrays = [rng.standard_normal((1, 4, 16, 16)).astype(np.float32) for _ in range(3)]
        batch = (*arrays, rng.integers(0, 1000, 1))
        if number == rank:
            trainer.forward_backward(*batch, weight=0.25)
        else:
            sums = trainer.summed_over(MPI.COMM_WORLD)
            with sums:
                trainer.forward_backward(*batch, weight=0.25)
    norm = trainer.optimizer_step()
norms = MPI.COMM_WORLD.allgather(norm)
assert len(set(norms)) == 1, norms
print(f"norm {norm!r} early {sums.early}", flush=True)
"""


def test_scripts(launcher: list[str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.run(
        [*launcher, "-n", "2", sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    norms = re.findall(r"norm (\S+)", process.stdout)
    assert len(norms) == 2 and norms[0] == norms[1]
    trainer = mc.Trainer.from_pretrained(mc.default_checkpoint("depth"), num_threads=1, learning_rate=1e-4)
    for step in range(3):
        for number in range(4):
            rng = np.random.default_rng(100 * step + number)
            arrays = [rng.standard_normal((1, 4, 16, 16)).astype(np.float32) for _ in range(3)]
            trainer.forward_backward(*arrays, rng.integers(0, 1000, 1), weight=0.25)
        norm = trainer.optimizer_step()
    assert float(norms[0]) == pytest.approx(norm, rel=1e-5)

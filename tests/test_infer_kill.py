"""`marigold infer` is killed at random moments: what it leaves is whole, and the run that goes on from there ends with
the same files as one that was never killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from evaluation_cases import arguments, contents, infer, started, write_sets

pytest.importorskip("yaml", reason="configurations of data sets need the extra evaluation")

pytestmark = pytest.mark.long

SAMPLES = 24
OPTIONS = ("--denoise-steps", "1", "--processing-res", "0", "--seed", "5", "--quiet", "--ensemble-size", "4")


def check(found: dict[str, bytes], whole: dict[str, bytes]) -> int:
    """Every file is one of the uninterrupted run's, to the byte; how many predictions there are."""
    for name, data in found.items():
        assert whole.get(name) == data, name
    return sum(name.endswith(".npy") for name in found)


def kill_in(base: Path, out: Path, seconds: float, *more: str) -> bool:
    """Whether it was still running."""
    process = started("infer", "depth", base, "-o", out, *OPTIONS, *more)
    # Its start is always the same; what matters is when the folder is prepared and written to.
    deadline = time.monotonic() + 60
    before = len(contents(out)) if out.exists() else 0
    while process.poll() is None and (len(contents(out)) if out.exists() else 0) == before:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(seconds)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return running


HALF = """
import os, signal, sys
import numpy as np
from marigold_c.commands import cli
save, done = np.save, []
def half(file, array):
    done.append(array)
    if len(done) < 4:
        return save(file, array)
    save(file, array[: len(array) // 2])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
np.save = half
cli.main(sys.argv[1:])
"""


def test_killed_in_the_middle_of_a_file(tmp_path: Path) -> None:
    write_sets(tmp_path)
    assert infer("depth", tmp_path, tmp_path / "whole", *OPTIONS) == 0
    whole, out = contents(tmp_path / "whole"), tmp_path / "out"
    words = arguments("infer", "depth", tmp_path, "-o", out, *OPTIONS)
    done = subprocess.run([sys.executable, "-c", HALF, *words], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert check(contents(out), whole) == 3
    assert infer("depth", tmp_path, out, *OPTIONS) == 0
    assert contents(out) == whole


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_killed(engine: str, tmp_path: Path) -> None:
    write_sets(tmp_path, SAMPLES, (48, 64))
    assert infer("depth", tmp_path, tmp_path / "whole", *OPTIONS) == 0
    whole = contents(tmp_path / "whole")
    out = tmp_path / "out"
    more = ("--engine", engine, *(("--workers", "2") if engine == "processes" else ()))
    chance = random.Random(engine)
    kills = 0
    while kills < 4:
        kills += kill_in(tmp_path, out, chance.uniform(0, 0.08), *more)
        time.sleep(0.3 if engine == "processes" else 0)  # workers finish their sample when the first process is gone
        if check(contents(out), whole) > SAMPLES // 2:  # so that something is left to be killed
            for path in chance.sample(sorted(out.rglob("*.npy")), SAMPLES // 2):
                path.unlink()
    assert infer("depth", tmp_path, out, *OPTIONS, *more) == 0
    assert contents(out) == whole

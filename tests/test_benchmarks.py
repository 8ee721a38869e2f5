"""The benchmark scripts on the small preset: the written checkpoint opens and runs, and the comparison reports."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import marigold_c as mc

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "checkpoint"
    done = run("make_sd2_checkpoint.py", folder, "--preset", "tiny")
    assert done.returncode == 0, done.stderr
    return folder


def test_random_checkpoint_runs(checkpoint: Path) -> None:
    pipe = mc.load(checkpoint, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    prediction = pipe(np.full((33, 57, 3), 99, np.uint8), generator=0).prediction
    assert prediction.shape == (1, 33, 57, 1)
    assert np.isfinite(prediction).all()


def test_random_checkpoint_is_reproducible(checkpoint: Path, tmp_path: Path) -> None:
    assert run("make_sd2_checkpoint.py", tmp_path, "--preset", "tiny").returncode == 0
    files = sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())
    assert files
    for name in files:
        digests = {hashlib.sha256((folder / name).read_bytes()).digest() for folder in (checkpoint, tmp_path)}
        assert len(digests) == 1, name


def test_peers_reports_ours_alone(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "peers.json"
    done = run(
        "peers.py", "--checkpoint", checkpoint, "--ours-only", "--sizes", "40x56", "--repeats", 1, "--output", output
    )
    assert done.returncode == 0, done.stderr
    assert "| 40x56 sum |" in done.stdout
    report = json.loads(output.read_text(encoding="utf-8"))
    (alone,) = report["comparisons"]
    assert [entry["stage"] for entry in alone["measurements"]] == ["encode", "unet", "decode"]
    assert alone["peak_bytes"]["marigold_c"] > 0


def test_peers_refuses_what_it_cannot_run(checkpoint: Path) -> None:
    assert "multiples of 8" in run("peers.py", "--checkpoint", checkpoint, "--sizes", "41x56").stderr
    assert "choose from" in run("peers.py", "--checkpoint", checkpoint, "--stages", "decode,paint").stderr
    assert "choose from PyTorch float32" in run("peers.py", "--checkpoint", checkpoint, "--peers", "abacus").stderr

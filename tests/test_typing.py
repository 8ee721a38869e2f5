"""What an editor knows of pipelines and results: typing/script.py through mypy. typing/editor.txt is what basedpyright,
a pyright for editors, showed of the same script."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "typing"
MAPS = "ndarray[tuple[Any, ...], dtype[floating[_32Bit]]]"
EXPECTED = [
    "MarigoldDepthPipeline",
    "MarigoldDepthOutput",
    MAPS,
    f"{MAPS} | None",
    "MarigoldNormalsOutput",
    "MarigoldIntrinsicsOutput",
    "MarigoldDepthPipeline",
    "MarigoldPipeline[MarigoldOutput]",
    MAPS,
    "MarigoldNormalsOutput",
    "Any",  # tensors: torch is not needed
    "ndarray[tuple[Any, ...], dtype[Any]]",
]


def test_mypy_knows_the_types() -> None:
    pytest.importorskip("mypy", reason="types are compared by mypy: pip install '.[dev]'")
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(FOLDER / "script.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    shown = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert [re.sub(r"\b(\w+\.)+(?=[A-Za-z_])", "", one) for one in shown] == EXPECTED


def test_the_recorded_session_is_of_this_script() -> None:
    shown = re.findall(r'script\.py:(\d+):\d+ - .* is "([^"]*)"$', (FOLDER / "editor.txt").read_text(), re.MULTILINE)
    lines = (FOLDER / "script.py").read_text().splitlines()
    assert [int(line) for line, _ in shown] == [
        n for n, line in enumerate(lines, 1) if line.lstrip().startswith("reveal_type")
    ]
    assert [kind for _, kind in shown] == EXPECTED

"""Each allocation of the engine fails once, each write to a file: an error, nothing half, and right afterwards.

`make test-long` takes a part of all places; `make test-failures` every one (MARIGOLD_FAILURE_STRIDE=1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "failures"
STRIDE = os.environ.get("MARIGOLD_FAILURE_STRIDE")
# Every so many places in `make test-long`; at least so many places there are.
ALLOCATIONS = {
    "open": (37, 1000),
    "depth": (5, 15),
    "ensemble": (7, 20),
    "normals": (7, 20),
    "iid": (7, 20),
    "train": (53, 1000),
    "evaluate": (1, 4),
}
WRITES = {"depth": (3, 10), "convert": (60, 20), "model": (40, 20)}

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
    pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer has an allocator of its own"),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("failures") / "failures.so"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    command = ["cc", "-std=gnu11", *warnings, "-O1", "-shared", "-fPIC", "-o", library, HERE / "failures.c", "-ldl"]
    subprocess.run(command, check=True)
    return library


def run(shim: Path, *words: str | Path) -> int:
    """The number of failures."""
    environment = os.environ | {"LD_PRELOAD": shim.name, "LD_LIBRARY_PATH": str(shim.parent)}
    command = [sys.executable, str(HERE / "scenarios.py"), *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stderr[-3000:]}"
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_each_allocation_fails_once(shim: Path, name: str) -> None:
    stride, least = ALLOCATIONS[name]
    stride = int(STRIDE or stride)
    count = run(shim, "allocations", name, stride)
    print(f"{name}: {count} allocations failed")
    assert count * stride >= least


@pytest.mark.parametrize("name", WRITES)
def test_each_write_fails(shim: Path, name: str, tmp_path: Path) -> None:
    stride, least = WRITES[name]
    stride = int(STRIDE or stride)
    count = run(shim, "writes", name, stride, tmp_path)
    print(f"{name}: {count} writes failed")
    assert count * stride >= least

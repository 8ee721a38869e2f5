"""device="cuda" where there is no CUDA: a clear error, and nothing of CUDA is loaded unasked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import marigold_c as mc
from marigold_c import _testing


def load_on(device: str) -> None:
    mc.load(mc.default_checkpoint("depth"), device=device)


def test_installation_without_the_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MARIGOLD_CUDA_LIBRARY", str(tmp_path / "libmarigold_cuda.so"))
    with pytest.raises(mc.DeviceError, match=r"no CUDA backend .*MARIGOLD_CUDA=1 pip install"):
        load_on("cuda")


def test_library_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = tmp_path / "libmarigold_cuda.so"
    library.write_bytes(b"no library")
    monkeypatch.setenv("MARIGOLD_CUDA_LIBRARY", str(library))
    with pytest.raises(mc.DeviceError, match=r"lacks a library: .*libmarigold_cuda.so"):
        load_on("cuda:1")


def test_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARIGOLD_CUDA_LIBRARY", str(_testing.__file__))
    with pytest.raises(mc.DeviceError, match="no backend of the engine; build both together"):
        load_on("cuda")


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cuda:-1", "cuda:1 ", "cuda0", "gpu", "cuda:1000"])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(mc.DeviceError, match=r'unknown device ".*known: "cpu", "ref", "cuda"'):
        load_on(device)


def test_nothing_of_cuda_is_loaded_unasked() -> None:
    script = "import marigold_c, pathlib; print(pathlib.Path('/proc/self/maps').read_text())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    maps = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "_C." in maps.stdout
    assert "cuda" not in maps.stdout.replace(str(Path(mc.__file__).parent.parent), "")
    assert "cublas" not in maps.stdout

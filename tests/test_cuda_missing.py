"""device="cuda" where there is no CUDA: a clear error, and nothing of CUDA is loaded unasked."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import marigold_c as mc
from marigold_c import _testing

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("border", ROOT / "tools" / "border.py")
assert _spec and _spec.loader
border = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(border)


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


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("flags", [[], ["-DMG_BORDER=1u"]], ids=str)
def test_a_backend_of_other_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: list[str]) -> None:
    """Of the same sizes, but whoever compiled it saw other headers, or none that we know."""
    library, source = tmp_path / "libmarigold_cuda.so", tmp_path / "other.c"
    header = ROOT / "csrc" / "backend" / "library.h"
    exported = "const struct mg_backend_library mg_backend_library = {mg_operations, MG_BACKEND_LAYOUT, 0};"
    source.write_text(f'#include "{header}"\n{exported}\n')
    subprocess.run(["cc", "-std=gnu11", "-D_GNU_SOURCE", "-shared", "-fPIC", *flags, source, "-o", library], check=True)
    script = "import marigold_c as mc; mc.load(mc.default_checkpoint('depth'), device='cuda')"
    environment = os.environ | {"MARIGOLD_CUDA_LIBRARY": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is of another version of the engine; build both together" in done.stderr


def test_the_checksum_of_the_border_is_that_of_its_headers(tmp_path: Path) -> None:
    copy = tmp_path / "csrc"
    shutil.copytree(border.CSRC, copy)
    assert border.border_flag(copy) == border.border_flag()
    for name in border.HEADERS:
        before = border.border_flag(copy)
        (copy / name).write_text((copy / name).read_text().replace("struct", "struct ", 1) + " ")
        assert border.border_flag(copy) != before


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

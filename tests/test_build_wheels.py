"""What tools/build_wheels.py refuses in a wheel, shown on shared objects that the machine's own compiler makes."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("elftools", reason="pyelftools is not installed")
if shutil.which("cc") is None or shutil.which("readelf") is None or platform.machine() not in ("x86_64", "aarch64"):
    pytest.skip("needs cc and readelf on a processor that has wheels", allow_module_level=True)

TOOL = Path(__file__).resolve().parent.parent / "tools" / "build_wheels.py"
HERE = platform.machine()
OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}[HERE]
SOURCE = '#include <math.h>\nconst char *text = "%s"; double half(double x) { return cos(x) / 2; }\n'


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("build_wheels", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "build_wheels", module)  # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    return module


def shared_object(folder: Path, *flags: str, text: str = "") -> bytes:
    (folder / "half.c").write_text(SOURCE % text)
    command = ["cc", "-shared", "-fPIC", "half.c", "-o", "half.so", "-Wl,--no-as-needed", *flags]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "half.so").read_bytes()


def wheel(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "test.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_binary_is_read_as_readelf_reads_it(tool: Any, tmp_path: Path) -> None:
    found = tool.read_binary(shared_object(tmp_path, "-lm", "-Wl,-rpath,/somewhere"))
    shown = subprocess.run(
        ["readelf", "--wide", "-d", "-V", tmp_path / "half.so"],
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    needed = {line.partition("[")[2][:-1] for line in shown.splitlines() if "(NEEDED)" in line}
    versions = [word[6:] for word in shown.replace("(", " ").replace(")", " ").split() if word.startswith("GLIBC_")]
    assert found.libraries == needed and "libm.so.6" in needed
    assert found.search_paths == ("/somewhere",)
    assert found.glibc == max(tuple(map(int, version.split("."))) for version in versions)


def test_what_a_wheel_may_not_hold(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "marigold_c/_C.abi3.so"
    plain = shared_object(tmp_path, "-lm")
    assert tool.check_wheel(wheel(tmp_path, {name: plain, "marigold_c/a.py": b""}), HERE).glibc <= tool.GLIBC
    refused = [
        ({name: shared_object(tmp_path, "-lm", "-Wl,-rpath,/somewhere")}, "looks for libraries in"),
        ({name: shared_object(tmp_path, "-lm", "-Wl,-soname,libhalf.so", text=str(tool.ROOT))}, "names the folder"),
        ({"marigold_c/_C.cpython-311.so": plain}, "holds the binaries"),
        ({name: plain, "marigold_c.libs/libgomp.so.1": plain}, "holds the binaries"),
    ]
    for files, message in refused:
        with pytest.raises(tool.WheelError, match=message):
            tool.check_wheel(wheel(tmp_path, files), HERE)
    with pytest.raises(tool.WheelError, match="is for"):
        tool.check_wheel(wheel(tmp_path, {name: plain}), OTHER)
    (tmp_path / "libhalf.so").write_bytes(shared_object(tmp_path, "-Wl,-soname,libhalf.so"))
    with pytest.raises(tool.WheelError, match=r"needs \['libhalf.so'\]"):
        tool.check_wheel(wheel(tmp_path, {name: shared_object(tmp_path, "-lm", "-L.", "-lhalf")}), HERE)
    monkeypatch.setattr(tool, "GLIBC", (2, 1))
    with pytest.raises(tool.WheelError, match="newer than"):
        tool.check_wheel(wheel(tmp_path, {name: plain}), HERE)

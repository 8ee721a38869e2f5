"""Which code the CUDA backend holds for a list of architectures (tools/build_cuda.py); no nvcc is needed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "build_cuda.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("build_cuda", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "build_cuda", module)  # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("architectures", "portable"),
    [
        ("75 80 86 89 90 100 120", ["100", "120"]),
        ("86 90", ["90"]),
        ("90 86", ["90"]),
        ("75", []),  # PTX for 7.5 has no bfloat16, which later GPUs would be asked for
        ("86 75", ["86"]),
        ("90a", ["90a"]),
    ],
)
def test_code_and_ptx(tool: Any, architectures: str, portable: list[str]) -> None:
    listed = architectures.split()
    flags = tool.architecture_flags(listed)
    assert flags == [
        *(f"-gencode=arch=compute_{one},code=sm_{one}" for one in listed),
        *(f"-gencode=arch=compute_{one},code=compute_{one}" for one in portable),
    ]

"""Compiles the backend's kernels to PTX, for the oldest, a middle and a new architecture."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CUDA = ROOT / "csrc" / "backend" / "cuda"
# Files whose kernels use shared memory, exchange registers between lanes, or have inline assembly.
SOURCES = (
    *("attention_products", "partial_sums"),
    *(f"ops/{name}" for name in ("attention", "attention_gradient", "conv2d", "conv2d_gradient", "layout")),
    *(f"ops/{name}" for name in ("groupnorm", "groupnorm_gradient", "layernorm", "layernorm_gradient")),
    *(f"ops/{name}" for name in ("optimizer", "reduce")),
)
ARCHITECTURES = ("75", "80", "90")


def build_tool() -> Any:
    name = "build_cuda"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / "build_cuda.py")
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def build(folder: Path) -> dict[tuple[str, str], Path]:
    """PTX by (source, architecture); made anew where a source or header is newer."""
    tool = build_tool()
    nvcc = tool.find_nvcc()
    include, _ = tool.find_cublas(nvcc)
    folder.mkdir(parents=True, exist_ok=True)
    headers = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cuh", ".def")]
    newest = max(path.stat().st_mtime for path in headers)
    jobs = {(source, one): folder / f"{Path(source).name}.{one}.ptx" for one in ARCHITECTURES for source in SOURCES}

    def compile_one(job: tuple[str, str]) -> None:
        source, architecture = CUDA / f"{job[0]}.cu", job[1]
        target = jobs[job]
        if target.exists() and target.stat().st_mtime > max(newest, source.stat().st_mtime):
            return
        command = [str(nvcc), "-ptx", f"-arch=sm_{architecture}", "-O3", "-std=c++20", f"-I{CUDA / 'ptx'}"]
        subprocess.run([*command, f"-isystem={include}", str(source), "-o", str(target)], check=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, jobs))
    return jobs

"""Builds csrc/backend/cuda as C++ against the headers of this folder: a shared object that the engine loads for device
"cuda" when MARIGOLD_CUDA_LIBRARY names it.

python tests/cuda_emu/build.py OUTPUT.so
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tools"))
from border import border_flag  # noqa: E402

CSRC = HERE.parent.parent / "csrc"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
NCCL = HERE / "nccl" / "nccl.cc"
# What the backend needs of the engine's own room "core".
CORE = [CSRC / "core" / name for name in ("context.c", "error.c", "memory.c", "tensor.c")]


def flags() -> list[str]:
    fused = ["-mavx2", "-mfma"] if platform.machine() in ("x86_64", "AMD64") and has_fma() else []
    # A GPU refuses to read 16 bytes from any other address than a multiple of 16: here it is an illegal instruction.
    aligned = ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
    return ["-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-D_GNU_SOURCE", "-ffp-contract=off", *aligned, *fused]


def has_fma() -> bool:
    """Whether fused products, which the kernels ask for, are an instruction of this processor."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()
    return {"fma", "avx2"} <= words


def command(source: Path, output: Path) -> list[str]:
    if source.suffix == ".c":
        compiler = [os.environ.get("CC", "cc"), "-std=gnu11"]
    else:
        own = ["-DMG_CUDA_NCCL", f"-I{HERE}", border_flag()]
        compiler = [os.environ.get("CXX", "c++"), "-std=gnu++20", "-x", "c++", *own]
    return [*compiler, *WARNINGS, *flags(), "-c", str(source), "-o", str(output)]


def newest_header() -> float:
    headers = [*HERE.glob("*.h"), *HERE.glob("*.cuh"), *CSRC.rglob("*.h"), *CSRC.rglob("*.cuh"), *CSRC.rglob("*.def")]
    return max(path.stat().st_mtime for path in headers)


def build(output: Path) -> Path:
    """The shared object, compiled anew where a source or a header is newer than its object; libnccl.so.2 beside it."""
    folder = output.parent / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    sources = [*sorted((CSRC / "backend" / "cuda").rglob("*.cu")), *sorted(HERE.glob("*.cc")), *CORE, NCCL]
    objects = [folder / f"{source.stem}{source.suffix}.o" for source in sources]
    header = newest_header()

    def compile_one(pair: tuple[Path, Path]) -> None:
        source, target = pair
        if not target.exists() or target.stat().st_mtime < max(source.stat().st_mtime, header):
            subprocess.run(command(source, target), check=True)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(compile_one, zip(sources, objects, strict=True)))
    link = [os.environ.get("CXX", "c++"), "-shared", "-Wl,-z,defs"]
    subprocess.run([*link, "-o", str(output), *map(str, objects[:-1]), "-lm"], check=True)
    name = "libnccl.so.2"
    subprocess.run([*link, f"-Wl,-soname,{name}", "-o", str(output.parent / name), str(objects[-1])], check=True)
    return output


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))

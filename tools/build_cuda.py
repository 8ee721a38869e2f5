"""Builds the CUDA backend, csrc/backend/cuda, with nvcc: libmarigold_cuda.so, which the engine loads for device="cuda".

setup.py calls build() when MARIGOLD_CUDA=1; `make cuda-build` runs this file, which also prints what every kernel takes
of a processor and fails if one takes too much:

    python tools/build_cuda.py OUTPUT_FOLDER

Needed: nvcc (CUDA 13; of CUDA_HOME, or on the PATH), and headers and library of cuBLAS, from the package nvidia-cublas
or the toolkit. With nccl.h, of the package nvidia-nccl-cu13 or the system, sums over several GPUs are built in.
Environment: MARIGOLD_CUDA_ARCHITECTURES, for example "86 90", for a build of these alone, or "native" for the GPUs of
this machine.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from border import border_flag

ROOT = Path(__file__).resolve().parent.parent
CUDA = ROOT / "csrc" / "backend" / "cuda"
# What the backend needs of the engine's own room "core": it shares no symbols with the engine that loads it.
CORE = [ROOT / "csrc" / "core" / name for name in ("context.c", "error.c", "memory.c", "tensor.c")]
LIBRARY = "libmarigold_cuda.so"

# Turing to Blackwell. Code for 10.0 runs on 10.3, and so on; drivers compile the PTX for what is in between (11.0) and
# what comes later.
ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")
PORTABLE = ("100", "120")

# Of every kernel on every architecture. Two blocks find room on a processor of 65536 registers.
REGISTERS, THREADS, WARP = 65536, 256, 32
MOST_SHARED_BYTES = 48 << 10  # without asking for more
MOST_SPILLED_BYTES = 64  # of a thread


class BuildError(RuntimeError):
    """Something that the build needs is missing, or a command failed."""


# ---- what is needed ----


def find_nvcc() -> Path:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [Path(home) / "bin" / "nvcc"] if home else []
    on_path = shutil.which("nvcc")
    candidates += [Path(on_path)] if on_path else []
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    for path in candidates:
        if path.is_file():
            return path
    raise BuildError("the CUDA backend needs nvcc of CUDA 13: set CUDA_HOME, or put it on the PATH")


def package_folders(*names: str) -> Iterator[Path]:
    """Where packages such as nvidia-cublas put their files: all of a version of CUDA in one folder, or one each."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from (Path(folder) / name for name in names)


def find_cublas(nvcc: Path) -> tuple[Path, Path]:
    """The folder of cublasLt.h and the file libcublasLt.so.13."""
    toolkit = nvcc.resolve().parent.parent
    for folder in (*package_folders("cu13", "cublas"), toolkit):
        for library in ("lib", "lib64"):
            found = folder / library / "libcublasLt.so.13"
            if (folder / "include" / "cublasLt.h").is_file() and found.is_file():
                return folder / "include", found
    raise BuildError("the CUDA backend needs cublasLt.h and libcublasLt.so.13: pip install nvidia-cublas")


def find_nccl(nvcc: Path) -> Path | None:
    """The folder of nccl.h, or None: the backend is then built without sums over several GPUs."""
    folders = (*package_folders("nccl", "cu13"), nvcc.resolve().parent.parent, Path("/usr"))
    return next((folder / "include" for folder in folders if (folder / "include" / "nccl.h").is_file()), None)


# ---- compiling ----


def run(command: list[str]) -> str:
    """What the command says; BuildError with all of it if it fails."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr


def number_of(architecture: str) -> int:
    """90 of "90" and of "90a"."""
    return int(architecture.rstrip("af"))


def architecture_flags(architectures: Iterable[str]) -> list[str]:
    listed = list(architectures)
    if listed == ["native"]:
        return ["-arch=native"]
    flags = [f"-gencode=arch=compute_{one},code=sm_{one}" for one in listed]
    # PTX below 8.0 has neither bfloat16 nor TF32 in it, which the GPU that compiles it would have.
    newest = max(listed, key=number_of)
    portable = [one for one in listed if one in PORTABLE] or ([newest] if number_of(newest) >= 80 else [])
    return [*flags, *(f"-gencode=arch=compute_{one},code=compute_{one}" for one in portable)]


def compile_all(folder: Path, nvcc: Path, libraries: list[str], architectures: Iterable[str]) -> tuple[list[Path], str]:
    """Objects, and ptxas's remarks on their kernels."""
    host = "-Wall,-Wextra,-Werror,-fPIC,-fvisibility=hidden,-D_GNU_SOURCE"
    common = [str(nvcc), "-O3", "--threads", "1", "-c", "-Werror", "all-warnings"]
    cuda = [
        "-std=c++20",
        "-Xptxas",
        "-v",
        *architecture_flags(architectures),
        border_flag(),
        f"-I{CUDA / 'ptx'}",
        *libraries,
    ]
    newest_header = max(
        path.stat().st_mtime for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cuh", ".def")
    )

    def compile_one(source: Path) -> tuple[Path, str]:
        target = folder / f"{source.stem}{source.suffix}.o"
        log = target.with_suffix(".txt")  # written last: where it is, its object is whole
        own = [*cuda, "-Xcompiler", host] if source.suffix == ".cu" else ["-Xcompiler", f"{host},-std=gnu11"]
        command = [*common, *own, str(source), "-o", str(target)]
        first_line = " ".join(command) + "\n"
        newest = max(newest_header, source.stat().st_mtime)
        if log.exists() and log.stat().st_mtime > newest and log.read_text(encoding="utf-8").startswith(first_line):
            return target, log.read_text(encoding="utf-8")
        log.write_text(first_line + run(command), encoding="utf-8")
        return target, log.read_text(encoding="utf-8")

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done = list(pool.map(compile_one, (*sorted(CUDA.rglob("*.cu")), *CORE)))
    return [target for target, _ in done], "".join(remarks for _, remarks in done)


def build(output_folder: Path, object_folder: Path) -> tuple[Path, str]:
    """The library, and ptxas's remarks on its kernels."""
    architectures = os.environ.get("MARIGOLD_CUDA_ARCHITECTURES", "").replace(",", " ").split() or ARCHITECTURES
    nvcc = find_nvcc()
    include, cublas = find_cublas(nvcc)
    object_folder.mkdir(parents=True, exist_ok=True)
    output_folder.mkdir(parents=True, exist_ok=True)
    nccl = find_nccl(nvcc)
    libraries = [f"-isystem={include}", *([] if nccl is None else ["-DMG_CUDA_NCCL", f"-isystem={nccl}"])]
    objects, remarks = compile_all(object_folder, nvcc, libraries, architectures)
    library = output_folder / LIBRARY
    # The runtime is linked in; cuBLAS is found by its name, with the package loaded before or on the system's path.
    link = [str(nvcc), "-shared", "-cudart", "static", "-o", str(library), *map(str, objects), "-Xlinker", str(cublas)]
    run([*link, "-Xlinker", "-z,defs", "-Xlinker", "--exclude-libs,ALL", *architecture_flags(architectures)])
    return library, remarks


# ---- what kernels take ----


@dataclass(frozen=True)
class Kernel:
    name: str
    architecture: str
    registers: int
    shared_bytes: int
    spilled_bytes: int


_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\S+)' for '(?P<architecture>\S+)'.*?"
    r"(?P<spilled>\d+) bytes spill stores.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
_SHARED = re.compile(r"(\d+) bytes smem")


def readable(mangled: str) -> str:
    """conv2d_kernel<__half, 64> for _Z13conv2d_kernelI6__halfLi64EE...; the name itself if it is no such."""
    found = re.match(r"_Z(\d+)", mangled)
    if not found:
        return mangled
    begin, length = found.end(), int(found[1])
    name, rest = mangled[begin : begin + length], mangled[begin + length :]
    one = r"13__nv_bfloat16|6__half|7mg_tf32|f|S\d?_|Li\d+E"
    arguments = re.match(rf"I((?:7mg_packI|{one})+)E", rest)
    if not arguments:
        return name
    parts = re.findall(one, arguments[1])
    names = {"13__nv_bfloat16": "bfloat16", "6__half": "float16", "7mg_tf32": "tf32", "f": "float32"}
    shown: list[str] = []
    for part in parts:
        shown.append(part[2:-1] if part.startswith("Li") else shown[0] if part.startswith("S") else names[part])
    return f"{name}<{', '.join(shown)}>"


def kernels_of(remarks: str) -> list[Kernel]:
    found = []
    for entry in _ENTRY.finditer(remarks):
        shared = _SHARED.search(entry["rest"])
        found.append(
            Kernel(
                readable(entry["name"]),
                entry["architecture"],
                int(entry["registers"]),
                int(shared[1]) if shared else 0,
                int(entry["spilled"]),
            )
        )
    return found


def table_of(kernels: Iterable[Kernel]) -> str:
    """A line a kernel: registers and spilled bytes on each architecture, shared memory on all."""
    listed = list(kernels)
    architectures = sorted({kernel.architecture for kernel in listed}, key=lambda name: int(name[3:]))
    width = max(44, *(len(kernel.name) for kernel in listed))
    columns = "".join(f"{name:>11}" for name in architectures)
    lines = [f"{'registers (spilled bytes)':{width}}{columns}{'shared':>9}"]
    for name in sorted({kernel.name for kernel in listed}):
        cells, shared = "", 0
        for architecture in architectures:
            one = next((k for k in listed if (k.name, k.architecture) == (name, architecture)), None)
            text = "" if one is None else f"{one.registers}" + (f" ({one.spilled_bytes})" if one.spilled_bytes else "")
            cells += f"{text:>11}"
            shared = max(shared, one.shared_bytes if one else 0)
        lines.append(f"{name:{width}}{cells}{shared:>9}")
    return "\n".join(lines)


def most_registers(kernel: Kernel) -> int:
    """A thread's. Blocks have 256 threads, but for attention's, which tells its warps: <type, size, warps, keys>."""
    warps = re.match(r"flash_attention_kernel<\w+, \d+, (\d+),", kernel.name)
    return min(REGISTERS // (2 * (int(warps[1]) * WARP if warps else THREADS)), 255)


def over_limits(kernels: Iterable[Kernel]) -> list[str]:
    return [
        f"{kernel.name} on {kernel.architecture}: {kernel.registers} registers, {kernel.shared_bytes} bytes of shared "
        f"memory, {kernel.spilled_bytes} spilled; allowed: {most_registers(kernel)}, {MOST_SHARED_BYTES}, "
        f"{MOST_SPILLED_BYTES}"
        for kernel in kernels
        if kernel.registers > most_registers(kernel)
        or kernel.shared_bytes > MOST_SHARED_BYTES
        or kernel.spilled_bytes > MOST_SPILLED_BYTES
    ]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__)
        return 2
    folder = Path(arguments[0])
    try:
        library, remarks = build(folder, folder / "objects")
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    kernels = kernels_of(remarks)
    print(table_of(kernels))
    print(f"{library}: {library.stat().st_size / 1e6:.1f} MB, {len({kernel.name for kernel in kernels})} kernels")
    faults = over_limits(kernels)
    print("\n".join(faults), end="\n" if faults else "", file=sys.stderr)
    return 1 if faults or not kernels else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

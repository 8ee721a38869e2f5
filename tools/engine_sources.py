"""What the engine is compiled from, and the flags of single files: for setup.py and tools/compile_elsewhere.py."""

from __future__ import annotations

from pathlib import Path

from border import border_flag

ROOT = Path(__file__).resolve().parents[1]
ENGINE_ROOMS = (
    *("core", "op", "image", "io", "backend", "graph", "nn", "schedule", "pipeline"),
    *("completion", "video", "train", "ensemble", "evaluation"),
)
# Files whose results must not depend on whether a processor multiplies and adds at once, or that load other backends.
UNFUSED = ["-ffp-contract=off"]
FILE_FLAGS = {"align_snippets.c": UNFUSED, "colormap.c": UNFUSED, "library.c": [border_flag()]}

# One kernel file per instruction set: only these may contain instructions beyond the platform's baseline.
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mprefer-vector-width=512"]
AVX512BF16 = [*AVX512, "-mavx512vnni", "-mavx512bf16"]
X86_64_FLAGS = {
    "kernels_avx2.c": AVX2,
    "kernels_avxvnni.c": [*AVX2, "-mavxvnni"],
    "kernels_avx512.c": AVX512,
    "kernels_avx512vnni.c": [*AVX512, "-mavx512vnni"],
    "kernels_avx512bf16.c": AVX512BF16,
    "kernels_amx.c": [*AVX512BF16, "-mamx-tile", "-mamx-bf16", "-mamx-int8"],
}
AARCH64_FLAGS = {
    "kernels_neon_dotprod.c": ["-mcpu=generic+dotprod"],
    "kernels_neon_bf16.c": ["-mcpu=generic+dotprod+bf16"],
    "kernels_neon_i8mm.c": ["-mcpu=generic+dotprod+bf16+i8mm"],
}
FLAGS_OF_MACHINE = {"x86_64": X86_64_FLAGS, "amd64": X86_64_FLAGS, "aarch64": AARCH64_FLAGS, "arm64": AARCH64_FLAGS}


def sources(*folders: str) -> list[str]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.c")]
    return sorted(str(path.relative_to(ROOT)) for path in found)

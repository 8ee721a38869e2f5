"""The kernels for AVX-VNNI where this processor has other vectors.

tests/avxvnni_processor.c, preloaded, answers CPUID as a processor with AVX-VNNI and without AVX-512, and does what its
two instructions do when they are met. So the choice of kernels is seen, and the machine code that such processors run,
held to float64."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CPUINFO = Path("/proc/cpuinfo")
FLAGS = set(re.findall(r"\S+", CPUINFO.read_text(encoding="utf-8"))) if CPUINFO.exists() else set()
if platform.machine() != "x86_64" or not {"avx2", "fma", "cpuid_fault"} <= FLAGS:
    pytest.skip("needs AVX2 and CPUID that can be made to fault (cpuid_fault)", allow_module_level=True)
if shutil.which("cc") is None:
    pytest.skip("needs cc", allow_module_level=True)

# A linear layer with bytes and a 3x3 convolution with 16-bit integers of a common exponent, held to float64. Values are
# of bfloat16 itself. Bytes are off by half a step of a row of x and of a column of the weight; of the convolution the
# result is rounded to bfloat16, and its transformed operands to 16 bit.
PRODUCT = """
import numpy as np
from marigold_c import _testing
random = np.random.default_rng(0)
x, weight = (random.integers(-64, 64, shape).astype(np.float32) / 8 for shape in ((1, 1, 37, 200), (51, 200)))
bias = random.integers(-64, 64, 51).astype(np.float32) / 8
rows, columns = x[0, 0].astype(float), weight.astype(float)
expected = rows @ columns.T + bias
step = 0.5 / 127 * 1.01
of_rows = step * np.abs(rows).max(axis=1, keepdims=True) * np.abs(columns).sum(axis=1)
of_columns = step * np.abs(columns).max(axis=1) * np.abs(rows).sum(axis=1, keepdims=True)
shape, data = _testing.run_op("cpu", "avxvnni", 2, "linear", {}, [x, weight, bias], -1, "int8")
found = np.frombuffer(data, np.float32).reshape(shape)[0, 0]
allowed = 2.0**-8 * np.abs(expected) + 1.2 * (of_rows + of_columns)
assert (np.abs(found - expected) <= allowed).all(), "linear"

x, weight = (random.integers(-64, 64, shape).astype(np.float32) / 8 for shape in ((1, 24, 24, 8), (40, 8, 3, 3)))
windows = np.lib.stride_tricks.sliding_window_view(x[0].astype(float), (3, 3), axis=(0, 1))
expected = np.einsum("hwcij,ocij->hwo", windows, weight)
magnitude = np.einsum("hwcij,ocij->hwo", np.abs(windows), np.abs(weight))
shape, data = _testing.run_op("cpu", "avxvnni", 2, "conv2d", {}, [x, weight], -1, "bfloat16")
found = np.frombuffer(data, np.float32).reshape(shape)[0]
assert (np.abs(found - expected) <= 2.0**-8 * (np.abs(expected) + magnitude / 4)).all(), "conv2d"
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("avxvnni")
    library = folder / "processor.so"
    source = HERE / "avxvnni_processor.c"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", source, "-o", library], check=True)
    kept = {name: value for name, value in os.environ.items() if name != "MARIGOLD_ISA"}
    return kept | {"LD_PRELOAD": str(library), "AVXVNNI_COUNT": str(folder / "count")}


def test_the_kernels_are_chosen(environment: dict[str, str]) -> None:
    code = "from marigold_c import _C, _testing; print(_C.best_isa(), *_testing.isas())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["avxvnni", "scalar", "avx2", "avxvnni"]


def test_the_instructions_are_what_the_manual_says(environment: dict[str, str], tmp_path: Path) -> None:
    """Of the substitute itself: each form of an operand, beside plain loops."""
    program = tmp_path / "instructions"
    source = HERE / "avxvnni_instructions.c"
    subprocess.run(["cc", "-O1", "-mavx2", "-mavxvnni", source, "-o", program], check=True)
    done = subprocess.run([program], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "equal\n"


def test_products_of_integers_agree_with_float64(environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", PRODUCT], env=environment, check=True)
    of_bytes, of_words = map(int, Path(environment["AVXVNNI_COUNT"]).read_text(encoding="utf-8").split())
    assert (of_bytes and of_words) or "avx_vnni" in FLAGS

"""What ptxas makes of the inner loops: products of tensor cores beside the instructions that feed them, nothing of
local memory, and code that fits into the instruction cache."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from ptx.sass import Code, code_of

OBJECTS = Path(__file__).resolve().parents[2] / "build" / "cuda" / "objects"
HALF = "6__half"
MAX_CODE_BYTES = 48 << 10
MAX_SPILLS = 16  # loads and stores of local memory outside of loops: what make cuda-build allows

# Kernel -> for one step of its loop: mma.sync of 16x8x16, ldmatrix.x4, cp.async of a thread.
LOOPS = {
    ("conv2d.cu", f"conv2d_kernelI{HALF}S0_Li64ES0_E"): (16, 8, 3),
    ("conv2d.cu", f"conv2d_kernelI{HALF}S0_Li128ES0_E"): (32, 12, 4),
    ("attention.cu", f"flash_attention_kernelI{HALF}Li64ELi8ELi64EE"): (64, 32, 4),
    ("attention.cu", f"flash_attention_kernelI{HALF}Li64ELi4ELi64EE"): (64, 32, 8),
}


def cuobjdump() -> Path:
    """Of the package nvidia-cuda-cuobjdump, or of the toolkit."""
    for folder in map(Path, sys.path):
        for found in folder.glob("nvidia/cu*/bin/cuobjdump"):
            return found
    on_path = shutil.which("cuobjdump")
    if on_path is None:
        pytest.skip("cuobjdump is not there")
    return Path(on_path)


def find(source: str, name: str, architecture: str) -> Code:
    kernels = code_of(cuobjdump(), OBJECTS / f"{source}.o", architecture)
    (found,) = (code for mangled, code in kernels.items() if name in mangled)
    return found


@pytest.mark.parametrize("architecture", ["80", "86", "90"])
@pytest.mark.parametrize(("source", "name"), LOOPS)
def test_loops_feed_the_tensor_cores(source: str, name: str, architecture: str) -> None:
    code, (products, matrices, copies) = find(source, name, architecture), LOOPS[source, name]
    loop = code.main_loop()
    assert (loop["HMMA"], loop["LDSM"], loop["LDGSTS"]) == (products, matrices, copies), loop
    # Stores are those of pixels that are not made of whole chunks.
    assert loop["BAR"] == 1 and loop["LDS"] == 0 and loop["STS"] <= 2
    assert loop["LDL"] == loop["STL"] == 0


@pytest.mark.parametrize("name", [name for _, name in LOOPS if "conv2d" in name])
def test_turing_multiplies_in_its_loop(name: str) -> None:
    """Its product has half the depth, and registers are what tiles arrive in."""
    loop = find("conv2d.cu", name, "75").main_loop()
    products, matrices, _ = LOOPS["conv2d.cu", name]
    assert (loop["HMMA"], loop["LDSM"], loop["LDGSTS"], loop["BAR"]) == (2 * products, matrices, 0, 1), loop


@pytest.mark.parametrize("architecture", ["75", "80", "86", "90"])
@pytest.mark.parametrize("source", ["conv2d.cu", "attention.cu", "attention_gradient.cu", "attention_products.cu"])
def test_kernels_keep_to_registers_and_are_not_too_long(source: str, architecture: str) -> None:
    kernels = code_of(cuobjdump(), OBJECTS / f"{source}.o", architecture)
    assert kernels
    for name, code in kernels.items():
        assert code.count("LDL", "STL") <= MAX_SPILLS, name
        assert code.size <= MAX_CODE_BYTES, (name, code.size)

"""What ptxas makes of the inner loops: products of tensor cores beside the instructions that feed them, nothing of
local memory, and code that fits into the instruction cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from ptx.sass import Code, code_of, cuobjdump

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


def code(source: str, architecture: str) -> dict[str, Code]:
    tool = cuobjdump()
    if tool is None:
        pytest.skip("cuobjdump is not there")
    return code_of(tool, OBJECTS / f"{source}.o", architecture)


def find(source: str, name: str, architecture: str) -> Code:
    (found,) = (one for mangled, one in code(source, architecture).items() if name in mangled)
    return found


@pytest.mark.parametrize("architecture", ["80", "86", "90"])
@pytest.mark.parametrize(("source", "name"), LOOPS)
def test_loops_feed_the_tensor_cores(source: str, name: str, architecture: str) -> None:
    loop, (products, matrices, copies) = find(source, name, architecture).main_loop(), LOOPS[source, name]
    assert (loop["HMMA"], loop["LDSM"], loop["LDGSTS"]) == (products, matrices, copies), loop
    # Stores are those of pixels that are not made of whole chunks.
    assert loop["BAR"] == 1 and loop["LDS"] == 0 and loop["STS"] <= 2
    assert loop["LDL"] == loop["STL"] == 0


@pytest.mark.parametrize("name", [name for _, name in LOOPS if "conv2d" in name and "Li64E" in name])
def test_turing_multiplies_in_its_loop(name: str) -> None:
    """Its product has half the depth, and registers are what tiles arrive in; wide tiles are never launched there."""
    loop = find("conv2d.cu", name, "75").main_loop()
    products, matrices, _ = LOOPS["conv2d.cu", name]
    assert (loop["HMMA"], loop["LDSM"], loop["LDGSTS"], loop["BAR"]) == (2 * products, matrices, 0, 1), loop


@pytest.mark.parametrize("architecture", ["75", "80", "86", "90"])
@pytest.mark.parametrize("source", ["conv2d.cu", "attention.cu", "attention_gradient.cu", "attention_products.cu"])
def test_kernels_keep_to_registers_and_are_not_too_long(source: str, architecture: str) -> None:
    kernels = code(source, architecture)
    assert kernels
    for name, found in kernels.items():
        assert found.count("LDL", "STL") <= MAX_SPILLS, name
        assert found.size <= MAX_CODE_BYTES, (name, found.size)

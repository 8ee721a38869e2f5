"""Shared memory is read and written without bank conflicts where it matters: what a tile's loop does, and how often."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from ptx.cases import PAD, Run
from ptx.machine import launch
from ptx.memory import GlobalMemory, Traffic
from ptx.module import Kernel
from ptx.test_ptx_kernels import launches_of
from test_ops import Case

# Times the least number of wavefronts, by instruction. Copies of keys meet where a row of 6 or 20 chunks ends;
# epilogues store pairs of floats to rows of 36.
ALLOWED = {"ldmatrix": 1.0, "cp": 2.0, "ld": 2.0, "st": 2.0}
RUNS = {
    "narrow": Run(Case("conv2d", [(1, 8, 16, 64), (64, 64, 3, 3), (64,)], PAD), "float16"),
    "wide": Run(Case("conv2d", [(1, 8, 16, 32), (128, 32, 3, 3), (128,)], PAD), "tf32"),
    "head 64": Run(Case("attention", [(1, 1, 64, 64), (1, 1, 128, 64), (1, 1, 128, 64)], {"heads": 1}), "float16"),
    "head 40": Run(Case("attention", [(1, 1, 64, 40), (1, 1, 128, 40), (1, 1, 128, 40)], {"heads": 1}), "bfloat16"),
    "head 160": Run(Case("attention", [(1, 1, 64, 160), (1, 1, 64, 160), (1, 1, 64, 160)], {"heads": 1}), "float16"),
    "transposition": Run(Case("nchw_to_nhwc", [(1, 32, 8, 8)]), "float32"),
}


@pytest.mark.parametrize("name", RUNS)
def test_there_are_no_bank_conflicts(
    emulation: Any, kernels_of: Callable[[str], dict[str, Kernel]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("MARIGOLD_CUDA_CONV2D_TILE", name)
    kernels = kernels_of("80")
    for made in launches_of(emulation, RUNS[name], "80", kernels):
        kernel = kernels[made.kernel]
        memory = GlobalMemory(made.before)
        total: dict[str, Traffic] = defaultdict(Traffic)
        for result in launch(kernel, made.grid, made.threads, made.arguments, memory, profile=True):
            assert result.shared is not None
            for index, traffic in result.shared.traffic.items():
                one = total[kernel.code[index].operation[0]]
                one.units += traffic.units
                one.ideal += traffic.ideal
        assert total
        for operation, traffic in total.items():
            assert traffic.units <= ALLOWED[operation] * traffic.ideal, (kernel.name, operation, traffic)

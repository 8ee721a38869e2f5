"""The PTX that nvcc makes of the kernels computes what their C++ computes in the emulation, without races, misaligned
or stray accesses and divergent warps, on each generation of tensor cores."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from ptx.cases import TOLERANCES, Run, all_runs, written_type
from ptx.launches import Launch, interpret, recorded
from ptx.module import Kernel

RUNS = [
    pytest.param(architecture, run, id=f"sm_{architecture}-{run}")
    for architecture in ("75", "80")
    for run in all_runs()
    if int(architecture) >= run.least_capability
]


# 9.0 makes a float32 of a bfloat16 by an instruction; before, 16 zeros are put below it: the same number.
WIDENING = re.compile(r"cvt\.f32\.bf16 (%f\d+), (%rs\d+)")


def test_newer_architectures_get_the_same_ptx(kernels_of: Callable[[str], dict[str, Kernel]]) -> None:
    """So that what holds for 8.0 holds for 9.0, until a kernel has code of its own for it."""
    for name, kernel in kernels_of("80").items():
        newer = [WIDENING.sub(r"mov.b32 \1, {0,\2}", one.text) for one in kernels_of("90")[name].code]
        assert newer == [one.text for one in kernel.code], name
        assert kernels_of("90")[name].labels == kernel.labels, name


def launches_of(emulation: Any, run: Run, architecture: str, kernels: dict[str, Kernel]) -> list[Launch]:
    """Those of the kernels that were compiled to PTX here."""
    emulation.mg_emu_set_device(1, int(architecture))
    with recorded(os.environ["MARIGOLD_CUDA_LIBRARY"]) as made:
        run()
    return [launch for launch in made if launch.kernel in kernels]


def check(kernel: Kernel, made: Launch, run: Run) -> None:
    dtype = written_type(made.kernel, run)
    outcome = interpret(kernel, made, dtype)
    assert outcome.written > 0, kernel.name
    assert not outcome.differs_in_nan, kernel.name
    assert outcome.worst <= TOLERANCES[dtype], f"{kernel.name}: {outcome.worst:.3g}"


@pytest.mark.parametrize(("architecture", "run"), RUNS)
def test_ptx_computes_what_the_emulation_computes(
    emulation: Any, kernels_of: Callable[[str], dict[str, Kernel]], architecture: str, run: Run
) -> None:
    kernels = kernels_of(architecture)
    made = launches_of(emulation, run, architecture, kernels)
    assert made
    for launch in made:
        check(kernels[launch.kernel], launch, run)

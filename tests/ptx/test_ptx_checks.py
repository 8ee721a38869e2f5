"""The interpreter's checks notice what they are for: a barrier that is missing, and each kind of fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ptx import module
from ptx.cases import Run, all_runs
from ptx.machine import launch
from ptx.memory import Fault, GlobalMemory
from ptx.module import Instruction, Kernel
from ptx.test_ptx_kernels import check, launches_of

# ---- mutations ----

FAMILIES = ("conv2d", "attention", "groupnorm", "nchw_to_nhwc", "gradient of attention", "gradient of conv2d")


def without(kernel: Kernel, index: int) -> Kernel:
    code = list(kernel.code)
    code[index] = Instruction("no barrier", ("nothing",), (), None, False)
    return replace(kernel, code=code)


def is_noticed(kernel: Kernel, made: Any, run: Run) -> bool:
    try:
        check(kernel, made, run)
    except (Fault, AssertionError):
        return True
    return False


@pytest.mark.parametrize("family", FAMILIES)
def test_each_missing_barrier_is_noticed(
    emulation: Any, kernels_of: Callable[[str], dict[str, Kernel]], family: str
) -> None:
    """In some launch of the kernel: not each case comes to each barrier twice."""
    kernels, noticed, unnoticed = kernels_of("80"), set(), {}
    for run in all_runs():
        if not str(run).startswith(family) or run.precision not in ("float16", "float32"):
            continue
        for made in launches_of(emulation, run, "80", kernels):
            kernel = kernels[made.kernel]
            for index in kernel.barriers():
                key = (kernel.name, index)
                if key not in noticed and is_noticed(without(kernel, index), made, run):
                    noticed.add(key)
                unnoticed[key] = f"barrier {kernel.barriers().index(index)} of {kernel.name}"
    assert noticed
    assert not [text for key, text in unnoticed.items() if key not in noticed]


# ---- faults ----

HEAD = """
.visible .entry test(.param .u64 out)
{
    .reg .pred %p<3>;
    .reg .b32 %r<9>;
    .reg .b64 %rd<9>;
    .shared .align 16 .b8 tile[256];
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, tile;
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
    shl.b32 %r3, %r1, 2;
    add.s32 %r4, %r2, %r3;
    xor.b32 %r5, %r3, 4;
    add.s32 %r5, %r2, %r5;
    setp.lt.u32 %p1, %r1, 7;
"""
GOOD = "st.shared.u32 [%r4], %r1; bar.sync 0; ld.shared.u32 %r6, [%r5]; st.global.u32 [%rd3], %r6;"
MATRIX = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r6, %r7, %r8, %r6}, [%r2];"


def run_text(body: str, threads: int = 64) -> Any:
    kernel = module.parse(f"{HEAD}{body} ret; }}")["test"]
    memory = GlobalMemory({4096: bytes(4 * threads)})
    launch(kernel, (1, 1, 1), threads, (4096).to_bytes(8, "little"), memory)
    return memory.bytes[4096].view(np.uint32)


def test_threads_see_each_other_through_a_barrier() -> None:
    np.testing.assert_array_equal(run_text(GOOD), np.arange(64) ^ 1)


def test_lanes_see_each_other_through_a_barrier_of_the_warp() -> None:
    np.testing.assert_array_equal(run_text(GOOD.replace("bar.sync 0", "bar.warp.sync -1")), np.arange(64) ^ 1)


COPY = "cp.async.cg.shared.global [%r2], [%rd1], 16, 16; cp.async.commit_group;"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (GOOD.replace("bar.sync 0;", ""), "reads what another thread wrote"),
        (GOOD + "st.shared.u32 [%r4], %r1;", "writes what another thread reads"),
        ("st.shared.u32 [%r2], %r1;", "two threads write one element"),
        ("st.global.u32 [%rd1], %r1;", "two threads write one element"),
        ("st.global.u32 [%rd3], %r1; ld.global.u32 %r6, [%rd1];", "another one has written in the same launch"),
        ("ld.global.u32 %r6, [%rd3+4];", "global address out of bounds"),
        ("ld.shared.u32 %r6, [%r4+4];", "shared address out of bounds"),
        ("ld.shared.v4.u32 {%r5, %r6, %r7, %r8}, [%r4];", "misaligned shared address"),
        ("ld.global.u32 %r6, [%rd3+2];", "misaligned address"),
        (f"@%p1 bra $L; {MATRIX} $L:", "a warp has diverged"),
        ("@%p1 bra $L; bar.sync 0; $L:", "a thread ended while others wait"),
        ("@%p1 bra $L; bar.sync 0; bra $M; $L: bar.sync 0; $M:", "wait at different barriers"),
        (f"setp.eq.u32 %p2, %r1, 0; @%p2 bra $C; bra $E; $C: {COPY} ld.shared.u32 %r6, [%r2]; $E:", "not brought yet"),
        ("trap;", "trap"),
    ],
)
def test_faults_are_noticed(body: str, fault: str) -> None:
    with pytest.raises(Fault, match=fault):
        run_text(body)


def test_copies_are_there_when_they_have_been_waited_for() -> None:
    """The second group may still be under way."""
    two = "setp.eq.u32 %p2, %r1, 0; @%p2 bra $C; bra $E; $C: " + COPY + COPY.replace("[%r2]", "[%r2+16]")
    run_text(two + " cp.async.wait_group 1; ld.shared.u32 %r6, [%r2]; $E:")
    with pytest.raises(Fault, match="not brought yet"):
        run_text(two + " cp.async.wait_group 1; ld.shared.u32 %r6, [%r2+16]; $E:")

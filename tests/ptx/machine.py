"""Runs the PTX of a kernel: all threads of several blocks at a time, one numpy operation an instruction.

Threads that are at the same instruction go on together, those that are furthest behind first. A barrier of the block
waits for all its threads; instructions of a whole warp (mma, ldmatrix, shfl) are faults where lanes are missing. Memory
is checked by memory.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ptx import arithmetic
from ptx.accesses import AccessInstructions
from ptx.memory import WARP, Fault, GlobalMemory
from ptx.module import Instruction, Kernel, PtxError
from ptx.registers import Result, Step
from ptx.scalar import ScalarInstructions

Array = Any


class Machine(ScalarInstructions, AccessInstructions):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.copies = []
        self.committed = np.zeros(self.lanes, np.int64)
        self.steps = [self._decode(one) for one in self.kernel.code]

    def _decode(self, one: Instruction) -> Step:
        name = one.operation[0]
        special = getattr(self, f"_decode_{name}", None)
        if special:
            return special(one)  # type: ignore[no-any-return]
        kind = "pred" if one.operation[-1] == "pred" else one.operation[-1]
        if name in arithmetic.UNARY:
            function, a = arithmetic.UNARY[name], self._reader(one.operands[1], kind)
            write = self._writer(one.operands[0], kind)
            if name in ("neg", "abs", "not") or kind == "f64":
                return lambda mask: write(function(a()), mask)
            return lambda mask: write(function(a()).astype(np.float32), mask)
        two = arithmetic.binary(one.operation)
        if two is not None:
            return self._decode_binary(one, two, kind)
        raise PtxError(one.text)

    def _decode_nothing(self, one: Instruction) -> Step:
        return lambda mask: None

    _decode_bra = _decode_ret = _decode_exit = _decode_nothing

    def _decode_bar(self, one: Instruction) -> Step:
        if "warp" not in one.operation:
            return lambda mask: None

        def synchronise(mask: Array) -> None:
            self._exchange(mask, one)
            np.add(self.shared.warp_epoch, 1, out=self.shared.warp_epoch, where=mask.reshape(-1, WARP)[:, 0])

        return synchronise

    _decode_barrier = _decode_bar

    def _decode_trap(self, one: Instruction) -> Step:
        def trap(mask: Array) -> None:
            if mask.any():
                raise Fault("trap")

        return trap

    def run(self, first_lane: int = 0) -> Result:
        """From the beginning to the end of all threads. first_lane tells the threads of several calls apart."""
        code, end = self.kernel.code, len(self.kernel.code)
        self.global_lanes = (self.lane + first_lane).astype(np.int32)
        counters = np.zeros(self.lanes, np.int64)
        alive, waiting = np.ones(self.lanes, bool), np.zeros(self.lanes, bool)
        blocks = np.arange(self.lanes) // self.threads
        with np.errstate(all="ignore"):
            while alive.any():
                ready = alive & ~waiting
                if not ready.any():
                    ended = "" if alive.all() else ": a thread ended while others wait for it at a barrier"
                    raise Fault(f"threads wait for ever{ended}")
                at = int(counters[ready].min())
                mask = ready & (counters == at)
                others = counters[ready & (counters > at)]
                stop = int(others.min()) if len(others) else end
                while at < end:
                    one = code[at]
                    active = mask
                    if one.predicate:
                        predicate = self.registers[one.predicate]
                        active = mask & (~predicate if one.negated else predicate)
                    name = one.operation[0]
                    self.current = at
                    if self.profile:
                        self.result.warp_instructions[at] += int(active.reshape(-1, WARP).any(axis=1).sum())
                    if active.any():
                        self.result.instructions[name] += 1
                        self.steps[at](active)
                    at += 1
                    if name == "bra":
                        counters[mask] = at
                        counters[active] = self.kernel.labels[one.operands[0]]
                        break
                    if name in ("ret", "exit"):
                        alive &= ~active
                        counters[mask] = at
                        break
                    if name in ("bar", "barrier") and "warp" not in one.operation:
                        counters[mask] = at
                        waiting |= active
                        self._release(alive, waiting, counters, blocks)
                        break
                    if at >= stop:
                        counters[mask] = at
                        break
                else:
                    alive &= ~mask
        return self.result

    def _release(self, alive: Array, waiting: Array, counters: Array, blocks: Array) -> None:
        """Blocks of which all threads wait go on."""
        for block in np.unique(blocks[waiting]):
            own = blocks == block
            if not waiting[own].all():
                if (~alive[own]).any():
                    raise Fault("a thread ended while others wait for it at a barrier")
                continue
            if len(np.unique(counters[own])) > 1:
                raise Fault("threads of a block wait at different barriers")
            waiting[own] = False
            self.shared.epoch[block] += 1
            self.shared.warp_epoch[np.unique(self.lane[own] // WARP)] += 1
            self.shared.exchanges[np.unique(self.lane[own] // WARP)] += 1


def launch(
    kernel: Kernel,
    grid: tuple[int, int, int],
    threads: int,
    parameters: bytes,
    memory: GlobalMemory,
    *,
    at_once: int = 8,
    profile: bool = False,
    blocks: list[tuple[int, int, int]] | None = None,
) -> list[Result]:
    """All blocks of a launch (or those named), some at a time."""
    padded = -(-threads // WARP) * WARP
    if padded != threads:
        raise PtxError("blocks of whole warps only")
    every = [(x, y, z) for z in range(grid[2]) for y in range(grid[1]) for x in range(grid[0])]
    chosen = every if blocks is None else blocks
    results = []
    for first in range(0, len(chosen), at_once):
        some = chosen[first : first + at_once]
        machine = Machine(kernel, grid, threads, parameters, memory, some, profile)
        results.append(machine.run(first * threads))
    return results

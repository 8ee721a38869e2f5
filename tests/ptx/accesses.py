"""Instructions that reach memory or other lanes: loads, stores, asynchronous copies, shuffles, tensor cores."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from ptx import arithmetic
from ptx.memory import SHARED_WINDOW, WARP, Fault
from ptx.module import NUMPY, SIZES, Instruction, PtxError
from ptx.registers import Step, Threads

Array = Any


@dataclass
class _Copies:
    """cp.async of some threads that are under way."""

    lanes: Array
    groups: Array
    offsets: Array
    values: Array


class AccessInstructions(Threads):
    copies: list[_Copies]
    committed: Array  # groups of copies, by thread

    def _decode_ld(self, one: Instruction) -> Step:
        kind, to = one.operation[-1], self._list(one.operands[0])
        size, writes = SIZES[kind], [self._writer(register, kind) for register in self._list(one.operands[0])]
        unsigned = np.dtype(f"u{size}")
        if one.operation[1] == "param":
            inside = re.fullmatch(r"\[(\w+)(?:\+(\d+))?\]", one.operands[1])
            if not inside:
                raise PtxError(one.text)
            offset = self.kernel.parameters[inside[1]] + int(inside[2] or 0)
            values = np.frombuffer(self.parameters, NUMPY[kind], len(to), offset)

            def load_parameter(mask: Array) -> None:
                for write, value in zip(writes, values, strict=True):
                    write(value, mask)

            return load_parameter
        address, total = self._address(one.operands[1]), size * len(to)
        whole = np.zeros((self.lanes, total), np.uint8)

        def load(mask: Array) -> None:
            lanes = np.flatnonzero(mask)
            whole[lanes] = self._load(one, address()[lanes], total, lanes)
            for i, write in enumerate(writes):
                part = np.ascontiguousarray(whole[:, i * size : (i + 1) * size]).view(unsigned)[:, 0]
                write(part.view(NUMPY[kind]), mask)

        return load

    def _space(self, one: Instruction, addresses: Array) -> tuple[bool, Array]:
        """Whether the addresses are of shared memory, and as such."""
        if "shared" in one.operation:
            return True, addresses
        if "global" not in one.operation and len(addresses) and (addresses >= SHARED_WINDOW).all():
            return True, addresses - SHARED_WINDOW
        return False, addresses

    def _load(self, one: Instruction, addresses: Array, size: int, lanes: Array) -> Array:
        is_shared, addresses = self._space(one, addresses)
        memory = self.shared if is_shared else self.memory
        if self.profile:
            memory.count(self.current, addresses, lanes, size)
        return memory.load(addresses, size, lanes if is_shared else self.global_lanes[lanes], one.text)

    def _decode_st(self, one: Instruction) -> Step:
        kind = one.operation[-1]
        bits = f"u{8 * SIZES[kind]}"
        reads = [self._reader(register, bits) for register in self._list(one.operands[1])]
        address, total = self._address(one.operands[0]), SIZES[kind] * len(reads)

        def store(mask: Array) -> None:
            lanes = np.flatnonzero(mask)
            parts = [np.broadcast_to(read(), (self.lanes,))[lanes] for read in reads]
            values = np.ascontiguousarray(np.stack(parts, axis=1)).view(np.uint8)
            is_shared, addresses = self._space(one, address()[lanes])
            memory = self.shared if is_shared else self.memory
            if self.profile:
                memory.count(self.current, addresses, lanes, total)
            memory.store(addresses, values, lanes if is_shared else self.global_lanes[lanes], one.text)

        return store

    def _decode_cp(self, one: Instruction) -> Step:
        if one.operation[1] != "async" or "bulk" in one.operation:
            raise PtxError(one.text)
        if "commit_group" in one.operation:
            return lambda mask: np.add(self.committed, 1, out=self.committed, where=mask)
        if "wait_group" in one.operation:
            count = int(one.operands[0])
            return lambda mask: self._end_copies(mask, count)
        if "wait_all" in one.operation:
            return lambda mask: self._end_copies(mask, -1)
        to, source, size = self._address(one.operands[0]), self._address(one.operands[1]), int(one.operands[2], 0)
        given = self._reader(one.operands[3], "u32") if len(one.operands) > 3 else None

        def copy(mask: Array) -> None:
            lanes = np.flatnonzero(mask)
            values = np.zeros((len(lanes), size), np.uint8)
            lengths = np.full(len(lanes), size) if given is None else np.broadcast_to(given(), (self.lanes,))[lanes]
            if not np.isin(lengths, (0, size)).all():
                raise PtxError("cp.async of a part")
            read = lengths == size
            addresses = source()[lanes]
            values[read] = self.memory.load(addresses[read], size, self.global_lanes[lanes[read]], one.text)
            if self.profile:
                self.memory.count(self.current, addresses[read], lanes[read], size)
                self.shared.count(self.current, to()[lanes], lanes, size)
            offsets = self.shared.begin_copy(to()[lanes], size, lanes, one.text)
            self.copies.append(_Copies(lanes, self.committed[lanes].copy(), offsets, values))

        return copy

    def _end_copies(self, mask: Array, pending: int) -> None:
        """Of all groups of the active threads but the last `pending`; -1: also what is not committed."""
        left = []
        for copies in self.copies:
            newest = self.committed[copies.lanes] - (pending if pending >= 0 else -1)
            done = mask[copies.lanes] & (copies.groups < newest)
            self.shared.end_copy(copies.offsets[done], copies.values[done], copies.lanes[done])
            if not done.all():
                kept = ~done
                left.append(_Copies(copies.lanes[kept], copies.groups[kept], copies.offsets[kept], copies.values[kept]))
        self.copies = left

    # ---- whole warps ----

    def _warps(self, mask: Array, one: Instruction) -> None:
        by_warp = mask.reshape(-1, WARP)
        if (by_warp.any(axis=1) != by_warp.all(axis=1)).any():
            raise Fault(f"a warp has diverged at {one.text}")

    def _exchange(self, mask: Array, one: Instruction) -> None:
        self._warps(mask, one)
        np.add(self.shared.exchanges, 1, out=self.shared.exchanges, where=mask.reshape(-1, WARP)[:, 0])

    def _decode_shfl(self, one: Instruction) -> Step:
        if "bfly" not in one.operation and "idx" not in one.operation:
            raise PtxError(one.text)
        read = self._reader(one.operands[1], "u32")
        which, write = self._reader(one.operands[2], "u32"), self._writer(one.operands[0].split("|")[0], "u32")
        exclusive = "bfly" in one.operation

        def shuffle(mask: Array) -> None:
            self._exchange(mask, one)
            other = np.broadcast_to(which(), (self.lanes,)).astype(np.int64)
            source = self.lane ^ other if exclusive else self.lane // WARP * WARP + other % WARP
            write(np.broadcast_to(read(), (self.lanes,))[source], mask)

        return shuffle

    def _decode_mma(self, one: Instruction) -> Step:
        shape = arithmetic.MMA_SHAPE.fullmatch(next(part for part in one.operation if part.startswith("m16n8")))
        if shape is None:
            raise PtxError(one.text)
        depth, kind = int(shape[1]), one.operation[-3]
        a, b = ([self._reader(r, "u32") for r in self._list(operand)] for operand in one.operands[1:3])
        c = [self._reader(register, "f32") for register in self._list(one.operands[3])]
        writes = [self._writer(register, "f32") for register in self._list(one.operands[0])]

        def multiply(mask: Array) -> None:
            self._warps(mask, one)
            stacked = (np.stack([np.broadcast_to(read(), (self.lanes,)) for read in reads]) for reads in (a, b, c))
            for write, value in zip(writes, arithmetic.multiply_add(*stacked, kind, depth), strict=True):
                write(value, mask)

        return multiply

    def _decode_ldmatrix(self, one: Instruction) -> Step:
        writes = [self._writer(register, "u32") for register in self._list(one.operands[0])]
        address, transposed = self._address(one.operands[1]), "trans" in one.operation
        lane = self.lane % WARP

        def load(mask: Array) -> None:
            self._warps(mask, one)
            lanes = np.flatnonzero(mask)
            used = lanes[lanes % WARP < 8 * len(writes)]
            rows = np.zeros((self.lanes, 8), np.uint16)
            rows[used] = self._load(one, address()[used], 16, used).view(np.uint16)
            matrices = rows.reshape(-1, WARP // 8, 8, 8)  # (warp, matrix, row, element)
            if transposed:
                matrices = matrices.swapaxes(2, 3)
            for i, write in enumerate(writes):
                pairs = matrices[:, i].astype(np.uint32)[self.lane // WARP, lane // 4]
                low, high = (pairs[self.lane, lane % 4 * 2 + k] for k in (0, 1))
                write(low | (high << np.uint32(16)), mask)

        return load

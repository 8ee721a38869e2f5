"""Instructions of single threads: arithmetic, conversions, comparisons, moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ptx import arithmetic
from ptx.memory import SHARED_WINDOW
from ptx.module import NUMPY, SIZES, Instruction, PtxError
from ptx.registers import Step, Threads

Array = Any


class ScalarInstructions(Threads):
    def _decode_binary(self, one: Instruction, function: Callable[..., Array], kind: str) -> Step:
        if "wide" in one.operation:
            wide = f"{kind[0]}{2 * 8 * SIZES[kind]}"
            a, b = (self._reader(operand, kind) for operand in one.operands[1:3])
            write = self._writer(one.operands[0], wide)
            return lambda mask: write(a().astype(NUMPY[wide]) * b().astype(NUMPY[wide]), mask)
        second = "u32" if one.operation[0] in ("shl", "shr") else kind
        a, b = self._reader(one.operands[1], kind), self._reader(one.operands[2], second)
        write = self._writer(one.operands[0], kind)
        if kind == "pred" and one.operation[0] not in ("and", "or", "xor"):
            raise PtxError(one.text)
        return lambda mask: write(function(a(), b()), mask)

    def _decode_mad(self, one: Instruction) -> Step:
        kind = one.operation[-1]
        result = f"{kind[0]}{2 * 8 * SIZES[kind]}" if "wide" in one.operation else kind
        a, b = (self._reader(operand, kind) for operand in one.operands[1:3])
        c, write = self._reader(one.operands[3], result), self._writer(one.operands[0], result)
        function, dtype = arithmetic.fused(one.operation), NUMPY[result]
        return lambda mask: write(function(a().astype(dtype), b().astype(dtype), c()), mask)

    _decode_fma = _decode_mad

    def _decode_not(self, one: Instruction) -> Step:
        kind = one.operation[-1]
        a, write = self._reader(one.operands[1], kind), self._writer(one.operands[0], kind)
        return lambda mask: write(np.invert(a()), mask)

    def _decode_mov(self, one: Instruction) -> Step:
        kind, to, source = one.operation[-1], *one.operands
        if to.startswith("{") or source.startswith("{"):
            parts = self._list(to if to.startswith("{") else source)
            bits = 8 * SIZES[kind] // len(parts)
            whole = f"u{8 * SIZES[kind]}"
            if to.startswith("{"):
                read = self._reader(source, whole)
                writes = [self._writer(part, f"u{bits}") for part in parts]

                def unpack(mask: Array) -> None:
                    value = read()
                    for i, write in enumerate(writes):
                        write((value >> value.dtype.type(i * bits)).astype(f"u{bits // 8}"), mask)

                return unpack
            reads, write_whole = [self._reader(part, f"u{bits}") for part in parts], self._writer(to, whole)
            dtype = NUMPY[whole]

            def pack(mask: Array) -> None:
                value = np.zeros(self.lanes, dtype)
                for i, part in enumerate(reads):
                    value |= part().astype(dtype) << dtype.type(i * bits)
                write_whole(value, mask)

            return pack
        read, write = self._reader(source, kind), self._writer(to, kind)
        return lambda mask: write(read(), mask)

    def _decode_cvta(self, one: Instruction) -> Step:
        read, write = self._reader(one.operands[1], "u64"), self._writer(one.operands[0], "u64")
        shift = (-SHARED_WINDOW if "to" in one.operation else SHARED_WINDOW) if "shared" in one.operation else 0
        return lambda mask: write((read().astype(np.int64) + shift).astype(np.uint64), mask)

    def _decode_cvt(self, one: Instruction) -> Step:
        to, source = one.operation[-2], one.operation[-1]
        write = self._writer(one.operands[0], to)
        reads = [self._reader(operand, source) for operand in one.operands[1:]]
        function = arithmetic.convert_pair(one.operation) if len(reads) == 2 else arithmetic.convert(one.operation)
        return lambda mask: write(function(*(read() for read in reads)), mask)

    def _decode_setp(self, one: Instruction) -> Step:
        kind, function = one.operation[-1], arithmetic.compare(one.operation[1])
        a, b = (self._reader(operand, kind) for operand in one.operands[1:3])
        to = one.operands[0].split("|")
        write, inverse = self._writer(to[0], "pred"), self._writer(to[1], "pred") if len(to) > 1 else None
        joined = next((name for name in ("and", "or", "xor") if name in one.operation[2:-1]), None)
        third = self._reader(one.operands[3], "pred") if joined else None
        join = arithmetic.BINARY[joined] if joined else None

        def compare(mask: Array) -> None:
            found = function(a(), b())
            write(join(found, third()) if join and third else found, mask)
            if inverse:
                inverse(join(~found, third()) if join and third else ~found, mask)

        return compare

    def _decode_selp(self, one: Instruction) -> Step:
        kind = one.operation[-1]
        a, b = (self._reader(operand, kind) for operand in one.operands[1:3])
        condition, write = self._reader(one.operands[3], "pred"), self._writer(one.operands[0], kind)
        return lambda mask: write(np.where(condition(), a(), b()), mask)

    def _decode_bfe(self, one: Instruction) -> Step:
        kind = one.operation[-1]
        a = self._reader(one.operands[1], kind)
        position, length = (self._reader(operand, "u32") for operand in one.operands[2:4])
        write, dtype, bits = self._writer(one.operands[0], kind), NUMPY[kind], 8 * SIZES[kind]

        def extract(mask: Array) -> None:
            up = (bits - position() - length()).astype(dtype)
            write((a() << up) >> (np.array(bits) - length()).astype(dtype), mask)

        return extract

    def _decode_bfi(self, one: Instruction) -> Step:
        kind = one.operation[-1]
        a, b = (self._reader(operand, kind) for operand in one.operands[1:3])
        position, length = (self._reader(operand, "u32") for operand in one.operands[3:5])
        write, dtype = self._writer(one.operands[0], kind), NUMPY[kind]

        def insert(mask: Array) -> None:
            ones = ((np.uint64(1) << length().astype(np.uint64)) - np.uint64(1)) << position().astype(np.uint64)
            field = (a().astype(np.uint64) << position().astype(np.uint64)) & ones
            write(((b().astype(np.uint64) & ~ones) | field).astype(dtype), mask)

        return insert

    def _decode_prmt(self, one: Instruction) -> Step:
        a, b, selector = (self._reader(operand, "u32") for operand in one.operands[1:4])
        write = self._writer(one.operands[0], "u32")

        def permute(mask: Array) -> None:
            both = a().astype(np.uint64) | (b().astype(np.uint64) << np.uint64(32))
            out = np.zeros(self.lanes, np.uint64)
            for i in range(4):
                which = (selector() >> np.uint32(4 * i)).astype(np.uint64) & np.uint64(7)
                out |= ((both >> (which * np.uint64(8))) & np.uint64(0xFF)) << np.uint64(8 * i)
            write(out.astype(np.uint32), mask)

        return permute

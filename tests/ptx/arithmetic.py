"""What PTX instructions compute: functions of numpy arrays, one element a thread."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from ptx.module import NUMPY, PtxError

Array = Any
Function = Callable[..., Array]


def bfloat16_of(x: Array) -> Array:
    """Bits of float32 rounded to bfloat16, to the nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint64(16)).astype(
        np.uint16
    )
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded)


def float_of_bfloat16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _quotient(a: Array, b: Array) -> Array:
    """Towards zero; by zero: all bits, as a GPU gives."""
    safe = np.where(b == 0, np.ones_like(b), b)
    floor = a // safe
    exact = floor * safe == a
    toward_zero = floor + (~exact & ((a < 0) != (safe < 0))) if a.dtype.kind == "i" else floor
    return np.where(b == 0, np.array(-1).astype(a.dtype), toward_zero).astype(a.dtype)


def _divide(a: Array, b: Array) -> Array:
    return a / b if a.dtype.kind == "f" else _quotient(a, b)


def _fma(a: Array, b: Array, c: Array) -> Array:
    """Products of float32 are exact in float64; the sum is then rounded twice, which shows in one case of 2^29."""
    return (a.astype(np.float64) * b + c).astype(a.dtype)


def _fma_down(a: Array, b: Array, c: Array) -> Array:
    exact = a.astype(np.float64) * b + c
    near = exact.astype(a.dtype)
    return np.where(near > exact, np.nextafter(near, a.dtype.type(-np.inf)), near)


def _shift(left: bool) -> Function:
    def shift(a: Array, n: Array) -> Array:
        bits = a.dtype.itemsize * 8
        beyond = n >= bits
        count = np.minimum(n, bits - 1).astype(a.dtype)
        if left:
            return np.where(beyond, np.zeros_like(a), a << count)
        return np.where(beyond & (a.dtype.kind == "u"), np.zeros_like(a), a >> count)

    return shift


BINARY: dict[str, Function] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _divide,
    "rem": lambda a, b: a - _quotient(a, b) * b,
    "min": lambda a, b: np.fmin(a, b) if a.dtype.kind == "f" else np.minimum(a, b),
    "max": lambda a, b: np.fmax(a, b) if a.dtype.kind == "f" else np.maximum(a, b),
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shl": _shift(True),
    "shr": _shift(False),
}
UNARY: dict[str, Function] = {
    "neg": np.negative,
    "abs": np.abs,
    "not": np.invert,
    "sqrt": np.sqrt,
    "rcp": lambda a: (1 / a).astype(a.dtype),
    "rsqrt": lambda a: (1 / np.sqrt(a)).astype(a.dtype),
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}
_COMPARE: dict[str, Function] = {
    "eq": np.equal,
    "ne": lambda a, b: (a != b) & (a == a) & (b == b),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "equ": lambda a, b: ~((a < b) | (a > b)),
    "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
    "nan": lambda a, b: (a != a) | (b != b),
    "num": lambda a, b: (a == a) & (b == b),
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


def compare(name: str) -> Function:
    if name not in _COMPARE:
        raise PtxError(f"comparison {name}")
    return _COMPARE[name]


def binary(operation: tuple[str, ...]) -> Function | None:
    name = operation[0]
    if name == "mul" and "hi" in operation:
        bits = NUMPY[operation[-1]].itemsize * 8
        wide = object if bits == 64 else np.dtype(f"{NUMPY[operation[-1]].kind}8")
        return lambda a, b: ((a.astype(wide) * b.astype(wide)) >> bits).astype(a.dtype)
    return BINARY.get(name)


def fused(operation: tuple[str, ...]) -> Function:
    if operation[0] == "fma":
        return _fma_down if "rm" in operation else _fma
    if operation[-1] in ("f32", "f64"):
        return _fma
    return lambda a, b, c: a * b + c


def _to_integer(rounding: Function, target: np.dtype[Any]) -> Function:
    information = np.iinfo(target)

    def convert(x: Array) -> Array:
        near = np.nan_to_num(rounding(x.astype(np.float64)), nan=0.0, posinf=1e30, neginf=-1e30)
        # float64 does not hold the largest 64-bit integers: the comparisons decide what is beyond the range.
        clipped = np.clip(near, float(information.min), np.nextafter(float(information.max), 0))
        return np.where(near >= float(information.max), information.max, clipped.astype(target)).astype(target)

    return convert


_ROUNDINGS: dict[str, Function] = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


def convert(operation: tuple[str, ...]) -> Function:
    """cvt of one operand."""
    to, source = operation[-2], operation[-1]
    rounding = next((f for name, f in _ROUNDINGS.items() if name in operation), None)
    if to == "bf16":
        return bfloat16_of
    if source == "bf16":
        return lambda x: float_of_bfloat16(x).astype(NUMPY[to])
    if to == "tf32":
        # To the nearest of eleven bits, ties away from zero; NaN stays.
        return lambda x: np.where(
            np.isnan(x), x.view(np.uint32), (x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
        )
    if to.startswith("f"):
        function: Function = rounding if rounding and source.startswith("f") else lambda x: x
        if "sat" in operation:
            return lambda x: np.clip(np.nan_to_num(function(x), nan=0.0), 0, 1).astype(NUMPY[to])
        return lambda x: function(x).astype(NUMPY[to])
    if source.startswith("f"):
        return _to_integer(rounding or np.trunc, NUMPY[to])
    return lambda x: x.astype(NUMPY[to])


def convert_pair(operation: tuple[str, ...]) -> Function:
    """cvt of two float32 to a pair: the first operand is the upper half."""
    if operation[-2] == "bf16x2":
        half: Function = bfloat16_of
    elif operation[-2] == "f16x2":
        half = lambda x: x.astype(np.float16).view(np.uint16)  # noqa: E731
    else:
        raise PtxError(".".join(operation))
    return lambda high, low: half(low).astype(np.uint32) | (half(high).astype(np.uint32) << np.uint32(16))


# ---- tensor cores ----


def _elements(words: Array, kind: str) -> Array:
    """(registers, lanes) words -> (registers, elements of a word, lanes) in float32."""
    if kind == "tf32":
        return words.view(np.float32)[:, None]
    halves = np.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], axis=1).astype(np.uint16)
    return halves.view(np.float16).astype(np.float32) if kind == "f16" else float_of_bfloat16(halves)


def multiply_add(a: Array, b: Array, c: Array, kind: str, depth: int) -> Array:
    """mma.sync m16n8k`depth`: registers of whole warps, (registers, lanes), by the layout of the PTX manual
    ("Matrix Fragments"): lane l has group l / 4 and place l % 4."""
    lanes = a.shape[1]
    lane = np.arange(lanes) % 32
    warp, group, place = np.arange(lanes) // 32, lane // 4, lane % 4
    left, right = _elements(a, kind), _elements(b, kind)
    per = left.shape[1]
    rows = np.zeros((lanes // 32, 16, depth), np.float64)
    columns = np.zeros((lanes // 32, depth, 8), np.float64)
    sums = np.zeros((lanes // 32, 16, 8), np.float64)
    for register in range(a.shape[0]):
        for element in range(per):
            k = place * per + element + register // 2 * 4 * per
            rows[warp, group + register % 2 * 8, k] = left[register, element]
    for register in range(b.shape[0]):
        for element in range(per):
            columns[warp, place * per + element + register * 4 * per, group] = right[register, element]
    where = [(group + register // 2 * 8, place * 2 + register % 2) for register in range(4)]
    for register, (row, column) in enumerate(where):
        sums[warp, row, column] = c[register]
    result = (sums + rows @ columns).astype(np.float32)
    return np.stack([result[warp, row, column] for row, column in where])


MMA_SHAPE = re.compile(r"m16n8k(\d+)")

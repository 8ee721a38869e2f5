"""Reads PTX as nvcc writes it: kernels with their parameters, shared memory, registers and instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

# Bytes of a type, and the numpy type that has its values. Halves are computed as bits, where they are computed at all.
SIZES = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2}
SIZES |= {f"{kind}{bits}": bits // 8 for kind in "busf" for bits in (32, 64)}
SIZES |= {"tf32": 4, "f16x2": 4, "bf16x2": 4, "b128": 16}
_KINDS = {"b": "u", "u": "u", "s": "i", "f": "f"}
NUMPY = {
    name: np.dtype(f"{_KINDS[name[0]]}{size}")
    for name, size in SIZES.items()
    if name not in ("tf32", "bf16", "f16x2", "bf16x2", "b128")
}
NUMPY |= {"bf16": np.dtype("u2"), "tf32": np.dtype("u4"), "f16x2": np.dtype("u4"), "bf16x2": np.dtype("u4")}

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(")
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?")
_SHARED = re.compile(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d*)\]")
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)", re.DOTALL)
_LABEL = re.compile(r"([\w$]+):\s*")
_PREDICATE = re.compile(r"@(!?)([%\w]+)\s+")


class PtxError(Exception):
    """PTX that this interpreter does not know."""


@dataclass(frozen=True)
class Instruction:
    text: str
    operation: tuple[str, ...]  # "ld", "global", "v4", "u32"
    operands: tuple[str, ...]
    predicate: str | None
    negated: bool


@dataclass
class Kernel:
    name: str
    parameters: dict[str, int] = field(default_factory=dict)  # offsets
    parameter_bytes: int = 0
    shared: dict[str, int] = field(default_factory=dict)
    shared_bytes: int = 0
    registers: dict[str, str] = field(default_factory=dict)  # types
    labels: dict[str, int] = field(default_factory=dict)
    code: list[Instruction] = field(default_factory=list)

    def barriers(self) -> list[int]:
        return [
            i
            for i, one in enumerate(self.code)
            if one.operation[0] in ("bar", "barrier") and "warp" not in one.operation
        ]


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _split_operands(text: str) -> tuple[str, ...]:
    found, depth, begin = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "{[") - (character in "}]")
        if character == "," and not depth:
            found.append(text[begin:i].strip())
            begin = i + 1
    found.append(text[begin:].strip())
    return tuple(operand for operand in found if operand)


def _add_registers(kernel: Kernel, kind: str, names: str) -> None:
    for name in names.split(","):
        ranged = re.fullmatch(r"([%\w$]+)<(\d+)>", name.strip())
        if ranged:
            kernel.registers.update({f"{ranged[1]}{i}": kind for i in range(int(ranged[2]))})
        else:
            kernel.registers[name.strip()] = kind


def _add_statement(kernel: Kernel, statement: str) -> None:
    registers = _REGISTERS.match(statement)
    if registers:
        _add_registers(kernel, registers[1], registers[2])
    if statement.startswith("."):
        return
    text = statement
    predicate = _PREDICATE.match(statement)
    if predicate:
        statement = statement[predicate.end() :]
    operation, _, rest = statement.replace("\t", " ").partition(" ")
    kernel.code.append(
        Instruction(
            re.sub(r"\s+", " ", text),
            tuple(re.split(r"\.|::", operation)),
            _split_operands(rest),
            predicate[2] if predicate else None,
            bool(predicate and predicate[1]),
        )
    )


def _parse_body(kernel: Kernel, body: str) -> None:
    for shared in _SHARED.finditer(body):
        offset = _align(kernel.shared_bytes, int(shared[1]))
        kernel.shared[shared[2]] = offset
        kernel.shared_bytes = offset + int(shared[3] or 0)
    for statement in body.split(";"):
        rest = statement.strip()
        while rest:
            label = _LABEL.match(rest)
            if label and not rest.startswith("::"):
                kernel.labels[label[1]] = len(kernel.code)
                rest = rest[label.end() :].strip()
            elif rest[0] in "{}" and not re.match(r"\{[^{}]*\}", rest):
                rest = rest[1:].strip()  # the scope of inline assembly
            else:
                break
        if rest:
            _add_statement(kernel, rest)


def parse(text: str) -> dict[str, Kernel]:
    """Kernels by their (mangled) names."""
    text = _COMMENT.sub("", text)
    kernels = {}
    for entry in _ENTRY.finditer(text):
        kernel = Kernel(entry[1])
        close = text.index(")", entry.end())
        for parameter in _PARAMETER.finditer(text[entry.end() : close]):
            bytes_each = SIZES[parameter[2]]
            alignment = int(parameter[1] or bytes_each)
            offset = _align(kernel.parameter_bytes, alignment)
            kernel.parameters[parameter[3]] = offset
            kernel.parameter_bytes = offset + bytes_each * int(parameter[4] or 1)
        begin = text.index("{", close) + 1
        depth, end = 1, begin
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        _parse_body(kernel, text[begin : end - 1])
        kernels[kernel.name] = kernel
    return kernels

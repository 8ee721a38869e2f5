"""Instructions of the matrix products' inner loops, counted in compiled objects: what can be said about the speed of a
processor that is not there.

    make wheels && python benchmarks/inner_loops.py build/wheels/objects/aarch64/temp*/csrc/backend/cpu/isa

Of each kernel the loop with most multiplications, which is that of the largest register tile: instructions, loads
(pairs count as two), multiplications, and products of two numbers that an instruction of the loop makes on average.
Needs llvm-objdump (Debian: llvm) or, for this machine's processor, objdump.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

KERNELS = ("product_f32", "product_bf16", "product_u8i8", "product_fixed")
# Products of one instruction on a register of 128 bits; longer registers make as many times more.
PRODUCTS_OF_128_BITS = {
    "fmla": 4,
    "vfmadd": 4,
    "mulps": 4,
    "smlal": 4,
    "smlal2": 4,
    "bfdot": 8,
    "vdpbf16ps": 8,
    "vpdpwssd": 8,
    "pmaddwd": 8,
    "bfmmla": 16,
    "sdot": 16,
    "vpdpbusd": 16,
    "usmmla": 32,
}
BITS_OF_REGISTER = {"zmm": 512, "ymm": 256}


@dataclass(frozen=True)
class Loop:
    """Counts of one pass."""

    instructions: int
    loads: int
    multiplications: int
    products: int


def products_of(name: str, operands: str) -> int:
    """How many products the instruction makes; 0 if it is no multiplication of the table."""
    for word, products in PRODUCTS_OF_128_BITS.items():
        if name == word or (name.startswith("v") and name.lstrip("v").startswith(word.lstrip("v"))):
            wide = max((bits for part, bits in BITS_OF_REGISTER.items() if part in operands), default=128)
            return products * wide // 128
    return 0


def loads_of(name: str, operands: str) -> int:
    if name.startswith(("ld1", "ldr", "ldur")):
        return 1
    if name.startswith("ldp"):
        return 2
    return int("(%r" in operands and not name.startswith(("prefetch", "lea", "j", "nop")))


def measure(lines: list[tuple[int, str, str]]) -> Loop | None:
    """The loop of a function with most multiplications and none within. lines: address, instruction, operands."""
    loops = []
    for end, (address, name, operands) in enumerate(lines):
        target = re.match(r"(?:\w+, )?(?:#\S+, )?(?:0x)?([0-9a-f]+) <", operands)
        is_branch = name.startswith(("b.", "cb", "tb", "j")) or name == "b"
        if is_branch and target and int(target[1], 16) < address:
            begin = next((i for i, line in enumerate(lines) if line[0] == int(target[1], 16)), end)
            loops.append((begin, end))
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    found = []
    for begin, end in inner:
        body = [(name, operands) for _, name, operands in lines[begin : end + 1]]
        products = [products_of(*line) for line in body]
        found.append(Loop(len(body), sum(loads_of(*line) for line in body), sum(map(bool, products)), sum(products)))
    return max(found, key=lambda loop: loop.multiplications, default=None)


def functions(path: Path, objdump: list[str]) -> dict[str, list[tuple[int, str, str]]]:
    text = subprocess.run(
        [*objdump, "-d", "--no-show-raw-insn", path], check=True, capture_output=True, text=True
    ).stdout
    found: dict[str, list[tuple[int, str, str]]] = {}
    for line in text.splitlines():
        if head := re.match(r"[0-9a-f]+ <(\w+)>:", line):
            found[head[1]] = current = []
        elif part := re.match(r"\s+([0-9a-f]+):\s+(\S+)\s*(.*)", line):
            current.append((int(part[1], 16), part[2], part[3]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the objects of csrc/backend/cpu/isa are")
    args = parser.parse_args()
    llvm = shutil.which("llvm-objdump") or shutil.which("llvm-objdump-14")
    objdump = [llvm, "--mattr=+dotprod,+bf16,+i8mm"] if llvm else ["objdump"]
    print("| set | kernel | instructions | loads | multiplications | products an instruction |")
    print("|---|---|---|---|---|---|")
    for path in sorted(args.folder.glob("kernels_*.o")):
        isa = path.stem.removeprefix("kernels_")
        code = functions(path, objdump)
        for kernel in KERNELS:
            if loop := measure(code.get(f"{kernel}__{isa}", [])):
                average = loop.products / loop.instructions
                counts = f"{loop.instructions} | {loop.loads} | {loop.multiplications} | {average:.1f}"
                print(f"| {isa} | {kernel} | {counts} |")


if __name__ == "__main__":
    main()

"""What ptxas made of a kernel for one architecture: its machine code, by cuobjdump, and the loops in it."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_FUNCTION = re.compile(r"Function : (\S+)")
_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:\{\s*)?(@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")
_TARGET = re.compile(r"0x([0-9a-f]+)")


@dataclass(frozen=True)
class Line:
    address: int
    name: str  # "HMMA.16816.F32"
    operands: str


@dataclass
class Code:
    name: str
    lines: list[Line] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.lines[-1].address + 16

    def count(self, *names: str) -> int:
        return sum(line.name.split(".")[0] in names for line in self.lines)

    def loops(self) -> list[Counter[str]]:
        """The instructions of every loop, from the target of a backward branch to the branch; short ones first."""
        found = []
        for line in self.lines:
            target = _TARGET.search(line.operands) if line.name.startswith("BRA") else None
            # A branch to itself ends every function.
            if target and int(target[1], 16) < line.address:
                found.append((line.address - int(target[1], 16), int(target[1], 16), line.address))
        return [
            Counter(line.name.split(".")[0] for line in self.lines if begin <= line.address <= end)
            for _, begin, end in sorted(found)
        ]

    def main_loop(self) -> Counter[str]:
        """The shortest loop that has as many products of tensor cores as any."""
        return max(self.loops(), key=lambda loop: loop["HMMA"], default=Counter())


@cache
def code_of(cuobjdump: Path, binary: Path, architecture: str) -> dict[str, Code]:
    """Kernels of an object or cubin by their mangled names."""
    command = [str(cuobjdump), "-sass", "-arch", f"sm_{architecture}", str(binary)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kernels: dict[str, Code] = {}
    current: Code | None = None
    for row in text.splitlines():
        function = _FUNCTION.search(row)
        if function:
            current = kernels.setdefault(function[1], Code(function[1]))
        line = _LINE.search(row)
        # What is predicated never to run are waits that ptxas puts before some instructions.
        if line and current is not None and (line[2] or "").strip() != "@!PT":
            current.lines.append(Line(int(line[1], 16), line[3], line[4]))
    return kernels

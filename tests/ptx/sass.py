"""What ptxas made of a kernel for one architecture: its machine code, by cuobjdump, and the loops in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
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

    def _branches(self) -> list[tuple[int, int]]:
        """From where to where."""
        targets = [(line, _TARGET.search(line.operands)) for line in self.lines if line.name.startswith("BRA")]
        return [(line.address, int(target[1], 16)) for line, target in targets if target]

    def _count(self, begin: int, end: int) -> Counter[str]:
        return Counter(line.name.split(".")[0] for line in self.lines if begin <= line.address <= end)

    def _spans(self) -> list[tuple[int, int]]:
        """Of every loop, from the target of a backward branch to the branch; short ones first."""
        # A branch to itself ends every function.
        found = [(target, at) for at, target in self._branches() if target < at]
        return sorted(found, key=lambda span: (span[1] - span[0], span))

    def _main_span(self) -> tuple[int, int]:
        """The shortest loop that has as many products of tensor cores as any."""
        return max(self._spans(), key=lambda span: self._count(*span)["HMMA"], default=(1, 0))

    def main_loop(self) -> Counter[str]:
        return self._count(*self._main_span())

    def least_instructions(self) -> int:
        """Of a step of the main loop: those that no forward branch passes over."""
        begin, end = self._main_span()
        passed = [(at, target) for at, target in self._branches() if begin <= at < target <= end]
        return sum(
            begin <= line.address <= end and not any(at < line.address < target for at, target in passed)
            for line in self.lines
        )


def cuobjdump() -> Path | None:
    """Of the package nvidia-cuda-cuobjdump, or of the toolkit."""
    for folder in map(Path, sys.path):
        for found in folder.glob("nvidia/cu*/bin/cuobjdump"):
            return found
    on_path = shutil.which("cuobjdump")
    return None if on_path is None else Path(on_path)


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

"""What a launch costs, counted by the interpreter: a line of a table for docs/cuda.md.

PYTHONPATH=tests MARIGOLD_CUDA_LIBRARY=build/cuda_emu/libmarigold_cuda_emu.so python tests/ptx/profile.py [PTX_FOLDER]
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ptx import module
from ptx.cases import PAD, Run
from ptx.launches import Launch, recorded
from ptx.machine import launch
from ptx.memory import SECTOR, GlobalMemory
from ptx.module import Kernel
from ptx.registers import Result
from test_ops import Case

ARCHITECTURE = "80"
# Layers of the models, cut down to few tiles; what one tile costs does not depend on how many there are.
PROFILED = {
    "conv2d, 320 channels, 3x3": Run(Case("conv2d", [(1, 16, 16, 320), (128, 320, 3, 3), (128,)], PAD), "float16"),
    "attention, head 64": Run(Case("attention", [(1, 1, 1024, 64)] * 3, {"heads": 1}), "float16"),
    "attention, head 512": Run(Case("attention", [(1, 1, 256, 512)] * 3, {"heads": 1}), "float16"),
}


@dataclass(frozen=True)
class Cost:
    blocks: int
    products: int  # multiplications and additions of one element
    instructions: int  # of warps
    tensor: int
    wavefronts: int
    ideal_wavefronts: int
    bytes_from_l2: int

    def row(self, name: str, blocks: int) -> str:
        tile = self.products / blocks
        parts = (
            f"{tile / 1e6:.2f} M",
            f"{self.instructions / self.tensor:.2f}" if self.tensor else "",
            f"{self.wavefronts / self.tensor:.2f}" if self.tensor else "",
            f"{self.wavefronts / self.ideal_wavefronts:.2f}" if self.ideal_wavefronts else "",
            f"{self.products / self.bytes_from_l2:.1f}",
        )
        return f"| {name} | " + " | ".join(parts) + " |"


def cost_of(kernel: Kernel, memory: GlobalMemory, results: Iterable[Result], blocks: int) -> Cost:
    counted: Counter[int] = Counter()
    wavefronts = ideal = 0
    for result in results:
        counted += result.warp_instructions
        assert result.shared is not None
        wavefronts += sum(traffic.units for traffic in result.shared.traffic.values())
        ideal += sum(traffic.ideal for traffic in result.shared.traffic.values())
    products = tensor = 0
    for index, times in counted.items():
        operation = kernel.code[index].operation
        if operation[0] == "mma":
            shape = next(part for part in operation if part.startswith("m16n8k"))
            products += times * 16 * 8 * int(shape[len("m16n8k") :])
            tensor += times
    read = sum(
        traffic.units for index, traffic in memory.traffic.items() if kernel.code[index].operation[0] in ("ld", "cp")
    )
    return Cost(blocks, products, sum(counted.values()), tensor, wavefronts, ideal, read * SECTOR)


def profile(kernel: Kernel, made: Launch, blocks: list[tuple[int, int, int]] | None = None) -> Cost:
    """Of the blocks named; all by default."""
    memory = GlobalMemory(made.before)
    results = launch(kernel, made.grid, made.threads, made.arguments, memory, profile=True, blocks=blocks)
    return cost_of(kernel, memory, results, len(blocks) if blocks else made.grid[0] * made.grid[1] * made.grid[2])


def main(folder: Path) -> None:
    kernels: dict[str, Kernel] = {}
    for path in sorted(folder.glob(f"*.{ARCHITECTURE}.ptx")):
        kernels |= module.parse(path.read_text(encoding="utf-8"))
    ctypes.CDLL(os.environ["MARIGOLD_CUDA_LIBRARY"]).mg_emu_set_device(1, int(ARCHITECTURE))
    print(
        "| kernel | products a tile | instructions a mma | wavefronts a mma | of the least | products a byte from L2 |"
    )
    print("|---|---|---|---|---|---|")
    for name, run in PROFILED.items():
        with recorded(os.environ["MARIGOLD_CUDA_LIBRARY"]) as made:
            run()
        for one in made:
            if one.kernel in kernels and kernels[one.kernel].shared_bytes:
                cost = profile(kernels[one.kernel], one, [(0, 0, 0)])
                print(cost.row(f"{name}: {one.kernel[:40]}", 1), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2] / "build" / "ptx")

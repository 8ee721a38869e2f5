"""What a picture would cost on GPUs that are not here: counts the machine code of the kernels' loops and the shapes of
Stable Diffusion 2's networks, and divides by what a GPU does in a cycle.

    make cuda-build && python tools/cuda_estimate.py [--size 768 768] [--objects build/cuda/objects] [--json FILE]

float16, one step, one picture. Two bounds: "overlapped" takes the busiest of a processor's parts (tensor cores,
schedulers, shared memory, L2) and lets it hide the others, and only the instructions that every step of a loop makes;
"one by one" adds all four up, with all instructions of the loop. Both count whole rounds of
blocks over the processors, and neither knows latencies, clocks below the maker's, or launches. Products by cuBLASLt are
taken to reach a part of the peak (see Gpu), what only moves memory a part of its bandwidth. Needs cuobjdump (PyPI:
nvidia-cuda-cuobjdump).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]
from make_sd2_checkpoint import LATENTS, PRESETS, Preset  # noqa: E402
from peer_tables import markdown  # noqa: E402
from ptx.sass import Code, code_of, cuobjdump  # noqa: E402

BYTES = 2  # of float16
GROUPS = ("convolutions", "linear", "attention, head 64", "attention, head 512", "group norm", "rest")


@dataclass(frozen=True)
class Gpu:
    """Of the makers' data sheets; `reached`: the part of the dense peak that mma.sync reaches, on Hopper less than
    wgmma (arXiv 2402.13499); that of cuBLASLt, that of copies and the speed of L2 are usual figures."""

    architecture: str
    processors: int
    clock: float
    flops: float  # dense, float16 with float32 sums, of a processor and cycle
    reached: float  # by mma.sync
    l2: float  # bytes a second
    memory: float
    blas: float = 0.75
    copies: float = 0.85


GPUS = {
    "RTX 3090": Gpu("86", 82, 1.695e9, 512, 1.0, 2.0e12, 0.936e12),
    "RTX 4090": Gpu("89", 128, 2.52e9, 512, 1.0, 5.0e12, 1.008e12),
    "H100": Gpu("90", 132, 1.755e9, 4096, 0.62, 5.5e12, 3.35e12, blas=0.65),
}


# ---- the networks ----


@dataclass(frozen=True)
class Work:
    """An operation. of: its group; rows x columns x depth of its product, or bytes that it moves."""

    group: str
    rows: int = 0
    columns: int = 0
    depth: int = 0
    moved: int = 0

    @property
    def flops(self) -> float:
        return 2.0 * self.rows * self.columns * self.depth * (2 if self.group.startswith("attention") else 1)


def convolution(pixels: int, c: int, k: int, positions: int = 9) -> Work:
    if positions == 1:
        return linear(pixels, c, k)
    return Work("convolutions", pixels, k, positions * c, BYTES * pixels * (c + k))


def linear(rows: int, c: int, k: int) -> Work:
    return Work("linear", rows, k, c, BYTES * (rows * (c + k) + c * k))


def attention(tokens: int, heads: int, size: int) -> Work:
    return Work(f"attention, head {size}", tokens * heads, tokens, size, BYTES * 4 * tokens * heads * size)


def group_norm(pixels: int, c: int) -> Work:
    return Work("group norm", moved=3 * BYTES * pixels * c)  # read for the statistics, read and written


def moving(elements: int) -> Work:
    return Work("rest", moved=BYTES * elements)


def resnet(pixels: int, c: int, k: int) -> Iterator[Work]:
    yield from (group_norm(pixels, c), convolution(pixels, c, k), group_norm(pixels, k), convolution(pixels, k, k))
    if c != k:
        yield convolution(pixels, c, k, 1)


def transformer(tokens: int, c: int, heads: int) -> Iterator[Work]:
    """Attention to the text of two tokens is but its two linear layers."""
    yield group_norm(tokens, c)
    yield from (linear(tokens, c, c) for _ in range(8))  # in, out; q, k, v, out; q, out
    yield attention(tokens, heads, c // heads)
    yield from (linear(tokens, c, 8 * c), linear(tokens, 4 * c, c))
    yield moving(tokens * c * (3 * 2 + 8 + 4 + 2 * 2))  # three layer norms, GEGLU, attention to the text


def unet(preset: Preset, pixels: int) -> Iterator[Work]:
    channels, last = preset.unet_channels, len(preset.unet_channels) - 1
    yield convolution(pixels, 2 * LATENTS, channels[0])
    skips, width = [channels[0]], channels[0]
    for level, (c, heads) in enumerate(zip(channels, preset.unet_heads, strict=True)):
        for _ in range(preset.unet_layers):
            yield from resnet(pixels, width, c)
            if level != last:
                yield from transformer(pixels, c, heads)
            width = c
            skips.append(c)
        if level != last:
            pixels //= 4
            yield convolution(pixels, c, c)
            skips.append(c)
    yield from resnet(pixels, width, width)
    yield from transformer(pixels, width, preset.unet_heads[-1])
    yield from resnet(pixels, width, width)
    for block, (c, heads) in enumerate(zip(channels[::-1], preset.unet_heads[::-1], strict=True)):
        for _ in range(preset.unet_layers + 1):
            joined = width + skips.pop()
            yield moving(2 * pixels * joined)
            yield from resnet(pixels, joined, c)
            if block:
                yield from transformer(pixels, c, heads)
            width = c
        if block != last:
            pixels *= 4
            yield convolution(pixels, c, c)
    yield from (group_norm(pixels, width), convolution(pixels, width, LATENTS))


def vae_middle(pixels: int, width: int) -> Iterator[Work]:
    yield from resnet(pixels, width, width)
    yield group_norm(pixels, width)
    yield from (linear(pixels, width, width) for _ in range(4))
    yield attention(pixels, 1, width)
    yield from resnet(pixels, width, width)


def vae(preset: Preset, pixels: int) -> Iterator[Work]:
    channels, last = preset.vae_channels, len(preset.vae_channels) - 1
    yield convolution(pixels, 3, channels[0])
    width = channels[0]
    for level, c in enumerate(channels):
        for _ in range(preset.vae_layers):
            yield from resnet(pixels, width, c)
            width = c
        if level != last:
            pixels //= 4
            yield convolution(pixels, c, c)
    yield from vae_middle(pixels, width)
    yield from (group_norm(pixels, width), convolution(pixels, width, 2 * LATENTS))
    yield convolution(pixels, LATENTS, width)
    yield from vae_middle(pixels, width)
    for block, c in enumerate(reversed(channels)):
        for _ in range(preset.vae_layers + 1):
            yield from resnet(pixels, width, c)
            width = c
        if block != last:
            pixels *= 4
            yield convolution(pixels, c, c)
    yield from (group_norm(pixels, width), convolution(pixels, width, 3))


def picture(height: int, width: int) -> list[Work]:
    preset = PRESETS["sd2"]
    return [*unet(preset, height // 8 * (width // 8)), *vae(preset, height * width)]


# ---- what a step of a kernel's loop takes ----


@dataclass(frozen=True)
class Tile:
    """A kernel's, by the part of its mangled name; a step multiplies rows x columns x depth."""

    source: str
    name: str
    rows: int
    columns: int
    depth: int
    warps: int
    read: int  # bytes of a step from L2


HALF = "6__half"
TILES = {
    "narrow": Tile("conv2d.cu", f"conv2d_kernelI{HALF}S0_Li64ES0_E", 128, 64, 32, 8, (128 + 64) * 32 * BYTES),
    "wide": Tile("conv2d.cu", f"conv2d_kernelI{HALF}S0_Li128ES0_E", 128, 128, 32, 8, (128 + 128) * 32 * BYTES),
    "attention": Tile(
        "attention.cu", f"flash_attention_kernelI{HALF}Li64ELi8ELi64EE", 128, 64, 64, 8, 2 * 64 * 64 * BYTES
    ),
}
MIN_WIDE_TILES = 512  # as in conv2d.cu
WAVEFRONTS = {"LDSM": 4, "LDGSTS": 4, "LDS": 1, "STS": 1}  # of 128 bytes: what a warp moves, without conflicts
MMA_FLOPS, SCHEDULERS = 2 * 16 * 8 * 16, 4


@dataclass(frozen=True)
class Step:
    """Of a warp."""

    tile: Tile
    least: int  # instructions that each step makes
    instructions: int  # of the loop
    products: int
    wavefronts: int

    def cycles(self, gpu: Gpu, instructions: int) -> dict[str, float]:
        """That each part of a processor is busy with a step of one block."""
        return {
            "tensor cores": self.tile.warps * self.products * MMA_FLOPS / (gpu.flops * gpu.reached),
            "schedulers": self.tile.warps * instructions / SCHEDULERS,
            "shared memory": self.tile.warps * self.wavefronts,
            "L2": self.tile.read * gpu.processors * gpu.clock / gpu.l2,
        }


def the_cuobjdump() -> Path:
    found = cuobjdump()
    if found is None:
        raise SystemExit("cuobjdump is not there: pip install nvidia-cuda-cuobjdump")
    return found


def step_of(objects: Path, tile: Tile, architecture: str) -> Step:
    kernels = code_of(the_cuobjdump(), objects / f"{tile.source}.o", architecture)
    (code,) = (found for name, found in kernels.items() if tile.name in name)
    return step_of_code(code, tile)


def step_of_code(code: Code, tile: Tile) -> Step:
    loop = code.main_loop()
    wavefronts = sum(each * loop[name] for name, each in WAVEFRONTS.items())
    return Step(tile, code.least_instructions(), sum(loop.values()), loop["HMMA"], wavefronts)


# ---- the estimate ----


def seconds_of(work: Work, steps: dict[str, Step], gpu: Gpu) -> tuple[float, float]:
    """Overlapped, and one by one."""
    memory = work.moved / (gpu.memory * gpu.copies)
    if work.group == "convolutions":
        tiles = ceil(work.rows / 128) * ceil(work.columns / 64)
        step = steps["wide" if tiles >= MIN_WIDE_TILES and work.columns > 64 else "narrow"]
    elif work.group == "attention, head 64":
        step = steps["attention"]
    else:
        peak = gpu.processors * gpu.clock * gpu.flops * gpu.blas
        if (
            work.group == "attention, head 512"
        ):  # scores are written and read twice in float32, probabilities in float16
            memory += work.rows * work.columns * (3 * 4 + 2 * BYTES) / (gpu.memory * gpu.copies)
        return max(work.flops / peak, memory), work.flops / peak + memory
    tile = step.tile
    low, high = max(step.cycles(gpu, step.least).values()), sum(step.cycles(gpu, step.instructions).values())
    if work.group == "convolutions":
        blocks, count = ceil(work.rows / tile.rows) * ceil(work.columns / tile.columns), ceil(work.depth / tile.depth)
    else:
        blocks, count = ceil(work.rows / tile.rows), ceil(work.columns / tile.columns)
    rounds = ceil(blocks / gpu.processors) * count / gpu.clock
    return max(rounds * low, memory), rounds * high + memory


def estimate(objects: Path, works: list[Work], gpu: Gpu) -> dict[str, tuple[float, float]]:
    """Seconds of each group."""
    steps = {name: step_of(objects, tile, gpu.architecture) for name, tile in TILES.items()}
    found = {}
    for group in GROUPS:
        times = [seconds_of(work, steps, gpu) for work in works if work.group == group]
        found[group] = (sum(low for low, _ in times), sum(high for _, high in times))
    return found


def step_table(objects: Path) -> str:
    rows = []
    for name, tile in TILES.items():
        for title, gpu in GPUS.items():
            step = step_of(objects, tile, gpu.architecture)
            busy = step.cycles(gpu, step.instructions)
            products = step.products * tile.warps * MMA_FLOPS / 2 / tile.read
            cells = [
                f"{step.least / step.products:.1f} to {step.instructions / step.products:.1f}",
                f"{step.wavefronts / step.products:.2f}",
                f"{products:.0f}",
            ]
            rows.append([f"{name}, {title}", str(step.products), *cells, *(f"{value:.0f}" for value in busy.values())])
    header = ["", "`mma`", "instructions per `mma`", "wavefronts per `mma`", "products per byte of L2"]
    return markdown([*header, "cycles: tensor cores", "schedulers", "shared memory", "L2"], rows)


def time_table(found: dict[str, dict[str, tuple[float, float]]]) -> str:
    def cell(pair: tuple[float, float]) -> str:
        return f"{1e3 * pair[0]:.1f} to {1e3 * pair[1]:.1f}"

    rows = [[group, *(cell(one[group]) for one in found.values())] for group in GROUPS]
    totals = [(sum(low for low, _ in one.values()), sum(high for _, high in one.values())) for one in found.values()]
    return markdown(["ms", *found], [*rows, ["total", *map(cell, totals)]])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[768, 768], metavar=("H", "W"))
    parser.add_argument("--objects", type=Path, default=ROOT / "build" / "cuda" / "objects", help="of make cuda-build")
    parser.add_argument("--json", type=Path, help="the times, too")
    args = parser.parse_args(arguments)
    works = picture(*args.size)
    found: dict[str, Any] = {name: estimate(args.objects, works, gpu) for name, gpu in GPUS.items()}
    print(f"{sum(work.flops for work in works) / 1e12:.2f} TFLOP\n\n{step_table(args.objects)}\n\n{time_table(found)}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

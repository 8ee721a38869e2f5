"""Times single operations of the engine beside what this machine could do: the sizes of Stable Diffusion 2 at 576x768.

    python benchmarks/ops.py [--dtype float32] [--threads 2] [--isa NAME] [--repeats 7] [--only WORDS] [--tiny]

Needs the test-only extension (MARIGOLD_BUILD_TESTING=1), which runs one operation repeatedly on memory that is ready:
packing weights is not timed. Before, each operation runs on a small shape beside the reference backend; one that
disagrees is not timed.

The roof of an operation is the longer of two times: its multiplications and additions at the measured speed of matrix
products in the first-level cache, and its bytes (each input and the output once; the input of group normalisation
twice) at the measured speed of copying. Maps that stay in the caches may be faster than that. For convolutions both the
arithmetic of the direct algorithm and that of the products really done are given; the roof is that of the latter, so
what Winograd's transforms cost shows as a lower share.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_tables import markdown

Array = NDArray[np.float32]
Shape = tuple[int, ...]
RESULTS = Path(__file__).resolve().parent / "results"

# Largest difference to the reference backend over the root mean square of the result. bfloat16 rounds the result and
# within; int8 rounds weights and activations, which the reference does not.
AGREEMENT = {"float32": 1e-4, "bfloat16": 0.05, "int8": 0.15}


@dataclass(frozen=True)
class Operation:
    """One call. shapes: of the inputs, (1, H, W, C) for maps. direct, done: additions and multiplications of the plain
    algorithm, and of the products of the engine's. reads: how often input 0 is read."""

    label: str
    name: str
    params: dict[str, Any]
    shapes: tuple[Shape | None, ...]
    out: Shape
    direct: float = 0.0
    done: float = 0.0
    reads: int = 1

    def bytes_moved(self, dtype: str) -> float:
        activation, weight = {"float32": (4, 4), "bfloat16": (2, 2), "int8": (2, 1)}[dtype]
        total = math.prod(self.out) * activation
        for slot, shape in enumerate(self.shapes):
            is_weight = slot == 1 and self.name in ("conv2d", "linear")
            size = weight if is_weight else activation
            total += math.prod(shape or (0,)) * size * (self.reads if slot == 0 else 1)
        return float(total)


# ---- operations ----


def convolution(h: int, w: int, c: int, k: int, stride: int = 1, upsampled: bool = False, where: str = "") -> Operation:
    """3x3; stride 2 pads right and bottom only in the VAE."""
    params: dict[str, Any] = {"stride": stride, "pad_bottom": 1, "pad_right": 1}
    if stride == 1 or where == "UNet":
        params |= {"pad_top": 1, "pad_left": 1}
    out_h, out_w = -(-h // stride), -(-w // stride)
    if upsampled:
        out_h, out_w = 2 * h, 2 * w
        params |= {"upsampled_h": out_h, "upsampled_w": out_w}
    direct = 2.0 * out_h * out_w * k * c * 9
    tiles = -(-out_h // 4) * -(-out_w // 4)
    # The rule of csrc/backend/cpu/ops/conv2d.c: Winograd F(4x4, 3x3), 36 products a tile, from 6 tiles on.
    done = 2.0 * tiles * 36 * k * c if stride == 1 and tiles >= 6 else direct
    kind = "stride 2 " if stride == 2 else "upsampled " if upsampled else ""
    label = f"{where} 3x3 {kind}{h}x{w} {c} to {k}"
    shapes: tuple[Shape | None, ...] = ((1, h, w, c), (k, c, 3, 3), (k,))
    return Operation(label, "conv2d", params, shapes, (1, out_h, out_w, k), direct, done)


def linear(h: int, w: int, c: int, k: int) -> Operation:
    work = 2.0 * h * w * c * k
    shapes = ((1, h, w, c), (k, c), (k,))
    return Operation(f"linear {h * w} {c} to {k}", "linear", {}, shapes, (1, h, w, k), work, work)


def attention(h: int, w: int, heads: int, size: int) -> Operation:
    tokens, c = h * w, heads * size
    work = 4.0 * tokens * tokens * c
    shapes = ((1, h, w, c),) * 3
    label = f"attention {tokens}x{tokens}, {heads} x {size}"
    return Operation(label, "attention", {"heads": heads}, shapes, (1, h, w, c), work, work)


def pointwise(name: str, h: int, w: int, c: int) -> Operation:
    x = (1, h, w, c)
    label = f"{name} {h}x{w} {c}"
    if name == "groupnorm":
        params = {"groups": 32 if c % 32 == 0 else 1, "epsilon": 1e-5, "silu": True}
        return Operation(f"{label}, SiLU", name, params, (x, (c,), (c,)), x, reads=2)
    if name == "layernorm":
        return Operation(label, name, {"epsilon": 1e-5}, (x, (c,), (c,)), x)
    if name == "geglu":
        return Operation(label, name, {}, ((1, h, w, 2 * c),), x)
    return Operation(label, name, {}, (x, x), (1, h, w, 2 * c) if name == "concat" else x)


def operations(part: int) -> Iterator[Operation]:
    """Every map's sides divided by `part`: 1 for what a 576x768 image has."""

    def size(h: int, w: int) -> tuple[int, int]:
        return max(h // part, 2), max(w // part, 2)

    latent, half, quarter, eighth = size(72, 96), size(36, 48), size(18, 24), size(9, 12)
    image, image_half, image_quarter = size(576, 768), size(288, 384), size(144, 192)
    for place, c, k in ((latent, 320, 320), (latent, 960, 320), (half, 640, 640), (quarter, 1280, 1280)):
        yield convolution(*place, c, k, where="UNet")
    yield convolution(*eighth, 1280, 1280, where="UNet")
    yield convolution(*latent, 320, 320, stride=2, where="UNet")
    yield convolution(*half, 640, 640, upsampled=True, where="UNet")
    for place, c in ((image, 128), (image_half, 256), (image_quarter, 512), (latent, 512)):
        yield convolution(*place, c, c, where="VAE")
    yield convolution(*image, 128, 128, stride=2, where="VAE")
    yield convolution(*image_half, 256, 256, upsampled=True, where="VAE")
    yield convolution(*image, 128, 3, where="VAE")
    for place, c, k in ((latent, 320, 320), (latent, 320, 2560), (latent, 1280, 320), (half, 640, 5120)):
        yield linear(*place, c, k)
    yield linear(*quarter, 1280, 10240)
    yield attention(*latent, 5, 64)
    yield attention(*half, 10, 64)
    yield attention(*latent, 1, 512)
    for place, c in ((latent, 320), (image, 128)):
        yield pointwise("groupnorm", *place, c)
    for name, c in (("layernorm", 320), ("geglu", 1280), ("add", 320), ("concat", 320)):
        yield pointwise(name, *latent, c)
    yield pointwise("add", *image, 128)


# ---- running ----


def inputs_of(operation: Operation) -> list[Array | None]:
    values = np.random.default_rng(0).standard_normal(1 << 18, dtype=np.float32)
    found: list[Array | None] = []
    for slot, shape in enumerate(operation.shapes):
        if shape is None:
            found.append(None)
            continue
        array = np.resize(np.roll(values, 1013 * slot), shape)
        if slot == 1 and operation.name in ("conv2d", "linear"):
            # Results are then of the size of the inputs, as in a trained network.
            array *= np.float32(1 / math.sqrt(math.prod(shape[1:])))
        found.append(array)
    return found


def disagreement(engine: Any, small: Operation, isa: str, threads: int, dtype: str) -> float:
    given = inputs_of(small)
    results = []
    for backend, which, precision in (("cpu", isa, dtype), ("ref", None, dtype)):
        _, data = engine.run_op(backend, which, threads, small.name, small.params, given, -1, precision)
        results.append(np.frombuffer(data, np.float32).astype(np.float64))
    ours, reference = results
    worst = np.abs(ours - reference).max() / np.sqrt(np.mean(reference**2))
    return float(worst) if np.isfinite(ours).all() else math.inf


def measure(engine: Any, operation: Operation, peak: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    times = engine.time_op(
        *("cpu", args.isa, args.threads, operation.name, operation.params, inputs_of(operation)),
        *(args.repeats + 1, args.dtype),
    )
    seconds = statistics.median(times[1:])  # the first one meets cold memory
    # Only linear layers multiply int8; the rest of that precision works on two bytes, in bfloat16 or fixed point.
    kind = "bfloat16" if args.dtype == "int8" and operation.name != "linear" else args.dtype
    arithmetic, memory = operation.done / peak[kind], operation.bytes_moved(args.dtype) / peak["copy"]
    return {
        "operation": operation.label,
        "seconds": seconds,
        "times": times,
        "direct": operation.direct,
        "done": operation.done,
        "bytes": operation.bytes_moved(args.dtype),
        "bound": "arithmetic" if arithmetic > memory else "memory",
        "share": max(arithmetic, memory) / seconds,
    }


def row(found: dict[str, Any]) -> list[str]:
    def speed(work: float) -> str:
        return f"{work / found['seconds'] / 1e9:.0f}" if work else ""

    return [
        found["operation"],
        f"{found['seconds'] * 1e3:.2f} ms",
        speed(found["direct"]),
        speed(found["done"]),
        f"{found['bytes'] / found['seconds'] / 1e9:.1f}",
        f"{100 * found['share']:.0f} % of {found['bound']}",
    ]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=tuple(AGREEMENT), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", help="instruction set; default: the best of this processor")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="", metavar="WORDS", help="operations whose name has these words")
    parser.add_argument("--tiny", action="store_true", help="small maps, to try the script")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "ops.json", help="JSON; the table goes beside it (.md)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    import marigold_c

    engine: Any = importlib.import_module("marigold_c._testing")
    args.isa = args.isa or marigold_c._C.best_isa()
    seconds = 0.2 if args.tiny else 4.0
    peak: dict[str, Any] = {**marigold_c._C.measure_machine(num_threads=args.threads, isa=args.isa, seconds=seconds)}
    facts = ", ".join(f"{kind} {peak[kind] / 1e9:.0f} GFLOP/s" for kind in AGREEMENT)
    title = f"{args.dtype}, {args.isa}, {args.threads} threads; products: {facts}; copy {peak['copy'] / 1e9:.1f} GB/s"
    print(title, flush=True)
    found, refused = [], 0
    compared = 16 if args.tiny else 8
    for operation, small in zip(operations(compared if args.tiny else 1), operations(compared), strict=True):
        if args.only not in operation.label:
            continue
        worst = disagreement(engine, small, args.isa, args.threads, args.dtype)
        if worst > AGREEMENT[args.dtype]:
            print(f"{operation.label}: differs from the reference by {worst:.1e}; not timed", file=sys.stderr)
            refused += 1
            continue
        found.append(measure(engine, operation, peak, args))
        print(f"  {'  '.join(row(found[-1]))}", file=sys.stderr, flush=True)
    header = ["operation", "time", "GFLOP/s as direct", "GFLOP/s done", "GB/s", "share of the roof"]
    table = markdown(header, map(row, found))
    print(f"\n{table}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    report = {"dtype": args.dtype, "isa": args.isa, "threads": args.threads, "peak": peak, "operations": found}
    args.output.write_text(json.dumps(report, indent=2), encoding="utf-8")
    args.output.with_suffix(".md").write_text(f"{title}\n\n{table}\n", encoding="utf-8")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())

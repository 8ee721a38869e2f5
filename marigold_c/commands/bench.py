"""`marigold bench`: what this machine reaches, how long the stages of a checkpoint take on it, and how long one of
Stable Diffusion 2's size would. Listed in cli.py."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import _C
from ..loading.folders import default_checkpoint
from ..pipelines.opening import load
from .flag_types import THREADS

HEIGHT, WIDTH = 576, 768
STAGES = ("encode", "unet", "decode")
PRODUCT_TYPES = ("float32", "bfloat16", "int8")

# Additions and multiplications of the plain algorithms, for Stable Diffusion 2's size at 576x768 (ARCHITECTURE.md).
SD2_TERAFLOP = {"encode": 1.92, "unet": 1.49, "decode": 4.28}
# How many times as fast as the measured matrix products the stages are, counted as plain algorithms (Winograd needs a
# quarter of the products of a 3x3 convolution). From the stages' seconds in benchmarks/LOG.md, "bfloat16 and int8", and
# the 228, 450 and 900 GFLOP/s of products of that machine (AVX-512, 2 threads); checked on no other machine.
SPEED_OVER_PRODUCTS = {
    "float32": {"encode": 2.13, "unet": 1.06, "decode": 2.59},
    "bfloat16": {"encode": 1.74, "unet": 0.94, "decode": 2.18},
    "int8": {"encode": 0.85, "unet": 0.54, "decode": 1.08},
}

SECONDS_OF_PRODUCTS = 2.0
SECONDS_OF_STAGE = 6.0  # no further call once so much was spent on a stage, the first call not counted
SECONDS_OF_A_SLOW_CALL = 15.0  # after such a first call there is no second one
MOST_CALLS = 5


def processor_name() -> str:
    """As the operating system tells it; else the architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _machine(threads: int) -> dict[str, Any]:
    speed = _C.measure_machine(
        num_threads=threads, isa=os.environ.get("MARIGOLD_ISA") or None, seconds=SECONDS_OF_PRODUCTS
    )
    return {
        "processor": processor_name(),
        "processors": _C.available_threads(),
        "threads": speed["num_threads"],
        "instruction_sets": _C.instruction_sets(),
        "instruction_set": speed["isa"],
        "products_gflops": {
            "float32": speed["float32"] / 1e9,
            "bfloat16": speed["bfloat16"] / 1e9,
            "int8": speed["int8"] / 1e9,
        },
        "copy_gbytes": speed["copy"] / 1e9,
    }


def _time(run: Callable[[], Any]) -> dict[str, float]:
    """The first call, which also prepares weights, and the fastest of the later ones."""

    def once() -> float:
        begun = time.perf_counter()
        run()
        return time.perf_counter() - begun

    first = once()
    later = [once() if first < SECONDS_OF_A_SLOW_CALL else first]
    while sum(later) + later[-1] < SECONDS_OF_STAGE and len(later) < MOST_CALLS:
        later.append(once())
    return {"first": first, "later": min(later)}


def _stages(pipe: Any) -> dict[str, dict[str, float]]:
    info = pipe._engine.info()
    random = np.random.default_rng(0)
    scale = info["vae_scale"]
    h, w = HEIGHT // scale, WIDTH // scale
    x = random.uniform(-1, 1, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    sample = random.standard_normal((1, info["unet_in_channels"], h, w), dtype=np.float32)
    z = random.standard_normal((1, info["latent_channels"], h, w), dtype=np.float32)
    runs: dict[str, Callable[[], Any]] = {
        "encode": lambda: pipe.vae.encode(x),
        "unet": lambda: pipe.unet(sample, 999, pipe.empty_text_embedding),
        "decode": lambda: pipe.vae.decode(z),
    }
    return {name: _time(runs[name]) for name in STAGES}


def _image_seconds(stages: dict[str, float], steps: int, maps: int) -> float:
    return stages["encode"] + steps * stages["unet"] + maps * stages["decode"]


def _estimate(machine: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Seconds of Stable Diffusion 2's stages."""
    products = machine["products_gflops"][dtype] * 1e9
    stages = {
        name: SD2_TERAFLOP[name] * 1e12 / (products * factor) for name, factor in SPEED_OVER_PRODUCTS[dtype].items()
    }
    return {
        "stages": stages,
        "image_1_step": _image_seconds(stages, 1, 1),
        "image_4_steps": _image_seconds(stages, 4, 1),
    }


def measure(checkpoint: str | None, variant: str | None, dtype: str | None, threads: int | None) -> dict[str, Any]:
    """Everything the command reports; seconds, gigaFLOP/s (multiplications and additions), gigabytes/s."""
    begun = time.perf_counter()
    pipe = load(checkpoint or default_checkpoint(), variant=variant, dtype=dtype, num_threads=threads)
    opening = time.perf_counter() - begun
    machine = _machine(threads or 0)
    info = pipe._engine.info()
    stages = _stages(pipe)
    later = {name: one["later"] for name, one in stages.items()}
    return {
        "machine": machine,
        "checkpoint": str(pipe.folder),
        "shipped": checkpoint is None,
        "dtype": pipe.dtype,
        "unet_parameters": info["unet_parameters"],
        "size": [HEIGHT, WIDTH],
        "opening": opening,
        "stages": stages,
        "image_1_step": _image_seconds(later, 1, info["num_targets"]),
        "image_4_steps": _image_seconds(later, 4, info["num_targets"]),
        "estimate_sd2": _estimate(machine, pipe.dtype),
    }


def describe(report: dict[str, Any]) -> str:
    """The report as text."""
    machine, estimate = report["machine"], report["estimate_sd2"]
    speeds = ", ".join(f"{machine['products_gflops'][kind]:.0f} ({kind})" for kind in PRODUCT_TYPES)
    processors = f"{machine['processors']} processors, {machine['threads']} threads used"
    parameters = f"UNet {report['unet_parameters'] / 1e6:.1f} M parameters"
    lines = [
        f"processor          {machine['processor']}, {processors}",
        f"instruction sets   {', '.join(machine['instruction_sets'])}; in use: {machine['instruction_set']}",
        f"matrix products    {speeds} GFLOP/s, data in cache",
        f"copying            {machine['copy_gbytes']:.1f} GB/s, reading and writing counted",
        f"checkpoint         {report['checkpoint']}, {report['dtype']}, {parameters}",
    ]
    if report["shipped"]:
        lines.append("                   the small demonstration of this package; --checkpoint takes yours")
    height, width = report["size"]
    lines.append(f"{f'at {height}x{width}':18s} {'first call':>12s} {'later':>12s}")
    lines += [f"  {name:16s} {one['first']:10.3f} s {one['later']:10.3f} s" for name, one in report["stages"].items()]
    lines += [
        f"  opening          {report['opening']:10.3f} s",
        f"one image          {report['image_1_step']:.2f} s with 1 step, {report['image_4_steps']:.2f} s with 4 steps",
    ]
    steps = f"{estimate['image_1_step']:.0f} s with 1 step, {estimate['image_4_steps']:.0f} s with 4 steps"
    lines += [
        f"estimate           {steps}: a checkpoint of Stable Diffusion 2's size,",
        "                   from the speed of matrix products; not measured",
    ]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Measures this machine and the stages of a checkpoint on it, at 576x768, in under a minute."
    parser.add_argument("--checkpoint", metavar="PATH", help="folder or hub id; default: the small one in the package")
    parser.add_argument("--variant", metavar="NAME", help="which weight files, for example fp16")
    parser.add_argument("--dtype", metavar="TYPE", help="precision; default: that of a packed file, else float32")
    parser.add_argument("--threads", type=THREADS, metavar="N", help="default: all processors of this process")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> bool:
    report = measure(args.checkpoint, args.variant, args.dtype, args.threads)
    print(json.dumps(report, indent=2) if args.json else describe(report))
    return True

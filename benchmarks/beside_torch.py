"""torch and marigold_c in one process: results and times, in both orders of import, and while both compute.

    python benchmarks/beside_torch.py [--repeats 7]

Each order is a process of its own. A convolution of torch and a depth map of the engine are computed alone, and then in
two threads at once, the first results compared with the last to the bit. Times are the shortest of the repeats, in wall
and processor seconds; "after" is alone again, with the other's threads started. Together both share the processors, so
only processor seconds compare: one thread each, for as many processors as there are. Needs torch.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "examples" / "photo.jpg"
CHECKPOINT = ROOT / "marigold_c" / "checkpoints" / "marigold-tiny-depth"
ORDERS = (("torch", "marigold_c"), ("marigold_c", "torch"))
Compute = Callable[[], np.ndarray[Any, Any]]


def convolution(threads: int) -> Compute:
    import torch

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, 96, 128, generator=generator)
    weight = torch.randn(64, 64, 3, 3, generator=generator)
    return lambda: torch.nn.functional.conv2d(x, weight, padding=1).numpy().copy()


def depth(threads: int) -> Compute:
    import marigold_c as mc

    pipe = mc.MarigoldDepthPipeline.from_pretrained(CHECKPOINT, num_threads=threads)
    pipe.set_progress_bar_config(disable=True)
    image = mc.read_image(PHOTO)
    return lambda: pipe(image, num_inference_steps=1, generator=mc.Generator(0)).prediction


def timed(compute: Compute, repeats: int) -> tuple[np.ndarray[Any, Any], float, float]:
    """The last result, and the shortest wall and processor seconds of this thread's calls."""
    wall, processor = [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.thread_time()
        result = compute()
        wall.append(time.perf_counter() - began)
        processor.append(time.thread_time() - used)
    return result, min(wall), min(processor)


def measure(order: tuple[str, str], repeats: int) -> None:
    for name in order:
        importlib.import_module(name)
    works = {"torch": convolution(1), "marigold_c": depth(1)}
    works = {name: works[name] for name in order}
    expected = {name: work() for name, work in works.items()}
    rows: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in works}

    def run(name: str, when: str, count: int) -> None:
        result, *seconds = timed(works[name], count)
        rows[name][when] = (seconds[0], seconds[1])
        if not np.array_equal(result, expected[name]):
            raise SystemExit(f"{name} {when}: {np.abs(result - expected[name]).max()} from its first result")

    for when in ("alone", "after"):
        for name in works:
            run(name, when, repeats)
        if when == "alone":
            threads = [threading.Thread(target=run, args=(name, "together", repeats)) for name in works]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    if missing := [name for name, row in rows.items() if "together" not in row]:
        raise SystemExit(f"{', '.join(missing)} failed beside the other")
    for name, row in rows.items():
        text = ", ".join(f"{when} {1e3 * wall:.1f} ({1e3 * used:.1f})" for when, (wall, used) in row.items())
        print(f"import {', '.join(order)}: {name}: {text} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--order", type=int, choices=range(len(ORDERS)), help="in this process")
    args = parser.parse_args()
    if args.order is not None:
        measure(ORDERS[args.order], args.repeats)
        return
    print(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}", flush=True)
    for order in range(len(ORDERS)):
        command = [sys.executable, __file__, "--repeats", str(args.repeats), "--order", str(order)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

"""Times `marigold depth` on large photographs, beside an older checkout: seconds, processor seconds, memory, sizes.

    python benchmarks/large_photographs.py [--before CHECKOUT] [--repeats 3] [--threads 2] [--cases 48-npy,48,8x12]

CHECKOUT is a folder with the package and its extension built in place (python setup.py build_ext --inplace). Sides run
in alternation, each run in a process of its own with results on the disk; the medians are printed as a table. On a
shared machine the processor seconds (user and system) say more than the seconds. The photographs are enlarged from
examples/photo.jpg, with noise as a sensor has it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
# Name: photographs, their width and height, formats.
CASES = {
    "48-npy": (1, 8000, 6000, "npy"),
    "48": (1, 8000, 6000, "npy,png16,png"),
    "8x12": (8, 4000, 3000, "npy,png16,png"),
}


@dataclass(frozen=True)
class Run:
    seconds: float
    processor: float
    peak: int  # bytes
    png: int  # bytes of all PNG


def write_photographs(folder: Path, count: int, width: int, height: int) -> None:
    folder.mkdir(exist_ok=True)
    with Image.open(ROOT / "examples" / "photo.jpg") as small:
        pixels = np.asarray(small.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    for number in range(count):
        noise = np.random.default_rng(number).normal(0, 4, (height, width, 1)).astype(np.int16)
        Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=92)


def measure(checkout: Path, photographs: Path, formats: str, threads: int) -> Run:
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "marigold_c", "depth", str(photographs), "-o", out, "--quiet", "--seed", "0"]
        command += ["--format", formats, "--threads", str(threads)]
        started = time.perf_counter()
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(checkout)}, cwd=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{checkout}: the command failed with {process.returncode}")
        size = sum(path.stat().st_size for path in Path(out).rglob("*.png"))
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a built checkout to compare with")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", default=",".join(CASES))
    args = parser.parse_args()
    sides = {"before": args.before.resolve()} if args.before else {}
    sides["now"] = ROOT
    print(
        "| photographs | side | seconds | processor seconds | peak memory | bytes of PNG |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for case in args.cases.split(","):
            count, width, height, formats = CASES[case]
            photographs = Path(folder) / case
            write_photographs(photographs, count, width, height)
            runs: dict[str, list[Run]] = {side: [] for side in sides}
            for _ in range(args.repeats):
                for side, checkout in sides.items():
                    runs[side].append(measure(checkout, photographs, formats, args.threads))
            for side, found in runs.items():
                seconds, processor = (
                    statistics.median(getattr(run, name) for run in found) for name in ("seconds", "processor")
                )
                peak = max(run.peak for run in found)
                print(
                    f"| {count} of {width} x {height}, {formats} | {side} | {seconds:.1f} | {processor:.1f} "
                    f"| {peak / 1e9:.2f} GB | {found[0].png} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

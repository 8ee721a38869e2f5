"""How long a prediction takes beside other work on the same processors, for several builds of the engine in turns.

    python benchmarks/loaded.py [--build NAME=FOLDER[,VARIABLE=VALUE...] ...] [--threads 2] [--calls 30]
                                [--torch PYTHON]

A build is a folder that holds `marigold_c` with its compiled extension (default: the package that is imported). Each
has a process of its own, opened before anything is timed; they take turns, a few calls each. The conditions: nothing
else; a busy loop; two busy loops; a torch job on all processors (PYTHON is an interpreter that has torch); two
pipelines at once; more threads than processors. Printed are the median and the longest of all calls, in milliseconds,
and how much longer a call is to be expected if all that runs gets an equal share ("fair").

    git worktree add ../before REVISION && (cd ../before && python setup.py build_ext --inplace)
    python benchmarks/loaded.py --build before=../before --build passive=../before,OMP_WAIT_POLICY=passive --build now=.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUSY = "while True: pass"
TORCH = "import torch; a = torch.rand(1024, 1024)\nwhile True: a @ a"
CALLS_AT_ONCE = 5
# Reads "pipelines calls" from standard input, answers with the seconds of each call.
WORKER = """
import json, sys, threading, time
import numpy as np
import marigold_c as mc

image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
pipes = [mc.load(mc.default_checkpoint(), num_threads=int(sys.argv[1])) for _ in range(2)]

def call(pipe, times, calls):
    for _ in range(calls):
        begun = time.perf_counter()
        pipe(image, 1, generator=1, processing_resolution=0)
        times.append(time.perf_counter() - begun)

for pipe in pipes:
    pipe.set_progress_bar_config(disable=True)
    call(pipe, [], 2)
print("ready", flush=True)
for line in sys.stdin:
    count, calls = map(int, line.split())
    times = []
    threads = [threading.Thread(target=call, args=(pipe, times, calls)) for pipe in pipes[:count]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(times), flush=True)
"""


class Build:
    """A build's process, waiting to be told to predict."""

    def __init__(self, text: str, threads: int) -> None:
        self.name, _, rest = text.partition("=")
        folder, *variables = rest.split(",")
        environment = {**os.environ, **dict(v.split("=", 1) for v in variables)}
        place = Path(folder).resolve() if folder else None
        if place:
            environment["PYTHONPATH"] = str(place)
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=place,  # which is where `-c` imports from first
            text=True,
        )
        self.answer()

    def answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.name} ended")
        return line

    def predict(self, pipelines: int, calls: int) -> list[float]:
        assert self.process.stdin
        self.process.stdin.write(f"{pipelines} {calls}\n")
        self.process.stdin.flush()
        times: list[float] = json.loads(self.answer())
        return times


@contextmanager
def running(python: str, script: str, count: int) -> Iterator[None]:
    jobs = [subprocess.Popen([python, "-c", script]) for _ in range(count)]
    try:
        yield
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def measure(builds: list[Build], label: str, pipelines: int, calls: int, fair: str) -> None:
    times: dict[str, list[float]] = {build.name: [] for build in builds}
    for _ in range(-(-calls // CALLS_AT_ONCE)):
        for build in builds:
            times[build.name] += build.predict(pipelines, CALLS_AT_ONCE)
    cells = [f"{statistics.median(t) * 1e3:.0f} ({max(t) * 1e3:.0f})" for t in times.values()]
    print(f"| {label} | {fair} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", action="append", metavar="NAME=FOLDER[,VARIABLE=VALUE...]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, default=30, help="of each build in each condition")
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter with torch, for the torch job")
    args = parser.parse_args()
    texts = args.build or ["now="]
    processors = len(os.sched_getaffinity(0))
    builds = [Build(text, args.threads) for text in texts]
    print(f"{args.threads} threads, {processors} processors: median (longest) of {args.calls} calls, ms")
    print(f"| | fair | {' | '.join(build.name for build in builds)} |\n|---|---|{'---|' * len(builds)}")
    measure(builds, "idle", 1, args.calls, "1")
    for loops in (1, 2):
        share = min(args.threads, processors) * (1 + loops / args.threads) / processors
        with running(sys.executable, BUSY, loops):
            measure(builds, f"beside {loops} busy loop{'s' * (loops > 1)}", 1, args.calls, f"{max(1.0, share):.1f}")
    if args.torch:
        with running(args.torch, TORCH, 1):
            measure(builds, "beside a torch job", 1, args.calls, "2")
    measure(builds, "two pipelines", 2, args.calls, "2")
    many = [Build(text, 4 * processors) for text in texts]
    measure(many, f"{4 * processors} threads", 1, args.calls, "1")


if __name__ == "__main__":
    main()

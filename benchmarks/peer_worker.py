"""One side in a process of its own: what runs there (started as a script), and the handle to it (class Worker).

The parts of peers.py that need a process: rows obeyed one after another, one row alone for its memory, the start from
nothing to the first UNet step, and the conversion that a library needs. Orders and replies are lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_libraries import SIDES

Array = NDArray[Any]


class Refused(Exception):
    """The side does not have what was asked for (NotImplementedError there)."""


@dataclass(frozen=True)
class Contestant:
    """A side on a checkpoint, with a number of threads. converted: what the side's `convert` wrote."""

    side: str
    checkpoint: Path
    threads: int
    converted: Path

    def command(self, *more: str) -> list[str]:
        places = ["--checkpoint", str(self.checkpoint), "--converted", str(self.converted)]
        return [sys.executable, __file__, self.side, "--threads", str(self.threads), *places, *more]

    def environment(self) -> dict[str, str]:
        # A kernel choice forced for one library must not slow the other.
        inherited = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
        return {**inherited, "OMP_NUM_THREADS": str(self.threads)}


class Worker:
    """A contestant in its process, waiting for orders."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self._process = subprocess.Popen(
            contestant.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=contestant.environment(),
        )
        self.load_seconds = float(self._reply()["seconds"])
        self.peak_bytes = 0

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {}
        if "refused" in reply:
            self._process.wait()
            raise Refused(reply["refused"])
        if not reply:
            raise SystemExit(f"{self.contestant.side} ended with exit status {self._process.wait()}")
        return reply

    def run(self, row: str, given: Path, save: Path | None = None) -> float:
        """Seconds of one call; `given` is an .npz of the row's inputs."""
        assert self._process.stdin
        order = {"row": row, "input": str(given), "save": str(save) if save else None}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        reply = self._reply()
        self.peak_bytes = int(reply["peak_bytes"])
        return float(reply["seconds"])

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def start(contestant: Contestant, given: Path, save: Path) -> tuple[float, float]:
    """Seconds from the start of a process to just before its first UNet step, and to the end of it."""
    begun = time.monotonic()
    command = contestant.command("--start", str(given), str(save))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=contestant.environment(), check=True)
    times = json.loads(done.stdout)
    if "refused" in times:
        raise Refused(times["refused"])
    return times["before"] - begun, times["after"] - begun


def convert(contestant: Contestant, size: tuple[int, int]) -> None:
    """Writes contestant.converted, if the side needs it."""
    if SIDES[contestant.side].convert and not contestant.converted.is_dir():
        print(f"converting the checkpoint for {contestant.side} (once)", file=sys.stderr)
        command = contestant.command("--convert", f"{size[0]}x{size[1]}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the conversion for {contestant.side} failed:\n{done.stderr}")


# ---- in the process ----


def peak_resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def read_input(path: str) -> dict[str, Array]:
    with np.load(path) as given:
        return dict(given)


def obey(args: argparse.Namespace, replies: Any) -> None:
    """Opens the side, then obeys one order after another: runs a row, saves the result if asked, reports."""
    begun = time.perf_counter()
    prepare = SIDES[args.side].open(args.checkpoint, args.threads, args.converted)
    print(json.dumps({"seconds": time.perf_counter() - begun}), file=replies)
    for line in sys.stdin:
        order = json.loads(line)
        run = prepare(order["row"], read_input(order["input"]))
        begun = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - begun
        if order["save"]:
            np.save(order["save"], result)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_resident_bytes()}), file=replies)


def step_once(args: argparse.Namespace, replies: Any) -> None:
    given, save = args.start
    run = SIDES[args.side].open(args.checkpoint, args.threads, args.converted)("unet", read_input(given))
    before = time.monotonic()  # one clock for all processes
    result = run()
    print(json.dumps({"before": before, "after": time.monotonic()}), file=replies)
    np.save(save, result)


def convert_here(args: argparse.Namespace) -> None:
    convert_side = SIDES[args.side].convert
    assert convert_side
    height, width = (int(number) for number in args.convert.split("x"))
    unfinished = args.converted.with_name(f"{args.converted.name}.partial")
    convert_side(args.checkpoint, unfinished, (height, width))
    unfinished.rename(args.converted)


def main() -> None:
    parser = argparse.ArgumentParser(description="A worker of peers.py.")
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--converted", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--start", nargs=2, metavar=("INPUT", "RESULT"))
    parser.add_argument("--convert", metavar="SIZE")
    args = parser.parse_args()
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the replies
    try:
        if args.convert:
            convert_here(args)
        elif args.start:
            step_once(args, replies)
        else:
            obey(args, replies)
    except NotImplementedError as refusal:
        print(json.dumps({"refused": str(refusal)}), file=replies)


if __name__ == "__main__":
    main()

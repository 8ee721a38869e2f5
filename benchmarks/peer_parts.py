"""The parts of peers.py: rows in turns, each side alone, threads, growth. What they return is written as JSON."""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_libraries import PIPELINES, REFERENCE, SIDES, STAGES, TIMESTEP
from peer_worker import Contestant, Refused, Worker, start

Array = NDArray[Any]
Size = tuple[int, int]

SHORT_ROW = "1-step"  # the pipeline whose memory, scaling and growth is measured


# ---- inputs and results ----


def inputs_for(row: str, size: Size, text_width: int) -> dict[str, Array]:
    random = np.random.default_rng([*row.encode(), *size])
    h, w = size[0] // 8, size[1] // 8
    if row == "encode":
        return {"x": random.uniform(-1, 1, (1, 3, *size)).astype(np.float32)}
    if row == "decode":
        return {"z": random.standard_normal((1, 4, h, w), dtype=np.float32)}
    if row == "unet":
        return {
            "sample": random.standard_normal((1, 8, h, w), dtype=np.float32),
            "timestep": np.array([TIMESTEP]),
            "text": random.standard_normal((1, 2, text_width), dtype=np.float32),
        }
    return {
        "image": random.integers(0, 256, (1, *size, 3), dtype=np.uint8),
        "latents": random.standard_normal((PIPELINES[row].members, 4, h, w), dtype=np.float32),
    }


class Bench:
    """What every part needs: inputs and results of one run in a temporary folder."""

    def __init__(self, folder: Path, text_width: int, repeats: int) -> None:
        self.folder, self.text_width, self.repeats = folder, text_width, repeats
        self.refused: set[str] = set()

    def given(self, row: str, size: Size) -> Path:
        path = self.folder / f"{row}-{size[0]}x{size[1]}.npz"
        if not path.is_file():
            arrays: Any = inputs_for(row, size, self.text_width)
            np.savez(path, **arrays)
        return path

    def result(self, side: str, row: str, size: Size) -> Path:
        return self.folder / f"{side}-{row}-{size[0]}x{size[1]}.npy"

    def refuse(self, side: str, why: Refused) -> None:
        """Leaves the side out, and says so once."""
        if side not in self.refused:
            print(f"{side}: {why}; left out", file=sys.stderr)
        self.refused.add(side)

    def open(self, contestants: list[Contestant]) -> list[Worker]:
        """Those that do not refuse."""
        workers = []
        for contestant in contestants:
            if contestant.side in self.refused:
                continue
            try:
                workers.append(Worker(contestant))
            except Refused as refusal:
                self.refuse(contestant.side, refusal)
        return workers

    def agrees(self, side: str, row: str, size: Size, result: Path) -> dict[str, float] | None:
        """Its disagreement with ours in float32; says so and returns None if that is too large."""
        reference = self.result(REFERENCE, row, size)
        if not reference.is_file():  # this is the first result of all, or the reference did not run this row
            return {"largest": 0.0, "typical": 0.0} if np.isfinite(np.load(result)).all() else None
        found = disagreement(reference, result)
        if found["largest"] <= SIDES[side].largest and found["typical"] <= SIDES[side].typical:
            return found
        print(f"{side}, {row} at {size[0]}x{size[1]} differs by {found}: no timing", file=sys.stderr)
        return None


def disagreement(reference: Path, other: Path) -> dict[str, float]:
    """Largest difference, and root mean square of the differences, over the root mean square of the reference."""
    a, b = np.load(reference).astype(np.float64), np.load(other).astype(np.float64)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return {"largest": float("inf"), "typical": float("inf")}
    size = np.sqrt(np.mean(a**2))
    return {"largest": float(np.abs(a - b).max() / size), "typical": float(np.sqrt(np.mean((a - b) ** 2)) / size)}


# ---- parts ----


def measure(bench: Bench, workers: list[Worker], row: str, size: Size) -> dict[str, Any]:
    given = bench.given(row, size)
    first, agreed, disagreements = {}, [], {}
    for worker in workers:
        side = worker.contestant.side
        result = bench.result(side, row, size)
        first[side] = worker.run(row, given, result)
        if (found := bench.agrees(side, row, size, result)) is not None:
            disagreements[side] = found
            agreed.append(worker)
    repeats = bench.repeats if row not in PIPELINES or PIPELINES[row].members == 1 else 1
    seconds: dict[str, list[float]] = {worker.contestant.side: [] for worker in agreed}
    for _ in range(repeats):
        for worker in agreed:
            seconds[worker.contestant.side].append(worker.run(row, given))
    return {
        "row": row,
        "size": size,
        "disagreement": disagreements,
        "first": {side: first[side] for side in seconds},
        "seconds": seconds,
        "median": {side: statistics.median(values) for side, values in seconds.items()},
    }


def compare(bench: Bench, contestants: list[Contestant], peer: str | None, args: argparse.Namespace) -> dict[str, Any]:
    """Ours beside one peer, or alone; every size and row."""
    workers = bench.open(contestants)
    measurements = [measure(bench, workers, row, size) for size in args.sizes for row in args.rows]
    for worker in workers:
        worker.close()
    return {
        "peer": peer,
        "sides": [worker.contestant.side for worker in workers],
        "sizes": args.sizes,
        "load_seconds": {worker.contestant.side: worker.load_seconds for worker in workers},
        "measurements": measurements,
    }


def memory(bench: Bench, contestant: Contestant, size: Size) -> dict[str, Any]:
    """Empty if the side refuses or does not agree."""
    result = bench.result(contestant.side, SHORT_ROW, size)
    for worker in bench.open([contestant]):
        worker.run(SHORT_ROW, bench.given(SHORT_ROW, size), result)
        worker.close()
        if bench.agrees(contestant.side, SHORT_ROW, size, result) is not None:
            return {"peak_bytes": worker.peak_bytes}
    return {}


def starts(bench: Bench, contestants: list[Contestant], size: Size) -> dict[str, dict[str, float]]:
    given = bench.given("unet", size)
    times: dict[str, list[tuple[float, float]]] = {}
    for turn in range(bench.repeats + 1):
        for contestant in contestants:
            side = contestant.side
            if side in bench.refused or (turn and side not in times):
                continue
            result = bench.result(side, "unet", size)
            try:
                taken = start(contestant, given, result)
            except Refused as refusal:
                bench.refuse(side, refusal)
                continue
            if turn:
                times[side].append(taken)
            elif bench.agrees(side, "unet", size, result) is not None:
                times[side] = []
    return {
        side: {
            "before": statistics.median(before for before, _ in taken),
            "after": statistics.median(after for _, after in taken),
        }
        for side, taken in times.items()
    }


def alone(bench: Bench, contestants: list[Contestant], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Memory and start of each side, in processes that do nothing else."""
    size = args.sizes[0]
    found: dict[str, dict[str, Any]] = {}
    if "memory" in args.parts:
        found = {contestant.side: memory(bench, contestant, size) for contestant in contestants}
    if "start" in args.parts:
        for side, times in starts(bench, contestants, size).items():
            found.setdefault(side, {})["start"] = times
    return {side: figures for side, figures in found.items() if figures}


def scale(bench: Bench, contestants: list[Contestant], args: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for contestant in contestants:
        pair = bench.open([replace(contestant, threads=1), contestant])
        for row in (*STAGES, SHORT_ROW) if len(pair) == 2 else ():
            given = bench.given(row, args.sizes[0])
            results = [bench.folder / f"threads-{index}.npy" for index in range(2)]
            for worker, result in zip(pair, results, strict=True):
                worker.run(row, given, result)
            if not np.array_equal(*map(np.load, results)):
                raise SystemExit(f"{contestant.side}, {row}: the result depends on the number of threads")
            seconds: list[list[float]] = [[], []]
            for _ in range(bench.repeats):
                for worker, values in zip(pair, seconds, strict=True):
                    values.append(worker.run(row, given))
            one, every = map(statistics.median, seconds)
            found.append({"side": contestant.side, "row": row, "one": one, "all": every})
        for worker in pair:
            worker.close()
    return found


def grow(bench: Bench, contestants: list[Contestant], args: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for contestant in contestants:
        for size in args.growth:
            result = bench.result(contestant.side, SHORT_ROW, size)
            for worker in bench.open([contestant]):
                given = bench.given(SHORT_ROW, size)
                first = worker.run(SHORT_ROW, given, result)
                later = worker.run(SHORT_ROW, given)
                worker.close()
                if bench.agrees(contestant.side, SHORT_ROW, size, result) is not None:
                    figures = {"first": first, "later": later, "peak_bytes": worker.peak_bytes}
                    found.append({"side": contestant.side, "size": size, **figures})
    return found

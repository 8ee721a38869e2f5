"""Evaluates depth predictions of NYUv2's size, from files, beside the steps of the published evaluation in NumPy.

    python benchmarks/metrics.py [--count 654] [--threads 2] [--repeats 3] [--folder DIR]

Writes `count` predictions (float32 .npy) and truths (uint16 .npy, millimetres) into a folder, then both sides take
turns: read, align by least squares over the valid pixels, clip, ten metrics, means over the images. The NumPy side does
what prs-eth/Marigold does: numpy.linalg.lstsq on [prediction 1], and a pass over the map for each metric, in float32.
The means are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_c import _C, metrics

HEIGHT, WIDTH, NEAR, FAR = 480, 640, 1e-3, 10.0


def write_samples(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    for index in range(count):
        a, b, c = random.uniform(0.5, 3, 3)
        depth = 1 + a * rows + b * np.sin(c * columns * 6) ** 2
        noise = random.normal(0, 0.02, depth.shape)
        np.save(folder / f"{index}_prediction.npy", ((depth + noise) / 8).astype(np.float32))
        depth[random.random(depth.shape) < 0.1] = 0
        np.save(folder / f"{index}_truth.npy", np.round(depth * 1000).astype(np.uint16))


def read(folder: Path, index: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    truth = np.load(folder / f"{index}_truth.npy") / np.float32(1000)
    mask = np.zeros(truth.shape, bool)
    mask[45:471, 41:601] = True
    return np.load(folder / f"{index}_prediction.npy"), truth, mask & (truth > NEAR) & (truth < FAR)


def ours(folder: Path, count: int, threads: int) -> dict[str, float]:
    total = dict.fromkeys(metrics.DEPTH_METRICS, 0.0)
    for index in range(count):
        prediction, truth, mask = read(folder, index)
        aligned, _, _ = _C.align_least_squares(prediction, truth, mask, "depth", 0, threads)
        np.clip(aligned, NEAR, FAR, out=aligned)
        for name, value in _C.depth_metrics(aligned, truth, mask, threads).items():
            total[name] += value / count
    return total


def in_numpy(folder: Path, count: int) -> dict[str, float]:
    total = dict.fromkeys(metrics.DEPTH_METRICS, 0.0)
    for index in range(count):
        prediction, truth, mask = read(folder, index)
        x = prediction[mask].reshape(-1, 1)
        scale, shift = np.linalg.lstsq(np.concatenate([x, np.ones_like(x)], 1), truth[mask].reshape(-1, 1), rcond=None)[
            0
        ]
        aligned = np.clip(np.clip(prediction * scale + shift, NEAR, FAR), 1e-6, None).astype(np.float32)
        for name, value in numpy_metrics(aligned, truth, mask).items():
            total[name] += float(value) / count
    return total


def numpy_metrics(p: NDArray[Any], t: NDArray[Any], mask: NDArray[Any]) -> dict[str, Any]:
    n = mask.sum()

    def mean(values: NDArray[Any]) -> Any:
        values[~mask] = 0
        return values.sum() / n

    with np.errstate(all="ignore"):
        return {
            "abs_relative_difference": mean(np.abs(p - t) / t),
            "squared_relative_difference": mean(np.abs(p - t) ** 2 / t),
            "rmse_linear": np.sqrt(mean((p - t) ** 2)),
            "rmse_log": np.sqrt(mean((np.log(p) - np.log(t)) ** 2)),
            "log10": np.abs(np.log10(p[mask]) - np.log10(t[mask])).mean(),
            **{f"delta{k}_acc": mean((np.maximum(p / t, t / p) < 1.25**k).astype(np.float32)) for k in (1, 2, 3)},
            "i_rmse": np.sqrt(mean((1 / p - 1 / t) ** 2)),
            "silog_rmse": 100 * np.sqrt(mean((np.log(p) - np.log(t)) ** 2) - mean(np.log(p) - np.log(t)) ** 2),
        }


def seconds(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=654)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        write_samples(folder, args.count)
        found, expected = ours(folder, args.count, args.threads), in_numpy(folder, args.count)
        worst = max(abs(found[key] / expected[key] - 1) for key in found)
        print(f"{args.count} images of {HEIGHT}x{WIDTH}; largest relative difference of a mean {worst:.1e}")
        if worst > 1e-4:
            raise SystemExit("the sides do not agree")
        sides: dict[str, Callable[[], Any]] = {
            "marigold_c": lambda: ours(folder, args.count, args.threads),
            "NumPy": lambda: in_numpy(folder, args.count),
            "reading alone": lambda: [read(folder, index) for index in range(args.count)],
        }
        times: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(args.repeats):
            for side, run in sides.items():
                times[side].append(seconds(run))
        medians = {side: statistics.median(values) for side, values in times.items()}
        for side, value in medians.items():
            print(f"{side:14s} {value:7.2f} s, {1000 * value / args.count:6.2f} ms an image")
        print(f"ratio {medians['marigold_c'] / medians['NumPy']:.3f}")


if __name__ == "__main__":
    main()

"""Thousands of calls in one process: memory, file descriptors and threads stay as they are.

    python benchmarks/soak.py --calls 10000

Each call is drawn by a seeded generator from a table: predictions of all tasks and precisions in changing sizes,
ensembles, batches, calls that are refused, that a callback ends and that another thread cancels, training steps,
checkpoints that are opened and closed, files that are written. After each tenth of the calls a row is printed. Exit
code 1: the last row has more descriptors or threads than that of a fifth of the calls, or --growth MB more of resident
memory.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import marigold_c as mc

TASKS = ("depth", "normals", "intrinsics")
DTYPES = ("float32", "bfloat16", "int8")
LARGEST = 96  # pixels of a side


class Soak:
    """What the calls share."""

    def __init__(self, folder: Path, seed: int, threads: int) -> None:
        self.folder, self.rng, self.threads = folder, np.random.default_rng(seed), threads
        self.pipes = {(task, dtype): self.opened(task, dtype=dtype) for task in TASKS for dtype in DTYPES}
        self.trainer = mc.Trainer.from_pretrained(mc.default_checkpoint(), num_threads=threads)

    def opened(self, task: str, **options: Any) -> Any:
        pipe = mc.load(mc.default_checkpoint(task), num_threads=self.threads, **options)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def image(self) -> np.ndarray:
        height, width = self.rng.integers(9, LARGEST, 2)
        return self.rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

    def pipe(self) -> Any:
        return self.pipes[TASKS[self.rng.integers(3)], DTYPES[self.rng.integers(3)]]

    # ---- the calls ----

    def predict(self) -> None:
        resolution = int(self.rng.choice([0, 32, 48, 64]))
        self.pipe()(self.image(), processing_resolution=resolution, num_inference_steps=int(self.rng.integers(1, 3)))

    def batch(self) -> None:
        images = np.stack([self.image()[:9, :9]] * 3)
        self.pipe()(images, processing_resolution=0, num_inference_steps=1, batch_size=2)

    def ensemble(self) -> None:
        pipe = self.pipe()
        pipe(self.image(), processing_resolution=32, num_inference_steps=1, ensemble_size=3, output_uncertainty=True)

    def refused(self) -> None:
        try:
            self.pipe()(self.image()[..., :2])
        except ValueError:
            return
        raise AssertionError("an image of two channels was taken")

    def ended_by_callback(self) -> None:
        pipe = self.pipe()

        def end(_done: int, _total: int) -> None:
            raise StopIteration

        pipe.set_progress_callback(end)
        try:
            pipe(self.image(), processing_resolution=0, num_inference_steps=2)
        except StopIteration:
            return
        finally:
            pipe.set_progress_callback(None)
        raise AssertionError("the callback's exception was lost")

    def cancelled(self) -> None:
        """Or done before; either is well."""
        pipe, image = self.pipe(), self.image()

        def call() -> None:
            with suppress(KeyboardInterrupt):
                pipe(image, processing_resolution=0, num_inference_steps=4)

        thread = threading.Thread(target=call)
        thread.start()
        while thread.is_alive() and not pipe.cancel():
            time.sleep(0.0005)
        thread.join()

    def opens(self) -> None:
        task, dtype = TASKS[self.rng.integers(3)], DTYPES[self.rng.integers(3)]
        self.opened(task, dtype=dtype)(self.image(), processing_resolution=32, num_inference_steps=1)

    def no_checkpoint(self) -> None:
        for path in (self.folder, self.folder / "none"):
            try:
                mc.load(path)
            except (OSError, ValueError):
                continue
            raise AssertionError(f"{path} was opened")

    def writes(self) -> None:
        source, packed = mc.default_checkpoint(), self.folder / "packed.safetensors"
        mc.convert(source, packed, dtype=DTYPES[self.rng.integers(3)], force=True, num_threads=self.threads)
        mc.load(packed, num_threads=self.threads).save_pretrained(self.folder / "saved", text_encoder=source)

    def trains(self) -> None:
        size = int(self.rng.integers(2, 5)) * 2
        latents = self.rng.normal(size=(3, 1, 4, size, size)).astype(np.float32)
        self.trainer.train_step(*latents, self.rng.integers(0, 1000, 1), learning_rate=1e-9)


CALLS: dict[Callable[[Soak], None], int] = {
    Soak.predict: 60,
    Soak.batch: 6,
    Soak.ensemble: 6,
    Soak.refused: 6,
    Soak.ended_by_callback: 6,
    Soak.cancelled: 6,
    Soak.opens: 4,
    Soak.no_checkpoint: 2,
    Soak.writes: 1,
    Soak.trains: 3,
}


def state() -> dict[str, float]:
    """Of this process, after what may be given back was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "resident MB": int(status["VmRSS"].split()[0]) / 1024,
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": int(status["Threads"]),
        "mappings": len(Path("/proc/self/maps").read_text().splitlines()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10000, help="default: 10000")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long; default: never")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the engine; default: 2")
    parser.add_argument("--growth", type=float, default=4.0, help="MB that may be more at the end; default: 4")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(soak(Soak(Path(folder), args.seed, args.threads), args))


def soak(one: Soak, args: argparse.Namespace) -> int:
    calls, weights = list(CALLS), np.array(list(CALLS.values()), float)
    done, rows, begin = Counter[str](), [state()], time.monotonic()
    print("| calls | seconds |", " | ".join(rows[0]), "|", flush=True)
    for i in range(1, args.calls + 1):
        call = calls[one.rng.choice(len(calls), p=weights / weights.sum())]
        call(one)
        done[call.__name__] += 1
        late = time.monotonic() - begin > args.seconds
        if i % max(args.calls // 10, 1) == 0 or late:
            rows.append(state())
            facts = " | ".join(f"{value:.6g}" for value in rows[-1].values())
            print(f"| {i} | {time.monotonic() - begin:.0f} | {facts} |", flush=True)
        if late:
            break
    print(", ".join(f"{count} {name}" for name, count in done.most_common()))
    early, last = rows[min(2, len(rows) - 1)], rows[-1]
    more = {name: last[name] - early[name] for name in last}
    grown = [name for name in ("descriptors", "threads") if more[name] > 0]
    grown += ["resident MB"] if more["resident MB"] > args.growth else []
    print("flat" if not grown else f"GREW: {', '.join(f'{name} by {more[name]:.1f}' for name in grown)}")
    return int(bool(grown))


if __name__ == "__main__":
    main()

"""Times marigold_c beside other libraries on one checkpoint: VAE encode, one UNet step, VAE decode.

    python benchmarks/peers.py [--checkpoint FOLDER] [--peers LIST] [--sizes 576x768] [--stages LIST] [--repeats 3]

The peers (peer_libraries.py; those that are installed, --peers chooses) come one after the other. Each is a process
beside ours and the two take turns (A B A B), because a machine's speed drifts: only figures of one row of a table may
be compared. First both compute each stage from the same input, uncounted, and the results are compared: without
agreement there is no timing. Figures are medians; memory is the peak resident set of each process (VmHWM), interpreter
and imports included; OpenVINO's includes the conversion.

Without --checkpoint a random one of Stable Diffusion 2's size is written once (5.2 GB) into benchmarks/results.
--tiny uses a small one and small images: for trying the script, not for figures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from make_sd2_checkpoint import write_checkpoint
from peer_libraries import OURS, PEERS, Array

RESULTS = Path(__file__).resolve().parent / "results"
STAGES = ("encode", "unet", "decode")
DEFAULT_PEERS = ("PyTorch float32",)


def inputs_for(stage: str, height: int, width: int, text_width: int) -> dict[str, Array]:
    random = np.random.default_rng([STAGES.index(stage), height, width])
    h, w = height // 8, width // 8
    if stage == "encode":
        return {"x": random.uniform(-1, 1, (1, 3, height, width)).astype(np.float32)}
    if stage == "decode":
        return {"z": random.standard_normal((1, 4, h, w), dtype=np.float32)}
    return {
        "sample": random.standard_normal((1, 8, h, w), dtype=np.float32),
        "text": random.standard_normal((1, 2, text_width), dtype=np.float32),
    }


# ---- worker processes ----


def peak_resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def work(name: str, checkpoint: Path, threads: int) -> None:
    """Obeys one JSON line after another: loads a stage's input, runs it, saves the result if asked, reports."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the replies
    begun = time.perf_counter()
    prepare = PEERS[name].open(checkpoint, threads)
    print(json.dumps({"seconds": time.perf_counter() - begun}), file=replies)
    for line in sys.stdin:
        order = json.loads(line)
        with np.load(order["input"]) as given:
            run = prepare(order["stage"], dict(given))
        begun = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - begun
        if order["save"]:
            np.save(order["save"], result)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_resident_bytes()}), file=replies)


class Worker:
    """One side in its own process."""

    def __init__(self, name: str, checkpoint: Path, threads: int) -> None:
        self.name = name
        self.peak_bytes = 0
        # A kernel choice forced for one library must not slow the other.
        inherited = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
        command = [
            sys.executable,
            __file__,
            "--worker",
            name,
            "--checkpoint",
            str(checkpoint),
            "--threads",
            str(threads),
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**inherited, "OMP_NUM_THREADS": str(threads)},
        )
        self.load_seconds = float(self._reply()["seconds"])

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with exit status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def run(self, stage: str, given: Path, save: Path | None = None) -> float:
        assert self._process.stdin
        order = {"stage": stage, "input": str(given), "save": str(save) if save else None}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        reply = self._reply()
        self.peak_bytes = max(self.peak_bytes, int(reply["peak_bytes"]))
        return float(reply["seconds"])

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


# ---- the comparison ----


def disagreement(ours: Path, peer: Path) -> float:
    """Largest difference over the root mean square of the peer's result; infinite for anything that is no number."""
    a, b = np.load(ours).astype(np.float64), np.load(peer).astype(np.float64)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.abs(a - b).max() / np.sqrt(np.mean(b**2)))


def measure(workers: list[Worker], stage: str, size: tuple[int, int], text_width: int, repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "input.npz"
        np.savez(given, **inputs_for(stage, *size, text_width))
        results = [Path(folder) / f"{index}.npy" for index in range(len(workers))]
        first = {worker.name: worker.run(stage, given, save) for worker, save in zip(workers, results, strict=True)}
        difference = disagreement(*results) if len(results) == 2 else None
        if difference is not None and difference > PEERS[workers[1].name].agreement:
            raise SystemExit(
                f"{stage} at {size[0]}x{size[1]}: {workers[1].name} differs by {difference:.1e} of the result's size; "
                "no timing"
            )
        seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
        for _ in range(repeats):
            for worker in workers:
                seconds[worker.name].append(worker.run(stage, given))
    return {
        "stage": stage,
        "size": size,
        "difference": difference,
        "first": first,
        "seconds": seconds,
        "median": {name: statistics.median(values) for name, values in seconds.items()},
    }


def compare(peer: str | None, checkpoint: Path, text_width: int, args: argparse.Namespace) -> dict[str, Any]:
    """Ours beside one peer, or alone."""
    workers = [Worker(name, checkpoint, args.threads) for name in ((OURS, peer) if peer else (OURS,))]
    measurements = [
        measure(workers, stage, size, text_width, args.repeats) for size in args.sizes for stage in args.stages
    ]
    for worker in workers:
        worker.close()
    return {
        "peer": peer,
        "load_seconds": {worker.name: worker.load_seconds for worker in workers},
        "peak_bytes": {worker.name: worker.peak_bytes for worker in workers},
        "measurements": measurements,
    }


def row(label: str, figures: dict[str, float], peer: str | None, difference: float | None, unit: str = "s") -> str:
    cells = [label, f"{figures[OURS]:.3f} {unit}", "", "", "" if difference is None else f"{difference:.1e}"]
    if peer:
        cells[2:4] = f"{figures[peer]:.3f} {unit}", f"{figures[OURS] / figures[peer]:.2f}"
    return f"| {' | '.join(cells)} |"


def table(comparison: dict[str, Any], sizes: list[tuple[int, int]]) -> str:
    peer = comparison["peer"]
    lines = [f"| stage | {OURS} | {peer or 'no peer'} | ratio | largest difference / RMS |", "|---|---|---|---|---|"]
    for size in sizes:
        rows = [entry for entry in comparison["measurements"] if list(entry["size"]) == list(size)]
        label = f"{size[0]}x{size[1]}"
        lines += [row(f"{label} {entry['stage']}", entry["median"], peer, entry["difference"]) for entry in rows]
        if len(rows) > 1:
            total = {name: sum(entry["median"][name] for entry in rows) for name in rows[0]["median"]}
            lines.append(row(f"{label} sum", total, peer, None))
    gigabytes = {name: peak / 1e9 for name, peak in comparison["peak_bytes"].items()}
    lines.append(row("peak memory", gigabytes, peer, None, "GB"))
    return "\n".join(lines)


def processor_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions(peers: list[str]) -> dict[str, str]:
    from importlib.metadata import version

    packages = dict.fromkeys(("numpy", *(module for peer in peers for module in PEERS[peer].modules)))
    return {name: version(name) for name in packages}


def is_installed(peer: str) -> bool:
    return all(importlib.util.find_spec(name) for name in PEERS[peer].modules)


def checkpoint_of(args: argparse.Namespace) -> Path:
    if args.checkpoint:
        return Path(args.checkpoint)
    preset = "tiny" if args.tiny else "sd2"
    folder = RESULTS / f"{preset}-random"
    if not (folder / "model_index.json").is_file():
        print(f"writing a random checkpoint into {folder} (once)", file=sys.stderr)
        write_checkpoint(folder, preset)
    return folder


def sizes(text: str) -> list[tuple[int, int]]:
    found = []
    for part in text.split(","):
        try:
            height, width = (int(number) for number in part.split("x"))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r} is not HEIGHTxWIDTH") from None
        if min(height, width) < 8 or height % 8 or width % 8:
            raise argparse.ArgumentTypeError(f"{part}: height and width must be multiples of 8")
        found.append((height, width))
    return found


def stages(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in STAGES]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {','.join(STAGES)}")
    return names


def peers(text: str) -> list[str]:
    known = [name for name in PEERS if name != OURS]
    names = known if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {','.join(known)}, or all")
    return names


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="a depth checkpoint folder with float32 weights")
    parser.add_argument("--peers", type=peers, default=list(DEFAULT_PEERS), help="comma-separated, or all")
    parser.add_argument("--stages", type=stages, default=list(STAGES), help="comma-separated, default: all")
    parser.add_argument("--sizes", type=sizes, help="HEIGHTxWIDTH of the image, comma-separated; default 576x768")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours-only", action="store_true", help="no peer")
    parser.add_argument("--tiny", action="store_true", help="a small checkpoint and image, to try the script")
    parser.add_argument("--output", type=Path, default=RESULTS / "peers.json", help="where the JSON goes")
    parser.add_argument("--worker", choices=tuple(PEERS), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    if args.worker:
        work(args.worker, Path(args.checkpoint), args.threads)
        return 0
    wanted = [] if args.ours_only else args.peers
    found = [peer for peer in wanted if is_installed(peer)]
    for peer in set(wanted) - set(found):
        print(f"{peer}: {', '.join(PEERS[peer].modules)} are not all installed; left out", file=sys.stderr)
    checkpoint = checkpoint_of(args)
    text_width = json.loads((checkpoint / "unet" / "config.json").read_text("utf-8"))["cross_attention_dim"]
    args.sizes = args.sizes or [(64, 96) if args.tiny else (576, 768)]
    report: dict[str, Any] = {
        "processor": processor_name(),
        "threads": args.threads,
        "repeats": args.repeats,
        "versions": versions(found),
        "checkpoint": checkpoint.name,
        "sizes": args.sizes,
        "comparisons": [],
    }
    named = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    print(f"{report['processor']}, {args.threads} threads, {args.repeats} repeats, {named}")
    for peer in found or [None]:
        report["comparisons"].append(compare(peer, checkpoint, text_width, args))
        print(f"\n{table(report['comparisons'][-1], args.sizes)}", flush=True)
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

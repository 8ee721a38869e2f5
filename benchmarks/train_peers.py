"""Times a training step of the UNet beside PyTorch: forward, backward, Adam; latents of 60x80, one image.

    python benchmarks/train_peers.py [--checkpoint FOLDER] [--sides LIST] [--latent 60x80] [--threads 2] [--repeats 5]

The UNet has 223 M parameters: half the channels of Stable Diffusion 2's, random weights, written once (0.9 GB) into
benchmarks/results. PyTorch runs diffusers' UNet2DConditionModel with autograd and a fused Adam. Each side is measured
against PyTorch in float32: two processes take turns, a step each (A B A B ...); the ratio is the median of those of
neighbours, as the speed of a machine may change from minute to minute. The first step of each, which also plans and
allocates, is not timed; but its loss and, of every parameter, the norm of the gradient and its product with a random
direction are compared with the first side's: a side that does not agree gets no timing. The gradients are read from
Adam's first moment, which after a step is 1 - beta1 times them. The peak is VmHWM of the whole process after that.
"recomputing" is gradient checkpointing. "gradients kept": all in memory until the optimiser has moved all weights; else
ours move each weight as soon as its own gradient is whole, as `marigold train` does where a step is one batch.
Writes JSON, and a Markdown table.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from make_sd2_checkpoint import write_checkpoint
from numpy.typing import NDArray
from peer_tables import markdown
from peer_worker import Contestant, Refused, Worker, peak_resident_bytes

from marigold_c.commands.bench import processor_name

Array = NDArray[Any]
RESULTS = Path(__file__).resolve().parent / "results"
REFERENCE = "marigold_c float32"
PEER = "PyTorch float32"
TIMESTEP = 600
LEARNING_RATE = 1e-5
BETA1 = 0.9


# ---- sides ----


@dataclass(frozen=True)
class Learner:
    """One side: a training step, which returns the loss; Adam's first moments with the parameters' names."""

    step: Callable[[], float]
    moments: Callable[[], Iterator[tuple[str, Array]]]


def open_ours(folder: Path, given: dict[str, Array], threads: int, dtype: str, options: dict[str, Any]) -> Learner:
    from marigold_c import Trainer

    trainer = Trainer.from_pretrained(
        folder, dtype=dtype, num_threads=threads, learning_rate=LEARNING_RATE, **{"keep_gradients": False, **options}
    )
    batch = (given["image"], given["target"], given["noise"], [TIMESTEP])

    def moments() -> Iterator[tuple[str, Array]]:
        engine = trainer._engine
        return ((name, engine.read(index, "m")) for index, name in enumerate(engine.names()))

    return Learner(lambda: trainer.train_step(*batch)[0], moments)


def open_torch(folder: Path, given: dict[str, Array], threads: int, dtype: str, options: dict[str, Any]) -> Learner:
    import torch
    from diffusers import DDIMScheduler, UNet2DConditionModel

    torch.set_num_threads(threads)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32).train()
    if options.get("gradient_checkpointing"):
        unet.enable_gradient_checkpointing()
    optimizer = torch.optim.Adam(unet.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", rescale_betas_zero_snr=True)
    image, target, noise, text = (torch.from_numpy(given[name]) for name in ("image", "target", "noise", "text"))
    timesteps = torch.tensor([TIMESTEP])
    sample = torch.cat([image, schedule.add_noise(target, noise, timesteps)], 1)
    wanted = schedule.get_velocity(target, noise, timesteps)
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")

    def step() -> float:
        with mixed:
            output = unet(sample, timesteps, text).sample
        loss = torch.nn.functional.mse_loss(output.float(), wanted)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def moments() -> Iterator[tuple[str, Array]]:
        return ((name, optimizer.state[p]["exp_avg"].numpy()) for name, p in unet.named_parameters())

    return Learner(step, moments)


@dataclass(frozen=True)
class Side:
    open: Callable[[Path, dict[str, Array], int, str, dict[str, Any]], Learner]
    dtype: str
    tolerance: float  # of the loss and of gradients, relative
    options: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


_TORCH = ("torch", "diffusers")
_RECOMPUTING = {"gradient_checkpointing": True}
SIDES = {
    REFERENCE: Side(open_ours, "float32", 1e-4),
    "marigold_c float32, gradients kept": Side(open_ours, "float32", 1e-4, {"keep_gradients": True}),
    "marigold_c float32, recomputing": Side(open_ours, "float32", 1e-4, _RECOMPUTING),
    "marigold_c bfloat16": Side(open_ours, "bfloat16", 0.1),
    "marigold_c bfloat16, recomputing": Side(open_ours, "bfloat16", 0.1, _RECOMPUTING),
    PEER: Side(open_torch, "float32", 1e-4, needs=_TORCH),
    "PyTorch float32, recomputing": Side(open_torch, "float32", 1e-4, _RECOMPUTING, _TORCH),
    "PyTorch bfloat16": Side(open_torch, "bfloat16", 0.1, needs=_TORCH),
}


def digest(loss: float, moments: Iterator[tuple[str, Array]]) -> dict[str, list[float]]:
    """The loss; of each gradient its norm and its product with a random direction of the norm 1."""
    found = {"loss": [loss]}
    for name, moment in moments:
        gradient = moment / (1 - BETA1)
        direction = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(gradient.shape, np.float32)
        product = np.vdot(gradient, direction) / np.linalg.norm(direction)
        found[name] = [float(np.linalg.norm(gradient)), float(product)]
    return found


def disagreement(reference: dict[str, list[float]], found: dict[str, list[float]]) -> float:
    """The largest difference of a figure, relative to its gradient's norm; infinite if a parameter is missing."""
    if reference.keys() != found.keys():
        return float("inf")
    # A gradient that is rounding alone has no digits to compare.
    least = 1e-4 * max(values[0] for values in reference.values())
    return max(
        abs(a - b) / max(values[0], least)
        for name, values in reference.items()
        for a, b in zip(values, found[name], strict=True)
    )


# ---- processes ----


class Trainee(Contestant):
    """A side of this file; `converted` is the file of its inputs."""

    def command(self, *more: str) -> list[str]:
        command = [sys.executable, __file__, "--worker", self.side, "--threads", str(self.threads)]
        return [*command, "--checkpoint", str(self.checkpoint), "--given", str(self.converted), *more]


def forget_peak() -> None:
    """VmHWM begins again (Linux, proc(5): clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def obey(args: argparse.Namespace, replies: Any) -> None:
    """Opens the side, then makes a step for each order; saves the digest of its gradients if asked."""
    side = SIDES[args.worker]
    begun = time.perf_counter()
    with np.load(args.given) as arrays:
        learner = side.open(args.checkpoint, dict(arrays), args.threads, side.dtype, side.options)
    print(json.dumps({"seconds": time.perf_counter() - begun}), file=replies)
    for line in sys.stdin:
        order = json.loads(line)
        begun = time.perf_counter()
        loss = learner.step()
        reply = {"seconds": time.perf_counter() - begun, "peak_bytes": peak_resident_bytes()}
        if order["save"]:
            Path(order["save"]).write_text(json.dumps(digest(loss, learner.moments())), encoding="utf-8")
            forget_peak()
        print(json.dumps(reply), file=replies)


def work(args: argparse.Namespace) -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the replies
    try:
        obey(args, replies)
    except NotImplementedError as refusal:
        print(json.dumps({"refused": str(refusal)}), file=replies)


# ---- comparison ----


def write_inputs(path: Path, folder: Path, latent: tuple[int, int]) -> None:
    """Random latents, and the embedding of the empty prompt, which only we compute here."""
    import marigold_c as mc

    random = np.random.default_rng(0)
    shape = (1, 4, *latent)
    arrays = {name: random.standard_normal(shape, np.float32) for name in ("image", "target", "noise")}
    np.savez(path, text=mc.load(folder).empty_text_embedding, **arrays)  # type: ignore[arg-type]


class Comparison:
    """Pairs of processes, one after another; the first gradients are what all others must agree with."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder, self.given = args, folder, folder / "given.npz"
        self.reference: dict[str, list[float]] | None = None
        write_inputs(self.given, args.checkpoint, args.latent)

    def open(self, side: str) -> Worker | None:
        if not all(importlib.util.find_spec(name) for name in SIDES[side].needs):
            print(f"{side}: not installed; left out", file=sys.stderr)
            return None
        try:
            return Worker(Trainee(side, self.args.checkpoint, self.args.threads, self.given))
        except Refused as refusal:
            print(f"{side}: {refusal}; left out", file=sys.stderr)
            return None

    def first_step(self, worker: Worker) -> float:
        """By how much its gradients differ from the first ones."""
        save = self.folder / "digest.json"
        worker.run("step", self.given, save)
        found = json.loads(save.read_text(encoding="utf-8"))
        self.reference = self.reference or found
        return disagreement(self.reference, found)

    def measure(self, side: str, peer: str) -> dict[str, Any] | None:
        """Steps of a side and of its peer, if there is one, in turns."""
        workers = [worker for worker in map(self.open, dict.fromkeys([side, peer])) if worker]
        try:
            if not workers or workers[0].contestant.side != side:
                return None
            differences = [self.first_step(worker) for worker in workers]
            if differences[0] > SIDES[side].tolerance:
                print(f"{side} differs from {REFERENCE} by {differences[0]:.2g}: no timing", file=sys.stderr)
                return None
            rounds = [[worker.run("step", self.given) for worker in workers] for _ in range(self.args.repeats)]
            return {
                "side": side,
                "difference": differences[0],
                "step": statistics.median(seconds[0] for seconds in rounds),
                "ratio": statistics.median(seconds[0] / seconds[-1] for seconds in rounds),
                "rounds": rounds,
                "peak_bytes": workers[0].peak_bytes,
            }
        finally:
            for worker in workers:
                worker.close()


def compare(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    comparison = Comparison(args, folder)
    peer = PEER if PEER in args.sides else args.sides[0]
    found = (comparison.measure(side, peer) for side in args.sides)
    return [report for report in found if report is not None]


def table(reports: list[dict[str, Any]], peer: str) -> str:
    rows = []
    for report in reports:
        step, peak = f"{report['step']:.2f} s", f"{report['peak_bytes'] / 1e9:.2f} GB"
        rows.append([report["side"], step, f"{report['ratio']:.2f}", peak, f"{report['difference']:.1e}"])
    return markdown(["side", "step", f"to {peer}", "peak memory", "largest difference"], rows)


def size(text: str) -> tuple[int, int]:
    height, width = (int(number) for number in text.split("x"))
    return height, width


def sides(text: str) -> list[str]:
    names = text.split(";")
    if unknown := [name for name in names if name not in SIDES]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {'; '.join(SIDES)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--sides", type=sides, default=list(SIDES), help="separated by semicolons")
    parser.add_argument("--latent", type=size, default=(60, 80))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "train_peers.json")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--given", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    if not args.checkpoint:
        args.checkpoint = RESULTS / "train-random"
        if not args.checkpoint.is_dir():
            write_checkpoint(args.checkpoint, "train")
    with tempfile.TemporaryDirectory() as folder:
        reports = compare(args, Path(folder))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    report = {"processor": processor_name(), "threads": args.threads, "latent": args.latent, "sides": reports}
    args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    rows = table(reports, PEER if PEER in args.sides else args.sides[0])
    text = f"{processor_name()}, {args.threads} threads, {args.repeats} repeats\n\n{rows}\n"
    args.output.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

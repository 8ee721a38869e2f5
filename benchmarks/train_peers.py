"""Times a training step of the UNet beside PyTorch: forward, backward, Adam; latents of 60x80, one image.

    python benchmarks/train_peers.py [--checkpoint FOLDER] [--sides LIST] [--latent 60x80] [--threads 2] [--repeats 3]

The UNet has 223 M parameters: half the channels of Stable Diffusion 2's, random weights, written once (0.9 GB) into
benchmarks/results. Each side is a process of its own; PyTorch runs diffusers' UNet2DConditionModel with autograd and a
fused Adam. All take turns (A B A B). Before anything is timed, the first step's loss and, of
every parameter, the gradient's norm and its product with a random direction are compared with the first side's (ours in
float32): a side that does not agree gets no timing. Figures are medians; the first step, which also plans and
allocates, is left out. The peak is VmHWM of the whole process.
"recomputing" is gradient checkpointing. Writes JSON, and a Markdown table.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from make_sd2_checkpoint import write_checkpoint
from numpy.typing import NDArray
from peer_tables import markdown
from peer_worker import Contestant, Refused, Worker, peak_resident_bytes

from marigold_c.bench_command import processor_name

Array = NDArray[Any]
RESULTS = Path(__file__).resolve().parent / "results"
REFERENCE = "marigold_c float32"
TIMESTEP = 600
LEARNING_RATE = 1e-5


# ---- sides ----


@dataclass(frozen=True)
class Step:
    """One side's training step in two halves, and what it computed."""

    forward_backward: Callable[[], float]
    optimizer: Callable[[], None]
    gradients: Callable[[], dict[str, Array]]


def open_ours(folder: Path, given: dict[str, Array], threads: int, dtype: str, recompute: bool) -> Step:
    from marigold_c import Trainer

    trainer = Trainer.from_pretrained(
        folder, dtype=dtype, gradient_checkpointing=recompute, num_threads=threads, learning_rate=LEARNING_RATE
    )
    return Step(
        lambda: trainer.forward_backward(given["image"], given["target"], given["noise"], [TIMESTEP]),
        lambda: _discard(trainer.optimizer_step()),
        trainer.gradients,
    )


def _discard(_: object) -> None:
    """What a step returns is not timed against a side that returns nothing."""


def open_torch(folder: Path, given: dict[str, Array], threads: int, dtype: str, recompute: bool) -> Step:
    import torch
    from diffusers import DDIMScheduler, UNet2DConditionModel

    torch.set_num_threads(threads)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32).train()
    if recompute:
        unet.enable_gradient_checkpointing()
    optimizer = torch.optim.Adam(unet.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", rescale_betas_zero_snr=True)
    image, target, noise, text = (torch.from_numpy(given[name]) for name in ("image", "target", "noise", "text"))
    timesteps = torch.tensor([TIMESTEP])
    sample = torch.cat([image, schedule.add_noise(target, noise, timesteps)], 1)
    wanted = schedule.get_velocity(target, noise, timesteps)
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")

    def forward_backward() -> float:
        with mixed:
            output = unet(sample, timesteps, text).sample
        loss = torch.nn.functional.mse_loss(output.float(), wanted)
        loss.backward()
        return loss.item()

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return Step(
        forward_backward,
        step,
        lambda: {name: p.grad.numpy() for name, p in unet.named_parameters() if p.grad is not None},
    )


@dataclass(frozen=True)
class Side:
    open: Callable[[Path, dict[str, Array], int, str, bool], Step]
    dtype: str
    recompute: bool
    tolerance: float  # of the loss and of gradients, relative
    needs: tuple[str, ...] = ()


_TORCH = ("torch", "diffusers")
SIDES = {
    REFERENCE: Side(open_ours, "float32", False, 1e-4),
    "marigold_c float32, recomputing": Side(open_ours, "float32", True, 1e-4),
    "marigold_c bfloat16": Side(open_ours, "bfloat16", False, 0.1),
    "PyTorch float32": Side(open_torch, "float32", False, 1e-4, _TORCH),
    "PyTorch float32, recomputing": Side(open_torch, "float32", True, 1e-4, _TORCH),
    "PyTorch bfloat16": Side(open_torch, "bfloat16", False, 0.1, _TORCH),
}


def digest(loss: float, gradients: dict[str, Array]) -> dict[str, list[float]]:
    """The loss; of each gradient its norm and its product with a random direction of the norm 1."""
    found = {"loss": [loss]}
    for name, gradient in gradients.items():
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


def obey(args: argparse.Namespace, replies: Any) -> None:
    """Opens the side, then makes the half of a step that each order names; saves the digest of gradients if asked."""
    side = SIDES[args.worker]
    begun = time.perf_counter()
    with np.load(args.given) as arrays:
        step = side.open(args.checkpoint, dict(arrays), args.threads, side.dtype, side.recompute)
    print(json.dumps({"seconds": time.perf_counter() - begun}), file=replies)
    halves = {"forward and backward": step.forward_backward, "optimizer": step.optimizer}
    for line in sys.stdin:
        order = json.loads(line)
        begun = time.perf_counter()
        loss = halves[order["row"]]()
        reply = {"seconds": time.perf_counter() - begun, "peak_bytes": peak_resident_bytes()}
        if order["save"]:
            assert loss is not None
            Path(order["save"]).write_text(json.dumps(digest(loss, step.gradients())), encoding="utf-8")
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


def open_sides(args: argparse.Namespace, given: Path) -> list[Worker]:
    workers = []
    for side in args.sides:
        if not all(importlib.util.find_spec(name) for name in SIDES[side].needs):
            print(f"{side}: not installed; left out", file=sys.stderr)
            continue
        try:
            workers.append(Worker(Trainee(side, args.checkpoint, args.threads, given)))
        except Refused as refusal:
            print(f"{side}: {refusal}; left out", file=sys.stderr)
    return workers


def first_steps(workers: list[Worker], given: Path, folder: Path) -> dict[Worker, float]:
    """One step of each. Those that agree with the reference, and by how much they differ from it."""
    agreed = {}
    reference: dict[str, list[float]] | None = None
    for worker in workers:
        side, save = worker.contestant.side, folder / "digest.json"
        worker.run("forward and backward", given, save)
        worker.run("optimizer", given)
        found = json.loads(save.read_text(encoding="utf-8"))
        reference = reference or found
        difference = disagreement(reference, found)
        if difference <= SIDES[side].tolerance:
            agreed[worker] = difference
        else:
            print(f"{side} differs from {workers[0].contestant.side} by {difference:.2g}: no timing", file=sys.stderr)
    return agreed


def compare(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    given = folder / "given.npz"
    write_inputs(given, args.checkpoint, args.latent)
    workers = open_sides(args, given)
    agreed = first_steps(workers, given, folder)
    halves: dict[Worker, list[tuple[float, float]]] = {worker: [] for worker in agreed}
    for _ in range(args.repeats):
        for worker, taken in halves.items():
            taken.append((worker.run("forward and backward", given), worker.run("optimizer", given)))
    reports = [
        {
            "side": worker.contestant.side,
            "difference": agreed[worker],
            "forward_backward": statistics.median(a for a, _ in taken),
            "optimizer": statistics.median(b for _, b in taken),
            "step": statistics.median(a + b for a, b in taken),
            "steps": [a + b for a, b in taken],
            "peak_bytes": worker.peak_bytes,
        }
        for worker, taken in halves.items()
    ]
    for worker in workers:
        worker.close()
    return reports


def table(reports: list[dict[str, Any]]) -> str:
    """Ratios are to PyTorch in float32, if it is there."""
    peers = [report["step"] for report in reports if report["side"] == "PyTorch float32"]
    rows = []
    for report in reports:
        ratio = f" ({report['step'] / peers[0]:.2f})" if peers else ""
        rows.append(
            [
                report["side"],
                f"{report['forward_backward']:.2f} s",
                f"{report['optimizer']:.3f} s",
                f"{report['step']:.2f} s{ratio}",
                f"{report['peak_bytes'] / 1e9:.2f} GB",
                f"{report['difference']:.1e}",
            ]
        )
    return markdown(["side", "forward and backward", "Adam", "step", "peak memory", "largest difference"], rows)


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
    parser.add_argument("--repeats", type=int, default=3)
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
    text = f"{processor_name()}, {args.threads} threads, {args.repeats} repeats\n\n{table(reports)}\n"
    args.output.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

"""Times the engine on an NVIDIA GPU: stages, the whole pipeline, an ensemble of ten, single operations; and diffusers
beside it where torch has that GPU.

    make bench-cuda        or        python benchmarks/cuda.py [--device cuda] [--size 768 768] [--tiny]
                                                               [--sides NAME ...] [--operations NAME ...]

No network. The checkpoint is one of Stable Diffusion 2's size with random weights (make_sd2_checkpoint.py), written
once into --folder (5.2 GB). Figures go to benchmarks/results/cuda.json and, as tables, cuda.md. Times are medians of
runs after the first. Both sides get the same random numbers as float32 arrays of the host and return such arrays, so
that the same copies count; memory is what the engine holds on the GPU, and torch's largest allocation. diffusers
runs in float32 and TF32, in float16 and bfloat16 channels first and channels last, and in bfloat16 with torch.compile.
Each side is written down as soon as it is measured. The roof of an
operation is the longer of two times: its arithmetic at the speed of a large matrix product of its type, and its bytes
at that of a large copy.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from make_sd2_checkpoint import write_checkpoint
from ops import Operation, inputs_of, linear, operations, pointwise
from peer_tables import markdown

RESULTS = Path(__file__).resolve().parent / "results"
Figures = dict[str, float]
Array = Any
Stages = dict[str, Callable[[], Array]]


@dataclass(frozen=True)
class Side:
    """A way of running the engine."""

    dtype: str
    isa: str | None = None


SIDES = {
    "float32": Side("float32"),
    "TF32": Side("float32", "tf32"),
    "float16": Side("float16"),
    "bfloat16": Side("bfloat16"),
}


@dataclass(frozen=True)
class Peer:
    """A way of running diffusers."""

    dtype: str
    tf32: bool = False
    channels_last: bool = False
    compiled: bool = False


PEERS = {
    "diffusers, float32": Peer("float32"),
    "diffusers, TF32": Peer("float32", tf32=True),
    "diffusers, float16": Peer("float16"),
    "diffusers, float16, channels last": Peer("float16", channels_last=True),
    "diffusers, bfloat16": Peer("bfloat16"),
    "diffusers, bfloat16, channels last": Peer("bfloat16", channels_last=True),
    "diffusers, bfloat16, channels last, compiled": Peer("bfloat16", channels_last=True, compiled=True),
}


@dataclass(frozen=True)
class Inputs:
    """What both sides compute on. Random numbers: zeros would take no power, so a GPU would hold a higher clock."""

    image: Array  # (H, W, 3) in [0, 1]
    x: Array  # (1, 3, H, W) in [-1, 1]
    latent: Array  # (1, 4, H/8, W/8)
    sample: Array  # (1, 8, H/8, W/8)

    @staticmethod
    def of_size(height: int, width: int) -> Inputs:
        rng = np.random.default_rng(0)
        image = rng.random((height, width, 3), dtype=np.float32)
        x = np.ascontiguousarray(2 * image.transpose(2, 0, 1)[None] - 1)
        shapes = [(1, channels, height // 8, width // 8) for channels in (4, 8)]
        return Inputs(image, x, *(rng.standard_normal(shape, dtype=np.float32) for shape in shapes))


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    call()  # plans, chooses kernels, fills caches
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


# ---- the engine ----


def engine_stages(pipe: Any, given: Inputs) -> Stages:
    return {
        "encode": lambda: pipe.vae.encode(given.x),
        "UNet": lambda: pipe.unet(given.sample, np.array([500.0]), pipe.empty_text_embedding),
        "decode": lambda: pipe.vae.decode(given.latent),
    }


@contextmanager
def instruction_set(isa: str | None) -> Iterator[None]:
    """What pipelines are opened with."""
    before = os.environ.pop("MARIGOLD_ISA", None)
    if isa:
        os.environ["MARIGOLD_ISA"] = isa
    try:
        yield
    finally:
        os.environ.pop("MARIGOLD_ISA", None)
        if before is not None:
            os.environ["MARIGOLD_ISA"] = before


def engine_figures(checkpoint: Path, side: Side, args: argparse.Namespace) -> Figures:
    import marigold_c as mc

    given = Inputs.of_size(*args.size)
    begin = time.perf_counter()
    with instruction_set(side.isa):
        pipe: Any = mc.MarigoldDepthPipeline.from_pretrained(checkpoint, dtype=side.dtype, device=args.device)
    pipe.set_progress_bar_config(disable=True)

    def run(members: int, batch: int) -> object:
        return pipe(
            given.image,
            num_inference_steps=1,
            ensemble_size=members,
            batch_size=batch,
            processing_resolution=0,
            generator=0,
        )

    run(1, 1)
    figures = {"load and first run": time.perf_counter() - begin}
    stages: dict[str, Callable[[], object]] = {
        **engine_stages(pipe, given),
        "pipeline, 1 step": lambda: run(1, 1),
        f"pipeline, {args.members} members": lambda: run(args.members, args.batch),
    }
    figures |= {name: median_seconds(call, args.repeats) for name, call in stages.items()}
    figures["memory, GB"] = pipe.memory_stats()["peak"] / 1e9
    return figures


# ---- diffusers ----


def has_torch(device: str) -> bool:
    if not device.startswith("cuda") or find_spec("torch") is None or find_spec("diffusers") is None:
        return False
    return bool(importlib.import_module("torch").cuda.is_available())


def open_peer(checkpoint: Path, peer: Peer, device: str) -> Any:
    torch: Any = importlib.import_module("torch")
    diffusers: Any = importlib.import_module("diffusers")
    dtype = getattr(torch, peer.dtype)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = peer.tf32
    pipe = diffusers.MarigoldDepthPipeline.from_pretrained(checkpoint, dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    if peer.channels_last:
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.vae.to(memory_format=torch.channels_last)
    if peer.compiled:
        pipe.unet, pipe.vae.decoder = torch.compile(pipe.unet), torch.compile(pipe.vae.decoder)
    return pipe


def peer_stages(pipe: Any, peer: Peer, given: Inputs) -> Stages:
    """From float32 arrays to float32 arrays, as the engine's."""
    torch: Any = importlib.import_module("torch")
    layout = torch.channels_last if peer.channels_last else torch.contiguous_format
    text = pipe.empty_text_embedding.to(dtype=pipe.dtype, device=pipe.device)

    def stage(call: Callable[[Any], Any], array: Array) -> Callable[[], Array]:
        def from_host_to_host() -> Array:
            with torch.no_grad():
                x = torch.from_numpy(array).to(pipe.device).to(pipe.dtype, memory_format=layout)
                return call(x).float().contiguous().cpu().numpy()

        return from_host_to_host

    return {
        "encode": stage(lambda x: pipe.vae.encode(x).latent_dist.mode(), given.x),
        "UNet": stage(lambda x: pipe.unet(x, 500, encoder_hidden_states=text).sample, given.sample),
        "decode": stage(lambda x: pipe.vae.decode(x).sample, given.latent),
    }


def peer_figures(checkpoint: Path, peer: Peer, args: argparse.Namespace) -> Figures:
    torch: Any = importlib.import_module("torch")
    given = Inputs.of_size(*args.size)
    torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    pipe = open_peer(checkpoint, peer, args.device)

    def run(members: int, batch: int) -> None:
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 1, "ensemble_size": members, "batch_size": batch}
        pipe(given.image, processing_resolution=0, generator=generator, output_type="np", **options)
        torch.cuda.synchronize()

    run(1, 1)
    figures = {"load and first run": time.perf_counter() - begin}
    stages: dict[str, Callable[[], object]] = {
        **peer_stages(pipe, peer, given),
        "pipeline, 1 step": lambda: run(1, 1),
        f"pipeline, {args.members} members": lambda: run(args.members, args.batch),
    }
    figures |= {name: median_seconds(call, args.repeats) for name, call in stages.items()}
    figures["memory, GB"] = torch.cuda.max_memory_allocated() / 1e9
    return figures


# ---- operations ----


def seconds_of(operation: Operation, side: Side, args: argparse.Namespace) -> float:
    engine: Any = importlib.import_module("marigold_c._testing")
    given = (args.device, side.isa, 1, operation.name, operation.params, inputs_of(operation))
    return statistics.median(engine.time_op(*given, args.repeats + 1, side.dtype)[1:])


def roofs(side: Side, args: argparse.Namespace) -> Figures:
    side = 64 if args.tiny else 8192
    product, copy = linear(1, side, side, side), pointwise("add", side, side // 64, 64)
    return {
        "product": product.direct / seconds_of(product, side, args),
        "copy": copy.bytes_moved(width_of(side)) / seconds_of(copy, side, args),
    }


def width_of(side: Side) -> str:
    return "bfloat16" if side.dtype == "float16" else side.dtype  # as many bytes


def operation_figures(side: Side, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    peak = roofs(side, args)
    for operation in operations(32 if args.tiny else 1):
        seconds = seconds_of(operation, side, args)
        moved = operation.bytes_moved(width_of(side))
        roof = max(operation.direct / peak["product"], moved / peak["copy"])
        yield {"operation": operation.label, "seconds": seconds, "work": operation.direct, "share": roof / seconds}


# ---- report ----


def stage_table(report: dict[str, Any]) -> str:
    sides = report["sides"]
    if not sides:
        return ""
    rows = [
        [
            name,
            *(
                f"{side[name]:.2f}" if name.startswith("memory") else f"{1e3 * side[name]:.1f} ms"
                for side in sides.values()
            ),
        ]
        for name in next(iter(sides.values()))
    ]
    return markdown(["", *sides], rows)


def operation_table(found: list[dict[str, Any]]) -> str:
    rows = [
        [
            one["operation"],
            f"{1e3 * one['seconds']:.3f} ms",
            f"{one['work'] / one['seconds'] / 1e12:.1f}" if one["work"] else "",
            f"{100 * one['share']:.0f} %",
        ]
        for one in found
    ]
    return markdown(["operation", "time", "TFLOP/s", "share of the roof"], rows)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, nargs=2, default=[768, 768], metavar=("H", "W"))
    parser.add_argument("--members", type=int, default=10, help="of an ensemble")
    parser.add_argument("--batch", type=int, default=10, help="members at a time")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument(
        "--folder", type=Path, default=RESULTS / "sd2", help="the checkpoint; written if it is not there"
    )
    parser.add_argument("--tiny", action="store_true", help="a small network and small maps, to try the script")
    parser.add_argument("--sides", nargs="*", choices=[*SIDES, *PEERS], metavar="NAME", help="default: all there are")
    parser.add_argument("--operations", nargs="*", choices=list(SIDES), metavar="NAME", help="sides; default: all")
    parser.add_argument("--output", type=Path, default=RESULTS / "cuda.json", help="JSON; tables go beside it (.md)")
    return parser.parse_args(arguments)


def runs_on(device: str, side: Side) -> bool:
    return device.startswith("cuda") or (side.dtype != "float16" and side.isa is None)


def save(report: dict[str, Any], output: Path) -> str:
    tables = [f"{report['size'][0]} x {report['size'][1]}, {report['device']}", stage_table(report)]
    for name, found in report["operations"].items():
        tables += [name, operation_table(found)]
    text = "\n\n".join(tables)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2), encoding="utf-8")
    output.with_suffix(".md").write_text(f"{text}\n", encoding="utf-8")
    return text


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    if args.device.startswith("cuda"):
        importlib.import_module("marigold_c._cuda").load_libraries()
    if not (args.folder / "model_index.json").is_file():
        write_checkpoint(args.folder, "tiny" if args.tiny else "sd2")
    report: dict[str, Any] = {"device": args.device, "size": args.size, "sides": {}, "operations": {}}
    ours = {name: side for name, side in SIDES.items() if runs_on(args.device, side)}
    peers = PEERS if has_torch(args.device) else {}
    for name in [*ours, *peers]:
        if args.sides is not None and name not in args.sides:
            continue
        figures = (
            engine_figures(args.folder, ours[name], args)
            if name in ours
            else peer_figures(args.folder, peers[name], args)
        )
        report["sides"][name] = figures
        print(f"{name}: {figures}", file=sys.stderr, flush=True)
        save(report, args.output)
    for name, side in ours.items():
        if args.operations is None or name in args.operations:
            report["operations"][name] = list(operation_figures(side, args))
            save(report, args.output)
    print(save(report, args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())

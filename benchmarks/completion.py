"""Depth completion on scenes whose depth is known, and a guided step beside PyTorch.

    python benchmarks/completion.py scenes FOLDER [--checkpoint NAME] [--points 10,100,1000] [--scenes 20] [--steps 50]
        [--methods guided,align,griddata]
    python benchmarks/completion.py step [--checkpoint FOLDER] [--size 576x768] [--repeats 3] [--steps 3]
        [--dtype float32]

scenes: FOLDER has rgb/*.png and depth/*.npy (metres, 0: none), as `marigold prepare scenes` writes them. So many points
of each are measured; every method makes metres of them: guided, align, and SciPy's griddata (linear between the points,
the nearest one outside of their hull), which sees no picture. MAE and RMSE in metres over all pixels with a depth, the
mean over the scenes.

step: the checkpoint has Stable Diffusion 2's size and random weights, unless another folder is given; it is written
once (5.2 GB) into benchmarks/results. PyTorch runs diffusers' modules with autograd and Adam. The sides take turns,
each run a process of its own that takes three steps, of which the first, which also plans and allocates, is not timed.
Beside the time by the clock stands that of the processors, which other work on the machine lengthens less. The ratios
are medians of those of neighbours; the peak is VmHWM of the whole process. Depths of both are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from make_sd2_checkpoint import write_checkpoint
from numpy.typing import NDArray
from peer_tables import markdown
from peer_worker import peak_resident_bytes

import marigold_c as mc

Array = NDArray[np.float32]
RESULTS = Path(__file__).resolve().parent / "results"
SEED = 2024


# ---- scenes ----
def measured(depth: Array, count: int) -> Array:
    """`count` points of those with a depth; the first of more are those of fewer."""
    places = np.flatnonzero(depth > 0)
    chosen = np.random.default_rng(SEED).permutation(places)[:count]
    sparse = np.zeros_like(depth)
    sparse.flat[chosen] = depth.flat[chosen]
    return sparse


def interpolated(sparse: Array) -> Array:
    from scipy.interpolate import griddata

    known, everywhere = np.argwhere(sparse > 0), tuple(np.indices(sparse.shape))
    nearest = griddata(known, sparse[sparse > 0], everywhere, "nearest")
    inside = griddata(known, sparse[sparse > 0], everywhere, "linear")
    return np.asarray(np.where(np.isfinite(inside), inside, nearest), np.float32)


def errors_of(metres: Array, depth: Array) -> tuple[float, float]:
    error = (metres.astype(np.float64) - depth)[depth > 0]
    return float(np.abs(error).mean()), float(np.sqrt((error**2).mean()))


def compare_scenes(args: argparse.Namespace) -> None:
    found_pictures = sorted((args.folder / "rgb").glob("*.png"))
    if not found_pictures:
        raise SystemExit(f"{args.folder}: no rgb/*.png")
    count = min(args.scenes, len(found_pictures))  # from all over the folder, whose neighbours show one place
    pictures = [found_pictures[at * len(found_pictures) // count] for at in range(count)]
    pipe = mc.MarigoldDepthCompletionPipeline.from_pretrained(
        args.checkpoint or mc.default_checkpoint("depth"), dtype=args.dtype, num_threads=args.threads
    )
    pipe.set_progress_bar_config(disable=True)
    options = {"processing_resolution": args.processing_res, "generator": SEED}

    def guided(image: NDArray[Any], sparse: Array) -> Array:
        return pipe(image, sparse, num_inference_steps=args.steps, **options).prediction[0, :, :, 0]

    def align(image: NDArray[Any], sparse: Array) -> Array:
        return pipe(image, sparse, method="align", **options).prediction[0, :, :, 0]

    known: dict[str, Callable[[NDArray[Any], Array], Array]] = {
        "guided": guided,
        "align": align,
        "griddata": lambda _image, sparse: interpolated(sparse),
    }
    methods = {name: known[name] for name in args.methods}
    rows = []
    for count in args.points:
        for name, method in methods.items():
            found, started = [], time.perf_counter()
            for picture in pictures:
                depth = np.load(args.folder / "depth" / f"{picture.stem}.npy").astype(np.float32)
                found.append(errors_of(method(mc.read_image(picture), measured(depth, count)), depth))
            mae, rmse = np.mean(found, axis=0)
            seconds = (time.perf_counter() - started) / len(pictures)
            rows.append([str(count), name, f"{mae:.3f}", f"{rmse:.3f}", f"{seconds:.2f} s"])
            print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    print(f"{len(pictures)} scenes of {args.folder}\n")
    print(markdown(["points", "method", "MAE", "RMSE", "time of one"], rows))


# ---- a guided step ----
def example(height: int, width: int, latent: tuple[int, ...]) -> tuple[NDArray[np.uint8], Array, Array]:
    """A picture, 100 points of a slanted plane, and noise."""
    rng = np.random.default_rng(SEED)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    depth = (1 + x / width + y / height).astype(np.float32)
    return image, measured(depth, 100), rng.standard_normal(latent).astype(np.float32)


def now() -> tuple[float, float]:
    """By the clock, and of the processors for this process."""
    return time.perf_counter(), time.process_time()


def our_steps(args: argparse.Namespace) -> tuple[list[tuple[float, float]], Array]:
    pipe = mc.MarigoldDepthCompletionPipeline.from_pretrained(
        args.checkpoint, dtype=args.dtype, num_threads=args.threads
    )
    height, width = args.size
    image, sparse, noise = example(height, width, (1, 4, -(-height // 8), -(-width // 8)))
    scheduler = mc.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    ends: list[tuple[float, float]] = []
    metres, _, _ = pipe._engine.complete(
        *(image[None], sparse, noise, scheduler._handle),
        num_inference_steps=args.steps,
        processing_resolution=0,
        progress=lambda _done, _total: ends.append(now()),
    )
    return ends, metres


def torch_steps(args: argparse.Namespace) -> tuple[list[tuple[float, float]], Array]:
    import diffusers
    import torch

    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    unet = diffusers.UNet2DConditionModel.from_pretrained(args.checkpoint / "unet", torch_dtype=dtype)
    vae = diffusers.AutoencoderKL.from_pretrained(args.checkpoint / "vae", torch_dtype=dtype)
    for module in (unet, vae):
        module.requires_grad_(False).eval()
    text = torch.from_numpy(mc.load(args.checkpoint, num_threads=args.threads).empty_text_embedding).to(dtype)
    config = json.loads((args.checkpoint / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    scheduler = diffusers.DDIMScheduler.from_config(config, timestep_spacing="trailing")
    processor = diffusers.pipelines.marigold.MarigoldImageProcessor(vae_scale_factor=8)
    height, width = args.size
    image, sparse_array, noise = example(height, width, (1, 4, -(-height // 8), -(-width // 8)))
    pixels = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    x, padding, _ = processor.preprocess(pixels, 0, "bilinear", torch.device("cpu"), dtype)
    sparse = torch.from_numpy(sparse_array)
    valid = sparse > 0
    near, far = sparse[valid].min(), sparse[valid].max()
    with torch.no_grad():
        image_latent = vae.encode(x).latent_dist.mode() * vae.config.scaling_factor
    sample = torch.nn.Parameter(torch.from_numpy(noise).to(dtype))
    scale, shift = torch.nn.Parameter(torch.ones(())), torch.nn.Parameter(torch.ones(()))
    adam = torch.optim.Adam([{"params": [scale, shift], "lr": 0.005}, {"params": [sample], "lr": 0.05}])

    def metres_of(latent: Any) -> Any:
        decoded = vae.decode(latent / vae.config.scaling_factor).sample.float()
        depth = (decoded.mean(1, keepdim=True).clip(-1, 1) + 1) / 2
        metric = processor.unpad_image(scale**2 * (far - near) * depth + shift**2 * near, padding)
        return metric[0, 0]

    ends = []
    scheduler.set_timesteps(args.steps)
    for timestep in scheduler.timesteps:
        adam.zero_grad()
        output = unet(torch.cat([image_latent, sample], 1), timestep, text).sample
        alpha = scheduler.alphas_cumprod[timestep]
        error = (metres_of(alpha.sqrt() * sample - (1 - alpha).sqrt() * output) - sparse)[valid]
        (error.abs().mean() + (error**2).mean()).backward()
        with torch.no_grad():
            seen = alpha.sqrt() * output + (1 - alpha).sqrt() * sample
            sample.grad *= torch.linalg.norm(seen) / torch.linalg.norm(sample.grad).clamp_min(1e-8)
        adam.step()
        with torch.no_grad():
            sample.data = scheduler.step(output.detach(), timestep, sample).prev_sample.to(dtype)
        del output, error
        ends.append(now())
    with torch.no_grad():
        return ends, metres_of(sample).numpy()


SIDES = {"marigold_c": our_steps, "PyTorch": torch_steps}


def run_side(args: argparse.Namespace) -> None:
    """In a process of its own: a line of JSON, and the depths in a file."""
    ends, metres = SIDES[args.side](args)
    np.save(args.output, metres)
    seconds, processor_seconds = np.median(np.diff(ends, axis=0), axis=0).tolist()
    peak = peak_resident_bytes()
    print(json.dumps({"seconds": seconds, "processor_seconds": processor_seconds, "peak_bytes": peak}))


def depths_in(folder: Path, side: str) -> Path:
    return folder / f"completion-{side}.npy"


def start(side: str, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    size = "x".join(map(str, args.size))
    output = depths_in(folder, side)
    command = [sys.executable, __file__, "step", "--side", side, "--checkpoint", str(args.checkpoint), "--size", size]
    command += ["--threads", str(args.threads), "--dtype", args.dtype, "--output", str(output)]
    command += ["--steps", str(args.steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    reply: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return reply


def compare_steps(args: argparse.Namespace) -> None:
    if args.side:
        run_side(args)
        return
    if args.checkpoint is None:
        RESULTS.mkdir(exist_ok=True)
        args.checkpoint = RESULTS / "sd2-random"
        if not (args.checkpoint / "model_index.json").exists():
            write_checkpoint(args.checkpoint, "sd2")
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.repeats):
            for side, done in runs.items():
                done.append(start(side, Path(folder), args))
        maps = [np.load(depths_in(Path(folder), side)) for side in SIDES]
    ours, theirs = runs.values()
    ratios = {
        kind: statistics.median(a[kind] / b[kind] for a, b in zip(ours, theirs, strict=True))
        for kind in ("seconds", "processor_seconds")
    }
    rows = []
    for side, done in runs.items():
        seconds, busy = (statistics.median(one[kind] for one in done) for kind in ratios)
        peak = max(one["peak_bytes"] for one in done) / 1e9
        rows.append([side, f"{seconds:.2f} s", f"{busy:.2f} s", f"{peak:.2f} GB"])
    print(f"A guided step, {args.dtype}, {args.threads} threads, {args.size[0]} x {args.size[1]}\n")
    print(markdown(["side", "step", "of the processors", "peak memory"], rows))
    took = f"{ratios['seconds']:.2f} of PyTorch's time, {ratios['processor_seconds']:.2f} of its processor time"
    print(f"\nmarigold_c takes {took}; depths differ by {np.abs(maps[0] - maps[1]).max():.1e} m")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    scenes = kinds.add_parser("scenes")
    scenes.set_defaults(run=compare_scenes)
    scenes.add_argument("folder", type=Path)
    scenes.add_argument("--points", type=lambda text: [int(one) for one in text.split(",")], default=[10, 100, 1000])
    scenes.add_argument("--scenes", type=int, default=20)
    scenes.add_argument("--steps", type=int, default=50)
    scenes.add_argument("--methods", type=lambda text: text.split(","), default=["guided", "align", "griddata"])
    scenes.add_argument("--processing-res", type=int, default=768)
    scenes.add_argument("--checkpoint", help="folder or hub id; default: the small one in the package")
    step = kinds.add_parser("step")
    step.set_defaults(run=compare_steps)
    step.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=(576, 768))
    step.add_argument("--repeats", type=int, default=3)
    step.add_argument("--steps", type=int, default=3, help="of a run; the first is not timed")
    step.add_argument("--checkpoint", type=Path, help="folder; default: Stable Diffusion 2's size, random weights")
    step.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    step.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    for kind in (scenes, step):
        kind.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
        kind.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

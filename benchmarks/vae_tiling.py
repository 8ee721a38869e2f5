"""Memory of a prediction with the autoencoder's images whole and in tiles, each in a process of its own.

Run: python benchmarks/vae_tiling.py [--checkpoint DIR] [--size 1536] [--dtype float32] [--tile 768]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

import marigold_c as mc

PHOTO = Path(__file__).resolve().parent.parent / "examples" / "photo.jpg"


def picture(size: int) -> Any:
    photo = Image.open(PHOTO)
    scale = size / max(photo.size)
    return np.asarray(photo.resize((round(photo.width * scale), round(photo.height * scale))))


def peak_megabytes() -> float:
    """Of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(args: argparse.Namespace) -> None:
    """In a process of its own: what is printed is one line, the map goes to a file."""
    options = {"num_threads": args.threads, "dtype": args.dtype}
    pipe: Any = mc.load(args.checkpoint, **options)
    pipe.set_progress_bar_config(disable=True)
    if args.tiled:
        pipe.enable_vae_tiling(args.tile)
    else:
        pipe.disable_vae_tiling()
    image, before = picture(args.size), peak_megabytes()
    call: dict[str, Any] = {"num_inference_steps": 1, "processing_resolution": args.size, "generator": 0}
    if isinstance(pipe, mc.MarigoldDepthHRPipeline):
        members = {"ensemble_size": 1, "boosted_ensemble_size": 1, "boosted_num_inference_steps": 1}
        call |= {**members, "processing_resolution": args.size // 2}
    began = time.perf_counter()
    out = pipe(image, **call)
    seconds = time.perf_counter() - began
    np.save(args.out, out.prediction)
    planned = (pipe.memory_stats()["activations"] + pipe.memory_stats()["workspace"]) / 2**20
    print(f"{planned:.0f} MB planned, process {before:.0f} to {peak_megabytes():.0f} MB, {seconds:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(mc.default_checkpoint("depth")))
    parser.add_argument("--size", type=int, default=1536, help="longer side, in pixels")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tile", type=int, default=768)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tiled", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.out is not None:
        measure(args)
        return
    maps = []
    with TemporaryDirectory() as folder:
        for title, flags in (("whole", []), ("tiles", ["--tiled"])):
            out = Path(folder) / f"{title}.npy"
            words = [sys.executable, __file__, *sys.argv[1:], *flags, "--out", str(out)]
            line = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
            print(f"{title}: {line}")
            maps.append(np.load(out))
    apart = np.abs(maps[0] - maps[1])
    print(f"the two maps {maps[0].shape}: {apart.mean():.4f} apart in the mean, {apart.max():.4f} at most")


if __name__ == "__main__":
    main()

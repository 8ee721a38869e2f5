"""How much maps of a video change where nothing moves: a still photograph with the noise of a sensor in each frame.

Frames by themselves from one noise, frames with blended latents (predict_sequence), all together (predict_video).
Without a checkpoint of RollingDepth the one in the package is opened as of that family, which was not trained for it.
Run: python benchmarks/video_consistency.py [--checkpoint rollingdepth-v1-0] [--frames 8] [--size 256] [--noise 4]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import marigold_c as mc

PHOTO = Path(__file__).resolve().parent.parent / "examples" / "photo.jpg"


def still(frames: int, size: int, noise: float) -> NDArray[np.uint8]:
    """(frames, H, W, 3); noise: standard deviation, of 255."""
    photo = Image.open(PHOTO)
    photo.thumbnail((size, size))
    random = np.random.default_rng(0).normal(0, noise, (frames, photo.height, photo.width, 3))
    return (np.asarray(photo, np.float64) + random).round().clip(0, 255).astype(np.uint8)


def change(maps: NDArray[np.float32]) -> float:
    """Mean absolute difference of successive maps, in per cent of their range."""
    return 100 * float(np.abs(np.diff(maps, axis=0)).mean() / np.ptp(maps))


def outputs(method: str, checkpoint: str, frames: NDArray[np.uint8]) -> Iterator[Any]:
    pipe = mc.load(checkpoint, family="rollingdepth" if method == "rolling" else None)
    pipe.set_progress_bar_config(disable=True)
    if method == "rolling":
        return mc.predict_video(pipe, frames, processing_resolution=0, generator=0)
    options: dict[str, Any] = {"processing_resolution": 0, "num_inference_steps": 1}
    return mc.predict_sequence(pipe, frames, 0.1 if method == "blend" else 0.0, 0, **options)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", default=str(mc.default_checkpoint("depth")))
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--noise", type=float, default=4.0)
    args = parser.parse_args()
    frames = still(args.frames, args.size, args.noise)
    for method in ("alone", "blend", "rolling"):
        maps = np.concatenate([out.prediction for out in outputs(method, args.checkpoint, frames)])
        print(f"{method}: from frame to frame {change(maps):.3f} % of the range")


if __name__ == "__main__":
    main()

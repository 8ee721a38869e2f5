"""How much maps of a video change where the scene does not: a still photograph with the noise of a sensor in each
frame, and a room that is cast ray by ray under known motion of the camera (camera_clip.py), which is taken out.

Frames by themselves from one noise, frames with blended latents (predict_sequence), all together (predict_video).
Without a checkpoint of RollingDepth the one in the package is opened as of that family, which was not trained for it.
Run: python benchmarks/video_consistency.py [--checkpoint rollingdepth-v1-0] [--frames 8] [--size 256] [--noise 4]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import camera_clip
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import marigold_c as mc

PHOTO = Path(__file__).resolve().parent.parent / "examples" / "photo.jpg"


def with_noise(pictures: NDArray[Any], noise: float) -> NDArray[np.uint8]:
    """noise: standard deviation, of 255."""
    random = np.random.default_rng(0).normal(0, noise, pictures.shape)
    return (pictures + random).round().clip(0, 255).astype(np.uint8)


def still(frames: int, size: int) -> NDArray[np.uint8]:
    """(frames, H, W, 3)."""
    photo = Image.open(PHOTO)
    photo.thumbnail((size, size))
    return np.repeat(np.asarray(photo)[None], frames, axis=0)


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
    photo = with_noise(still(args.frames, args.size), args.noise)
    pictures, depths, cameras = camera_clip.clip(args.frames, args.size)
    moving = with_noise(pictures, args.noise)
    disparity = mc.load(args.checkpoint).prediction_type == "disparity"
    print(f"the truth, moved: {camera_clip.inconsistency(depths, depths, cameras, False):.3f} % of the range")
    for method in ("alone", "blend", "rolling"):
        maps, seen = (
            np.concatenate([out.prediction for out in outputs(method, args.checkpoint, frames)])
            for frames in (photo, moving)
        )
        motion = camera_clip.inconsistency(seen[..., 0].astype(np.float64), depths, cameras, disparity)
        print(f"{method}: still {change(maps):.3f} %, camera in motion {motion:.3f} % of the range from frame to frame")


if __name__ == "__main__":
    main()

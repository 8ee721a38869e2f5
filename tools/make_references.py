"""Writes tests/data/TASK_reference.npz: what diffusers predicts with the shipped checkpoints, for tests without torch.

Needs the packages of the extra "oracle". Run from the root of the repository: python tools/make_references.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = {
    "depth": ("MarigoldDepthPipeline", "marigold-tiny-depth", "fp16"),
    "normals": ("MarigoldNormalsPipeline", "marigold-tiny-normals", None),
    "intrinsics": ("MarigoldIntrinsicsPipeline", "marigold-tiny-iid-lighting", None),
}
STEPS = (1, 4)
MEMBERS = 3


def depth_cases() -> dict[str, tuple[NDArray[Any], dict[str, Any]]]:
    """Odd sizes, landscape and portrait, colour and grey, 8 and 16 bits, with and without resizing."""
    photo = np.asarray(Image.open(ROOT / "examples" / "photo.jpg").convert("RGB"))
    scene = np.asarray(Image.open(ROOT / "tests" / "data" / "scene0.png").convert("RGB"))
    grey = np.asarray(Image.open(ROOT / "tests" / "data" / "scene1.png").convert("L"))
    return {
        "scene": (scene, {"processing_resolution": 0}),
        "landscape": (np.ascontiguousarray(photo[150:225, 60:161]), {"processing_resolution": 0}),
        "portrait": (
            np.ascontiguousarray(photo[20:151, 330:417]),
            {"processing_resolution": 96, "resample_method_input": "bicubic", "resample_method_output": "nearest"},
        ),
        "grey16": (np.ascontiguousarray(grey[7:70, 11:100].astype(np.uint16) * 257), {"processing_resolution": 72}),
    }


def cases(task: str) -> dict[str, tuple[NDArray[Any], dict[str, Any]]]:
    """For the other tasks what they do differently: channels, targets, renormalisation after resizing, ensembles."""
    if task == "depth":
        return depth_cases()
    photo = np.asarray(Image.open(ROOT / "examples" / "photo.jpg").convert("RGB"))
    small = np.ascontiguousarray(photo[150:214, 60:133])
    return {
        "small": (small, {"processing_resolution": 64}),
        "ensemble": (small, {"processing_resolution": 48, "ensemble_size": MEMBERS, "output_uncertainty": True}),
    }


def latent_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    if resolution:
        height, width = height * resolution // max(height, width), width * resolution // max(height, width)
    return -(-height // 8), -(-width // 8)


def as_tensor(image: NDArray[Any]) -> torch.Tensor:
    """(1, C, H, W) in [0, 1]: diffusers checks `latents` against the last two axes of the image, whatever they are."""
    planes = image[None, None] if image.ndim == 2 else image.transpose(2, 0, 1)[None]
    return torch.from_numpy(planes.astype(np.float32) / np.iinfo(image.dtype).max)


def make(task: str) -> None:
    class_name, folder, variant = CHECKPOINTS[task]
    pipe = getattr(diffusers, class_name).from_pretrained(
        ROOT / "tests" / "checkpoints" / folder, variant=variant, torch_dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    stored: dict[str, Any] = {"names": np.array(list(cases(task))), "diffusers": diffusers.__version__}
    for seed, (name, (image, options)) in enumerate(cases(task).items()):
        samples = options.get("ensemble_size", 1)
        size = latent_size(*image.shape[:2], options["processing_resolution"])
        shape = (samples, pipe.unet.config.out_channels, *size)
        latents = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))
        stored |= {f"{name}/image": image, f"{name}/latents": latents.numpy(), f"{name}/seed": seed}
        stored |= {f"{name}/{option}": value for option, value in options.items()}
        for steps in STEPS:
            out = pipe(as_tensor(image), num_inference_steps=steps, latents=latents, **options)
            stored[f"{name}/prediction_{steps}"] = out.prediction
            if out.uncertainty is not None:
                stored[f"{name}/uncertainty_{steps}"] = out.uncertainty
    output = ROOT / "tests" / "data" / f"{task}_reference.npz"
    np.savez_compressed(output, **stored)
    print(f"{output.relative_to(ROOT)}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for one in sys.argv[1:] or CHECKPOINTS:
        make(one)

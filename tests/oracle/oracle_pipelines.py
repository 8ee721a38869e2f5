"""The pipelines of both sides for a task, and images for them, for the live comparisons."""

from __future__ import annotations

from functools import cache
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

import marigold_c as mc

TASKS = ("depth", "normals", "intrinsics")
CLASSES = {name: f"Marigold{name.capitalize()}Pipeline" for name in TASKS}


@cache
def open_theirs(task: str) -> Any:
    torch.set_num_threads(1)
    pipe = getattr(diffusers, CLASSES[task]).from_pretrained(
        mc.default_checkpoint(task), variant="fp16" if task == "depth" else None, torch_dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@cache
def open_ours(task: str) -> Any:
    pipe = getattr(mc, CLASSES[task]).from_pretrained(mc.default_checkpoint(task), num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth scene with edges and noise, uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    planes = [
        np.sin(x / (5 + 3 * c) + seed) + np.cos(y / (9 - 2 * c)) + 2.0 * (x > width / 2) * (y > height / 3)
        for c in range(channels)
    ]
    image = np.stack(planes, -1) + 0.2 * random.standard_normal((height, width, channels))
    image = (image - image.min()) / max(float(np.ptp(image)), 1e-6)
    return np.asarray(image * 255, dtype=np.uint8)


def for_diffusers(image: Any) -> Any:
    """Arrays as tensors: diffusers takes the last two axes of an (H, W, C) array for its size and refuses latents."""
    if isinstance(image, list):
        return [for_diffusers(one) for one in image]
    if not isinstance(image, np.ndarray):
        return image
    array = image if image.ndim == 4 else image[None] if image.ndim == 3 else image[None, :, :, None]
    if array.dtype.kind == "u":
        array = array.astype(np.float32) / np.iinfo(array.dtype).max
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.float32).transpose(0, 3, 1, 2)))


def degrees_between(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Angles between unit vectors (..., 3); from their difference, since the cosine is flat at zero."""
    chord = np.linalg.norm(a.astype(np.float64) - b, axis=-1)
    return np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1)))

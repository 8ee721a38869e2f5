"""The engine's random numbers, resizing, preprocessing and schedulers on NumPy arrays, for the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marigold_c import _testing as engine

Floats = NDArray[np.float32]
Geometry = tuple[int, int, int, int, int, int]

PIXELS = {"uint8": "u8", "uint16": "u16", "float32": "f32"}


def randn(seed: int, counts: Sequence[int]) -> list[Floats]:
    return [np.frombuffer(draw, np.float32) for draw in engine.randn(seed, list(counts))]


def resize(image: Floats, size: tuple[int, int], mode: str = "bilinear", antialias: bool = False) -> Floats:
    assert image.dtype == np.float32
    data = engine.resize(np.ascontiguousarray(image), image.shape, size, mode, antialias)
    return np.frombuffer(data, np.float32).reshape(*image.shape[:2], *size)


def geometry(h: int, w: int, processing_resolution: int, vae_scale: int = 8, preset: str = "diffusers") -> Geometry:
    result: Geometry = engine.geometry(h, w, processing_resolution, vae_scale, preset)
    return result


def preprocess(
    image: NDArray[Any],
    processing_resolution: int,
    mode: str = "bilinear",
    vae_scale: int = 8,
    where: Geometry | None = None,
    preset: str = "diffusers",
) -> Floats:
    if where is None:
        where = geometry(image.shape[1], image.shape[2], processing_resolution, vae_scale, preset)
    data = engine.preprocess(np.ascontiguousarray(image), PIXELS[image.dtype.name], image.shape, where, mode, preset)
    return np.frombuffer(data, np.float32).reshape(image.shape[0], 3, where[4], where[5])


@dataclass(frozen=True)
class Schedule:
    class_name: str
    init_noise_sigma: float
    alphas_cumprod: Floats
    timesteps: list[Any]  # whole numbers as int
    factors: NDArray[np.float64]  # steps x (sample, model, noise; of the clean estimate: sample, model)
    last_estimate: NDArray[np.float64]  # the factor of the estimate of the step before
    inputs: NDArray[np.float64]  # that of what the network sees


def schedule(config: dict[str, Any], num_inference_steps: int, eta: float = 0.0) -> Schedule:
    name, sigma, alphas, steps = engine.scheduler(json.dumps(config), num_inference_steps, eta)
    factors = np.array([step[1] for step in steps], np.float64).reshape(-1, 7)
    timesteps = [int(step[0]) if step[0].is_integer() else step[0] for step in steps]
    levels = np.frombuffer(alphas, np.float32)
    return Schedule(name, sigma, levels, timesteps, factors[:, :5], factors[:, 5], factors[:, 6])


def scheduler_step(
    sample: Floats,
    output: Floats,
    factors: Sequence[float],
    noise: Floats | None = None,
    estimate: Floats | None = None,
) -> tuple[Floats, Floats | None]:
    """The next sample and estimate. factors: of sample, output, noise; of the estimate: sample, output; of the last
    estimate."""
    arrays = [None if part is None else part.tobytes() for part in (sample, estimate, output, noise)]
    following, kept = engine.scheduler_step(*arrays, (*factors, 1.0))
    return np.frombuffer(following, np.float32), None if kept is None else np.frombuffer(kept, np.float32)


def head(task: str, decoded: Floats, full_z: bool = True) -> Floats:
    """The map of decoded planes (channels, pixels)."""
    data = engine.head(task, np.ascontiguousarray(decoded), len(decoded), full_z)
    return np.frombuffer(data, np.float32).reshape(-1, decoded.shape[1])

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
    timesteps: list[int]
    factors: NDArray[np.float64]  # steps x (sample, model, noise; of the clean estimate: sample, model)


def schedule(config: dict[str, Any], num_inference_steps: int, eta: float = 0.0) -> Schedule:
    name, sigma, alphas, steps = engine.scheduler(json.dumps(config), num_inference_steps, eta)
    factors = np.array([step[1] for step in steps], np.float64).reshape(-1, 5)
    return Schedule(name, sigma, np.frombuffer(alphas, np.float32), [step[0] for step in steps], factors)

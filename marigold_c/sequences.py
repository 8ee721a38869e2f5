"""Frames of a video, one after the other, with less flicker than frames by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _C
from .images import canonical
from .outputs import MarigoldOutput
from .pipelines import MarigoldPipeline
from .schedulers import draw_noise


def _latent_shape(
    pipe: MarigoldPipeline, frame: NDArray[Any], members: int, resolution: int, preset: str
) -> tuple[int, ...]:
    scale = pipe.vae_scale_factor
    *_, padded_h, padded_w = _C.geometry(frame.shape[1], frame.shape[2], resolution, scale, preset)
    return (members, pipe.unet.config["out_channels"], padded_h // scale, padded_w // scale)


def predict_sequence(
    pipe: MarigoldPipeline,
    frames: Iterable[Any],
    blend: float = 0.1,
    generator: Any = None,
    **options: Any,
) -> Iterator[MarigoldOutput]:
    """The prediction of each frame as it is made; frames (images as the pipeline takes them) may be a generator.

    Every frame starts from the same noise, into which the latent of the frame before is mixed: (1 - blend) * noise +
    blend * latent, as in the video recipe of diffusers' tutorial on Marigold. blend 0 shares the noise alone. options:
    those of the pipeline's call but latents, generator and return_dict. ValueError: a blend outside [0, 1], frames of
    different sizes, an option that does not fit.
    """
    if not 0 <= blend <= 1:
        raise ValueError(f"`blend` is {blend}; it must be between 0 and 1")
    taken = {"latents", "generator", "return_dict"} & options.keys()
    if taken:
        raise ValueError(f"`{sorted(taken)[0]}` is what a sequence sets itself")
    resolution = options.get("processing_resolution")
    resolution = pipe.default_processing_resolution if resolution is None else resolution
    output_latent = options.pop("output_latent", False)
    noise: NDArray[np.float32] | None = None
    last: NDArray[np.float32] | None = None
    for index, frame in enumerate(frames):
        pixels = canonical(frame, f"frames[{index}]")
        if len(pixels) != 1:
            raise ValueError(f"`frames[{index}]` holds {len(pixels)} images; a frame is one")
        shape = _latent_shape(
            pipe, pixels, options.get("ensemble_size", 1), resolution or 0, options.get("preset", "diffusers")
        )
        if noise is None:
            noise = draw_noise(shape, generator)
        if shape != noise.shape:
            raise ValueError(f"`frames[{index}]` needs latents {shape}, the frames before it {noise.shape}")
        start = noise if last is None else np.float32(1 - blend) * noise + np.float32(blend) * last
        out = pipe(pixels, latents=start, output_latent=True, **options)
        last = out.latent
        if not output_latent:
            out.latent = None
        yield out

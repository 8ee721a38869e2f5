"""Frames of a video, one after the other, with less flicker than frames by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _C
from ..images.locations import pixels_of
from .outputs import MarigoldOutput
from .pipeline import MarigoldPipeline
from .schedulers import draw_noise


def _common_noise(
    pipe: MarigoldPipeline[Any], frame: NDArray[Any], generator: Any, options: Mapping[str, Any]
) -> NDArray[np.float32]:
    """The noise for frames of the size of this one (1, H, W, C), as a call of the pipeline would draw it."""
    members = options.get("ensemble_size", 1)
    if isinstance(generator, (list, tuple)) and len(generator) != members:
        raise ValueError(f"`generator` is a list of {len(generator)} for {members} ensemble members")
    resolution = options.get("processing_resolution")
    resolution = pipe.default_processing_resolution if resolution is None else resolution
    scale = pipe.vae_scale_factor
    preset = options.get("preset", "diffusers")
    *_, padded_h, padded_w = _C.geometry(frame.shape[1], frame.shape[2], resolution or 0, scale, preset)
    return draw_noise((members, pipe.unet.config["out_channels"], padded_h // scale, padded_w // scale), generator)


def predict_sequence(
    pipe: MarigoldPipeline[Any],
    frames: Iterable[Any],
    blend: float = 0.1,
    generator: Any = None,
    **options: Any,
) -> Iterator[MarigoldOutput]:
    """Predicts the frames of a video one after the other, with less flicker than frames by themselves.

    Every frame starts from the same noise, into which the latent of the frame before is mixed: (1 - blend) * noise +
    blend * latent, as in the video recipe of diffusers' tutorial on Marigold. LCM schedulers add noise between several
    steps; that noise no generator decides here.

    Args:
        pipe: A pipeline.
        frames: Images of one size, as the pipeline takes them; may be a generator.
        blend: How much of the frame before, in [0, 1]; 0 shares the noise alone.
        generator: Of the noise, as in the pipeline's call.
        options: Those of the pipeline's call, but latents, generator and return_dict.

    Yields:
        The output of each frame, as it is made.

    Raises:
        ValueError: A blend outside [0, 1], frames of different sizes, an option that does not fit.
    """
    if not 0 <= blend <= 1:
        raise ValueError(f"`blend` is {blend}; it must be between 0 and 1")
    taken = {"latents", "generator", "return_dict"} & options.keys()
    if taken:
        raise ValueError(f"`{sorted(taken)[0]}` is what a sequence sets itself")
    output_latent = options.pop("output_latent", False)
    first: tuple[int, ...] | None = None
    noise: NDArray[np.float32]
    start: NDArray[np.float32]
    for index, frame in enumerate(frames):
        pixels = pixels_of(frame, f"frames[{index}]")
        if len(pixels) != 1:
            raise ValueError(f"`frames[{index}]` holds {len(pixels)} images; a frame is one")
        size = pixels.shape[1:3]
        if first is None:
            first = size
            noise = start = _common_noise(pipe, pixels, generator, options)
        elif size != first:
            raise ValueError(
                f"`frames[{index}]` is {size[1]} x {size[0]}, the frames before it {first[1]} x {first[0]}"
            )
        out = pipe(pixels, latents=start, output_latent=True, **options)
        start = np.float32(1 - blend) * noise + np.float32(blend) * np.asarray(out.latent, np.float32)
        if not output_latent:
            out.latent = None
        yield out

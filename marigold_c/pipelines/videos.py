"""Depth of a whole video that agrees over time: RollingDepth (arXiv 2411.19189). Frame by frame: sequences.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _C
from ..images.locations import pixels_of
from ..progress import tqdm_class
from .arguments import checked_count, checked_resolution
from .outputs import MarigoldDepthOutput
from .pipeline import MarigoldPipeline
from .placement import say_computed_dtype
from .schedulers import draw_noise

DILATIONS, SNIPPET_LENGTH, REFINEMENT_DILATION = (1, 25), 3, 6
ROLLING_FAMILY = "rollingdepth"

Array = NDArray[np.float32]


def capped_dilations(dilations: Sequence[int], frames: int, length: int) -> tuple[int, ...]:
    """None larger than a `length`-th of the video, so that every frame is in a snippet of each; none twice."""
    return tuple(dict.fromkeys(min(dilation, max(1, frames // length)) for dilation in dilations))


# The engine's bounds: (argument, least, most), and for the message what it is and what there may be of it.
_COUNTS = {
    "snippet_length": (2, 4, "a snippet has {} frames; it must have 2 to 4"),
    "refinement_steps": (0, 500, "{} steps of refinement; there may be 0 to 500"),
    "refinement_dilation": (1, math.inf, "refinement begins with a dilation of {}; it must be positive"),
    "alignment_iterations": (0, math.inf, "{} iterations of alignment; there must be 0 or more"),
}
_MOST_DILATIONS = 8


def _check_options(dilations: Sequence[int], counts: Mapping[str, int], frames: int | None, capped: bool) -> None:
    """What the engine would refuse after every frame was encoded. frames: how many, where that is known already."""
    for name, (least, most, message) in _COUNTS.items():
        if not least <= counts[name] <= most:
            raise ValueError(f"`{name}`: {message.format(counts[name])}")
    length = counts["snippet_length"]
    if not 1 <= len(dilations) <= _MOST_DILATIONS:
        raise ValueError(f"`dilations`: {len(dilations)} dilations; there must be 1 to {_MOST_DILATIONS}")
    if (least := min(dilations)) < 1:
        raise ValueError(f"`dilations`: a dilation of {least}; it must be positive")
    if 1 not in dilations:
        raise ValueError("`dilations`: no dilation is 1: only with it every frame is in a snippet")
    if frames is None:
        return
    if frames < length:
        raise ValueError(f"`frames` are {frames}; a snippet has {length}")
    largest, most = max(dilations), (frames - 1) // (length - 1)
    if not capped and largest > most:
        raise ValueError(
            f"`dilations`: a dilation of {largest}; snippets of {length} frames fit into {frames} frames with "
            f"dilations of 1 to {most}"
        )


def _encoded(
    pipe: MarigoldPipeline[Any], frames: Iterable[Any], resolution: int
) -> tuple[list[Array], tuple[int, int]]:
    """The latent of each frame, and the size of all."""
    latents: list[Array] = []
    size = (0, 0)
    for index, frame in enumerate(frames):
        pixels = pixels_of(frame, f"frames[{index}]")
        if len(pixels) != 1:
            raise ValueError(f"`frames[{index}]` holds {len(pixels)} images; a frame is one")
        height, width = pixels.shape[1:3]
        if latents and (height, width) != size:
            raise ValueError(f"`frames[{index}]` is {width} x {height}, the frames before it {size[1]} x {size[0]}")
        size = height, width
        latents.append(pipe._engine.encode(pixels, resolution))
    return latents, size


def predict_video(
    pipe: MarigoldPipeline[Any],
    frames: Iterable[Any],
    dilations: Sequence[int] = DILATIONS,
    num_inference_steps: int | None = None,
    refinement_steps: int = 0,
    processing_resolution: int | None = None,
    match_input_resolution: bool = True,
    generator: Any = None,
    snippet_length: int = SNIPPET_LENGTH,
    refinement_dilation: int = REFINEMENT_DILATION,
    cap_dilations: bool = True,
    alignment_iterations: int = 2000,
) -> Iterator[MarigoldDepthOutput]:
    """Predicts the depth of a video as a whole: RollingDepth (arXiv 2411.19189), with its checkpoints.

    Snippets of a few frames, `dilation` apart, are denoised together: in self-attention each sees the others. All
    snippets are then aligned with each other by a scale and a shift each, and the maps of a frame averaged.

    Args:
        pipe: A pipeline of family "rollingdepth" (mc.load("prs-eth/rollingdepth-v1-0")).
        frames: Images of one size; all are read, encoded and forgotten before the first result.
        dilations: Frames from one of a snippet to the next. 1 must be there; large ones keep the scale over time.
        num_inference_steps: Denoising steps of a snippet; None: the checkpoint's, 1.
        refinement_steps: 0, or so many steps of denoising from half noise, which add details; 10 in the paper.
        processing_resolution: The longer side in pixels while it is computed; 0: the frames' own; None: the
            checkpoint's.
        match_input_resolution: Resize results to the size of the frames.
        generator: Of the noise, from which every frame of every snippet starts: as in the pipeline's call.
        snippet_length: Frames of a snippet, 2 to 4; the checkpoint was trained with 3 and fewer.
        refinement_dilation: Of the first step of refinement; the last has 1.
        cap_dilations: Reduce dilations to a third (a `snippet_length`-th) of a short video.
        alignment_iterations: Steps of Adam by which the snippets are aligned; 0 leaves them as they are.

    Yields:
        The map of each frame in order, (1, H, W, 1) in [0, 1] over the whole video: of RollingDepth's checkpoints
        disparity, 1 is near.

    Raises:
        ValueError: Fewer frames than a snippet has, frames of different sizes, an option that does not fit: before
            a frame is encoded, as far as the number of frames is known then.
        NotImplementedError: A checkpoint of another family, another scheduler than DDIM.
        MemoryError: The maps of all snippets, 12 bytes for each pixel, frame and dilation, do not fit into the free
            memory: before the first snippet.
        KeyboardInterrupt: Ctrl-C, or `cancel`; the pipeline stays usable.
    """
    scale = pipe.vae_scale_factor
    asked = pipe.default_processing_resolution if processing_resolution is None else processing_resolution
    resolution = checked_resolution(asked, scale)
    steps = pipe.default_denoising_steps if num_inference_steps is None else num_inference_steps
    steps = checked_count("num_inference_steps", steps)
    if pipe.family != ROLLING_FAMILY:
        raise NotImplementedError(
            f"{pipe.folder}: family {pipe.family} predicts each image by itself; predict_video takes checkpoints of "
            f"family {ROLLING_FAMILY}"
        )
    counts = {
        "snippet_length": snippet_length,
        "refinement_steps": refinement_steps,
        "refinement_dilation": refinement_dilation,
        "alignment_iterations": alignment_iterations,
    }
    _check_options(dilations, counts, len(frames) if isinstance(frames, Sized) else None, cap_dilations)
    say_computed_dtype(pipe._options["dtype"], pipe.device)
    latents, (height, width) = _encoded(pipe, frames, resolution)
    _check_options(dilations, counts, len(latents), cap_dilations)
    fitting = capped_dilations(dilations, len(latents), snippet_length) if cap_dilations else tuple(dilations)
    noise = draw_noise(latents[0].shape, generator)
    with tqdm_class()(**{"desc": "Marigold snippets...", "leave": True, **pipe._progress_bar_config}) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if pipe._progress_callback is not None:
                pipe._progress_callback(done, total)

        maps = pipe._engine.predict_video(
            np.concatenate(latents),
            noise,
            pipe.scheduler._handle,
            height,
            width,
            fitting,
            processing_resolution=resolution,
            snippet_length=snippet_length,
            num_inference_steps=steps,
            refinement_steps=refinement_steps,
            refinement_dilation=refinement_dilation,
            alignment_iterations=alignment_iterations,
            progress=advance,
        )
    for one in maps:
        planes = one[None, None]
        if match_input_resolution:
            planes = _C.resize(planes, (height, width), "bilinear")
        yield MarigoldDepthOutput(np.ascontiguousarray(planes[:, 0, :, :, None]))

"""Depth of a whole video that agrees over time: RollingDepth (arXiv 2411.19189). Frame by frame: sequences.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
        ValueError: Fewer frames than a snippet has, frames of different sizes, an option that does not fit.
        NotImplementedError: A checkpoint of another family, another scheduler than DDIM.
        MemoryError: The maps of all snippets, 12 bytes for each pixel, frame and dilation, do not fit.
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
    say_computed_dtype(pipe._options["dtype"], pipe.device)
    latents, (height, width) = _encoded(pipe, frames, resolution)
    if len(latents) < snippet_length:
        raise ValueError(f"`frames` are {len(latents)}; a snippet has {snippet_length}")
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

"""Depth in high resolution (Marigold-HR, arXiv 2505.09358): an ordinary prediction, enlarged, made finer by a second
UNet in overlapping tiles. The engine does the tiles (csrc/pipeline/refine.c)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _C
from ..images.arrays import join
from .arguments import RunArguments, Task, check_arguments
from .outputs import MarigoldDepthOutput
from .schedulers import advance_torch_generators, as_generators
from .tasks import MarigoldDepthPipeline

STEPS = 10  # of each UNet, where the checkpoint names none
MEMBERS, BOOSTED_MEMBERS = 10, 5
UPSCALE_FACTOR, TILE_SIZE = 2.0, 768


@dataclass(repr=False)
class MarigoldDepthHROutput(MarigoldDepthOutput):
    """Depth (N, H, W, 1) in [0, 1]; base_prediction: the same, before it was refined, enlarged to that size.

    uncertainty and latent are those of the refined members."""

    base_prediction: NDArray[np.float32] | None = None


class MarigoldDepthHRPipeline(MarigoldDepthPipeline):
    """Depth in high resolution. Opens a checkpoint with a boosting_unet: prs-eth/marigold-depth-hr-v1-1."""

    _boosting = True

    def __call__(  # type: ignore[override]  # more arguments, and another result
        self,
        image: Any,
        num_inference_steps: int | None = None,
        ensemble_size: int = MEMBERS,
        processing_resolution: int | None = None,
        match_input_resolution: bool = True,
        resample_method_input: str = "bilinear",
        resample_method_output: str | None = None,
        batch_size: int | None = 1,
        ensembling_kwargs: Mapping[str, Any] | None = None,
        latents: Any = None,
        generator: Any = None,
        output_type: str = "np",
        output_uncertainty: bool = False,
        output_latent: bool = False,
        preset: str = "diffusers",
        boosted_num_inference_steps: int | None = None,
        boosted_ensemble_size: int = BOOSTED_MEMBERS,
        boosted_latents: Any = None,
        upscale_factor: float = UPSCALE_FACTOR,
        tile_size: int = TILE_SIZE,
        tile_overlap: int | None = None,
    ) -> MarigoldDepthHROutput:
        """Predicts depth of one image, or of several of one size, and refines it.

        Args:
            image: As of MarigoldDepthPipeline.
            num_inference_steps: Of the base prediction; None: the checkpoint's, else 10.
            ensemble_size: Members of the base prediction.
            processing_resolution: The longer side of the base prediction in pixels; 0: the image's own; None: the
                checkpoint's.
            match_input_resolution: Resize the result to the size of the image.
            resample_method_input, resample_method_output, batch_size, ensembling_kwargs: As of MarigoldDepthPipeline,
                for both.
            latents: The noise of the base prediction, (N*E, C, h, w), or "zeros".
            generator: A `Generator`, a torch generator of the CPU or a seed: it draws the noise of the base prediction,
                then that of the refinement, one canvas for each member.
            output_type: "np".
            output_uncertainty: How much the refined members disagree.
            output_latent: The latent of each refined member.
            preset: As of MarigoldDepthPipeline.
            boosted_num_inference_steps: Of the refinement; None: the checkpoint's, else 10.
            boosted_ensemble_size: Members of the refinement: E'; all refine the one base prediction.
            boosted_latents: The noise of the refinement, (N*E', C, h, w) of the enlarged size, or "zeros".
            upscale_factor: How many times larger than the base prediction's the longer side of the refinement is; 1 or
                more. It is rounded to a multiple of 8 pixels.
            tile_size: Side of the second UNet's tiles in pixels of the refinement, a multiple of 8. Where one tile
                covers all, there is no blending.
            tile_overlap: Of two tiles, in pixels, a multiple of 8; None: half of a tile.

        Raises:
            ValueError: Bad arguments; images of different sizes; a list of generators.
            MemoryError, RuntimeError, KeyboardInterrupt: As of MarigoldDepthPipeline.
        """
        if output_type != "np":
            raise ValueError(f'`output_type` must be "np"; got {output_type!r}.')
        stream = self._one_generator(generator)
        base_noise = None if latents is not None else stream
        fine_noise = None if boosted_latents is not None else stream
        info = self._engine.info()
        task = Task(info["vae_scale"], info["unet_out_channels"], self._reductions, self._ensembling_options)

        def checked(
            images: Any, steps: int | None, members: int, resolution: int | None, start: Any, noise: Any, told: bool
        ) -> RunArguments:
            return check_arguments(
                task,
                images,
                (self.default_denoising_steps or STEPS) if steps is None else steps,
                members,
                resolution,
                resample_method_input,
                resample_method_output,
                batch_size,
                ensembling_kwargs,
                start,
                noise,
                "np",
                told,
                preset,
            )

        if processing_resolution is None:
            processing_resolution = self.default_processing_resolution
        base = checked(image, num_inference_steps, ensemble_size, processing_resolution, latents, base_noise, False)
        if not base.joined:
            raise ValueError("`image` has images of different sizes; they are refined one at a time.")
        resolution, tiles = self._enlarged(base, upscale_factor), self._tiles(tile_size, tile_overlap)
        fine = checked(
            base.images,
            boosted_num_inference_steps,
            boosted_ensemble_size,
            resolution,
            boosted_latents,
            fine_noise,
            output_uncertainty,
        )
        try:
            ((coarse, _, _),) = self._run(base, False, False, False)
            refinement = {"coarse": coarse[:, :, :, 0], **tiles}
            ((prediction, uncertainty, latent),) = self._run(
                fine, match_input_resolution, output_uncertainty, output_latent, refinement
            )
        finally:
            advance_torch_generators(generator, () if stream is None else (stream,))
        enlarged = _C.resize(coarse.transpose(0, 3, 1, 2), prediction.shape[1:3]).transpose(0, 2, 3, 1)
        output = MarigoldDepthHROutput(prediction, uncertainty, latent, np.ascontiguousarray(enlarged))
        output.remember(base.images, None)
        return output

    def _one_generator(self, generator: Any) -> _C.Generator | None:
        if isinstance(generator, (list, tuple)):
            raise ValueError("`generator` must be one generator or seed: it draws the noise of both UNets.")
        generators = as_generators(generator)
        return None if generators is None else generators[0]

    def _enlarged(self, base: RunArguments, factor: Any) -> int:
        """The longer side of the refinement in pixels."""
        if not (isinstance(factor, (int, float, np.number)) and 1 <= factor < math.inf):
            raise ValueError(f"`upscale_factor` must be a number of 1 or more; got {factor!r}.")
        scale = self._engine.info()["vae_scale"]
        longest = base.processing_resolution or max(join(base.images).shape[1:3])
        return max(scale, round(longest * float(factor) / scale) * scale)

    def _tiles(self, size: Any, overlap: Any) -> dict[str, int]:
        """What the engine would refuse only after the base prediction."""
        scale = self._engine.info()["vae_scale"]
        for name, value, least in (("tile_size", size, scale), ("tile_overlap", overlap or 0, 0)):
            if not isinstance(value, (int, np.integer)) or value < least or value % scale:
                raise ValueError(f"`{name}` must be a multiple of {scale}, and {least} or more; got {value!r}.")
        if overlap is not None and overlap >= size:
            raise ValueError(f"`tile_overlap` is {overlap}; it must be less than `tile_size`, {size}.")
        return {"tile_size": int(size), "tile_overlap": -1 if overlap is None else int(overlap)}

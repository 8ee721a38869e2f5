"""Depth completion: metres for every pixel of an image from measured points of it (Marigold-DC, arXiv 2412.13389)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _C
from ..images.arrays import is_torch_tensor
from ..loading.options import recompute_name
from ..progress import tqdm_class
from .arguments import RunArguments, Task, check_arguments
from .outputs import MarigoldDepthOutput
from .point_alignment import align_to_points
from .schedulers import DDIMScheduler, advance_torch_generators, draw_noise
from .tasks import MarigoldDepthPipeline

METHODS = ("guided", "align")
GUIDED_STEPS, GUIDED_RESOLUTION = 50, 768
LATENT_RATE, AFFINE_RATE = 0.05, 0.005  # of Adam, as in the paper


@dataclass(repr=False)
class MarigoldDepthCompletionOutput(MarigoldDepthOutput):
    """Depth (1, H, W, 1) in metres; uncertainty: None, or of a guided ensemble the median absolute deviation, metres.

    latent is None. scale, shift: float64 (E,), of each member: metres = scale * depth + shift of depth in [0, 1]; the
    method "align" has one of each."""

    scale: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    shift: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


class _Points(NamedTuple):
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    metres: NDArray[np.float32]


def _sparse_array(value: Any, height: int, width: int) -> NDArray[np.float32]:
    """The argument `sparse_depth` as float32 (H, W)."""
    if is_torch_tensor(value):
        value = value.detach().cpu().numpy()
    sparse = np.asarray(value)
    if sparse.dtype.kind not in "fiu":
        raise ValueError(f"`sparse_depth` must be an array of real numbers, in metres; got dtype {sparse.dtype}.")
    shape = sparse.shape
    if shape in ((1, height, width), (height, width, 1), (1, 1, height, width), (1, height, width, 1)):
        sparse = sparse.reshape(height, width)
    if sparse.shape != (height, width):
        raise ValueError(
            f"`sparse_depth` has shape {shape}, and the image has {height} rows of {width} pixels: it is never "
            "resized, and needs a value for each pixel, 0 where nothing was measured."
        )
    return np.ascontiguousarray(sparse, np.float32)


def _points_of(sparse: NDArray[np.float32]) -> _Points:
    """The measured points; the same are refused as by the engine, which guides."""
    wrong = np.argwhere(~(np.isfinite(sparse) & (sparse >= 0)))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"`sparse_depth` is {sparse[row, column]:g} at row {row}, column {column}; depths are finite, in metres, "
            "and 0 where nothing was measured."
        )
    rows, columns = np.nonzero(sparse)
    metres = sparse[rows, columns]
    if len(metres) < 2:
        raise ValueError(
            f"`sparse_depth` has {len(metres)} measured points (values greater than 0); scale and shift need two or "
            "more, at different depths."
        )
    if metres.min() == metres.max():
        raise ValueError(
            f"all {len(metres)} measured points of `sparse_depth` are at {metres[0]:g} m; a scale needs two different "
            "depths."
        )
    return _Points(rows, columns, metres)


class MarigoldDepthCompletionPipeline(MarigoldDepthPipeline):
    """Metric depth from one image and measured points of it. Opens any checkpoint for depth, with from_pretrained."""

    def __call__(  # type: ignore[override]  # one more argument, and another result
        self,
        image: Any,
        sparse_depth: Any,
        num_inference_steps: int | None = None,
        ensemble_size: int = 1,
        processing_resolution: int = GUIDED_RESOLUTION,
        generator: Any = None,
        latents: Any = None,
        method: str = "guided",
        recompute: bool | str = "auto",
        latent_rate: float = LATENT_RATE,
        affine_rate: float = AFFINE_RATE,
    ) -> MarigoldDepthCompletionOutput:
        """Completes the depth of one image.

        Args:
            image: As of MarigoldDepthPipeline, one.
            sparse_depth: (H, W) of the image, metres, 0 where nothing was measured; two points or more, at different
                depths. See read_sparse_depth and sparse_map.
            num_inference_steps: None: 50 guided ones, or of "align" the checkpoint's.
            ensemble_size: Members, E, each guided by itself; the result is the median of each pixel. Of "align" they
                are merged before they are aligned.
            processing_resolution: The longer side in pixels while it is computed; 0: the image's own.
            generator: A `Generator`, a torch generator of the CPU, a seed, or a list with one for each member.
            latents: The noise to start from, (E, C, h, w).
            method: "guided": the gradient of the error at the points moves latent, scale and shift in each step.
                "align": an ordinary prediction, whose scale and shift robust least squares fits to the points.
            recompute: What a guided step computes twice, for less memory; the result is the same to the bit. False:
                nothing; "unet": the UNet's forward pass, so that its activations are not in memory beside the
                decoder's; True: also all within the networks but the inputs of their layers; "auto": the first of
                these that the free memory holds.
            latent_rate: Of Adam, for the latent.
            affine_rate: Of Adam, for scale and shift.

        Returns:
            Metres, float32 (1, H, W, 1), with scale and shift.

        Raises:
            ValueError: Bad arguments; says which point, and what is wrong with it.
            NotImplementedError: "guided" in another dtype than float32 and bfloat16, or on a device without gradients;
                a checkpoint for disparity.
            NotFiniteError: The loss is no number.
            MemoryError: There is too little memory for gradients.
            RuntimeError: Another thread uses this pipeline.
            KeyboardInterrupt: Ctrl-C; the pipeline stays usable.
        """
        if method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}; got {method!r}.")
        twice = recompute_name(recompute)
        guided = method == "guided"
        steps = num_inference_steps
        if steps is None:
            steps = GUIDED_STEPS if guided else self.default_denoising_steps
        run = self._checked(image, steps, ensemble_size, processing_resolution, latents, generator)
        sparse = _sparse_array(sparse_depth, *run.images[0].shape[1:3])
        points = _points_of(sparse)
        if not guided:
            return self._aligned(run, points, generator)
        rates = {"latent_rate": float(latent_rate), "affine_rate": float(affine_rate)}
        return self._guided(run, sparse, generator, recompute=twice, **rates)

    def _checked(
        self, image: Any, steps: int | None, members: int, resolution: int, latents: Any, generator: Any
    ) -> RunArguments:
        if self.prediction_type == "disparity":
            raise NotImplementedError(f"{self.folder} predicts disparity; depth is completed by a checkpoint for depth")
        info = self._engine.info()
        task = Task(info["vae_scale"], info["unet_out_channels"], self._reductions, self._ensembling_options)
        run = check_arguments(
            *(task, image, steps, members, resolution, "bilinear", "bilinear", 1, None),
            *(latents, generator, "np", False, "diffusers"),
        )
        count = sum(len(one) for one in run.images)
        if count != 1:
            raise ValueError(f"`image` has {count} images; depth is completed for one at a time.")
        return run

    def _latent_shape(self, run: RunArguments) -> tuple[int, int, int, int]:
        info = self._engine.info()
        scale = info["vae_scale"]
        height, width = run.images[0].shape[1:3]
        *_, padded_height, padded_width = _C.geometry(height, width, run.processing_resolution, scale)
        return run.ensemble_size, info["latent_channels"], padded_height // scale, padded_width // scale

    def _guided(
        self, run: RunArguments, sparse: NDArray[np.float32], generator: Any, **options: Any
    ) -> MarigoldDepthCompletionOutput:
        latents = run.latents[0]
        if latents is None:
            latents = draw_noise(self._latent_shape(run), generator)  # of all members at once
        # The points guide the first step most, which "leading" time steps would begin too late.
        scheduler = DDIMScheduler.from_config(self.scheduler.config, timestep_spacing="trailing")
        bar_options = {"desc": "Marigold completion...", "leave": True, **self._progress_bar_config}
        total = run.num_inference_steps * run.ensemble_size
        with tqdm_class()(total=total, **bar_options) as bar:

            def report(done: int, _total: int) -> None:
                bar.update(done - bar.n)
                if self._progress_callback is not None:
                    self._progress_callback(done, total)

            metres, uncertainty, affine = self._engine.complete(
                run.images[0],
                sparse,
                latents,
                scheduler._handle,
                num_inference_steps=run.num_inference_steps,
                ensemble_size=run.ensemble_size,
                processing_resolution=run.processing_resolution,
                progress=report,
                **options,
            )
        return MarigoldDepthCompletionOutput(
            prediction=metres[None, :, :, None],
            uncertainty=None if uncertainty is None else uncertainty[None, :, :, None],
            scale=affine[:, 0].copy(),
            shift=affine[:, 1].copy(),
        )

    def _aligned(self, run: RunArguments, points: _Points, generator: Any) -> MarigoldDepthCompletionOutput:
        try:
            ((prediction, _, _),) = self._run(run, True, False, False)
        finally:
            advance_torch_generators(generator, run.all_generators())
        depth = prediction[0, :, :, 0]
        scale, shift = align_to_points(depth[points.rows, points.columns], points.metres)
        metres = (scale * prediction.astype(np.float64) + shift).astype(np.float32)
        return MarigoldDepthCompletionOutput(prediction=metres, scale=np.array([scale]), shift=np.array([shift]))

"""What the pipelines of all tasks share: running, on NumPy arrays, with the interface of diffusers.

Opening, placement and saving are in opened_pipeline.py, the tasks' classes in tasks.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from ..images.arrays import join
from ..progress import tqdm_class
from .arguments import RunArguments, Task, check_arguments
from .opened_pipeline import OpenedPipeline
from .outputs import MarigoldOutput
from .placement import say_computed_dtype
from .schedulers import advance_torch_generators

Array = NDArray[np.float32]
Output = TypeVar("Output", bound=MarigoldOutput, covariant=True)


class MarigoldPipeline(OpenedPipeline, Generic[Output]):
    """What the pipelines of all tasks share; made by from_pretrained of a task's class, called on an image."""

    _output: ClassVar[type[MarigoldOutput]]
    _reductions: ClassVar[tuple[str, ...]]  # of an ensemble; the first is the default
    _ensembling_options: ClassVar[tuple[str, ...]] = ("reduction",)

    @overload
    def __call__(self, *args: Any, return_dict: Literal[False], **kwargs: Any) -> tuple[Any, Any, Any]: ...
    @overload
    def __call__(self, *args: Any, output_type: Literal["pt"], **kwargs: Any) -> Any: ...
    @overload
    def __call__(
        self,
        image: Any,
        num_inference_steps: int | None = None,
        ensemble_size: int = 1,
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
        return_dict: Literal[True] = True,
        preset: str = "diffusers",
    ) -> Output: ...
    def __call__(  # type: ignore[misc]  # the first overloads shorten their arguments
        self,
        image: Any,
        num_inference_steps: int | None = None,
        ensemble_size: int = 1,
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
        return_dict: bool = True,
        preset: str = "diffusers",
    ) -> Output | tuple[Any, Any, Any]:
        """Predicts the maps of one image or of several.

        Args:
            image: A PIL image (turned upright as its EXIF says), a path, a URL, an array (H, W), (H, W, C) or (N, H, W,
                C) of uint8, uint16 or floats in [0, 1], or a list of them. Images of different sizes give lists.
            num_inference_steps: Denoising steps; None: the checkpoint's. Lotus and GenPercept have one.
            ensemble_size: Predictions of each image that are merged, E.
            processing_resolution: The longer side in pixels while it is computed; 0: the image's own; None: the
                checkpoint's.
            match_input_resolution: Resize the result to the size of the image.
            resample_method_input: "nearest", "nearest-exact", "bilinear", "bicubic" or "area".
            resample_method_output: The same, for results; None: that of the checkpoint's family, Marigold's "bilinear".
            batch_size: Samples in one pass of the UNet; 0 or None: what a GPU's free memory holds, 1 on a CPU.
            ensembling_kwargs: How members are merged: reduction; for depth also solver, regularizer_strength, max_iter,
                tol and max_res of `ensemble_depth`.
            latents: The noise to start from, (N*E, C, h, w); "zeros"; for images of different sizes a list of them.
            generator: A `Generator`, a torch generator of the CPU, a seed, or a list with one for each of the N*E
                samples.
            output_type: "np", or "pt" for tensors (N, C, H, W).
            output_uncertainty: How much the members disagree; needs an ensemble.
            output_latent: The latent of each sample, before it is decoded.
            return_dict: False: a tuple (prediction, uncertainty, latent).
            preset: Whose resizing and padding: "diffusers", or "paper" for those of the authors' code.

        Returns:
            The maps, float32 (N, H, W, C).

        Raises:
            ValueError: Bad arguments, under diffusers' conditions.
            MemoryError: batch_size is too much for the memory.
            RuntimeError: Another thread uses this pipeline.
            KeyboardInterrupt: Ctrl-C, or `cancel`; the pipeline stays usable.
        """
        info = self._engine.info()
        run = check_arguments(
            Task(info["vae_scale"], info["unet_out_channels"], self._reductions, self._ensembling_options),
            image,
            num_inference_steps if num_inference_steps is not None else self.default_denoising_steps,
            ensemble_size,
            processing_resolution if processing_resolution is not None else self.default_processing_resolution,
            resample_method_input,
            resample_method_output,
            batch_size,
            ensembling_kwargs,
            latents,
            generator,
            output_type,
            output_uncertainty,
            preset,
        )
        try:
            parts = self._run(run, match_input_resolution, output_uncertainty, output_latent)
        finally:
            advance_torch_generators(generator, run.all_generators())
        if output_type == "pt":
            parts = [_as_tensors(part) for part in parts]
        prediction, uncertainty, latent = parts[0] if run.joined else _as_lists(parts)
        if not return_dict:
            return (prediction, uncertainty, latent)
        output = self._output(prediction, uncertainty, latent)
        output.remember(run.images, self.config.get("target_properties"))
        return cast(Output, output)

    def _invariances(self) -> dict[str, bool]:
        """Options of ensembling that the checkpoint decides."""
        return {}

    def _run(
        self,
        run: RunArguments,
        match_input_resolution: bool,
        output_uncertainty: bool,
        output_latent: bool,
        refinement: Mapping[str, Any] | None = None,
    ) -> list[tuple[Any, Any, Any]]:
        """Runs the images, all at once where they have one size; (prediction, uncertainty, latent) for each run.
        refinement: None, or the engine's options of one."""
        if not self._dtype_is_said:
            say_computed_dtype(self._options["dtype"], self.device)
            self._dtype_is_said = True
        invariances: dict[str, Any] = self._invariances()
        batches = [join(run.images)] if run.joined else run.images
        samples = [len(batch) * run.ensemble_size for batch in batches]
        totals = [-(-count // (run.batch_size or 1)) * run.num_inference_steps for count in samples]
        desc = "Marigold predictions..." if refinement is None else "Marigold refinement..."
        options = {"desc": desc, "leave": True, **self._progress_bar_config}
        parts = []
        with tqdm_class()(total=sum(totals), **options) as bar:

            def advance(index: int, done: int, total: int) -> None:
                totals[index] = total  # a batch size that the engine chose is known now
                so_far, bar.total = sum(totals[:index]) + done, sum(totals)
                bar.update(so_far - bar.n)
                if self._progress_callback is not None:
                    self._progress_callback(so_far, sum(totals))

            for index, batch in enumerate(batches):
                part = self._engine.run(
                    batch,
                    num_inference_steps=run.num_inference_steps,
                    ensemble_size=run.ensemble_size,
                    processing_resolution=run.processing_resolution,
                    match_input_resolution=match_input_resolution,
                    resample_method_input=run.resample_method_input,
                    resample_method_output=run.resample_method_output,
                    batch_size=run.batch_size,
                    latents=run.latents[index],
                    generators=run.generators[index],
                    scheduler=self._scheduler._handle,
                    output_latent=output_latent,
                    output_uncertainty=output_uncertainty,
                    preset=run.preset,
                    **run.ensembling,
                    **invariances,
                    **(refinement or {}),
                    progress=partial(advance, index),
                )
                parts.append(part)
        self._scheduler.num_inference_steps = run.num_inference_steps
        return parts


def _as_lists(parts: list[tuple[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    def column(index: int) -> list[Any] | None:
        values = [part[index] for part in parts]
        return None if values[0] is None else values

    return column(0), column(1), column(2)


def _as_tensors(part: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    """Maps as tensors (N, C, H, W), latents as they are."""
    import torch

    def tensor(array: Array | None, channels_last: bool) -> Any:
        if array is None:
            return None
        return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if channels_last else array)

    prediction, uncertainty, latent = part
    return tensor(prediction, True), tensor(uncertainty, True), tensor(latent, False)

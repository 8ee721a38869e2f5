"""Pipelines for depth, normals and intrinsic images with the interface of diffusers' classes, on NumPy arrays."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray

from .. import _C
from .._cuda import is_cuda, load_libraries
from ..errors import DeviceError
from ..images.arrays import join
from ..images.image_processor import MarigoldImageProcessor
from ..loading.config import Config, read_config
from ..loading.folders import explaining_damage, resolve_folder, resolve_vae_folder
from ..loading.options import checked_threads, dtype_name
from ..loading.packed import Configurations, is_packed
from ..progress import tqdm
from .arguments import RunArguments, Task, check_arguments
from .components import VAE, AutoencoderTiny, UNet
from .ensembling import ensemble_depth, ensemble_intrinsics, ensemble_normals
from .outputs import MarigoldDepthOutput, MarigoldIntrinsicsOutput, MarigoldNormalsOutput, MarigoldOutput
from .schedulers import DDIMScheduler, LCMScheduler, Scheduler, advance_torch_generators, scheduler_of

Array = NDArray[np.float32]


class MarigoldPipeline:
    """What the pipelines of all tasks share; made by from_pretrained of a task's class, called on an image."""

    task: ClassVar[str]  # the engine's name of the task
    supported_prediction_types: ClassVar[tuple[str, ...]]
    _output: ClassVar[type[MarigoldOutput]]
    _reductions: ClassVar[tuple[str, ...]]  # of an ensemble; the first is the default
    _ensembling_options: ClassVar[tuple[str, ...]] = ("reduction",)

    def __init__(self, folder: Path, options: Mapping[str, Any], vae_folder: Path | None) -> None:
        """folder: or a packed file. `options` of the engine; vae_folder None: the checkpoint's own autoencoder.
        Use from_pretrained."""
        self._options = options
        self._progress_bar_config: dict[str, Any] = {}
        self.folder = folder
        self._configurations = Configurations(folder)
        self.config: Config = self._configurations["model_index.json"]
        self._open(vae_folder)
        info = self._engine.info()
        self.device, self.dtype = options["device"], info["dtype"]
        self.default_denoising_steps = info["default_denoising_steps"] or None
        resolution = info["default_processing_resolution"]
        self.default_processing_resolution = resolution if resolution >= 0 else None
        self.prediction_type = self.config.get("prediction_type")
        self.empty_text_embedding = self._engine.empty_text_embedding()
        self.scheduler = scheduler_of(self._configurations)
        self._warn_of_other_task()

    def _open(self, vae_folder: Path | None) -> None:
        """Opens the engine, and what depends on the autoencoder."""
        replaced: dict[str, Any] = {} if vae_folder is None else {"vae": vae_folder}
        own_vae = self.folder if is_packed(self.folder) else self.folder / "vae"
        if is_cuda(self._options["device"]):
            load_libraries()
        with explaining_damage(self.folder):
            engine = _C.Pipeline(self.folder, task=self.task, **self._options, **replaced)
        self._engine = engine
        if vae_folder is None or is_packed(vae_folder):
            configurations = self._configurations if vae_folder is None else Configurations(vae_folder)
            self._vae = VAE(engine, vae_folder or own_vae, configurations["vae/config.json"])
        else:
            self._vae = VAE(engine, vae_folder, read_config(vae_folder / "config.json"))
        self.unet = UNet(engine, self._configurations["unet/config.json"])
        self.vae_scale_factor = engine.info()["vae_scale"]
        self.image_processor = MarigoldImageProcessor(self.vae_scale_factor)

    def _warn_of_other_task(self) -> None:
        name = self.config.get("_class_name")
        if name in _PIPELINES and not isinstance(self, _PIPELINES[name]):
            warnings.warn(
                f"{self.folder} was made for {name}; it is opened as {type(self).__name__} as asked", stacklevel=4
            )
        elif self.prediction_type is not None and self.prediction_type not in self.supported_prediction_types:
            warnings.warn(
                f"{self.folder / 'model_index.json'}: prediction_type {self.prediction_type!r} is unknown to "
                f"{type(self).__name__}; known: {', '.join(self.supported_prediction_types)}",
                stacklevel=4,
            )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        variant: str | None = None,
        dtype: Any = None,
        torch_dtype: Any = None,
        device: str = "cpu",
        num_threads: int | None = None,
        vae: str | PathLike[str] | None = None,
        cache_dir: str | PathLike[str] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Opens a folder in diffusers layout, a file of `convert`, or a hub id such as "prs-eth/marigold-depth-v1-1",
        which is downloaded first.

        variant "fp16" picks the files *.fp16.safetensors of each component that has them; without it they are taken
        only where a component has no others.
        dtype: "float32", "bfloat16", "int8" or, on a GPU, "float16" (alias torch_dtype); a packed file has its own, and
        others are refused.
        "auto", and None for a packed file: the file's own; float32 for a folder.
        device: "cpu", or a GPU: "cuda", "cuda:1"; DeviceError says what is missing for it.
        num_threads: None for all processors allowed to this process.
        vae: folder or hub id of an AutoencoderTiny (TAESD) that replaces the checkpoint's autoencoder.
        """
        threads = checked_threads(num_threads)
        folder = resolve_folder(pretrained_model_name_or_path, variant, cache_dir, revision, local_files_only, token)
        options = {
            "variant": variant,
            "dtype": dtype_name(folder, dtype, torch_dtype),
            "device": str(device),
            "isa": os.environ.get("MARIGOLD_ISA") or None,
            "num_threads": threads,
        }
        return cls(
            folder, options, None if vae is None else resolve_vae_folder(vae, cache_dir, local_files_only, token)
        )

    # ---- what diffusers' pipelines have ----

    @property
    def vae(self) -> VAE:
        """Settable: pipe.vae = AutoencoderTiny.from_pretrained("madebyollin/taesd"), or the vae of another pipeline."""
        return self._vae

    @vae.setter
    def vae(self, vae: VAE | AutoencoderTiny) -> None:
        if not isinstance(vae, (VAE, AutoencoderTiny)):
            raise ValueError(f"`vae` must be an AutoencoderTiny or the vae of a pipeline; got {type(vae)}")
        self._open(vae.folder)

    @property
    def scheduler(self) -> DDIMScheduler | LCMScheduler:
        """Settable: pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: DDIMScheduler | LCMScheduler) -> None:
        if not isinstance(scheduler, Scheduler):
            raise ValueError(f"`scheduler` must be a DDIMScheduler or an LCMScheduler; got {type(scheduler)}")
        self._scheduler = scheduler

    def set_progress_bar_config(self, **options: Any) -> None:
        """Options of the progress bar (tqdm), for example disable=True."""
        self._progress_bar_config = options

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Accepts where the pipeline is already; device and type are chosen in from_pretrained."""
        for wanted in (*args, *kwargs.values()):
            name = str(wanted).removeprefix("torch.")
            if name not in (self.device, self.dtype, "None"):
                raise DeviceError(
                    f"the pipeline was opened with device {self.device!r} and dtype {self.dtype!r}, not {name!r}; "
                    "choose both in from_pretrained"
                )
        return self

    def memory_stats(self) -> dict[str, int]:
        """Bytes: weights (mapped files and own copies), activations, workspace, and the largest sum so far (peak)."""
        stats = self._engine.memory()
        return {"weights": stats["weights_mapped"] + stats["weights_packed"], **stats}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r}, device={self.device!r}, dtype={self.dtype!r})"

    # ---- running ----

    @overload
    def __call__(self, *args: Any, return_dict: Literal[False], **kwargs: Any) -> tuple[Any, Any, Any]: ...
    @overload
    def __call__(
        self,
        image: Any,
        num_inference_steps: int | None = None,
        ensemble_size: int = 1,
        processing_resolution: int | None = None,
        match_input_resolution: bool = True,
        resample_method_input: str = "bilinear",
        resample_method_output: str = "bilinear",
        batch_size: int | None = 1,
        ensembling_kwargs: Mapping[str, Any] | None = None,
        latents: Any = None,
        generator: Any = None,
        output_type: str = "np",
        output_uncertainty: bool = False,
        output_latent: bool = False,
        return_dict: Literal[True] = True,
        preset: str = "diffusers",
    ) -> MarigoldOutput: ...
    def __call__(  # type: ignore[misc]  # the first overload shortens its arguments
        self,
        image: Any,
        num_inference_steps: int | None = None,
        ensemble_size: int = 1,
        processing_resolution: int | None = None,
        match_input_resolution: bool = True,
        resample_method_input: str = "bilinear",
        resample_method_output: str = "bilinear",
        batch_size: int | None = 1,
        ensembling_kwargs: Mapping[str, Any] | None = None,
        latents: Any = None,
        generator: Any = None,
        output_type: str = "np",
        output_uncertainty: bool = False,
        output_latent: bool = False,
        return_dict: bool = True,
        preset: str = "diffusers",
    ) -> MarigoldOutput | tuple[Any, Any, Any]:
        """Maps of one image or of several.

        image: PIL image, array (uint8, uint16, or float in [0, 1]; (H, W), (H, W, C) or (N, H, W, C)), or a list
        of them; images of different sizes give lists. generator: Generator, seed, or a list with one for each sample.
        latents: (N*E, C, h, w), "zeros", or a list of them for images of different sizes. num_inference_steps and
        processing_resolution default to the checkpoint's; processing_resolution 0 is the image's own.
        ensemble_size: samples for each image, made in batches of batch_size and merged as ensembling_kwargs says
        (reduction; for depth also solver, regularizer_strength, max_iter, tol, max_res: see ensemble_depth).
        batch_size 0 or None: on a GPU what its free memory holds, on a CPU 1. MemoryError if batch_size is too much.
        preset "paper" repeats the resizing of the paper's code instead of diffusers'.
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
        return self._output(prediction, uncertainty, latent)

    def _invariances(self) -> dict[str, bool]:
        """Options of ensembling that the checkpoint decides."""
        return {}

    def _run(
        self, run: RunArguments, match_input_resolution: bool, output_uncertainty: bool, output_latent: bool
    ) -> list[tuple[Any, Any, Any]]:
        """Runs the images, all at once where they have one size; (prediction, uncertainty, latent) for each run."""
        invariances: dict[str, Any] = self._invariances()
        batches = [join(run.images)] if run.joined else run.images
        samples = [len(batch) * run.ensemble_size for batch in batches]
        totals = [-(-count // (run.batch_size or 1)) * run.num_inference_steps for count in samples]
        options = {"desc": "Marigold predictions...", "leave": True, **self._progress_bar_config}
        parts = []
        with tqdm(total=sum(totals), **options) as bar:

            def advance(index: int, done: int, total: int) -> None:
                totals[index] = total  # a batch size that the engine chose is known now
                bar.total = sum(totals)
                bar.update(sum(totals[:index]) + done - bar.n)

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


class MarigoldDepthPipeline(MarigoldPipeline):
    """Monocular depth, as diffusers' class of this name."""

    task = "depth"
    supported_prediction_types = ("depth", "disparity")
    _output = MarigoldDepthOutput
    _reductions = ("median", "mean")
    _ensembling_options = ("reduction", "solver", "regularizer_strength", "max_iter", "tol", "max_res")
    ensemble_depth = staticmethod(ensemble_depth)

    @property
    def scale_invariant(self) -> bool:
        """Whether predictions are known up to a factor only."""
        return bool(self.config.get("scale_invariant", True))

    @property
    def shift_invariant(self) -> bool:
        """Whether predictions are known up to an offset only."""
        return bool(self.config.get("shift_invariant", True))

    def _invariances(self) -> dict[str, bool]:
        return {"scale_invariant": self.scale_invariant, "shift_invariant": self.shift_invariant}


class MarigoldNormalsPipeline(MarigoldPipeline):
    """Surface normals, as diffusers' class of this name."""

    task = "normals"
    supported_prediction_types = ("normals",)
    _output = MarigoldNormalsOutput
    _reductions = ("closest", "mean")
    ensemble_normals = staticmethod(ensemble_normals)

    @property
    def use_full_z_range(self) -> bool:
        """Whether z spans [-1, 1]; else all normals face the camera."""
        return bool(self.config.get("use_full_z_range", True))


class MarigoldIntrinsicsPipeline(MarigoldPipeline):
    """Intrinsic image decomposition into any number of targets, as diffusers' class of this name."""

    task = "intrinsics"
    supported_prediction_types = ("intrinsics",)
    _output = MarigoldIntrinsicsOutput
    _reductions = ("median", "mean")
    ensemble_intrinsics = staticmethod(ensemble_intrinsics)

    @property
    def n_targets(self) -> int:
        """Maps predicted for one image."""
        return self._engine.info()["num_targets"]

    @property
    def target_properties(self) -> dict[str, Any] | None:
        """Names, colour spaces and more of the targets, as model_index.json tells them."""
        return self.config.get("target_properties")


_PIPELINES: dict[str, type[MarigoldPipeline]] = {
    "MarigoldDepthPipeline": MarigoldDepthPipeline,
    "MarigoldPipeline": MarigoldDepthPipeline,
    "MarigoldNormalsPipeline": MarigoldNormalsPipeline,
    "MarigoldIntrinsicsPipeline": MarigoldIntrinsicsPipeline,
    "MarigoldIIDPipeline": MarigoldIntrinsicsPipeline,
}


def load(path_or_id: str | PathLike[str], **options: Any) -> Any:
    """The pipeline that the model_index.json of a checkpoint (folder, packed file, hub id) names; `options` as for
    from_pretrained."""
    hub = {key: options[key] for key in ("cache_dir", "revision", "local_files_only", "token") if key in options}
    folder = resolve_folder(path_or_id, options.get("variant"), **hub)
    name = Configurations(folder)["model_index.json"].get("_class_name")
    if name not in _PIPELINES:
        raise NotImplementedError(
            f"{folder / 'model_index.json'}: _class_name {name!r} is not supported; supported: {', '.join(_PIPELINES)}"
        )
    return _PIPELINES[name].from_pretrained(folder, **options)

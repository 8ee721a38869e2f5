"""A pipeline as an open checkpoint: opening it, its parts, device and precision, saving. Called by pipeline.py, which
runs it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

from .. import _C
from .._cuda import is_cuda, load_libraries
from ..images.image_processor import MarigoldImageProcessor
from ..loading.config import Config, read_config
from ..loading.families import TASKS, class_name_of, kind_of, warn_of_restriction
from ..loading.folders import OPTIONAL_STEMS, explaining_damage, resolve_folder, resolve_unet_folder, resolve_vae_folder
from ..loading.options import DTYPES, VAE_TILE, checked_threads, dtype_name, vae_tiling_name
from ..loading.packed import Configurations, is_packed
from .compatibility import PipelineSettings, uncompiled
from .components import VAE, AutoencoderTiny, Opened, TextEncoder, Tiling, Tokenizer, UNet
from .placement import computed_dtype, wanted_placement
from .saving import Sources, save_folder
from .schedulers import SCHEDULERS, Scheduler, scheduler_of


class OpenedPipeline(PipelineSettings):
    """What a pipeline is before it runs."""

    task: ClassVar[str]  # the engine's name of the task
    supported_prediction_types: ClassVar[tuple[str, ...]]
    _boosting: ClassVar[bool] = False  # whether the second UNet of Marigold-HR is opened, too
    _handle: _C.Pipeline | None  # None: `to` has closed it

    def __init__(
        self,
        unet: UNet,
        vae: VAE | AutoencoderTiny,
        scheduler: Scheduler,
        text_encoder: TextEncoder | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """A pipeline of another one's `components`, on its checkpoint, device and dtype: from_pretrained opens one from
        files. ValueError: something else in the place of a part."""
        for name, part, kind in (
            ("unet", unet, UNet),
            ("vae", vae, (VAE, AutoencoderTiny)),
            ("text_encoder", text_encoder, (TextEncoder, type(None))),
            ("tokenizer", tokenizer, (Tokenizer, type(None))),
        ):
            if not isinstance(part, kind):
                raise ValueError(f"`{name}` must be that of a pipeline; got {type(part)}")
        opened = unet.opened
        vae_folder = None if vae.folder == opened.own_vae() else vae.folder
        self._start(opened.folder, opened.options, vae_folder, opened.prediction_type)
        self.scheduler = scheduler

    def _start(
        self, folder: Path, options: Mapping[str, Any], vae_folder: Path | None, prediction_type: str | None
    ) -> None:
        """folder: or a packed file. `options` of the engine; vae_folder None: the checkpoint's own autoencoder;
        prediction_type None: that of model_index.json."""
        self._options = dict(options)
        self._tiling = Tiling(*self._options.pop("vae_tiling", ()))
        self._progress_bar_config: dict[str, Any] = {}
        self._progress_callback: Callable[[int, int], object] | None = None
        self.folder = folder
        self._configurations = Configurations(folder)
        self.config: Config = self._configurations["model_index.json"]
        self.prediction_type = prediction_type or self.config.get("prediction_type")
        self._open(vae_folder)
        info = self._engine.info()
        self.default_denoising_steps = info["default_denoising_steps"] or None
        resolution = info["default_processing_resolution"]
        self.default_processing_resolution = resolution if resolution >= 0 else None
        self.family: str = info["family"]
        self.empty_text_embedding = self._engine.empty_text_embedding()
        self.scheduler = scheduler_of(self._configurations, by_ddim=info["samples_by_ddim"])
        warn_of_restriction(self.family, info["restriction"])
        self._warn_of_other_task()

    @property
    def _engine(self) -> _C.Pipeline:
        """Opened, where `to` has left that to the first use."""
        if self._handle is None:
            self._open(self._vae_folder)
        assert self._handle is not None
        return self._handle

    @_engine.setter
    def _engine(self, engine: _C.Pipeline) -> None:
        self._handle = engine

    def _open(self, vae_folder: Path | None) -> None:
        """Opens the engine, and what depends on the autoencoder."""
        replaced: dict[str, Any] = {} if vae_folder is None else {"vae": vae_folder}
        opened = Opened(self.folder, dict(self._options), self.prediction_type)
        if is_cuda(self._options["device"]):
            load_libraries()
        options = {**self._options, "dtype": computed_dtype(self._options["dtype"], self._options["device"])}
        with explaining_damage(self.folder):
            engine = _C.Pipeline(self.folder, task=self.task, boosting=self._boosting, **options, **replaced)
        engine.set_vae_tiling(self._tiling.choice, self._tiling.size)
        self._handle = engine
        self._vae_folder = vae_folder
        self.device, self.dtype = self._options["device"], engine.info()["dtype"]
        self._dtype_is_said = False
        if vae_folder is None or is_packed(vae_folder):
            configurations = self._configurations if vae_folder is None else Configurations(vae_folder)
            folder, config = vae_folder or opened.own_vae(), configurations["vae/config.json"]
        else:
            folder, config = vae_folder, read_config(vae_folder / "config.json")
        self._vae = VAE(engine, folder, config, self._tiling)
        other = self._options.get("unet")
        config = self._configurations["unet/config.json"] if other is None else read_config(other / "config.json")
        self._unet = UNet(engine, config, opened)
        self.vae_scale_factor = engine.info()["vae_scale"]
        self.image_processor = MarigoldImageProcessor(self.vae_scale_factor)

    def _warn_of_other_task(self) -> None:
        name = class_name_of(self.config)
        if TASKS.get(name, self.task) != self.task:
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
        family: str | None = None,
        unet: str | PathLike[str] | None = None,
        prediction_type: str | None = None,
        text_tokens: int | None = None,
        vae_tiling: bool | str = "auto",
        boosting_inputs: str | None = None,
    ) -> Self:
        """Opens a checkpoint.

        Args:
            pretrained_model_name_or_path: A folder in diffusers layout, a packed file (see `convert`), or a hub id such
                as "prs-eth/marigold-depth-v1-1", which is downloaded first.
            variant: "fp16" takes the files whose names end in ".fp16.safetensors", in each component that has them.
                Without it they are taken only where a component has no others.
            dtype: "float32" (the default for a folder), "bfloat16", "float16" (on a CPU computed as bfloat16, which the
                first call says) or "int8"; also as torch.float32, np.float32, "fp32" and the like. "auto", and None for
                a packed file: the file's own; others are refused for a packed file.
            torch_dtype: Another name of dtype.
            device: "cpu", or a GPU: "cuda", "cuda:1". `to` changes device and dtype.
            num_threads: None: all processors that this process may use.
            vae: Folder or hub id of an AutoencoderTiny (TAESD) that replaces the checkpoint's autoencoder, and
                spares its download.
            cache_dir: Where downloads are kept.
            revision: Branch, tag or commit of the repository.
            local_files_only: Take what was downloaded before, and ask no network.
            token: For gated repositories; True: the one that was stored.
            family: "marigold", "e2e-ft", "lotus-d", "lotus-g", "genpercept" or "rollingdepth": what the UNet is
                given and what its output means. None: as model_index.json, the configurations or a published name tell.
            unet: Folder of a UNet that replaces the checkpoint's, as GenPercept's over Stable Diffusion 2.1; or a hub
                id and a folder in it: "guangkaixu/genpercept-models/unet_depth_v2".
            prediction_type: "depth" (0 near, 1 far) or "disparity" (1 near), where the checkpoint does not say it.
            text_tokens: Of the empty prompt: None: 2; 77: padded. A packed file has one of them.
            vae_tiling: Whether images larger than 768 pixels go through the autoencoder in tiles, as enable_vae_tiling
                says; "auto": only those that the free memory does not hold.
            boosting_inputs: Of a MarigoldDepthHRPipeline: in which order the second UNet takes its latents: "image",
                "coarse" and "sample", separated by commas. None: as the checkpoint says, else "image,coarse,sample".

        Raises:
            CheckpointError: A file is damaged, or does not fit its configuration.
            NotImplementedError: An architecture that is not built; names the configuration's key and value.
            DeviceError: Something is missing for the device; says what.
            ValueError: A packed file has another dtype; a variant that the checkpoint lacks.
            OSError: There is no such checkpoint, or the hub cannot be reached.
        """
        threads = checked_threads(num_threads)
        folder = resolve_folder(
            pretrained_model_name_or_path,
            variant,
            cache_dir,
            revision,
            local_files_only,
            token,
            without=[*(() if vae is None else ("vae",)), *(() if cls._boosting else OPTIONAL_STEMS)],
        )
        options: dict[str, Any] = {
            "variant": variant,
            "dtype": dtype_name(folder, dtype, torch_dtype),
            "device": str(device),
            "isa": os.environ.get("MARIGOLD_ISA") or None,
            "num_threads": threads,
        }
        other_unet = None if unet is None else resolve_unet_folder(unet, cache_dir, local_files_only, token)
        kind = kind_of(folder, family, cls.task, prediction_type, other_unet, text_tokens)
        if boosting_inputs is not None:
            if not cls._boosting:
                raise ValueError(f"`boosting_inputs` is of MarigoldDepthHRPipeline; {cls.__name__} has no second UNet")
            options["boosting_inputs"] = boosting_inputs
        options["vae_tiling"] = (vae_tiling_name(vae_tiling),)
        vae_folder = None if vae is None else resolve_vae_folder(vae, cache_dir, local_files_only, token)
        pipe = cls.__new__(cls)
        pipe._start(folder, options | kind.options(), vae_folder, kind.prediction_type)
        return pipe

    # ---- what diffusers' pipelines have ----

    @property
    def vae(self) -> VAE:
        """Settable: pipe.vae = AutoencoderTiny.from_pretrained("madebyollin/taesd"), or the vae of another pipeline."""
        _ = self._engine
        return self._vae

    @vae.setter
    def vae(self, vae: VAE | AutoencoderTiny) -> None:
        vae = uncompiled(vae)
        if not isinstance(vae, (VAE, AutoencoderTiny)):
            raise ValueError(f"`vae` must be an AutoencoderTiny or the vae of a pipeline; got {type(vae)}")
        if self._handle is None or vae is not self._vae:
            self._open(vae.folder)

    @property
    def unet(self) -> UNet:
        """The denoiser. It may be set to itself, as torch.compile returns it, which changes nothing."""
        _ = self._engine
        return self._unet

    @unet.setter
    def unet(self, unet: UNet) -> None:
        if uncompiled(unet) is not self.unet:
            raise ValueError(f"`unet` must be the pipeline's own; got {type(unet)}")

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name; the class takes them back: ``MarigoldDepthPipeline(**pipe.components)``."""
        return {
            "unet": self.unet,
            "vae": self.vae,
            "scheduler": self.scheduler,
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
        }

    @property
    def text_encoder(self) -> TextEncoder | None:
        """What it is; it was closed when the embedding of the empty prompt, the only one that is used, was computed.
        None of a packed file, which has the embedding in its place."""
        if is_packed(self.folder):
            return None
        return TextEncoder(self._configurations["text_encoder/config.json"], self.dtype)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What it is; None of a packed file."""
        path = self.folder / "tokenizer" / "tokenizer_config.json"
        return Tokenizer(read_config(path)) if path.is_file() else None

    @property
    def scheduler(self) -> Scheduler:
        """Settable: pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Scheduler) -> None:
        if not isinstance(scheduler, Scheduler):
            raise ValueError(f"`scheduler` must be one of {', '.join(SCHEDULERS)}; got {type(scheduler)}")
        self._scheduler = scheduler

    def enable_vae_tiling(self, tile_size: int = VAE_TILE) -> None:
        """Images larger than tile_size pixels go through the autoencoder in tiles: bounded memory, some more time.

        Tiles overlap by a quarter and are faded into each other, as diffusers' AutoencoderKL does. Each is normalised
        by itself, so that results are near to those of whole images, not the same.

        Args:
            tile_size: Of the sides of a tile; a multiple of 32 for a VAE of four levels.

        Raises:
            ValueError: tile_size is something else.
            RuntimeError: Another thread uses this pipeline.
        """
        self._tiling.set(self._engine, "on", tile_size)

    def disable_vae_tiling(self) -> None:
        """Images go through the autoencoder whole, whatever memory that takes."""
        self._tiling.set(self._engine, "off", VAE_TILE)

    def set_progress_bar_config(self, **options: Any) -> None:
        """Options of the progress bar (tqdm), for example disable=True."""
        self._progress_bar_config = options

    def set_progress_callback(self, callback: Callable[[int, int], object] | None) -> None:
        """`callback(done, total)` is called after each step (of a batch of samples), on the thread of the call; what it
        raises ends the call and comes out of it. None: no callback."""
        self._progress_callback = callback

    def cancel(self) -> bool:
        """Ends the call that is under way in another thread, after the operation at which it is (less than a second).

        That call raises KeyboardInterrupt; the pipeline stays usable. Returns whether there was one.
        """
        return self._handle is not None and self._handle.cancel()

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The pipeline on another device or in another dtype, for example to("cuda") or to("cuda:1", torch.float16).

        If that changes anything, the checkpoint is opened again: at once on a GPU, which must answer; on a CPU when the
        pipeline is used next. Weights are read when they are needed. DeviceError and ValueError as of from_pretrained;
        the pipeline is then as it was.
        """
        before = self._options
        self._options = {**before, **wanted_placement(args, kwargs)}
        if self._options == before:
            return self
        if self._options["device"] == "cpu" and self._options["dtype"] in DTYPES and not is_packed(self.folder):
            if self._handle is not None:
                self._handle = None
                del self._vae, self._unet  # which hold the memory of the device
            self.device, self.dtype = "cpu", computed_dtype(self._options["dtype"], "cpu")
            return self
        try:
            self._open(self._vae_folder)
        except BaseException:
            self._options = before
            raise
        return self

    @classmethod
    def from_pipe(cls, pipeline: OpenedPipeline, **kwargs: Any) -> Self:
        """A pipeline of this class on the checkpoint of another one, with its device, dtype, vae and scheduler.

        kwargs: vae, scheduler, and dtype or torch_dtype in their place. Weights that are mapped are shared. ValueError:
        `pipeline` is something else.
        """
        if not isinstance(pipeline, OpenedPipeline):
            raise ValueError(f"`pipeline` must be a Marigold pipeline of this package; got {type(pipeline)}")
        vae, scheduler = kwargs.pop("vae", None), kwargs.pop("scheduler", None)
        options = {
            **pipeline._options,
            "vae_tiling": (pipeline._tiling.choice, pipeline._tiling.size),
            **wanted_placement((), kwargs),
        }
        new = cls.__new__(cls)
        new._start(pipeline.folder, options, pipeline._vae_folder, pipeline.prediction_type)
        new.scheduler = scheduler or pipeline.scheduler
        if vae is not None:
            new.vae = vae
        return new

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        safe_serialization: bool = True,
        variant: str | None = None,
        text_encoder: str | PathLike[str] | None = None,
    ) -> None:
        """Writes the pipeline as a folder in diffusers' layout, with its scheduler and vae; each file whole or not at
        all.

        Args:
            save_directory: The folder; made where it is missing.
            safe_serialization: True; nothing else is written.
            variant: "fp16" writes weights under that name.
            text_encoder: Of a packed file, which lacks text encoder and tokenizer: a folder or hub id that has them.

        Weights of a folder have the type that they have there, whatever they are computed in. Those of a packed file
        are written in float32: the checkpoint's where it was packed in float32, else as they were rounded.

        Raises:
            ValueError: A packed file without `text_encoder`, or with another encoder than its own was; another
                argument that cannot be.
            OSError: A file cannot be written, or there is no such text encoder.
        """
        if not safe_serialization:
            raise ValueError("only safetensors are written: `safe_serialization=False` is not supported")
        text_folder = None
        if text_encoder is not None:
            text_folder = resolve_folder(text_encoder, without=("unet", "vae", *OPTIONAL_STEMS))
        sources = Sources(
            self.folder, self._options["variant"], self._vae_folder, self._options.get("unet"), text_folder
        )
        embedding = self.empty_text_embedding
        save_folder(sources, Path(save_directory), self._scheduler.config, variant, self._stated_kind(), embedding)

    def _stated_kind(self) -> dict[str, Any]:
        """What a folder must say of itself that its configurations do not tell."""
        if self.family == "marigold":
            return {}
        kind = {"family": self.family, "task": self.task, "prediction_type": self.prediction_type}
        return {key: value for key, value in kind.items() if value is not None}

    def memory_stats(self) -> dict[str, int]:
        """Bytes in use.

        Returns:
            "weights" (the sum of "weights_mapped" and "weights_packed", own copies), "activations", "workspace",
            "training", and the largest sum so far, "peak".
        """
        stats = self._engine.memory()
        return {"weights": stats["weights_mapped"] + stats["weights_packed"], **stats}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r}, device={self.device!r}, dtype={self.dtype!r})"

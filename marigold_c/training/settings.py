"""The settings of a training run, typed. Made by config.py; read by everything else in this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DataSetConfig:
    """One entry of `dataset`. resize: (height, width) that samples are resized to, or None. options: the entry as
    written, for the reader; source: where it stands, for messages."""

    name: str
    display_name: str
    folder: str
    filenames: Path | None
    resize: tuple[int, int] | None
    blur: bool
    options: Mapping[str, Any]
    source: str

    @property
    def task(self) -> str:
        """What its truth is for: names end in the task."""
        return self.name.rsplit("_", 1)[-1]


@dataclass(frozen=True)
class Augmentation:
    """Probabilities and ranges, as augmentations.py applies them; the default is none."""

    flip: float = 0.0
    crop: float = 0.0
    crop_smallest: float = 0.5  # of each side
    gaussian_blur: float = 0.0
    gaussian_blur_sigma: float = 4.0
    motion_blur: float = 0.0
    motion_blur_kernel: int = 11
    motion_blur_angles: float = 360.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    noise: float = 0.0
    noise_sigma: float = 0.05
    white_balance: float = 0.0
    white_balance_gain: float = 0.2
    vignetting: float = 0.0
    vignetting_strength: float = 0.5
    jpeg: float = 0.0
    jpeg_quality: int = 30

    @property
    def only_flips(self) -> bool:
        changes = (self.crop, self.gaussian_blur, self.motion_blur, self.jitter, self.noise)
        return not any((*changes, self.white_balance, self.vignetting, self.jpeg))


@dataclass(frozen=True)
class DepthRange:
    """How metres become [norm_min, norm_max]: by quantiles of the valid pixels."""

    quantile: float = 0.02
    low: float = -1.0
    high: float = 1.0
    clip: bool = True


@dataclass(frozen=True)
class Noise:
    """Multi-resolution noise; strength 0 and `multi_resolution` False: white."""

    multi_resolution: bool = False
    strength: float = 0.0
    annealed: bool = False


@dataclass(frozen=True)
class Loader:
    workers: int | None  # None: as many as have a processor to run on
    effective_batch: int
    batch: int
    seed: int | None
    on_bad_sample: str  # "error" or "skip"
    latent_cache: Path | None

    @property
    def accumulation(self) -> int:
        return self.effective_batch // self.batch


@dataclass(frozen=True)
class Optimizer:
    name: str  # "adam" or "adamw"
    learning_rate: float
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    max_gradient_norm: float | None


@dataclass(frozen=True)
class Schedule:
    """lr_scheduler; total_iter None: the rate stays as it is."""

    total_iter: int | None = None
    final_ratio: float = 1.0
    warmup_steps: int = 0


@dataclass(frozen=True)
class Reconstruction:
    """Objective "autoencoder": what the terms of the loss are multiplied by (Trainer.reconstruct)."""

    absolute: float = 1.0
    square: float = 0.0
    edges: float = 1.0
    divergence: float = 1e-4


@dataclass(frozen=True)
class Lcm:
    ema_decay: float = 0.95
    ddim_timesteps: int = 5


@dataclass(frozen=True)
class Periods:
    """In iterations; 0: never."""

    save: int
    backup: int
    validation: int
    visualization: int
    keep_backups: int | None


@dataclass(frozen=True)
class Validation:
    """How held-out samples are predicted and judged. main_metric None: there is no best checkpoint."""

    steps: int = 1
    ensemble_size: int = 1
    resolution: int = 0
    match_input_resolution: bool = False
    resample: str = "bilinear"
    main_metric: str | None = None
    goal: str | None = None
    seed: int | None = 2024
    use_mask: bool = False
    max_samples: int | None = None
    preset: str = "paper"
    metrics: tuple[str, ...] = ()
    alignment_max_resolution: int | None = None
    linear_targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingConfig:
    """A whole configuration. plain: as merged, for comparing and saving. last_step: the part of the samples whose time
    step is the last one."""

    file: Path
    plain: Mapping[str, Any]
    task: str
    objective: str
    base: str
    latent_scale: float | None
    class_name: str
    pipeline_options: Mapping[str, Any]
    train_sets: tuple[DataSetConfig, ...]
    probabilities: tuple[float, ...] | None
    validation_sets: tuple[DataSetConfig, ...]
    picture_sets: tuple[DataSetConfig, ...]
    augmentation: Augmentation
    depth_range: DepthRange
    noise: Noise
    masked: bool
    far_invalid: bool
    loader: Loader
    optimizer: Optimizer
    schedule: Schedule
    lcm: Lcm
    reconstruction: Reconstruction
    last_step: float
    starts_from_noise: bool
    periods: Periods
    validation: Validation
    seed: int | None
    max_epochs: int
    max_iterations: int
    dtype: str
    gradient_checkpointing: bool
    copy_base: bool

    @property
    def target_names(self) -> tuple[str, ...]:
        """The maps that an image has, in the order of the latents' channels."""
        if self.task != "iid":
            return (self.task,)
        return tuple(self.pipeline_options["target_properties"]["target_names"])

    @property
    def name(self) -> str:
        return self.file.stem

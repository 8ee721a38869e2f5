"""The sections of a training configuration: keys, types, defaults and bounds. settings.py puts them together;
docs/training.md explains the keys.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from ..configurations.models import Section, choice, entries, flag, integer, mapping, number, section, text
from ..datasets.config import DataSetKeys

OBJECTIVES = ("latent", "e2e", "lcm", "refine", "autoencoder")
# Pipelines of prs-eth and of diffusers: the task, and what model_index.json calls the class.
PIPELINES = {
    "MarigoldDepthPipeline": ("depth", "MarigoldDepthPipeline"),
    "MarigoldDepthHRPipeline": ("depth", "MarigoldDepthHRPipeline"),
    "MarigoldNormalsPipeline": ("normals", "MarigoldNormalsPipeline"),
    "MarigoldIIDPipeline": ("iid", "MarigoldIntrinsicsPipeline"),
    "MarigoldIntrinsicsPipeline": ("iid", "MarigoldIntrinsicsPipeline"),
}
# Trainers of prs-eth and two of ours: the task and the usual objective.
TRAINERS = {
    "MarigoldDepthTrainer": ("depth", "latent"),
    "MarigoldNormalsTrainer": ("normals", "latent"),
    "MarigoldIIDTrainer": ("iid", "latent"),
    "MarigoldLCMTrainer": ("depth", "lcm"),
    "MarigoldDepthLCMTrainer": ("depth", "lcm"),
    "MarigoldDepthHRTrainer": ("depth", "refine"),
    "MarigoldAutoencoderTrainer": ("depth", "autoencoder"),
}


class Augmentation(Section):
    """Probabilities and ranges, as augmentations.py applies them; the default is none."""

    flip: float = number("lr_flip_p", 0.0, 0, 1)
    crop: float = number("crop_p", 0.0, 0, 1)
    crop_smallest: float = number("crop_smallest", 0.5, 0.1, 1)  # of each side
    gaussian_blur: float = number("gaussian_blur_p", 0.0, 0, 1)
    gaussian_blur_sigma: float = number("gaussian_blur_sigma", 4.0, 0, 100, above=True)
    motion_blur: float = number("motion_blur_p", 0.0, 0, 1)
    motion_blur_kernel: int = integer("motion_blur_kernel_size", 11, 3, 101)
    motion_blur_angles: float = number("motion_blur_angle_range", 360.0, 0, 360)
    jitter: float = number("color_jitter_p", 0.0, 0, 1)
    brightness: float = number("jitter_brightness_factor", 0.0, 0, 1)
    contrast: float = number("jitter_contrast_factor", 0.0, 0, 1)
    saturation: float = number("jitter_saturation_factor", 0.0, 0, 1)
    hue: float = number("jitter_hue_factor", 0.0, 0, 0.5)
    noise: float = number("noise_p", 0.0, 0, 1)
    noise_sigma: float = number("noise_sigma", 0.05, 0, 1)
    white_balance: float = number("white_balance_p", 0.0, 0, 1)
    white_balance_gain: float = number("white_balance_gain", 0.2, 0, 0.9)
    vignetting: float = number("vignetting_p", 0.0, 0, 1)
    vignetting_strength: float = number("vignetting_strength", 0.5, 0, 1)
    jpeg: float = number("jpeg_p", 0.0, 0, 1)
    jpeg_quality: int = integer("jpeg_quality", 30, 1, 95)

    @property
    def only_flips(self) -> bool:
        changes = (self.crop, self.gaussian_blur, self.motion_blur, self.jitter, self.noise)
        return not any((*changes, self.white_balance, self.vignetting, self.jpeg))


class DepthRange(Section):
    """How metres become [norm_min, norm_max]: by quantiles of the valid pixels."""

    type: str = choice("type", ("scale_shift_depth",), "scale_shift_depth")
    quantile: float = number("min_max_quantile", 0.02, 0, 0.49)
    low: float = number("norm_min", -1.0)
    high: float = number("norm_max", 1.0)
    clip: bool = flag("clip", True)

    @field_validator("high")
    @classmethod
    def _above_low(cls, high: float, others: ValidationInfo) -> float:
        low = others.data.get("low", high - 1)
        if high <= low:
            raise ValueError(f"is {high:g}; expected more than norm_min {low:g}")
        return high


class Noise(Section):
    """Multi-resolution noise; strength 0: white."""

    strength: float = number("strength", 0.9, 0, 1)
    annealed: bool = flag("annealed", True)
    downscale_strategy: str = choice("downscale_strategy", ("original",), "original")


class Loader(Section):
    workers: int | None = integer("num_workers", None, 0, 256)  # None: as many as have a processor to run on
    batch: int = integer("max_train_batch_size", 2, 1, 2**16)
    effective_batch: int = integer("effective_batch_size", 32, 1, 2**20)
    seed: int | None = integer("seed", None, 0)
    on_bad_sample: str = choice("on_bad_sample", ("error", "skip"), "error")
    latent_cache: str | None = text("latent_cache", None)

    @field_validator("effective_batch")
    @classmethod
    def _of_whole_batches(cls, effective: int, others: ValidationInfo) -> int:
        batch = others.data.get("batch", 1)
        if effective % batch:
            raise ValueError(f"is {effective}, which is no multiple of max_train_batch_size {batch}")
        return effective

    @property
    def accumulation(self) -> int:
        return self.effective_batch // self.batch


_Beta = Annotated[float, Field(strict=True, ge=0, lt=1)]
_Side = Annotated[int, Field(strict=True, ge=8)]
_Weight = Annotated[float, Field(strict=True, ge=0)]


class OptimizerOptions(Section):
    betas: tuple[_Beta, _Beta] = entries("betas", "a list of 2 numbers from 0 to below 1", (0.9, 0.999))
    epsilon: float = number("eps", 1e-8, 0, above=True)
    weight_decay: float | None = number("weight_decay", None, 0)  # None: torch's default for the optimiser


class Optimizer(Section):
    name: str = choice("name", ("Adam", "AdamW"), "Adam")
    options: OptimizerOptions = section("kwargs", OptimizerOptions)
    max_gradient_norm: float | None = number("max_grad_norm", None, 0, above=True)  # None: as the objective has it


class Schedule(Section):
    """Of the learning rate: learning_rate.py."""

    total_iter: int = integer("total_iter", low=1, high=2**31)
    final_ratio: float = number("final_ratio", low=0, high=1, above=True)
    warmup_steps: int = integer("warmup_steps", 0, 0, 2**31)

    @field_validator("warmup_steps")
    @classmethod
    def _before_the_end(cls, steps: int, others: ValidationInfo) -> int:
        if steps >= others.data.get("total_iter", steps + 1):
            raise ValueError(f"is {steps}; expected less than total_iter")
        return steps


class LearningRateScheduler(Section):
    name: str = choice("name", ("IterExponential",))
    schedule: Schedule = section("kwargs", Schedule)


class LossOptions(Section):
    reduction: str = choice("reduction", ("mean",), "mean")


class Loss(Section):
    """The objective decides the loss; what prs-eth's files say about it is checked and has no other effect."""

    name: str = choice("name", ("mse_loss",), "mse_loss")
    options: LossOptions = section("kwargs", LossOptions)


class Reconstruction(Section):
    """Objective "autoencoder": what the terms of the loss are multiplied by (Trainer.reconstruct)."""

    absolute: float = number("absolute", 1.0, 0)
    square: float = number("square", 0.0, 0)
    edges: float = number("edges", 1.0, 0)
    divergence: float = number("divergence", 1e-4, 0)


class Refinement(Section):
    """Objective "refine": how coarse predictions are made, and what of them is learned from (coarse_inputs.py)."""

    upscale_factor: float = number(
        "upscale_factor", 2.0, 1, 64
    )  # the coarse prediction has this part of a sample's size
    base_steps: int | None = integer("base_denoising_steps", None, 1, 1000)  # None: the base checkpoint's
    crop: tuple[_Side, _Side] | None = entries("crop_hw", "a list of 2 integers, height and width of at least 8", None)
    agreement: float = number("agreement", 0.1, 0, 2, above=True)  # of depth in [-1, 1]


class Scheduler(Section):
    """Has no effect: the schedule is the base checkpoint's, as in prs-eth's own code."""

    pretrained_path: Any = None


class TrainerSection(Section):
    """`trainer`. Periods: in iterations; 0: never. last_step: the part of the samples whose time step is the last."""

    name: str | None = choice("name", tuple(TRAINERS), None)
    objective: str | None = choice("objective", OBJECTIVES, None)  # None: as the name has it
    seed: int | None = integer("init_seed", None, 0)
    save: int = integer("save_period", 50, 0)
    backup: int = integer("backup_period", 2000, 0)
    validation: int = integer("validation_period", 500, 0)
    visualization: int = integer("visualization_period", 1000, 0)
    keep_backups: int | None = integer("keep_backups", None, 1)
    ema_decay: float = number("ema_decay", 0.95, 0, 1)
    ddim_timesteps: int = integer("num_ddim_timesteps", 5, 1, 1000)
    reconstruction: Reconstruction = section("reconstruction", Reconstruction)
    refinement: Refinement = section("refinement", Refinement)
    last_step: float = number("last_step_p", 0.0, 0, 1)
    start_latent: str = choice("start_latent", ("zeros", "noise"), "zeros")
    pixel_loss: str = choice("pixel_loss", ("task", "absolute", "sink"), "task")
    dtype: str = choice("dtype", ("float32", "bfloat16"), "float32")
    gradient_checkpointing: bool = flag("gradient_checkpointing", False)
    base_components: str = choice("base_components", ("link", "copy"), "link")
    save_target: bool = flag("save_target", False)
    training_noise_scheduler: Scheduler = section("training_noise_scheduler", Scheduler)


class Model(Section):
    base: str = text("pretrained_path")
    latent_scale: float | None = number("latent_scale_factor", None, 0, above=True)
    name: Any = None


class PipelineOptions(Section):
    """What model_index.json will say; the invariances are of depth, target_properties of intrinsic images."""

    default_denoising_steps: int = integer("default_denoising_steps", 4, 1, 1000)
    default_processing_resolution: int = integer("default_processing_resolution", 768, 0)
    scale_invariant: bool | None = flag("scale_invariant", None)
    shift_invariant: bool | None = flag("shift_invariant", None)
    target_properties: dict[str, Any] | None = mapping("target_properties")


class Pipeline(Section):
    name: str | None = choice("name", tuple(PIPELINES), None)
    options: PipelineOptions = section("kwargs", PipelineOptions)


class TargetProperties(Section):
    """What the values of a target are."""

    prediction_space: str = choice("prediction_space", ("srgb", "linear", "stack"))
    up_to_scale: bool = flag("up_to_scale", False)
    sub_target_names: tuple[str | None, str | None, str | None] | None = entries(
        "sub_target_names", "three names, or null for an unused channel", None
    )


class DataSetEntry(DataSetKeys):
    """An entry of `dataset`. resize: (height, width) that samples are resized to."""

    resize: tuple[_Side, _Side] | None = entries(
        "resize_to_hw", "a list of 2 integers, height and width of at least 8", None
    )
    blur: bool | None = flag("blur", None)
    center_crop: Any = None


class MixedData(Section):
    """`dataset.train` of several sets: a batch's samples are of one, which is drawn by its probability."""

    name: str = choice("name", ("mixed",), "mixed")
    sets: tuple[DataSetEntry, ...] = Field(
        alias="dataset_list", min_length=1, description="a list of at least one data set"
    )
    probabilities: tuple[_Weight, ...] | None = entries("prob_ls", "a list of numbers of at least 0", None)


class DataSets(Section):
    train: Any = mapping("train", ...)  # a DataSetEntry or MixedData
    val: tuple[DataSetEntry, ...] = entries("val", "a list of data sets", ())
    vis: tuple[DataSetEntry, ...] = entries("vis", "a list of data sets", ())


class EvaluationSection(Section):
    alignment: str | None = choice("alignment", ("least_square",), None)  # of depth
    metrics: tuple[str, ...] = entries("eval_metrics", "a list of texts", ())
    alignment_max_resolution: int | None = integer("align_max_res", None, 1, 2**16)
    linear_targets: tuple[str, ...] | None = entries("targets_to_eval_in_linear_space", "a list of texts", None)


class Validation(Section):
    """How held-out samples are predicted and judged. main_metric None: there is no best checkpoint."""

    steps: int = integer("denoising_steps", 1, 1, 1000)
    ensemble_size: int = integer("ensemble_size", 1, 1, 1000)
    resolution: int = integer("processing_res", 0, 0, 2**16)
    match_input_resolution: bool = flag("match_input_res", True)
    resample: str = choice("resample_method", ("bilinear", "bicubic", "nearest"), "bilinear")
    main_metric: str | None = text("main_val_metric", None)
    goal: str | None = choice("main_val_metric_goal", ("minimize", "maximize"), None)
    seed: int | None = integer("init_seed", None, 0)
    use_mask: bool = flag("use_mask", False)
    max_samples: int | None = integer("max_samples", None, 1)
    preset: str = choice("preset", ("paper", "diffusers"), "paper")

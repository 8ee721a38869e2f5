"""What a training run is told: the keys of prs-eth/Marigold's training configurations and a few of our own, checked.

Called by commands/train.py (load_config). Every unknown key and every value that does not fit is a ConfigError that
names file, line, key and value. docs/training.md explains each key; this file is the list of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..evaluation.metrics import DEPTH_METRICS, INTRINSICS_METRICS, NORMALS_METRICS
from .settings import (
    Augmentation,
    DataSetConfig,
    DepthRange,
    Lcm,
    Loader,
    Noise,
    Optimizer,
    Periods,
    Reconstruction,
    Schedule,
    TrainingConfig,
    Validation,
)
from .yaml_tree import Section, Value, find_beside, load_tree, plain

TASKS = ("depth", "normals", "iid")
_METRICS = {"depth": DEPTH_METRICS, "normals": NORMALS_METRICS, "iid": INTRINSICS_METRICS}
OBJECTIVES = ("latent", "e2e", "lcm", "autoencoder")
_RECONSTRUCTION_METRICS = ("psnr",)
# Pipelines of prs-eth and of diffusers: the task, and what model_index.json calls the class.
_PIPELINES = {
    "MarigoldDepthPipeline": ("depth", "MarigoldDepthPipeline"),
    "MarigoldNormalsPipeline": ("normals", "MarigoldNormalsPipeline"),
    "MarigoldIIDPipeline": ("iid", "MarigoldIntrinsicsPipeline"),
    "MarigoldIntrinsicsPipeline": ("iid", "MarigoldIntrinsicsPipeline"),
}
_TRAINERS = {
    "MarigoldDepthTrainer": ("depth", "latent"),
    "MarigoldNormalsTrainer": ("normals", "latent"),
    "MarigoldIIDTrainer": ("iid", "latent"),
    "MarigoldLCMTrainer": ("depth", "lcm"),
    "MarigoldDepthLCMTrainer": ("depth", "lcm"),
    "MarigoldAutoencoderTrainer": ("depth", "autoencoder"),
}
# Names of data sets end in the task; these are read for training, any evaluation set besides for validation.
TRAINING_SETS = (
    *("hypersim_depth", "vkitti_depth", "folder_depth"),
    *("hypersim_normals", "interiorverse_normals", "sintel_normals", "folder_normals"),
    *("hypersim_iid", "interiorverse_iid", "folder_iid"),
)
# prs-eth blurs images of Hypersim only: those of the others are no photographs of a sharp lens to begin with.
_NOT_BLURRED = ("interiorverse_normals", "sintel_normals")


def _optional(value: str | None) -> str | None:
    """OmegaConf's users write None for null."""
    return None if value in (None, "None", "null") else value


def _data_set(section: Section, task: str | None, for_training: bool) -> DataSetConfig:
    """task None: a set for any will do."""
    with section:
        name = section.text("name")
        if task is None:
            task = section.text("name", choices=TRAINING_SETS).rsplit("_", 1)[-1]
        if not name.endswith(f"_{task}"):
            raise section.fail("name", f"is {name!r}, which is no data set for {task}: its name would end in _{task}")
        if for_training and name not in TRAINING_SETS:
            known = [one for one in TRAINING_SETS if one.endswith(f"_{task}")]
            raise section.fail("name", f"is {name!r}, which is not for training; those for {task}: {', '.join(known)}")
        listed = _optional(section.text("filenames", None))
        filenames = find_beside(listed, section.value.file) if listed else None
        if listed and filenames is None:
            raise section.fail("filenames", f"no file {listed} beside {section.value.file} or in a folder above it")
        if filenames is None and not name.startswith("folder_"):
            raise section.fail("filenames", "is missing; expected the list of samples")
        size = section.items("resize_to_hw", int, None, length=2)
        if size is not None and min(size) < 8:
            raise section.fail("resize_to_hw", f"is {list(size)}; expected height and width of at least 8")
        section.text("disp_name", None)
        section.text("dir")
        # What else there is to say of a data set, marigold_c.datasets checks when it is opened.
        section.ignore("center_crop", "kitti_bm_crop", "eigen_valid_mask", "valid_mask_crop")
        if name.startswith("folder_"):
            section.ignore("images", "truth", "mask", "min_depth", "max_depth", "units_per_metre")
        blur = section.flag("blur", name not in _NOT_BLURRED)
    options = {key: value for key, value in plain(section.value).items() if key not in ("blur", "resize_to_hw")}
    options.setdefault("disp_name", name)
    if filenames is not None:
        options["filenames"] = str(filenames)
    source = f"{section.value.file}, line {section.value.line}: {section.name}"
    return DataSetConfig(
        name,
        options["disp_name"],
        options["dir"],
        filenames,
        size,
        blur,
        MappingProxyType(options),
        source,
    )


def _read_data(root: Section, task: str | None) -> dict[str, Any]:
    with root.section("dataset") as section:
        training = section.section("train")
        if not section.has("train"):
            raise section.fail("train", "is missing; expected what to train on")
        probabilities = None
        if training.has("dataset_list") or training.text("name") == "mixed":
            with training:
                training.text("name", "mixed", choices=("mixed",))
                entries = [_data_set(one, task, True) for one in training.sections("dataset_list")]
                probabilities = training.items("prob_ls", float, None)
                if not entries:
                    raise training.fail("dataset_list", "is empty")
                if probabilities is not None and (
                    len(probabilities) != len(entries) or min(probabilities) < 0 or sum(probabilities) <= 0
                ):
                    raise training.fail(
                        "prob_ls", f"is {list(probabilities)}; expected one probability for each of {len(entries)} sets"
                    )
        else:
            entries = [_data_set(training, task, True)]
        held_out = [_data_set(one, task, False) for one in section.sections("val")]
        pictures = [_data_set(one, task, False) for one in section.sections("vis")]
    return {
        "train_sets": tuple(entries),
        "probabilities": probabilities,
        "validation_sets": tuple(held_out),
        "picture_sets": tuple(pictures),
    }


def _read_target_properties(section: Section) -> dict[str, Any]:
    """target_properties of intrinsic images: names of the targets, and for each what its values are."""
    names = section.items("target_names", str)
    if not names or len(set(names)) != len(names):
        raise section.fail("target_names", f"is {list(names)}; expected different names")
    pending = list(names)
    with section:
        for name in pending:
            with section.section(name) as target:
                if not section.has(name):
                    raise section.fail(name, "is missing; expected what the target's values are")
                kind = target.text("prediction_space", choices=("srgb", "linear", "stack"))
                target.flag("up_to_scale", False)
                if kind == "stack":
                    parts = target.raw("sub_target_names").content
                    if not isinstance(parts, list) or len(parts) != 3:
                        raise target.fail("sub_target_names", "expected three names, or null for an unused channel")
                    pending += [part.content for part in parts if part.content is not None]
    properties: dict[str, Any] = plain(section.value)
    return properties


def _read_pipeline(root: Section, task: str) -> tuple[str, dict[str, Any]]:
    with root.section("pipeline") as section:
        name = section.text("name", next(one for one, (known, _) in _PIPELINES.items() if known == task))
        options: dict[str, Any] = {}
        with section.section("kwargs") as given:
            options["default_denoising_steps"] = given.integer("default_denoising_steps", 4, low=1, high=1000)
            options["default_processing_resolution"] = given.integer("default_processing_resolution", 768, low=0)
            if task == "depth":
                options["scale_invariant"] = given.flag("scale_invariant", True)
                options["shift_invariant"] = given.flag("shift_invariant", True)
            if task == "iid":
                if not given.has("target_properties"):
                    raise given.fail("target_properties", "is missing; expected the targets and what they are")
                options["target_properties"] = _read_target_properties(given.section("target_properties"))
    return _PIPELINES[name][1], options


def _read_augmentation(root: Section) -> Augmentation:
    with root.section("augmentation") as section:
        kernel = section.integer("motion_blur_kernel_size", 11, low=3, high=101)
        return Augmentation(
            flip=section.number("lr_flip_p", 0.0, 0, 1),
            crop=section.number("crop_p", 0.0, 0, 1),
            crop_smallest=section.number("crop_smallest", 0.5, 0.1, 1),
            gaussian_blur=section.number("gaussian_blur_p", 0.0, 0, 1),
            gaussian_blur_sigma=section.number("gaussian_blur_sigma", 4.0, 0, 100, above=True),
            motion_blur=section.number("motion_blur_p", 0.0, 0, 1),
            motion_blur_kernel=kernel,
            motion_blur_angles=section.number("motion_blur_angle_range", 360.0, 0, 360),
            jitter=section.number("color_jitter_p", 0.0, 0, 1),
            brightness=section.number("jitter_brightness_factor", 0.0, 0, 1),
            contrast=section.number("jitter_contrast_factor", 0.0, 0, 1),
            saturation=section.number("jitter_saturation_factor", 0.0, 0, 1),
            hue=section.number("jitter_hue_factor", 0.0, 0, 0.5),
            noise=section.number("noise_p", 0.0, 0, 1),
            noise_sigma=section.number("noise_sigma", 0.05, 0, 1),
            white_balance=section.number("white_balance_p", 0.0, 0, 1),
            white_balance_gain=section.number("white_balance_gain", 0.2, 0, 0.9),
            vignetting=section.number("vignetting_p", 0.0, 0, 1),
            vignetting_strength=section.number("vignetting_strength", 0.5, 0, 1),
            jpeg=section.number("jpeg_p", 0.0, 0, 1),
            jpeg_quality=section.integer("jpeg_quality", 30, low=1, high=95),
        )


def _read_depth_range(root: Section) -> DepthRange:
    with root.section("depth_normalization") as section:
        section.text("type", "scale_shift_depth", choices=("scale_shift_depth",))
        depth_range = DepthRange(
            quantile=section.number("min_max_quantile", 0.02, 0, 0.49),
            low=section.number("norm_min", -1.0),
            high=section.number("norm_max", 1.0),
            clip=section.flag("clip", True),
        )
        if depth_range.low >= depth_range.high:
            raise section.fail("norm_max", f"is {depth_range.high:g}; expected more than norm_min {depth_range.low:g}")
        return depth_range


def _read_noise(root: Section, objective: str) -> Noise:
    """Of the paper's objective; end-to-end fine-tuning has none, and distillation white noise, as in prs-eth's code."""
    if not root.has("multi_res_noise"):
        return Noise()
    with root.section("multi_res_noise") as section:
        section.text("downscale_strategy", "original", choices=("original",))
        noise = Noise(True, section.number("strength", 0.9, 0, 1), section.flag("annealed", True))
    return noise if objective == "latent" else Noise()


def _read_loader(root: Section, augmentation: Augmentation, objective: str) -> Loader:
    with root.section("dataloader") as section:
        loader = Loader(
            workers=section.integer("num_workers", None, low=0, high=256),
            effective_batch=section.integer("effective_batch_size", 32, low=1, high=2**20),
            batch=section.integer("max_train_batch_size", 2, low=1, high=2**16),
            seed=section.integer("seed", None, low=0),
            on_bad_sample=section.text("on_bad_sample", "error", choices=("error", "skip")),
            latent_cache=_path_or_none(section.text("latent_cache", None)),
        )
        if loader.effective_batch % loader.batch:
            raise section.fail(
                "effective_batch_size",
                f"is {loader.effective_batch}, which is no multiple of max_train_batch_size {loader.batch}",
            )
        if loader.latent_cache and not augmentation.only_flips:
            raise section.fail(
                "latent_cache",
                "cannot be used with crops, blur, jitter or noise: their images are different each time",
            )
        if loader.latent_cache and objective in ("e2e", "autoencoder"):
            raise section.fail("latent_cache", f"cannot be used with objective {objective}: its loss needs the pixels")
        return loader


def _path_or_none(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None


def _read_optimizer(root: Section, objective: str) -> Optimizer:
    with root.section("optimizer") as section:
        name = section.text("name", "Adam", choices=("Adam", "AdamW"))
        with section.section("kwargs") as options:
            betas = options.items("betas", float, (0.9, 0.999), length=2)
            if not all(0 <= beta < 1 for beta in betas):
                raise options.fail("betas", f"is {list(betas)}; expected numbers from 0 to below 1")
            epsilon = options.number("eps", 1e-8, 0, above=True)
            decay = options.number("weight_decay", 0.0 if name == "Adam" else 0.01, 0)
            if name == "Adam" and decay:
                raise options.fail("weight_decay", f"is {decay:g}; expected 0 for Adam, or the name AdamW")
        norm = section.number("max_grad_norm", None if objective == "latent" else 1.0, 0, above=True)
    return Optimizer(name.lower(), root.number("lr", low=0, above=True), betas, epsilon, decay, norm)


def _read_schedule(root: Section) -> Schedule:
    if not root.has("lr_scheduler"):
        return Schedule()
    with root.section("lr_scheduler") as section:
        section.text("name", choices=("IterExponential",))
        with section.section("kwargs") as given:
            schedule = Schedule(
                given.integer("total_iter", low=1, high=2**31),
                given.number("final_ratio", low=0, high=1, above=True),
                given.integer("warmup_steps", 0, low=0, high=2**31),
            )
            if schedule.total_iter is not None and schedule.warmup_steps >= schedule.total_iter:
                raise given.fail("warmup_steps", f"is {schedule.warmup_steps}; expected less than total_iter")
            return schedule


def _read_loss(root: Section) -> None:
    """The objective decides the loss; what prs-eth's files say about it is checked and has no other effect."""
    with root.section("loss") as section:
        section.text("name", "mse_loss", choices=("mse_loss",))
        with section.section("kwargs") as options:
            options.text("reduction", "mean", choices=("mean",))


def _read_validation(root: Section, task: str, known: tuple[str, ...]) -> Validation:
    with root.section("eval") as section:
        if task == "depth":
            section.text("alignment", "least_square", choices=("least_square",))
        metrics = section.items("eval_metrics", str, ())
        max_resolution = section.integer("align_max_res", None, low=1, high=2**16)
        linear = section.items("targets_to_eval_in_linear_space", str, ()) if task == "iid" else ()
    with root.section("validation") as section:
        main = section.text("main_val_metric", None)
        if main is not None and metrics and main not in metrics:
            raise section.fail("main_val_metric", f"is {main!r}, which eval.eval_metrics does not list")
        if main is not None and main not in known:
            raise section.fail("main_val_metric", f"is {main!r}; the metrics are {', '.join(known)}")
        return Validation(
            steps=section.integer("denoising_steps", 1, low=1, high=1000),
            ensemble_size=section.integer("ensemble_size", 1, low=1, high=1000),
            resolution=section.integer("processing_res", 0, low=0, high=2**16),
            match_input_resolution=section.flag("match_input_res", True),
            resample=section.text("resample_method", "bilinear", choices=("bilinear", "bicubic", "nearest")),
            main_metric=main,
            goal=section.text("main_val_metric_goal", None, choices=("minimize", "maximize")),
            seed=section.integer("init_seed", None, low=0),
            use_mask=section.flag("use_mask", False),
            max_samples=section.integer("max_samples", None, low=1),
            preset=section.text("preset", "paper", choices=("paper", "diffusers")),
            metrics=metrics,
            alignment_max_resolution=max_resolution,
            linear_targets=tuple(name for name in linear if _optional(name)),
        )


@dataclass(frozen=True)
class _Trainer:
    """The section `trainer`, and the task that it or the pipeline names."""

    task: str
    objective: str
    seed: int | None
    periods: Periods
    lcm: Lcm
    reconstruction: Reconstruction
    last_step: float
    starts_from_noise: bool
    dtype: str
    gradient_checkpointing: bool
    copy_base: bool


def _task_of(root: Section) -> tuple[str, str]:
    """The task and the usual objective, from the names of trainer and pipeline."""
    trainer, pipeline = root.section("trainer"), root.section("pipeline")
    by_trainer = _TRAINERS.get(trainer.text("name", None, choices=tuple(_TRAINERS)) or "")
    by_pipeline = _PIPELINES.get(pipeline.text("name", None, choices=tuple(_PIPELINES)) or "")
    if by_trainer is None and by_pipeline is None:
        raise root.fail("trainer", f"has no name, nor has pipeline; expected one of {', '.join(_TRAINERS)}")
    if by_trainer and by_pipeline and by_trainer[0] != by_pipeline[0]:
        raise pipeline.fail("name", f"is for {by_pipeline[0]}, but trainer.name is for {by_trainer[0]}")
    return (by_trainer or by_pipeline or ("", ""))[0], by_trainer[1] if by_trainer else "latent"


def _read_reconstruction(trainer: Section) -> Reconstruction:
    usual = Reconstruction()
    with trainer.section("reconstruction") as section:
        return Reconstruction(
            absolute=section.number("absolute", usual.absolute, 0),
            square=section.number("square", usual.square, 0),
            edges=section.number("edges", usual.edges, 0),
            divergence=section.number("divergence", usual.divergence, 0),
        )


def _read_trainer(root: Section) -> _Trainer:
    task, usual_objective = _task_of(root)
    with root.section("trainer") as section:
        section.text("name", None)
        with section.section("training_noise_scheduler") as scheduler:
            scheduler.ignore("pretrained_path")  # it is the base checkpoint's, as in prs-eth's own code
        section.flag("save_target", False)
        return _Trainer(
            task=task,
            objective=section.text("objective", usual_objective, choices=OBJECTIVES),
            seed=section.integer("init_seed", None, low=0),
            periods=Periods(
                save=section.integer("save_period", 50, low=0),
                backup=section.integer("backup_period", 2000, low=0),
                validation=section.integer("validation_period", 500, low=0),
                visualization=section.integer("visualization_period", 1000, low=0),
                keep_backups=section.integer("keep_backups", None, low=1),
            ),
            lcm=Lcm(
                section.number("ema_decay", 0.95, 0, 1), section.integer("num_ddim_timesteps", 5, low=1, high=1000)
            ),
            reconstruction=_read_reconstruction(section),
            last_step=section.number("last_step_p", 0.0, 0, 1),
            starts_from_noise=section.text("start_latent", "zeros", choices=("zeros", "noise")) == "noise",
            dtype=section.text("dtype", "float32", choices=("float32", "bfloat16")),
            gradient_checkpointing=section.flag("gradient_checkpointing", False),
            copy_base=section.text("base_components", "link", choices=("link", "copy")) == "copy",
        )


def _read_ground_truth(root: Section, task: str) -> dict[str, Any]:
    """Which variant of the target is trained on, and whether invalid pixels stay out of the loss."""
    mask = root.text(
        "gt_mask_type", None, choices={"depth": ("valid_mask_raw",), "iid": ("mask",)}.get(task, ("mask",))
    )
    far = False
    if task == "depth":
        far = root.text("gt_depth_type", "depth_raw_norm", choices=("depth_raw_norm", "depth_filled_norm")).startswith(
            "depth_filled"
        )
    if task == "normals":
        root.text("gt_normals_type", "normals", choices=("normals",))
    return {"masked": mask is not None, "far_invalid": far}


def read_config(tree: Value) -> TrainingConfig:
    """The configuration in a merged tree of load_tree. ConfigError names what does not fit."""
    with Section(tree) as root:
        trainer = _read_trainer(root)
        task = trainer.task
        class_name, pipeline_options = _read_pipeline(root, task)
        with root.section("model") as model:
            model.ignore("name")
            base = model.text("pretrained_path")
            latent_scale = model.number("latent_scale_factor", None, 0, above=True)
        augmentation = _read_augmentation(root)
        _read_loss(root)
        root.ignore("logging", "wandb")  # prs-eth's: messages go to the terminal, curves to TensorBoard and CSV
        return TrainingConfig(
            file=tree.file,
            plain=MappingProxyType(plain(tree)),
            task=task,
            objective=trainer.objective,
            base=base,
            latent_scale=latent_scale,
            class_name=class_name,
            pipeline_options=MappingProxyType(pipeline_options),
            **_read_data(root, None if trainer.objective == "autoencoder" else task),
            augmentation=augmentation,
            depth_range=_read_depth_range(root) if task == "depth" else DepthRange(),
            noise=_read_noise(root, trainer.objective),
            **_read_ground_truth(root, task),
            loader=_read_loader(root, augmentation, trainer.objective),
            optimizer=_read_optimizer(root, trainer.objective),
            schedule=_read_schedule(root),
            lcm=trainer.lcm,
            reconstruction=trainer.reconstruction,
            last_step=trainer.last_step,
            starts_from_noise=trainer.starts_from_noise,
            periods=trainer.periods,
            validation=_read_validation(
                root, task, _RECONSTRUCTION_METRICS if trainer.objective == "autoencoder" else _METRICS[task]
            ),
            seed=trainer.seed,
            max_epochs=root.integer("max_epoch", 10000, low=1),
            max_iterations=root.integer("max_iter", low=1, high=2**31),
            dtype=trainer.dtype,
            gradient_checkpointing=trainer.gradient_checkpointing,
            copy_base=trainer.copy_base,
        )


def load_config(file: str | Path) -> TrainingConfig:
    """The configuration in a YAML file with its base files."""
    return read_config(load_tree(Path(file)))

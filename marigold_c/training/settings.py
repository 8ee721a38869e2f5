"""The settings of a training run, typed: a whole configuration, and what follows from it. Made by config.py; read by
everything else in this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..configurations.models import Section, choice, integer, number, section
from .sections import (
    Augmentation,
    DataSets,
    DepthRange,
    EvaluationSection,
    LearningRateScheduler,
    Loader,
    Loss,
    Model,
    Noise,
    Optimizer,
    Pipeline,
    TrainerSection,
    Validation,
)


class Configuration(Section):
    """A whole file."""

    trainer: TrainerSection = section("trainer", TrainerSection)
    pipeline: Pipeline = section("pipeline", Pipeline)
    model: Model = section("model", Model)
    dataset: DataSets = section("dataset", DataSets)
    depth_range: DepthRange = section("depth_normalization", DepthRange)
    gt_depth_type: str | None = choice("gt_depth_type", ("depth_raw_norm", "depth_filled_norm"), None)
    gt_normals_type: str | None = choice("gt_normals_type", ("normals",), None)
    gt_mask_type: str | None = choice("gt_mask_type", ("valid_mask_raw", "mask"), None)
    augmentation: Augmentation = section("augmentation", Augmentation)
    noise: Noise | None = section("multi_res_noise")
    loader: Loader = section("dataloader", Loader)
    optimizer: Optimizer = section("optimizer", Optimizer)
    learning_rate: float = number("lr", low=0, above=True)
    lr_scheduler: LearningRateScheduler | None = section("lr_scheduler")
    loss: Loss = section("loss", Loss)
    max_iterations: int = integer("max_iter", low=1, high=2**31)
    max_epochs: int = integer("max_epoch", 10000, 1)
    validation: Validation = section("validation", Validation)
    evaluation: EvaluationSection = section("eval", EvaluationSection)
    # prs-eth's: messages go to the terminal, curves to TensorBoard and CSV.
    logging: Any = None
    wandb: Any = None


@dataclass(frozen=True)
class DataSetConfig:
    """One entry of `dataset`. resize: (height, width) that samples are resized to, or None. options: the entry as
    written, for the reader."""

    name: str
    display_name: str
    folder: str
    filenames: Path | None
    resize: tuple[int, int] | None
    blur: bool
    options: Mapping[str, Any]

    @property
    def task(self) -> str:
        """What its truth is for: names end in the task."""
        return self.name.rsplit("_", 1)[-1]


class TrainingConfig(Configuration):
    """A file with its base files, and what follows from it. plain: as merged, for comparing and saving.
    pipeline_options: what model_index.json will say."""

    file: Path
    plain: Mapping[str, Any]
    task: str
    objective: str
    class_name: str
    pipeline_options: Mapping[str, Any]
    train_sets: tuple[DataSetConfig, ...]
    probabilities: tuple[float, ...] | None
    validation_sets: tuple[DataSetConfig, ...]
    picture_sets: tuple[DataSetConfig, ...]

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def target_names(self) -> tuple[str, ...]:
        """The maps that an image has, in the order of the latents' channels."""
        if self.task != "iid":
            return (self.task,)
        return tuple(self.pipeline_options["target_properties"]["target_names"])

    @property
    def masked(self) -> bool:
        """Whether invalid pixels stay out of the loss."""
        return self.gt_mask_type is not None

    @property
    def needs_valid_cells(self) -> bool:
        """Whether a sample without a latent cell of valid pixels only is of no use."""
        return self.masked or self.objective == "refine"

    @property
    def far_invalid(self) -> bool:
        """Whether pixels without a depth are taken for the farthest."""
        return self.gt_depth_type == "depth_filled_norm"

    @property
    def starts_from_noise(self) -> bool:
        return self.trainer.start_latent == "noise"

    @property
    def latent_noise(self) -> Noise | None:
        """Of the objectives on latents; distillation has white noise, as in prs-eth's code, and the others none."""
        return self.noise if self.objective in ("latent", "refine") else None

    @property
    def max_gradient_norm(self) -> float | None:
        given = self.optimizer.max_gradient_norm
        return 1.0 if given is None and self.objective != "latent" else given

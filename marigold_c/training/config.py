"""What a training run is told: the keys of prs-eth/Marigold's training configurations and a few of our own, checked.

Called by commands/train.py (load_config). sections.py lists the keys with types and bounds; here is what keys mean for
each other. Every unknown key and every value that does not fit is a ConfigError: file, line, key and value.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..configurations.models import checked
from ..configurations.yaml_tree import Value, find_beside, load_tree, plain
from ..datasets.config import FOLDER_KEYS
from ..evaluation.metrics import DEPTH_METRICS, INTRINSICS_METRICS, NORMALS_METRICS
from .sections import PIPELINES, TRAINERS, DataSetEntry, MixedData, TargetProperties
from .settings import Configuration, DataSetConfig, TrainingConfig
from .targets import LATENT_BLOCK

REFINING_PIPELINE = "MarigoldDepthHRPipeline"
_METRICS = {"depth": DEPTH_METRICS, "normals": NORMALS_METRICS, "iid": INTRINSICS_METRICS}
_RECONSTRUCTION_METRICS = ("psnr",)
# Names of data sets end in the task; these are read for training, any evaluation set besides for validation.
TRAINING_SETS = (
    *("hypersim_depth", "vkitti_depth", "folder_depth"),
    *("hypersim_normals", "interiorverse_normals", "sintel_normals", "folder_normals"),
    *("hypersim_iid", "interiorverse_iid", "folder_iid"),
)
# prs-eth blurs images of Hypersim only: those of the others are no photographs of a sharp lens to begin with.
_NOT_BLURRED = ("interiorverse_normals", "sintel_normals")
# Keys that only one task has, and what the masks of the ground truth are called.
_ONLY_FOR = {
    "depth_normalization": "depth",
    "gt_depth_type": "depth",
    "eval.alignment": "depth",
    "pipeline.kwargs.scale_invariant": "depth",
    "pipeline.kwargs.shift_invariant": "depth",
    "gt_normals_type": "normals",
    "pipeline.kwargs.target_properties": "iid",
    "eval.targets_to_eval_in_linear_space": "iid",
}
_MASKS = {"depth": "valid_mask_raw", "normals": "mask", "iid": "mask"}


def _optional(value: str | None) -> str | None:
    """OmegaConf's users write None for null."""
    return None if value in (None, "None", "null") else value


def _data_set(tree: Value, path: str, entry: DataSetEntry, task: str | None, for_training: bool) -> DataSetConfig:
    """task None: a set for any will do."""
    name = entry.name
    if task is None:
        if name not in TRAINING_SETS:
            raise tree.refuse(f"{path}.name", f"is {name!r}; expected one of {', '.join(TRAINING_SETS)}")
        task = name.rsplit("_", 1)[-1]
    if not name.endswith(f"_{task}"):
        reason = f"is {name!r}, which is no data set for {task}: its name would end in _{task}"
        raise tree.refuse(f"{path}.name", reason)
    if for_training and name not in TRAINING_SETS:
        known = ", ".join(one for one in TRAINING_SETS if one.endswith(f"_{task}"))
        raise tree.refuse(f"{path}.name", f"is {name!r}, which is not for training; those for {task}: {known}")
    place, listed = tree.find(path), _optional(entry.filenames)
    filenames = find_beside(listed, place.file) if listed else None
    if listed and filenames is None:
        raise tree.refuse(f"{path}.filenames", f"no file {listed} beside {place.file} or in a folder above it")
    of_folders = name.startswith("folder_")
    if filenames is None and not of_folders:
        raise tree.refuse(f"{path}.filenames", "is missing; expected the list of samples")
    for key in FOLDER_KEYS:
        if not of_folders and getattr(entry, key) is not None:
            raise tree.refuse(f"{path}.{key}", f"is for own data, folder_{task}; {name} has none")
    options = {key: value for key, value in plain(place).items() if key not in ("blur", "resize_to_hw")}
    options.setdefault("disp_name", name)
    if filenames is not None:
        options["filenames"] = str(filenames)
    return DataSetConfig(
        name,
        options["disp_name"],
        entry.dir,
        filenames,
        entry.resize,
        name not in _NOT_BLURRED if entry.blur is None else entry.blur,
        MappingProxyType(options),
    )


def _data_sets(tree: Value, keys: Configuration, task: str | None) -> dict[str, Any]:
    given, path, probabilities = keys.dataset.train, "dataset.train", None
    if "dataset_list" in given or given.get("name") == "mixed":
        mixed = checked(MixedData, tree, path)
        count, probabilities = len(mixed.sets), mixed.probabilities
        if probabilities is not None and (len(probabilities) != count or not sum(probabilities)):
            reason = f"is {list(probabilities)}; expected one probability for each of {count} sets"
            raise tree.refuse(f"{path}.prob_ls", reason)
        entries = {f"{path}.dataset_list[{index}]": entry for index, entry in enumerate(mixed.sets)}
    else:
        entries = {path: checked(DataSetEntry, tree, path)}
    held_out = {f"dataset.val[{index}]": entry for index, entry in enumerate(keys.dataset.val)}
    pictures = {f"dataset.vis[{index}]": entry for index, entry in enumerate(keys.dataset.vis)}
    return {
        "train_sets": tuple(_data_set(tree, path, entry, task, True) for path, entry in entries.items()),
        "probabilities": probabilities,
        "validation_sets": tuple(_data_set(tree, path, entry, task, False) for path, entry in held_out.items()),
        "picture_sets": tuple(_data_set(tree, path, entry, task, False) for path, entry in pictures.items()),
    }


def _check_targets(tree: Value, properties: dict[str, Any]) -> None:
    """target_properties of intrinsic images: names of the targets, and for each what its values are."""
    path, names = "pipeline.kwargs.target_properties", properties.get("target_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise tree.refuse(f"{path}.target_names", f"is {names!r}; expected the names of the targets")
    if len(set(names)) != len(names):
        raise tree.refuse(f"{path}.target_names", f"is {names}; expected different names")
    pending = list(names)
    for name in pending:
        if name not in properties:
            raise tree.refuse(f"{path}.{name}", "is missing; expected what the target's values are")
        target = checked(TargetProperties, tree, f"{path}.{name}")
        if target.prediction_space == "stack":
            if target.sub_target_names is None:
                raise tree.refuse(f"{path}.{name}.sub_target_names", "is missing; expected three names")
            pending += [part for part in target.sub_target_names if part is not None]
    for key in properties:
        if key not in ("target_names", *pending):
            raise tree.refuse(f"{path}.{key}", f"unknown key; known here: {', '.join(('target_names', *pending))}")


def _task_of(tree: Value, keys: Configuration) -> tuple[str, str]:
    """The task and the objective, from the names of trainer and pipeline."""
    by_trainer, by_pipeline = TRAINERS.get(keys.trainer.name or ""), PIPELINES.get(keys.pipeline.name or "")
    if by_trainer is None and by_pipeline is None:
        raise tree.refuse("trainer", f"has no name, nor has pipeline; expected one of {', '.join(TRAINERS)}")
    if by_trainer and by_pipeline and by_trainer[0] != by_pipeline[0]:
        raise tree.refuse("pipeline.name", f"is for {by_pipeline[0]}, but trainer.name is for {by_trainer[0]}")
    task, usual = by_trainer or ((by_pipeline or ("", ""))[0], "latent")
    return task, keys.trainer.objective or usual


def _pipeline_of(tree: Value, keys: Configuration, task: str, objective: str) -> tuple[str, dict[str, Any]]:
    """The class that model_index.json names, and its options."""
    usual = next(name for name, (known, _) in PIPELINES.items() if known == task)
    usual = REFINING_PIPELINE if objective == "refine" else usual
    options = keys.pipeline.options.model_dump(exclude_none=True)
    if task == "depth":
        options.setdefault("scale_invariant", True)
        options.setdefault("shift_invariant", True)
    if task == "iid":
        properties = keys.pipeline.options.target_properties
        if properties is None:
            path = "pipeline.kwargs.target_properties"
            raise tree.refuse(path, "is missing; expected the targets and what they are")
        _check_targets(tree, properties)
        options["target_properties"] = plain(tree.find("pipeline.kwargs.target_properties"))
    return PIPELINES[keys.pipeline.name or usual][1], options


def _check_together(tree: Value, keys: Configuration, task: str, objective: str) -> None:
    """Keys that fit, and do not fit each other."""
    for path, only in _ONLY_FOR.items():
        if only != task and tree.written(path):
            raise tree.refuse(path, f"is for {only}, and this configuration is for {task}")
    if keys.gt_mask_type not in (None, _MASKS[task]):
        raise tree.refuse("gt_mask_type", f"is {keys.gt_mask_type!r}; expected one of {_MASKS[task]}")
    optimizer, decay = keys.optimizer, keys.optimizer.options.weight_decay
    if optimizer.name == "Adam" and decay:
        reason = f"is {decay:g}; expected 0 for Adam, or the name AdamW"
        raise tree.refuse("optimizer.kwargs.weight_decay", reason)
    if keys.loader.latent_cache and not keys.augmentation.only_flips:
        reason = "cannot be used with crops, blur, jitter or noise: their images are different each time"
        raise tree.refuse("dataloader.latent_cache", reason)
    if keys.loader.latent_cache and objective in ("e2e", "refine", "autoencoder"):
        reason = f"cannot be used with objective {objective}: its loss needs the pixels"
        raise tree.refuse("dataloader.latent_cache", reason)
    if objective == "refine" and task != "depth":
        raise tree.refuse("trainer.objective", f"is refine, which is for depth, not {task}")
    name = keys.pipeline.name
    if name is not None and (name == REFINING_PIPELINE) != (objective == "refine"):
        raise tree.refuse("pipeline.name", f"is {name!r}; {REFINING_PIPELINE} and objective refine go together")
    crop = keys.trainer.refinement.crop
    if crop is not None and any(side % LATENT_BLOCK for side in crop):
        raise tree.refuse("trainer.refinement.crop_hw", f"is {list(crop)}; expected multiples of {LATENT_BLOCK}")
    if objective != "refine" and tree.written("trainer.refinement"):
        raise tree.refuse("trainer.refinement", f"is for objective refine, not {objective}")
    loss = keys.trainer.pixel_loss
    if loss != "task" and (task, objective) != ("depth", "e2e"):
        reason = f"is {loss!r}, which is for depth and objective e2e, not {task} and {objective}"
        raise tree.refuse("trainer.pixel_loss", reason)
    main, metrics = keys.validation.main_metric, keys.evaluation.metrics
    known = _RECONSTRUCTION_METRICS if objective == "autoencoder" else _METRICS[task]
    if main is not None and metrics and main not in metrics:
        raise tree.refuse("validation.main_val_metric", f"is {main!r}, which eval.eval_metrics does not list")
    if main is not None and main not in known:
        raise tree.refuse("validation.main_val_metric", f"is {main!r}; the metrics are {', '.join(known)}")


def read_config(tree: Value) -> TrainingConfig:
    """The configuration in a merged tree of load_tree. ConfigError names what does not fit."""
    keys = checked(Configuration, tree)
    task, objective = _task_of(tree, keys)
    _check_together(tree, keys, task, objective)
    class_name, pipeline_options = _pipeline_of(tree, keys, task, objective)
    return TrainingConfig.model_construct(
        **dict(keys),
        file=tree.file,
        plain=MappingProxyType(plain(tree)),
        task=task,
        objective=objective,
        class_name=class_name,
        pipeline_options=MappingProxyType(pipeline_options),
        **_data_sets(tree, keys, None if objective == "autoencoder" else task),
    )


def load_config(file: str | Path) -> TrainingConfig:
    """The configuration in a YAML file with its base files."""
    return read_config(load_tree(Path(file)))

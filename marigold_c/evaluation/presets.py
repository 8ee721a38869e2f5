"""The settings behind published numbers, by name: --preset of `marigold infer` and `marigold eval`. Called by the flags
of these commands, which override them.

Sources: prs-eth/Marigold's script/*/eval and script/depth/eval_old; prs-eth/Marigold-DC's script/eval;
VisualComputingInstitute/diffusion-e2e-ft's experiments. What differs from data set to data set in all of them
(processing resolution, seed, resolution of the alignment) is a column of the table of data sets; resolution and seed
here replace it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ALIGNMENTS = ("none", "least_square", "least_square_disparity", "least_square_log", "ransac_log", "median")
POOLINGS = ("image", "pixels")


@dataclass(frozen=True)
class TaskPreset:
    """What a preset says about one task.

    steps, ensemble_size: of the predictions. noise: "gaussian" or "zeros". solver: of an ensemble of depth maps.
    resolution, seed: for all data sets; None: the data set's. alignment: of depth. pooling: which statistics of normals
    stand in the summary: means over images, or those of all pixels together.
    """

    steps: int
    ensemble_size: int
    noise: str = "gaussian"
    solver: str | None = None
    resolution: int | None = None
    seed: int | None = None
    alignment: str = "none"
    pooling: str = "image"


@dataclass(frozen=True)
class DataSetPreset:
    """What the paper's scripts tell eval.py about one data set of intrinsic images."""

    target_names: tuple[str, ...]
    linear_targets: tuple[str, ...] = ()
    use_mask: bool = False


def _depth(steps: int, alignment: str = "least_square") -> TaskPreset:
    return TaskPreset(steps, 10, solver="reference", alignment=alignment)


_NORMALS = TaskPreset(4, 10)
_INTRINSICS = TaskPreset(4, 1)

# Their sources: docs/evaluation.md.
PRESETS: dict[str, Mapping[str, TaskPreset]] = {
    "v1-1": {"depth": _depth(1), "normals": _NORMALS, "iid": _INTRINSICS},
    "v1-1-paper": {"depth": _depth(4), "normals": _NORMALS, "iid": _INTRINSICS},
    "v1-0": {"depth": _depth(50)},
    "e2e-ft": {
        "depth": TaskPreset(1, 1, noise="zeros", alignment="least_square"),
        "normals": TaskPreset(1, 1, noise="zeros", resolution=0, seed=1234, pooling="pixels"),
    },
    "dsine-pooled": {"normals": TaskPreset(4, 10, pooling="pixels")},
    "marigold-dc": {"completion": TaskPreset(50, 10)},
    "log-ransac": {"depth": _depth(1, alignment="ransac_log")},
}

DATA_SETS: dict[str, DataSetPreset] = {
    "interiorverse_iid": DataSetPreset(("albedo", "material"), linear_targets=("material",)),
    "hypersim_iid": DataSetPreset(("albedo", "shading", "residual"), use_mask=True),
}


def task_preset(name: str, task: str) -> TaskPreset:
    """ValueError if the preset says nothing about the task."""
    preset = PRESETS[name]
    if task not in preset:
        known = ", ".join(one for one, other in PRESETS.items() if task in other)
        raise ValueError(f"--preset {name} is for {' and '.join(preset)}, not for {task}; for {task}: {known}")
    return preset[task]

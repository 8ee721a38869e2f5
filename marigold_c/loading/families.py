"""Which family of checkpoints one belongs to, what it predicts, and how it is opened. The families themselves, what
their UNet sees and what its output means, are a table of the engine (csrc/pipeline/families.c); here is what only names
tell.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _C
from ..errors import CheckpointError
from .config import Config, read_config
from .packed import Configurations

FAMILIES = ("marigold", "e2e-ft", "lotus-d", "lotus-g", "genpercept", "rollingdepth")
PREDICTION_TYPES = ("depth", "disparity", "normals", "intrinsics")

# Class names of Marigold's model_index.json that say what is predicted, and the engine's name of the task.
TASKS = {
    "MarigoldDepthPipeline": "depth",
    "MarigoldPipeline": "depth",
    "MarigoldDepthHRPipeline": "depth",
    "MarigoldNormalsPipeline": "normals",
    "MarigoldIntrinsicsPipeline": "intrinsics",
    "MarigoldIIDPipeline": "intrinsics",
}


@dataclass(frozen=True)
class Published:
    """What the name of a published checkpoint tells and its files do not."""

    family: str
    task: str
    prediction_type: str | None = None  # of depth: None: the task's own


# By the last part of the repository's name, or the folder in a repository of UNets.
PUBLISHED = {
    "marigold-e2e-ft-depth": Published("e2e-ft", "depth"),
    "marigold-e2e-ft-normals": Published("e2e-ft", "normals"),
    "stable-diffusion-e2e-ft-depth": Published("e2e-ft", "depth"),
    "stable-diffusion-e2e-ft-normals": Published("e2e-ft", "normals"),
    "lotus-depth-d-v1-0": Published("lotus-d", "depth"),
    "lotus-depth-g-v1-0": Published("lotus-g", "depth"),
    "lotus-depth-d-v2-0-disparity": Published("lotus-d", "depth", "disparity"),
    "lotus-depth-g-v2-1-disparity": Published("lotus-g", "depth", "disparity"),
    "lotus-normal-d-v1-0": Published("lotus-d", "normals"),
    "lotus-normal-d-v1-1": Published("lotus-d", "normals"),
    "lotus-normal-g-v1-0": Published("lotus-g", "normals"),
    "lotus-normal-g-v1-1": Published("lotus-g", "normals"),
    "unet_depth_v2": Published("genpercept", "depth"),
    "unet_disparity_v2": Published("genpercept", "depth", "disparity"),
    "unet_normal_v2": Published("genpercept", "normals"),
}


# By the class of model_index.json, which says all.
CLASSES = {"RollingDepthPipeline": Published("rollingdepth", "depth", "disparity")}


@dataclass(frozen=True)
class Kind:
    """How a checkpoint is opened. None: as the engine finds it."""

    family: str | None
    task: str | None
    prediction_type: str | None
    unet: Path | None
    text_tokens: int

    def options(self) -> dict[str, Any]:
        """Those of the engine, as far as they differ from what it does by itself."""
        given = {"family": self.family, "unet": self.unet, "text_tokens": self.text_tokens}
        return {name: value for name, value in given.items() if value}


def _name_of(path: Path) -> str:
    """The last part of a repository's name, also where its folder lies in the hub's cache."""
    repository = path.parent.parent.name if path.parent.name == "snapshots" else path.name
    return repository.split("--")[-1]


def published(checkpoint: Path, unet: Path | None = None) -> Published | None:
    """What the names of a checkpoint's folder, and of that of another UNet, tell."""
    return PUBLISHED.get(unet.name if unet is not None else _name_of(checkpoint))


def class_name_of(index: Config) -> str:
    """The class that model_index.json names; of a folder with a pipeline.py, its module stands before it."""
    name = index.get("_class_name")
    if isinstance(name, list) and len(name) == 2:
        name = name[1]
    return str(name)


def refines(checkpoint: Path) -> bool:
    """Whether a checkpoint is that of Marigold-HR: it has a second UNet, which refines depth."""
    try:
        return bool(Configurations(checkpoint)["boosting_unet/config.json"])
    except (OSError, CheckpointError):
        return False


def kind_of(
    checkpoint: Path,
    family: str | None = None,
    task: str | None = None,
    prediction_type: str | None = None,
    unet: Path | None = None,
    text_tokens: int | None = None,
) -> Kind:
    """What is given; else what model_index.json or a packed file says; else what the name tells.

    checkpoint: a folder or packed file. ValueError: an unknown family or prediction type, or no number of tokens.
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"family={family!r}: choose from {', '.join(FAMILIES)}")
    if prediction_type is not None and prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type={prediction_type!r}: choose from {', '.join(PREDICTION_TYPES)}")
    if text_tokens is not None and text_tokens < 1:
        raise ValueError(f"text_tokens={text_tokens}: give 2, or 77 for a padded prompt")
    index = Configurations(checkpoint)["model_index.json"]
    known = published(checkpoint, unet) or CLASSES.get(class_name_of(index))
    told = {"family": known.family, "task": known.task, "prediction_type": known.prediction_type} if known else {}
    given = {"family": family, "task": task, "prediction_type": prediction_type}
    stated = {key: value for key in given if isinstance(value := index.get(key), str)}
    found = {**told, **stated, **{key: value for key, value in given.items() if value is not None}}
    by_class = TASKS.get(class_name_of(index))
    return Kind(
        found.get("family"),
        by_class if task is None and by_class else found.get("task"),
        found.get("prediction_type"),
        unet,
        text_tokens or 0,
    )


def family_of(checkpoint: Path, unet: Path | None = None) -> str | None:
    """By what the checkpoint, and the configuration of another UNet, say; None: none that is known."""
    configurations = Configurations(checkpoint)
    index = configurations["model_index.json"]
    name = class_name_of(index)
    if isinstance(stated := index.get("family"), str):
        return stated
    if name in TASKS:
        return "marigold"
    if not any(_C.family_of_checkpoint(name, latents, True) for latents in (1, 2)):
        return None
    network = configurations["unet/config.json"] if unet is None else read_config(unet / "config.json")
    channels, latent = network.get("in_channels", 4), configurations["vae/config.json"].get("latent_channels", 4)
    if not (isinstance(channels, int) and isinstance(latent, int) and latent > 0 and 0 <= channels < 2**31):
        return None
    return _C.family_of_checkpoint(name, channels // latent, unet is not None)


_warned: set[str] = set()


def warn_of_restriction(family: str, restriction: str | None) -> None:
    """Says once in a process what a licence forbids."""
    if restriction is not None and family not in _warned:
        _warned.add(family)
        warnings.warn(f"checkpoints of {family}: {restriction}", stacklevel=5)

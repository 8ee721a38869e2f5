"""Small checkpoints of each family, in the layouts in which they are published: the shipped weights where a network has
them, else random ones. For the tests of families."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import marigold_c as mc
from marigold_c.preparation.model import make_model

IMAGE = np.random.default_rng(1).integers(0, 256, (44, 60, 3), dtype=np.uint8)

_CLASS_EMBEDDING = {
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 4,
    "class_embeddings_concat": False,
}
_STABLE_DIFFUSION: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
}
# Stable Diffusion 2.1's, as diffusers' training scripts write it.
_NOISE_LEVELS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
_DDPM = {"_class_name": "DDPMScheduler", "clip_sample": False, "prediction_type": "v_prediction", "steps_offset": 1}
_PNDM = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "prediction_type": "v_prediction", "steps_offset": 1}

_DDIM = {
    "_class_name": "DDIMScheduler",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
}


@dataclass(frozen=True)
class Layout:
    """What a family's folder has that is not Marigold's. name: as published; index None: Marigold's own."""

    name: str
    family: str
    task: str
    index: dict[str, Any] | None = None
    unet: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] | None = None
    unet_alone: str | None = None  # the name of a folder with the UNet, which takes the place of that in a base


LAYOUTS = {
    "e2e-ft, Marigold": Layout("marigold-e2e-ft-depth", "e2e-ft", "depth"),
    "e2e-ft, Stable Diffusion": Layout(
        "stable-diffusion-e2e-ft-depth", "e2e-ft", "depth", _STABLE_DIFFUSION, scheduler=_DDPM
    ),
    "e2e-ft, normals": Layout(
        "stable-diffusion-e2e-ft-normals", "e2e-ft", "normals", _STABLE_DIFFUSION, scheduler=_DDPM
    ),
    "lotus-d": Layout(
        "lotus-depth-d-v1-0",
        "lotus-d",
        "depth",
        {"_class_name": "DirectRegressionPipeline"},
        {"in_channels": 4, **_CLASS_EMBEDDING},
        _PNDM,
    ),
    "lotus-d, normals": Layout(
        "lotus-normal-d-v1-1",
        "lotus-d",
        "normals",
        {"_class_name": "DirectRegressionPipeline"},
        {"in_channels": 4, **_CLASS_EMBEDDING},
        _PNDM,
    ),
    "lotus-g": Layout(
        "lotus-depth-g-v2-1-disparity",
        "lotus-g",
        "depth",
        {"_class_name": "DirectDiffusionY0Pipeline"},
        _CLASS_EMBEDDING,
        _PNDM,
    ),
    "rollingdepth": Layout(
        "rollingdepth-v1-0", "rollingdepth", "depth", {"_class_name": "RollingDepthPipeline"}, scheduler=_DDIM
    ),
    "genpercept": Layout(
        "stable-diffusion-2-1", "genpercept", "depth", _STABLE_DIFFUSION, {"in_channels": 4}, _PNDM, "unet_depth_v2"
    ),
    "genpercept, normals": Layout(
        "stable-diffusion-2-1", "genpercept", "normals", _STABLE_DIFFUSION, {"in_channels": 4}, _PNDM, "unet_normal_v2"
    ),
}


# Changes of configurations: networks as deep as those of the small checkpoints, with few channels.
THIN: dict[str, dict[str, Any]] = {
    "unet": {"block_out_channels": [16] * 4, "attention_head_dim": [2] * 4, "norm_num_groups": 8},
    "vae": {"block_out_channels": [8] * 4},
}


def _change(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def make_thin(task: str, folder: Path) -> Path:
    """A checkpoint of random weights in the new `folder`, for what does not depend on the size of networks."""
    like = folder.with_name(f"{folder.name}-like")
    shutil.copytree(mc.default_checkpoint(task), like, ignore=shutil.ignore_patterns("*.safetensors"))
    for component, changes in THIN.items():
        _change(like / component / "config.json", changes)
    make_model(folder, like)
    shutil.rmtree(like)
    return folder


def make(name: str, folder: Path, changes: Mapping[str, dict[str, Any]] | None = None) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of LAYOUTS in `folder`: its path, and the options of mc.load that it needs. changes: of the
    configurations of its components."""
    layout = LAYOUTS[name]
    source = mc.default_checkpoint(layout.task)
    like, target = folder / f"like-{layout.name}", folder / layout.name
    shutil.copytree(source, like)
    _change(like / "unet" / "config.json", layout.unet)
    for component, some in (changes or {}).items():
        _change(like / component / "config.json", some)
    if layout.index is not None:
        index = json.loads((like / "model_index.json").read_text(encoding="utf-8"))
        kept = {key: value for key, value in index.items() if isinstance(value, list)}
        (like / "model_index.json").write_text(json.dumps({**kept, **layout.index}), encoding="utf-8")
    if layout.scheduler is not None:
        text = json.dumps({**_NOISE_LEVELS, **layout.scheduler})
        (like / "scheduler" / "scheduler_config.json").write_text(text, encoding="utf-8")
        for file in ("tokenizer_config.json", "special_tokens_map.json"):  # Stable Diffusion 2 pads with "!"
            _change(like / "tokenizer" / file, {"pad_token": "!"})
    make_model(target, like, source, seed=3)
    shutil.rmtree(like)
    if layout.unet_alone is None:
        return target, {}
    alone = folder / layout.unet_alone
    (target / "unet").rename(alone)
    shutil.copytree(source / "unet", target / "unet")  # the base's own, which is not read
    return target, {"unet": alone}

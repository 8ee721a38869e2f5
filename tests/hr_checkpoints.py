"""A small checkpoint of Marigold-HR in its published layout: the shipped base model, and its UNet once more beside it,
whose first convolution sees the coarse prediction as three quarters of the sample: with a half the two could be
taken for each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors_files

import marigold_c as mc
from marigold_c.preparation.model import make_model

IMAGE = np.random.default_rng(1).integers(0, 256, (52, 76, 3), dtype=np.uint8)


def change(path: Path, changes: Mapping[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def _see_coarse(folder: Path) -> None:
    file = folder / "boosting_unet" / "diffusion_pytorch_model.safetensors"
    arrays = safetensors_files.read(file)
    sample = arrays["conv_in.weight"][:, 8:] / 4
    arrays["conv_in.weight"] = np.concatenate([arrays["conv_in.weight"][:, :4], 3 * sample, sample], axis=1)
    safetensors_files.write(file, {name: ("F32", array) for name, array in arrays.items()})


def make(folder: Path, unet: Mapping[str, Any] | None = None, index: Mapping[str, Any] | None = None) -> Path:
    """The checkpoint, in the new `folder`. unet: changes of the second UNet's configuration; index: of
    model_index.json."""
    base, random = mc.default_checkpoint("depth"), folder.with_name(f"{folder.name}-random")
    like = folder.with_name(f"{folder.name}-like")
    shutil.copytree(base, like)
    shutil.copytree(base / "unet", like / "boosting_unet")
    change(like / "boosting_unet" / "config.json", {"in_channels": 12, **(unet or {})})
    make_model(random, like, source=base)
    shutil.copytree(base, folder)
    shutil.copytree(random / "boosting_unet", folder / "boosting_unet")
    if not unet:
        _see_coarse(folder)
    named = {"_class_name": "MarigoldDepthHRPipeline", "boosting_unet": ["diffusers", "UNet2DConditionModel"]}
    change(folder / "model_index.json", {**named, **(index or {})})
    shutil.rmtree(like)
    shutil.rmtree(random)
    return folder

"""Checkpoints in folders that are named as the hub's repositories, with what the hub has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import marigold_c as mc

APPEARANCE: dict[str, Any] = {
    "target_names": ["albedo", "material", "rest"],
    "albedo": {"prediction_space": "srgb"},
    "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
    "roughness": {"prediction_space": "linear"},
    "metallicity": {"prediction_space": "linear"},
    "rest": {"prediction_space": "linear"},
}


def make_repository(folder: Path, task: str, properties: dict[str, Any] | None = None) -> None:
    """The shipped checkpoint of a task as `folder`, its weights under both names; properties: other targets."""
    checkpoint = mc.default_checkpoint(task)
    for path in checkpoint.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(checkpoint)
            target.parent.mkdir(parents=True, exist_ok=True)
            plain = path.name.replace(".fp16.", ".")
            for name in {plain, plain.replace(".safetensors", ".fp16.safetensors")}:
                target.with_name(name).symlink_to(path)
    if properties is not None:
        index = folder / "model_index.json"
        content = json.loads(index.read_text())
        index.unlink()
        index.write_text(json.dumps({**content, "target_properties": properties}))

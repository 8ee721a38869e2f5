"""A pipeline as a folder in diffusers' layout. Called by pipeline.py (save_pretrained)."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..atomic_files import write_atomically
from ..loading.config import read_json_object
from ..loading.folders import stems_of, weight_files
from ..loading.packed import is_packed

_SHARD = re.compile(r"-(\d{5}-of-\d{5})")
_TINY = "AutoencoderTiny"


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        write_atomically(target, lambda out: shutil.copyfileobj(file, out, 2**20))


def _named(name: str, stem: str, variant: str | None) -> str:
    """The name of a weight file under another variant, or under none."""
    middle = f"{stem}.{variant}" if variant else stem
    if name.endswith(".json"):
        return f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"
    shard = _SHARD.search(name)
    return f"{middle}{shard[0] if shard else ''}.safetensors"


def _save_weights(files: list[Path], stem: str, target: Path, variant: str | None) -> None:
    for path in files:
        name = target / _named(path.name, stem, variant)
        if path.suffix == ".json":  # the index of shards names them
            index = dict(read_json_object(path))
            index["weight_map"] = {key: _named(one, stem, variant) for key, one in index["weight_map"].items()}
            _write_json(name, index)
        else:
            _copy(path, name)


def save_folder(
    folder: Path,
    target: Path,
    opened_variant: str | None,
    vae_folder: Path | None,
    scheduler: Mapping[str, Any],
    variant: str | None,
    unet_folder: Path | None,
    kind: Mapping[str, Any],
) -> None:
    """Writes `target`: the files of the checkpoint in `folder`, with the vae of `vae_folder` and the unet of
    `unet_folder` if there is one. kind: what model_index.json says besides.

    opened_variant: which weights were opened; variant: under which name they are written. scheduler: its configuration.
    """
    for one in (folder, vae_folder):
        if one is not None and is_packed(one):
            raise ValueError(
                f"{one} is a packed file, which diffusers cannot be given: it has the embedding of the empty prompt in "
                "place of text encoder and tokenizer, and weights in the order of this processor's kernels. Open the "
                "folder that it was made of (marigold convert FOLDER) and save that"
            )
    if variant is not None and not re.fullmatch(r"[\w-]+", variant):
        raise ValueError(f"variant {variant!r} is no plain name such as 'fp16'")
    if target.exists() and target.resolve() == folder.resolve():
        raise ValueError(f"{target} is the folder of the checkpoint itself")
    index = dict(read_json_object(folder / "model_index.json"))
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    index |= kind
    for component, stem in stems_of(folder).items():
        if component == "vae" and vae_folder is not None:
            source, index["vae"] = vae_folder, ["diffusers", _TINY]
            files = weight_files(vae_folder, "", None)
        elif component == "unet" and unet_folder is not None:
            source, files = unet_folder, weight_files(unet_folder, "", opened_variant)
        else:
            source, files = folder / component, weight_files(folder, component, opened_variant)
        (target / component).mkdir(parents=True, exist_ok=True)
        _copy(source / "config.json", target / component / "config.json")
        _save_weights(files, stem, target / component, variant)
    for component in ("tokenizer", "scheduler"):
        (target / component).mkdir(exist_ok=True)
    for path in sorted((folder / "tokenizer").iterdir()):
        if path.is_file():
            _copy(path, target / "tokenizer" / path.name)
    for path in sorted([*folder.glob("README.md"), *folder.glob("LICENSE*")]):
        _copy(path, target / path.name)
    options = {key: value for key, value in scheduler.items() if key != "_use_default_values"}
    _write_json(target / "scheduler" / "scheduler_config.json", options)
    _write_json(target / "model_index.json", index)  # last: without it the folder is no checkpoint

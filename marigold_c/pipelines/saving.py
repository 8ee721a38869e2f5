"""A pipeline as a folder in diffusers' layout. Called by opened_pipeline.py (save_pretrained)."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _C
from ..atomic_files import write_atomically
from ..loading.config import read_json_object
from ..loading.families import kind_of, refines
from ..loading.folders import OPTIONAL_STEMS, WEIGHT_STEMS, weight_files
from ..loading.inspection import licence_of
from ..loading.packed import Configurations, is_packed
from ..loading.unpacking import PackedNetworks

_SHARD = re.compile(r"-(\d{5}-of-\d{5})")
# Of the embedding's largest value: encoders in float16 and float32 differ by a tenth of it, others by more than all.
_SAME_TEXT = 1e-2


@dataclass(frozen=True)
class Sources:
    """Where the parts of an opened pipeline lie. folder: or a packed file; vae, unet: what replaces its own, or None;
    text_encoder: a folder with the text encoder and tokenizer that a packed file lacks."""

    folder: Path
    variant: str | None
    vae: Path | None
    unet: Path | None
    text_encoder: Path | None

    def check(self) -> None:
        """ValueError: something is missing, or too much."""
        if is_packed(self.folder) and self.text_encoder is None:
            raise ValueError(
                f"{self.folder} is a packed file: it has the embedding of the empty prompt in place of text encoder "
                "and tokenizer, which diffusers needs. Give text_encoder=, a checkpoint that has them: the one that "
                "the file was made of, or another one of the same kind (all of prs-eth have the same)"
            )
        if not is_packed(self.folder) and self.text_encoder is not None:
            raise ValueError(f"`text_encoder` is for packed files; {self.folder} has its own")
        if self.text_encoder is not None and not (self.text_encoder / "text_encoder").is_dir():
            raise ValueError(f"{self.text_encoder} has no text encoder: give the folder of a checkpoint")


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


def _copy_network(source: Path, files: list[Path], stem: str, target: Path, variant: str | None) -> None:
    """config.json of a network's folder and its weights."""
    _copy(source / "config.json", target / "config.json")
    for path in files:
        name = target / _named(path.name, stem, variant)
        if path.suffix == ".json":  # the index of shards names them
            index = dict(read_json_object(path))
            index["weight_map"] = {key: _named(one, stem, variant) for key, one in index["weight_map"].items()}
            _write_json(name, index)
        else:
            _copy(path, name)


def _save_network(component: str, stem: str, sources: Sources, target: Path, variant: str | None) -> None:
    target.mkdir(parents=True, exist_ok=True)
    replaced = {"vae": sources.vae, "unet": sources.unet}.get(component)
    if component == "text_encoder" and sources.text_encoder is not None:
        folder = sources.text_encoder
        _copy_network(folder / component, weight_files(folder, component, None), stem, target, variant)
    elif is_packed(packed := replaced or sources.folder):
        networks = PackedNetworks(packed)
        _write_json(target / "config.json", networks.config(component))
        networks.write_weights(component, target / _named("", stem, variant))
    elif replaced is not None:
        opened = sources.variant if component == "unet" else None
        _copy_network(replaced, weight_files(replaced, "", opened), stem, target, variant)
    else:
        folder = sources.folder
        _copy_network(folder / component, weight_files(folder, component, sources.variant), stem, target, variant)


def _save_words(folder: Path, target: Path) -> None:
    """What the checkpoint says of itself for people."""
    if is_packed(folder):
        if licence := licence_of(folder):
            text = f"---\nlicense: {licence}\n---\n"
            write_atomically(target / "README.md", lambda file: file.write(text.encode()))
        return
    for path in sorted([*folder.glob("README.md"), *folder.glob("LICENSE*")]):
        _copy(path, target / path.name)


def _check_text(target: Path, index: Mapping[str, Any], variant: str | None, expected: NDArray[np.float32]) -> None:
    """ValueError: the text encoder in `target`, which has no model_index.json yet, is not that of `expected`, the
    embedding of the empty prompt."""
    with TemporaryDirectory() as name:
        whole = Path(name)
        for path in target.resolve().iterdir():
            (whole / path.name).symlink_to(path)
        (whole / "model_index.json").unlink(missing_ok=True)
        _write_json(whole / "model_index.json", index)
        try:
            kind = kind_of(whole, text_tokens=expected.shape[1])
            engine = _C.Pipeline(whole, variant=variant, task=kind.task, **kind.options())
        except (ValueError, NotImplementedError) as error:
            raise ValueError(f"`text_encoder` does not fit: {error}") from error
    difference = np.abs(engine.empty_text_embedding() - expected).max() / np.abs(expected).max()
    if not difference <= _SAME_TEXT:
        raise ValueError(
            f"`text_encoder` is another one than that of the packed file: its embeddings of the empty prompt differ by "
            f"{difference:.2g} of their largest value"
        )


def save_folder(
    sources: Sources,
    target: Path,
    scheduler: Mapping[str, Any],
    variant: str | None,
    kind: Mapping[str, Any],
    text_embedding: NDArray[np.float32],
) -> None:
    """Writes `target`. scheduler: its configuration; variant: under which name weights are written; kind: what
    model_index.json says besides; text_embedding: of the empty prompt."""
    sources.check()
    folder = sources.folder
    if variant is not None and not re.fullmatch(r"[\w-]+", variant):
        raise ValueError(f"variant {variant!r} is no plain name such as 'fp16'")
    if target.exists() and target.resolve() == folder.resolve():
        raise ValueError(f"{target} is the folder of the checkpoint itself")
    if target.is_file():
        raise NotADirectoryError(f"{target} is a file; give the name of a folder")
    index = dict(Configurations(folder)["model_index.json"])
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    index |= kind
    for component, stem in (WEIGHT_STEMS | (OPTIONAL_STEMS if refines(folder) else {})).items():
        _save_network(component, stem, sources, target / component, variant)
    vae = read_json_object(target / "vae" / "config.json")
    index["vae"] = ["diffusers", vae.get("_class_name", "AutoencoderKL")]
    for component in ("tokenizer", "scheduler"):
        (target / component).mkdir(exist_ok=True)
    for path in sorted(((sources.text_encoder or folder) / "tokenizer").iterdir()):
        if path.is_file():
            _copy(path, target / "tokenizer" / path.name)
    _save_words(folder, target)
    options = {key: value for key, value in scheduler.items() if key != "_use_default_values"}
    _write_json(target / "scheduler" / "scheduler_config.json", options)
    if sources.text_encoder is not None:
        _check_text(target, index, variant, text_embedding)
    _write_json(target / "model_index.json", index)  # last: without it the folder is no checkpoint

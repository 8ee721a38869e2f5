"""`marigold prepare model`: a new checkpoint, built like another one, with random weights.

Weights are initialised as torch's layers are: uniform within 1 / sqrt(inputs of one output); norms do nothing at first;
embeddings are normal. They follow from the seed, the component and their order in the network alone.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._C import declared_weights
from ..errors import CheckpointError
from ..loading.config import read_json_object
from ..loading.folders import OPTIONAL_STEMS, STEMS, WEIGHT_STEMS, stems_of
from ..loading.parameter_files import write_arrays
from ..loading.safetensors_header import parse_header, read_header_text, tensors_of

Array = NDArray[np.float32]

_TEXTS = ("model_index.json", "scheduler", "tokenizer")
_EMBEDDING_DEVIATION = 0.02  # CLIP's initializer_range
_TYPES = {"F32": "<f4", "F16": "<f2"}


class _Stored:
    """The weights of one component of a checkpoint, in float32 or float16 and in one file."""

    def __init__(self, folder: Path, component: str) -> None:
        """CheckpointError: there is no such file."""
        stem = folder / component / STEMS[component]
        found = [path for path in (Path(f"{stem}.safetensors"), Path(f"{stem}.fp16.safetensors")) if path.is_file()]
        if not found:
            raise CheckpointError(f"{folder}: no {component}/{stem.name}.safetensors to take weights from")
        self.path = found[0]
        text = read_header_text(self.path)
        self._begin, self._entries = 8 + len(text), tensors_of(parse_header(text, self.path))

    def read_widened(self, name: str, shape: tuple[int, ...]) -> Array | None:
        """Of a UNet that takes image and sample, for one that takes a coarse prediction between both: with zeros for
        that, which changes nothing yet."""
        latent = shape[1] // 3 if name == "conv_in.weight" else 0
        narrow = self.read(name, (shape[0], 2 * latent, *shape[2:])) if latent else None
        if narrow is None:
            return self.read(name, shape)
        return np.concatenate([narrow[:, :latent], np.zeros_like(narrow[:, :latent]), narrow[:, latent:]], axis=1)

    def read(self, name: str, shape: tuple[int, ...]) -> Array | None:
        """None if there is none of this name and shape."""
        match self._entries.get(name):
            case {"dtype": str(kind), "shape": list(stored), "data_offsets": [int(begin), int(end)]}:
                if tuple(stored) != shape:
                    return None
                if kind not in _TYPES or end - begin != math.prod(shape) * np.dtype(_TYPES[kind]).itemsize:
                    raise CheckpointError(f"{self.path}: {name} is no whole array of float32 or float16")
                data = np.memmap(self.path, np.uint8, "r")[self._begin + begin : self._begin + end]
                return np.frombuffer(data.tobytes(), _TYPES[kind]).reshape(shape).astype(np.float32)
        return None


def _new(name: str, shapes: Mapping[str, tuple[int, ...]], generator: np.random.Generator) -> Array:
    """Draws the same number of random numbers for a weight whatever becomes of it."""
    shape = shapes[name]
    uniform = generator.random(shape, np.float32) * 2 - 1
    if "embeddings" in name:
        normal = generator.standard_normal(shape, np.float32)
        return normal * np.float32(_EMBEDDING_DEVIATION)
    weight = shapes.get(name.removesuffix("bias") + "weight", shape)
    if len(weight) == 1:
        return np.full(shape, float(name.endswith("weight")), np.float32)
    return np.asarray(uniform / math.sqrt(math.prod(weight[1:])), np.float32)


def _kind(component: str) -> str:
    """What the engine calls a network of this kind."""
    return "unet" if component in OPTIONAL_STEMS else component


def _write_component(
    folder: Path, component: str, config: dict[str, Any], label: str, source: Path | None, seed: int
) -> tuple[int, int]:
    """How many weights were made, and how many taken from `source`: of its UNet, if it has no boosting_unet."""
    shapes = declared_weights(_kind(component), json.dumps(config), label)
    there = component if source is not None and component in stems_of(source) else _kind(component)
    stored = _Stored(source, there) if source is not None else None
    if source is not None and component == "vae":
        theirs = read_json_object(source / "vae" / "config.json")
        config["scaling_factor"] = theirs.get("scaling_factor", config.get("scaling_factor"))
    generator = np.random.default_rng([seed, list(STEMS).index(component)])
    read = None if stored is None else stored.read if there == component else stored.read_widened
    taken = [0]

    def make(name: str) -> Array:
        new = _new(name, shapes, generator)
        found = read(name, new.shape) if read is not None else None
        taken[0] += found is not None
        return new if found is None else found

    (folder / component).mkdir()
    write_arrays(folder / component / f"{STEMS[component]}.safetensors", shapes, make, {"format": "pt"})
    (folder / component / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return len(shapes) - taken[0], taken[0]


def make_model(
    folder: Path, like: Path, source: Path | None = None, seed: int = 0, boosting: bool = False
) -> dict[str, tuple[int, int]]:
    """Writes a checkpoint that is built as `like` is into the new `folder`.

    source: a checkpoint from which weights are taken where it has one of the same name and shape, and the VAE's scaling
    factor. boosting: with the second UNet of Marigold-HR, built as the first where `like` has none; of a source without
    one it gets the first one's weights, and zeros for the coarse prediction, which change nothing yet. Returns, for
    each component, how many weights were made and how many taken. FileExistsError: the folder is there.
    CheckpointError: a checkpoint lacks something.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; give another folder")
    for component in WEIGHT_STEMS:
        if not (like / component / "config.json").is_file():
            raise CheckpointError(f"{like}: no {component}/config.json to build a network from")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        counts = _write_model(part, like, source, seed, boosting)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return counts


def _boosting_config(like: Path) -> dict[str, Any]:
    """The first UNet's, for a coarse prediction beside its latents. CheckpointError: it is no UNet of depth."""
    path = like / "unet" / "config.json"
    config = dict(read_json_object(path))
    if config.get("in_channels") != 2 * config.get("out_channels", 0):
        raise CheckpointError(f"{path}: takes {config.get('in_channels')} channels; that of depth takes two latents")
    return {**config, "in_channels": 3 * config["out_channels"]}


def _write_model(
    folder: Path, like: Path, source: Path | None, seed: int, boosting: bool
) -> dict[str, tuple[int, int]]:
    for name in _TEXTS:
        if (like / name).is_dir():
            shutil.copytree(like / name, folder / name)
        else:
            shutil.copyfile(like / name, folder / name)
    configs = {name: dict(read_json_object(like / name / "config.json")) for name in stems_of(like)}
    if boosting and "boosting_unet" not in configs:
        configs["boosting_unet"] = _boosting_config(like)
        index = {**read_json_object(like / "model_index.json"), "_class_name": "MarigoldDepthHRPipeline"}
        index["boosting_unet"] = ["diffusers", "UNet2DConditionModel"]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return {
        name: _write_component(folder, name, config, f"{like / name}/config.json", source, seed)
        for name, config in configs.items()
    }


def copy_weights(source: Path, component: str, file: Path) -> None:
    """The weights of a component of `source` into one file, in float16. CheckpointError as for make_model."""
    config = read_json_object(source / component / "config.json")
    shapes = declared_weights(component, json.dumps(dict(config)), str(source))
    stored = _Stored(source, component)

    def take(name: str) -> Array:
        found = stored.read(name, shapes[name])
        if found is None:
            raise CheckpointError(f"{stored.path}: has no {name} of the shape {shapes[name]}")
        return found

    write_arrays(file, shapes, take, {"format": "pt"}, "F16")

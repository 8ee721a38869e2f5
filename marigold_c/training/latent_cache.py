"""Latents of a data set on disk: each sample is encoded once. Called by loader.py (load) and latents.py (store).

A cache belongs to one autoencoder and one way of preparing the samples: its folder is named by a digest of both. Each
sample has a file for itself and one for its mirror image, written whole or not at all; a damaged one counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic_files import write_atomically
from .examples import TrainingSet

_FORMAT = 1
_DESCRIPTION = "description.json"


@dataclass(frozen=True, eq=False)
class CachedLatents:
    """image: (C, h, w). target: (C T, h, w). mask: bool (1, h, w). size: (H, W) of the image in pixels."""

    image: NDArray[np.float32]
    target: NDArray[np.float32]
    mask: NDArray[np.bool_]
    size: tuple[int, int]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def autoencoder_digest(folder: Path) -> str:
    """One digest of the configuration and all weights of a VAE's folder, whatever the files are called."""
    files = [path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")]
    return hashlib.sha256("\n".join(sorted(file_digest(path) for path in files)).encode()).hexdigest()


def _description(data_set: TrainingSet, autoencoder: str) -> dict[str, Any]:
    """All that decides the latents of a set besides the files of its samples."""
    config, entry = data_set.config, data_set.entry
    depth = config.depth_range
    return {
        "format": _FORMAT,
        "autoencoder": autoencoder,
        "data_set": dict(entry.options),
        "list": file_digest(entry.filenames) if entry.filenames else None,
        "resize": entry.resize,
        "task": config.task,
        "targets": _plain(config.pipeline_options.get("target_properties", list(config.target_names))),
        "depth": [depth.quantile, depth.low, depth.high, depth.clip, config.far_invalid],
    }


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


class LatentCache:
    """The latents of one data set in `root`."""

    def __init__(self, root: Path, data_set: TrainingSet, autoencoder: str) -> None:
        """autoencoder: autoencoder_digest of its folder. OSError if the folder cannot be made."""
        self._set = data_set
        description = json.dumps(_description(data_set, autoencoder), indent=2, sort_keys=True)
        digest = hashlib.sha256(description.encode()).hexdigest()
        self.folder = root / f"{data_set.entry.name}-{digest[:20]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / _DESCRIPTION).exists():
            write_atomically(self.folder / _DESCRIPTION, lambda file: file.write(description.encode()))

    def _path(self, index: int, flip: bool) -> Path:
        return self.folder / f"{index // 1000:04d}" / f"{index:07d}{'_mirrored' if flip else ''}.npz"

    def load(self, index: int, flip: bool) -> CachedLatents | None:
        """The latents of a sample; None if they are not there, are damaged, or belong to another sample."""
        try:
            with np.load(self._path(index, flip), allow_pickle=False) as stored:
                if str(stored["name"]) != self._set.sample_name(index):
                    return None
                height, width = (int(length) for length in stored["size"])
                return CachedLatents(stored["image"], stored["target"], stored["mask"], (height, width))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def store(self, index: int, flip: bool, latents: CachedLatents) -> None:
        path = self._path(index, flip)
        path.parent.mkdir(exist_ok=True)
        arrays: dict[str, Any] = {
            "name": np.array(self._set.sample_name(index)),
            "size": np.array(latents.size),
            "image": latents.image,
            "target": latents.target,
            "mask": latents.mask,
        }
        write_atomically(path, lambda file: np.savez(file, **arrays))

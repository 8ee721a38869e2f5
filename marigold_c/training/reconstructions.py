"""What an autoencoder is trained on and judged by: pictures and maps of any task, and their reconstructions. Called by
run.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic_files import write_atomically
from ..loading.config import read_json_object
from ..pipelines.opening import load
from ..pipelines.pipeline import MarigoldPipeline
from .examples import Example, TrainingSet
from .settings import DataSetConfig, TrainingConfig
from .validation import Pictures

Array = NDArray[np.float32]

_SCALED_BY = 16  # samples of each data set whose latents decide the scaling factor


def pictures_of(examples: Sequence[Example]) -> Array:
    """The images of samples and their maps, (N, 3, H, W), all in [-1, 1]."""
    maps = [one.target[first : first + 3] for one in examples for first in range(0, len(one.target), 3)]
    return np.stack([*(one.image for one in examples), *maps])


def _some(data: TrainingSet, count: int) -> Iterator[Example]:
    """The first samples, unchanged."""
    for index in range(min(len(data), count)):
        yield data.example(index, False, None)


def write_scaling_factor(folder: Path, sets: Sequence[TrainingSet]) -> None:
    """Into vae/config.json of a checkpoint: with it the latents of the first samples have the variance 1."""
    pipe: MarigoldPipeline[Any] = load(folder)
    latents = [np.ravel(pipe.vae.encode(pictures_of([one]))) for data in sets for one in _some(data, _SCALED_BY)]
    deviation = float(np.concatenate(latents).astype(np.float64).std())
    path = folder / "vae" / "config.json"
    config = dict(read_json_object(path)) | {"scaling_factor": 1 / max(deviation, 1e-6)}
    write_atomically(path, lambda file: file.write(json.dumps(config, indent=2).encode() + b"\n"))


def _psnr(found: Array, wanted: Array) -> float:
    """Of values in [-1, 1], in dB."""
    error = float(np.mean(np.square(np.clip(found, -1, 1) - wanted, dtype=np.float64)))
    return float(10 * np.log10(4 / max(error, 1e-12)))


def _picture(planes: Array) -> NDArray[np.uint8]:
    picture: NDArray[np.uint8] = np.rint(np.clip(planes.transpose(1, 2, 0) + 1, 0, 2) * 127.5).astype(np.uint8)
    return picture


class Reconstructions:
    """Held-out data sets, as validation.HeldOut has them for predictions."""

    def __init__(self, entries: Sequence[DataSetConfig], config: TrainingConfig, base_data_dir: str | Path) -> None:
        """DatasetError if one cannot be opened."""
        self._sets = [TrainingSet(entry, config, base_data_dir) for entry in entries]
        self._count = config.validation.max_samples

    def __len__(self) -> int:
        return len(self._sets)

    def _of(self, pipe: MarigoldPipeline[Any], data: TrainingSet) -> Iterator[tuple[Example, Array, Array]]:
        for example in _some(data, self._count or len(data)):
            wanted = pictures_of([example])
            yield example, wanted, pipe.vae.decode(pipe.vae.encode(wanted))

    def scores(self, pipe: MarigoldPipeline[Any]) -> Iterator[tuple[str, dict[str, float]]]:
        """(data set, {"psnr": mean over pictures and maps, "psnr_depth": ...})."""
        for data in self._sets:
            names = ("image", *data.target_names)
            rows = [
                [_psnr(a, b) for a, b in zip(found, wanted, strict=True)] for _, wanted, found in self._of(pipe, data)
            ]
            means = np.mean(np.array(rows), axis=0)
            each: dict[str, Any] = {f"psnr_{name}": float(mean) for name, mean in zip(names, means, strict=True)}
            yield data.name, {"psnr": float(means.mean()), **each}

    def pictures(self, pipe: MarigoldPipeline[Any]) -> Iterator[tuple[str, Pictures]]:
        """(data set, picture and maps above their reconstructions)."""
        for data in self._sets:
            for example, wanted, found in self._of(pipe, data):
                rows = [np.concatenate([_picture(one) for one in many], axis=1) for many in (wanted, found)]
                name = example.name.rsplit(": ", 1)[-1].replace("/", "_")
                yield data.name, Pictures(name, np.concatenate(rows, axis=0))

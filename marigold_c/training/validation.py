"""Held-out samples during training: predictions of the current weights, scored as `marigold eval` scores them, and
pictures. Called by run.py.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..atomic_files import write_atomically
from ..datasets import Dataset, open_dataset
from ..errors import SampleError
from ..evaluation.inference import predicted_maps
from ..evaluation.pictures import View, draw
from ..evaluation.scoring import Scorer
from ..evaluation.settings import EvaluationSettings
from ..images.readers import InputError
from ..messages import explain
from ..pipelines.pipeline import MarigoldPipeline
from .coarse_inputs import refined_call
from .sections import Validation
from .seeds import seed_sequence
from .settings import DataSetConfig, TrainingConfig

# Metrics of which more is better; of all others less is.
_MORE_IS_BETTER = frozenset(
    (
        *("delta1_acc", "delta2_acc", "delta3_acc", "psnr", "ssim"),
        *("sub5_error", "sub7_5_error", "sub11_25_error", "sub22_5_error", "sub30_error"),
    )
)


def more_is_better(metric: str) -> bool:
    """The direction of a metric by its name; psnr_albedo is a psnr."""
    return metric in _MORE_IS_BETTER or metric.split("_")[0] in ("psnr", "ssim")


def improves(metric: str, value: float, best: float | None) -> bool:
    """Whether a value is better than the best one so far; what is no number never is."""
    if not np.isfinite(value):
        return False
    return best is None or (value > best if more_is_better(metric) else value < best)


def main_metric(config: TrainingConfig) -> str | None:
    """The metric that decides which checkpoint is best; of intrinsic images the albedo's, or the first target's."""
    metric = config.validation.main_metric
    if metric is None or config.task != "iid":
        return metric
    targets = config.target_names
    return f"{metric}_{'albedo' if 'albedo' in targets else targets[0]}"


def goal_complaint(validation: Validation) -> str | None:
    """What to say where the configuration has the wrong direction, as prs-eth has for PSNR; the right one is used."""
    if validation.main_metric is None or validation.goal is None:
        return None
    right = "maximize" if more_is_better(validation.main_metric) else "minimize"
    if right == validation.goal:
        return None
    return (
        f"validation.main_val_metric_goal is {validation.goal}, but the best {validation.main_metric} is the "
        f"{'largest' if right == 'maximize' else 'smallest'}: the best checkpoint is chosen so"
    )


@dataclass(frozen=True)
class Pictures:
    """A strip of pictures of one sample, (H, W, 3): the image, the prediction, the truth and the error."""

    name: str
    strip: NDArray[np.uint8]


def _strip(view: View) -> NDArray[np.uint8]:
    images = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _, data in view.pictures]
    height = min(image.shape[0] for image in images)
    return np.concatenate([image[:height] for image in images], axis=1)


class HeldOut:
    """The data sets that a run is validated on, or draws pictures of."""

    def __init__(self, entries: Sequence[DataSetConfig], config: TrainingConfig, base_data_dir: str | Path) -> None:
        """DatasetError if one cannot be opened, or lacks a file: better now than after hours."""
        self._config = config
        self._sets = [open_dataset(entry.options, base_data_dir, task=config.task) for entry in entries]
        validation, evaluation = config.validation, config.evaluation
        for data in self._sets:
            self._check_files(data)
        self._settings = EvaluationSettings(
            alignment="least_square" if config.task == "depth" else "none",
            alignment_max_res=evaluation.alignment_max_resolution,
            target_names=config.target_names if config.task == "iid" else None,
            linear_targets=tuple(evaluation.linear_targets or ()),
            use_mask=validation.use_mask,
        )

    def _count(self, data: Dataset) -> int:
        return min(len(data), self._config.validation.max_samples or len(data))

    def _check_files(self, data: Dataset) -> None:
        for sample in data.samples[: self._count(data)]:
            for member in sample.members:
                try:
                    data.source.read(member, most=1)
                except (InputError, OSError) as error:
                    raise SampleError(data.display_name, sample.name, member, explain(error)) from error

    def _predictions(self, pipe: MarigoldPipeline[Any], data: Dataset) -> Iterator[tuple[int, NDArray[np.uint8], Any]]:
        validation = self._config.validation
        count = self._count(data)
        # Of the whole set, as in prs-eth, so that a sample has the same noise however many are used.
        seeds: Sequence[int | None] = [None] * count
        if validation.seed is not None:
            seeds = [*reversed(seed_sequence(validation.seed, len(data)))][:count]
        zeros: dict[str, Any] = {"latents": "zeros"}
        from_zeros = self._config.objective == "e2e" and not self._config.starts_from_noise
        for index, seed in enumerate(seeds):
            image = data.read_image(index)
            noise = zeros if from_zeros else {"generator": seed}
            options = {
                "num_inference_steps": validation.steps,
                "ensemble_size": validation.ensemble_size,
                "processing_resolution": validation.resolution,
                "match_input_resolution": validation.match_input_resolution,
                "resample_method_input": validation.resample,
                "resample_method_output": validation.resample,
                "preset": validation.preset,
                **noise,
            }
            if self._config.objective == "refine":
                options = refined_call(options, image, self._config)
            yield index, image, predicted_maps(pipe, image, options)

    def scores(self, pipe: MarigoldPipeline[Any]) -> Iterator[tuple[str, dict[str, float]]]:
        """(data set, {metric: mean over its samples}), the metrics that the configuration lists, or all."""
        wanted = self._config.evaluation.metrics
        for data in self._sets:
            scorer = Scorer(data, self._settings)
            sums: dict[str, list[float]] = {}
            for index, _, maps in self._predictions(pipe, data):
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="LPIPS is left out")
                    values = scorer.score(index, scorer.truth(index), maps).values
                for name, value in values.items():
                    if not wanted or name in wanted or any(name.startswith(f"{one}_") for one in wanted):
                        sums.setdefault(name, []).append(value)
            yield data.display_name, {name: float(np.mean(values)) for name, values in sums.items()}

    def pictures(self, pipe: MarigoldPipeline[Any]) -> Iterator[tuple[str, Pictures]]:
        """(data set, pictures of a sample)."""
        for data in self._sets:
            scorer = Scorer(data, self._settings)
            for index, image, maps in self._predictions(pipe, data):
                comparison = scorer.compare(index, scorer.truth(index), maps)
                name = data.samples[index].name.replace("/", "_")
                yield data.display_name, Pictures(name, _strip(draw(image, comparison, self._config.task)))


def save_pictures(folder: Path, pictures: Pictures) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{Path(pictures.name).stem}.png"
    write_atomically(path, lambda file: Image.fromarray(pictures.strip).save(file, format="PNG"))


def summary(scores: Mapping[str, Mapping[str, float]]) -> str:
    """The text of RUN/evaluation/eval-SET-iterNNNNNN.txt: one line a metric."""
    return "".join(
        f"{data_set}: {metric}: {value:.6g}\n"
        for data_set, values in scores.items()
        for metric, value in values.items()
    )

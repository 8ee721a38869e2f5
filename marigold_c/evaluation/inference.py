"""The prediction of one sample of a data set, and its evaluation right away where that is asked for: the work that
engines.py and ray_engine.py hand out. Called by commands/infer.py and commands/eval.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import Dataset
from ..images.target_views import target_names
from ..messages import explain
from ..pipelines.opening import open_pipeline
from ..pipelines.pipeline import MarigoldPipeline
from ..pipelines.targets import intrinsic_properties
from .engines import Share
from .pictures import View, draw
from .prediction_files import WHOLE, Maps, load_predictions, save_predictions
from .scoring import Score, Scorer
from .settings import EvaluationSettings


@dataclass(frozen=True)
class Outcome:
    """Of one sample: a score if one was asked for, or why the sample is left out."""

    index: int
    seconds: float = 0.0
    fault: str | None = None
    score: Score | None = None
    view: View | None = None


def _attempt(index: int, work: Callable[[], tuple[Score | None, View | None]]) -> Outcome:
    """A fault of one sample is a result like another: the run goes on."""
    started = time.perf_counter()
    try:
        score, view = work()
    except Exception as error:
        return Outcome(index, time.perf_counter() - started, fault=explain(error))
    return Outcome(index, time.perf_counter() - started, score=score, view=view)


@dataclass(frozen=True)
class InferenceJob:
    """Predictions for samples of a data set.

    model: options of load(). call: options of the pipeline's call. noise: its generator or latents, the same for each
    sample. folder: where predictions go, or None. evaluation: None, or how each is scored at once.
    """

    task: str
    dataset: Dataset
    checkpoint: str
    model: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    noise: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    evaluation: EvaluationSettings | None = None

    def open(self, share: Share) -> Callable[[int], Outcome]:
        """Opens the pipeline, once for a worker."""
        maps_of = self.predictor(share)
        scorer = None if self.evaluation is None else Scorer(self.dataset, self.evaluation)

        def predict(index: int) -> tuple[Score | None, View | None]:
            pixels = self.dataset.read_image(index)
            maps = maps_of(index, pixels)
            if self.folder is not None:
                save_predictions(self.folder, self.dataset, index, maps)
            if scorer is None:
                return None, None
            truth = scorer.truth(index)
            score = scorer.score(index, truth, maps)
            return score, draw(pixels, scorer.compare(index, truth, maps), self.task)

        return lambda index: _attempt(index, lambda: predict(index))

    def predictor(self, share: Share) -> Callable[[int, NDArray[Any]], Maps]:
        """(sample, its image) -> its maps."""
        pipe = open_pipeline(self.task, self.checkpoint, **self.model, num_threads=share.threads)
        pipe.set_progress_bar_config(disable=True)
        return lambda _index, pixels: predicted_maps(pipe, pixels, {**self.call, **self.noise})

    @staticmethod
    def lost(index: int, reason: str) -> Outcome:
        return Outcome(index, fault=reason)


def predicted_maps(pipe: MarigoldPipeline[Any], pixels: Any, options: Mapping[str, Any]) -> Maps:
    """By target: depth (H, W), normals (H, W, 3), intrinsic images (H, W, 3) each."""
    out = pipe(pixels, **options).prediction
    if pipe.task == "intrinsics":
        return dict(zip(target_names(intrinsic_properties(pipe)), out, strict=True))
    return {WHOLE: out[0, :, :, 0] if pipe.task == "depth" else np.ascontiguousarray(out[0])}


@dataclass(frozen=True)
class EvaluationJob:
    """Scores of the predictions in a folder."""

    dataset: Dataset
    folder: Path
    evaluation: EvaluationSettings

    def open(self, share: Share) -> Callable[[int], Outcome]:
        scorer = Scorer(self.dataset, self.evaluation)

        def score(index: int) -> tuple[Score | None, View | None]:
            truth = scorer.truth(index)
            maps = load_predictions(self.folder, self.dataset, index, scorer.shapes(truth))
            return scorer.score(index, truth, maps), None

        return lambda index: _attempt(index, lambda: score(index))

    def view(self, index: int) -> View:
        """The pictures of a sample that has a score."""
        scorer = Scorer(self.dataset, self.evaluation)
        truth = scorer.truth(index)
        maps = load_predictions(self.folder, self.dataset, index, scorer.shapes(truth))
        return draw(self.dataset.read_image(index), scorer.compare(index, truth, maps), self.dataset.task)

    @staticmethod
    def lost(index: int, reason: str) -> Outcome:
        return Outcome(index, fault=reason)

"""Other families than Marigold's on the CUDA backend against the CPU, Marigold-HR, videos by RollingDepth, and guided
completion of depth. In half precisions where the networks or their use are another."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import family_checkpoints as families
import hr_checkpoints as hr
import numpy as np
import pytest

import marigold_c as mc

pytestmark = pytest.mark.filterwarnings("ignore:checkpoints of genpercept")
Predict = Callable[..., Any]
IMAGE = families.IMAGE[:16, :24]


def opened(load: Callable[..., Any], path: Path, **options: Any) -> Any:
    pipe = load(path, num_threads=1, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def of_an_image(name: str, folder: Path) -> Predict:
    path, needed = families.make(name, folder)
    return lambda **options: (
        opened(mc.load, path, **needed, **options)(IMAGE, processing_resolution=0, generator=1).prediction
    )


def refined(folder: Path) -> Predict:
    """In two tiles."""
    path = hr.make(folder / "marigold-depth-hr-v1-1")
    few = {"num_inference_steps": 1, "boosted_num_inference_steps": 1, "boosted_ensemble_size": 1, "ensemble_size": 1}
    return lambda **options: (
        opened(mc.MarigoldDepthHRPipeline.from_pretrained, path, **options)(
            IMAGE, processing_resolution=24, upscale_factor=1, tile_size=16, tile_overlap=8, generator=1, **few
        ).prediction
    )


def of_a_video(folder: Path) -> Predict:
    path, _ = families.make("rollingdepth", folder)
    frames = [np.roll(IMAGE, shift, 1) for shift in range(3)]

    def predict(**options: Any) -> Any:
        pipe = opened(mc.load, path, **options)
        outputs = mc.predict_video(pipe, frames, (1,), None, 1, 0, generator=1, alignment_iterations=20)
        return np.concatenate([out.prediction for out in outputs])

    return predict


def completed(folder: Path) -> Predict:
    """Gradients through decoder and UNet, two steps of Adam. In units of the farthest point: others are in [0, 1]."""
    path = families.make_thin("depth", folder / "thin")
    rng = np.random.default_rng(3)
    sparse = np.zeros(IMAGE.shape[:2], np.float32)
    sparse.flat[rng.permutation(sparse.size)[:40]] = rng.uniform(1, 4, 40)
    return lambda **options: (
        opened(mc.MarigoldDepthCompletionPipeline.from_pretrained, path, **options)(
            IMAGE, sparse, num_inference_steps=2, processing_resolution=0, generator=1
        ).prediction
        / sparse.max()
    )


ALL: dict[str, Callable[[Path], Predict]] = {
    **{name: functools.partial(of_an_image, name) for name in ("e2e-ft, Stable Diffusion", "lotus-g", "genpercept")},
    "lotus-d": functools.partial(of_an_image, "lotus-d"),
    "Marigold-HR": refined,
    "a video by RollingDepth": of_a_video,
    "completion": completed,
}
# Those that are slow to emulate: one each, both where the UNet is another.
HALVES = {
    "lotus-d": ("bfloat16", "float16"),
    "Marigold-HR": ("float16",),
    "a video by RollingDepth": ("bfloat16",),
    "completion": ("bfloat16",),
}


@pytest.mark.parametrize("name", ALL)
def test_predictions_are_those_of_the_cpu(name: str, tmp_path: Path) -> None:
    """The mean error of half precisions; of float32 the greatest."""
    predict = ALL[name](tmp_path)
    expected = predict()
    assert np.ptp(expected) > 0.01
    assert np.abs(predict(device="cuda") - expected).max() <= 1e-4
    for dtype in HALVES.get(name, ()):
        assert 0 < np.abs(predict(device="cuda", dtype=dtype) - expected).mean() <= 0.05, dtype

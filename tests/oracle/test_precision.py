"""bfloat16 and int8 pipelines on the shipped checkpoints: errors against float32, beside PyTorch's in bfloat16."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import marigold_c as mc

Array = NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[2]
IMAGES = (ROOT / "tests/data/scene0.png", ROOT / "tests/data/scene1.png", ROOT / "examples/photo.jpg")
TASKS = ("depth", "normals", "intrinsics")


@cache
def ours(task: str, dtype: str) -> Any:
    pipe = mc.load(mc.default_checkpoint(task), dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@cache
def theirs(task: str) -> Any:
    folder = Path(mc.default_checkpoint(task))
    name = json.loads((folder / "model_index.json").read_text("utf-8"))["_class_name"]
    variant = "fp16" if list((folder / "unet").glob("*.fp16.*")) else None
    pipe = getattr(diffusers, name).from_pretrained(folder, variant=variant, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


@cache
def turned() -> tuple[NDArray[np.uint8], ...]:
    """Each image, its mirror image, and both upside down: how one image's roundings fall moves its error by half."""
    return tuple(image[::y, ::x].copy() for image in map(read, IMAGES) for y in (1, -1) for x in (1, -1))


def predict(pipe: Any, image: NDArray[np.uint8], steps: int) -> Array:
    generator = torch.Generator("cpu").manual_seed(0)
    found = pipe(image, num_inference_steps=steps, processing_resolution=0, generator=generator).prediction
    return np.asarray(found, np.float64)


def root_mean_square(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("steps", [1, 4])
def test_bfloat16_is_as_close_as_that_of_torch(task: str, steps: int) -> None:
    exact = [predict(ours(task, "float32"), image, steps) for image in turned()]
    pairs = list(zip(turned(), exact, strict=True))
    mine = [root_mean_square(predict(ours(task, "bfloat16"), image, steps) - x) for image, x in pairs]
    other = [root_mean_square(predict(theirs(task), image, steps) - x) for image, x in pairs]
    assert np.mean(mine) <= np.mean(other)
    assert min(mine) > 0  # it is another computation


def absolute_relative_error(found: Array, expected: Array, least: float) -> float:
    """AbsRel after alignment by scale and shift, of pixels at least `least` deep: nearer ones are divided by next to
    nothing, and even bfloat16 is off by 1 % in the mean with them."""
    columns = np.stack([found.ravel(), np.ones(found.size)], axis=1)
    aligned = columns @ np.linalg.lstsq(columns, expected.ravel(), rcond=None)[0]
    seen = expected.ravel() >= least
    return float(np.mean(np.abs(aligned - expected.ravel())[seen] / expected.ravel()[seen]))


def test_depth_in_int8_is_within_one_percent() -> None:
    errors = []
    for image in map(read, IMAGES):
        exact = predict(ours("depth", "float32"), image, 1)
        errors.append(absolute_relative_error(predict(ours("depth", "int8"), image, 1), exact, 0.05))
    assert np.mean(errors) <= 0.01


@pytest.mark.parametrize("task", ["normals", "intrinsics"])
def test_int8_is_within_three_times_the_error_of_bfloat16(task: str) -> None:
    images = [read(path) for path in IMAGES]
    exact = [predict(ours(task, "float32"), image, 1) for image in images]
    errors = {
        dtype: np.mean(
            [root_mean_square(predict(ours(task, dtype), i, 1) - x) for i, x in zip(images, exact, strict=True)]
        )
        for dtype in ("bfloat16", "int8")
    }
    assert errors["bfloat16"] < errors["int8"] <= 3 * errors["bfloat16"]


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("task", TASKS)
def test_ensembles_do_not_depend_on_batches_or_threads(task: str, dtype: str) -> None:
    image = np.asarray(Image.open(IMAGES[0]).convert("RGB"))
    found = []
    for threads, batch_size in ((1, 1), (2, 2), (3, 3)):
        pipe = mc.load(mc.default_checkpoint(task), dtype=dtype, num_threads=threads)
        pipe.set_progress_bar_config(disable=True)
        generator = mc.Generator(3)
        out = pipe(image, num_inference_steps=1, ensemble_size=3, batch_size=batch_size, generator=generator)
        found.append(out.prediction)
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])

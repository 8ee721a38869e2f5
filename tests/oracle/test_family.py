"""All three pipelines against diffusers', live, on the small trained checkpoints, from the same latents or seeds: the
parameters that diffusers' own tests of Marigold vary. Depth ensembles of affine-invariant depth are compared with the
maps that both sides merge, since the reference solver of diffusers is defined up to its own noise only.

Both compute in float32; what remains is the order of the sums. One step may differ by 1e-4, four by 5e-4; normals by
0.05 degrees.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marigold_c as mc

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pipelines = pytest.importorskip("oracle_pipelines")
photo, for_diffusers = pipelines.photo, pipelines.for_diffusers

TOLERANCE = {1: 1e-4, 4: 5e-4}
METHODS = ["nearest", "nearest-exact", "bilinear", "bicubic", "area"]
OTHERS = ("normals", "intrinsics")  # depth has more tests of its own in test_pipeline.py


def latents_for(ours: Any, samples: int, size: tuple[int, int], resolution: int) -> np.ndarray:
    *_, padded_h, padded_w = mc._C.geometry(*size, resolution, ours.vae_scale_factor)
    channels = ours.unet.config.out_channels
    shape = (samples, channels, padded_h // ours.vae_scale_factor, padded_w // ours.vae_scale_factor)
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def check(task: str, got: Any, wanted: Any, steps: int) -> None:
    assert got.prediction.shape == wanted.prediction.shape
    assert got.prediction.dtype == np.float32
    difference = np.abs(got.prediction - wanted.prediction)
    if task == "normals":
        # A vector near zero turns by any angle: its direction is that of its rounding. Few may.
        angle = pipelines.degrees_between(got.prediction, wanted.prediction)
        assert np.quantile(angle, 0.999) <= 0.05
        assert np.quantile(difference, 0.999) <= 10 * TOLERANCE[steps]
    else:
        assert difference.max() <= TOLERANCE[steps]
    assert (got.uncertainty is None) == (wanted.uncertainty is None)
    if got.uncertainty is not None:
        assert got.uncertainty.shape == wanted.uncertainty.shape
        assert np.abs(got.uncertainty - wanted.uncertainty).max() <= 2 * TOLERANCE[steps]
    if wanted.latent is not None:
        spread = float(wanted.latent.square().mean().sqrt())
        assert np.abs(got.latent - wanted.latent.numpy()).max() <= 10 * TOLERANCE[steps] * spread


def compare(
    task: str, image: Any, images: int, size: tuple[int, int], steps: int = 1, resolution: int = 128, **options: Any
) -> None:
    ours, theirs = pipelines.open_ours(task), pipelines.open_theirs(task)
    latents = latents_for(ours, images * options.get("ensemble_size", 1), size, resolution)
    common = {"num_inference_steps": steps, "processing_resolution": resolution, "output_latent": True, **options}
    got = ours(image, latents=latents, **common)
    wanted = theirs(for_diffusers(image), latents=torch.from_numpy(latents), **common)
    check(task, got, wanted, steps)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("size", [(96, 128), (128, 96), (101, 67), (37, 143), (8, 8), (9, 130)])
@pytest.mark.parametrize("task", OTHERS)
def test_sizes(task: str, size: tuple[int, int], steps: int) -> None:
    compare(task, photo(*size), 1, size, steps)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", OTHERS)
def test_resample_methods(task: str, method: str) -> None:
    compare(task, photo(101, 143), 1, (101, 143), resample_method_input=method, resample_method_output=method, steps=1)


@pytest.mark.parametrize("resolution", [0, 64, 128])
@pytest.mark.parametrize("match", [True, False])
@pytest.mark.parametrize("task", OTHERS)
def test_resolutions(task: str, resolution: int, match: bool) -> None:
    compare(task, photo(101, 67), 1, (101, 67), resolution=resolution, match_input_resolution=match)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("task", OTHERS)
def test_batches(task: str, batch_size: int) -> None:
    images = np.stack([photo(61, 99, seed=i) for i in range(3)])
    compare(task, images, 3, (61, 99), 4, batch_size=batch_size)
    compare(task, [Image.fromarray(one) for one in images], 3, (61, 99), batch_size=batch_size)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("task", OTHERS)
def test_the_same_seed(task: str, steps: int) -> None:
    ours, theirs = pipelines.open_ours(task), pipelines.open_theirs(task)
    image = Image.fromarray(photo(75, 110))
    got = ours(image, steps, generator=mc.Generator(2024))
    check(task, got, theirs(image, steps, generator=torch.Generator().manual_seed(2024)), steps)


@contextmanager
def schedulers(task: str, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Both pipelines with an LCM scheduler, as the LCM checkpoints have."""
    ours, theirs = pipelines.open_ours(task), pipelines.open_theirs(task)
    before = ours.scheduler, theirs.scheduler
    try:
        ours.scheduler = mc.LCMScheduler.from_config(ours.scheduler.config, **options)
        theirs.scheduler = diffusers.LCMScheduler.from_config(theirs.scheduler.config, **options)
        yield ours, theirs
    finally:
        ours.scheduler, theirs.scheduler = before


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("task", OTHERS)
def test_lcm(task: str, steps: int, batch_size: int) -> None:
    with schedulers(task) as (ours, theirs):
        images = [Image.fromarray(photo(64, 100, seed=i)) for i in range(3)]
        got = ours(images, steps, generator=3, batch_size=batch_size)
        check(
            task, got, theirs(images, steps, generator=torch.Generator().manual_seed(3), batch_size=batch_size), steps
        )


# ---- ensembles ----


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("match", [True, False])
@pytest.mark.parametrize("reduction", [0, 1])
@pytest.mark.parametrize("members", [3, 5])
@pytest.mark.parametrize("task", OTHERS)
def test_ensembles(task: str, members: int, reduction: int, match: bool, batch_size: int) -> None:
    name = pipelines.open_ours(task)._reductions[reduction]
    options = {"ensemble_size": members, "ensembling_kwargs": {"reduction": name}, "output_uncertainty": True}
    image = np.stack([photo(75, 110, seed=i) for i in range(2)])
    if reduction == 0:
        options["ensembling_kwargs"] = None  # the default
    compare(task, image, 2, (75, 110), batch_size=batch_size, match_input_resolution=match, **options)


@pytest.mark.parametrize("reduction", ["median", "mean"])
def test_depth_ensembles_without_uncertainty_of_the_solver(reduction: str) -> None:
    """The pipeline merges what its members are alone: an ensemble's run without the solvers' differences."""
    ours = pipelines.open_ours("depth")
    image = photo(75, 110)
    latents = latents_for(ours, 3, (75, 110), 128)
    options = {"num_inference_steps": 1, "processing_resolution": 128}
    members = [
        ours(image, latents=one[None], match_input_resolution=False, **options).prediction.transpose(0, 3, 1, 2)
        for one in latents
    ]
    wanted, deviation = mc.ensemble_depth(np.concatenate(members), output_uncertainty=True, reduction=reduction)
    got = ours(
        image,
        latents=latents,
        ensemble_size=3,
        output_uncertainty=True,
        ensembling_kwargs={"reduction": reduction},
        match_input_resolution=False,
        **options,
    )
    assert np.array_equal(got.prediction[0, :, :, 0], wanted[0, 0])
    assert np.array_equal(got.uncertainty[0, :, :, 0], deviation[0, 0])


def test_depth_ensembles_are_close_to_those_of_diffusers() -> None:
    """In the mean: the solver of diffusers stops where its finite differences vanish."""
    ours, theirs = pipelines.open_ours("depth"), pipelines.open_theirs("depth")
    scene = np.asarray(Image.open(Path(__file__).parent.parent / "data" / "scene0.png").convert("RGB"))
    latents = latents_for(ours, 5, scene.shape[:2], 128)
    common = {"num_inference_steps": 1, "ensemble_size": 5, "output_uncertainty": True, "processing_resolution": 128}
    wanted = theirs(for_diffusers(scene), latents=torch.from_numpy(latents), **common)
    for solver in ("closed-form", "reference"):
        got = ours(scene, latents=latents, ensembling_kwargs={"solver": solver}, **common)
        assert got.prediction.min() >= 0
        assert got.prediction.max() <= 1
        assert np.abs(got.prediction - wanted.prediction).mean() <= 0.05
        assert np.abs(got.uncertainty - wanted.uncertainty).mean() <= 0.02


def test_ensembles_do_not_depend_on_the_batch() -> None:
    for task in pipelines.TASKS:
        ours = pipelines.open_ours(task)
        image = photo(61, 99)
        options = {"ensemble_size": 10, "output_uncertainty": True, "output_latent": True, "num_inference_steps": 2}
        one, ten = (ours(image, generator=5, batch_size=size, **options) for size in (1, 10))
        for name in ("prediction", "uncertainty", "latent"):
            assert np.array_equal(one[name], ten[name]), (task, name)


# ---- what a checkpoint may say ----


def test_half_z_range() -> None:
    ours, theirs = pipelines.open_ours("normals"), pipelines.open_theirs("normals")
    latents = latents_for(ours, 1, (48, 64), 64)
    options = {"num_inference_steps": 1, "processing_resolution": 64}
    try:
        theirs.use_full_z_range = False
        wanted = theirs(for_diffusers(photo(48, 64)), latents=torch.from_numpy(latents), **options).prediction
    finally:
        theirs.use_full_z_range = True
    full = ours(photo(48, 64), latents=latents, **options).prediction
    assert np.abs(full - wanted).max() > 0.1
    half = half_range_pipeline()(photo(48, 64), latents=latents, **options).prediction
    assert np.quantile(pipelines.degrees_between(half, wanted), 0.999) <= 0.05


def half_range_pipeline() -> Any:
    import json
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(mc.default_checkpoint("normals"), folder / "half")
        index = folder / "half" / "model_index.json"
        index.write_text(json.dumps({**json.loads(index.read_text()), "use_full_z_range": False}))
        pipe = mc.load(folder / "half", num_threads=1)
    finally:
        shutil.rmtree(folder)  # the weights stay mapped
    assert not pipe.use_full_z_range
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_targets() -> None:
    ours, theirs = pipelines.open_ours("intrinsics"), pipelines.open_theirs("intrinsics")
    assert ours.n_targets == theirs.n_targets == 3
    assert dict(ours.target_properties) == dict(theirs.target_properties)
    two = ours([photo(40, 56), photo(40, 56, seed=1)], generator=0).prediction
    one = ours(photo(40, 56, seed=1), latents=None, generator=0).prediction
    assert two.shape == (6, 40, 56, 3)
    assert one.shape == (3, 40, 56, 3)


IMAGE = np.zeros((16, 24, 3), np.uint8)
REFUSED = [
    {"num_inference_steps": 0},
    {"ensemble_size": 0},
    {"output_uncertainty": True},
    {"processing_resolution": -8},
    {"processing_resolution": 100},
    {"resample_method_input": "lanczos"},
    {"resample_method_output": "linear"},
    {"batch_size": -1},
    {"output_type": "pil"},
    {"ensembling_kwargs": [1]},
    {"ensembling_kwargs": {"reduction": "max"}},
    {"image": np.zeros((4,), np.uint8)},
    {"image": {"path": "photo.jpg"}},
    {"image": [IMAGE, np.zeros((5,), np.uint8)]},
    {"latents": torch.zeros(1, 4, 3)},
    {"latents": torch.zeros(1, 5, 11, 16)},
    {"generator": [torch.Generator(), torch.Generator()]},
    {"generator": "seed"},
]


@pytest.mark.parametrize("options", REFUSED, ids=lambda options: "-".join(options))
@pytest.mark.parametrize("task", OTHERS)
def test_both_refuse(task: str, options: dict[str, Any]) -> None:
    arguments = {"image": IMAGE, **options}
    with pytest.raises(ValueError):
        pipelines.open_theirs(task)(**arguments)
    with pytest.raises(ValueError):
        pipelines.open_ours(task)(**arguments)


@pytest.mark.parametrize(
    ("task", "reduction"), [("depth", "closest"), ("normals", "median"), ("intrinsics", "closest")]
)
def test_both_refuse_the_reductions_of_others(task: str, reduction: str) -> None:
    for pipe in (pipelines.open_theirs(task), pipelines.open_ours(task)):
        with pytest.raises(ValueError, match="reduction"):
            pipe(IMAGE, ensemble_size=3, ensembling_kwargs={"reduction": reduction})
        with pytest.raises(TypeError):
            pipe(Image.fromarray(IMAGE), ensemble_size=3, ensembling_kwargs={"power": 1})

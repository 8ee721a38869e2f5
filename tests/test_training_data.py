"""Samples and batches of training: what the network is shown, in which order, and what happens to bad data."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_cases import data_entry, make_config, make_scenes

from marigold_c.errors import DatasetError, SampleError
from marigold_c.training.augmentations import crop_window
from marigold_c.training.examples import TrainingSet
from marigold_c.training.latent_cache import CachedLatents, LatentCache, autoencoder_digest
from marigold_c.training.latents import LatentEncoder
from marigold_c.training.loader import Batch, Loader, reading_threads
from marigold_c.training.mixed_sampler import BatchPlan, MixedSampler

Array = np.ndarray[Any, Any]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    make_scenes(tmp_path / "train", 9)
    return tmp_path


def open_set(root: Path, task: str = "depth", **changes: Any) -> TrainingSet:
    config = make_config(root, task, **changes)
    return TrainingSet(config.train_sets[0], config, root)


def load(root: Path, name: str, index: int = 0) -> Array:
    return np.load(root / "train" / name / f"{index:04d}.npy")


def picture(root: Path, index: int = 0) -> Array:
    return np.asarray(Image.open(root / "train" / "rgb" / f"{index:04d}.png")).astype(np.float64) / 255 * 2 - 1


def test_depth(scenes: Path) -> None:
    data = open_set(scenes)
    example = data.example(0, False, None)
    depth = load(scenes, "depth")
    near, far = np.quantile(depth, [0.02, 0.98])
    expected = np.clip((depth - near) / (far - near) * 2 - 1, -1, 1)
    np.testing.assert_allclose(example.target, np.repeat(expected[None], 3, axis=0), atol=1e-5)
    np.testing.assert_allclose(example.image, picture(scenes).transpose(2, 0, 1), atol=1e-6)
    assert example.mask.shape == (1, 48, 64) and example.mask.all()
    assert len(data) == 9 and example.name == "train: rgb/0000.png"
    assert example.files == tuple(str(scenes / "train" / name) for name in ("rgb/0000.png", "depth/0000.npy"))


def test_the_mask_is_mirrored_too(scenes: Path) -> None:
    depth = load(scenes, "depth")
    depth[:, :20] = 0
    np.save(scenes / "train" / "depth" / "0000.npy", depth)
    data = open_set(scenes)
    plain, mirrored = data.example(0, False, None), data.example(0, True, None)
    assert not plain.mask[0, :, :20].any() and plain.mask[0, :, 20:].all()
    np.testing.assert_array_equal(mirrored.mask, plain.mask[:, :, ::-1])
    np.testing.assert_array_equal(mirrored.target, plain.target[:, :, ::-1])


def test_mirrored_normals_point_the_other_way(scenes: Path) -> None:
    data = open_set(scenes, "normals")
    normals = load(scenes, "normals").transpose(2, 0, 1)
    np.testing.assert_allclose(data.example(0, False, None).target, normals)
    mirrored = data.example(0, True, None)
    np.testing.assert_allclose(mirrored.target, normals[:, :, ::-1] * np.array([-1, 1, 1])[:, None, None])
    np.testing.assert_allclose(mirrored.image, picture(scenes)[:, ::-1].transpose(2, 0, 1), atol=1e-6)


def test_own_lighting_is_scaled_in_common(scenes: Path) -> None:
    target = open_set(scenes, "iid").example(0, False, None).target
    albedo, shading, residual = (load(scenes, name).transpose(2, 0, 1) for name in ("albedo", "shading", "residual"))
    scale = max(np.quantile(shading, 0.98), np.quantile(residual, 0.98))
    expected = np.concatenate([albedo, np.minimum(shading / scale, 1), np.minimum(residual / scale, 1)]) * 2 - 1
    np.testing.assert_allclose(target, expected, atol=1e-5)
    assert shading.max() > 1.5


def test_mirrored_and_resized(scenes: Path) -> None:
    data = open_set(scenes, dataset__train=data_entry("depth", resize_to_hw=[24, 32]))
    whole, mirrored = data.example(1, False, None), data.example(1, True, None)
    assert whole.image.shape == whole.target.shape == (3, 24, 32) and whole.mask.shape == (1, 24, 32)
    # The nearest of 2 x 2 is, in both libraries' "nearest-exact", the lower right one; mirrored before it is resized.
    full = picture(scenes, 1).transpose(2, 0, 1)
    np.testing.assert_allclose(whole.image, full[:, 1::2, 1::2], atol=1e-6)
    np.testing.assert_allclose(mirrored.image, full[:, 1::2, ::-1][:, :, 1::2], atol=1e-6)
    smooth = open_set(scenes, "normals", dataset__train=data_entry("normals", resize_to_hw=[24, 32])).example(
        0, False, None
    )
    np.testing.assert_allclose(smooth.target[:, 5, 5], [0.6, 0, 0.8], atol=1e-6)


def pillow_window(values: Array, rows: slice, columns: slice, how: Image.Resampling) -> Array:
    """A window as large as the whole, by Pillow."""
    size = (values.shape[1], values.shape[0])
    planes = values[:, :, None] if values.ndim == 2 else values
    windows = [Image.fromarray(planes[rows, columns, channel]).resize(size, how) for channel in range(planes.shape[2])]
    return np.stack([np.asarray(one) for one in windows], axis=2).reshape(values.shape)


@pytest.mark.parametrize("task", ["depth", "normals", "iid"])
def test_crops(scenes: Path, task: str) -> None:
    name = {"depth": "depth", "normals": "normals", "iid": "albedo"}[task]
    depth = load(scenes, "depth")
    depth[5:30, 9:40] = 0
    np.save(scenes / "train" / "depth" / "0000.npy", depth)
    crops = {"crop_p": 1.0, "crop_smallest": 0.4}
    whole, data = open_set(scenes, task), open_set(scenes, task, augmentation=crops)
    twin = random.Random(5)
    twin.random()
    rows, columns = crop_window((48, 64), 0.4, twin)
    made = data.example(0, False, random.Random(5))
    image = np.asarray(Image.open(scenes / "train" / "rgb" / "0000.png"))
    expected = pillow_window(image, rows, columns, Image.Resampling.BILINEAR).astype(np.float64) / 255 * 2 - 1
    np.testing.assert_allclose(made.image, expected.transpose(2, 0, 1), atol=1.01 * 2 / 255)
    if task == "depth":
        values = pillow_window(depth, rows, columns, Image.Resampling.NEAREST)
        valid = values > 0
        near, far = np.quantile(values[valid], [0.02, 0.98])
        np.testing.assert_array_equal(made.mask[0], valid)
        np.testing.assert_allclose(
            made.target[0][valid], np.clip((values - near) / (far - near) * 2 - 1, -1, 1)[valid], atol=1e-5
        )
    else:
        channels = whole.example(0, False, None).target[:3].transpose(1, 2, 0)
        values = pillow_window(channels, rows, columns, Image.Resampling.BILINEAR)
        np.testing.assert_allclose(made.target[:3].transpose(1, 2, 0), values, atol=2e-3, err_msg=name)
    mirrored = data.example(0, True, random.Random(5))
    np.testing.assert_array_equal(mirrored.image, made.image[:, :, ::-1])


def test_windows_lie_in_the_image_everywhere() -> None:
    generator = random.Random(0)
    windows = [crop_window((48, 64), 0.5, generator) for _ in range(400)]
    heights = np.array([rows.stop - rows.start for rows, _ in windows])
    widths = np.array([columns.stop - columns.start for _, columns in windows])
    assert (heights.min(), heights.max(), widths.min(), widths.max()) == (24, 48, 32, 64)
    assert np.abs(heights / 48 - widths / 64).max() < 0.02 and abs(heights.mean() / 48 - 0.75) < 0.02
    firsts = np.array([(rows.start, columns.start) for rows, columns in windows])
    lasts = np.array([(rows.stop, columns.stop) for rows, columns in windows])
    assert firsts.min() == 0 and lasts.max(axis=0).tolist() == [48, 64]
    middles = (firsts + lasts) / 2 / [48, 64]
    np.testing.assert_allclose(middles.mean(axis=0), 0.5, atol=0.02)


def test_crops_happen_as_often_as_asked(scenes: Path) -> None:
    whole, data = open_set(scenes).example(0, False, None).image, open_set(scenes, augmentation={"crop_p": 0.3})
    same = [np.array_equal(data.example(0, False, random.Random(seed)).image, whole) for seed in range(200)]
    assert abs(np.mean(same) - 0.7) < 0.1


def plan(*samples: int, number: int = 0, data_set: int = 0) -> BatchPlan:
    return BatchPlan(number, data_set, samples, 1)


class Plans:
    """A sampler that has the batches given, again and again."""

    def __init__(self, *plans: BatchPlan) -> None:
        self._plans = plans

    def batches(self, first: int = 0) -> Any:
        number = first
        while True:
            yield replace(self._plans[number % len(self._plans)], number=number)
            number += 1


def images(batches: Sequence[Batch]) -> list[Array]:
    return [np.stack([item.example.image for item in batch.items if item.example]) for batch in batches]


def take(loader: Loader, count: int) -> list[Batch]:
    with loader:
        return [next(loader) for _ in range(count)]


JITTER = {"lr_flip_p": 0.5, "color_jitter_p": 0.7, "jitter_brightness_factor": 0.5, "gaussian_blur_p": 0.3}


def test_order_and_changes_do_not_depend_on_the_workers(scenes: Path) -> None:
    make_scenes(scenes / "more", 5, seed=8)
    config = make_config(
        scenes,
        augmentation=JITTER,
        dataset__train={"name": "mixed", "dataset_list": [data_entry("depth"), data_entry("depth", "more")]},
    )
    sets = [TrainingSet(entry, config, scenes) for entry in config.train_sets]

    def batches(workers: int, first: int = 0) -> list[Batch]:
        sampler = MixedSampler([len(one) for one in sets], [one.name for one in sets], 2, [0.6, 0.4], 3)
        return take(Loader(sets, sampler, workers, first=first), 12)

    alone = batches(0)
    assert len({batch.plan.data_set for batch in alone}) == 2
    for workers in (1, 4):
        found = batches(workers)
        assert [batch.plan for batch in found] == [batch.plan for batch in alone]
        for one, other in zip(images(found), images(alone), strict=True):
            np.testing.assert_array_equal(one, other)
    for one, other in zip(images(batches(2, first=5)), images(alone)[5:], strict=False):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("wanted", "device", "trainer_threads", "expected"),
    [
        (3, "cpu", None, 3),
        (0, "cuda", 1, 0),
        (None, "cpu", None, 0),
        (None, "cpu", 4, 0),
        (None, "cpu", 3, 2),
        (None, "cuda:1", None, 2),
    ],
)
def test_readers_do_not_take_turns_with_the_trainer(
    wanted: int | None, device: str, trainer_threads: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 4, 5})
    assert reading_threads(wanted, device, trainer_threads) == expected


def test_closing_stops_the_threads(scenes: Path) -> None:
    loader = Loader([open_set(scenes)], MixedSampler([9], ["train"], 2, None, 0), 3)
    next(loader)
    loader.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def damage_depth(root: Path, values: Array) -> None:
    np.save(root / "train" / "depth" / "0003.npy", values.astype(np.float32))


BAD = {
    "NaN depth": (lambda root: damage_depth(root, np.full((48, 64), np.nan)), "no pixel has a valid depth"),
    "empty mask": (lambda root: damage_depth(root, np.zeros((48, 64))), "no pixel has a valid depth"),
    "scattered mask": (
        lambda root: damage_depth(root, np.where(np.arange(48 * 64).reshape(48, 64) % 7, load(root, "depth"), 0)),
        "no latent cell has valid pixels only",
    ),
    "flat depth": (lambda root: damage_depth(root, np.full((48, 64), 2.0)), "the depth is 2 everywhere"),
    "wrong size": (lambda root: damage_depth(root, np.ones((48, 63))), "48 x 63"),
    "missing truth": (lambda root: (root / "train/depth/0003.npy").unlink(), "there is no such file"),
    "damaged truth": (lambda root: (root / "train/depth/0003.npy").write_bytes(b"\x93NUMPY\x01"), "no array"),
    "damaged image": (lambda root: (root / "train/rgb/0003.png").write_bytes(b"\x89PNG\r\n\x1a\n123"), "0003.png"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_samples_are_named_or_skipped(scenes: Path, kind: str) -> None:
    data = open_set(scenes, gt_mask_type="valid_mask_raw")
    spoil, message = BAD[kind]
    spoil(scenes)
    with pytest.raises(SampleError, match=message) as caught:
        take(Loader([data], Plans(plan(1, 2), plan(3, 4)), 2), 2)
    assert caught.value.sample == "rgb/0003.png" and "0003" in caught.value.file
    loader = Loader([data], Plans(plan(1, 3), plan(3, 3)), 2, skip_bad=True)
    first, second = take(loader, 2)
    assert [item.index for item in first.items] == [1, 4] and [item.index for item in second.items] == [4, 4]
    assert len(loader.bad_samples) == 1
    (news,) = loader.bad_samples.take_news()
    assert message in news and "0003" in news and not loader.bad_samples.take_news()


def test_sizes_that_the_vae_does_not_take(tmp_path: Path) -> None:
    make_scenes(tmp_path / "train", 9, size=(44, 64))
    with pytest.raises(
        SampleError, match=r"rgb/0001.png: is 44 x 64, but the VAE takes multiples of 8; give resize_to"
    ):
        take(Loader([open_set(tmp_path)], Plans(plan(1)), 0), 1)
    resized = open_set(tmp_path, dataset__train=data_entry("depth", resize_to_hw=[48, 64]))
    take(Loader([resized], Plans(plan(1)), 0), 1)


def test_a_disk_that_fails_names_the_sample(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "disk")

    data = open_set(scenes)
    monkeypatch.setattr(data, "example", fail)
    with pytest.raises(SampleError, match=r"train: sample rgb/0001.png: depth/0001.npy: disk: Input/output error"):
        take(Loader([data], Plans(plan(1)), 0), 1)


def test_a_set_of_bad_samples_is_given_up(scenes: Path) -> None:
    data = open_set(scenes)
    for file in (scenes / "train" / "depth").iterdir():
        file.write_bytes(b"")
    with pytest.raises(
        DatasetError, match="train: 9 samples in a row cannot be used, from number 2 on; 9 were skipped"
    ):
        take(Loader([data], Plans(plan(2)), 0, skip_bad=True), 1)


def test_sizes_that_differ_within_a_batch(scenes: Path) -> None:
    make_scenes(scenes / "train", 10, size=(40, 64))
    for name in ("rgb", "depth"):
        for file in (scenes / "train" / name).iterdir():
            if file.stem != "0009":
                file.unlink()
    kept = make_scenes(scenes / "again", 9)
    for name in ("rgb", "depth"):
        for file in (kept / name).iterdir():
            file.rename(scenes / "train" / name / file.name)
    data = open_set(scenes)
    with pytest.raises(
        SampleError, match=r"0009.png: is 40 x 64, but .*0001.png in the same batch is 48 x 64; give resize"
    ):
        take(Loader([data], Plans(plan(1, 9)), 0), 1)
    (batch,) = take(Loader([data], Plans(plan(1, 9)), 0, skip_bad=True), 1)
    assert [item.index for item in batch.items] == [1, 0]
    take(Loader([data], Plans(plan(9)), 0), 1)


def halve(images: Array) -> Array:
    """Stands in for the VAE: means of 8 x 8 blocks, in four channels."""
    n, _, height, width = images.shape
    blocks = images.reshape(n, 3, height // 8, 8, width // 8, 8).mean(axis=(3, 5))
    return np.concatenate([blocks, blocks[:, :1] ** 2], axis=1).astype(np.float32)


def test_latents_are_encoded_once(scenes: Path) -> None:
    data = open_set(scenes, "iid")
    calls: list[int] = []

    def encode(images: Array) -> Array:
        calls.append(len(images))
        return halve(images)

    def run(caches: list[LatentCache] | None) -> list[Any]:
        encoder = LatentEncoder(encode, 2.0, caches)
        loader = Loader([data], Plans(plan(0, 1), plan(1, 2), plan(0, 2)), 2, caches=caches)
        with loader:
            return [encoder(next(loader)) for _ in range(30)]

    plain = run(None)
    assert len(calls) == 30 * 4
    calls.clear()
    caches = [LatentCache(scenes / "latents", data, "digest")]
    first = run(caches)
    assert 4 * 6 <= sum(calls) < 30 * 8  # some were read ahead twice, most not
    calls.clear()
    again = run([LatentCache(scenes / "latents", data, "digest")])
    assert not calls
    for one, two, three in zip(plain, first, again, strict=True):
        for name in ("image", "target", "mask"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
            np.testing.assert_array_equal(getattr(one, name), getattr(three, name))
    assert plain[0].image.shape == (2, 4, 6, 8) and plain[0].target.shape == (2, 12, 6, 8)
    np.testing.assert_allclose(plain[0].target[:, 4:8], 2 * halve(targets_of(data, calls)), atol=1e-5)


def targets_of(data: TrainingSet, _: Any) -> Array:
    generators = [plan(0, 1).sample_generator(position) for position in range(2)]
    flips = [data.flips(generator) for generator in generators]
    return np.stack([data.example(index, flips[index], None).target[3:6] for index in range(2)])


def test_a_cache_belongs_to_its_vae_its_options_and_its_samples(scenes: Path) -> None:
    data = open_set(scenes)
    latents = CachedLatents(*(np.zeros((4, 2, 2), np.float32),) * 2, np.ones((1, 2, 2), bool), (16, 16))
    cache = LatentCache(scenes / "latents", data, "one")
    cache.store(3, True, latents)
    assert cache.load(3, True) is not None and cache.load(3, False) is None and cache.load(2, True) is None
    assert LatentCache(scenes / "latents", data, "two").load(3, True) is None
    other = open_set(scenes, depth_normalization={"min_max_quantile": 0.1})
    assert LatentCache(scenes / "latents", other, "one").folder != cache.folder
    (path,) = (cache.folder / "0000").iterdir()
    path.write_bytes(path.read_bytes()[:-30])
    assert cache.load(3, True) is None
    cache.store(3, True, latents)
    path.rename(path.with_name("0000004_mirrored.npz"))
    assert cache.load(4, True) is None  # of another sample


def test_the_digest_of_a_vae(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    (tmp_path / "README.md").write_text("x")
    digest = autoencoder_digest(tmp_path)
    (tmp_path / "README.md").write_text("y")
    (tmp_path / "model.safetensors").rename(tmp_path / "model.fp16.safetensors")
    assert autoencoder_digest(tmp_path) == digest
    (tmp_path / "model.fp16.safetensors").write_bytes(b"abd")
    assert autoencoder_digest(tmp_path) != digest

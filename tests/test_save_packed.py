"""Packed files as folders in diffusers' layout, beside the folders that they were made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import packed_files
import pytest
import safetensors_files

import marigold_c as mc
from marigold_c.loading.inspection import licence_of

PIXELS = np.random.default_rng(5).integers(0, 256, (24, 40, 3), dtype=np.uint8)
OPTIONS: dict[str, Any] = {"processing_resolution": 0, "generator": 2}


def load(path: Path, **options: Any) -> Any:
    pipe = mc.load(path, num_threads=1, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def predict(path: Path, **options: Any) -> np.ndarray:
    return np.asarray(load(path, **options)(PIXELS, **OPTIONS).prediction)


def saved(source: Path, folder: Path, dtype: str = "float32", **options: Any) -> Path:
    packed = mc.convert(source, folder / "packed.safetensors", dtype=dtype, num_threads=1)
    load(packed).save_pretrained(folder / "saved", text_encoder=source, **options)
    return folder / "saved"


def weights(folder: Path, component: str) -> dict[str, np.ndarray]:
    return safetensors_files.read(folder / component / "diffusion_pytorch_model.safetensors")


def originals(folder: Path, component: str) -> dict[str, np.ndarray]:
    (path,) = (folder / component).glob("*.safetensors")
    return safetensors_files.read(path, None)


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest, ties to even, by the format's definition alone."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("task", ["depth", "normals", "intrinsics"])
def test_float32_is_the_checkpoint(task: str, tmp_path: Path) -> None:
    source = mc.default_checkpoint(task)
    folder = saved(source, tmp_path)
    for component in ("unet", "vae"):
        found, expected = weights(folder, component), originals(source, component)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name].astype(np.float32)) for name in expected)
    for name in ("unet/config.json", "vae/config.json", "text_encoder/config.json"):
        assert json.loads((folder / name).read_text()) == json.loads((source / name).read_text())
    index, own = (json.loads((path / "model_index.json").read_text()) for path in (folder, source))
    assert index == own
    for path in (source / "tokenizer").iterdir():
        assert (folder / "tokenizer" / path.name).read_bytes() == path.read_bytes()
    assert np.array_equal(predict(folder), predict(source))


def test_float32_is_packed_to_the_same_file(tmp_path: Path) -> None:
    folder = saved(mc.default_checkpoint(), tmp_path)
    again = mc.convert(folder, tmp_path / "again.safetensors", num_threads=1)
    assert packed_files.tensors(again) == packed_files.tensors(tmp_path / "packed.safetensors")


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_rounded_weights_are_what_is_computed_with(dtype: str, tmp_path: Path) -> None:
    source = mc.default_checkpoint()
    folder = saved(source, tmp_path, dtype)
    rounded = 0
    for component in ("unet", "vae"):
        found, expected = weights(folder, component), originals(source, component)
        for name, exact in expected.items():
            exact = exact.astype(np.float32)
            rows = exact.reshape(len(exact), -1)
            half_step = np.abs(rows).max(1) / 254 * (1 + 1e-5)
            error = np.abs(found[name].reshape(rows.shape) - rows).max(1)
            as_stored = np.array_equal(found[name], exact) or np.array_equal(found[name], bfloat16(exact))
            assert as_stored or (dtype == "int8" and (error <= half_step).all()), name
            rounded += not np.array_equal(found[name], exact)
    assert rounded > 40
    packed = predict(tmp_path / "packed.safetensors")
    if dtype == "bfloat16":  # int8 rounds its rounded weights again
        assert np.array_equal(predict(folder, dtype=dtype), packed)
    assert np.abs(predict(folder) - packed).max() < 0.2


def test_licence(tmp_path: Path) -> None:
    source = shutil.copytree(mc.default_checkpoint(), tmp_path / "source")
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    assert licence_of(saved(source, tmp_path)) == "apache-2.0"


def test_variant_and_scheduler(tmp_path: Path) -> None:
    source = mc.default_checkpoint()
    pipe = load(mc.convert(source, tmp_path / "packed.safetensors", num_threads=1))
    pipe.scheduler = mc.LCMScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "saved", variant="fp32", text_encoder=str(source))
    assert {path.name for path in (tmp_path / "saved" / "vae").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.fp32.safetensors",
    }
    again = load(tmp_path / "saved", variant="fp32")
    assert isinstance(again.scheduler, mc.LCMScheduler)
    assert np.array_equal(again(PIXELS, **OPTIONS).prediction, pipe(PIXELS, **OPTIONS).prediction)


def test_vae_of_a_packed_file(tmp_path: Path) -> None:
    """Beside the other parts of a folder."""
    source, other = mc.default_checkpoint(), mc.default_checkpoint("normals")
    pipe = load(source)
    pipe.vae = load(mc.convert(other, tmp_path / "packed.safetensors", num_threads=1)).vae
    pipe.save_pretrained(tmp_path / "saved")
    assert np.array_equal(predict(tmp_path / "saved"), pipe(PIXELS, **OPTIONS).prediction)


def other_encoder(folder: Path) -> Path:
    """The checkpoint with a text encoder of the same form and other weights."""
    shutil.copytree(mc.default_checkpoint(), folder)
    path = folder / "text_encoder" / "model.fp16.safetensors"
    tensors = safetensors_files.read(path, "F16")
    rng = np.random.default_rng(1)
    safetensors_files.write(
        path, {key: ("F16", value + rng.normal(size=value.shape)) for key, value in tensors.items()}
    )
    return folder


def test_what_is_refused(tmp_path: Path) -> None:
    source = mc.default_checkpoint()
    packed = load(mc.convert(source, tmp_path / "packed.safetensors", num_threads=1))
    (tmp_path / "file").touch()
    for pipe, options, kind, message in (
        (packed, {}, ValueError, r"packed\.safetensors is a packed file: .* Give text_encoder="),
        (packed, {"text_encoder": tmp_path / "none"}, FileNotFoundError, "no checkpoint at"),
        (packed, {"text_encoder": other_encoder(tmp_path / "other")}, ValueError, "differ by .* of their largest"),
        (load(source), {"text_encoder": source}, ValueError, "`text_encoder` is for packed files"),
        (packed, {"text_encoder": tmp_path / "packed.safetensors"}, ValueError, "has no text encoder"),
    ):
        with pytest.raises(kind, match=message):
            pipe.save_pretrained(tmp_path / "out", **options)
        assert not (tmp_path / "out" / "model_index.json").exists()
    with pytest.raises(NotADirectoryError, match="is a file; give the name of a folder"):
        packed.save_pretrained(tmp_path / "file", text_encoder=source)

"""Pipelines with the shipped checkpoints on the CUDA backend against the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_cases import load, picture

import marigold_c as mc

TASKS = ("depth", "normals", "intrinsics")
# Mean error against the CPU in float32, relative to that of the CPU in bfloat16.
HALF_TOLERANCE = {"bfloat16": 2.0, "float16": 0.4}


def predict(pipe: Any, **options: Any) -> Any:
    return pipe(picture(), processing_resolution=0, generator=3, **options).prediction


@pytest.mark.parametrize("task", TASKS)
def test_predictions_are_those_of_the_cpu(task: str) -> None:
    expected = predict(load(task), num_inference_steps=2)
    pipe = load(task, device="cuda")
    found = predict(pipe, num_inference_steps=2)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4
    np.testing.assert_array_equal(predict(pipe, num_inference_steps=2), found)
    assert pipe.device == "cuda"
    stats = pipe.memory_stats()
    assert stats["weights_mapped"] == 0
    assert stats["peak"] == stats["weights_packed"] + stats["activations"] + stats["workspace"]


def test_ensembles_and_batches() -> None:
    options: dict[str, Any] = {"num_inference_steps": 1, "ensemble_size": 3}
    expected = predict(load("depth"), **options)
    pipe = load("depth", device="cuda:0")
    for batch_size in (1, 2):
        assert np.abs(predict(pipe, batch_size=batch_size, **options) - expected).max() <= 1e-4


@pytest.mark.parametrize("dtype", HALF_TOLERANCE)
@pytest.mark.parametrize("task", TASKS)
def test_half_precisions(task: str, dtype: str) -> None:
    expected = predict(load(task), num_inference_steps=1)
    usual = np.abs(predict(load(task, dtype="bfloat16"), num_inference_steps=1) - expected).mean()
    error = np.abs(predict(load(task, device="cuda", dtype=dtype), num_inference_steps=1) - expected).mean()
    assert 0 < error <= HALF_TOLERANCE[dtype] * usual, f"{error:.2e}, on the CPU {usual:.2e}"


def test_pieces() -> None:
    cpu, gpu = load("depth"), load("depth", device="cuda")
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (2, 3, 32, 40)).astype(np.float32)
    latent = cpu.vae.encode(image)
    assert np.abs(gpu.vae.encode(image) - latent).max() <= 1e-4 * np.abs(latent).max()
    decoded = cpu.vae.decode(latent)
    assert np.abs(gpu.vae.decode(latent) - decoded).max() <= 1e-4 * np.abs(decoded).max()
    sample = rng.standard_normal((2, 8, 12, 16)).astype(np.float32)
    text = cpu.empty_text_embedding
    np.testing.assert_allclose(gpu.empty_text_embedding, text, atol=1e-5)
    output = cpu.unet(sample, np.array([7.0, 900.0]), text)
    assert np.abs(gpu.unet(sample, np.array([7.0, 900.0]), text) - output).max() <= 1e-4 * np.abs(output).max()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_packed_files_of_both_devices(tmp_path: Any, dtype: str) -> None:
    """What the GPU packs opens on the GPU and, where it has the type, on the CPU; and the reverse."""
    made_on = {"cuda": load("depth", device="cuda", dtype=dtype)}
    if dtype != "float16":
        made_on["cpu"] = load("depth", dtype=dtype)
    expected = {device: predict(pipe, num_inference_steps=1) for device, pipe in made_on.items()}
    for maker, pipe in made_on.items():
        path = tmp_path / f"{maker}.safetensors"
        pipe._engine.save(path, licence=None, replace=False)
        for device in made_on:
            found = predict(mc.load(path, device=device, num_threads=1), num_inference_steps=1)
            limit = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.08, "int8": 0.15}[dtype]
            assert np.abs(found - expected[device]).max() <= limit


def test_two_pipelines_side_by_side() -> None:
    one, other = load("depth", device="cuda"), load("normals", device="cuda")
    first = predict(one, num_inference_steps=1)
    predict(other, num_inference_steps=1)
    np.testing.assert_array_equal(predict(one, num_inference_steps=1), first)

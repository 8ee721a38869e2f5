"""What happens when a GPU, its driver or its memory fails: nothing is lost, and the message says what is missing."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import marigold_c as mc

SMALL = np.full((16, 16, 3), 0.5, np.float32)


def load(**options: Any) -> Any:
    pipe = mc.load(mc.default_checkpoint("depth"), device="cuda", **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def predict(pipe: Any) -> Any:
    return pipe(SMALL, num_inference_steps=1, processing_resolution=0, generator=0).prediction


@pytest.mark.parametrize(
    ("count", "capability", "device", "dtype", "message"),
    [
        (-1, 86, "cuda", "float32", "NVIDIA driver"),
        (0, 86, "cuda", "float32", "no NVIDIA GPU"),
        (1, 86, "cuda:1", "float32", 'there are 1 GPUs, the last is "cuda:0"'),
        (1, 70, "cuda", "float32", "compute capability 7.0; the backend is built for 7.5"),
        (1, 75, "cuda", "bfloat16", '"bfloat16" needs a GPU of compute capability 8.0'),
    ],
)
def test_what_is_missing_is_named(
    emulator: Any, count: int, capability: int, device: str, dtype: str, message: str
) -> None:
    held = emulator.held
    emulator.device(count, capability)
    with pytest.raises(mc.DeviceError, match=message):
        mc.load(mc.default_checkpoint("depth"), device=device, dtype=dtype)
    assert emulator.held == held


@pytest.mark.parametrize("code", [0, -1], ids=["no kernel image", "invalid device function"])
def test_a_missing_architecture_is_named(emulator: Any, code: int) -> None:
    held = emulator.held
    emulator.device(1, 89, code)
    with pytest.raises(mc.DeviceError, match=r"capability 8.9, .* build it with MARIGOLD_CUDA_ARCHITECTURES=89"):
        load()
    assert emulator.held == held


def test_turing_computes_in_float16(emulator: Any) -> None:
    emulator.device(1, 75)
    assert np.isfinite(predict(load(dtype="float16"))).all()


def test_each_failing_allocation_leaves_nothing_behind(emulator: Any) -> None:
    """Memory of the device, pinned memory, streams, events and handles, from opening to the end of a run, in turn; of
    the many weights every ninth."""
    gc.collect()
    held, acquisitions = emulator.held, 0
    while True:
        emulator.fail_after(acquisitions)
        try:
            predict(load())
            break
        except (MemoryError, mc.DeviceError) as error:
            assert "memory" in str(error) or "GPU" in str(error) or "cuBLASLt" in str(error)
        finally:
            emulator.fail_after(-1)
        gc.collect()
        assert emulator.held == held, f"after acquisition {acquisitions} failed"
        acquisitions += 1 if acquisitions < 40 else 9
    assert acquisitions > 100
    gc.collect()
    assert emulator.held == held


def test_a_failed_allocation_leaves_the_pipeline_usable(emulator: Any) -> None:
    pipe = load()
    expected = predict(pipe)
    big = np.full((40, 56, 3), 0.5, np.float32)
    emulator.fail_after(0)
    with pytest.raises(MemoryError, match=r"no memory on the GPU for activations: .* are free"):
        pipe(big, num_inference_steps=1, processing_resolution=0, generator=0)
    emulator.fail_after(-1)
    np.testing.assert_array_equal(predict(pipe), expected)


@pytest.mark.parametrize(("graphs", "least"), [("0", 100), ("1", 100), ("replayed", 5)])
def test_every_failing_call_is_told(emulator: Any, monkeypatch: pytest.MonkeyPatch, graphs: str, least: int) -> None:
    """Every call of the runtime and of cuBLASLt that a run makes fails once: none of them goes unnoticed. Where
    launches are made, where they are recorded, and where the recording is replayed."""
    monkeypatch.setenv("MARIGOLD_CUDA_GRAPHS", graphs)
    pipe = load()
    latent = np.full((1, 4, 1, 1), 0.5, np.float32)
    expected = pipe.vae.decode(latent)
    if graphs == "replayed":
        pipe.vae.decode(latent)
    calls = 0
    while True:
        emulator.fail_call_after(calls)
        try:
            found = pipe.vae.decode(latent)
            assert emulator.is_failure_due, "a failure went unnoticed"
            break
        except (mc.DeviceError, MemoryError) as error:
            assert "GPU" in str(error)
        finally:
            emulator.fail_call_after(-1)
        calls += 1
    np.testing.assert_array_equal(found, expected)
    assert calls >= least


def test_a_fault_of_a_replay_names_no_operation(emulator: Any) -> None:
    """CUDA does not tell which one of a graph failed: the last one that was launched by itself is the wrong one."""
    pipe = load()
    latent = np.full((1, 4, 1, 1), 0.5, np.float32)
    for _ in range(3):  # the last time replayed
        pipe.vae.decode(latent)
    pipe.vae.encode(np.full((1, 3, 8, 8), 0.5, np.float32))
    messages = []
    for calls in range(20):
        emulator.fail_call_after(calls)
        try:
            pipe.vae.decode(latent)
            break
        except mc.DeviceError as error:
            messages.append(str(error))
        finally:
            emulator.fail_call_after(-1)
    launched = [message for message in messages if "cudaGraphLaunch" in message or "or before it" in message]
    assert len(launched) == 2
    for message in launched:
        assert "the GPU failed in recorded operations (" in message


def test_stops_on_request(emulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = load()
    expected = predict(pipe)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tqdm.auto.tqdm.update", stop)
        predict(pipe)
    np.testing.assert_array_equal(predict(pipe), expected)

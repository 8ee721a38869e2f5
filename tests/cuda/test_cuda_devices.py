"""Several GPUs in one process: each call works on its own device and leaves the caller's current device as it was,
which PyTorch, CuPy and others in the same thread use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_cases import load, load_nccl, picture
from test_trainer import open_trainer, random_batch

import marigold_c as mc
from marigold_c import _testing as engine

CALLERS = 0  # the device that the caller has made current
OURS = 1


@pytest.fixture
def unmoved(emulator: Any) -> Callable[[Callable[[], Any]], Any]:
    """Makes a call, and checks that the current device of this thread is the same afterwards."""
    emulator.device(2, 86)

    def call(function: Callable[[], Any]) -> Any:
        emulator.current_device = CALLERS
        try:
            return function()
        finally:
            assert emulator.current_device == CALLERS

    return call


def test_a_pipeline_leaves_the_current_device(unmoved: Any) -> None:
    image = picture(16, 16)
    options: dict[str, Any] = {"processing_resolution": 0, "generator": 3, "num_inference_steps": 2}
    expected = load("depth", device="cuda:0")(image, **options).prediction
    pipe = unmoved(lambda: load("depth", device=f"cuda:{OURS}"))
    for _ in range(3):  # launched, recorded, replayed
        np.testing.assert_array_equal(unmoved(lambda: pipe(image, **options).prediction), expected)
    unmoved(lambda: pipe(image, **options, ensemble_size=2, batch_size=0))  # asks for the free memory
    unmoved(lambda: pipe(picture(24, 16), **options))  # moves the activations, which ends the recordings
    kept = [pipe]
    pipe = None
    unmoved(kept.clear)


def test_a_group_of_processes_leaves_the_current_device(unmoved: Any) -> None:
    load_nccl()
    numbers = np.ones(64, np.float32)
    name = engine.group_name("cuda")
    unmoved(lambda: engine.sum_over_group(f"cuda:{OURS}", name, 0, 1, numbers, list))
    np.testing.assert_array_equal(numbers, 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_trainer_leaves_the_current_device(unmoved: Any, dtype: str) -> None:
    trainer = unmoved(lambda: open_trainer(device=f"cuda:{OURS}", dtype=dtype, max_gradient_norm=1.0))
    batch = random_batch(0, samples=1, h=4, w=4)
    for _ in range(2):
        unmoved(lambda: trainer.forward_backward(*batch))
        assert unmoved(trainer.optimizer_step) > 0
    unmoved(trainer.parameters)
    unmoved(trainer.clear_gradients)


def test_devices_that_do_not_exist_leave_it_too(unmoved: Any) -> None:
    with pytest.raises(mc.DeviceError, match="there are 2 GPUs"):
        unmoved(lambda: load("depth", device="cuda:7"))

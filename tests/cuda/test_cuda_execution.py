"""How the CUDA backend executes: recorded operations, batches by the free memory, several pipelines and sizes."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_cases import load, picture

import marigold_c as mc


def predict(pipe: Any, image: Any = None, **options: Any) -> Any:
    image = picture(24, 32) if image is None else image
    return pipe(image, **{"processing_resolution": 0, "generator": 3, "num_inference_steps": 2, **options}).prediction


# ---- recordings ----


@pytest.fixture
def load_without_graphs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def opened(task: str, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setenv("MARIGOLD_CUDA_GRAPHS", "0")
            return load(task, device="cuda", **options)

    return opened


def test_recordings_compute_the_same(load_without_graphs: Callable[..., Any]) -> None:
    """With inputs that change from run to run: images, noise, and the factors of the steps."""
    pipe, plain = load("depth", device="cuda"), load_without_graphs("depth")
    other = np.ascontiguousarray(picture(24, 32)[:, ::-1])
    for image, seed in ((None, 3), (other, 3), (None, 4)):
        found = predict(pipe, image, generator=seed)
        np.testing.assert_array_equal(found, predict(plain, image, generator=seed))


def test_what_runs_again_is_replayed(emulator: Any, load_without_graphs: Callable[..., Any]) -> None:
    """From the second time in the same memory on, which a stage of the first image may still move."""
    pipe = load("depth", device="cuda")
    before = emulator.graph_launches
    predict(pipe, num_inference_steps=5)
    assert emulator.graph_launches == before + 4
    for _ in range(2):
        predict(pipe)
    before = emulator.graph_launches
    predict(pipe, num_inference_steps=5)
    assert emulator.graph_launches == before + 7
    predict(load_without_graphs("depth"), num_inference_steps=5)
    assert emulator.graph_launches == before + 7


def test_recordings_end_with_the_memory_they_were_made_on(emulator: Any) -> None:
    """A larger image moves the activations of all plans."""
    gc.collect()
    held = emulator.held
    pipe = load("depth", device="cuda")
    expected = [predict(pipe) for _ in range(3)]
    np.testing.assert_array_equal(expected[1], expected[0])
    predict(pipe, picture(48, 40))
    for _ in range(3):
        np.testing.assert_array_equal(predict(pipe), expected[0])
    del pipe
    gc.collect()
    assert emulator.held == held


def test_pieces_are_replayed_with_new_inputs() -> None:
    pipe = load("depth", device="cuda")
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((4, 1, 4, 4, 6)).astype(np.float32)
    first = [pipe.vae.decode(latent) for latent in latents]
    for latent, expected in zip(latents, first, strict=True):
        np.testing.assert_array_equal(pipe.vae.decode(latent), expected)
    assert not np.array_equal(first[2], first[3])


# ---- batches ----


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, int]]:
    """A prediction in one step, and in how many batches its samples were computed."""

    def run(pipe: Any, **options: Any) -> tuple[Any, int]:
        totals: list[int] = []
        inner = pipe._engine.run

        def counted(*args: Any, progress: Any, **kwargs: Any) -> Any:
            def advance(done: int, total: int) -> None:
                totals.append(total)
                progress(done, total)

            return inner(*args, progress=advance, **kwargs)

        class Engine:
            def __getattr__(self, name: str) -> Any:
                return counted if name == "run" else getattr(engine, name)

        engine = pipe._engine
        with monkeypatch.context() as patch:
            patch.setattr(pipe, "_engine", Engine())
            prediction = predict(pipe, SMALL, num_inference_steps=1, **options)
        return prediction, totals[-1]

    return run


SMALL = picture(16, 16)
MEMBERS = 8  # whose batch takes more memory than the decoder


@pytest.fixture(scope="module")
def expected() -> Any:
    return predict(load("depth"), SMALL, num_inference_steps=1, ensemble_size=MEMBERS)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load("depth", device="cuda")


def memory_of(batch_size: int) -> tuple[int, int]:
    """What activations and scratch of a batch take."""
    pipe = load("depth", device="cuda")
    predict(pipe, SMALL, num_inference_steps=1, ensemble_size=batch_size, batch_size=batch_size)
    stats = pipe.memory_stats()
    return stats["activations"], stats["workspace"]


def test_a_gpu_with_memory_computes_all_members_at_once(pipe: Any, batches: Any, expected: Any) -> None:
    found, count = batches(pipe, ensemble_size=MEMBERS, batch_size=None)
    assert count == 1
    assert np.abs(found - expected).max() <= 1e-4


def test_batches_are_as_large_as_the_free_memory(emulator: Any, batches: Any, expected: Any) -> None:
    """Of what is free, one sixteenth is spared; what activations hold already is free, too."""
    most = sum(memory_of(MEMBERS - 1))
    pipe = load("depth", device="cuda")
    predict(pipe, SMALL, num_inference_steps=1)
    stats = pipe.memory_stats()
    held = stats["activations"] + stats["workspace"]
    emulator.memory(emulator.used + (most - held) * 16 // 15 + 8192)
    found, count = batches(pipe, ensemble_size=MEMBERS, batch_size=0)
    assert count == 2
    assert np.abs(found - expected).max() <= 1e-4
    emulator.memory(emulator.used + (most - held) * 16 // 15 + 65536)
    assert batches(pipe, ensemble_size=MEMBERS, batch_size=0)[1] == 1


def test_a_batch_that_does_not_fit_is_halved(emulator: Any, batches: Any, expected: Any) -> None:
    """Memory that is free in pieces only: the driver tells of more than it can give at once. What was asked for and
    does not fit is told instead."""
    pipe = load("depth", device="cuda")
    predict(pipe, SMALL, num_inference_steps=1)
    emulator.memory(0, memory_of(MEMBERS - 1)[0])
    with pytest.raises(MemoryError, match=r"no memory on the GPU for activations: .*; batch_size is 8: 0 chooses"):
        predict(pipe, SMALL, ensemble_size=MEMBERS, batch_size=MEMBERS)
    found, count = batches(pipe, ensemble_size=MEMBERS, batch_size=0)
    assert count == 2
    assert np.abs(found - expected).max() <= 1e-4


def test_batches_of_a_schedule_with_noise() -> None:
    """Steps with noise have a plan of their own."""
    pipe, cpu = load("depth", device="cuda"), load("depth")
    for one in (pipe, cpu):
        one.scheduler = mc.LCMScheduler.from_config(one.scheduler.config)
    options: dict[str, Any] = {"ensemble_size": 3, "num_inference_steps": 2}
    found = predict(pipe, SMALL, batch_size=0, **options)
    assert np.abs(found - predict(cpu, SMALL, batch_size=3, **options)).max() <= 1e-4


# ---- times of operations ----


def test_times_of_operations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A line for each operation of a run, which computes the same."""
    expected = predict(load("depth", device="cuda"))
    monkeypatch.setenv("MARIGOLD_CUDA_TIMES", str(tmp_path / "times"))
    pipe = load("depth", device="cuda")
    counts = []
    for _ in range(3):
        np.testing.assert_array_equal(predict(pipe), expected)
        lines = [json.loads(line) for line in (tmp_path / "times").read_text(encoding="utf-8").splitlines()]
        counts.append(len(lines))
    assert counts[2] - counts[1] == counts[1] - counts[0] > 50  # what a recording held would be missing
    one = next(line for line in lines if line["operation"] == "conv2d")
    assert one["dtype"] == "float32" and len(one["in"][1]) == 4 and one["out"][3] == one["in"][1][0] and one["ms"] > 0


def test_times_that_cannot_be_written(emulator: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gc.collect()
    held = emulator.held
    monkeypatch.setenv("MARIGOLD_CUDA_TIMES", str(tmp_path / "nowhere" / "times"))
    with pytest.raises(OSError, match=r"MARIGOLD_CUDA_TIMES: .*nowhere.* cannot be written"):
        load("depth", device="cuda")
    gc.collect()
    assert emulator.held == held

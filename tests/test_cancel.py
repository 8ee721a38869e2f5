"""A call can be ended from another thread, and its steps can be watched: what a page or a node with a button needs."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import marigold_c as mc

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)


@pytest.fixture
def pipe() -> mc.MarigoldDepthPipeline:
    pipe = mc.load(mc.default_checkpoint(), "depth")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_callback_counts_the_steps_of_all_members(pipe: mc.MarigoldDepthPipeline) -> None:
    seen: list[tuple[int, int]] = []
    pipe.set_progress_callback(lambda done, total: seen.append((done, total)))
    pipe(IMAGE, num_inference_steps=3, ensemble_size=2, generator=0)
    assert seen == [(done, 6) for done in range(1, 7)]
    pipe.set_progress_callback(None)
    pipe(IMAGE, num_inference_steps=1, generator=0)
    assert len(seen) == 6


def test_what_the_callback_raises_comes_out_of_the_call(pipe: mc.MarigoldDepthPipeline) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise LookupError("enough")

    pipe.set_progress_callback(stop)
    with pytest.raises(LookupError, match="enough"):
        pipe(IMAGE, num_inference_steps=4, generator=0)


def test_cancel_ends_the_call_of_another_thread_and_changes_nothing_after_it(pipe: mc.MarigoldDepthPipeline) -> None:
    expected = pipe(IMAGE, num_inference_steps=2, generator=1).prediction
    assert not pipe.cancel()
    started, ended = threading.Event(), []
    pipe.set_progress_callback(lambda _done, _total: started.set())

    def endless() -> None:
        try:
            pipe(IMAGE, num_inference_steps=900, ensemble_size=50, generator=0)
        except KeyboardInterrupt as error:
            ended.append(error)

    thread = threading.Thread(target=endless)
    thread.start()
    assert started.wait(60)
    assert pipe.cancel()
    thread.join(60)
    assert not thread.is_alive() and len(ended) == 1
    assert not pipe.cancel()
    assert np.array_equal(pipe(IMAGE, num_inference_steps=2, generator=1).prediction, expected)


def test_cancel_is_heard_within_a_step(pipe: mc.MarigoldDepthPipeline) -> None:
    """Of one step of a larger image: no callback is called before the call ends."""
    large = np.tile(IMAGE, (8, 8, 1))
    steps: list[int] = []
    pipe.set_progress_callback(lambda done, _total: steps.append(done))
    ended: list[BaseException] = []

    def run() -> None:
        try:
            pipe(large, num_inference_steps=1, processing_resolution=0, generator=0)
        except KeyboardInterrupt as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive() and not pipe.cancel():
        time.sleep(0.001)
    thread.join(60)
    assert len(ended) == 1 and steps == []

"""The engine's threads: each iteration once, after fork, beside other work, with more threads than processors."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import marigold_c as mc
from marigold_c import _testing

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
# A child that waits for a thread that it does not have ends here, with SIGALRM.
PRELUDE = """
import multiprocessing, os, signal, sys, threading
import numpy as np
import marigold_c as mc
from marigold_c import _testing

signal.alarm(240)
IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)

def opened(threads=2):
    pipe = mc.load(mc.default_checkpoint(), num_threads=threads)
    pipe.set_progress_bar_config(disable=True)
    return pipe

def predict(pipe):
    return pipe(IMAGE, 1, generator=1).prediction

def in_child(function):
    def run():
        signal.alarm(200)
        queue.put(function())

    queue = multiprocessing.get_context("fork").Queue()
    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    result = queue.get(timeout=220)
    child.join()
    assert child.exitcode == 0, child.exitcode
    return result
"""


def run_script(body: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + body], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


# ---- loops ----


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 70, 5000])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 64, 65, 1000, 100_003])
def test_each_iteration_is_run_once(threads: int, count: int) -> None:
    visits, clashes = _testing.parallel_for(threads, count, 0, 0)
    assert visits == bytes([1]) * count
    assert clashes == 0


def test_no_two_threads_have_the_same_number() -> None:
    """Iterations of some microseconds, so that workers come and go while others are inside."""
    for _ in range(20):
        assert _testing.parallel_for(5, 300, 3000, 0) == (bytes([1]) * 300, 0)


def test_loops_within_loops() -> None:
    assert _testing.parallel_for(3, 40, 1000, 50) == (bytes([1]) * 40, 0)


def test_more_loops_at_once_than_the_pool_has_places_for() -> None:
    failures: list[int] = []

    def repeat() -> None:
        for _ in range(20):
            visits, clashes = _testing.parallel_for(4, 200, 500, 0)
            failures.extend([clashes] if clashes or visits != bytes([1]) * 200 else [])

    callers = [threading.Thread(target=repeat) for _ in range(48)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def workers() -> int:
    """Threads of this process that the pool started: of either extension."""
    return sum((task / "comm").read_text() == "marigold\n" for task in Path("/proc/self/task").iterdir())


def test_workers_take_part_and_are_kept() -> None:
    assert _testing.helpers(3) >= 2
    kept = workers()
    assert kept >= 2
    for _ in range(50):
        _testing.parallel_for(3, 100, 100, 0)
    assert workers() == kept


def test_signals_are_left_to_the_programs_own_threads() -> None:
    import signal

    _testing.helpers(2)
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text() == "marigold\n":
            lines = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            blocked = int(lines["SigBlk"], 16)
            assert blocked >> (signal.SIGINT - 1) & 1 and blocked >> (signal.SIGTERM - 1) & 1
            assert not blocked >> (signal.SIGSEGV - 1) & 1, "faulthandler must see it"


# ---- fork ----


def test_a_child_starts_workers_of_its_own() -> None:
    run_script("""
def count():
    names = [open(f"/proc/self/task/{t}/comm").read() for t in os.listdir("/proc/self/task")]
    return names.count("marigold\\n")

def child():
    before = count()
    return before, _testing.helpers(4), count()

assert _testing.helpers(4) > 1
before, helpers, after = in_child(child)
assert (before, after) == (0, 3), (before, after)
assert helpers > 1
""")


def test_a_pipeline_used_before_fork_works_in_the_child() -> None:
    run_script("""
pipe = opened()
wanted = predict(pipe)
assert np.array_equal(in_child(lambda: predict(pipe)), wanted)
assert np.array_equal(predict(pipe), wanted)
""")


def test_a_pipeline_opened_before_fork_and_used_after_it_only() -> None:
    run_script("""
pipe = opened()
wanted = in_child(lambda: predict(pipe))
assert np.array_equal(predict(pipe), wanted)
""")


def test_another_pipeline_is_opened_in_the_child() -> None:
    run_script("""
pipe = opened()
wanted = predict(pipe)

def child():
    other = opened()
    return np.stack([predict(other), predict(pipe), predict(other)])

assert all(np.array_equal(p, wanted) for p in in_child(child))
""")


def test_fork_while_other_threads_compute() -> None:
    """Whatever they are doing at that moment: taking a place, waiting, sleeping."""
    run_script("""
stop = threading.Event()

def compute():
    while not stop.is_set():
        _testing.parallel_for(3, 500, 200, 0)

others = [threading.Thread(target=compute) for _ in range(3)]
for other in others:
    other.start()
for _ in range(40):
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        good = _testing.parallel_for(4, 1000, 200, 0) == (bytes([1]) * 1000, 0) and _testing.helpers(2) == 2
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for other in others:
    other.join()
""")


def test_fork_while_another_thread_predicts() -> None:
    run_script("""
busy, free = opened(), opened()
wanted = predict(free)
stop = threading.Event()

def compute():
    while not stop.is_set():
        predict(busy)

other = threading.Thread(target=compute)
other.start()
for _ in range(3):
    assert np.array_equal(in_child(lambda: predict(free)), wanted)
stop.set()
other.join()
""")


# ---- the end of threads and of the process ----


def test_threads_that_end_leave_the_pool_usable() -> None:
    for _ in range(30):
        caller = threading.Thread(target=_testing.parallel_for, args=(3, 100, 100, 0))
        caller.start()
        caller.join()
    assert _testing.parallel_for(3, 100, 100, 0) == (bytes([1]) * 100, 0)


def test_the_process_ends_while_a_thread_computes() -> None:
    run_script("""
pipe = opened()
threading.Thread(target=pipe, args=(np.zeros((256, 256, 3), np.uint8), 1000), daemon=True).start()
_testing.helpers(3)
""")


# ---- other work ----


@contextmanager
def busy_processors() -> Iterator[None]:
    """A loop on each processor, and one more."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(len(os.sched_getaffinity(0)) + 1)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def opened(threads: int) -> mc.MarigoldDepthPipeline:
    pipe = mc.MarigoldDepthPipeline.from_pretrained(mc.default_checkpoint(), num_threads=threads)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_results_beside_other_work_and_with_more_threads_than_processors() -> None:
    wanted = opened(1)(IMAGE, 2, generator=1).prediction
    many = len(os.sched_getaffinity(0)) + 5
    with busy_processors():
        for threads in (2, many):
            assert np.array_equal(opened(threads)(IMAGE, 2, generator=1).prediction, wanted)


def test_two_pipelines_in_two_threads() -> None:
    pipes = [opened(2), opened(3)]
    wanted = [pipes[0](IMAGE, 2, generator=seed).prediction for seed in range(2)]
    results: dict[tuple[int, int], bool] = {}

    def repeat(index: int) -> None:
        for turn in range(3):
            found = pipes[index](IMAGE, 2, generator=index).prediction
            results[index, turn] = np.array_equal(found, wanted[index])

    callers = [threading.Thread(target=repeat, args=(index,)) for index in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 6
    assert all(results.values())

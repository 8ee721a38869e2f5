"""The pipeline in its process: threads, cancelling, exceptions through the engine, instruction sets, memory."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_cases import IMAGE, open_pipeline

import marigold_c as mc

SLOW_STEPS = 1000  # some seconds on any machine


@pytest.fixture(scope="module")
def pipe() -> mc.MarigoldDepthPipeline:
    return open_pipeline()


def test_two_threads_two_pipelines() -> None:
    pipes = [open_pipeline() for _ in range(2)]
    alone = [own(IMAGE, 8, generator=i).prediction for i, own in enumerate(pipes)]
    results: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def work(i: int) -> None:
        for _ in range(5):
            results[i].append(pipes[i](IMAGE, 8, generator=i).prediction)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        assert len(results[i]) == 5
        assert all(np.array_equal(result, alone[i]) for result in results[i])


class Running:
    """A pipeline that runs in a thread, as its first progress report has shown, until it is left."""

    class Stopped(Exception):
        pass

    def __init__(self, own: mc.MarigoldDepthPipeline, **options: Any) -> None:
        self.stopped = False
        self._started, self._finish = threading.Event(), threading.Event()
        self._arguments = {"num_inference_steps": SLOW_STEPS, "scheduler": own.scheduler._handle, **options}
        self._run = own._engine.run
        self._thread = threading.Thread(target=self._work)

    def _progress(self, done: int, total: int) -> None:
        self._started.set()
        if self._finish.is_set():
            raise self.Stopped

    def _work(self) -> None:
        try:
            self._run(IMAGE[None], progress=self._progress, **self._arguments)
        except self.Stopped:
            self.stopped = True

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._started.wait(60)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._finish.set()
        self._thread.join()


def test_what_runs_in_another_thread_says_so() -> None:
    own, other = open_pipeline(), open_pipeline()
    generator = mc.Generator(1)
    with Running(own, generators=[generator]) as running:
        with pytest.raises(RuntimeError, match="pipeline is already running in another thread"):
            own(IMAGE, generator=5)
        uses: list[Callable[[], object]] = [
            lambda: own.vae.decode(np.zeros((1, 4, 2, 2))),
            own.memory_stats,
            lambda: other(IMAGE, generator=generator),
            lambda: generator.randn(3),
            lambda: generator.manual_seed(3),
            lambda: own.scheduler.set_timesteps(3),
        ]
        for use in uses:
            with pytest.raises(RuntimeError, match="already running in another thread"):
                use()
    assert running.stopped  # the progress function's own exception came through
    assert own(IMAGE, generator=5).prediction.shape == (1, 48, 64, 1)
    assert generator.randn(3).shape == (3,)


def test_an_exception_of_the_progress_function_comes_through(pipe: mc.MarigoldDepthPipeline) -> None:
    def progress(done: int, total: int) -> None:
        raise ZeroDivisionError(f"{done} of {total}")

    with pytest.raises(ZeroDivisionError, match="1 of 3"):
        pipe._engine.run(IMAGE[None], num_inference_steps=3, progress=progress)
    pipe(IMAGE)


def test_a_handler_may_not_run_the_pipeline_inside_itself(pipe: mc.MarigoldDepthPipeline) -> None:
    with pytest.raises(RuntimeError, match="already running"):
        pipe._engine.run(IMAGE[None], progress=lambda done, total: pipe(IMAGE))
    pipe(IMAGE)


def test_control_c_stops_and_leaves_the_pipeline_usable() -> None:
    own = open_pipeline()
    expected = own(IMAGE, generator=1).prediction
    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        own(np.zeros((256, 256, 3), np.uint8), SLOW_STEPS, processing_resolution=0)
    timer.join()
    assert np.array_equal(own(IMAGE, generator=1).prediction, expected)


def test_a_signal_handlers_own_exception_comes_through() -> None:
    class Enough(Exception):
        pass

    def handler(_number: int, _frame: Any) -> None:
        raise Enough

    own = open_pipeline()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Enough):
            own(np.zeros((256, 256, 3), np.uint8), SLOW_STEPS, processing_resolution=0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- the process ----


@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_the_instruction_set_can_be_forced(pipe: mc.MarigoldDepthPipeline, isa: str, tmp_path: Path) -> None:
    if isa == "avx2" and mc._C.best_isa() == "scalar":
        pytest.skip("this processor has no AVX2")
    script = (
        "import os; before = dict(os.environ)\n"
        "import sys, numpy as np, marigold_c as mc\n"
        "assert dict(os.environ) == before\n"
        "pipe = mc.load(mc.default_checkpoint(), num_threads=1); pipe.set_progress_bar_config(disable=True)\n"
        "assert pipe._engine.info()['isa'] == os.environ['MARIGOLD_ISA']\n"
        "np.save(sys.argv[1], pipe(np.load(sys.argv[2]), generator=1).prediction)\n"
        "assert 'torch' not in sys.modules and 'scipy_openblas32' not in sys.modules\n"
    )
    source, target = tmp_path / "in.npy", tmp_path / "out.npy"
    np.save(source, IMAGE)
    environment = {**os.environ, "MARIGOLD_ISA": isa}
    subprocess.run([sys.executable, "-c", script, str(target), str(source)], env=environment, check=True)
    assert np.abs(np.load(target) - pipe(IMAGE, generator=1).prediction).max() < 1e-5


def test_missing_openblas_is_a_clear_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from marigold_c import _openblas

    monkeypatch.setattr(_openblas, "find_spec", lambda name: None)
    monkeypatch.delenv("MARIGOLD_BLAS", raising=False)
    assert _openblas.load() is None
    monkeypatch.setenv("MARIGOLD_BLAS", "openblas")
    with pytest.raises(ImportError, match=r"MARIGOLD_BLAS=openblas needs .*pip install 'marigold-c\[openblas\]'"):
        _openblas.load()


_RUN = (
    "import sys, numpy as np, marigold_c as mc\n"
    "pipe = mc.load(mc.default_checkpoint(), num_threads=1); pipe.set_progress_bar_config(disable=True)\n"
    "np.save(sys.argv[1], pipe(np.load(sys.argv[2]), generator=1).prediction)\n"
    "print('libscipy_openblas.so' in open('/proc/self/maps').read())\n"
)


@pytest.mark.parametrize("blas", ["openblas", "", "mkl"])
def test_openblas_multiplies_few_rows_only_on_request(
    pipe: mc.MarigoldDepthPipeline, blas: str, tmp_path: Path
) -> None:
    pytest.importorskip("scipy_openblas32")
    source, target = tmp_path / "in.npy", tmp_path / "out.npy"
    np.save(source, IMAGE)
    command = [sys.executable, "-c", _RUN, str(target), str(source)]
    environment = {**os.environ, "MARIGOLD_BLAS": blas}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if blas == "mkl":
        assert 'DeviceError: MARIGOLD_BLAS is "mkl"; expected openblas, or nothing' in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{blas == 'openblas'}\n"
    difference = np.abs(np.load(target) - pipe(IMAGE, generator=1).prediction).max()
    assert 0 < difference < 1e-5 if blas else difference == 0


def test_nothing_is_kept_after_closing() -> None:
    """Mapped files and memory go with the pipeline."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def maps() -> int:
        return Path("/proc/self/maps").read_text().count("marigold-tiny-depth")

    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc here")
    gc.collect()
    mapped = maps()
    for _ in range(2):
        open_pipeline()(IMAGE)
    gc.collect()
    before = resident()
    for _ in range(10):
        open_pipeline()(IMAGE)
    gc.collect()
    assert maps() == mapped
    assert resident() - before < 30e6


def test_a_thread_with_a_small_stack_will_do(pipe: mc.MarigoldDepthPipeline) -> None:
    """No call of the engine needs more than 256 KiB, the 32 KiB of its error message included."""
    found: list[object] = []

    def work() -> None:
        found.append(pipe(IMAGE, ensemble_size=3, generator=1).prediction.shape)
        with pytest.raises(ValueError, match="seed"):
            mc.Generator(2**70)
        with pytest.raises(ValueError, match="num_inference_steps"):
            pipe._engine.run(IMAGE[None], num_inference_steps=10**6)

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert found == [(1, 48, 64, 1)]

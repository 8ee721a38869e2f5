"""What a process does while its allocations and writes fail: run by test_failures.py with failures.c preloaded.

    python scenarios.py allocations SCENARIO STRIDE      each STRIDE-th allocation of the engine fails once
    python scenarios.py writes SCENARIO STRIDE FOLDER    each STRIDE-th write fails: alone (EIO), or with all later ones

After each failure: the error has its class and a message, or the result is right all the same; then the same once more,
without a failure, gives the result of before, to the bit; nothing half-written has a name. Prints how many failed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import marigold_c as mc
from marigold_c.commands.cli import main

SHIM = ctypes.CDLL(None)
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def _pipe(task: str) -> Any:
    pipe = mc.load(mc.default_checkpoint(task), num_threads=2)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _call(pipe: Any, **options: Any) -> np.ndarray[Any, Any]:
    found = pipe(IMAGE, processing_resolution=0, generator=3, **options)
    return np.concatenate(
        [found.prediction.ravel(), *([] if found.uncertainty is None else [found.uncertainty.ravel()])]
    )


def _opened(task: str) -> Callable[[], np.ndarray[Any, Any]]:
    return lambda: _call(_pipe(task))


def _held(task: str, **options: Any) -> Callable[[], np.ndarray[Any, Any]]:
    """With a pipeline that stays: it must be usable after each failure."""
    pipe = _pipe(task)
    return lambda: _call(pipe, **options)


def _training() -> Callable[[], np.ndarray[Any, Any]]:
    random = np.random.default_rng(1)
    shape = (2, 4, 4, 6)
    image, target, noise = (random.standard_normal(shape, dtype=np.float32) for _ in range(3))

    def run() -> np.ndarray[Any, Any]:
        trainer = mc.Trainer.from_pretrained(mc.default_checkpoint("depth"), learning_rate=1e-4, num_threads=2)
        found = [trainer.forward_backward(image, target, noise, np.array([10, 900])) for _ in range(2)]
        trainer.optimizer_step()
        return np.array([*found, np.float64(sum(float(np.abs(one).sum()) for one in trainer.parameters().values()))])

    return run


def _metrics() -> np.ndarray[Any, Any]:
    random = np.random.default_rng(2)
    truth = random.uniform(1, 9, (48, 64)).astype(np.float32)
    found = (0.1 * truth + 0.02 * random.standard_normal(truth.shape)).astype(np.float32)
    fits = [fit(found, truth, mask=truth > 0) for fit in (mc.align_least_squares, mc.align_ransac, mc.align_median)]
    picture = random.random((3, 48, 64), np.float32)
    scores = mc.metrics.intrinsics(picture, np.clip(picture + 0.1, 0, 1))
    numbers = [number for _, *factors in fits for number in factors]
    return np.array(
        [*numbers, *mc.metrics.depth(fits[0][0], truth, truth > 0).values(), scores["psnr"], scores["ssim"]]
    )


ALLOCATIONS: dict[str, Callable[[], Callable[[], np.ndarray[Any, Any]]]] = {
    "open": lambda: _opened("depth"),
    "depth": lambda: _held("depth"),
    "ensemble": lambda: _held("depth", ensemble_size=3, output_uncertainty=True),
    "normals": lambda: _held("normals", ensemble_size=3, output_uncertainty=True),
    "iid": lambda: _held("iid", ensemble_size=3, output_uncertainty=True),
    "train": _training,
    "evaluate": lambda: _metrics,
}


def fail_allocations(name: str, stride: int) -> int:
    run = ALLOCATIONS[name]()
    right = run()
    assert SHIM.failures_allocation(0)
    run()
    failed, which = 0, 1
    while True:
        SHIM.failures_allocation(which)
        try:
            found = run()
        except MemoryError as error:
            assert str(error), f"allocation {which}: MemoryError without a message"
        else:
            assert np.array_equal(found, right, equal_nan=True), f"allocation {which} changed the result"
        reached = SHIM.failures_allocations() >= which
        SHIM.failures_allocation(0)
        if not reached:
            return failed
        failed += 1
        which += stride
        if failed % 16 == 1:
            assert np.array_equal(run(), right, equal_nan=True), f"not usable after allocation {which - stride}"


# ---- files ----


def _depth_files(folder: Path, source: Path) -> int:
    words = ["depth", str(source / "photo.png"), "-o", str(folder), "--format", "npy,png,png16,glb,stl", "--seed", "0"]
    return main([*words, "--threads", "1", "--quiet", "--processing-res", "0"])


def _convert(folder: Path, _source: Path) -> int:
    return main(["convert", str(mc.default_checkpoint("depth")), str(folder / "packed.safetensors"), "--threads", "1"])


def _make_model(folder: Path, _source: Path) -> int:
    return main(["prepare", "model", "-o", str(folder / "model"), "--like", str(mc.default_checkpoint("depth"))])


WRITES: dict[str, Callable[[Path, Path], int]] = {"depth": _depth_files, "convert": _convert, "model": _make_model}


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fail_writes(name: str, stride: int, folder: Path) -> int:
    """A first run into a folder says what the files are."""
    from PIL import Image

    Image.fromarray(IMAGE).save(folder / "photo.png")
    run = WRITES[name]
    SHIM.failures_write(0, 0, 0)
    (folder / "right").mkdir()
    assert run(folder / "right", folder) == 0
    right, total = _content(folder / "right"), SHIM.failures_writes()
    failed = 0
    for which in range(1, total + 1, stride):
        for error, stays in ((errno.EIO, 0), (errno.ENOSPC, 1)):
            place = folder / "out"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            SHIM.failures_write(which, error, stays)
            code = run(place, folder)
            SHIM.failures_write(0, 0, 0)
            there = _content(place)
            assert code == (there != right), f"write {which}, {os.strerror(error)}: ends with {code}"
            wrong = [path for path, data in there.items() if right.get(path) != data]
            assert not wrong, f"write {which}, {os.strerror(error)}: {wrong} are not whole"
            failed += 1
        shutil.rmtree(place)
        place.mkdir()
        assert run(place, folder) == 0 and _content(place) == right, f"not made anew after write {which}"
    return failed


def start() -> None:
    what, name, stride = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "allocations":
        print(fail_allocations(name, stride))
        return
    with tempfile.TemporaryDirectory(dir=sys.argv[4]) as folder:
        print(fail_writes(name, stride, Path(folder)))


if __name__ == "__main__":
    start()

"""Writers are killed at random moments, as by a loss of power: each file is whole or not there, nothing else lies
beside it but, rarely, a whole copy under the name before its own, and whoever does it again ends with the same files.

A part by default; MARIGOLD_KILLS=1000 (`make test-kills`) is the number of kills in all. The writers run in children
forked from this process, which spares their start. `marigold infer`, trainings and downloads, which are processes of
their own, are in test_infer_kill.py, test_training_run.py and test_hub_interrupted.py.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_cases import contents
from PIL import Image

import marigold_c as mc
from marigold_c.commands import cli

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("MARIGOLD_KILLS", "60"))
TRIES = 4  # for each kill that is wanted: some come when all is done
PIXELS = np.random.default_rng(4).integers(0, 256, (24, 40, 3), dtype=np.uint8)

Write = Callable[[Path], object]


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def convert(_work: Path) -> Write:
    source = mc.default_checkpoint()
    return lambda out: mc.convert(source, out / "packed.safetensors", force=True, num_threads=1)


def save_folder(_work: Path) -> Write:
    pipe = _quiet(mc.load(mc.default_checkpoint(), num_threads=1))
    return lambda out: pipe.save_pretrained(out / "saved")


def save_packed(work: Path) -> Write:
    source = mc.default_checkpoint()
    pipe = _quiet(mc.load(mc.convert(source, work / "packed.safetensors", num_threads=1), num_threads=1))
    return lambda out: pipe.save_pretrained(out / "saved", text_encoder=source)


def save_training(_work: Path) -> Write:
    trainer = mc.Trainer.from_pretrained(mc.default_checkpoint(), num_threads=1)

    def write(out: Path) -> None:
        trainer.save_pretrained(out / "weights")
        trainer.save_state(out / "state.safetensors")

    return write


def depth_command(work: Path) -> Write:
    for i in range(3):
        Image.fromarray(np.roll(PIXELS, i, 0)).save(work / f"{i}.png")
    words = ["--denoise-steps", "1", "--processing-res", "0", "--seed", "0", "--quiet", "--skip-existing"]
    formats = ["--format", "npy,png16,png,glb,stl"]
    return lambda out: cli.main(["depth", str(work), "-o", str(out), *words, *formats])


WRITERS: tuple[Callable[[Path], Write], ...] = (convert, save_folder, save_packed, save_training, depth_command)


def in_child(write: Callable[[], object], delay: float | None) -> tuple[float, bool]:
    """Runs `write` in a forked child, killed after `delay` seconds; None: never. Seconds from its beginning, and
    whether it was killed."""
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(begun, b"1")
            write()
        except BaseException:
            os.abort()
        os._exit(0)
    os.close(begun)
    os.read(ready, 1)
    os.close(ready)
    start = time.monotonic()
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), os.waitstatus_to_exitcode(status)
    return time.monotonic() - start, status == signal.SIGKILL


def forget_halfway(out: Path, expected: dict[str, bytes]) -> None:
    """A file that replaces another has a name of its own, when it is whole, for a moment: a kill may come then."""
    for path in out.rglob(".*.part"):
        name = path.parent / path.name[1:].rsplit(".", 3)[0]
        if name.exists() and path.read_bytes() == expected.get(name.relative_to(out).as_posix()):
            path.unlink()


@pytest.mark.parametrize("make", WRITERS, ids=lambda make: make.__name__)
def test_writers(make: Callable[[Path], Write], tmp_path: Path) -> None:
    work, whole, out = (tmp_path / name for name in ("work", "whole", "out"))
    for folder in (work, whole, out):
        folder.mkdir()
    write = make(work)
    in_child(lambda: write(whole), None)
    seconds, _ = in_child(lambda: write(whole), None)
    expected, chance = contents(whole), random.Random(make.__name__)
    kills, wanted = 0, max(KILLS // len(WRITERS), 1)
    for _ in range(TRIES * wanted):
        if chance.random() < 0.5:
            shutil.rmtree(out)
            out.mkdir()
        _, killed = in_child(lambda: write(out), chance.uniform(0, seconds))
        kills += killed
        forget_halfway(out, expected)
        found = contents(out)
        for name, data in found.items():
            assert expected.get(name) == data, name
        if not killed or any(name.endswith("model_index.json") for name in found):
            assert found.keys() == expected.keys()
        if kills == wanted:
            break
    assert kills > wanted // 2
    in_child(lambda: write(out), None)
    assert contents(out) == expected
    print(f"{make.__name__}: {kills} kills")

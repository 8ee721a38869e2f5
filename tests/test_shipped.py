"""The package's own checkpoints: what a first user meets. All other tests have their own (conftest.py)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import marigold_c as mc
from marigold_c.images.readers import decode_image

ROOT = Path(__file__).parents[1]
LARGEST = 32e6  # bytes of a checkpoint: three and the engine stay below 95 MB


@pytest.fixture(autouse=True)
def the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MARIGOLD_CHECKPOINTS")


@pytest.mark.parametrize("task", ["depth", "normals", "iid"])
def test_it_predicts_a_photograph(task: str) -> None:
    folder = mc.default_checkpoint(task)
    assert folder.parent == Path(mc.__file__).parent / "checkpoints"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < LARGEST
    pipe = mc.load(folder, num_threads=2)
    pipe.set_progress_bar_config(disable=True)
    image = decode_image((ROOT / "examples" / "photo.jpg").read_bytes())
    found = pipe(image, generator=0).prediction
    assert found.shape[1:3] == image.shape[:2] and np.isfinite(found).all()
    assert found.std() > 0.05
    assert np.array_equal(found, pipe(image, generator=0).prediction)


@pytest.mark.parametrize("task", ["depth", "normals", "iid"])
def test_its_card_says_what_it_may_be_used_for(task: str) -> None:
    card = (mc.default_checkpoint(task) / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^license: \S+", card, re.MULTILINE)
    index = json.loads((mc.default_checkpoint(task) / "model_index.json").read_text())
    assert index["default_denoising_steps"] == 1


def test_the_command_finds_it(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MARIGOLD_CHECKPOINTS"}
    words = [
        "depth",
        str(ROOT / "examples" / "photo.jpg"),
        "-o",
        str(tmp_path),
        "--seed",
        "0",
        "--quiet",
        "--format",
        "png16",
    ]
    subprocess.run([sys.executable, "-m", "marigold_c", *words], env=environment, check=True)
    depth = np.asarray(Image.open(tmp_path / "depth_bw" / "photo_depth.png"))
    assert depth.std() > 3000

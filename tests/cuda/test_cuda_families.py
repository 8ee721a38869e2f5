"""Other families than Marigold's on the CUDA backend against the CPU: the class embedding, a UNet of four channels."""

from __future__ import annotations

from pathlib import Path

import family_checkpoints as families
import numpy as np
import pytest

import marigold_c as mc


@pytest.mark.filterwarnings("ignore:checkpoints of genpercept")
@pytest.mark.parametrize("name", ["e2e-ft, Stable Diffusion", "lotus-d", "lotus-g", "genpercept"])
def test_predictions_are_those_of_the_cpu(name: str, tmp_path: Path) -> None:
    path, needed = families.make(name, tmp_path)
    found = {}
    for device in ("cpu", "cuda"):
        pipe = mc.load(path, num_threads=1, device=device, **needed)
        pipe.set_progress_bar_config(disable=True)
        found[device] = pipe(families.IMAGE, processing_resolution=32, generator=1).prediction
    assert np.abs(found["cuda"] - found["cpu"]).max() <= 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precisions_of_lotus(dtype: str, tmp_path: Path) -> None:
    path, _ = families.make("lotus-d", tmp_path)
    found = {}
    for device, kind in (("cpu", "float32"), ("cuda", dtype)):
        pipe = mc.load(path, num_threads=1, device=device, dtype=kind)
        pipe.set_progress_bar_config(disable=True)
        found[device] = pipe(families.IMAGE, processing_resolution=32).prediction
    assert 0 < np.abs(found["cuda"] - found["cpu"]).mean() <= 0.05

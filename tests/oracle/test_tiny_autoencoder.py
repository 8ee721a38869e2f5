"""Pipelines whose VAE is replaced by AutoencoderTiny, live beside diffusers, with random weights of TAESD's shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import marigold_c as mc

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pipelines = pytest.importorskip("oracle_pipelines")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny") / "taesd"
    diffusers.AutoencoderTiny(scaling_factor=0.7).save_pretrained(folder)
    return folder


def check(got: Any, wanted: Any) -> None:
    assert got.prediction.shape == wanted.prediction.shape
    assert np.quantile(np.abs(got.prediction - wanted.prediction), 0.999) <= 2e-4


@pytest.mark.parametrize("task", pipelines.TASKS)
def test_replaced(task: str, tiny: Path) -> None:
    theirs = pipelines.open_theirs(task)
    given = mc.load(mc.default_checkpoint(task), vae=tiny, num_threads=1)
    assigned = mc.load(mc.default_checkpoint(task), num_threads=1)
    own = assigned.vae
    assigned.vae = mc.AutoencoderTiny.from_pretrained(tiny, torch_dtype=torch.float32).to("cpu")
    before = theirs.vae
    theirs.vae = diffusers.AutoencoderTiny.from_pretrained(tiny)
    try:
        for size in ((96, 128), (61, 99)):
            image = pipelines.photo(*size)
            wanted = theirs(pipelines.for_diffusers(image), 1, generator=torch.Generator().manual_seed(1))
            for pipe in (given, assigned):
                pipe.set_progress_bar_config(disable=True)
                check(pipe(image, 1, generator=1), wanted)
    finally:
        theirs.vae = before
    assert given.vae.config["_class_name"] == "AutoencoderTiny"
    image = pipelines.photo(40, 56)
    with pytest.raises(NotImplementedError, match="AutoencoderTiny"):
        given(image, preset="paper")
    assigned.vae = own
    assert np.array_equal(
        assigned(image, generator=1).prediction, pipelines.open_ours(task)(image, generator=1).prediction
    )


def test_a_checkpoint_that_was_saved_with_it(tiny: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "mixed"
    shutil.copytree(mc.default_checkpoint("normals"), folder)
    shutil.rmtree(folder / "vae")
    shutil.copytree(tiny, folder / "vae")
    pipe = mc.load(folder, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    replaced = mc.load(mc.default_checkpoint("normals"), vae=tiny, num_threads=1)
    replaced.set_progress_bar_config(disable=True)
    image = pipelines.photo(40, 56)
    assert np.array_equal(pipe(image, generator=2).prediction, replaced(image, generator=2).prediction)


def test_what_is_no_autoencoder(tmp_path: Path) -> None:
    pipe = mc.load(mc.default_checkpoint(), num_threads=1)
    with pytest.raises(ValueError, match="vae"):
        pipe.vae = "taesd"
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        mc.load(mc.default_checkpoint(), vae=tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "VQModel"}')
    with pytest.raises(NotImplementedError, match="VQModel"):
        mc.load(mc.default_checkpoint(), vae=tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    with pytest.raises(mc.CheckpointError, match="no weights"):
        pipe.vae = mc.AutoencoderTiny.from_pretrained(tmp_path)
    assert pipe.vae.config["_class_name"] == "AutoencoderKL"  # as before

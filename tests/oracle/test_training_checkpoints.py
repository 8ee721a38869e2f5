"""Checkpoints of `marigold train` in diffusers: the same prediction as in this package."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from training_cases import make_config, make_scenes, make_text_to_image

import marigold_c as mc
from marigold_c.training.run import RunOptions, train


@pytest.mark.parametrize("copied", [False, True])
def test_diffusers_opens_a_checkpoint(tmp_path: Path, copied: bool) -> None:
    base = make_text_to_image(tmp_path / "base")
    make_scenes(tmp_path / "train", 4)
    config = make_config(
        tmp_path,
        "normals",
        model__pretrained_path=str(base),
        trainer__base_components="copy" if copied else "link",
        max_iter=2,
    )
    assert train(config, RunOptions(tmp_path / "run", tmp_path, threads=1, say=lambda text: None)) == "done"
    folder = tmp_path / "run" / "checkpoint" / "iter_000002"
    # Of the base there are 16-bit files only; diffusers takes a variant where a component has it.
    theirs = diffusers.MarigoldNormalsPipeline.from_pretrained(folder, variant="fp16", dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    assert theirs.default_denoising_steps == 4
    image = np.random.default_rng(0).uniform(size=(48, 64, 3)).astype(np.float32)
    latents = mc.Generator(3).randn(1, 4, 6, 8)
    options = {"num_inference_steps": 2, "processing_resolution": 0}
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = theirs(tensor, latents=torch.from_numpy(latents), output_type="np", **options).prediction
    found = mc.load(folder)(image, latents=latents, **options).prediction
    np.testing.assert_allclose(found, expected, atol=2e-3)

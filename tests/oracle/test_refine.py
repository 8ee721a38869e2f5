"""The objective "refine" against torch's autograd through diffusers' UNet, and the mask of agreement against torch's
pooling (arXiv 2505.09358, 2407.17952)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from oracle_training import UNETS, check_gradients, make_checkpoint, open_ours  # noqa: E402

import marigold_c as mc  # noqa: E402
from marigold_c.training.refinement import agreement_mask, align_coarse  # noqa: E402

HEIGHT, WIDTH = 5, 7  # of latents


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_checkpoint(tmp_path_factory.mktemp("refine"), "odd channels")
    torch.manual_seed(3)
    options = {"out_channels": 4, "cross_attention_dim": 64, "sample_size": 16, **UNETS["odd channels"]}
    diffusers.UNet2DConditionModel(in_channels=12, **options).save_pretrained(made / "boosting_unet")
    return made


def batch() -> dict[str, Any]:
    rng = np.random.default_rng(8)
    latents = {
        name: rng.standard_normal((2, 4, HEIGHT, WIDTH)).astype(np.float32)
        for name in ("image_latent", "coarse_latent", "target_latent", "noise")
    }
    mask = rng.random((2, 1, HEIGHT, WIDTH)) < 0.6
    return {**latents, "timesteps": np.array([120, 999]), "mask": mask}


def reference(folder: Path, order: tuple[str, ...], masked: bool = True) -> tuple[float, Any]:
    """The loss and a UNet with its gradients, in float64."""
    torch.set_num_threads(1)
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "boosting_unet").double()
    text = torch.from_numpy(mc.load(folder, num_threads=1).empty_text_embedding).double()
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    scheduler = diffusers.DDPMScheduler.from_config(config, rescale_betas_zero_snr=True)
    given = {name: torch.from_numpy(value) for name, value in batch().items()}
    steps = given["timesteps"]
    target, noise = given["target_latent"].double(), given["noise"].double()
    alpha = scheduler.alphas_cumprod[steps].double().reshape(-1, 1, 1, 1)
    seen = {"sample": alpha.sqrt() * target + (1 - alpha).sqrt() * noise}
    seen |= {"image": given["image_latent"].double(), "coarse": given["coarse_latent"].double()}
    output = unet(torch.cat([seen[name] for name in order], 1), steps, text.repeat(2, 1, 1)).sample
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * target
    squares = (output - velocity) ** 2
    loss = squares[given["mask"].expand_as(squares)].mean() if masked else squares.mean()
    loss.backward()
    return loss.item(), unet


USUAL = ("image", "coarse", "sample")


@pytest.mark.parametrize("order", [USUAL, ("sample", "coarse", "image")])
def test_loss_and_gradients_are_those_of_torch(folder: Path, order: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "ordered"
    shutil.copytree(folder, path, symlinks=True)
    index = json.loads((folder / "model_index.json").read_text())
    (path / "model_index.json").unlink()
    (path / "model_index.json").write_text(json.dumps(index | {"boosting_inputs": ",".join(order)}))
    trainer = open_ours(path, objective="refine")
    loss = trainer.forward_backward(**batch())
    expected, unet = reference(path, order)
    assert loss == pytest.approx(expected, rel=1e-5)
    check_gradients(trainer.gradients(), unet)
    # the comparison tells an order from another, and a mask from none
    assert reference(path, ("coarse", "image", "sample"))[0] != pytest.approx(loss, rel=1e-3)
    assert reference(path, order, masked=False)[0] != pytest.approx(loss, rel=1e-3)


def test_masks_are_those_of_pooling_in_torch() -> None:
    rng = np.random.default_rng(2)
    truth = rng.uniform(-1, 1, (43, 61)).astype(np.float32)
    coarse = np.clip(truth + rng.normal(0, rng.uniform(0, 0.2, (43, 61))), -1, 1).astype(np.float32)
    mask = np.ones((43, 61), bool)
    mask[rng.integers(0, 43, 6), rng.integers(0, 61, 6)] = False
    found = agreement_mask(coarse, truth, mask, 0.11)
    squares = torch.from_numpy(np.where(mask, coarse - truth, 0).astype(np.float64) ** 2)[None, None]
    norm = torch.nn.functional.avg_pool2d(squares, 8).mul(64).sqrt()[0, 0]
    whole = -torch.nn.functional.max_pool2d(-torch.from_numpy(mask.astype(np.float64))[None, None], 8)[0, 0]
    expected = ((norm <= 8 * 0.11) & (whole == 1)).numpy()
    assert found.shape == (5, 7)
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.sum() < (whole == 1).sum() < found.size


def test_coarse_maps_are_aligned_by_least_squares() -> None:
    rng = np.random.default_rng(4)
    truth = rng.uniform(-1, 1, (16, 24)).astype(np.float32)
    mask = rng.random((16, 24)) < 0.7
    coarse = (0.3 * truth + 0.4 + rng.normal(0, 0.02, truth.shape)).astype(np.float32)
    design = np.stack([coarse[mask], np.ones(mask.sum())], 1).astype(np.float64)
    scale, shift = np.linalg.lstsq(design, truth[mask].astype(np.float64), rcond=None)[0]
    expected = np.clip(scale * coarse + shift, -1, 1)
    np.testing.assert_allclose(align_coarse(coarse, truth, mask), expected, atol=1e-5)

"""The absolute loss of depth, with gradient matching, against torch's autograd, through decoder and UNet. Written from
eq. 11 of MiDaS (arXiv 1907.01341), its differences weighed by the pixels that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from oracle_training import DEVICES, check_gradients, make_checkpoint, open_ours  # noqa: E402

import marigold_c as mc  # noqa: E402


def absolute_loss(depth: Any, truth: Any, valid: Any) -> Any:
    """Of maps (N, 1, H, W) the mean over valid pixels."""
    error, known = depth - truth, valid.to(depth.dtype)
    total = (error.abs() * known).sum()
    for step in (1, 2, 4, 8):
        coarse, seen = error[..., ::step, ::step], known[..., ::step, ::step]
        for axis in (-1, -2):
            length = coarse.shape[axis] - 1
            later, sooner = coarse.narrow(axis, 1, length), coarse.narrow(axis, 0, length)
            both = seen.narrow(axis, 1, length) * seen.narrow(axis, 0, length)
            total = total + 0.5 * step**2 * ((later - sooner).abs() * both).sum()
    return total / known.sum()


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_the_unet(device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "odd channels")
    rng = np.random.default_rng(3)
    image = rng.standard_normal((2, 4, 5, 7)).astype(np.float32)
    truth = rng.uniform(-1, 1, (2, 1, 40, 56)).astype(np.float32)
    mask = rng.random(truth.shape) > 0.2
    trainer = open_ours(folder, device, monkeypatch, objective="e2e", pixel_loss="absolute")
    found = trainer.forward_backward(image, pixel_target=truth, pixel_mask=mask, weight=0.5)

    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet").double()
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae", variant="fp16").double().requires_grad_(False)
    text = torch.from_numpy(mc.load(folder, num_threads=1).empty_text_embedding).double().repeat(2, 1, 1)
    latent = torch.from_numpy(image).double()
    output = unet(torch.cat([latent, torch.zeros_like(latent)], 1), torch.full((2,), 999), text).sample
    # Of pure noise, which the last time step is, v is minus the clean latent.
    decoded = vae.decode(-output / vae.config.scaling_factor).sample
    loss = absolute_loss(decoded.mean(1, keepdim=True), torch.from_numpy(truth).double(), torch.from_numpy(mask))
    loss.backward()
    np.testing.assert_allclose(found, loss.item(), rtol=1e-5)
    check_gradients(trainer.gradients(), unet, 0.5)

"""Marigold V2's SinkLoss against torch's autograd, alone and through decoder and UNet. Written from its description:
blocks of 5 x 5, logarithms normalised by rows and columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from oracle_training import DEVICES, check_gradients, make_checkpoint, open_ours  # noqa: E402

import marigold_c as mc  # noqa: E402
from marigold_c import _testing as engine  # noqa: E402


def sink_loss(predicted: Any, truth: Any, valid: Any) -> Any:
    """Of maps (N, 1, H, W) the mean over blocks."""
    below, beside = -predicted.shape[2] % 5, -predicted.shape[3] % 5

    def blocks(maps: Any) -> Any:
        padded = torch.nn.functional.pad(maps, (0, beside, 0, below))
        return torch.nn.functional.unfold(padded, 5, stride=5).transpose(1, 2)  # (N, blocks, 25)

    rows, columns, counts = blocks(predicted), blocks(truth), blocks(valid.to(predicted.dtype)) > 0
    pairs = counts[..., :, None] & counts[..., None, :]
    cost = (columns[..., None, :] - rows[..., :, None]).abs()
    plan = -torch.where(pairs, cost, torch.full_like(cost, 1e6)) / 0.1
    for _ in range(5):
        plan = plan - torch.logsumexp(plan, -1, keepdim=True)
        plan = plan - torch.logsumexp(plan, -2, keepdim=True)
    mass = plan.exp() * pairs
    total = mass.sum((-2, -1))
    losses = (mass * cost).sum((-2, -1)) / total.clamp_min(1e-3)
    return losses[total > 1e-3].mean()


@pytest.mark.parametrize("share", [1.0, 0.8, 0.2])
@pytest.mark.parametrize("size", [(20, 30), (23, 31)])
def test_value_and_gradient(size: tuple[int, int], share: float) -> None:
    rng = np.random.default_rng(7)
    truth = rng.uniform(-1, 1, size).astype(np.float32)
    depth = np.clip(truth + 0.4 * rng.standard_normal(size), -1, 1).astype(np.float32)
    valid = rng.random(size) < share
    moved = torch.from_numpy(depth).double()[None, None].requires_grad_()
    loss = sink_loss(moved, torch.from_numpy(truth).double()[None, None], torch.from_numpy(valid)[None, None])
    loss.backward()
    total, blocks, slope = engine.sink_loss(depth, truth, valid.astype(np.uint8), *size, 1.0)
    np.testing.assert_allclose(total / blocks, loss.item(), rtol=1e-6)
    expected = moved.grad[0, 0].numpy() * blocks
    found = np.frombuffer(slope, np.float32).reshape(size)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    print(f"relative error {error:.2g} in {blocks} blocks")
    assert error <= 1e-4


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_the_unet(device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "odd channels")
    rng = np.random.default_rng(3)
    image = rng.standard_normal((2, 4, 5, 7)).astype(np.float32)
    truth = rng.uniform(-1, 1, (2, 1, 40, 56)).astype(np.float32)
    mask = rng.random(truth.shape) > 0.2
    mask[0, 0, :10, :10] = False  # blocks without a valid pixel
    trainer = open_ours(folder, device, monkeypatch, objective="e2e", pixel_loss="sink")
    found = trainer.forward_backward(image, pixel_target=truth, pixel_mask=mask, weight=0.5)

    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet").double()
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae", variant="fp16").double().requires_grad_(False)
    text = torch.from_numpy(mc.load(folder, num_threads=1).empty_text_embedding).double().repeat(2, 1, 1)
    latent = torch.from_numpy(image).double()
    output = unet(torch.cat([latent, torch.zeros_like(latent)], 1), torch.full((2,), 999), text).sample
    # Of pure noise, which the last time step is, v is minus the clean latent.
    decoded = vae.decode(-output / vae.config.scaling_factor).sample
    depth = decoded.mean(1, keepdim=True).clip(-1, 1)
    loss = sink_loss(depth, torch.from_numpy(truth).double(), torch.from_numpy(mask))
    loss.backward()
    np.testing.assert_allclose(found, loss.item(), rtol=1e-5)
    check_gradients(trainer.gradients(), unet, 0.5)

"""The gradient of the VAE's decoder, through which pixel losses train the UNet, against torch's autograd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import marigold_c as mc  # noqa: E402
from marigold_c import _testing as engine  # noqa: E402

DEVICES = [("ref", None), *(("cpu", isa) for isa in engine.isas())]
TOLERANCE = 2e-5  # relative, in the root of the sum of squares, against float64


def compare(vae: Any, folder: Path | None, device: str, isa: str | None, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    z = rng.standard_normal(shape).astype(np.float32)
    x = torch.from_numpy(z).double().requires_grad_()
    image = vae.double().decode(x).sample
    seed = rng.standard_normal(image.shape).astype(np.float32)
    (image * torch.from_numpy(seed)).sum().backward()
    expected = x.grad.numpy()
    checkpoint, other = str(mc.default_checkpoint()), None if folder is None else str(folder)
    found = [
        np.frombuffer(
            engine.decoder_gradient(checkpoint, other, device, isa, 2, z, seed, shape, recompute), np.float32
        ).reshape(shape)
        for recompute in (False, True)
    ]
    np.testing.assert_array_equal(*found)
    error = np.linalg.norm(found[0] - expected) / np.linalg.norm(expected)
    print(f"relative error {error:.2g}")
    assert error <= TOLERANCE


@pytest.mark.parametrize(("device", "isa"), DEVICES)
def test_autoencoder(device: str, isa: str | None) -> None:
    torch.set_num_threads(1)
    vae = diffusers.AutoencoderKL.from_pretrained(mc.default_checkpoint() / "vae", variant="fp16")
    compare(vae, None, device, isa, (2, 4, 3, 5) if device == "ref" else (2, 4, 7, 9))


@pytest.mark.parametrize(("device", "isa"), DEVICES)
def test_larger_autoencoder(device: str, isa: str | None, tmp_path: Path) -> None:
    """Four levels and attention, as Stable Diffusion's."""
    torch.manual_seed(1)
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 24, 32, 32),
        layers_per_block=2,
        norm_num_groups=8,
    )
    vae.save_pretrained(tmp_path)
    compare(vae, tmp_path, device, isa, (1, 4, 3, 4))


@pytest.mark.parametrize(("device", "isa"), DEVICES)
def test_tiny_autoencoder(device: str, isa: str | None, tmp_path: Path) -> None:
    torch.manual_seed(2)
    vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(24, 24, 24, 24), decoder_block_out_channels=(24, 24, 24, 24)
    )
    vae.save_pretrained(tmp_path)
    compare(vae, tmp_path, device, isa, (2, 4, 4, 5))

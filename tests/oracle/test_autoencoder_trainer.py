"""Training an autoencoder, against torch's autograd and Adam, through diffusers' AutoencoderKL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import marigold_c as mc  # noqa: E402
from marigold_c import _testing as engine  # noqa: E402

Array = NDArray[np.float32]

DEVICES = ["ref", *engine.isas()]
# Of a parameter's gradient, relative to its own size, against float64: as in test_trainer.py.
GRADIENT = 1e-4
TERMS = (0.7, 0.4, 1.3, 2e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small checkpoint with a random autoencoder: three levels, odd channels, and what SD's has of everything."""
    base, path = mc.default_checkpoint("normals"), tmp_path_factory.mktemp("checkpoint")
    for part in base.iterdir():
        if part.name != "vae":
            (path / part.name).symlink_to(part)
    torch.manual_seed(3)
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 24, 40),  # groups of one channel would take biases' effect away
        layers_per_block=2,
        norm_num_groups=8,
        scaling_factor=0.7,
    )
    vae.save_pretrained(path / "vae")
    return path


def random_batch(seed: int, samples: int = 2) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    images = np.tanh(rng.standard_normal((samples, 3, 20, 28))).astype(np.float32)
    return images, rng.standard_normal((samples, 4, 5, 7)).astype(np.float32)


def their_loss(vae: Any, images: Array, noise: Array | None, dtype: Any) -> tuple[Any, dict[str, float]]:
    x = torch.from_numpy(images).to(dtype)
    posterior = vae.encode(x).latent_dist
    z = posterior.mean
    if noise is not None:
        z = z + posterior.std * torch.from_numpy(noise).to(dtype)
    difference = vae.decode(z).sample - x

    def mean_magnitude(values: Any) -> Any:
        return ((values**2 + 1e-6).sqrt() - 1e-3).mean()

    terms = {"absolute": mean_magnitude(difference), "square": (difference**2).mean(), "edges": 0.0}
    for level in range(3):
        small = torch.nn.functional.avg_pool2d(difference, 2**level)
        down, right = small[:, :, 1:] - small[:, :, :-1], small[:, :, :, 1:] - small[:, :, :, :-1]
        terms["edges"] = terms["edges"] + (mean_magnitude(down) + mean_magnitude(right)) / 3
    divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar)
    terms["divergence"] = divergence.mean()
    total = sum(weight * term for weight, term in zip(TERMS, terms.values(), strict=True))
    return total, {"total": total.item(), **{name: term.item() for name, term in terms.items()}}


def open_ours(folder: Path, device: str = "cpu", monkeypatch: Any = None, **options: Any) -> mc.Trainer:
    if monkeypatch and device != "ref":
        monkeypatch.setenv("MARIGOLD_ISA", device)
        device = "cpu"
    options = {"num_threads": 1, "reconstruction": TERMS, **options}
    return mc.Trainer.from_pretrained(folder, objective="autoencoder", device=device, **options)


def open_theirs(folder: Path, dtype: Any) -> Any:
    torch.set_num_threads(1)
    return diffusers.AutoencoderKL.from_pretrained(folder / "vae").to(dtype)


def check_gradients(found: dict[str, Array], vae: Any) -> None:
    parameters = dict(vae.named_parameters())
    assert found.keys() == parameters.keys()
    # Gradients of the keys' biases are nothing but rounding.
    whole = np.sqrt(sum(float((p.grad**2).sum()) for p in parameters.values()))
    errors = {}
    for name, parameter in parameters.items():
        expected = parameter.grad.numpy()
        assert found[name].shape == expected.shape
        errors[name] = float(np.linalg.norm(found[name] - expected) / max(np.linalg.norm(expected), 1e-5 * whole))
    worst = max(errors, key=lambda name: errors[name])
    print(f"largest relative error {errors[worst]:.2g} ({worst})")
    assert errors[worst] <= GRADIENT, f"{worst}: {errors[worst]:.3g}"


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_loss_and_gradients(
    folder: Path, device: str, sampled: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "ref" and (checkpointing or not sampled):
        pytest.skip("slow, and the same operations")
    images, noise = random_batch(1)
    vae = open_theirs(folder, torch.float64)
    total, expected = their_loss(vae, images, noise if sampled else None, torch.float64)
    (total / 2).backward()
    ours = open_ours(folder, device, monkeypatch, gradient_checkpointing=checkpointing)
    found = ours.reconstruct(images, noise if sampled else None, weight=0.5)
    assert found == pytest.approx(expected, rel=1e-5)
    check_gradients(ours.gradients(), vae)


def test_extreme_variances_do_not_move(folder: Path, tmp_path: Path) -> None:
    """Where diffusers clamps the log variance, it has no gradient."""
    vae = open_theirs(folder, torch.float64)
    with torch.no_grad():
        vae.quant_conv.bias[4:6] = torch.tensor([40.0, -60.0])
    vae.float().save_pretrained(tmp_path / "vae")
    for part in folder.iterdir():
        if part.name != "vae":
            (tmp_path / part.name).symlink_to(part)
    images, noise = random_batch(2)
    vae = open_theirs(tmp_path, torch.float64)
    noise *= 1e-3  # a deviation of exp(10) otherwise
    total, expected = their_loss(vae, images, noise, torch.float64)
    total.backward()
    ours = open_ours(tmp_path)
    assert ours.reconstruct(images, noise) == pytest.approx(expected, rel=1e-4)
    found = ours.gradients()["quant_conv.bias"]
    np.testing.assert_array_equal(found[4:6], 0)
    np.testing.assert_allclose(found, vae.quant_conv.bias.grad.numpy(), rtol=1e-3, atol=1e-7)


def test_twenty_steps(folder: Path) -> None:
    """Parameters within 1e-4 and the same loss curve, against torch's float32. With Adam's usual epsilon the rounding
    of a gradient that is next to nothing would decide in which direction a weight goes."""
    vae, ours = open_theirs(folder, torch.float32), open_ours(folder, learning_rate=1e-4, epsilon=1e-6)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-4, eps=1e-6)
    for step in range(20):
        images, noise = random_batch(step)
        total, expected = their_loss(vae, images, noise, torch.float32)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert ours.reconstruct(images, noise) == pytest.approx(expected, rel=1e-3)
        ours.optimizer_step()
    found = ours.parameters()
    for key, parameter in vae.named_parameters():
        if key.endswith("to_k.bias"):
            continue  # a softmax does not change with it: its gradient is rounding, of which Adam makes whole steps
        expected_values = parameter.detach().numpy()
        error = np.linalg.norm(found[key] - expected_values) / max(np.linalg.norm(expected_values), 1e-1)
        assert error <= 1e-4, f"{key}: {error:.3g}"


def test_what_is_saved_opens_in_diffusers(folder: Path, tmp_path: Path) -> None:
    ours = open_ours(folder)
    ours.reconstruct(*random_batch(0))
    ours.optimizer_step(1e-3)
    ours.save_pretrained(tmp_path)
    saved = diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae")
    assert saved.config.scaling_factor == 0.7
    found = ours.parameters()
    for name, value in saved.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), found[name], err_msg=name)

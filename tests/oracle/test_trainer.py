"""The trainer against torch's autograd and optimisers, through diffusers' UNet in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from oracle_training import DEVICES, UNETS, Array, check_gradients, make_checkpoint, open_ours  # noqa: E402

import marigold_c as mc  # noqa: E402

Batch = tuple[Array, Array, Array, NDArray[np.int64], NDArray[np.bool_] | None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint with a random UNet of this name and these channels, and the rest of the small one."""

    def make(name: str, targets: int = 1, inputs: int | None = None, prediction: str = "v_prediction") -> Path:
        folder = tmp_path_factory.mktemp(name.replace(" ", "_"))
        return make_checkpoint(folder, name, "depth" if targets == 1 else "intrinsics", targets, inputs, prediction)

    return make


def random_batch(seed: int, targets: int = 1, samples: int = 2, masked: bool = True) -> Batch:
    rng = np.random.default_rng(seed)
    h, w = 9, 14

    def normal(channels: int) -> Array:
        return rng.standard_normal((samples, channels, h, w)).astype(np.float32)

    steps = rng.integers(0, 1000, samples)
    mask = rng.random((samples, 1, h, w)) > 0.3 if masked else None
    return normal(4), normal(4 * targets), normal(4 * targets), steps, mask


class Theirs:
    """The reference: float64, the text of the empty prompt, DDPM's noise."""

    def __init__(self, folder: Path, dtype: Any = None) -> None:
        torch.set_num_threads(1)
        self.dtype = dtype or torch.float64
        unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
        self.unet = unet.to(self.dtype)
        self.text = torch.from_numpy(mc.load(folder, num_threads=1).empty_text_embedding)
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        self.scheduler = diffusers.DDPMScheduler.from_config(
            config, rescale_betas_zero_snr=True, timestep_spacing="trailing"
        )

    def loss(self, batch: Batch) -> Any:
        image, clean, noise = (torch.from_numpy(array) for array in batch[:3])
        steps = torch.from_numpy(batch[3])
        noisy = self.scheduler.add_noise(clean, noise, steps)
        kind = self.scheduler.config.prediction_type
        wanted = {"epsilon": noise, "sample": clean}.get(kind)
        if wanted is None:
            wanted = self.scheduler.get_velocity(clean, noise, steps)
        text = self.text.repeat(len(image), 1, 1).to(self.dtype)
        output = self.unet(torch.cat([image, noisy], 1).to(self.dtype), steps, text).sample
        error = (output - wanted) ** 2
        if batch[4] is None:
            return error.mean()
        return error[torch.from_numpy(batch[4]).expand_as(error)].mean()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", UNETS)
def test_loss_and_gradients(folders: Any, name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folders(name)
    theirs, batch = Theirs(folder), random_batch(1)
    ours = open_ours(folder, device, monkeypatch)
    loss = ours.forward_backward(*batch)
    expected = theirs.loss(batch)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    check_gradients(ours.gradients(), theirs.unet)


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_prediction_types(folders: Any, prediction: str) -> None:
    folder = folders("odd channels", prediction=prediction)
    theirs, batch = Theirs(folder), random_batch(2, masked=False)
    ours = open_ours(folder)
    expected = theirs.loss(batch)
    expected.backward()
    assert ours.forward_backward(*batch) == pytest.approx(expected.item(), rel=1e-5)
    check_gradients(ours.gradients(), theirs.unet)


def test_gradients_of_several_batches_add_up(folders: Any) -> None:
    folder = folders("odd channels")
    theirs, ours = Theirs(folder), open_ours(folder)
    for seed in range(3):
        ours.forward_backward(*random_batch(seed, samples=1 + seed % 2), weight=1 / 3)
        (theirs.loss(random_batch(seed, samples=1 + seed % 2)) / 3).backward()
    check_gradients(ours.gradients(), theirs.unet)


def test_three_targets(folders: Any) -> None:
    folder = folders("odd channels", targets=3)
    theirs, batch = Theirs(folder), random_batch(3, targets=3)
    ours = mc.Trainer.from_pretrained(folder, task="iid", num_threads=1)
    expected = theirs.loss(batch)
    expected.backward()
    assert ours.forward_backward(*batch) == pytest.approx(expected.item(), rel=1e-5)
    check_gradients(ours.gradients(), theirs.unet)


OPTIMIZERS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "adam": ({"optimizer": "adam"}, lambda p: torch.optim.Adam(p, lr=1e-4)),
    "adam with decay": (
        {"optimizer": "adam", "weight_decay": 1e-2, "betas": (0.8, 0.99), "epsilon": 1e-6},
        lambda p: torch.optim.Adam(p, lr=1e-4, weight_decay=1e-2, betas=(0.8, 0.99), eps=1e-6),
    ),
    "adamw, clipped": (
        {"optimizer": "adamw", "max_gradient_norm": 0.05},
        lambda p: torch.optim.AdamW(p, lr=1e-4),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_steps(folders: Any, name: str) -> None:
    """Parameters within 1e-4 and the same loss curve, against torch's float32."""
    options, make = OPTIMIZERS[name]
    folder = folders("sd2")
    theirs, ours = Theirs(folder, torch.float32), open_ours(folder, learning_rate=1e-4, **options)
    parameters = list(theirs.unet.parameters())
    optimizer = make(parameters)
    for step in range(20):
        batch = random_batch(step, samples=1)
        loss = theirs.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        clip = options.get("max_gradient_norm")
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip if clip else float("inf"))
        optimizer.step()
        assert ours.forward_backward(*batch) == pytest.approx(loss.item(), rel=1e-4)
        assert ours.optimizer_step() == pytest.approx(norm.item(), rel=1e-3)
    assert ours.steps == 20
    assert not any(gradient.any() for gradient in ours.gradients().values())
    found = ours.parameters()
    for key, parameter in theirs.unet.named_parameters():
        expected = parameter.detach().numpy()
        error = np.linalg.norm(found[key] - expected) / max(np.linalg.norm(expected), 1e-2)
        assert error <= 1e-4, f"{key}: {error:.3g}"


def test_widening_a_text_to_image_unet(folders: Any, tmp_path: Path) -> None:
    for task, targets in (("depth", 1), ("iid", 3)):
        folder = folders("odd channels", targets=targets, inputs=4)
        ours = mc.Trainer.from_pretrained(folder, task=task, num_targets=targets, num_threads=1)
        stored = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
        found = ours.parameters()
        first = stored["conv_in.weight"].repeat(1, 1 + targets, 1, 1) / (1 + targets)
        np.testing.assert_allclose(found["conv_in.weight"], first.numpy(), rtol=1e-6)
        np.testing.assert_array_equal(found["conv_out.weight"], stored["conv_out.weight"].repeat(targets, 1, 1, 1))
        np.testing.assert_array_equal(found["conv_out.bias"], stored["conv_out.bias"].repeat(targets))
        np.testing.assert_array_equal(found["conv_in.bias"], stored["conv_in.bias"])
        ours.save_pretrained(tmp_path / task)
        saved = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / task / "unet")
        assert (saved.config.in_channels, saved.config.out_channels) == (4 * (1 + targets), 4 * targets)
        np.testing.assert_array_equal(saved.state_dict()["conv_in.weight"], found["conv_in.weight"])

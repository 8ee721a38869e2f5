"""End-to-end fine-tuning and consistency distillation against torch's autograd and optimisers, by diffusers' modules.

The losses are written here from the papers' equations (arXiv 2409.11355, 2310.04378), in float64.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from oracle_training import DEVICES, Array, check_gradients, make_checkpoint, open_ours  # noqa: E402

import marigold_c as mc  # noqa: E402

Inputs = dict[str, Any]
HEIGHT, WIDTH = 5, 7  # of latents
# Distance of two sets of weights after twenty steps, relative to each weight's norm.
STEPS, PARAMETERS = 20, 1e-4
CLIP = 0.1


class Reference:
    """diffusers' UNet and schedule of a checkpoint; losses of its output."""

    def __init__(self, folder: Path, task: str, dtype: Any = None, zero_terminal_snr: bool = True) -> None:
        torch.set_num_threads(1)
        self.dtype = dtype or torch.float64
        self.task = task
        self.unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet").to(self.dtype)
        self.vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae", variant="fp16" if task == "depth" else None)
        self.vae = self.vae.to(self.dtype).requires_grad_(False)
        self.text = torch.from_numpy(mc.load(folder, num_threads=1).empty_text_embedding).to(self.dtype)
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        scheduler = diffusers.DDPMScheduler.from_config(config, rescale_betas_zero_snr=zero_terminal_snr)
        self.alphas = scheduler.alphas_cumprod.to(self.dtype)
        self.prediction = config["prediction_type"]

    def tensor(self, array: Array) -> Any:
        return torch.from_numpy(array).to(self.dtype)

    def run(self, unet: Any, image: Any, sample: Any, steps: Any) -> Any:
        return unet(torch.cat([image, sample], 1), steps, self.text.repeat(len(image), 1, 1)).sample

    def clean_and_noise(self, output: Any, sample: Any, steps: Any) -> tuple[Any, Any]:
        """x0 and epsilon of what the network gave at these time steps."""
        alpha = self.alphas[steps].reshape(-1, 1, 1, 1)
        signal, strength = alpha.sqrt(), (1 - alpha).sqrt()
        if self.prediction == "sample":
            return output, (sample - signal * output) / strength
        assert self.prediction == "v_prediction"
        return signal * sample - strength * output, signal * output + strength * sample

    # ---- end to end ----

    def pixel_loss(
        self,
        image_latent: Array,
        pixel_target: Array,
        pixel_mask: NDArray[np.bool_] | None = None,
        noise: Array | None = None,
    ) -> Any:
        image = self.tensor(image_latent)
        steps = torch.full((len(image),), len(self.alphas) - 1)
        start = torch.zeros(len(image), self.unet.config.out_channels, *image.shape[2:], dtype=self.dtype)
        if noise is not None:
            start = self.tensor(noise)
        clean, _ = self.clean_and_noise(self.run(self.unet, image, start, steps), start, steps)
        maps = [self.vae.decode(part / self.vae.config.scaling_factor).sample for part in clean.split(4, 1)]
        target = self.tensor(np.nan_to_num(pixel_target))
        mask = torch.ones(len(image), 1, *target.shape[2:], dtype=torch.bool)
        if pixel_mask is not None:
            mask = torch.from_numpy(pixel_mask)
        return {"depth": self.depth, "normals": self.normals, "intrinsics": self.intrinsics}[self.task](
            maps, target, mask
        )

    def depth(self, maps: list[Any], target: Any, mask: Any) -> Any:
        depth = maps[0].mean(1, keepdim=True).clamp(-1, 1)
        errors = []
        for p, g, valid in zip(depth, target, mask, strict=True):
            p, g = p[valid], g[valid]
            system = torch.stack([p, torch.ones_like(p)], 1)
            if len(p):
                solution = torch.linalg.solve(system.T @ system, system.T @ g)
                errors.append((system @ solution - g).abs())
        return torch.cat(errors).mean()

    def normals(self, maps: list[Any], target: Any, mask: Any) -> Any:
        length = torch.linalg.vector_norm(target, dim=1, keepdim=True)
        valid = (mask & (length > 0))[:, 0]
        unit = target / length.clamp(min=1e-12)
        decoded = maps[0] / (torch.linalg.vector_norm(maps[0], dim=1, keepdim=True) + 1e-5)
        return torch.acos((decoded * unit).sum(1).clamp(-1, 1)[valid]).mean()

    def intrinsics(self, maps: list[Any], target: Any, mask: Any) -> Any:
        error = (torch.cat(maps, 1) - target).abs()
        return error[mask.expand_as(error)].mean()

    # ---- distillation ----

    def keep_others(self) -> None:
        self.teacher = copy.deepcopy(self.unet).requires_grad_(False)
        self.average = copy.deepcopy(self.unet).requires_grad_(False)

    def follow(self, decay: float) -> None:
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.unet.parameters(), strict=True):
                slow.mul_(decay).add_(fast, alpha=1 - decay)

    def consistency(self, unet: Any, image: Any, sample: Any, steps: Any) -> Any:
        scaled = 10 * steps.to(self.dtype).reshape(-1, 1, 1, 1)
        skip, share = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25).sqrt()
        clean, _ = self.clean_and_noise(self.run(unet, image, sample, steps), sample, steps)
        return skip * sample + share * clean

    def distillation_loss(
        self,
        image_latent: Array,
        target_latent: Array,
        noise: Array,
        timesteps: NDArray[np.int64],
        mask: NDArray[np.bool_] | None = None,
        parts: int = 5,
    ) -> Any:
        image, clean, epsilon = map(self.tensor, (image_latent, target_latent, noise))
        steps = torch.from_numpy(timesteps)
        earlier = (steps - len(self.alphas) // parts).clamp(min=0)
        alpha = self.alphas[steps].reshape(-1, 1, 1, 1)
        sample = alpha.sqrt() * clean + (1 - alpha).sqrt() * epsilon
        with torch.no_grad():
            x0, direction = self.clean_and_noise(self.run(self.teacher, image, sample, steps), sample, steps)
            before = self.alphas[earlier].reshape(-1, 1, 1, 1)
            goal = self.consistency(self.average, image, before.sqrt() * x0 + (1 - before).sqrt() * direction, earlier)
        error = self.consistency(self.unet, image, sample, steps) - goal
        error = (error**2 + 0.001**2).sqrt() - 0.001
        return error.mean() if mask is None else error[torch.from_numpy(mask).expand_as(error)].mean()


TASKS = {"depth": 1, "normals": 1, "intrinsics": 2}


def checkpoint(folder: Path, task: str, name: str = "odd channels", **options: Any) -> Path:
    return make_checkpoint(folder, name, task, TASKS[task], **options)


def pixel_batch(task: str, seed: int, samples: int = 2, masked: bool = True) -> Inputs:
    rng = np.random.default_rng(seed)
    channels = {"depth": 1, "normals": 3, "intrinsics": 3 * TASKS["intrinsics"]}[task]
    target = rng.standard_normal((samples, channels, 8 * HEIGHT, 8 * WIDTH)).astype(np.float32)
    if task == "depth":
        rows, columns = np.mgrid[0 : 8 * HEIGHT, 0 : 8 * WIDTH]
        target = 3 + np.abs(target) + np.sin(rows / (5 + seed)) + 2 * columns / (8 * WIDTH)
    elif task == "normals":
        target /= np.linalg.norm(target, axis=1, keepdims=True)
        target[:, :, :3, :5] = 0  # no normal there
    else:
        target = np.tanh(target)
    inputs: Inputs = {
        "image_latent": rng.standard_normal((samples, 4, HEIGHT, WIDTH)).astype(np.float32),
        "pixel_target": target.astype(np.float32),
    }
    if masked:
        mask = rng.random((samples, 1, 8 * HEIGHT, 8 * WIDTH)) > 0.3
        target[~np.broadcast_to(mask, target.shape)] = np.nan
        inputs["pixel_target"], inputs["pixel_mask"] = target.astype(np.float32), mask
    return inputs


def latent_batch(seed: int, samples: int = 2, masked: bool = True, parts: int = 5, targets: int = 1) -> Inputs:
    rng = np.random.default_rng(seed)

    def normal(channels: int) -> Array:
        return rng.standard_normal((samples, channels, HEIGHT, WIDTH)).astype(np.float32)

    inputs: Inputs = {
        "image_latent": normal(4),
        "target_latent": normal(4 * targets),
        "noise": normal(4 * targets),
        "timesteps": (rng.integers(0, parts, samples) + 1) * (1000 // parts) - 1,
    }
    if masked:
        inputs["mask"] = rng.random((samples, 1, HEIGHT, WIDTH)) > 0.3
    return inputs


def compare_gradients(ours: mc.Trainer, theirs: Reference, expected: Any, inputs: Inputs) -> None:
    expected.backward()
    assert ours.forward_backward(**inputs) == pytest.approx(expected.item(), rel=1e-5)
    check_gradients(ours.gradients(), theirs.unet)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("task", TASKS)
def test_end_to_end(task: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path, task)
    theirs, inputs = Reference(folder, task), pixel_batch(task, 1)
    ours = open_ours(folder, device, monkeypatch, task=task, objective="e2e")
    compare_gradients(ours, theirs, theirs.pixel_loss(**inputs), inputs)


@pytest.mark.parametrize("task", TASKS)
def test_end_to_end_of_a_larger_network(task: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, task, "sd2", prediction="sample")
    theirs, inputs = Reference(folder, task), pixel_batch(task, 2, masked=False)
    ours = open_ours(folder, task=task, objective="e2e", gradient_checkpointing=True)
    compare_gradients(ours, theirs, theirs.pixel_loss(**inputs), inputs)


@pytest.mark.parametrize("zero_terminal_snr", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_end_to_end_from_noise(task: str, zero_terminal_snr: bool, tmp_path: Path) -> None:
    """Where the last time step has some signal left, the noise is a part of the clean latent, too."""
    folder = checkpoint(tmp_path, task)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rescale_betas_zero_snr": zero_terminal_snr}))
    theirs, inputs = Reference(folder, task, zero_terminal_snr=zero_terminal_snr), pixel_batch(task, 5)
    shape = (len(inputs["image_latent"]), theirs.unet.config.out_channels, HEIGHT, WIDTH)
    inputs["noise"] = np.random.default_rng(6).standard_normal(shape).astype(np.float32)
    ours = open_ours(folder, task=task, objective="e2e", zero_terminal_snr=zero_terminal_snr)
    compare_gradients(ours, theirs, theirs.pixel_loss(**inputs), inputs)


def test_a_map_beyond_its_range(tmp_path: Path) -> None:
    """The mean of the channels is cut off at -1 and 1, where nothing is learnt."""
    folder = checkpoint(tmp_path, "depth")
    path = folder / "vae"
    target = path.resolve()
    path.unlink()
    vae = diffusers.AutoencoderKL.from_pretrained(target, variant="fp16")
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(6)
    vae.save_pretrained(path, variant="fp16")
    theirs, inputs = Reference(folder, "depth"), pixel_batch("depth", 3)
    pixels = theirs.vae.decode(-torch.zeros(1, 4, HEIGHT, WIDTH, dtype=torch.float64)).sample.mean(1)
    print(f"of a zero latent, {(pixels.abs() > 1).double().mean():.0%} lie beyond")
    ours = open_ours(folder, objective="e2e")
    compare_gradients(ours, theirs, theirs.pixel_loss(**inputs), inputs)


def test_an_image_without_valid_pixels_has_no_part(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "depth")
    theirs, inputs = Reference(folder, "depth"), pixel_batch("depth", 4, samples=3)
    inputs["pixel_mask"][1] = False
    ours = open_ours(folder, objective="e2e")
    compare_gradients(ours, theirs, theirs.pixel_loss(**inputs), inputs)


@pytest.mark.parametrize("device", DEVICES)
def test_distillation(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Student, teacher and average are three different networks."""
    folder = checkpoint(tmp_path, "depth")
    other = tmp_path / "other"
    other.mkdir()
    checkpoint(other, "depth", seed=8)
    theirs = Reference(folder, "depth")
    theirs.keep_others()
    theirs.teacher = Reference(other, "depth").unet.requires_grad_(False)
    ours = open_ours(folder, device, monkeypatch, objective="lcm", teacher=other, learning_rate=1e-3)
    # One step parts the average from the student.
    for inputs in (latent_batch(1), latent_batch(2)):
        theirs.unet.zero_grad()
        compare_gradients(ours, theirs, theirs.distillation_loss(**inputs), inputs)
        ours.optimizer_step()
        theirs.unet.load_state_dict({key: theirs.tensor(value) for key, value in ours.parameters().items()})
        theirs.follow(0.95)


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_distillation_in_other_steps(parts: int, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "intrinsics", prediction="sample")
    theirs, inputs = Reference(folder, "intrinsics"), latent_batch(3, 3, False, parts, TASKS["intrinsics"])
    theirs.keep_others()
    ours = open_ours(folder, task="iid", objective="lcm", num_ddim_timesteps=parts)
    compare_gradients(ours, theirs, theirs.distillation_loss(**inputs, parts=parts), inputs)


def same_parameters(found: dict[str, Array], unet: Any) -> None:
    for key, parameter in unet.named_parameters():
        expected = parameter.detach().numpy()
        error = np.linalg.norm(found[key] - expected) / max(np.linalg.norm(expected), 1e-2)
        assert error <= PARAMETERS, f"{key}: {error:.3g}"


OBJECTIVES = {"e2e depth": "depth", "e2e normals": "normals", "e2e intrinsics": "intrinsics", "lcm": "depth"}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_twenty_steps(name: str, tmp_path: Path) -> None:
    """AdamW with its decay, clipped: the same losses, norms and parameters as torch's, and the same average."""
    task, objective = OBJECTIVES[name], name.split()[0]
    folder = checkpoint(tmp_path, task)
    theirs = Reference(folder, task)
    theirs.keep_others()
    ours = open_ours(
        folder, task=task, objective=objective, optimizer="adamw", learning_rate=3e-5, max_gradient_norm=CLIP
    )
    parameters = list(theirs.unet.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=3e-5)
    clipped = 0
    for step in range(STEPS):
        inputs = latent_batch(step, 1) if objective == "lcm" else pixel_batch(task, step, 1)
        loss = theirs.distillation_loss(**inputs) if objective == "lcm" else theirs.pixel_loss(**inputs)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        clipped += bool(norm > CLIP)
        optimizer.step()
        theirs.follow(0.95)
        assert ours.forward_backward(**inputs) == pytest.approx(loss.item(), rel=1e-4)
        print(f"step {step}: loss {loss.item():.6g}, norm {norm.item():.4g}")
        assert ours.optimizer_step() == pytest.approx(norm.item(), rel=1e-3)
    assert clipped
    same_parameters(ours.parameters(), theirs.unet)
    if objective == "lcm":
        average = {key: ours._engine.read(i, "average") for i, key in enumerate(ours.parameters())}
        same_parameters(average, theirs.average)

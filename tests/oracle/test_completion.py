"""Guided depth completion against diffusers' modules, torch's autograd and torch's Adam, put together as Marigold-DC
(arXiv 2412.13389) is, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from oracle_pipelines import for_diffusers, photo  # noqa: E402
from oracle_training import Array, make_checkpoint  # noqa: E402

import marigold_c as mc  # noqa: E402
from marigold_c import _testing as engine  # noqa: E402

RECOMPUTE = (1, 2, 3)  # off, unet, on
DEVICES = [("ref", None), *(("cpu", isa) for isa in engine.isas())]
STEPS, RESULTS, GRADIENT = 10, 1e-4, 1e-4  # at 1e-3 ten steps hide another decay of Adam's second moment


def measured(height: int, width: int, count: int, seed: int = 0) -> Array:
    """Points of a slanted plane with a step, in metres."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    depth = 1.5 + 2.0 * x / width + 0.7 * y / height + 1.2 * (x > width / 2)
    sparse = np.zeros((height, width), np.float32)
    chosen = rng.permutation(height * width)[:count]
    sparse.flat[chosen] = depth.flat[chosen]
    return sparse


class Reference:
    """Marigold-DC's loop for one member, of diffusers' parts."""

    def __init__(self, folder: Path, vae: Any = None, dtype: Any = torch.float64) -> None:
        torch.set_num_threads(1)
        self.dtype = dtype
        named = "fp16" if (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").exists() else None
        self.unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", variant=named)
        self.vae = vae or diffusers.AutoencoderKL.from_pretrained(folder / "vae", variant="fp16")
        for module in (self.unet, self.vae):
            module.to(dtype).requires_grad_(False).eval()
        self.text = torch.from_numpy(mc.load(folder, num_threads=1).empty_text_embedding).to(dtype)
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        self.scheduler = diffusers.DDIMScheduler.from_config(config, timestep_spacing="trailing")
        self.processor = diffusers.pipelines.marigold.MarigoldImageProcessor(vae_scale_factor=8)

    def encode(self, image: NDArray[np.uint8], resolution: int) -> None:
        pixels, self.padding, self.size = self.processor.preprocess(
            for_diffusers(image), resolution, "bilinear", torch.device("cpu"), torch.float32
        )
        encoded = self.vae.encode(pixels.to(self.dtype))
        latent = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        self.image_latent = latent * self.vae.config.scaling_factor

    def measure(self, sparse: Array) -> None:
        self.sparse = torch.from_numpy(sparse).to(self.dtype)
        self.valid = self.sparse > 0
        self.near, self.far = self.sparse[self.valid].min(), self.sparse[self.valid].max()

    def metres(self, latent: Any, scale: Any, shift: Any) -> Any:
        decoded = self.vae.decode(latent / self.vae.config.scaling_factor).sample
        depth = decoded.mean(dim=1, keepdim=True)
        self.clipped = float((depth.detach().abs() > 1).double().mean())
        depth = (depth.clip(-1.0, 1.0) + 1.0) / 2.0
        metric = scale**2 * (self.far - self.near) * depth + shift**2 * self.near
        metric = self.processor.unpad_image(metric, self.padding)
        return self.processor.resize_antialias(metric, self.size, "bilinear", is_aa=False)[0, 0]

    def loss(self, sample: Any, timestep: Any, scale: Any, shift: Any) -> tuple[Any, Any]:
        output = self.unet(torch.cat([self.image_latent, sample], 1), timestep, self.text).sample
        alpha = self.scheduler.alphas_cumprod[timestep].to(self.dtype)
        assert self.scheduler.config.prediction_type == "v_prediction"
        preview = alpha.sqrt() * sample - (1 - alpha).sqrt() * output
        error = (self.metres(preview, scale, shift) - self.sparse)[self.valid]
        return error.abs().mean() + (error**2).mean(), output

    def complete(self, noise: Array, steps: int) -> tuple[Any, Any, Any]:
        sample = torch.nn.Parameter(torch.from_numpy(noise).to(self.dtype))
        scale, shift = (torch.nn.Parameter(torch.ones((), dtype=self.dtype)) for _ in range(2))
        optimizer = torch.optim.Adam([{"params": [scale, shift], "lr": 0.005}, {"params": [sample], "lr": 0.05}])
        self.scheduler.set_timesteps(steps)
        for timestep in self.scheduler.timesteps:
            optimizer.zero_grad()
            loss, output = self.loss(sample, timestep, scale, shift)
            loss.backward()
            output = output.detach()
            with torch.no_grad():
                alpha = self.scheduler.alphas_cumprod[timestep].to(self.dtype)
                noise_seen = alpha.sqrt() * output + (1 - alpha).sqrt() * sample
                sample.grad *= torch.linalg.norm(noise_seen) / torch.linalg.norm(sample.grad).clamp_min(1e-8)
            optimizer.step()
            with torch.no_grad():
                sample.data = self.scheduler.step(output, timestep, sample, eta=0.0).prev_sample.to(self.dtype)
        with torch.no_grad():
            return self.metres(sample, scale, shift), scale.detach() ** 2, shift.detach() ** 2


def noise_of(shape: tuple[int, ...], seed: int = 5) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def shipped(_folder: Path) -> Path:
    return mc.default_checkpoint("depth")


def random_network(folder: Path) -> Path:
    return make_checkpoint(folder, "odd channels")


CHECKPOINTS = {"trained": shipped, "random": random_network}
# Height, width, processing resolution. What is padded: nothing; both sides; the rows.
SIZES = {"native": (40, 56, 0), "padded": (29, 43, 0), "resized": (61, 83, 64), "enlarged": (24, 40, 64)}


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize(("height", "width", "resolution"), SIZES.values(), ids=SIZES)
def test_ten_steps(name: str, height: int, width: int, resolution: int, tmp_path: Path) -> None:
    folder = CHECKPOINTS[name](tmp_path)
    image, sparse = photo(height, width), measured(height, width, 40)
    reference = Reference(folder)
    reference.encode(image, resolution)
    reference.measure(sparse)
    noise = noise_of(tuple(reference.image_latent.shape))
    expected, scale, shift = reference.complete(noise, STEPS)
    pipe = mc.MarigoldDepthCompletionPipeline.from_pretrained(folder, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    found = pipe(image, sparse, num_inference_steps=STEPS, processing_resolution=resolution, latents=noise)
    span = float(reference.far - reference.near)
    errors = {
        "prediction": np.abs(found.prediction[0, :, :, 0] - expected.numpy()).max() / span,
        "scale": abs(float(found.scale[0]) / span - float(scale)),
        "shift": abs(float(found.shift[0]) / float(reference.near) - float(shift)),
    }
    print(errors)
    assert max(errors.values()) <= RESULTS
    assert np.ptp(expected.numpy()) > 0.1  # it is no constant map


@pytest.mark.parametrize(("device", "isa"), DEVICES)
@pytest.mark.parametrize(("name", "contrast"), [("random", 1), ("trained", 1), ("trained", 1.4)])
def test_gradient_of_the_first_step(contrast: float, name: str, device: str, isa: str | None, tmp_path: Path) -> None:
    folder = CHECKPOINTS[name](tmp_path)
    height, width = 29, 43
    sparse = measured(height, width, 25)
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae", variant="fp16")
    with torch.no_grad():
        vae.decoder.conv_out.weight *= contrast
    vae.save_pretrained(tmp_path / "vae of another contrast")
    reference = Reference(folder, vae)
    reference.encode(photo(height, width), 0)
    reference.measure(sparse)
    shape = tuple(reference.image_latent.shape)
    noise, timestep = noise_of(shape), 799
    sample = torch.from_numpy(noise).double().requires_grad_()
    scale = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    shift = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    loss, output = reference.loss(sample, torch.tensor(timestep), scale, shift)
    loss.backward()
    assert (0.02 if contrast > 1 else 0) <= reference.clipped < 0.98
    image_latent = reference.image_latent.float().numpy()
    found = [
        engine.guidance_gradient(
            *(
                str(folder),
                str(tmp_path / "vae of another contrast"),
                device,
                isa,
                2,
                image_latent,
                noise,
                sparse,
                height,
                width,
                0,
                1.1,
                0.9,
            ),
            *(float(timestep), recompute),
        )
        for recompute in RECOMPUTE
    ]
    assert found[0] == found[1] == found[2]
    gradient = np.frombuffer(found[0][0], np.float32).reshape(shape)
    expected = sample.grad.numpy()
    error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
    print(f"relative error of the gradient {error:.2g}, {reference.clipped:.0%} of the pixels clipped")
    assert error <= GRADIENT
    np.testing.assert_allclose(found[0][1], loss.item(), rtol=1e-5)
    np.testing.assert_allclose(found[0][2:4], [scale.grad.item(), shift.grad.item()], rtol=GRADIENT)
    seen = np.frombuffer(found[0][4], np.float32).reshape(shape)
    np.testing.assert_allclose(seen, output.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(61, 83), (24, 40)], ids=["smaller", "larger"])
def test_points_at_the_border(height: int, width: int, tmp_path: Path) -> None:
    """Of an image that is computed at 64 pixels; pixels at the border may lie beyond the decoded map's centres."""
    folder, resolution, timestep = mc.default_checkpoint("depth"), 64, 799
    sparse = measured(height, width, height * width)
    sparse[1:-1, 1:-1] = 0
    reference = Reference(folder)
    reference.encode(photo(height, width), resolution)
    reference.measure(sparse)
    noise = noise_of(tuple(reference.image_latent.shape))
    sample = torch.from_numpy(noise).double().requires_grad_()
    scale, shift = (torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in (1.1, 0.9))
    loss, _ = reference.loss(sample, torch.tensor(timestep), scale, shift)
    loss.backward()
    image_latent = reference.image_latent.float().numpy()
    network = (str(folder), None, "cpu", None, 1)
    found = engine.guidance_gradient(
        *network, image_latent, noise, sparse, height, width, resolution, 1.1, 0.9, float(timestep), False
    )
    np.testing.assert_allclose(found[1], loss.item(), rtol=1e-5)
    np.testing.assert_allclose(found[2:4], [scale.grad.item(), shift.grad.item()], rtol=GRADIENT)
    gradient, expected = np.frombuffer(found[0], np.float32).reshape(noise.shape), sample.grad.numpy()
    assert np.linalg.norm(gradient - expected) <= GRADIENT * np.linalg.norm(expected)


def test_without_a_slope_nothing_moves(tmp_path: Path) -> None:
    """Where all is clipped no gradient tells where to go; it is not divided by its norm, zero."""
    folder, (height, width) = mc.default_checkpoint("depth"), (24, 40)
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae", variant="fp16")
    with torch.no_grad():
        vae.decoder.conv_out.bias += 50
    vae.save_pretrained(tmp_path)
    pipe = mc.MarigoldDepthCompletionPipeline.from_pretrained(folder, vae=tmp_path, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    out = pipe(photo(height, width), measured(height, width, 9), 2, processing_resolution=0, generator=0)
    np.testing.assert_allclose(out.prediction, float(out.scale[0] + out.shift[0]), rtol=1e-6)


def test_tiny_autoencoder(tmp_path: Path) -> None:
    """TAESD in the place of the VAE, in encoder and decoder."""
    torch.manual_seed(2)
    vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(24, 24, 24, 24), decoder_block_out_channels=(24, 24, 24, 24)
    )
    with torch.no_grad():  # random ones make a map that is black, where nothing has a gradient
        vae.decoder.layers[-1].weight *= 15
        vae.decoder.layers[-1].bias += 0.5
    vae.save_pretrained(tmp_path)
    folder, (height, width) = mc.default_checkpoint("depth"), (40, 56)
    image, sparse = photo(height, width), measured(height, width, 40)
    reference = Reference(folder, vae)
    reference.encode(image, 0)
    reference.measure(sparse)
    noise = noise_of(tuple(reference.image_latent.shape))
    expected, _, _ = reference.complete(noise, STEPS)
    pipe = mc.MarigoldDepthCompletionPipeline.from_pretrained(folder, num_threads=1, vae=tmp_path)
    pipe.set_progress_bar_config(disable=True)
    found = pipe(image, sparse, num_inference_steps=STEPS, processing_resolution=0, latents=noise).prediction
    error = np.abs(found[0, :, :, 0] - expected.numpy()).max() / float(reference.far - reference.near)
    print(f"{error:.2g}, depths over {np.ptp(expected.numpy()):.2g} m")
    assert error <= RESULTS
    assert np.ptp(expected.numpy()) > 0.1
    rounded = mc.MarigoldDepthCompletionPipeline.from_pretrained(folder, num_threads=1, vae=tmp_path, dtype="bfloat16")
    rounded.set_progress_bar_config(disable=True)
    found = rounded(image, sparse, num_inference_steps=STEPS, processing_resolution=0, latents=noise).prediction
    error = np.abs(found[0, :, :, 0] - expected.numpy()).mean() / float(reference.far - reference.near)
    print(f"bfloat16: {error:.2g} on average")
    assert 0 < error < 0.05


def test_an_ensemble_is_its_members_median() -> None:
    folder, (height, width) = mc.default_checkpoint("depth"), (24, 32)
    image, sparse = photo(height, width), measured(height, width, 20)
    pipe = mc.MarigoldDepthCompletionPipeline.from_pretrained(folder, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn((3, 4, 3, 4), generator=torch.Generator().manual_seed(11))
    options: dict[str, Any] = {"num_inference_steps": 2, "processing_resolution": 0}
    members = [pipe(image, sparse, latents=noise[i : i + 1], **options) for i in range(3)]
    found = pipe(image, sparse, ensemble_size=3, generator=torch.Generator().manual_seed(11), **options)
    maps = torch.from_numpy(np.stack([one.prediction for one in members]))
    median = maps.median(0).values
    np.testing.assert_allclose(found.prediction, median.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.uncertainty, (maps - median).abs().median(0).values.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.scale, [one.scale[0] for one in members], rtol=1e-4)

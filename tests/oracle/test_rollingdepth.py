"""RollingDepth (arXiv 2411.19189) against its method put together here from diffusers' networks with a processor of
attention that joins frames, diffusers' DDIM, and torch's autograd and Adam for the co-alignment; in float64."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import family_checkpoints as families
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from oracle_training import UNETS, Array  # noqa: E402

import marigold_c as mc  # noqa: E402
from marigold_c import _C  # noqa: E402
from marigold_c import _testing as engine  # noqa: E402

ATTENTION, RESULT = 1e-4, 1e-3  # attention: relative to the root of the mean square
ITERATIONS = 150  # of the alignment: fewer than by default, which is slow in torch


class JoinedAttention:
    """A processor for diffusers' attention: self-attention sees the tokens of `frames` successive samples together."""

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, **_: Any) -> Any:
        batch, tokens, channels = hidden_states.shape
        own = encoder_hidden_states is None
        states = hidden_states.reshape(-1, self.frames * tokens, channels) if own else hidden_states
        seen = states if own else encoder_hidden_states

        def heads(x: Any) -> Any:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        q, k, v = heads(attn.to_q(states)), heads(attn.to_k(seen)), heads(attn.to_v(seen))
        out = ((q @ k.transpose(-1, -2)) * attn.scale).softmax(-1) @ v
        out = attn.to_out[0](out.transpose(1, 2).flatten(2))
        return out.reshape(batch, tokens, channels)


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def joined(unet: Any, frames: int) -> Any:
    unet.set_attn_processor(JoinedAttention(frames))
    return unet


def difference(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / np.sqrt(np.mean(np.square(expected))))


# ---- joined attention ----


@pytest.fixture(scope="module", params=UNETS)
def unet(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    torch.manual_seed(3)
    torch.set_num_threads(1)
    model = diffusers.UNet2DConditionModel(
        in_channels=8, out_channels=4, cross_attention_dim=32, sample_size=8, **UNETS[request.param]
    )
    folder = tmp_path_factory.mktemp("unet")
    model.save_pretrained(folder)
    return request.param, folder, model.double().eval()


@torch.no_grad()
def test_the_frames_of_a_snippet_attend_to_each_other(unet: tuple[str, Path, Any]) -> None:
    """Two snippets of three frames; the reference backend, which is slow, with the smaller network only."""
    name, folder, model = unet
    sample, text = normal(1, 6, 8, 5, 7), normal(2, 1, 2, 32)
    wide = torch.from_numpy(text).double().expand(len(sample), -1, -1)
    expected, apart = (
        joined(model, frames)(torch.from_numpy(sample).double(), 621, wide).sample.numpy() for frames in (3, 1)
    )
    backends = [("cpu", isa) for isa in engine.isas()] + ([("ref", None)] if name == "odd channels" else [])
    for backend, isa in backends:
        shape, values = engine.unet_run(
            str(folder), None, sample, np.full(1, 621, np.float32), text, backend, isa, 2, 3
        )
        found = np.frombuffer(values, np.float32).reshape(shape)
        assert difference(found, expected) <= ATTENTION, (backend, isa)
        assert difference(found, apart) > 100 * ATTENTION  # frames by themselves are something else


def test_no_whole_snippet(unet: tuple[str, Path, Any]) -> None:
    sample, time, text = normal(1, 4, 8, 8, 8), np.zeros(1, np.float32), normal(2, 1, 2, 32)
    with pytest.raises(ValueError, match="whole sequences of frames"):
        engine.unet_run(str(unet[1]), None, sample, time, text, "cpu", None, 1, 3)


# ---- co-alignment ----


def starts_of(frames: int, length: int, dilation: int) -> list[list[int]]:
    return [[first + i * dilation for i in range(length)] for first in range(frames - (length - 1) * dilation)]


def align(maps: Any, frames: int, dilations: Sequence[int], iterations: int) -> tuple[Any, Any, Any]:
    """(frames, H, W) in [0, 1], and scale and shift of the snippets, all float64, of snippets (S, L, H, W)."""
    length = maps.shape[1]
    places = [starts_of(frames, length, dilation) for dilation in dilations]
    counts = [len(one) for one in places]
    parts = torch.split(maps - maps.min(), counts)
    sampled = [part[:, :, 2:-2:10, 2:-2:10].flatten(2) for part in parts]
    pixels = sampled[0].shape[2]
    scales = [torch.ones(n, 1, 1, dtype=torch.float64, requires_grad=True) for n in counts]
    shifts = [torch.zeros(n, 1, 1, dtype=torch.float64, requires_grad=True) for n in counts]
    optimizer = torch.optim.Adam([*scales, *shifts], lr=1e-3, betas=(0.5, 0.9))
    cells = (len(dilations) * length, frames, pixels)
    rows = [torch.arange(i * length, (i + 1) * length)[:, None] for i in range(len(dilations))]
    columns = [torch.tensor(one).T for one in places]
    for _ in range(iterations):
        optimizer.zero_grad()
        values, reciprocals, there = (torch.zeros(cells, dtype=torch.float64) for _ in range(3))
        for x, s, t, row, column in zip(sampled, scales, shifts, rows, columns, strict=True):
            aligned = (x * s + t).permute(1, 0, 2)
            values[row, column] = aligned
            reciprocals[row, column] = aligned.clip(1e-3) ** -1
            there[row, column] = 1
        loss: Any = 0
        for grid in (values, reciprocals):
            target = (grid.sum(0) / there.sum(0)).detach()
            loss = loss + ((grid - target) * there / target.abs().mean(-1, keepdim=True)).abs().mean()
        for s, t in zip(scales, shifts, strict=True):
            loss = loss + 0.1 * ((1 - s).clamp_min(0) ** 2).mean() + 10 * (t**2).mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        sums = torch.zeros((frames, *maps.shape[2:]), dtype=torch.float64)
        number = torch.zeros(frames, 1, 1, dtype=torch.float64)
        for part, s, t, place in zip(parts, scales, shifts, places, strict=True):
            for one, a, b, shown in zip(part, s, t, place, strict=True):
                sums[shown] += one * a + b
                number[shown] += 1
        merged = sums / number
        merged = (merged - merged.min()) / (merged.max() - merged.min())
        return merged, torch.cat(scales).flatten().detach(), torch.cat(shifts).flatten().detach()


def misaligned(frames: int, length: int, dilations: Sequence[int], size: tuple[int, int]) -> Array:
    """Snippets of one moving scene, each with a scale, a shift and an error of its own."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    scene = [0.4 + 0.5 * np.sin(5 * x + 0.3 * n) * np.cos(4 * y) + 0.3 * (x > 0.5) for n in range(frames)]
    snippets = []
    for dilation in dilations:
        for shown in starts_of(frames, length, dilation):
            scale, shift = rng.uniform(0.7, 1.4), rng.uniform(-0.2, 0.2)
            noise = rng.normal(0, 0.02, (length, *size))
            snippets.append(scale * np.stack([scene[n] for n in shown]) + shift + noise)
    return np.stack(snippets).astype(np.float32)


@pytest.mark.parametrize(
    ("frames", "length", "dilations"), [(9, 3, (1, 3)), (7, 2, (1,)), (10, 4, (1, 2, 3)), (3, 3, (1,))], ids=str
)
def test_co_alignment(frames: int, length: int, dilations: tuple[int, ...]) -> None:
    maps = misaligned(frames, length, dilations, (53, 74))
    expected, scale, shift = align(torch.from_numpy(maps).double(), frames, dilations, ITERATIONS)
    found, affine = _C.ensemble_snippets(maps, frames, dilations, iterations=ITERATIONS, num_threads=2)
    errors = np.abs(found - expected.numpy()).max(), np.abs(affine - torch.stack([scale, shift]).numpy()).max()
    print(f"maps {errors[0]:.2g}, scales and shifts {errors[1]:.2g}, scales over {np.ptp(affine[0]):.2g}")
    assert max(errors) <= RESULT
    assert np.ptp(affine[0]) > 0.03 or frames == 3
    alone, same = _C.ensemble_snippets(maps, frames, dilations, iterations=ITERATIONS, num_threads=1)
    assert np.array_equal(alone, found) and np.array_equal(same, affine)


def test_the_same_scales_on_every_map_make_a_difference() -> None:
    """Unaligned snippets are another result: the comparison above would notice an alignment that does nothing."""
    maps = misaligned(9, 3, (1, 3), (53, 74))
    aligned, _ = _C.ensemble_snippets(maps, 9, (1, 3), iterations=ITERATIONS)
    plain, affine = _C.ensemble_snippets(maps, 9, (1, 3), iterations=0)
    assert np.array_equal(affine, np.stack([np.ones(len(maps)), np.zeros(len(maps))]))
    assert np.abs(aligned - plain).max() > 20 * RESULT


# ---- the whole ----


class Reference:
    """RollingDepth of diffusers' parts."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.unet = joined(diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet"), 3).double()
        self.vae = diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae").double()
        self.scheduler = diffusers.DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
        encoder = transformers.CLIPTextModel.from_pretrained(folder, subfolder="text_encoder").double()
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        self.text = encoder(tokenizer("", return_tensors="pt").input_ids)[0]

    def encode(self, images: Any) -> Any:
        return self.vae.encode(images).latent_dist.mode() * self.vae.config.scaling_factor

    def decode(self, latents: Any) -> Any:
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample.mean(1)

    def step(self, images: Any, sample: Any, timestep: Any) -> Any:
        text = self.text.expand(len(sample), -1, -1)
        output = self.unet(torch.cat([images, sample], 1), timestep, text).sample
        return self.scheduler.step(output, timestep, sample).prev_sample

    @torch.no_grad()
    def predict(
        self, frames: Any, noise: Any, dilations: Sequence[int], steps: int, refinement: int, widest: int
    ) -> Any:
        pixels = torch.from_numpy(frames).double().permute(0, 3, 1, 2) / 127.5 - 1
        height, width = pixels.shape[2:]
        padding = (0, -width % 8, 0, -height % 8)
        images = self.encode(torch.nn.functional.pad(pixels, padding, mode="replicate"))
        noise = torch.from_numpy(noise).double()
        maps = []
        for dilation in dilations:
            for shown in starts_of(len(frames), 3, dilation):
                self.scheduler.set_timesteps(steps)
                sample = noise.expand(3, -1, -1, -1)
                for timestep in self.scheduler.timesteps:
                    sample = self.step(images[shown], sample, timestep)
                maps.append(self.decode(sample)[:, :height, :width])
        with torch.enable_grad():
            depth, _, _ = align(torch.stack(maps), len(frames), dilations, ITERATIONS)
        return self.refine(depth, images, noise, padding, refinement, widest) if refinement else depth

    def refine(self, depth: Any, images: Any, noise: Any, padding: Any, steps: int, widest: int) -> Any:
        height, width = depth.shape[1:]
        padded = torch.nn.functional.pad((2 * depth - 1)[:, None], padding, mode="replicate")
        self.scheduler.set_timesteps(2 * steps)
        timesteps = self.scheduler.timesteps[len(self.scheduler.timesteps) // 2 :]
        latents = self.scheduler.add_noise(self.encode(padded.expand(-1, 3, -1, -1)), noise, timesteps[:1])
        for i, timestep in enumerate(timesteps):
            gap = min(int((1 - i / len(timesteps)) * (widest - 1)), len(depth) // 3 - 1)
            total, count = torch.zeros_like(latents), torch.zeros(len(depth), 1, 1, 1, dtype=torch.float64)
            for shown in starts_of(len(depth), 3, gap + 1):
                total[shown] += self.step(images[shown], latents[shown], timestep)
                count[shown] += 1
            latents = total / count
        return ((self.decode(latents)[:, :height, :width] + 1) / 2).clip(0, 1)


def moving(frames: int, height: int, width: int) -> Any:
    y, x = np.mgrid[:height, :width]
    pictures = [np.stack([128 + 90 * np.sin(0.2 * x + 0.4 * n), 3 * y + 5 * n, 2 * x + y], -1) for n in range(frames)]
    return np.stack(pictures).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, needed = families.make("rollingdepth", tmp_path_factory.mktemp("rolling"))
    assert not needed
    return path


@pytest.mark.parametrize(
    ("dilations", "steps", "refinement", "widest"),
    [((1, 2), 1, 0, 6), ((1,), 2, 0, 6), ((1, 2), 1, 3, 6), ((1,), 1, 3, 2)],
    ids=str,
)
def test_a_video(checkpoint: Path, dilations: tuple[int, ...], steps: int, refinement: int, widest: int) -> None:
    frames = moving(7, 44, 60)
    noise = torch.randn((1, 4, 6, 8), generator=torch.Generator().manual_seed(5))
    expected = Reference(checkpoint).predict(frames, noise.numpy(), dilations, steps, refinement, widest).numpy()
    pipe = mc.load(checkpoint, num_threads=1)
    assert (pipe.family, pipe.task, pipe.prediction_type) == ("rollingdepth", "depth", "disparity")
    pipe.set_progress_bar_config(disable=True)
    outputs = mc.predict_video(
        pipe,
        frames,
        dilations,
        steps,
        refinement,
        refinement_dilation=widest,
        processing_resolution=0,
        generator=5,
        alignment_iterations=ITERATIONS,
    )
    found = np.stack([out.prediction[0, :, :, 0] for out in outputs])
    error = np.abs(found - expected).max()
    print(f"{error:.2g}, maps over {np.ptp(expected):.2g}, of a pixel {np.ptp(expected, 0).max():.2g}")
    assert found.shape == expected.shape and error <= RESULT
    assert np.ptp(expected) > 0.3


def test_an_image_is_a_video_of_one_frame(checkpoint: Path) -> None:
    """Unclipped, stretched."""
    frame = moving(1, 40, 56)
    reference = Reference(checkpoint)
    joined(reference.unet, 1)
    noise = torch.randn((1, 4, 5, 7), generator=torch.Generator().manual_seed(5)).double()
    with torch.no_grad():
        reference.scheduler.set_timesteps(1)
        image = reference.encode(torch.from_numpy(frame).double().permute(0, 3, 1, 2) / 127.5 - 1)
        depth = reference.decode(reference.step(image, noise, reference.scheduler.timesteps[0])).numpy()
    expected = (depth - depth.min()) / np.ptp(depth)
    pipe = mc.load(checkpoint, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    found = pipe(frame[0], processing_resolution=0, generator=5).prediction[..., 0]
    assert np.abs(found - expected).max() <= RESULT
    assert json.loads((checkpoint / "model_index.json").read_text())["_class_name"] == "RollingDepthPipeline"

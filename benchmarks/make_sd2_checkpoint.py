"""Writes a Marigold depth checkpoint of Stable Diffusion 2's size with random weights, for benchmarks and memory tests.

The folder has the layout of diffusers, float32 weights under the exact keys (UNet 866 M parameters, VAE 84 M, text
encoder 340 M: 5.2 GB). Needs NumPy only, streams tensor by tensor, and gives the same bytes for the same seed:

    python benchmarks/make_sd2_checkpoint.py FOLDER [--preset train | tiny]
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Init = Literal["weight", "bias", "ones", "zeros", "embedding"]
Tensor = tuple[str, tuple[int, ...], Init]


@dataclass(frozen=True)
class Preset:
    unet_channels: tuple[int, ...]
    unet_heads: tuple[int, ...]
    unet_groups: int
    unet_layers: int
    vae_channels: tuple[int, ...]
    vae_groups: int
    vae_layers: int
    text_width: int
    text_layers: int
    text_heads: int
    vocabulary: int
    resolution: int


PRESETS = {
    "sd2": Preset(
        unet_channels=(320, 640, 1280, 1280),
        unet_heads=(5, 10, 20, 20),
        unet_groups=32,
        unet_layers=2,
        vae_channels=(128, 256, 512, 512),
        vae_groups=32,
        vae_layers=2,
        text_width=1024,
        text_layers=23,
        text_heads=16,
        vocabulary=49408,
        resolution=768,
    ),
    # 223 M parameters: trains beside PyTorch in a few gigabytes.
    "train": Preset(
        unet_channels=(160, 320, 640, 640),
        unet_heads=(5, 10, 20, 20),
        unet_groups=32,
        unet_layers=2,
        vae_channels=(16, 16, 32, 32),
        vae_groups=8,
        vae_layers=1,
        text_width=1024,
        text_layers=2,
        text_heads=16,
        vocabulary=600,
        resolution=768,
    ),
    "tiny": Preset(
        unet_channels=(32, 64, 64, 64),
        unet_heads=(2, 4, 4, 4),
        unet_groups=16,
        unet_layers=1,
        vae_channels=(16, 16, 32, 32),
        vae_groups=8,
        vae_layers=1,
        text_width=32,
        text_layers=2,
        text_heads=2,
        vocabulary=600,
        resolution=64,
    ),
}
LATENTS, TARGET_LATENTS, IMAGE_CHANNELS, POSITIONS = 4, 4, 3, 77


# ---- tensors: key, shape, kind of start value ----


def affine(name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    yield f"{name}.weight", shape, "weight"
    yield f"{name}.bias", shape[:1], "bias"


def norm(name: str, channels: int) -> Iterator[Tensor]:
    yield f"{name}.weight", (channels,), "ones"
    yield f"{name}.bias", (channels,), "zeros"


def resnet(name: str, c_in: int, c_out: int, time_width: int = 0) -> Iterator[Tensor]:
    yield from norm(f"{name}.norm1", c_in)
    yield from affine(f"{name}.conv1", (c_out, c_in, 3, 3))
    if time_width:
        yield from affine(f"{name}.time_emb_proj", (c_out, time_width))
    yield from norm(f"{name}.norm2", c_out)
    yield from affine(f"{name}.conv2", (c_out, c_out, 3, 3))
    if c_in != c_out:
        yield from affine(f"{name}.conv_shortcut", (c_out, c_in, 1, 1))


def cross_attention(name: str, width: int, context: int) -> Iterator[Tensor]:
    yield f"{name}.to_q.weight", (width, width), "weight"
    yield f"{name}.to_k.weight", (width, context), "weight"
    yield f"{name}.to_v.weight", (width, context), "weight"
    yield from affine(f"{name}.to_out.0", (width, width))


def transformer(name: str, width: int, context: int) -> Iterator[Tensor]:
    block = f"{name}.transformer_blocks.0"
    yield from norm(f"{name}.norm", width)
    yield from affine(f"{name}.proj_in", (width, width))
    yield from norm(f"{block}.norm1", width)
    yield from cross_attention(f"{block}.attn1", width, width)
    yield from norm(f"{block}.norm2", width)
    yield from cross_attention(f"{block}.attn2", width, context)
    yield from norm(f"{block}.norm3", width)
    yield from affine(f"{block}.ff.net.0.proj", (8 * width, width))
    yield from affine(f"{block}.ff.net.2", (width, 4 * width))
    yield from affine(f"{name}.proj_out", (width, width))


def unet_tensors(preset: Preset) -> Iterator[Tensor]:
    channels, context, layers = preset.unet_channels, preset.text_width, preset.unet_layers
    time_width, last = 4 * channels[0], len(channels) - 1
    yield from affine("conv_in", (channels[0], LATENTS + TARGET_LATENTS, 3, 3))
    yield from affine("time_embedding.linear_1", (time_width, channels[0]))
    yield from affine("time_embedding.linear_2", (time_width, time_width))
    skips, width = [channels[0]], channels[0]
    for level, c in enumerate(channels):
        for layer in range(layers):
            yield from resnet(f"down_blocks.{level}.resnets.{layer}", width, c, time_width)
            if level != last:
                yield from transformer(f"down_blocks.{level}.attentions.{layer}", c, context)
            width = c
            skips.append(c)
        if level != last:
            yield from affine(f"down_blocks.{level}.downsamplers.0.conv", (c, c, 3, 3))
            skips.append(c)
    yield from resnet("mid_block.resnets.0", width, width, time_width)
    yield from transformer("mid_block.attentions.0", width, context)
    yield from resnet("mid_block.resnets.1", width, width, time_width)
    for block, c in enumerate(reversed(channels)):
        for layer in range(layers + 1):
            yield from resnet(f"up_blocks.{block}.resnets.{layer}", width + skips.pop(), c, time_width)
            if block != 0:
                yield from transformer(f"up_blocks.{block}.attentions.{layer}", c, context)
            width = c
        if block != last:
            yield from affine(f"up_blocks.{block}.upsamplers.0.conv", (c, c, 3, 3))
    yield from norm("conv_norm_out", width)
    yield from affine("conv_out", (TARGET_LATENTS, width, 3, 3))


def vae_middle(name: str, width: int) -> Iterator[Tensor]:
    yield from resnet(f"{name}.mid_block.resnets.0", width, width)
    yield from norm(f"{name}.mid_block.attentions.0.group_norm", width)
    for projection in ("to_q", "to_k", "to_v", "to_out.0"):
        yield from affine(f"{name}.mid_block.attentions.0.{projection}", (width, width))
    yield from resnet(f"{name}.mid_block.resnets.1", width, width)


def vae_tensors(preset: Preset) -> Iterator[Tensor]:
    channels, last = preset.vae_channels, len(preset.vae_channels) - 1
    yield from affine("encoder.conv_in", (channels[0], IMAGE_CHANNELS, 3, 3))
    width = channels[0]
    for level, c in enumerate(channels):
        for layer in range(preset.vae_layers):
            yield from resnet(f"encoder.down_blocks.{level}.resnets.{layer}", width, c)
            width = c
        if level != last:
            yield from affine(f"encoder.down_blocks.{level}.downsamplers.0.conv", (c, c, 3, 3))
    yield from vae_middle("encoder", width)
    yield from norm("encoder.conv_norm_out", width)
    yield from affine("encoder.conv_out", (2 * LATENTS, width, 3, 3))
    yield from affine("decoder.conv_in", (width, LATENTS, 3, 3))
    yield from vae_middle("decoder", width)
    for block, c in enumerate(reversed(channels)):
        for layer in range(preset.vae_layers + 1):
            yield from resnet(f"decoder.up_blocks.{block}.resnets.{layer}", width, c)
            width = c
        if block != last:
            yield from affine(f"decoder.up_blocks.{block}.upsamplers.0.conv", (c, c, 3, 3))
    yield from norm("decoder.conv_norm_out", width)
    yield from affine("decoder.conv_out", (IMAGE_CHANNELS, width, 3, 3))
    yield from affine("quant_conv", (2 * LATENTS, 2 * LATENTS, 1, 1))
    yield from affine("post_quant_conv", (LATENTS, LATENTS, 1, 1))


def text_tensors(preset: Preset) -> Iterator[Tensor]:
    width = preset.text_width
    yield "text_model.embeddings.token_embedding.weight", (preset.vocabulary, width), "embedding"
    yield "text_model.embeddings.position_embedding.weight", (POSITIONS, width), "embedding"
    for layer in range(preset.text_layers):
        name = f"text_model.encoder.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from affine(f"{name}.self_attn.{projection}", (width, width))
        yield from norm(f"{name}.layer_norm1", width)
        yield from affine(f"{name}.mlp.fc1", (4 * width, width))
        yield from affine(f"{name}.mlp.fc2", (width, 4 * width))
        yield from norm(f"{name}.layer_norm2", width)
    yield from norm("text_model.final_layer_norm", width)


# ---- files ----


def values(key: str, shape: tuple[int, ...], init: Init, seed: int) -> NDArray[np.float32]:
    if init == "ones":
        return np.ones(shape, np.float32)
    if init in ("zeros", "bias"):
        return np.zeros(shape, np.float32)
    # A stream for each key: neither the order of the tensors nor a change of one moves the others.
    random = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))
    deviation = 0.02 if init == "embedding" else 1 / math.sqrt(math.prod(shape[1:]))
    array = random.standard_normal(shape, dtype=np.float32)
    array *= np.float32(deviation)
    return array


def write_safetensors(path: Path, tensors: list[Tensor], seed: int) -> int:
    """Writes the file and returns the number of parameters."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key, shape, _ in tensors:
        end = offset + 4 * math.prod(shape)
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    with unfinished.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key, shape, init in tensors:
            values(key, shape, init, seed).astype("<f4", copy=False).tofile(file)
    unfinished.rename(path)
    return offset // 4


def configurations(preset: Preset) -> dict[str, Any]:
    levels, last = len(preset.unet_channels), preset.vocabulary - 1
    begin, end = "<|startoftext|>", "<|endoftext|>"
    # Single characters, then fillers: only the two special tokens are ever used.
    vocabulary = {chr(0x100 + i) if i < 256 else f"token{i}</w>": i for i in range(preset.vocabulary - 2)}
    return {
        "model_index.json": {
            "_class_name": "MarigoldDepthPipeline",
            "default_denoising_steps": 1,
            "default_processing_resolution": preset.resolution,
            "prediction_type": "depth",
            "scale_invariant": True,
            "shift_invariant": True,
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel",
            "in_channels": LATENTS + TARGET_LATENTS,
            "out_channels": TARGET_LATENTS,
            "block_out_channels": preset.unet_channels,
            "layers_per_block": preset.unet_layers,
            "attention_head_dim": preset.unet_heads,
            "cross_attention_dim": preset.text_width,
            "norm_num_groups": preset.unet_groups,
            "use_linear_projection": True,
            "down_block_types": [*["CrossAttnDownBlock2D"] * (levels - 1), "DownBlock2D"],
            "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * (levels - 1)],
            "sample_size": preset.resolution // 8,
        },
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            "in_channels": IMAGE_CHANNELS,
            "out_channels": IMAGE_CHANNELS,
            "latent_channels": LATENTS,
            "block_out_channels": preset.vae_channels,
            "layers_per_block": preset.vae_layers,
            "norm_num_groups": preset.vae_groups,
            "down_block_types": ["DownEncoderBlock2D"] * len(preset.vae_channels),
            "up_block_types": ["UpDecoderBlock2D"] * len(preset.vae_channels),
            "scaling_factor": 0.18215,
            "sample_size": preset.resolution,
        },
        "text_encoder/config.json": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "vocab_size": preset.vocabulary,
            "hidden_size": preset.text_width,
            "intermediate_size": 4 * preset.text_width,
            "num_hidden_layers": preset.text_layers,
            "num_attention_heads": preset.text_heads,
            "max_position_embeddings": POSITIONS,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            "bos_token_id": last - 1,
            "eos_token_id": last,
        },
        "tokenizer/vocab.json": vocabulary | {begin: last - 1, end: last},
        "tokenizer/tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": begin,
            "eos_token": end,
            "unk_token": end,
            "pad_token": end,
            "model_max_length": POSITIONS,
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
        },
    }


def write_checkpoint(folder: Path, preset_name: str = "sd2", seed: int = 0) -> dict[str, int]:
    """Writes the folder and returns the parameters of each component. model_index.json comes last: a folder that has
    it is complete."""
    preset = PRESETS[preset_name]
    files = {
        "unet/diffusion_pytorch_model.safetensors": list(unet_tensors(preset)),
        "vae/diffusion_pytorch_model.safetensors": list(vae_tensors(preset)),
        "text_encoder/model.safetensors": list(text_tensors(preset)),
    }
    parameters = {}
    for name, tensors in files.items():
        parameters[name.split("/")[0]] = write_safetensors(folder / name, tensors, seed)
    merges = folder / "tokenizer" / "merges.txt"
    merges.parent.mkdir(exist_ok=True)
    merges.write_text("#version: 0.2\n", encoding="utf-8")
    for name, content in reversed(configurations(preset).items()):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="sd2")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for component, count in write_checkpoint(args.folder, args.preset, args.seed).items():
        print(f"{component}: {count / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()

"""Configurations that are refused, weights that do not fit, tokenizer files; the networks' values are compared with
diffusers in tests/oracle/test_nn.py."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from marigold_c import _testing as engine
from marigold_c.errors import CheckpointError
from reference_ops import correlate

UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.8.0",
    "act_fn": "silu",
    "attention_head_dim": [2, 4],
    "block_out_channels": [8, 16],
    "center_input_sample": False,
    "cross_attention_dim": 6,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 8,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 4,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "sample_size": 96,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "use_linear_projection": True,
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "out_channels": 3,
    "sample_size": 768,
    "scaling_factor": 0.18215,
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
}
VAE_TINY: dict[str, Any] = {
    "_class_name": "AutoencoderTiny",
    "_diffusers_version": "0.20.0.dev0",
    "act_fn": "relu",
    "decoder_block_out_channels": [8, 8, 8],
    "encoder_block_out_channels": [12, 12, 12],
    "force_upcast": False,
    "in_channels": 3,
    "latent_channels": 4,
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "num_decoder_blocks": [1, 2, 0],
    "num_encoder_blocks": [1, 0, 2],
    "out_channels": 3,
    "scaling_factor": 1.0,
    "upsampling_scaling_factor": 2,
}
CLIP: dict[str, Any] = {
    "architectures": ["CLIPTextModel"],
    "hidden_act": "gelu",
    "hidden_size": 8,
    "intermediate_size": 12,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 5,
    "model_type": "clip_text_model",
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "projection_dim": 512,
    "torch_dtype": "float32",
    "vocab_size": 20,
}
CONFIGS = {"unet": UNET, "vae": VAE, "vae_tiny": VAE_TINY, "clip": CLIP}
Shapes = dict[str, tuple[int, ...]]


def weights_of(component: str, **changes: Any) -> Shapes:
    shapes: Shapes = engine.network_weights(component, json.dumps({**CONFIGS[component], **changes}))
    return shapes


# ---- accepted ----


@pytest.mark.parametrize(
    ("component", "changes"),
    [
        ("unet", {}),
        ("unet", {"act_fn": "swish"}),
        ("unet", {"act_fn": None, "downsample_padding": None}),
        ("unet", {"dropout": 0.5, "sample_size": 12, "upcast_attention": True, "_name_or_path": "x"}),
        ("unet", {"decay": 0.9999, "optimization_step": 1000, "use_ema_warmup": False, "inv_gamma": 1.0}),
        ("unet", {"only_cross_attention": [False, False], "a_new_key": 0, "another": [], "third": {}, "fourth": ""}),
        ("unet", {"attention_head_dim": 8, "layers_per_block": [1, 1], "cross_attention_dim": [6, 6]}),
        ("unet", {"mid_block_scale_factor": 1.0, "in_channels": 8.0}),
        ("unet", {"projection_class_embeddings_input_dim": 6}),
        ("unet", {"projection_class_embeddings_input_dim": 6, "class_embed_type": None}),
        ("vae", {}),
        ("vae", {"force_upcast": False, "shift_factor": None, "latents_mean": None, "latents_std": None}),
        ("vae", {"shift_factor": 0.0, "latents_mean": [0, 0, 0, 0]}),
        ("vae_tiny", {}),
        ("vae_tiny", {"act_fn": "gelu", "latent_magnitude": 2.5, "latent_shift": 0.1, "force_upcast": True}),
        ("vae_tiny", {"shift_factor": 0.0, "block_out_channels": [8, 8, 8], "upsample_fn": "nearest"}),
        ("vae_tiny", {"upsampling_scaling_factor": None, "act_fn": None, "scaling_factor": None}),
        ("clip", {}),
        ("clip", {"num_beams": 1, "id2label": {"0": "A"}, "eos_token_id": 2, "hidden_act": "quick_gelu"}),
    ],
)
def test_values_without_effect_are_accepted(component: str, changes: dict[str, Any]) -> None:
    assert weights_of(component, **changes) == weights_of(component)


def test_num_attention_heads_takes_precedence() -> None:
    assert weights_of("unet", num_attention_heads=4, attention_head_dim=7) == weights_of("unet")
    with pytest.raises(CheckpointError, match='"num_attention_heads" 3'):
        weights_of("unet", num_attention_heads=3)


def test_defaults_of_absent_keys() -> None:
    required = ("block_out_channels", "down_block_types", "up_block_types")
    config = {key: UNET[key] for key in required} | {"block_out_channels": [32, 64]}
    shapes: Shapes = engine.network_weights("unet", json.dumps(config))
    assert shapes["conv_in.weight"] == (32, 4, 3, 3)
    assert shapes["down_blocks.0.attentions.1.proj_in.weight"] == (32, 32, 1, 1)
    assert shapes["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"] == (64, 1280)
    assert shapes["time_embedding.linear_1.weight"] == (128, 32)


def test_projection_follows_the_configuration() -> None:
    key = "mid_block.attentions.0.proj_out.weight"
    assert weights_of("unet")[key] == (16, 16)
    assert weights_of("unet", use_linear_projection=False)[key] == (16, 16, 1, 1)


def test_null_mid_block_is_left_out() -> None:
    full, without = weights_of("unet"), weights_of("unet", mid_block_type=None)
    assert without == {key: shape for key, shape in full.items() if not key.startswith("mid_block.")} != full


def test_optional_parts_of_the_vae() -> None:
    full = weights_of("vae")
    assert "quant_conv.weight" not in weights_of("vae", use_quant_conv=False)
    assert "post_quant_conv.weight" not in weights_of("vae", use_post_quant_conv=False)
    without = weights_of("vae", mid_block_add_attention=False)
    assert without == {key: shape for key, shape in full.items() if ".attentions." not in key} != full


def test_defaults_of_the_tiny_autoencoder() -> None:
    shapes: Shapes = engine.network_weights("vae_tiny", "{}")
    expected: Shapes = {}

    def add(key: str, filters: int, channels: int, bias: bool = True) -> None:
        expected[f"{key}.weight"] = (filters, channels, 3, 3)
        if bias:
            expected[f"{key}.bias"] = (filters,)

    for i in range(15):  # 15 layers with weights in the encoder: 0 and 14, one before each smaller size, and the blocks
        if i in (0, 2, 6, 10, 14):
            add(f"encoder.layers.{i}", 4 if i == 14 else 64, 3 if i == 0 else 64, bias=i in (0, 14))
        else:
            for conv in (0, 2, 4):
                add(f"encoder.layers.{i}.conv.{conv}", 64, 64)
    for i in (0, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14, 16, 17, 18):  # 1 is an activation, 5, 10 and 15 enlarge
        if i in (0, 6, 11, 16, 18):
            add(f"decoder.layers.{i}", 3 if i == 18 else 64, 4 if i == 0 else 64, bias=i in (0, 18))
        else:
            for conv in (0, 2, 4):
                add(f"decoder.layers.{i}.conv.{conv}", 64, 64)
    assert shapes == expected


@pytest.mark.parametrize("levels", [1, 8])
def test_number_of_levels(levels: int) -> None:
    channels = {"block_out_channels": [8] * levels, "norm_num_groups": 2}
    unet = weights_of(
        "unet",
        **channels,
        down_block_types=["CrossAttnDownBlock2D"] * levels,
        up_block_types=["CrossAttnUpBlock2D"] * levels,
        attention_head_dim=2,
    )
    vae = weights_of(
        "vae",
        **channels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
    )
    for shapes in (unet, vae):
        assert (f"{'' if shapes is unet else 'encoder.'}down_blocks.{levels - 1}.resnets.0.norm1.weight") in shapes
        assert not any(f"up_blocks.{levels}." in key for key in shapes)


# ---- refused ----


@pytest.mark.parametrize(
    ("component", "key", "value", "shown"),
    [
        ("unet", "_class_name", "UNet2DModel", '"UNet2DModel"'),
        ("unet", "act_fn", "gelu", '"gelu"'),
        ("unet", "addition_embed_type", "text_time", '"text_time"'),
        ("unet", "addition_time_embed_dim", 256, "256"),
        ("unet", "attention_type", "gated", '"gated"'),
        ("unet", "center_input_sample", True, "true"),
        ("unet", "class_embed_type", "timestep", '"timestep"'),
        ("unet", "class_embeddings_concat", True, "true"),
        ("unet", "conv_in_kernel", 1, "1"),
        ("unet", "conv_out_kernel", 5, "5"),
        ("unet", "cross_attention_norm", "layer_norm", '"layer_norm"'),
        ("unet", "downsample_padding", 0, "0"),
        ("unet", "dual_cross_attention", True, "true"),
        ("unet", "encoder_hid_dim", 512, "512"),
        ("unet", "encoder_hid_dim_type", "text_proj", '"text_proj"'),
        ("unet", "mid_block_only_cross_attention", True, "true"),
        ("unet", "mid_block_scale_factor", 1.4142, "1.4142"),
        ("unet", "mid_block_type", "UNetMidBlock2DSimpleCrossAttn", '"UNetMidBlock2DSimpleCrossAttn"'),
        ("unet", "mid_block_type", "UNetMidBlock2D", '"UNetMidBlock2D"'),
        ("unet", "norm_num_groups", None, "null"),
        ("unet", "num_class_embeds", 10, "10"),
        ("unet", "only_cross_attention", True, "true"),
        ("unet", "only_cross_attention", [False, True], "[false, true]"),
        ("unet", "resnet_out_scale_factor", 2.0, "2"),
        ("unet", "resnet_skip_time_act", True, "true"),
        ("unet", "resnet_time_scale_shift", "scale_shift", '"scale_shift"'),
        ("unet", "reverse_transformer_layers_per_block", [[1], [1]], "[[1], [1]]"),
        ("unet", "time_cond_proj_dim", 256, "256"),
        ("unet", "time_embedding_act_fn", "silu", '"silu"'),
        ("unet", "time_embedding_dim", 64, "64"),
        ("unet", "time_embedding_type", "fourier", '"fourier"'),
        ("unet", "timestep_post_act", "silu", '"silu"'),
        ("unet", "a_key_of_the_future", {"x": 1}, '{"x": 1}'),
        ("unet", "down_block_types", ["AttnDownBlock2D", "DownBlock2D"], '"AttnDownBlock2D"'),
        ("unet", "up_block_types", ["UpBlock2D", 7], "7"),
        ("unet", "block_out_channels", [], "0 items"),
        ("unet", "block_out_channels", [8] * 9, "9 items"),
        ("unet", "cross_attention_dim", [6, 8], "6 at one level and 8"),
        ("vae", "_class_name", "AutoencoderTiny", '"AutoencoderTiny"'),
        ("vae", "act_fn", "relu", '"relu"'),
        ("vae", "shift_factor", 0.1159, "0.1159"),
        ("vae", "latents_mean", [0, 0, 0, 1.5], "[0, 0, 0, 1.5]"),
        ("vae", "latents_std", [1, 1, 1, 1], "[1, 1, 1, 1]"),
        ("vae", "in_channels", 4, "4"),
        ("vae", "out_channels", 1, "1"),
        ("vae", "down_block_types", ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"], '"AttnDownEncoderBlock2D"'),
        ("vae", "norm_num_groups", None, "null"),
        ("vae_tiny", "_class_name", "AutoencoderKL", '"AutoencoderKL"'),
        ("vae_tiny", "act_fn", "mish", '"mish"'),
        ("vae_tiny", "upsample_fn", "bilinear", '"bilinear"'),
        ("vae_tiny", "in_channels", 4, "4"),
        ("vae_tiny", "out_channels", 4, "4"),
        ("vae_tiny", "shift_factor", 0.1159, "0.1159"),
        ("vae_tiny", "encoder_block_out_channels", [], "0 items"),
        ("vae_tiny", "num_decoder_blocks", [1] * 9, "9 items"),
        ("vae_tiny", "upsampling_scaling_factor", 3, "the decoder enlarges 9 times"),
        ("clip", "model_type", "clip", '"clip"'),
        ("clip", "hidden_act", "relu", '"relu"'),
    ],
)
def test_unsupported_values_are_refused_by_name(component: str, key: str, value: object, shown: str) -> None:
    with pytest.raises(NotImplementedError) as error:
        weights_of(component, **{key: value})
    assert f'"{key}"' in str(error.value)
    assert shown in str(error.value)
    assert "config.json" in str(error.value)


@pytest.mark.parametrize(
    ("component", "key", "value", "shown"),
    [
        ("unet", "in_channels", 0, "0"),
        ("unet", "in_channels", 65537, "65537"),
        ("unet", "out_channels", "4", '"4"'),
        ("unet", "block_out_channels", [8, 0], "0"),
        ("unet", "block_out_channels", [8, 10**30], "1e+30"),
        ("unet", "block_out_channels", [8, 1.5], "1.5"),
        ("unet", "block_out_channels", [8, 18], '18, not divisible by "norm_num_groups" 4'),
        ("unet", "block_out_channels", 8, "8"),
        ("unet", "block_out_channels", None, "null"),
        ("unet", "down_block_types", ["DownBlock2D"], "of 1 items"),
        ("unet", "up_block_types", "UpBlock2D", '"UpBlock2D"'),
        ("unet", "layers_per_block", 0, "0"),
        ("unet", "layers_per_block", [1, 65], "65"),
        ("unet", "layers_per_block", [1], "of 1 items"),
        ("unet", "transformer_layers_per_block", [[1], [1]], "[1]"),
        ("unet", "attention_head_dim", None, "null"),
        ("unet", "attention_head_dim", 0, "0"),
        ("unet", "attention_head_dim", [3, 4], "3"),
        ("unet", "cross_attention_dim", -1, "-1"),
        ("unet", "norm_num_groups", 0, "0"),
        ("unet", "norm_eps", 0, "0"),
        ("unet", "norm_eps", "small", '"small"'),
        ("unet", "freq_shift", 4, "4"),
        ("unet", "use_linear_projection", "yes", '"yes"'),
        ("vae", "layers_per_block", [1, 1], "[1, 1]"),
        ("vae", "latent_channels", -4, "-4"),
        ("vae", "scaling_factor", 0, "0"),
        ("vae", "scaling_factor", -1.5, "-1.5"),
        ("vae", "block_out_channels", [8, 6], '6, not divisible by "norm_num_groups" 4'),
        ("vae_tiny", "encoder_block_out_channels", [12, 12, 16], '"encoder_block_out_channels"[2] is 16; [0] is 12'),
        ("vae_tiny", "decoder_block_out_channels", 8, "8"),
        ("vae_tiny", "decoder_block_out_channels", [8, 8, 0], "0"),
        ("vae_tiny", "num_encoder_blocks", [1, 1], "2 items"),
        ("vae_tiny", "num_encoder_blocks", [1, 65, 1], "65"),
        ("vae_tiny", "num_decoder_blocks", [1, -1, 1], "-1"),
        ("vae_tiny", "num_decoder_blocks", None, "null"),
        ("vae_tiny", "latent_channels", 0, "0"),
        ("vae_tiny", "upsampling_scaling_factor", 0, "0"),
        ("vae_tiny", "scaling_factor", 0, "0"),
        ("clip", "hidden_size", 9, "9"),
        ("clip", "num_hidden_layers", 10**6, "1000000"),
        ("clip", "vocab_size", 1 << 25, "33554432"),
        ("clip", "layer_norm_eps", -1, "-1"),
        ("clip", "hidden_size", True, "true"),
    ],
)
def test_impossible_values_are_refused_by_name(component: str, key: str, value: object, shown: str) -> None:
    with pytest.raises(CheckpointError) as error:
        weights_of(component, **{key: value})
    assert f'"{key}"' in str(error.value)
    assert shown in str(error.value)


def test_odd_first_level_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="odd"):
        weights_of("unet", block_out_channels=[9, 18], norm_num_groups=3, attention_head_dim=3)


@pytest.mark.parametrize("component", CONFIGS)
@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "", "{", '{"a": 1, "a": 2}'])
def test_what_is_no_configuration(component: str, text: str) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        engine.network_weights(component, text)


# ---- weights ----


def write_safetensors(path: Path, tensors: dict[str, NDArray[Any]]) -> None:
    types = {"float32": "F32", "float16": "F16", "int64": "I64"}
    header, data = {}, b""
    for key, array in tensors.items():
        end = len(data) + array.nbytes
        header[key] = {"dtype": types[array.dtype.name], "shape": array.shape, "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def random_tensors(component: str) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {key: rng.standard_normal(s).astype(np.float32) for key, s in weights_of(component).items()}


def write_component(folder: Path, component: str, tensors: dict[str, NDArray[Any]]) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIGS[component]))
    write_safetensors(folder / "model.safetensors", tensors)


def run_unet(folder: Path, size: tuple[int, int] = (3, 5), text_channels: int = 6, channels: int = 8) -> Any:
    sample = np.ones((1, channels, *size), np.float32)
    text = np.ones((1, 2, text_channels), np.float32)
    return engine.unet_run(str(folder), None, sample, np.ones(1, np.float32), text, "ref", None, 1)


def run_clip(folder: Path) -> Any:
    return engine.clip_run(str(folder), None, np.array([1, 2], np.float32), "ref", None, 1)


def test_missing_misshapen_and_unused_are_listed_together(tmp_path: Path) -> None:
    tensors = random_tensors("unet")
    del tensors["conv_in.bias"], tensors["up_blocks.1.attentions.0.norm.weight"]
    tensors["conv_out.bias"] = np.zeros(5, np.float32)
    tensors["mid_block.resnets.0.conv1.weight"] = np.zeros((16, 16, 1, 1), np.float32)
    tensors["time_embedding.linear_1.bias"] = np.zeros(32, np.int64)
    tensors["down_blocks.7.extra.weight"] = np.zeros(1, np.float32)
    write_component(tmp_path, "unet", tensors)
    with pytest.raises(CheckpointError) as error:
        run_unet(tmp_path)
    message = str(error.value)
    assert "2 missing, 3 misshapen, 1 unused" in message
    for line in (
        "missing: conv_in.bias [8]",
        "missing: up_blocks.1.attentions.0.norm.weight [8]",
        "misshapen: conv_out.bias is F32 [5], the configuration asks for [4]",
        "misshapen: mid_block.resnets.0.conv1.weight is F32 [16, 16, 1, 1], the configuration asks for [16, 16, 3, 3]",
        "misshapen: time_embedding.linear_1.bias is I64 [32]",
        "unused: down_blocks.7.extra.weight",
    ):
        assert line in message


def test_complete_weights_run(tmp_path: Path) -> None:
    write_component(tmp_path, "unet", random_tensors("unet"))
    shape, values = run_unet(tmp_path)
    assert shape == (1, 4, 3, 5)
    assert np.isfinite(np.frombuffer(values, np.float32)).all()


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    write_component(tmp_path, "unet", random_tensors("unet"))
    with pytest.raises(ValueError, match="takes 8 channels, not 7"):
        run_unet(tmp_path, channels=7)
    with pytest.raises(ValueError, match="text embedding of 6 channels, not 9"):
        run_unet(tmp_path, text_channels=9)


def test_image_too_small_for_the_vae(tmp_path: Path) -> None:
    write_component(tmp_path, "vae", random_tensors("vae"))
    with pytest.raises(ValueError, match=r"encoder\.down_blocks\.0\.downsamplers"):
        engine.vae_encode_run(str(tmp_path), None, np.ones((1, 3, 1, 4), np.float32), "ref", None, 1)


class NumpyVAETiny:
    """VAE_TINY in float64: its layers one after the other, as the checkpoint counts them."""

    def __init__(self, tensors: dict[str, NDArray[Any]]) -> None:
        self.tensors = tensors

    def convolve(self, x: NDArray[Any], key: str, **params: int) -> NDArray[Any]:
        pads = dict.fromkeys(("pad_top", "pad_left", "pad_bottom", "pad_right"), 1)
        bias = self.tensors.get(f"{key}.bias", np.zeros(1, np.float32))
        y: NDArray[Any] = correlate(x, self.tensors[f"{key}.weight"].astype(np.float64), pads | params) + bias
        return y

    def block(self, x: NDArray[Any], key: str) -> NDArray[Any]:
        y: NDArray[Any] = np.maximum(self.convolve(x, f"{key}.conv.0"), 0)
        y = np.maximum(self.convolve(y, f"{key}.conv.2"), 0)
        y = np.maximum(self.convolve(y, f"{key}.conv.4") + x, 0)
        return y

    def encode(self, x: NDArray[Any]) -> NDArray[Any]:
        x = self.convolve(x.astype(np.float64) / 2 + 0.5, "encoder.layers.0")
        x = self.block(x, "encoder.layers.1")
        x = self.convolve(x, "encoder.layers.2", stride=2)
        x = self.convolve(x, "encoder.layers.3", stride=2)
        x = self.block(self.block(x, "encoder.layers.4"), "encoder.layers.5")
        return self.convolve(x, "encoder.layers.6")

    def decode(self, z: NDArray[Any]) -> NDArray[Any]:
        x = np.tanh(z.astype(np.float64) / 3) * 3
        x = np.maximum(self.convolve(x, "decoder.layers.0"), 0)
        x = self.block(x, "decoder.layers.2").repeat(2, axis=1).repeat(2, axis=2)
        x = self.convolve(x, "decoder.layers.4")
        x = self.block(self.block(x, "decoder.layers.5"), "decoder.layers.6").repeat(2, axis=1).repeat(2, axis=2)
        x = self.convolve(x, "decoder.layers.8")
        return self.convolve(x, "decoder.layers.9") * 2 - 1


@pytest.mark.parametrize("backend", ["ref", "cpu"])
@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 1), (38, 41)])
def test_tiny_autoencoder(backend: str, size: tuple[int, int], tmp_path: Path) -> None:
    tensors = random_tensors("vae_tiny")
    tensors = {key: array / (3 * array.shape[1] ** 0.5 if array.ndim == 4 else 1) for key, array in tensors.items()}
    write_component(tmp_path, "vae_tiny", tensors)
    rng, expected = np.random.default_rng(1), NumpyVAETiny(tensors)
    isas = engine.isas() if backend == "cpu" else [None]
    for isa in isas:
        for run, reference, channels in (
            (engine.vae_tiny_encode_run, expected.encode, 3),
            (engine.vae_tiny_decode_run, expected.decode, 4),
        ):
            x = (2 * rng.standard_normal((2, channels, *size))).astype(np.float32)
            shape, data = run(str(tmp_path), None, x, backend, isa, 1)
            wanted = reference(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
            assert shape == wanted.shape
            error = np.abs(np.frombuffer(data, np.float32).reshape(shape) - wanted).max()
            assert error <= 1e-5 * np.sqrt(np.square(wanted).mean())


def test_channels_that_the_tiny_autoencoder_does_not_take(tmp_path: Path) -> None:
    write_component(tmp_path, "vae_tiny", random_tensors("vae_tiny"))
    x = np.ones((1, 5, 8, 8), np.float32)
    with pytest.raises(ValueError, match="encodes 3 channels, not 5"):
        engine.vae_tiny_encode_run(str(tmp_path), None, x, "ref", None, 1)
    with pytest.raises(ValueError, match="decodes 4 channels, not 5"):
        engine.vae_tiny_decode_run(str(tmp_path), None, x, "ref", None, 1)


def test_positions_of_older_text_encoders_are_ignored(tmp_path: Path) -> None:
    tensors = random_tensors("clip")
    assert "text_model.final_layer_norm.weight" in tensors
    write_component(tmp_path, "clip", tensors)
    expected = run_clip(tmp_path)
    tensors["text_model.embeddings.position_ids"] = np.arange(5)[None]
    write_component(tmp_path, "clip", tensors)
    assert run_clip(tmp_path) == expected
    write_component(tmp_path, "clip", {key.removeprefix("text_model."): array for key, array in tensors.items()})
    assert run_clip(tmp_path) == expected
    tensors["vision_model.embeddings.position_ids"] = np.arange(5)[None]
    write_component(tmp_path, "clip", tensors)
    with pytest.raises(CheckpointError, match=r"unused: vision_model\.embeddings\.position_ids"):
        run_clip(tmp_path)


# ---- the empty prompt ----


def write_json(folder: Path, **files: object) -> str:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return str(folder)


VOCABULARY = {"x": 0, "<|startoftext|>": 5, "<|endoftext|>": 6, "<s>": 7, "</s>": 8}


def test_default_names(tmp_path: Path) -> None:
    assert engine.empty_prompt(write_json(tmp_path, vocab=VOCABULARY), 9) == (5, 6)


@pytest.mark.parametrize("file", ["tokenizer_config", "special_tokens_map"])
def test_names_as_text_or_object(file: str, tmp_path: Path) -> None:
    names = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}}
    assert engine.empty_prompt(write_json(tmp_path, vocab=VOCABULARY, **{file: names}), 9) == (7, 8)


def test_the_configuration_precedes_the_map(tmp_path: Path) -> None:
    folder = write_json(
        tmp_path,
        vocab=VOCABULARY,
        tokenizer_config={"bos_token": "<s>", "eos_token": None},
        special_tokens_map={"bos_token": "x", "eos_token": "</s>"},
    )
    assert engine.empty_prompt(folder, 9) == (7, 8)


def test_ids_from_the_combined_file(tmp_path: Path) -> None:
    added = [{"id": 3, "content": "<|endoftext|>"}]
    combined = {"model": {"vocab": {"<|startoftext|>": 2}}, "added_tokens": added}
    assert engine.empty_prompt(write_json(tmp_path, tokenizer=combined), 9) == (2, 3)
    assert engine.empty_prompt(write_json(tmp_path, vocab={"<|startoftext|>": 1}), 9) == (1, 3)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither vocab.json nor tokenizer.json"),
        ({"vocab": {}}, "bos_token"),
        ({"vocab": {"<|startoftext|>": 1}}, "eos_token"),
        ({"vocab": []}, "bos_token"),
        ({"tokenizer": {"model": {"vocab": [1, 2]}, "added_tokens": {"x": 1}}}, "bos_token"),
        ({"vocab": VOCABULARY | {"<|endoftext|>": 9}}, "is 9; the text encoder has embeddings for 0 to 8"),
        ({"vocab": VOCABULARY | {"<|endoftext|>": -1}}, "is -1"),
        ({"vocab": VOCABULARY | {"<|endoftext|>": 1.5}}, "is 1.5"),
        ({"vocab": VOCABULARY | {"<|endoftext|>": "6"}}, 'is "6"'),
        ({"vocab": VOCABULARY, "tokenizer_config": {"bos_token": "<unknown>"}}, "<unknown>"),
    ],
)
def test_tokenizers_that_are_refused(files: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        engine.empty_prompt(write_json(tmp_path, **files), 9)
    assert message in str(error.value)

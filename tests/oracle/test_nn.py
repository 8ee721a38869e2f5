"""UNet, VAE and text encoder against diffusers and transformers, on small random models that these saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from marigold_c import _testing as engine  # noqa: E402

Array = NDArray[np.float32]
BACKENDS = [("ref", None), *(("cpu", isa) for isa in engine.isas())]
TOLERANCE = 1e-4  # largest difference, relative to the root of the mean square of the reference
TINY_TOLERANCE = 1e-5  # AutoencoderTiny has neither norms nor attention

CROSS_DOWN, DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, UP = "CrossAttnUpBlock2D", "UpBlock2D"

# Configuration, then sample shape, then the batch of the text: sizes that no level halves evenly.
UNETS: dict[str, tuple[dict[str, Any], tuple[int, int, int], int]] = {
    "sd15": (
        {
            "in_channels": 8,
            "out_channels": 4,
            "block_out_channels": (32, 64, 64, 64),
            "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN),
            "up_block_types": (UP, CROSS_UP, CROSS_UP, CROSS_UP),
            "attention_head_dim": 8,
            "cross_attention_dim": 24,
            "norm_num_groups": 32,
        },
        (1, 13, 9),
        1,
    ),
    "sd2": (
        {
            "in_channels": 8,
            "out_channels": 4,
            "block_out_channels": (32, 64, 128, 128),
            "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN),
            "up_block_types": (UP, CROSS_UP, CROSS_UP, CROSS_UP),
            "attention_head_dim": (2, 4, 8, 8),
            "cross_attention_dim": 40,
            "norm_num_groups": 16,
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        (2, 11, 14),
        1,
    ),
    "odd channels, other layers at each level": (
        {
            "in_channels": 5,
            "out_channels": 3,
            "block_out_channels": (24, 40, 56),
            "down_block_types": (DOWN, CROSS_DOWN, CROSS_DOWN),
            "up_block_types": (CROSS_UP, CROSS_UP, UP),
            "layers_per_block": (1, 2, 3),
            "attention_head_dim": (3, 5, 7),
            "cross_attention_dim": 17,
            "norm_num_groups": 8,
        },
        (2, 7, 10),
        2,
    ),
    "no mid block, deeper transformers": (
        {
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (20, 36, 44),
            "down_block_types": (CROSS_DOWN, DOWN, CROSS_DOWN),
            "up_block_types": (UP, CROSS_UP, CROSS_UP),
            "mid_block_type": None,
            "layers_per_block": 1,
            "transformer_layers_per_block": (2, 1, 3),
            "attention_head_dim": 2,
            "cross_attention_dim": 12,
            "norm_num_groups": 4,
            "use_linear_projection": True,
        },
        (1, 9, 6),
        1,
    ),
    "sines first, large epsilon": (
        {
            "in_channels": 12,
            "out_channels": 8,
            "block_out_channels": (24, 40),
            "down_block_types": (CROSS_DOWN, CROSS_DOWN),
            "up_block_types": (CROSS_UP, CROSS_UP),
            "layers_per_block": 3,
            "attention_head_dim": 4,
            "cross_attention_dim": 33,
            "norm_num_groups": 4,
            "norm_eps": 1e-2,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
        },
        (1, 5, 17),
        1,
    ),
    "one level": (
        {
            "in_channels": 3,
            "out_channels": 2,
            "block_out_channels": (16,),
            "down_block_types": (CROSS_DOWN,),
            "up_block_types": (CROSS_UP,),
            "layers_per_block": 1,
            "attention_head_dim": 1,
            "cross_attention_dim": 8,
            "norm_num_groups": 4,
        },
        (3, 3, 5),
        3,
    ),
    "one cell": (
        {
            "in_channels": 8,
            "out_channels": 4,
            "block_out_channels": (16, 24, 24),
            "down_block_types": (CROSS_DOWN, CROSS_DOWN, DOWN),
            "up_block_types": (UP, CROSS_UP, CROSS_UP),
            "layers_per_block": 2,
            "attention_head_dim": 4,
            "cross_attention_dim": 8,
            "norm_num_groups": 4,
        },
        (1, 1, 1),
        1,
    ),
    "width of a class embedding, and no class embedding": (
        {
            "in_channels": 3,
            "out_channels": 2,
            "block_out_channels": (16,),
            "down_block_types": (CROSS_DOWN,),
            "up_block_types": (CROSS_UP,),
            "layers_per_block": 1,
            "attention_head_dim": 2,
            "cross_attention_dim": 8,
            "norm_num_groups": 4,
            "projection_class_embeddings_input_dim": 6,
        },
        (2, 3, 4),
        1,
    ),
}

# Configuration, then the size of the image.
VAES: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "sd": ({"block_out_channels": (32, 32, 64, 64), "layers_per_block": 2, "norm_num_groups": 32}, (1, 56, 40)),
    "odd channels": ({"block_out_channels": (24, 40, 56), "layers_per_block": 1, "norm_num_groups": 8}, (2, 36, 20)),
    "size that the VAE floors": (
        {"block_out_channels": (20, 36), "layers_per_block": 3, "norm_num_groups": 4, "latent_channels": 7},
        (1, 23, 37),
    ),
    "no quant convolutions, no attention": (
        {
            "block_out_channels": (16, 16, 24),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "mid_block_add_attention": False,
        },
        (1, 20, 28),
    ),
    "one level": ({"block_out_channels": (24,), "layers_per_block": 1, "norm_num_groups": 4}, (1, 5, 9)),
}

# Configuration, then the size of the image and of the latent.
VAES_TINY: dict[str, tuple[dict[str, Any], tuple[int, int, int], tuple[int, int, int]]] = {
    "taesd": ({}, (1, 72, 56), (1, 7, 5)),
    "batch, no multiple of 8": ({}, (2, 37, 61), (3, 5, 3)),
    "large enough for Winograd everywhere": (
        {"encoder_block_out_channels": (32,) * 3, "decoder_block_out_channels": (24,) * 3}
        | {"num_encoder_blocks": (1, 2, 1), "num_decoder_blocks": (1, 2, 1)},
        (1, 140, 132),
        (1, 33, 35),
    ),
    "other widths and counts, empty stages": (
        {"encoder_block_out_channels": (17,) * 3, "decoder_block_out_channels": (20,) * 3, "latent_channels": 16}
        | {"num_encoder_blocks": (0, 2, 1), "num_decoder_blocks": (2, 0, 3)},
        (2, 30, 47),
        (2, 6, 9),
    ),
    "one enlargement by four": (
        {"encoder_block_out_channels": (16,) * 3, "decoder_block_out_channels": (16,) * 2}
        | {"num_encoder_blocks": (1, 1, 1), "num_decoder_blocks": (2, 1), "upsampling_scaling_factor": 4},
        (1, 21, 18),
        (1, 4, 7),
    ),
    "one stage": (
        {"encoder_block_out_channels": (12,), "decoder_block_out_channels": (12,)}
        | {"num_encoder_blocks": (2,), "num_decoder_blocks": (1,)},
        (1, 9, 5),
        (1, 5, 4),
    ),
    "one pixel": ({}, (1, 1, 1), (1, 1, 1)),
    **{act_fn: ({"act_fn": act_fn}, (1, 40, 33), (1, 4, 6)) for act_fn in ("silu", "swish", "gelu")},
}

CLIPS: dict[str, dict[str, Any]] = {
    "sd15": {"hidden_size": 24, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4},
    "sd2": {
        "hidden_size": 40,
        "intermediate_size": 100,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "hidden_act": "gelu",
    },
    "epsilon": {
        "hidden_size": 28,
        "intermediate_size": 33,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "layer_norm_eps": 1e-2,
    },
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randomise(model: Any, seed: int) -> Any:
    """Norms and biases start as ones and zeros, which would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(0.2 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return model.eval()


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def array_of(result: tuple[tuple[int, ...], bytes]) -> Array:
    shape, values = result
    return np.frombuffer(values, np.float32).reshape(shape)


def assert_close(ours: Array, reference: Any, tolerance: float) -> None:
    expected = reference.detach().numpy()
    assert ours.shape == expected.shape
    difference = np.abs(ours - expected).max() / np.sqrt(np.mean(np.square(expected, dtype=np.float64)))
    assert difference <= tolerance


def on_all_backends(
    run: Callable[..., Any],
    folder: Path,
    variant: str | None,
    inputs: list[Array],
    ref: Any,
    tolerance: float = TOLERANCE,
) -> None:
    for backend, isa in BACKENDS:
        results = [run(str(folder), variant, *inputs, backend, isa, threads) for threads in (1, 2)]
        assert_close(array_of(results[0]), ref, tolerance)
        assert results[0] == results[1]


def unet_case(name: str) -> tuple[Any, list[Array]]:
    config, (n, h, w), text_n = UNETS[name]
    model = randomise(diffusers.UNet2DConditionModel(**config), len(name))
    times = np.linspace(999, 3, n, dtype=np.float32)
    inputs = [normal(1, n, config["in_channels"], h, w), times, normal(2, text_n, 3, config["cross_attention_dim"])]
    return model, inputs


def unet_reference(model: Any, inputs: list[Array]) -> Any:
    sample, times, text = (torch.from_numpy(array) for array in inputs)
    with torch.no_grad():
        return model(sample, times, text.expand(len(sample), -1, -1)).sample


@pytest.mark.parametrize("name", UNETS)
def test_unet(name: str, tmp_path: Path) -> None:
    model, inputs = unet_case(name)
    model.save_pretrained(tmp_path)
    on_all_backends(engine.unet_run, tmp_path, None, inputs, unet_reference(model, inputs))


def test_unet_one_time_step_for_all(tmp_path: Path) -> None:
    model, inputs = unet_case("sd2")
    model.save_pretrained(tmp_path)
    inputs[1] = inputs[1][:1]
    reference = unet_reference(model, [inputs[0], np.repeat(inputs[1], len(inputs[0])), inputs[2]])
    on_all_backends(engine.unet_run, tmp_path, None, inputs, reference)


def test_unet_half_precision_variant(tmp_path: Path) -> None:
    model, inputs = unet_case("sd2")
    model.half().save_pretrained(tmp_path, variant="fp16")
    on_all_backends(engine.unet_run, tmp_path, "fp16", inputs, unet_reference(model.float(), inputs))


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_unet_sharded(variant: str | None, tmp_path: Path) -> None:
    model, inputs = unet_case("sd15")
    model = model.half() if variant else model
    model.save_pretrained(tmp_path, max_shard_size="500KB", variant=variant)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    on_all_backends(engine.unet_run, tmp_path, variant, inputs, unet_reference(model.float(), inputs))


def vae_case(name: str) -> tuple[Any, Array, Array]:
    config, (n, h, w) = VAES[name]
    levels = len(config["block_out_channels"])
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels}
    model = randomise(diffusers.AutoencoderKL(**kinds, **config), len(name))
    return model, normal(3, n, 3, h, w), normal(4, n, config.get("latent_channels", 4), 5, 3)


def check_vae(model: Any, x: Array, z: Array, folder: Path) -> None:
    with torch.no_grad():
        mean = model.encode(torch.from_numpy(x)).latent_dist.mean
        image = model.decode(torch.from_numpy(z)).sample
    on_all_backends(engine.vae_encode_run, folder, None, [x], mean)
    on_all_backends(engine.vae_decode_run, folder, None, [z], image)


@pytest.mark.parametrize("name", VAES)
def test_vae(name: str, tmp_path: Path) -> None:
    model, x, z = vae_case(name)
    model.save_pretrained(tmp_path)
    check_vae(model, x, z, tmp_path)


@pytest.mark.parametrize("as_convolution", [False, True])
def test_vae_deprecated_attention_names(as_convolution: bool, tmp_path: Path) -> None:
    model, x, z = vae_case("sd")
    model.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for key, tensor in load_file(path).items():
        if ".attentions." in key:
            for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
                key = key.replace(f".{new}.", f".{old}.")
            if as_convolution and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        renamed[key] = tensor.contiguous()
    assert any("proj_attn" in key for key in renamed)
    save_file(renamed, path)
    check_vae(model, x, z, tmp_path)


def vae_tiny_case(name: str) -> tuple[Any, Array, Array]:
    config, (n, h, w), (z_n, z_h, z_w) = VAES_TINY[name]
    model = randomise(diffusers.AutoencoderTiny(**config), len(name))
    latents = 3 * normal(4, z_n, config.get("latent_channels", 4), z_h, z_w)  # the decoder bends what is beyond 3
    return model, np.tanh(normal(3, n, 3, h, w)), latents


def check_vae_tiny(model: Any, x: Array, z: Array, folder: Path, variant: str | None = None) -> None:
    with torch.no_grad():
        latents = model.encode(torch.from_numpy(x)).latents
        image = model.decode(torch.from_numpy(z)).sample
    on_all_backends(engine.vae_tiny_encode_run, folder, variant, [x], latents, TINY_TOLERANCE)
    on_all_backends(engine.vae_tiny_decode_run, folder, variant, [z], image, TINY_TOLERANCE)


@pytest.mark.parametrize("name", VAES_TINY)
def test_vae_tiny(name: str, tmp_path: Path) -> None:
    model, x, z = vae_tiny_case(name)
    model.save_pretrained(tmp_path)
    check_vae_tiny(model, x, z, tmp_path)


def test_vae_tiny_half_precision_variant(tmp_path: Path) -> None:
    model, x, z = vae_tiny_case("taesd")
    model.half().save_pretrained(tmp_path, variant="fp16")
    check_vae_tiny(model.float(), x, z, tmp_path, "fp16")


@pytest.mark.parametrize("prefix", ["", "text_model."])
@pytest.mark.parametrize("name", CLIPS)
def test_text_encoder(name: str, prefix: str, tmp_path: Path) -> None:
    config = transformers.CLIPTextConfig(vocab_size=60, max_position_embeddings=9, **CLIPS[name])
    model = randomise(transformers.CLIPTextModel(config), len(name))
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {prefix + key.removeprefix("text_model."): tensor for key, tensor in load_file(path).items()}
    if prefix:
        tensors["text_model.embeddings.position_ids"] = torch.arange(9)[None]
    save_file(tensors, path)
    for ids in ([58, 59], [58, 3, 0, 7, 59]):
        with torch.no_grad():
            reference = model(torch.tensor([ids])).last_hidden_state[:, None]
        on_all_backends(engine.clip_run, tmp_path, None, [np.array(ids, np.float32)], reference)


def test_text_encoder_as_transformers_writes_it(tmp_path: Path) -> None:
    config = transformers.CLIPTextConfig(vocab_size=60, max_position_embeddings=9, **CLIPS["sd2"])
    model = randomise(transformers.CLIPTextModel(config), 1)
    model.half().save_pretrained(tmp_path, variant="fp16")
    with torch.no_grad():
        reference = model.float()(torch.tensor([[1, 2]])).last_hidden_state[:, None]
    on_all_backends(engine.clip_run, tmp_path, "fp16", [np.array([1, 2], np.float32)], reference)


def test_empty_prompt_as_transformers_tokenises_it(tmp_path: Path) -> None:
    words = ["a", "b", "a</w>", "b</w>", "ab</w>", "<|startoftext|>", "<|endoftext|>"]
    source = tmp_path / "source"
    source.mkdir()
    (source / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (source / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(source)
    expected = tuple(tokenizer("", padding="do_not_pad").input_ids)
    saved = tmp_path / "saved"
    tokenizer.save_pretrained(saved)
    assert engine.empty_prompt(str(saved), 49408) == expected
    assert engine.empty_prompt(str(source), 49408) == expected

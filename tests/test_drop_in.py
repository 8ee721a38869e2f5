"""What scripts for diffusers do with a pipeline besides calling it: images by path, placement, copies, settings."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marigold_c as mc
from marigold_c import _C
from marigold_c.images.readers import InputError

PIXELS = np.random.default_rng(8).integers(0, 256, (24, 40, 3), dtype=np.uint8)
OPTIONS: dict[str, Any] = {"processing_resolution": 0, "generator": 3}
# What a camera does that is held otherwise, and how the picture becomes upright.
TURNS = {1: lambda x: x, 3: lambda x: x[::-1, ::-1], 6: lambda x: np.rot90(x, -1), 8: lambda x: np.rot90(x)}


def opened(task: str = "depth", **options: Any) -> Any:
    pipe = mc.load(mc.default_checkpoint(task), num_threads=1, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> Any:
    return opened()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    return path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The URL of the test's folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


# ---- images ----


def test_images_by_path_and_url(pipe: Any, photo: Path, site: str) -> None:
    expected = pipe(PIXELS, **OPTIONS).prediction
    for image in (photo, str(photo), f"{site}/photo.png", [photo]):
        assert np.array_equal(pipe(image, **OPTIONS).prediction, expected)
    (frame,) = mc.predict_sequence(pipe, [photo], generator=3, processing_resolution=0)
    assert np.array_equal(frame.prediction, expected)


def test_read_image(photo: Path, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.array_equal(mc.read_image(photo), PIXELS)
    assert np.array_equal(mc.read_image(f"{site}/photo.png"), PIXELS)
    with pytest.raises(FileNotFoundError, match=r"no\.png"):
        mc.read_image(tmp_path / "no.png")
    with pytest.raises(OSError, match=rf"{site}/no\.png: 404"):
        mc.read_image(f"{site}/no.png")
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:1/a\.png: "):
        mc.read_image("http://127.0.0.1:1/a.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text\.png: cannot be read as an image"):
        mc.read_image(tmp_path / "text.png")
    monkeypatch.setattr("marigold_c.images.locations.LARGEST_DOWNLOAD", 10)
    with pytest.raises(InputError, match=rf"{site}/photo\.png: the file is larger than 10 bytes"):
        mc.read_image(f"{site}/photo.png")


@pytest.mark.parametrize("orientation", TURNS)
def test_photographs_are_turned_upright(pipe: Any, tmp_path: Path, orientation: int) -> None:
    """An image of PIL as the same file by its path, and as the command reads it."""
    path = tmp_path / "phone.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(path, exif=exif)
    upright = np.ascontiguousarray(TURNS[orientation](PIXELS))
    expected = pipe(upright, **OPTIONS).prediction
    with Image.open(path) as image:
        assert np.array_equal(pipe(image, **OPTIONS).prediction, expected)
        assert np.array_equal(np.asarray(mc.utils.load_image(image)), upright)
        colours = mc.depth_to_points(expected[0], image).colours
    assert np.array_equal(pipe(path, **OPTIONS).prediction, expected)
    assert np.array_equal(np.asarray(mc.utils.load_image(path)), upright)
    assert colours is not None
    assert np.array_equal(colours, mc.depth_to_points(expected[0], upright).colours)


def test_load_image_rounds_16_bits_and_converts(tmp_path: Path) -> None:
    wide = np.array([[0, 128, 129, 65535]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    picture = mc.utils.load_image(str(tmp_path / "wide.png"))
    assert picture.mode == "RGB"
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 0, 1, 255]
    assert mc.utils.load_image(picture, lambda image: image.convert("L")).mode == "L"
    with pytest.raises(ValueError, match="must be a path"):
        mc.utils.load_image(3)  # type: ignore[arg-type]


def test_export_to_gif(tmp_path: Path) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    path = mc.utils.export_to_gif(frames, tmp_path / "out.gif", fps=5)
    assert path == str(tmp_path / "out.gif")
    with Image.open(path) as image:
        assert (image.n_frames, image.info["duration"], image.info["loop"]) == (2, 200, 0)  # type: ignore[attr-defined]
    assert Path(mc.utils.export_to_gif(frames)).suffix == ".gif"
    with pytest.raises(ValueError, match="0 images"):
        mc.utils.export_to_gif([])


# ---- placement ----


def test_to_opens_again_in_another_dtype(pipe: Any) -> None:
    own = opened()
    own.scheduler = mc.LCMScheduler.from_config(own.scheduler.config)
    assert own.to("cpu") is own
    scheduler = own.scheduler
    assert own.to("cpu", "bf16").dtype == "bfloat16"
    assert own.scheduler is scheduler
    rough = own(PIXELS, **OPTIONS).prediction
    assert own.to(dtype=np.float32).dtype == "float32"
    own.scheduler = pipe.scheduler
    assert np.array_equal(own(PIXELS, **OPTIONS).prediction, pipe(PIXELS, **OPTIONS).prediction)
    assert not np.array_equal(rough, own(PIXELS, **OPTIONS).prediction)


def test_to_opens_when_the_pipeline_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    own = opened()
    calls = []
    engine = _C.Pipeline

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(options["dtype"])
        return engine(*args, **options)

    monkeypatch.setattr(_C, "Pipeline", counted)
    vae = own.vae
    assert own.to(dtype="int8").to("cpu", "bfloat16").dtype == "bfloat16"
    assert own.cancel() is False
    assert calls == []
    first = own(PIXELS, **OPTIONS).prediction
    assert calls == ["bfloat16"]
    assert own.vae is not vae
    assert np.array_equal(first, opened(dtype="bfloat16")(PIXELS, **OPTIONS).prediction)
    calls.clear()
    own.to(dtype="float32")
    own.vae = vae
    assert calls == ["float32"]
    own(PIXELS, **OPTIONS)
    assert calls == ["float32"]


def test_to_leaves_the_pipeline_as_it_was_where_it_fails(pipe: Any) -> None:
    before = pipe(PIXELS, **OPTIONS).prediction
    for arguments in (("mps",), ("cuda:99", "float16")):
        with pytest.raises(mc.DeviceError):
            pipe.to(*arguments)
    for keywords in ({"devices": "cpu"}, {"device": "cpu", "dtype": "float32"}):
        with pytest.raises(TypeError):
            pipe.to("cpu", **keywords)
    assert (pipe.device, pipe.dtype) == ("cpu", "float32")
    assert np.array_equal(pipe(PIXELS, **OPTIONS).prediction, before)


@pytest.mark.parametrize("name", ["float16", "fp16", "half", np.float16, np.dtype("float16")])
def test_float16_on_a_cpu(name: Any) -> None:
    half = opened(dtype=name)
    assert half.dtype == "bfloat16"
    with pytest.warns(UserWarning, match="'float16' is computed as 'bfloat16' on the CPU"):
        first = half(PIXELS, **OPTIONS).prediction
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(half(PIXELS, **OPTIONS).prediction, first)  # said once
    assert np.array_equal(first, opened(dtype="bfloat16")(PIXELS, **OPTIONS).prediction)


# ---- copies ----


@pytest.mark.parametrize("task", ["depth", "normals", "intrinsics"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_save_pretrained(task: str, variant: str | None, tmp_path: Path) -> None:
    pipe = opened(task)
    pipe.scheduler = mc.LCMScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "saved", variant=variant)
    names = {path.name for path in (tmp_path / "saved" / "unet").iterdir()}
    assert names == {"config.json", f"diffusion_pytorch_model{'.fp16' if variant else ''}.safetensors"}
    again = mc.load(tmp_path / "saved", num_threads=1, variant=variant)
    again.set_progress_bar_config(disable=True)
    assert type(again) is type(pipe)
    assert isinstance(again.scheduler, mc.LCMScheduler)
    assert np.array_equal(again(PIXELS, **OPTIONS).prediction, pipe(PIXELS, **OPTIONS).prediction)
    with pytest.raises(ValueError, match="folder of the checkpoint itself"):
        again.save_pretrained(tmp_path / "saved")


def test_what_cannot_be_saved(pipe: Any, tmp_path: Path) -> None:
    for one, options, message in (
        (pipe, {"safe_serialization": False}, "only safetensors"),
        (pipe, {"variant": "../x"}, "no plain name"),
    ):
        with pytest.raises(ValueError, match=message):
            one.save_pretrained(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_parts_show_what_they_are(pipe: Any) -> None:
    """In one line, as far as their configurations state it."""
    unet, vae, text = pipe.unet.config, pipe.vae.config, pipe.text_encoder.config
    shown = {name: repr(part) for name, part in pipe.components.items()} | {"processor": repr(pipe.image_processor)}
    assert shown["unet"].startswith(f"UNet(in_channels=8, out_channels=4, block_out_channels={unet.block_out_channels}")
    assert shown["vae"] == (
        f"VAE(_class_name='AutoencoderKL', latent_channels=4, block_out_channels={vae.block_out_channels}, "
        f"scaling_factor={vae.scaling_factor})"
    )
    assert shown["text_encoder"].startswith(f"TextEncoder(hidden_size={text.hidden_size}, num_hidden_layers=")
    assert shown["tokenizer"] == "Tokenizer(tokenizer_class='CLIPTokenizer', model_max_length=77)"
    assert shown["processor"] == f"MarigoldImageProcessor(vae_scale_factor={pipe.vae_scale_factor})"
    assert not any("\n" in text for text in shown.values())


def test_from_pipe_takes_pipelines_only() -> None:
    with pytest.raises(ValueError, match="must be a Marigold pipeline of this package; got <class 'str'>"):
        mc.MarigoldDepthPipeline.from_pipe("folder")  # type: ignore[arg-type]


def test_from_pipe(pipe: Any) -> None:
    half = opened(dtype="bfloat16")
    half.scheduler = mc.LCMScheduler.from_config(half.scheduler.config)
    twin = mc.MarigoldDepthPipeline.from_pipe(half)
    twin.set_progress_bar_config(disable=True)
    assert (twin.dtype, twin.scheduler) == ("bfloat16", half.scheduler)
    assert np.array_equal(twin(PIXELS, **OPTIONS).prediction, half(PIXELS, **OPTIONS).prediction)
    assert mc.MarigoldDepthPipeline.from_pipe(half, torch_dtype="float32", scheduler=pipe.scheduler).dtype == "float32"
    with pytest.warns(UserWarning, match="was made for MarigoldDepthPipeline"):
        mc.MarigoldNormalsPipeline.from_pipe(pipe)


def test_components(pipe: Any) -> None:
    assert list(pipe.components) == ["unet", "vae", "scheduler", "text_encoder", "tokenizer"]
    assert pipe.components["unet"] is pipe.unet
    assert pipe.components["scheduler"] is pipe.scheduler
    stored = json.loads((pipe.folder / "text_encoder" / "config.json").read_text())
    assert pipe.text_encoder.config["hidden_size"] == stored["hidden_size"] and pipe.text_encoder.dtype == pipe.dtype
    assert pipe.tokenizer.config["tokenizer_class"] == "CLIPTokenizer"


def test_a_pipeline_of_components(pipe: Any) -> None:
    half = opened(dtype="bfloat16")
    half.scheduler = mc.LCMScheduler.from_config(half.scheduler.config)
    twin = mc.MarigoldDepthPipeline(**half.components)
    twin.set_progress_bar_config(disable=True)
    assert (twin.dtype, twin.folder, twin.scheduler) == ("bfloat16", half.folder, half.scheduler)
    assert np.array_equal(twin(PIXELS, **OPTIONS).prediction, half(PIXELS, **OPTIONS).prediction)
    for name in half.components:
        with pytest.raises(ValueError, match=f"`{name}` must be "):
            mc.MarigoldDepthPipeline(**{**half.components, name: "x"})


def test_components_of_a_packed_file(tmp_path: Path) -> None:
    packed = tmp_path / "packed.safetensors"
    mc.convert(mc.default_checkpoint(), packed)
    one = mc.load(packed, task="depth", num_threads=1)
    assert one.text_encoder is None and one.tokenizer is None
    twin = mc.MarigoldDepthPipeline(**one.components)
    assert np.array_equal(twin.empty_text_embedding, one.empty_text_embedding)


# ---- settings without effect ----


def test_settings_of_torch_have_no_effect_and_say_so() -> None:
    pipe = opened()
    before = pipe(PIXELS, **OPTIONS).prediction
    settings = {
        pipe: ["xformers_memory_efficient_attention", "attention_slicing", "vae_slicing"],
        pipe.vae: ["xformers_memory_efficient_attention", "slicing"],
        pipe.unet: ["xformers_memory_efficient_attention"],
    }
    for one, names in settings.items():
        for name in names:
            for method in (f"enable_{name}", f"disable_{name}"):
                with pytest.warns(UserWarning, match=f"{method} has no effect: ") as said:
                    getattr(one, method)()
                assert said[0].filename == __file__
    for method in ("enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        with pytest.warns(UserWarning, match=f"{method} has no effect"):
            getattr(pipe, method)()
    for network in (pipe.unet, pipe.vae):
        with pytest.warns(UserWarning, match="set_attn_processor has no effect"):
            network.set_attn_processor(object())
        with pytest.warns(UserWarning, match="set_default_attn_processor has no effect"):
            network.set_default_attn_processor()
        assert network.eval().requires_grad_(False).cuda().cpu().to("cuda") is network
        with pytest.raises(ValueError, match="no gradients"):
            network.requires_grad_()
    pipe.unet = pipe.unet
    pipe.vae = pipe.vae
    with pytest.raises(ValueError, match="must be the pipeline's own"):
        pipe.unet = opened().unet
    assert np.array_equal(pipe(PIXELS, **OPTIONS).prediction, before)


# ---- results ----


def test_repr_is_a_line_of_shapes(pipe: Any) -> None:
    out = pipe(PIXELS, ensemble_size=3, output_uncertainty=True, **OPTIONS)
    assert repr(out) == (
        "MarigoldDepthOutput(prediction=float32 (1, 24, 40, 1), uncertainty=float32 (1, 24, 40, 1), latent=None)"
    )
    several = pipe([PIXELS, PIXELS[:16]], **OPTIONS)
    assert "prediction=[float32 (1, 24, 40, 1), float32 (1, 16, 40, 1)]" in repr(several)


def test_a_task_that_is_asked_for() -> None:
    path = mc.default_checkpoint("normals")
    assert isinstance(mc.load(path, "normals"), mc.MarigoldNormalsPipeline)
    with pytest.raises(ValueError, match="is a checkpoint for normals, not for depth"):
        mc.load(path, task="depth")
    with pytest.raises(ValueError, match="choose from depth, normals, intrinsics"):
        mc.load(path, task="iid")  # type: ignore[call-overload]


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no checkpoint: it has no model_index\.json"):
        mc.load(tmp_path)


def test_ensemble_depth_takes_what_pipelines_return() -> None:
    maps = np.random.default_rng(2).uniform(0, 1, (4, 9, 11, 1)).astype(np.float32)
    merged, uncertainty = mc.ensemble_depth(maps, output_uncertainty=True)
    expected, expected_uncertainty = mc.ensemble_depth(maps.transpose(0, 3, 1, 2), output_uncertainty=True)
    assert uncertainty is not None and expected_uncertainty is not None
    assert merged.shape == (1, 9, 11, 1)
    assert np.array_equal(merged[..., 0], expected[:, 0])
    assert np.array_equal(uncertainty[..., 0], expected_uncertainty[:, 0])
    with pytest.raises(ValueError, match=r"expected \(E, 1, H, W\) or \(E, H, W, 1\)"):
        mc.ensemble_depth(maps[..., 0])


def test_geometry_is_written_by_a_string(pipe: Any, tmp_path: Path) -> None:
    geometry = mc.depth_to_points(pipe(PIXELS, **OPTIONS).prediction[0])
    mc.write_geometry(str(tmp_path / "room.ply"), geometry)
    assert (tmp_path / "room.ply").read_bytes().startswith(b"ply\n")

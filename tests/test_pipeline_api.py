"""The Python interface of the pipeline on the shipped checkpoint: checks, inputs, generators, threads, cancelling.

Numbers against diffusers are in tests/oracle/test_pipeline.py.
"""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pipeline_cases import IMAGE, open_pipeline

import marigold_c as mc


@pytest.fixture(scope="module")
def pipe() -> mc.MarigoldDepthPipeline:
    return open_pipeline()


# ---- opening ----


def test_load_gives_the_class_of_the_checkpoint() -> None:
    assert type(mc.load(mc.default_checkpoint())) is mc.MarigoldDepthPipeline
    assert type(mc.load(str(mc.default_checkpoint()), num_threads=1)) is mc.MarigoldDepthPipeline


def test_attributes(pipe: mc.MarigoldDepthPipeline) -> None:
    assert (pipe.default_denoising_steps, pipe.default_processing_resolution) == (1, 128)
    assert (pipe.scale_invariant, pipe.shift_invariant, pipe.prediction_type) == (True, True, "depth")
    assert pipe.empty_text_embedding.shape == (1, 2, 64)
    assert pipe.unet.config.in_channels == 8
    assert pipe.to("cpu") is pipe
    assert "marigold-tiny-depth" in repr(pipe)
    with pytest.raises(mc.DeviceError, match="cuda"):
        pipe.to("cuda")


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32"), "auto"])
def test_dtypes(dtype: Any) -> None:
    assert open_pipeline(dtype=dtype)(IMAGE).prediction.dtype == np.float32
    assert open_pipeline(torch_dtype=dtype).dtype in ("float32", "auto")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"dtype": "int4"}, NotImplementedError, "int4"),
        ({"dtype": "float32", "torch_dtype": "float16"}, ValueError, "torch_dtype"),
        ({"vae": "taesd"}, FileNotFoundError, "taesd"),
        ({"num_threads": 0}, ValueError, "num_threads"),
        ({"device": "tpu"}, (mc.DeviceError, ValueError), "tpu"),
        ({"variant": "fp8"}, (OSError, ValueError), "fp8"),
    ],
)
def test_refused_options(options: dict[str, Any], error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        open_pipeline(**options)


def test_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mc.load(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"model_index\.json"):
        mc.MarigoldDepthPipeline.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="shipped"):
        mc.default_checkpoint("segmentation")


def test_another_pipeline_class_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(mc.default_checkpoint(), folder)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("MarigoldDepthPipeline", "StableDiffusionXLPipeline"))
    with pytest.raises(NotImplementedError, match="StableDiffusionXLPipeline"):
        mc.load(folder)


def test_the_class_decides_the_task_as_in_diffusers() -> None:
    with pytest.warns(UserWarning, match="was made for MarigoldNormalsPipeline"):
        pipe = mc.MarigoldDepthPipeline.from_pretrained(mc.default_checkpoint("normals"), num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    assert pipe(IMAGE, generator=0).prediction.shape == (1, 48, 64, 1)
    for cls in (mc.MarigoldDepthPipeline, mc.MarigoldNormalsPipeline):
        with pytest.raises(NotImplementedError, match=r"in_channels 16 and out_channels 12 do not fit Marigold"):
            cls.from_pretrained(mc.default_checkpoint("intrinsics"))


def test_unknown_prediction_type_is_named_and_not_refused(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(mc.default_checkpoint(), folder)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"prediction_type": "depth"', '"prediction_type": "height"'))
    with pytest.warns(UserWarning, match="prediction_type 'height' is unknown"):
        assert mc.load(folder).prediction_type == "height"


def test_damaged_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(mc.default_checkpoint(), folder)
    weights = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(mc.CheckpointError, match=r"fp16\.safetensors"):
        mc.load(folder)
    (folder / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(mc.CheckpointError):
        mc.load(folder)


def test_each_component_has_its_own_variant(tmp_path: Path) -> None:
    """A UNet replaced after training, under the default name, beside the fp16 files of the others."""
    folder = tmp_path / "mixed"
    shutil.copytree(mc.default_checkpoint(), folder)
    unet = folder / "unet"
    (unet / "diffusion_pytorch_model.fp16.safetensors").rename(unet / "diffusion_pytorch_model.safetensors")
    wanted = open_pipeline()(IMAGE, generator=1).prediction
    for variant in (None, "fp16"):
        pipe = mc.load(folder, variant=variant, num_threads=1)
        pipe.set_progress_bar_config(disable=True)
        assert np.array_equal(pipe(IMAGE, generator=1).prediction, wanted)
    with pytest.raises(ValueError, match='no component has weights of variant "fp8"'):
        mc.load(folder, variant="fp8")
    with pytest.raises(ValueError, match="no plain name"):
        mc.load(folder, variant="../fp16")


def test_fp16_files_are_taken_where_there_are_no_others(tmp_path: Path) -> None:
    explicit = open_pipeline(variant="fp16")(IMAGE, generator=1).prediction
    assert np.array_equal(open_pipeline()(IMAGE, generator=1).prediction, explicit)
    folder = tmp_path / "renamed"
    shutil.copytree(mc.default_checkpoint(), folder)
    for path in folder.rglob("*.fp16.safetensors"):
        path.rename(path.with_name(path.name.replace(".fp16.", ".")))
    assert np.array_equal(mc.load(folder)(IMAGE, generator=1).prediction, explicit)


def test_hub_id_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"marigold-c\[hub\]"):
        mc.load("prs-eth/marigold-depth-v1-1")


# ---- inputs ----


def test_shapes_and_range(pipe: mc.MarigoldDepthPipeline) -> None:
    out = pipe(IMAGE, generator=1, output_latent=True)
    assert out.prediction.shape == (1, 48, 64, 1)
    assert out.prediction.dtype == np.float32
    assert out.prediction.min() >= 0
    assert out.prediction.max() <= 1
    assert out.uncertainty is None
    assert out.latent.shape == (1, 4, 12, 16)
    assert np.shares_memory(out["prediction"], out[0])
    assert len(out.to_tuple()) == 2
    assert pipe(IMAGE, generator=1, return_dict=False)[2] is None
    assert pipe(IMAGE, match_input_resolution=False).prediction.shape == (1, 96, 128, 1)


def test_results_outlive_the_pipeline() -> None:
    own = open_pipeline()
    prediction = own(IMAGE, generator=1).prediction
    copy = prediction.copy()
    del own
    gc.collect()
    assert np.array_equal(prediction, copy)
    prediction += 1  # writable


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "LA", "PA", "La", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I"]
)
def test_every_pil_mode(pipe: mc.MarigoldDepthPipeline, mode: str) -> None:
    image = (
        Image.new(mode, (64, 48))
        if mode in ("PA", "La", "RGBa", "LAB")
        else Image.fromarray(IMAGE).convert("L" if mode in ("I;16", "I") else "RGB").convert(mode)
    )
    assert pipe(image).prediction.shape == (1, 48, 64, 1)


def test_equal_pixels_of_any_kind_give_equal_depth(pipe: mc.MarigoldDepthPipeline) -> None:
    expected = pipe(IMAGE, generator=1).prediction
    for same in (
        Image.fromarray(IMAGE),
        Image.fromarray(IMAGE).convert("RGBA"),
        IMAGE[None],
        np.asfortranarray(IMAGE),
        IMAGE[::-1][::-1],
        [IMAGE],
        IMAGE.astype(np.uint16) * 257,
        (IMAGE.astype(np.uint16) * 257).astype(">u2"),
        IMAGE.astype(np.float32) / 255,
        IMAGE.astype(np.float64) / 255,
    ):
        assert np.abs(pipe(same, generator=1).prediction - expected).max() < 1e-5
    grey = IMAGE[:, :, 0]
    expected = pipe(grey, generator=1).prediction
    sixteen = Image.fromarray(grey.astype(np.uint16) * 257)
    for same in (grey[:, :, None], np.repeat(grey[:, :, None], 3, 2), Image.fromarray(grey), sixteen):
        assert np.abs(pipe(same, generator=1).prediction - expected).max() < 1e-5


def test_images_of_different_sizes(pipe: mc.MarigoldDepthPipeline) -> None:
    images = [IMAGE, Image.fromarray(IMAGE[:30]), IMAGE[:, :30]]
    out = pipe(images, generator=[1, 2, 3], output_latent=True)
    assert isinstance(out.prediction, list)
    assert out.uncertainty is None
    for seed, image, prediction, latent in zip((1, 2, 3), images, out.prediction, out.latent, strict=True):
        alone = pipe(image, generator=seed, output_latent=True)
        assert np.array_equal(alone.prediction, prediction)
        assert np.array_equal(alone.latent, latent)
    again = pipe(images, latents="zeros").prediction
    assert [one.shape for one in again] == [(1, 48, 64, 1), (1, 30, 64, 1), (1, 48, 30, 1)]
    assert len(pipe.image_processor.visualize_depth(again)) == 3
    with pytest.raises(ValueError, match="list"):
        pipe(images, latents=np.zeros((1, 4, 12, 16), np.float32))
    with pytest.raises(ValueError, match="3 images"):
        pipe(images, latents=[np.zeros((1, 4, 12, 16), np.float32)])


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.full((8, 8, 3), np.nan, np.float32), "nan|NaN"),
        (np.full((8, 8, 3), np.inf, np.float32), "finite"),
        (np.zeros((0, 8, 3), np.uint8), "empty"),
        (np.zeros((8, 8, 2), np.uint8), "channel"),
        (np.zeros((8, 8, 3), "U1"), "dtype"),
        (np.zeros((8, 8, 3), object), "dtype"),
        ([], "empty"),
        (None, "type"),
        ([IMAGE, None], r"image\[1\]"),
        (Image.new("I", (8, 8), 70000), "70000"),
    ],
)
def test_refused_images(pipe: mc.MarigoldDepthPipeline, image: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        pipe(image)


def test_one_pixel_and_a_line(pipe: mc.MarigoldDepthPipeline) -> None:
    assert pipe(np.zeros((1, 1, 3), np.uint8)).prediction.shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="10000"):
        pipe(np.zeros((1, 10000, 3), np.uint8))
    assert pipe(np.zeros((1, 1000), np.uint8), processing_resolution=0).prediction.shape == (1, 1, 1000, 1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ensemble_size": 2.5}, ValueError),
        ({"ensemble_size": 257}, ValueError),
        ({"ensemble_size": 2**40}, ValueError),
        ({"ensembling_kwargs": {"power": 2}}, TypeError),
        ({"ensembling_kwargs": {"reduction": "closest"}}, ValueError),
        ({"ensembling_kwargs": {"solver": "magic"}}, ValueError),
        ({"ensembling_kwargs": {"max_res": 0}}, ValueError),
        ({"ensembling_kwargs": {"tol": float("nan")}}, ValueError),
        ({"ensembling_kwargs": {"max_iter": 0}}, ValueError),
        ({"ensembling_kwargs": {"regularizer_strength": -1}}, ValueError),
        ({"preset": "mine"}, ValueError),
        ({"num_inference_steps": 2.5}, ValueError),
        ({"num_inference_steps": 2**40}, ValueError),
        ({"batch_size": 2**40}, ValueError),
        ({"batch_size": -1}, ValueError),
        ({"batch_size": 1.5}, ValueError),
        ({"processing_resolution": 1.5}, ValueError),
        ({"latents": "ones"}, ValueError),
        ({"latents": 3}, ValueError),
        ({"latents": np.zeros((1, 4, 12, 16), np.complex64)}, ValueError),
        ({"latents": np.zeros((1, 4, 12, 15))}, ValueError),
        ({"generator": 2**70}, ValueError),
        ({"generator": True}, ValueError),
        ({"generator": []}, ValueError),
    ],
)
def test_refused_arguments(pipe: mc.MarigoldDepthPipeline, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        pipe(IMAGE, **options)


def test_batch_size_may_be_left_to_the_engine(pipe: mc.MarigoldDepthPipeline) -> None:
    """On a CPU it is 1."""
    options: dict[str, Any] = {"generator": 3, "ensemble_size": 2, "num_inference_steps": 2}
    expected = pipe(IMAGE, **options).prediction
    for batch_size in (0, None):
        assert np.array_equal(pipe(IMAGE, batch_size=batch_size, **options).prediction, expected)


def test_numpy_integers_are_integers(pipe: mc.MarigoldDepthPipeline) -> None:
    options: dict[str, Any] = {"processing_resolution": np.int32(64), "batch_size": np.uint8(1)}
    pipe(IMAGE, num_inference_steps=np.int64(1), generator=np.int64(3), **options)


# ---- randomness ----


def test_generators(pipe: mc.MarigoldDepthPipeline) -> None:
    by_seed = pipe(IMAGE, generator=7).prediction
    generator = mc.Generator(7)
    assert np.array_equal(pipe(IMAGE, generator=generator).prediction, by_seed)
    assert not np.array_equal(pipe(IMAGE, generator=generator).prediction, by_seed)  # its stream goes on
    latents = mc.Generator(7).randn((1, 4, 12, 16))
    assert np.array_equal(pipe(IMAGE, latents=latents).prediction, by_seed)
    assert np.array_equal(
        pipe(IMAGE, latents="zeros").prediction, pipe(IMAGE, latents=np.zeros((1, 4, 12, 16))).prediction
    )
    assert not np.array_equal(pipe(IMAGE).prediction, pipe(IMAGE).prediction)
    assert generator.manual_seed(7) is generator
    assert generator.initial_seed() == 7
    assert np.array_equal(generator.randn(1, 4, 12, 16), latents)
    assert generator.randn(()).shape == ()
    assert generator.randn((0, 3)).shape == (0, 3)
    assert np.array_equal(mc.Generator(-1).randn(20), mc.Generator(2**64 - 1).randn(20))
    for bad in (2**64, -(2**63) - 1):
        with pytest.raises(ValueError, match="64 bits"):
            mc.Generator(bad)
    with pytest.raises(TypeError):
        mc.Generator("seed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        generator.randn((2, -1))


def test_batches_equal_single_images(pipe: mc.MarigoldDepthPipeline) -> None:
    images = [IMAGE, IMAGE[::-1].copy(), IMAGE[:, ::-1].copy()]
    single = np.concatenate([pipe(image, 3, generator=i).prediction for i, image in enumerate(images)])
    for batch_size in (1, 2, 3, 7):
        together = pipe(images, 3, generator=[0, 1, 2], batch_size=batch_size).prediction
        assert np.abs(together - single).max() < 1e-5


def test_same_bits_with_one_and_two_threads() -> None:
    one, two = (open_pipeline(num_threads=n)(IMAGE, 2, generator=1).prediction for n in (1, 2))
    assert np.array_equal(one, two)


# ---- schedulers and pieces ----


def test_scheduler_can_be_replaced() -> None:
    own = open_pipeline()
    own.scheduler = mc.LCMScheduler.from_config(own.scheduler.config)
    first = own(IMAGE, 2, generator=1).prediction
    assert own.scheduler.timesteps.size == own.scheduler.num_inference_steps == 2
    assert np.array_equal(own(IMAGE, 2, generator=1).prediction, first)
    own.scheduler = mc.DDIMScheduler.from_config(own.scheduler.config, timestep_spacing="leading")
    own(IMAGE, 1)
    assert own.scheduler.timesteps.tolist() == [1]
    with pytest.raises(ValueError, match="scheduler"):
        own.scheduler = "DDIM"  # type: ignore[assignment]


def test_scheduler_options() -> None:
    scheduler = mc.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    assert scheduler.timesteps.size == 1000
    assert scheduler.alphas_cumprod.shape == (1000,)
    assert scheduler.init_noise_sigma == 1.0
    assert scheduler.config.beta_end == scheduler.config["beta_end"] == 0.02
    with pytest.raises(ValueError, match="set_timesteps"):
        scheduler.step(np.zeros(3), 999, np.zeros(3))
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]
    previous, clean = scheduler.step(np.ones((1, 2)), 999, np.ones((1, 2)), return_dict=False)
    assert previous.shape == clean.shape == (1, 2)
    with pytest.raises(ValueError, match="shape"):
        scheduler.step(np.ones((1, 2)), 999, np.ones((2, 1)))
    with pytest.raises(ValueError):
        scheduler.step(np.ones(2), 998, np.ones(2))
    with pytest.raises(TypeError, match="colour"):
        mc.DDIMScheduler(colour="red")
    with pytest.raises(TypeError, match="cannot be changed"):
        scheduler.config["beta_end"] = 1.0
    for bad in ({"beta_schedule": "none"}, {"prediction_type": "noise"}, {"thresholding": True}):
        with pytest.raises((ValueError, NotImplementedError)):
            mc.DDIMScheduler(**{"clip_sample": False, **bad})


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "ddim": mc.DDIMScheduler.from_config,
    "euler": mc.EulerDiscreteScheduler.from_config,
    "euler, leading": lambda config: mc.EulerDiscreteScheduler.from_config(config, timestep_spacing="leading"),
    "euler, karras": lambda config: mc.EulerDiscreteScheduler.from_config(config, use_karras_sigmas=True),
    "dpm-solver": mc.DPMSolverMultistepScheduler.from_config,
    "dpm-solver, first order": lambda config: mc.DPMSolverMultistepScheduler.from_config(config, solver_order=1),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_pieces_make_the_prediction(name: str) -> None:
    pipe = mc.load(mc.default_checkpoint(), num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = SCHEDULERS[name](pipe.scheduler.config)
    latents = mc.Generator(1).randn((1, 4, 12, 16))
    expected = pipe(IMAGE, 3, latents=latents, match_input_resolution=False).prediction
    x, padding, original = pipe.image_processor.preprocess(IMAGE, 128)
    assert (padding, original) == ((0, 0), (48, 64))
    scale = pipe.vae.config.scaling_factor
    image_latent = pipe.vae.encode(x) * np.float32(scale)
    pipe.scheduler.set_timesteps(3)
    for t in pipe.scheduler.timesteps:
        model = pipe.unet(np.concatenate([image_latent, latents], 1), t, pipe.empty_text_embedding)
        latents = pipe.scheduler.step(model, t, latents).prev_sample
    depth = np.clip(pipe.vae.decode(latents / np.float32(scale)).mean(1), -1, 1) / 2 + 0.5
    assert np.abs(depth[..., None] - expected).max() < 1e-5


@pytest.mark.parametrize("name", SCHEDULERS)
def test_batches_do_not_change_a_bit_with_any_scheduler(name: str) -> None:
    pipe = mc.load(mc.default_checkpoint(), num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = SCHEDULERS[name](pipe.scheduler.config)
    expected = pipe(IMAGE, 4, ensemble_size=3, generator=1, batch_size=3).prediction
    for batch_size in (1, 2):
        assert np.array_equal(pipe(IMAGE, 4, ensemble_size=3, generator=1, batch_size=batch_size).prediction, expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda pipe: pipe.vae.encode(np.zeros((1, 3, 12, 16))),
        lambda pipe: pipe.vae.encode(np.zeros((1, 4, 16, 16))),
        lambda pipe: pipe.vae.encode(np.zeros((3, 16, 16))),
        lambda pipe: pipe.vae.encode(np.zeros((0, 3, 16, 16))),
        lambda pipe: pipe.vae.encode("x"),
        lambda pipe: pipe.vae.decode(np.zeros((1, 3, 4, 4))),
        lambda pipe: pipe.vae.decode(np.zeros((1, 4, 0, 4))),
        lambda pipe: pipe.unet(np.zeros((1, 7, 4, 4)), 1, pipe.empty_text_embedding),
        lambda pipe: pipe.unet(np.zeros((8, 4, 4)), 1, pipe.empty_text_embedding),
        lambda pipe: pipe.unet(np.zeros((2, 8, 4, 4)), [1, 2, 3], pipe.empty_text_embedding),
        lambda pipe: pipe.unet(np.zeros((1, 8, 4, 4)), 1, np.zeros((1, 2, 65))),
        lambda pipe: pipe.unet(np.zeros((1, 8, 4, 4)), 1, np.zeros((2, 2, 64))),
        lambda pipe: pipe.unet(np.zeros((1, 8, 4, 4)), 1, np.zeros((1, 0, 64))),
        lambda pipe: mc.resize(np.zeros((2, 2)), (3, 3)),
        lambda pipe: mc.resize(np.zeros((1, 1, 2, 2)), (0, 3)),
        lambda pipe: mc.resize(np.zeros((1, 1, 2, 2)), (3, 3), "cubic"),
        lambda pipe: mc.resize(np.zeros((1, 1, 2, 2)), (3, 3), "area", True),
        lambda pipe: pipe.image_processor.visualize_depth(None),
        lambda pipe: pipe.image_processor.visualize_depth(np.zeros((2, 2)), val_min=1),
        lambda pipe: pipe.image_processor.visualize_depth(np.zeros((2, 2)), color_map="no such map"),
        lambda pipe: pipe.image_processor.visualize_depth(np.zeros((2, 2), np.uint8)),
    ],
)
def test_pieces_check_shapes(pipe: mc.MarigoldDepthPipeline, call: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError):
        call(pipe)


def test_engine_checks_what_python_did_not(pipe: mc.MarigoldDepthPipeline) -> None:
    run = pipe._engine.run
    for bad in (
        {"image": IMAGE},
        {"image": IMAGE[None].astype(np.float64)},
        {"image": IMAGE[None], "latents": np.zeros((1, 4, 3, 3), np.float32)},
        {"image": IMAGE[None], "generators": ["seed"]},
        {"image": IMAGE[None], "generators": []},
        {"image": IMAGE[None], "num_inference_steps": -1},
        {"image": IMAGE[None], "processing_resolution": 2**62},
        {"image": np.zeros((1, 8, 8, 2), np.uint8)},
    ):
        with pytest.raises((ValueError, MemoryError)):
            run(**bad)
    with pytest.raises(TypeError):
        run(IMAGE[None], scheduler="DDIM")  # type: ignore[arg-type]


def test_memory_stats(pipe: mc.MarigoldDepthPipeline) -> None:
    pipe(IMAGE)
    stats = pipe.memory_stats()
    assert stats["weights"] == stats["weights_mapped"] + stats["weights_packed"] > 0
    assert stats["activations"] > 0
    assert stats["peak"] >= stats["activations"]


def test_progress_bar(pipe: mc.MarigoldDepthPipeline, capsys: pytest.CaptureFixture[str]) -> None:
    pipe(IMAGE, 3)
    assert capsys.readouterr().err == ""
    pipe.set_progress_bar_config(desc="depth of it")
    try:
        pipe([IMAGE, IMAGE], 3)
        text = capsys.readouterr().err
        assert "depth of it: 100%" in text
        assert "6/6" in text
    finally:
        pipe.set_progress_bar_config(disable=True)

"""The pipeline against diffusers' MarigoldDepthPipeline, live, on the small trained checkpoint, from the same latents.

Both compute in float32; what remains is the order of the sums. One step may differ by 1e-4, four by 5e-4.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marigold_c as mc

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

TOLERANCE = {1: 1e-4, 4: 5e-4}
SIZES = [(96, 128), (128, 96), (101, 67), (37, 143), (8, 8), (250, 171), (9, 130)]
METHODS = ["nearest", "nearest-exact", "bilinear", "bicubic", "area"]


@pytest.fixture(scope="module")
def theirs() -> Iterator[Any]:
    torch.set_num_threads(1)
    pipe = diffusers.MarigoldDepthPipeline.from_pretrained(
        mc.default_checkpoint(), variant="fp16", torch_dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    yield pipe


@pytest.fixture(scope="module")
def ours() -> mc.MarigoldDepthPipeline:
    pipe = mc.MarigoldDepthPipeline.from_pretrained(mc.default_checkpoint(), num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth scene with edges and noise, uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    planes = [
        np.sin(x / (5 + 3 * c) + seed) + np.cos(y / (9 - 2 * c)) + 2.0 * (x > width / 2) * (y > height / 3)
        for c in range(channels)
    ]
    image = np.stack(planes, -1) + 0.2 * random.standard_normal((height, width, channels))
    image = (image - image.min()) / max(float(np.ptp(image)), 1e-6)
    return np.asarray(image * 255, dtype=np.uint8)


def latents_for(ours: mc.MarigoldDepthPipeline, images: int, size: tuple[int, int], resolution: int) -> np.ndarray:
    *_, padded_h, padded_w = mc._C.geometry(*size, resolution, ours.vae_scale_factor)
    scale = ours.vae_scale_factor
    return (
        np.random.default_rng(7).standard_normal((images, 4, padded_h // scale, padded_w // scale)).astype(np.float32)
    )


def compare(
    ours: mc.MarigoldDepthPipeline,
    theirs: Any,
    image: Any,
    images: int,
    size: tuple[int, int],
    steps: int = 1,
    resolution: int = 128,
    **options: Any,
) -> None:
    latents = latents_for(ours, images, size, resolution)
    common = {"num_inference_steps": steps, "processing_resolution": resolution, "output_latent": True, **options}
    got = ours(image, latents=latents, **common)
    # diffusers reads the size of an (H, W, C) array from its last two axes and then refuses right latents,
    # so arrays are given to it as tensors, whose axes it reads rightly.
    wanted = theirs(for_diffusers(image), latents=torch.from_numpy(latents), **common)
    assert got.prediction.shape == wanted.prediction.shape
    assert got.prediction.dtype == np.float32
    assert np.abs(got.prediction - wanted.prediction).max() <= TOLERANCE[steps]
    spread = float(wanted.latent.square().mean().sqrt())
    assert np.abs(got.latent - wanted.latent.numpy()).max() <= 10 * TOLERANCE[steps] * spread


def for_diffusers(image: Any) -> Any:
    if isinstance(image, list):
        return [for_diffusers(one) for one in image]
    if not isinstance(image, np.ndarray):
        return image
    array = image if image.ndim == 4 else image[None] if image.ndim == 3 else image[None, :, :, None]
    if array.dtype.kind == "u":
        array = array.astype(np.float32) / np.iinfo(array.dtype).max
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.float32).transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("size", SIZES)
def test_sizes(ours: Any, theirs: Any, size: tuple[int, int], steps: int) -> None:
    compare(ours, theirs, photo(*size), 1, size, steps)


@pytest.mark.parametrize("steps", [1, 4])
def test_one_pixel(ours: Any, steps: int) -> None:
    """An image without any variance, where norms magnify rounding: diffusers' float32 is off by up to 1e-4 there."""
    exact = diffusers.MarigoldDepthPipeline.from_pretrained(
        mc.default_checkpoint(), variant="fp16", torch_dtype=torch.float32
    )
    for part in (exact.unet, exact.vae, exact.text_encoder):
        part.to(torch.float64)
    exact.set_progress_bar_config(disable=True)
    image, noise = photo(1, 1), latents_for(ours, 1, (1, 1), 128)
    common = {"num_inference_steps": steps, "processing_resolution": 128}
    wanted = exact(for_diffusers(image).double(), latents=torch.from_numpy(noise).double(), **common)
    got = ours(image, latents=noise, **common)
    assert got.prediction.shape == wanted.prediction.shape == (1, 1, 1, 1)
    assert np.abs(got.prediction - wanted.prediction).max() <= TOLERANCE[steps]


@pytest.mark.parametrize("method_output", METHODS)
@pytest.mark.parametrize("method_input", METHODS)
@pytest.mark.parametrize("size", [(201, 143), (50, 71)])
def test_resample_methods(ours: Any, theirs: Any, size: tuple[int, int], method_input: str, method_output: str) -> None:
    compare(
        ours, theirs, photo(*size), 1, size, resample_method_input=method_input, resample_method_output=method_output
    )


@pytest.mark.parametrize(
    "kind", ["grey", "grey plane", "uint16", "grey uint16", "float32", "float64", "float16", "uint32"]
)
def test_pixel_types(ours: Any, theirs: Any, kind: str) -> None:
    image: np.ndarray = photo(90, 122, 1 if "grey" in kind else 3)
    if "plane" in kind:
        image = image[:, :, 0]
    elif "uint16" in kind:
        image = image.astype(np.uint16) * 257 - 100 * (image > 0)
        image = image.astype(np.uint16)
    elif kind == "uint32":
        image = image.astype(np.uint32) * (2**32 // 256)
    elif "float" in kind:
        image = (image / 255).astype(kind)
    compare(ours, theirs, image, 1, (90, 122))


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_pil(ours: Any, theirs: Any, mode: str) -> None:
    grey = photo(77, 120, 1)[:, :, 0]
    image = {
        "RGB": Image.fromarray(photo(77, 120)),
        "L": Image.fromarray(grey),
        "I;16": Image.fromarray(grey.astype(np.uint16) * 200),
    }[mode]
    assert image.mode == mode
    compare(ours, theirs, image, 1, (77, 120))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("steps", [1, 4])
def test_batches(ours: Any, theirs: Any, batch_size: int, steps: int) -> None:
    images = np.stack([photo(61, 99, seed=i) for i in range(3)])
    compare(ours, theirs, images, 3, (61, 99), steps, batch_size=batch_size)
    compare(ours, theirs, [Image.fromarray(one) for one in images], 3, (61, 99), steps, batch_size=batch_size)


def test_a_list_of_several_types(ours: Any, theirs: Any) -> None:
    images = [photo(61, 99), photo(61, 99, 1)[:, :, 0], (photo(61, 99, seed=3) / 255).astype(np.float32)]
    compare(ours, theirs, images, 3, (61, 99))


@pytest.mark.parametrize("size", [(101, 67), (200, 300)])
@pytest.mark.parametrize("resolution", [0, 64, 128, 192])
@pytest.mark.parametrize("match", [True, False])
def test_resolutions(ours: Any, theirs: Any, size: tuple[int, int], resolution: int, match: bool) -> None:
    compare(ours, theirs, photo(*size), 1, size, resolution=resolution, match_input_resolution=match)


@pytest.mark.parametrize("steps", [1, 4])
def test_the_same_seed(ours: Any, theirs: Any, steps: int) -> None:
    image = Image.fromarray(photo(75, 110))
    got = ours(image, steps, generator=mc.Generator(2024))
    wanted = theirs(image, steps, generator=torch.Generator().manual_seed(2024))
    assert np.abs(got.prediction - wanted.prediction).max() <= 2 * TOLERANCE[steps]
    assert np.array_equal(got.prediction, ours(image, steps, generator=2024).prediction)


def test_the_same_seed_for_batches(ours: Any, theirs: Any) -> None:
    images = [Image.fromarray(photo(75, 110, seed=i)) for i in range(3)]
    got = ours(images, 1, generator=5, batch_size=2)
    wanted = theirs(images, 1, generator=torch.Generator().manual_seed(5), batch_size=2)
    assert np.abs(got.prediction - wanted.prediction).max() <= 2e-4
    got = ours(images, 1, generator=[1, 2, 3], batch_size=2)
    wanted = theirs(images, 1, generator=[torch.Generator().manual_seed(i) for i in (1, 2, 3)], batch_size=2)
    assert np.abs(got.prediction - wanted.prediction).max() <= 2e-4


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_another_ddim_scheduler(ours: Any, theirs: Any, spacing: str, steps: int) -> None:
    before = ours.scheduler, theirs.scheduler
    try:
        ours.scheduler = mc.DDIMScheduler.from_config(ours.scheduler.config, timestep_spacing=spacing)
        theirs.scheduler = diffusers.DDIMScheduler.from_config(theirs.scheduler.config, timestep_spacing=spacing)
        compare(ours, theirs, photo(64, 100), 1, (64, 100), steps)
        assert np.array_equal(ours.scheduler.timesteps, theirs.scheduler.timesteps.numpy())
    finally:
        ours.scheduler, theirs.scheduler = before


@pytest.mark.parametrize("steps", [1, 4])
def test_lcm_scheduler(ours: Any, theirs: Any, steps: int) -> None:
    before = ours.scheduler, theirs.scheduler
    try:
        ours.scheduler = mc.LCMScheduler.from_config(ours.scheduler.config)
        theirs.scheduler = diffusers.LCMScheduler.from_config(theirs.scheduler.config)
        image = Image.fromarray(photo(64, 100))
        got = ours(image, steps, generator=3)
        wanted = theirs(image, steps, generator=torch.Generator().manual_seed(3))
        assert np.array_equal(ours.scheduler.timesteps, theirs.scheduler.timesteps.numpy())
        assert np.abs(got.prediction - wanted.prediction).max() <= 2 * TOLERANCE[steps]
    finally:
        ours.scheduler, theirs.scheduler = before


@pytest.mark.parametrize(("name", "eta"), [("DDIMScheduler", 0.0), ("DDIMScheduler", 0.7), ("LCMScheduler", 0.0)])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_scheduler_steps(name: str, eta: float, prediction: str) -> None:
    options = {"prediction_type": prediction, "clip_sample": False, "timestep_spacing": "trailing"}
    one, other = getattr(mc, name)(**options), getattr(diffusers, name)(**options)
    one.set_timesteps(5)
    other.set_timesteps(5)
    assert np.array_equal(one.timesteps, other.timesteps.numpy())
    extra = {"eta": eta} if name == "DDIMScheduler" else {}
    random = np.random.default_rng(0)
    a = random.standard_normal((2, 4, 8, 9)).astype(np.float32)
    b = torch.from_numpy(a.copy())
    generators = mc.Generator(1), torch.Generator().manual_seed(1)
    for t in other.timesteps:
        model = random.standard_normal(a.shape).astype(np.float32)
        out = one.step(model, int(t), a, generator=generators[0], **extra)
        reference = other.step(torch.from_numpy(model), t, b, generator=generators[1], **extra)
        a, b = out.prev_sample, reference.prev_sample
        scale = float(b.abs().max())
        assert np.abs(a - b.numpy()).max() <= 1e-5 * scale
        clean = reference.pred_original_sample if name == "DDIMScheduler" else reference.denoised
        assert np.abs(out.pred_original_sample - clean.numpy()).max() <= 1e-5 * float(clean.abs().max())


def test_configurations(ours: Any, theirs: Any) -> None:
    for mine, other in ((ours.scheduler.config, theirs.scheduler.config),):
        for key, value in mine.items():
            if not key.startswith("_"):
                assert other[key] == value, key
    lcm = mc.LCMScheduler.from_config(ours.scheduler.config).config
    reference = diffusers.LCMScheduler.from_config(theirs.scheduler.config).config
    assert all(reference[key] == value for key, value in lcm.items() if not key.startswith("_"))
    assert ours.vae.config.scaling_factor == theirs.vae.config.scaling_factor


def relative(got: np.ndarray, wanted: Any) -> float:
    reference = wanted.numpy()
    return float(np.abs(got - reference).max() / np.sqrt(np.square(reference).mean()))


def test_pieces(ours: Any, theirs: Any) -> None:
    with torch.no_grad():
        check_pieces(ours, theirs)


def check_pieces(ours: Any, theirs: Any) -> None:
    random = np.random.default_rng(0)
    x = np.tanh(random.standard_normal((2, 3, 40, 56))).astype(np.float32)
    assert relative(ours.vae.encode(x), theirs.vae.encode(torch.from_numpy(x)).latent_dist.mode()) <= 1e-4
    z = random.standard_normal((2, 4, 5, 7)).astype(np.float32)
    assert relative(ours.vae.decode(z), theirs.vae.decode(torch.from_numpy(z)).sample) <= 1e-4
    sample = random.standard_normal((2, 8, 12, 9)).astype(np.float32)
    text = random.standard_normal((2, 5, 64)).astype(np.float32)
    tensors = torch.from_numpy(sample), torch.from_numpy(text)
    wanted = theirs.unet(tensors[0], torch.tensor([10, 700]), encoder_hidden_states=tensors[1]).sample
    assert relative(ours.unet(sample, [10, 700], text), wanted) <= 1e-4
    wanted = theirs.unet(tensors[0], 321, encoder_hidden_states=tensors[1][:1].repeat(2, 1, 1)).sample
    assert relative(ours.unet(sample, 321, text[:1]), wanted) <= 1e-4
    theirs.empty_text_embedding = None
    theirs(Image.fromarray(photo(8, 8)), 1)
    assert relative(ours.empty_text_embedding, theirs.empty_text_embedding) <= 1e-5


def test_output_types(ours: Any, theirs: Any) -> None:
    image = Image.fromarray(photo(60, 80))
    got, wanted = ours(image, generator=1, output_type="pt"), theirs(image, output_type="pt")
    assert torch.is_tensor(got.prediction)
    assert got.prediction.shape == wanted.prediction.shape
    assert len(ours(image, return_dict=False)) == len(theirs(image, return_dict=False)) == 3
    tensor = torch.from_numpy(photo(60, 80)).permute(2, 0, 1)
    assert np.array_equal(ours(tensor, generator=1).prediction, ours(image, generator=1).prediction)


@pytest.mark.parametrize("color_map", ["Spectral", "binary", "Spectral_r", "binary_r"])
def test_visualize_depth(ours: Any, theirs: Any, color_map: str) -> None:
    depth = np.random.default_rng(0).random((2, 30, 41, 1), dtype=np.float32)
    depth[0, 0, :3, 0] = 0, 1, 0.5
    for value, options in ((depth, {}), (depth, {"val_min": 0.2, "val_max": 0.7}), ([depth[0, :, :, 0]], {})):
        got = ours.image_processor.visualize_depth(value, color_map=color_map, **options)
        wanted = theirs.image_processor.visualize_depth(value, color_map=color_map, **options)
        assert len(got) == len(wanted)
        assert all(np.array_equal(np.array(a), np.array(b)) for a, b in zip(got, wanted, strict=True))


def test_other_views(ours: Any, theirs: Any) -> None:
    values = np.random.default_rng(0).random((2, 30, 41, 1), dtype=np.float32)
    got, wanted = (pipe.image_processor.visualize_uncertainty(values) for pipe in (ours, theirs))
    assert [one.mode for one in got] == [one.mode for one in wanted]
    assert all(np.array_equal(np.array(a), np.array(b)) for a, b in zip(got, wanted, strict=True))
    # diffusers' own export fails with Pillow 13, so its rule is stated here: truncation of depth times 65535.
    images = ours.image_processor.export_depth_to_16bit_png(values)
    assert [image.mode for image in images] == ["I;16", "I;16"]
    for image, value in zip(images, values, strict=True):
        assert np.array_equal(np.array(image), np.trunc(value[:, :, 0] * 65535).astype(np.uint16))
    got, wanted = (pipe.image_processor.visualize_depth(images) for pipe in (ours, theirs))
    assert all(np.array_equal(np.array(a), np.array(b)) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("resolution", [None, 64, 200])
def test_preprocess(ours: Any, theirs: Any, resolution: int | None) -> None:
    image = photo(75, 123)
    got, padding, original = ours.image_processor.preprocess(image, resolution)
    wanted, their_padding, their_original = theirs.image_processor.preprocess(image, resolution)
    assert np.abs(got - wanted.numpy()).max() <= 2e-5
    assert padding == their_padding
    assert original == tuple(their_original)
    tensor = np.random.default_rng(0).random((1, 2, 20, 30), dtype=np.float32)
    for mode in METHODS:
        mine = ours.image_processor.resize_antialias(tensor, (9, 14), mode, is_aa=True)
        other = theirs.image_processor.resize_antialias(torch.from_numpy(tensor), (9, 14), mode, is_aa=True)
        assert np.abs(mine - other.numpy()).max() <= 1e-5


IMAGE = np.zeros((16, 24, 3), np.uint8)
REFUSED = [
    {"num_inference_steps": 0},
    {"num_inference_steps": -1},
    {"num_inference_steps": 1001},
    {"ensemble_size": 0},
    {"output_uncertainty": True},
    {"processing_resolution": -8},
    {"processing_resolution": 100},
    {"resample_method_input": "lanczos"},
    {"resample_method_output": "linear"},
    {"batch_size": -1},
    {"output_type": "pil"},
    {"ensembling_kwargs": [1]},
    {"ensembling_kwargs": {"reduction": "max"}},
    {"image": np.zeros((4,), np.uint8)},
    {"image": np.zeros((1, 1, 1, 1, 1), np.uint8)},
    {"image": {"path": "photo.jpg"}},
    {"image": IMAGE.astype(np.int32)},
    {"image": IMAGE.astype(bool)},
    {"image": IMAGE.astype(np.complex64)},
    {"image": np.zeros((16, 24, 4), np.uint8)},
    {"image": np.full((16, 24, 3), 1.01, np.float32)},
    {"image": np.full((16, 24, 3), -0.01, np.float32)},
    {"image": Image.new("RGB", (1, 10000))},
]


@pytest.mark.parametrize("options", REFUSED, ids=lambda options: "-".join(options))
def test_both_refuse(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    arguments = {"image": IMAGE, **options}
    with pytest.raises(ValueError):
        theirs(**arguments)
    with pytest.raises(ValueError):
        ours(**arguments)


def test_both_refuse_latents_and_generators(ours: Any, theirs: Any) -> None:
    right = np.zeros((1, 4, 11, 16), np.float32)
    image = Image.fromarray(IMAGE)
    for shape in ((1, 4, 11), (1, 4, 16, 11), (2, 4, 11, 16), (1, 8, 11, 16)):
        with pytest.raises(ValueError):
            theirs(image, latents=torch.zeros(shape))
        with pytest.raises(ValueError):
            ours(image, latents=np.zeros(shape, np.float32))
    with pytest.raises(ValueError):
        theirs(image, latents=torch.from_numpy(right), generator=torch.Generator())
    with pytest.raises(ValueError):
        ours(image, latents=right, generator=1)
    with pytest.raises(ValueError):
        theirs(image, generator=[torch.Generator(), torch.Generator()])
    with pytest.raises(ValueError):
        ours(image, generator=[1, 2])
    with pytest.raises(ValueError):
        theirs(image, generator="seed")
    with pytest.raises(ValueError):
        ours(image, generator="seed")

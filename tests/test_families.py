"""Checkpoints of other families than Marigold's, opened, packed, saved and refused. What they predict is compared with
references in tests/oracle/test_families.py."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import family_checkpoints as families
import numpy as np
import pytest
from hub_bench import Bench, files_of
from safetensors_files import write

import marigold_c as mc
from marigold_c.commands.cli import main
from marigold_c.loading import families as table
from marigold_c.loading.inspection import inspect_checkpoint

pytest_plugins = ("hub_bench",)
pytestmark = pytest.mark.filterwarnings("ignore:checkpoints of genpercept")

DTYPES = {"float32": 0.0, "bfloat16": 0.05, "int8": 0.08}  # mean difference from float32
OPTIONS: dict[str, Any] = {"processing_resolution": 64, "generator": 5}
Made = Callable[[str], tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return cache(lambda name: families.make(name, tmp_path_factory.mktemp("families")))


def load(path: Path, **options: Any) -> Any:
    pipe = mc.load(path, num_threads=1, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def predict(pipe: Any, **options: Any) -> Any:
    return pipe(families.IMAGE, **{**OPTIONS, **options}).prediction


@pytest.mark.parametrize("name", families.LAYOUTS)
def test_published_names(made: Made, name: str) -> None:
    layout, (path, needed) = families.LAYOUTS[name], made(name)
    pipe = load(path, **needed)
    assert (pipe.family, pipe.task) == (layout.family, layout.task)
    assert pipe.default_denoising_steps == 1
    disparity = "disparity" in layout.name or layout.family == "rollingdepth"
    assert (pipe.prediction_type == "disparity") == disparity
    prediction = predict(pipe)
    assert prediction.shape == (1, *families.IMAGE.shape[:2], 1 if layout.task == "depth" else 3)
    if layout.task == "normals":
        assert np.allclose(np.linalg.norm(prediction, axis=-1), 1, atol=1e-5)
    assert -1 <= prediction.min() < prediction.max() <= 1
    assert np.array_equal(predict(pipe, generator=6), prediction) == (layout.family not in ("lotus-g", "rollingdepth"))


def test_published_names_say_what_is_near() -> None:
    for name, known in table.PUBLISHED.items():
        assert (known.prediction_type == "disparity") == ("disparity" in name), name
        assert (known.task == "normals") == ("normal" in name), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["e2e-ft, Stable Diffusion", "lotus-d", "lotus-g", "genpercept", "rollingdepth"])
def test_packed(made: Made, tmp_path: Path, name: str, dtype: str) -> None:
    path, needed = made(name)
    exact, pipe = predict(load(path, **needed)), load(path, dtype=dtype, **needed)
    expected = predict(pipe)
    assert np.abs(expected - exact).mean() <= DTYPES[dtype]
    target = mc.convert(path, tmp_path / "any.safetensors", dtype=dtype, num_threads=1, **needed)
    packed = load(target)
    assert (packed.family, packed.task, packed.dtype) == (pipe.family, pipe.task, dtype)
    assert packed.prediction_type == pipe.prediction_type
    assert np.array_equal(predict(packed), expected)
    again = mc.convert(target, tmp_path / "again.safetensors", num_threads=1)
    assert again.read_bytes() == target.read_bytes()
    assert inspect_checkpoint(target)["family"] == families.LAYOUTS[name].family


def test_a_class_of_the_folders_own_is_known_by_its_name(made: Made, tmp_path: Path) -> None:
    """As diffusers writes a pipeline whose code lies in the folder: [module, class]."""
    path, _ = made("rollingdepth")
    folder = shutil.copytree(path, tmp_path / "any")
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": ["pipeline", "RollingDepthPipeline"]}))
    pipe = load(folder)
    assert (pipe.family, pipe.prediction_type) == ("rollingdepth", "disparity")
    assert np.array_equal(predict(pipe), predict(load(path)))


def test_packed_files_of_marigold_say_nothing_new(tmp_path: Path) -> None:
    from marigold_c.loading.packed import packed_texts

    texts = packed_texts(mc.convert(mc.default_checkpoint(), tmp_path / "depth.safetensors", num_threads=1))
    assert not {"family", "task", "prediction_type", "text_tokens"} & texts.keys()


def test_padded_prompts_are_packed(made: Made, tmp_path: Path) -> None:
    path, _ = made("e2e-ft, Stable Diffusion")
    pipe = load(path, text_tokens=77)
    assert pipe.empty_text_embedding.shape[1] == 77
    packed = mc.convert(path, tmp_path / "padded.safetensors", text_tokens=77, num_threads=1)
    assert np.array_equal(predict(load(packed)), predict(pipe))
    assert np.abs(predict(load(path)) - predict(pipe)).max() > 1e-3
    with pytest.raises(ValueError, match=r"text_tokens is 2: .* was packed with 77"):
        load(packed, text_tokens=2)
    with pytest.raises(ValueError, match=r"text_tokens is 78; .* 2 to 77"):
        load(path, text_tokens=78)


@pytest.mark.parametrize("name", ["e2e-ft, normals", "lotus-d", "genpercept"])
def test_saved_folders(made: Made, tmp_path: Path, name: str) -> None:
    path, needed = made(name)
    pipe = load(path, **needed)
    pipe.save_pretrained(tmp_path / "saved")
    saved = load(tmp_path / "saved")
    assert (saved.family, saved.task, saved.prediction_type) == (pipe.family, pipe.task, pipe.prediction_type)
    assert np.array_equal(predict(saved), predict(pipe))


@pytest.mark.parametrize("name", ["e2e-ft, normals", "lotus-g", "genpercept", "rollingdepth"])
def test_saved_packed_files(made: Made, tmp_path: Path, name: str) -> None:
    path, needed = made(name)
    packed = load(mc.convert(path, tmp_path / "any.safetensors", num_threads=1, **needed))
    packed.save_pretrained(tmp_path / "saved", text_encoder=path)
    saved = load(tmp_path / "saved")
    assert (saved.family, saved.task, saved.prediction_type) == (packed.family, packed.task, packed.prediction_type)
    assert np.array_equal(predict(saved), predict(packed))


def test_e2e_ft_is_marigold_from_zeros_and_stretched(made: Made) -> None:
    path, _ = made("e2e-ft, Marigold")
    plain = load(path, family="marigold")
    options = {"generator": None, "match_input_resolution": False}
    from_zeros = predict(plain, latents="zeros", num_inference_steps=1, **options)
    wanted = (from_zeros - from_zeros.min()) / np.ptp(from_zeros)
    assert np.abs(predict(load(path), **options) - wanted).max() <= 1e-6
    assert np.array_equal(predict(load(path), latents="zeros", **options), predict(load(path), **options))


def test_a_constant_map_is_stretched_to_zero(made: Made, tmp_path: Path) -> None:
    path, _ = made("e2e-ft, Marigold")
    folder = shutil.copytree(path, tmp_path / path.name)
    shapes = mc._C.declared_weights("vae", (folder / "vae" / "config.json").read_text(), "vae")
    write(
        folder / "vae" / "diffusion_pytorch_model.safetensors",
        {name: ("F32", np.zeros(shape, np.float32)) for name, shape in shapes.items()},
    )
    assert not predict(load(folder)).any()


def test_results_of_lotus_are_resized_to_the_nearest(made: Made) -> None:
    pipe = load(made("lotus-d")[0])
    assert np.array_equal(predict(pipe), predict(pipe, resample_method_output="nearest-exact"))
    assert not np.array_equal(predict(pipe), predict(pipe, resample_method_output="bilinear"))


def test_ensembles_of_lotus(made: Made) -> None:
    pipe = load(made("lotus-g")[0])
    out = pipe(families.IMAGE, ensemble_size=3, output_uncertainty=True, **OPTIONS)
    assert out.uncertainty.max() > 0
    assert np.array_equal(
        out.prediction,
        pipe(families.IMAGE, ensemble_size=3, output_uncertainty=True, batch_size=3, **OPTIONS).prediction,
    )


# ---- from the hub ----
@pytest.mark.parametrize("name", ["e2e-ft, Stable Diffusion", "lotus-d", "lotus-g", "genpercept", "rollingdepth"])
def test_from_the_hub(bench: Bench, made: Made, name: str) -> None:
    path, needed = made(name)
    options: dict[str, Any] = {"path_or_id": f"somebody/{path.name}", "cache_dir": str(bench.cache)}
    bench.hub.add(options["path_or_id"], files_of(path))
    if needed:
        unet = needed["unet"]
        bench.hub.add("somebody/models", {f"{unet.name}/{key}": data for key, data in files_of(unet).items()})
        options["unet"] = f"somebody/models/{unet.name}"
    values = bench.worker.call("load_and_predict", image=families.IMAGE.tolist(), run=OPTIONS, **options)
    assert np.array_equal(np.array(values, np.float32), predict(load(path, **needed)).ravel())
    asked = {one.path for one in bench.hub.take_requests()}
    assert not any("safety_checker" in one or "feature_extractor" in one for one in asked)


def test_published_names_in_the_hubs_cache(tmp_path: Path) -> None:
    cached = tmp_path / "models--jingheya--lotus-normal-d-v1-1" / "snapshots" / "0123"
    found = table.published(cached)
    assert found is not None and (found.family, found.task) == ("lotus-d", "normals")
    assert table.published(tmp_path / "my-lotus") is None


# ---- what is refused ----
def renamed(path: Path, folder: Path, **changes: Any) -> Path:
    """The checkpoint under a name that tells nothing. changes: of unet/config.json."""
    copy = shutil.copytree(path, folder / "mine")
    config = copy / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    return copy


def test_a_task_must_be_said(made: Made, tmp_path: Path) -> None:
    mine = renamed(made("lotus-d")[0], tmp_path)
    with pytest.raises(
        ValueError, match=r"'DirectRegressionPipeline' does not say what is predicted; give task='depth'"
    ):
        mc.load(mine)
    with pytest.raises(ValueError, match="does not say what is predicted"):
        mc.convert(mine, tmp_path / "out.safetensors")
    assert load(mine, task="depth").family == "lotus-d"
    assert mc.MarigoldNormalsPipeline.from_pretrained(mine, num_threads=1).family == "lotus-d"
    assert load(mine, task="depth", prediction_type="disparity").prediction_type == "disparity"


def test_one_step_and_no_latents(made: Made) -> None:
    pipe = load(made("lotus-d")[0])
    with pytest.raises(ValueError, match="num_inference_steps is 2; family lotus-d predicts in one"):
        predict(pipe, num_inference_steps=2)
    with pytest.raises(ValueError, match="latents are given, and family lotus-d predicts from the image alone"):
        predict(pipe, latents="zeros", generator=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "lotus"}, "family='lotus': choose from marigold, e2e-ft"),
        ({"prediction_type": "metres"}, "prediction_type='metres': choose from depth, disparity"),
        ({"text_tokens": 0}, "text_tokens=0"),
    ],
)
def test_unknown_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mc.load(mc.default_checkpoint(), **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_embed_type": None}, "a class embedding of 0 inputs, of which family lotus-d has 4"),
        ({"class_embed_type": "timestep"}, '"class_embed_type" is "timestep", which is not supported'),
        ({"class_embeddings_concat": True}, '"class_embeddings_concat" is true, which is not supported'),
        ({"in_channels": 12}, "in_channels 12 and out_channels 4 do not fit"),
    ],
)
def test_unets_that_are_not_lotus(made: Made, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    mine = renamed(made("lotus-d")[0], tmp_path, **changes)
    with pytest.raises(NotImplementedError, match=message):
        mc.load(mine, task="depth", family="lotus-d")


def test_text_to_image_is_no_family(made: Made) -> None:
    base, _ = made("genpercept")
    (config := base / "unet" / "config.json").write_text(
        json.dumps({**json.loads(config.read_text()), "in_channels": 4})
    )
    with pytest.raises(NotImplementedError, match=r"'StableDiffusionPipeline' is not supported, or not with this UNet"):
        mc.load(base)
    with pytest.raises(NotImplementedError, match="is no family of Marigold's relatives"):
        mc.MarigoldDepthPipeline.from_pretrained(base)


def test_genpercept_with_a_dpt_head(made: Made, tmp_path: Path) -> None:
    base, needed = made("genpercept")
    unet = shutil.copytree(needed["unet"], tmp_path / "unet_depth_v2")
    config = (unet / "config.json").read_text()
    shapes = mc._C.declared_weights("unet", config, "unet")
    kept = {name: shape for name, shape in shapes.items() if not name.startswith("conv_out")}
    weights = {name: ("F32", np.zeros(shape, np.float32)) for name, shape in kept.items()}
    write(unet / "diffusion_pytorch_model.safetensors", weights)
    with pytest.raises(NotImplementedError, match="has no conv_out: GenPercept with a DPT head is not supported"):
        mc.load(base, unet=unet)
    with pytest.raises(FileNotFoundError, match=r"is no folder of a UNet: it has no config\.json"):
        mc.load(base, unet=tmp_path)


def test_the_licence_is_said_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_warned", set())
    path, needed = made("genpercept")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            load(path, **needed)
        load(made("lotus-d")[0])
    (said,) = (str(one.message) for one in caught)
    assert "genpercept" in said and "non-commercial" in said


# ---- the command ----
def test_the_command(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.fromarray(families.IMAGE).save(tmp_path / "photo.png")
    mine = renamed(made("lotus-d")[0], tmp_path)
    common = [str(tmp_path / "photo.png"), "-o", str(tmp_path / "out"), "--processing-res", "64", "--threads", "1"]
    assert main(["depth", *common, "--checkpoint", str(mine), "--format", "npy", "--quiet"]) == 0
    found = np.load(tmp_path / "out" / "depth_npy" / "photo_depth.npy")
    assert np.array_equal(found, predict(load(mine, task="depth"), generator=None)[0, :, :, 0])
    packed = str(tmp_path / "packed.safetensors")
    kind = ["--task", "depth", "--prediction-type", "disparity"]
    assert main(["convert", str(mine), packed, *kind, "--threads", "1"]) == 0
    assert main(["info", packed]) == 0
    assert "family       lotus-d" in capsys.readouterr().out
    assert mc.load(packed, num_threads=1).prediction_type == "disparity"
    assert main(["depth", *common, "--checkpoint", str(mine), "--family", "e2e-ft"]) == 1
    assert "do not fit" in capsys.readouterr().err

"""Marigold-HR: opened, packed, saved and refused; tiles, seeds, ensembles, precisions, the command. What it predicts is
compared with a reference of diffusers' networks in tests/oracle/test_high_resolution.py."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import hr_checkpoints as hr
import numpy as np
import pytest
from hub_bench import Bench, files_of
from PIL import Image

import marigold_c as mc
from marigold_c.commands import cli
from marigold_c.errors import CheckpointError
from marigold_c.loading.inspection import inspect_checkpoint

pytest_plugins = ("hub_bench",)

FEW: dict[str, Any] = {
    "num_inference_steps": 1,
    "ensemble_size": 1,
    "boosted_num_inference_steps": 2,
    "boosted_ensemble_size": 1,
    "processing_resolution": 64,
    "generator": 5,
}
DTYPES = {"float32": 0.0, "bfloat16": 0.05, "int8": 0.08}  # mean difference from float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hr.make(tmp_path_factory.mktemp("hr") / "marigold-depth-hr-v1-1")


def load(path: Path, **options: Any) -> mc.MarigoldDepthHRPipeline:
    pipe = mc.MarigoldDepthHRPipeline.from_pretrained(path, **{"num_threads": 1, **options})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe(folder: Path) -> mc.MarigoldDepthHRPipeline:
    return load(folder)


def predict(pipe: mc.MarigoldDepthHRPipeline, **options: Any) -> mc.MarigoldDepthHROutput:
    return pipe(hr.IMAGE, **{**FEW, "tile_size": 64, **options})


# ---- what comes out ----
def test_outputs(pipe: mc.MarigoldDepthHRPipeline) -> None:
    out = predict(pipe, output_latent=True)
    assert out.prediction.shape == (1, *hr.IMAGE.shape[:2], 1)
    assert out.base_prediction is not None and out.base_prediction.shape == out.prediction.shape
    assert out.latent is not None and out.latent.shape == (1, 4, 11, 16)  # 52 x 76 becomes 87 x 128, padded to 88
    assert 0 <= out.prediction.min() < out.prediction.max() <= 1
    large = predict(pipe, match_input_resolution=False)
    assert large.prediction.shape == (1, 87, 128, 1)
    base = mc.MarigoldDepthPipeline.from_pipe(pipe)
    base.set_progress_bar_config(disable=True)
    alone = base(hr.IMAGE, num_inference_steps=1, processing_resolution=64, match_input_resolution=False, generator=5)
    planes = mc.resize(alone.prediction.transpose(0, 3, 1, 2), hr.IMAGE.shape[:2])
    np.testing.assert_array_equal(planes.transpose(0, 2, 3, 1), out.base_prediction)


def test_one_tile_is_one_pass_of_the_network(pipe: mc.MarigoldDepthHRPipeline) -> None:
    """To the bit: the tile's share of the weights is 1. The same pass by diffusers: tests/oracle."""
    exact = predict(pipe, tile_size=128, output_latent=True).latent  # 128 x 88 pixels
    np.testing.assert_array_equal(exact, predict(pipe, tile_size=1024, output_latent=True).latent)
    assert np.abs(exact - predict(pipe, tile_size=96, output_latent=True).latent).max() > 1e-3


def test_no_seam_is_above_the_pictures_own_gradient(pipe: mc.MarigoldDepthHRPipeline) -> None:
    """Where tiles end, the latent changes no more than elsewhere; without overlap it does."""

    def steps_across(overlap: int) -> tuple[float, float]:
        latent = predict(pipe, tile_size=32, tile_overlap=overlap, output_latent=True).latent
        assert latent is not None
        differences = np.abs(np.diff(latent, axis=3)).mean(axis=(0, 1, 2))
        ends = list(range(3, 15, 4))
        return float(differences[ends].mean()), float(np.delete(differences, ends).mean())

    at_ends, elsewhere = steps_across(16)
    assert at_ends <= 1.1 * elsewhere
    cut_ends, cut_elsewhere = steps_across(0)
    assert cut_ends / cut_elsewhere > at_ends / elsewhere


def test_seed_decides(pipe: mc.MarigoldDepthHRPipeline) -> None:
    first = predict(pipe).prediction
    predict(pipe, generator=6, tile_size=96)
    np.testing.assert_array_equal(first, predict(pipe).prediction)
    assert np.abs(first - predict(pipe, generator=6).prediction).max() > 1e-3
    generator = mc.Generator(5)
    latents, canvas = generator.randn(1, 4, 6, 8), generator.randn(1, 4, 11, 16)
    given = predict(pipe, generator=None, latents=latents, boosted_latents=canvas)
    np.testing.assert_array_equal(first, given.prediction)


def test_threads_and_batches_change_nothing(folder: Path, pipe: mc.MarigoldDepthHRPipeline) -> None:
    options = {"boosted_ensemble_size": 3, "ensemble_size": 2}
    with pytest.warns(UserWarning, match="ensemble_size"):
        one = predict(pipe, **options).prediction
    with pytest.warns(UserWarning, match="ensemble_size"):
        other = predict(load(folder, num_threads=2), batch_size=2, **options).prediction
    np.testing.assert_array_equal(one, other)


def test_an_ensemble_of_refinements_is_merged(pipe: mc.MarigoldDepthHRPipeline) -> None:
    out = predict(pipe, boosted_ensemble_size=3, output_uncertainty=True, output_latent=True)
    assert out.latent is not None and out.latent.shape[0] == 3
    assert out.uncertainty is not None and out.uncertainty.shape == out.prediction.shape
    assert out.uncertainty.max() > 0


def test_several_images_of_one_size(pipe: mc.MarigoldDepthHRPipeline) -> None:
    both = np.stack([hr.IMAGE, hr.IMAGE[::-1]])
    out = pipe(both, **{**FEW, "tile_size": 64, "generator": None, "latents": "zeros", "boosted_latents": "zeros"})
    assert out.prediction.shape[0] == 2
    for image, expected in zip(both, out.prediction, strict=True):
        one = pipe(image, **{**FEW, "tile_size": 64, "generator": None, "latents": "zeros", "boosted_latents": "zeros"})
        np.testing.assert_array_equal(one.prediction[0], expected)


def test_cancel_ends_it_between_tiles(folder: Path) -> None:
    pipe = load(folder)
    calls: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        if total > 1 and done == 3:
            raise KeyboardInterrupt

    before = predict(pipe).prediction
    pipe.set_progress_callback(stop)
    with pytest.raises(KeyboardInterrupt):
        predict(pipe)
    assert calls == [(1, 1), (1, 12), (2, 12), (3, 12)]  # two rows of three tiles, two steps
    pipe.set_progress_callback(None)
    np.testing.assert_array_equal(before, predict(pipe).prediction)


# ---- opening, packing, saving ----
def test_load_finds_the_class(folder: Path, tmp_path: Path) -> None:
    assert isinstance(mc.load(folder), mc.MarigoldDepthHRPipeline)
    assert isinstance(mc.load(folder, "depth"), mc.MarigoldDepthHRPipeline)
    listed = tmp_path / "listed"
    shutil.copytree(folder, listed)
    hr.change(listed / "model_index.json", {"_class_name": ["pipeline", "MarigoldDepthHRPipeline"]})
    assert isinstance(mc.load(listed), mc.MarigoldDepthHRPipeline)


def test_base_alone_opens_from_the_same_folder(folder: Path) -> None:
    base = mc.MarigoldDepthPipeline.from_pretrained(folder, num_threads=1)
    base.set_progress_bar_config(disable=True)
    own = mc.MarigoldDepthPipeline.from_pretrained(mc.default_checkpoint("depth"), num_threads=1)
    own.set_progress_bar_config(disable=True)
    options = {"processing_resolution": 64, "generator": 1}
    np.testing.assert_array_equal(base(hr.IMAGE, **options).prediction, own(hr.IMAGE, **options).prediction)


@pytest.mark.parametrize("dtype", DTYPES)
def test_precisions_and_packed_files(
    folder: Path, pipe: mc.MarigoldDepthHRPipeline, dtype: str, tmp_path: Path
) -> None:
    exact = predict(pipe).prediction
    opened = predict(load(folder, dtype=dtype)).prediction
    assert np.abs(opened - exact).mean() <= DTYPES[dtype]
    packed = mc.convert(folder, tmp_path / "hr.safetensors", dtype=dtype)
    assert isinstance(mc.load(packed), mc.MarigoldDepthHRPipeline)
    np.testing.assert_array_equal(opened, predict(load(packed)).prediction)
    facts = inspect_checkpoint(packed)
    assert facts["boosting_unet"]["in_channels"] == 12
    assert facts["packed"]["components"]["boosting_unet"]["parameters"] > 1e5


def test_float16_is_computed_as_bfloat16(folder: Path) -> None:
    with pytest.warns(UserWarning, match="float16"):
        half = predict(load(folder, dtype="float16")).prediction
    np.testing.assert_array_equal(half, predict(load(folder, dtype="bfloat16")).prediction)


def test_the_engine_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    engine = mc._C.Pipeline
    monkeypatch.setattr(mc._C, "Pipeline", lambda *args, **options: opened.append(options) or engine(*args, **options))
    load(folder, boosting_inputs="sample,coarse,image")
    assert [one["boosting_inputs"] for one in opened] == ["sample,coarse,image"]
    with pytest.raises(ValueError, match="`boosting_inputs` is of MarigoldDepthHRPipeline"):
        mc.MarigoldDepthPipeline.from_pretrained(folder, boosting_inputs="image,coarse,sample")


def test_a_packed_file_knows_the_order_of_latents(folder: Path, tmp_path: Path) -> None:
    stated = tmp_path / "stated"
    shutil.copytree(folder, stated)
    order = "sample,coarse,image"
    asked = predict(load(folder, boosting_inputs=order)).prediction
    assert np.abs(asked - predict(load(folder)).prediction).max() > 1e-3
    hr.change(stated / "model_index.json", {"boosting_inputs": order})
    np.testing.assert_array_equal(asked, predict(load(stated)).prediction)
    np.testing.assert_array_equal(asked, predict(load(mc.convert(stated, tmp_path / "hr.safetensors"))).prediction)


def test_saved_folder_is_whole(folder: Path, pipe: mc.MarigoldDepthHRPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "model_index.json").read_text())["boosting_unet"][0] == "diffusers"
    np.testing.assert_array_equal(predict(pipe).prediction, predict(load(tmp_path / "saved")).prediction)


def test_saved_packed_file_is_whole(folder: Path, tmp_path: Path) -> None:
    """Also where the second UNet is not open, and with the order of its latents."""
    source = shutil.copytree(folder, tmp_path / "source")
    hr.change(source / "model_index.json", {"boosting_inputs": "sample,coarse,image"})
    packed = mc.convert(source, tmp_path / "hr.safetensors")
    base = mc.MarigoldDepthPipeline.from_pretrained(packed, num_threads=1)
    base.save_pretrained(tmp_path / "saved", text_encoder=source)
    np.testing.assert_array_equal(predict(load(packed)).prediction, predict(load(tmp_path / "saved")).prediction)


def test_download_is_of_what_is_opened(folder: Path, bench: Bench) -> None:
    name = "prs-eth/marigold-depth-hr-v1-1"
    bench.hub.add(name, files_of(folder))
    weights = "boosting_unet/diffusion_pytorch_model.safetensors"
    base = bench.load(name, without=["boosting_unet"])
    assert not (base / weights).exists()
    whole = bench.load(name)
    assert (whole / weights).read_bytes() == (folder / weights).read_bytes()
    assert isinstance(mc.load(whole), mc.MarigoldDepthHRPipeline)


# ---- what is refused ----
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a tile that is too small": ({"tile_size": 4}, "`tile_size` must be a multiple of 8, and 8 or more; got 4"),
    "no whole cells": ({"tile_size": 60}, "`tile_size` must be a multiple of 8, and 8 or more; got 60"),
    "overlap of a whole tile": ({"tile_overlap": 64}, "`tile_overlap` is 64; it must be less than `tile_size`, 64"),
    "a negative overlap": ({"tile_overlap": -8}, "`tile_overlap` must be a multiple of 8, and 0 or more; got -8"),
    "a factor below 1": ({"upscale_factor": 0.5}, "`upscale_factor` must be a number of 1 or more; got 0.5"),
    "a list of generators": ({"generator": [1]}, "`generator` must be one generator or seed"),
    "another canvas": (
        {"generator": None, "boosted_latents": np.zeros((1, 4, 6, 8), np.float32)},
        r"`latents` has unexpected shape=\(1, 4, 6, 8\) expected=\(1, 4, 11, 16\)",
    ),
    "tensors": ({"output_type": "pt"}, "`output_type` must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_are_refused(case: str, pipe: mc.MarigoldDepthHRPipeline) -> None:
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        predict(pipe, **options)


def test_images_of_different_sizes_are_refused(pipe: mc.MarigoldDepthHRPipeline) -> None:
    with pytest.raises(ValueError, match="images of different sizes"):
        pipe([hr.IMAGE, hr.IMAGE[:40]], **FEW)


def test_the_engine_refuses_the_same(pipe: mc.MarigoldDepthHRPipeline) -> None:
    coarse = np.zeros((1, 8, 8), np.float32)
    options: dict[str, Any] = {"num_inference_steps": 1, "processing_resolution": 64, "coarse": coarse}
    image = hr.IMAGE[None]
    for wrong, message in (
        ({"tile_size": 4}, "tile_size is 4; it must be a multiple of 8, and 8 or more"),
        ({"tile_size": 64, "tile_overlap": 64}, "tile_overlap is 64; it must be less than tile_size, 64"),
        ({"tile_overlap": -3}, "tile_overlap is -3; it must be a multiple of 8, and 0 or more"),
        ({"coarse": np.zeros((2, 8, 8), np.float32)}, r"`coarse` has shape \(2, 8, 8\) for 1 images"),
        ({"coarse": coarse[:, :0]}, r"`coarse` has shape \(1, 0, 8\); expected \(N, H, W\), none of them 0"),
        ({"coarse": coarse + 2}, "outside"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe._engine.run(image, **{**options, **wrong})
    base = mc.MarigoldDepthPipeline.from_pipe(pipe)
    with pytest.raises(ValueError, match="was opened without its boosting_unet"):
        base._engine.run(image, **options)


def test_checkpoints_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="marigold-tiny-depth: has no boosting_unet, the second UNet of Marigold-HR"
    ):
        load(mc.default_checkpoint("depth"))
    packed = mc.convert(mc.default_checkpoint("depth"), tmp_path / "base.safetensors")
    with pytest.raises(CheckpointError, match=r"base\.safetensors: has no boosting_unet"):
        load(packed)
    narrow = hr.make(tmp_path / "narrow", unet={"in_channels": 8})
    with pytest.raises(NotImplementedError, match=r"boosting_unet/config\.json: in_channels 8 .*wanted: 12 and 4"):
        load(narrow)
    with pytest.raises(ValueError, match='boosting_inputs "image,coarse"'):
        load(folder, boosting_inputs="image,coarse")
    with pytest.raises(ValueError, match='boosting_inputs "image,coarse,coarse"'):
        load(folder, boosting_inputs="image,coarse,coarse")
    lacking = tmp_path / "lacking"
    shutil.copytree(folder, lacking)
    (lacking / "boosting_unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="boosting_unet"):
        load(lacking)


# ---- the command ----
def command(folder: Path, out: Path, *flags: str) -> int:
    Image.fromarray(hr.IMAGE).save(out / "photo.png")
    few = ["--denoise-steps", "1", "--processing-res", "64", "--seed", "5", "--threads", "1", "--format", "npy"]
    checkpoint = ["--checkpoint", str(folder)]
    return cli.main(["depth", str(out / "photo.png"), "-o", str(out / "results"), "--quiet", *checkpoint, *few, *flags])


def test_command(folder: Path, pipe: mc.MarigoldDepthHRPipeline, tmp_path: Path) -> None:
    flags = (
        "--hr --ensemble-size 1 --boosted-ensemble-size 3 --boosted-denoise-steps 2 --tile-size 64 --tile-overlap 16"
    )
    assert command(folder, tmp_path, *flags.split(), "--output-uncertainty") == cli.EXIT_DONE
    written = np.load(tmp_path / "results" / "depth_npy" / "photo_depth.npy")
    expected = predict(pipe, boosted_ensemble_size=3, tile_overlap=16, output_uncertainty=True)
    np.testing.assert_array_equal(written, expected.prediction[0, :, :, 0])
    assert (tmp_path / "results" / "depth_uncertainty" / "photo_uncertainty.npy").is_file()


def test_the_commands_members_are_the_pipelines(folder: Path, tmp_path: Path) -> None:
    def call(*flags: str) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        class Stopped(BaseException):
            pass

        def run(_self: Any, image: Any, **options: Any) -> Any:
            seen.update(options)
            raise Stopped

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mc.MarigoldDepthPipeline, "__call__", run)
            patch.setattr(mc.MarigoldDepthHRPipeline, "__call__", run)
            with pytest.raises(Stopped):
                command(folder, tmp_path, *flags)
        return seen

    defaults = inspect.signature(mc.MarigoldDepthHRPipeline.__call__).parameters
    given = call("--hr")
    for name in ("ensemble_size", "boosted_ensemble_size", "tile_size", "upscale_factor"):
        assert given[name] == defaults[name].default
    assert call("--hr", "--ensemble-size", "3")["boosted_ensemble_size"] == 5
    assert call()["ensemble_size"] == 1


def test_command_without_the_flag_uses_the_base_alone(folder: Path, tmp_path: Path) -> None:
    assert command(folder, tmp_path) == cli.EXIT_DONE
    base = mc.MarigoldDepthPipeline.from_pretrained(folder, num_threads=1)
    base.set_progress_bar_config(disable=True)
    expected = base(hr.IMAGE, num_inference_steps=1, processing_resolution=64, generator=5).prediction
    written = np.load(tmp_path / "results" / "depth_npy" / "photo_depth.npy")
    np.testing.assert_array_equal(written, expected[0, :, :, 0])


WRONG_FLAGS = {
    "--tile-size 64": "--tile-size: for --hr",
    "--hr --tile-size 60": "--tile-size 60 must be a multiple of 8",
    "--hr --tile-size 64 --tile-overlap 64": "--tile-overlap 64 must be less than --tile-size 64",
    "--hr --sequence": "--hr and --sequence exclude each other",
    "--hr --boosted-ensemble-size 1 --output-uncertainty": "--output-uncertainty needs",
}


@pytest.mark.parametrize("flags", WRONG_FLAGS)
def test_command_refuses(flags: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, tmp_path, *flags.split()) == cli.EXIT_USAGE
    assert WRONG_FLAGS[flags] in capsys.readouterr().err


def test_command_needs_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["depth", "photo.png", "-o", str(tmp_path), "--hr"]) == cli.EXIT_USAGE
    assert "--hr needs a --checkpoint of Marigold-HR" in capsys.readouterr().err


# ---- training ----
def latents(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    names = ("image_latent", "coarse_latent", "target_latent", "noise")
    given: dict[str, Any] = {name: rng.standard_normal((2, 4, 4, 6)).astype(np.float32) for name in names}
    return {**given, "timesteps": np.array([300, 800]), **changes}


def trainer_of(folder: Path, objective: str = "refine") -> mc.Trainer:
    return mc.Trainer.from_pretrained(folder, objective=objective, learning_rate=1e-3, num_threads=1)


def test_training_moves_the_second_unet_alone(folder: Path, pipe: mc.MarigoldDepthHRPipeline, tmp_path: Path) -> None:
    trainer = trainer_of(folder)
    losses = [trainer.train_step(**latents())[0] for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]
    trained = tmp_path / "trained"
    shutil.copytree(folder, trained)
    trainer.save_pretrained(trained)
    unet = "unet/diffusion_pytorch_model.fp16.safetensors"
    assert (trained / unet).read_bytes() == (folder / unet).read_bytes()
    before, after = predict(pipe), predict(load(trained))
    np.testing.assert_array_equal(before.base_prediction, after.base_prediction)
    assert np.abs(before.prediction - after.prediction).max() > 1e-3


def test_training_refuses(folder: Path) -> None:
    with pytest.raises(ValueError, match='objective "refine" needs `coarse_latent`'):
        trainer_of(folder).forward_backward(**latents(coarse_latent=None))
    with pytest.raises(ValueError, match='`coarse_latent` is for objective "refine", not for "latent"'):
        trainer_of(folder, "latent").forward_backward(**latents())
    with pytest.raises(ValueError, match="`mask` has no cell that counts"):
        trainer_of(folder).forward_backward(**latents(mask=np.zeros((2, 1, 4, 6), bool)))
    with pytest.raises(CheckpointError, match="has no boosting_unet"):
        trainer_of(mc.default_checkpoint("depth"))

"""The command `marigold`: arguments, files, hostile inputs, exit codes, interruption."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import marigold_c as mc
from marigold_c.commands.cli import main

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    return path


def depth(out: Path, *arguments: str | Path) -> int:
    # One thread: waiting for a second costs more than it gives on images this small when the machine is shared.
    return main(["depth", "-o", str(out), "--threads", "1", *map(str, arguments)])


def written(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def names(out: Path) -> list[str]:
    return sorted(path.name.removesuffix("_depth.npy") for path in (out / "depth_npy").iterdir())


def command(arguments: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "marigold_c", *map(str, arguments)],
        capture_output=True,
        check=False,
        timeout=120,
        **options,
    )


# ---- results ----


def test_files(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert depth(out, photo, "--seed", "3") == 0
    assert written(out) == [
        "depth_bw/photo_depth.png",
        "depth_colored/photo_depth_colored.png",
        "depth_npy/photo_depth.npy",
    ]
    array = np.load(out / "depth_npy/photo_depth.npy")
    assert (array.shape, array.dtype) == ((48, 64), np.float32)
    pipe = mc.load(mc.default_checkpoint(), num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    assert np.array_equal(array, pipe(PIXELS, generator=3).prediction[0, :, :, 0])
    grey = Image.open(out / "depth_bw/photo_depth.png")
    assert grey.mode == "I;16"
    assert np.array_equal(np.asarray(grey), (array * 65535).astype(np.uint16))
    colour = Image.open(out / "depth_colored/photo_depth_colored.png")
    assert np.array_equal(np.asarray(colour), np.asarray(pipe.image_processor.visualize_depth(array)[0]))
    error = capsys.readouterr().err
    assert error.count("demonstration") == 1
    assert "prs-eth/marigold-depth-v1-1" in error
    assert "[1/1]" in error
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((out / "depth_npy/photo_depth.npy").stat().st_mode) == 0o666 & ~mask


def test_every_flag_of_the_papers_script(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = "--denoise_steps 2 --processing_res 64 --ensemble_size 1 --half_precision --output_processing_res"
    arguments += " --resample_method nearest --color_map binary --seed 1 --batch_size 0 --apple_silicon"
    folders = ["--input_rgb_dir", str(photo.parent), "--output_dir", str(out)]
    shared = ["--threads", "1", "--checkpoint", str(mc.default_checkpoint())]
    code = main(["depth", *shared, *folders, *arguments.split()])
    assert code == 0
    assert np.load(out / "depth_npy/photo_depth.npy").shape == (48, 64)
    with_dashes = tmp_path / "dashes"
    assert depth(with_dashes, "--input-rgb-dir", photo.parent, *arguments.replace("_", "-").split()) == 0
    assert (out / "depth_bw/photo_depth.png").read_bytes() == (with_dashes / "depth_bw/photo_depth.png").read_bytes()


def test_formats_and_quiet(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert depth(out, photo, "--format", "npy,png16", "--quiet", "--threads", "1", "--dtype", "auto") == 0
    assert written(out) == ["depth_bw/photo_depth.png", "depth_npy/photo_depth.npy"]
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_the_same_seed_for_each_image(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "again.png").write_bytes(photo.read_bytes())
    assert depth(tmp_path / "out", tmp_path, "--seed", "5", "--quiet") == 0
    one, two = (np.load(tmp_path / f"out/depth_npy/{name}_depth.npy") for name in ("photo", "again"))
    assert np.array_equal(one, two)


def test_folders_patterns_and_stems(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("photo.jpg", "photo_2.bmp", "b.PNG", "photo.tiff"):
        Image.fromarray(PIXELS).save(other / name)
    (other / "notes.txt").write_text("no image")
    out = tmp_path / "out"
    # The first is given three times, by path, folder and pattern; photo_2 keeps its own name.
    assert depth(out, photo, other, tmp_path, tmp_path / "*.png", tmp_path / "oth*" / "*", "--format", "npy") == 0
    assert names(out) == ["b", "photo", "photo_2", "photo_3", "photo_4"]
    error = capsys.readouterr().err
    assert "named photo_3" in error
    assert "named photo_4" in error


def test_standard_input(photo: Path, tmp_path: Path) -> None:
    done = command(["depth", "-", "-o", tmp_path / "out", "--quiet", "--seed", "1"], input=photo.read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    assert names(tmp_path / "out") == ["stdin"]
    done = command(["depth", "-", "-o", tmp_path / "none"], input=b"")
    assert done.returncode == 1
    assert b"standard input: the file is empty" in done.stderr


def test_exif_orientation(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert depth(tmp_path / "out", tmp_path / "turned.jpg", "--quiet") == 0
    assert np.load(tmp_path / "out/depth_npy/turned_depth.npy").shape == (64, 48)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.fromarray(PIXELS).convert("L" if mode == "I;16" else "RGB").convert(mode).save(path)
    assert depth(tmp_path / "out", path, "--quiet") == 0


# ---- hostile inputs ----


def broken_images(folder: Path) -> list[str]:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format="PNG")
    png = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format="JPEG")
    damage = {
        "empty.png": b"",
        "text.png": b"this is no image",
        "half.png": png[: len(png) // 2],
        "half.jpg": buffer.getvalue()[: len(buffer.getvalue()) // 2],
        "header.png": png[:8] + b"\xff" * 40,
        "flipped.png": png[:60] + bytes(byte ^ 0xFF for byte in png[60:]),
    }
    # A header that says 100000 x 100000.
    bomb = bytearray(png)
    bomb[16:24] = (100000).to_bytes(4, "big") * 2
    damage["bomb.png"] = bytes(bomb)
    for name, data in damage.items():
        (folder / name).write_bytes(data)
    Image.new("RGB", (10000, 1)).save(folder / "line.png")
    Image.new("RGB", (1, 10000)).save(folder / "column.png")
    return [*damage, "line.png", "column.png"]


def test_bad_images_are_named_and_the_rest_is_done(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    bad = broken_images(folder)
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(folder / "nan.tiff")
    Image.fromarray(np.full((8, 8), 7.5, np.float32)).save(folder / "beyond.tiff")
    bad += ["nan.tiff", "beyond.tiff"]
    out = tmp_path / "out"
    assert depth(out, folder, photo, tmp_path / "missing.png", tmp_path / "none*.png") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    for name in [*bad, "missing.png", "none*.png"]:
        assert len([line for line in lines if f"/{name}: " in line]) == 1, name
    assert len(lines) == len(bad) + 2
    assert sum("none*.png: no image and no archive matches this pattern" in line for line in lines) == 1
    assert names(out) == ["photo", "pixel"]
    assert len(written(out)) == 6


def test_what_is_not_there_takes_no_name(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no results, so the photograph of the same name keeps its own, and nothing is said of another name."""
    missing = tmp_path / "elsewhere" / photo.name
    assert depth(tmp_path / "out", missing, photo) == 1
    assert names(tmp_path / "out") == ["photo"]
    shown = capsys.readouterr().err
    assert f"marigold: error: {missing}: No such file or directory\n" in shown
    assert shown.count(str(missing)) == 1
    assert "another input" not in shown


def test_a_folder_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert depth(tmp_path / "out", tmp_path) == 1
    assert "no images in" in capsys.readouterr().err


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    """A tmpfs at `folder`, where the tests run as an administrator who may mount it."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_read_only_output(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert depth(tmp_path / "file", photo) == 1
    assert "/file" in capsys.readouterr().err
    out = tmp_path / "out"
    (out / "depth_npy").mkdir(parents=True)
    (out / "depth_npy").chmod(0o555)
    if os.access(out / "depth_npy", os.W_OK):  # permissions do not bind the administrator; a read-only disk does
        with small_disk(tmp_path / "disk", "ro,size=64k"):
            assert depth(tmp_path / "disk", photo, "--format", "npy") == 1
            assert os.strerror(errno.EROFS) in capsys.readouterr().err
    else:
        assert depth(out, photo, "--format", "npy") == 1
        assert os.strerror(errno.EACCES) in capsys.readouterr().err
        assert written(out) == []


def test_output_is_a_folder_of_that_name(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    (out / "depth_npy" / "photo_depth.npy").mkdir(parents=True)
    assert depth(out, photo, "--format", "npy") == 1
    assert "photo.png" in capsys.readouterr().err
    assert written(out) == []


@pytest.mark.parametrize("stage", ["write", "fsync"])
def test_no_space_leaves_no_file(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise full

    if stage == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        monkeypatch.setattr(np, "save", refuse)
    out = tmp_path / "out"
    (out / "depth_npy").mkdir(parents=True)
    (out / "depth_npy" / "photo_depth.npy").write_bytes(b"the old result")
    assert depth(out, photo, "--format", "npy") == 1
    message = capsys.readouterr().err
    assert "photo.png: " in message and f"photo_depth.npy: {os.strerror(errno.ENOSPC)}" in message
    assert written(out) == ["depth_npy/photo_depth.npy"]
    assert (out / "depth_npy" / "photo_depth.npy").read_bytes() == b"the old result"


def test_a_really_full_disk(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "size=8k"):
        assert depth(disk, photo, "--format", "npy") == 1
        assert os.strerror(errno.ENOSPC) in capsys.readouterr().err
        assert written(disk) == []


def test_bad_checkpoints(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for checkpoint in (tmp_path / "nowhere", tmp_path, photo):
        assert depth(tmp_path / "out", photo, "--checkpoint", checkpoint) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("marigold: error: ")
    assert depth(tmp_path / "out", photo, "--variant", "fp8") == 1
    assert depth(tmp_path / "out", photo, "--device", "tpu") == 1
    assert depth(tmp_path / "out", photo, "--dtype", "int3") == 1


# ---- usage ----


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["depth"],
        ["depth", "a.png"],
        ["depth", "-o", "out"],
        ["depth", "-o", "out", "--input-rgb-dir", "no such folder"],
        ["depth", "-o", "out", "a.png", "--colour"],
        ["depth", "-o", "out", "a.png", "--denoise-steps", "0"],
        ["depth", "-o", "out", "a.png", "--denoise-steps", "two"],
        ["depth", "-o", "out", "a.png", "--processing-res", "100"],
        ["depth", "-o", "out", "a.png", "--processing-res", "-8"],
        ["depth", "-o", "out", "a.png", "--resample-method", "lanczos"],
        ["depth", "-o", "out", "a.png", "--color-map", "no such map"],
        ["depth", "-o", "out", "a.png", "--format", "gif"],
        ["depth", "-o", "out", "a.png", "--format", ","],
        ["depth", "-o", "out", "a.png", "--seed", str(2**64)],
        ["depth", "-o", "out", "a.png", "--threads", "0"],
        ["depth", "-o", "out", "a.png", "--fp16", "--variant", "fp32"],
        ["info"],
    ],
)
def test_wrong_usage(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert list(tmp_path.iterdir()) == []


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert main(["depth", "--help"]) == 0
    text = capsys.readouterr().out
    for flag in ("--checkpoint", "--variant", "--dtype", "--device", "--threads", "--denoise-steps", "--seed"):
        assert flag in text
    assert main(["--version"]) == 0
    assert mc.__version__ in capsys.readouterr().out


# ---- info ----


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(mc.default_checkpoint())]) == 0
    text = capsys.readouterr().out
    for words in ("depth (MarigoldDepthPipeline)", "1 step, processing resolution 128", "9.18 M", "F16", "trailing"):
        assert words in text
    assert main(["info", "--json", str(mc.default_checkpoint())]) == 0
    facts = json.loads(capsys.readouterr().out)
    info = mc.load(mc.default_checkpoint())._engine.info()
    components = facts["variants"]["fp16"]["components"]
    assert {f"{name}_parameters": part["parameters"] for name, part in components.items()} == {
        key: info[key] for key in ("unet_parameters", "vae_parameters", "text_encoder_parameters")
    }
    assert facts["task"] == "depth"
    assert facts["scheduler"]["rescale_betas_zero_snr"] is True


def test_info_of_hostile_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tmp_path)]) == 1
    message = f"marigold: error: {tmp_path} is no checkpoint: it has no model_index.json\n"
    assert capsys.readouterr().err == message
    assert main(["convert", str(tmp_path), str(tmp_path / "packed.safetensors")]) == 1
    assert capsys.readouterr().err == message
    for part in ("unet", "vae", "scheduler"):
        (tmp_path / part).mkdir()
        for name in ("config.json", "scheduler_config.json"):
            (tmp_path / part / name).write_text("{}")
    index, weights = tmp_path / "model_index.json", tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    for text in ("", "[1]", "[" * 100000, '"x"'):
        index.write_text(text)
        assert main(["info", str(tmp_path)]) == 1
    index.write_text('{"_class_name": "StableDiffusionPipeline"}')
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\nText\n")
    assert main(["info", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "unknown (StableDiffusionPipeline)" in text
    assert "cannot run it" in text
    assert "apache-2.0" in text
    index.write_text('{"_class_name": "MarigoldNormalsPipeline"}')
    assert main(["info", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "normals" in text
    assert "cannot run it" not in text
    for data in (b"", b"\xff" * 20, (2**40).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]"):
        weights.write_bytes(data)
        assert main(["info", str(tmp_path)]) == 1
    for header in (b'{"a": 1}', b'{"a": {"dtype": "F32"}}', b'{"a": {"dtype": "F32", "shape": "x"}}'):
        weights.write_bytes(len(header).to_bytes(8, "little") + header)
        assert main(["info", str(tmp_path)]) == 1
        assert "diffusion_pytorch_model.safetensors" in capsys.readouterr().err


# ---- the process ----


def test_interrupt(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(tmp_path / "a.png")
    arguments = ["depth", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--denoise-steps", "1000"]
    arguments += ["--processing-res", "0", "--threads", "1"]
    process = subprocess.Popen([sys.executable, "-m", "marigold_c", *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "demonstration" in process.stderr.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)  # a thousand steps would take longer
    assert process.returncode == 130
    assert error == "marigold: interrupted\n"
    assert written(tmp_path / "out") == []


def test_bar_on_a_terminal(photo: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    primary, secondary = pty.openpty()
    termios.tcsetwinsize(secondary, (24, 100))
    arguments = [sys.executable, "-m", "marigold_c", "depth", str(photo), str(tmp_path / "missing.png")]
    process = subprocess.Popen([*arguments, "-o", str(tmp_path / "out")], stderr=secondary)
    process.wait(timeout=60)
    os.close(secondary)
    text = os.read(primary, 100000).decode()
    os.close(primary)
    assert process.returncode == 1
    assert "Depth:" in text
    assert "missing.png" in text
    assert "Traceback" not in text

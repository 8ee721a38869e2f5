"""Frames of a video: mc.predict_sequence, and --sequence of the commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import COMMANDS, NAMES, expected_file, opened, run, written
from PIL import Image

import marigold_c as mc

# A square that moves over noise.
FRAMES = np.repeat(np.random.default_rng(8).integers(0, 256, (1, 24, 40, 3), dtype=np.uint8), 3, axis=0)
for _index, _frame in enumerate(FRAMES):
    _frame[4:16, 4 + 8 * _index : 16 + 8 * _index] = (250, 10, 40)
OWN_SIZE: dict[str, Any] = {"processing_resolution": 0}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    folder = tmp_path / "video"
    folder.mkdir()
    for name, frame in zip("abc", FRAMES, strict=True):
        Image.fromarray(frame).save(folder / f"{name}.png")
    return folder


def arrays(outputs: Any) -> list[np.ndarray[Any, Any]]:
    return [out.prediction for out in outputs]


# ---- the function ----


@pytest.mark.parametrize("command", COMMANDS)
def test_a_frame_starts_from_the_noise_and_the_frame_before(command: str) -> None:
    pipe = opened(command)
    options = {**OWN_SIZE, "ensemble_size": 3, "batch_size": 2, "num_inference_steps": 2}
    got = list(mc.predict_sequence(pipe, FRAMES, 0.25, 5, output_latent=True, **options))
    noise = mc.Generator(5).randn(got[0].latent.shape)
    start = noise
    for frame, out in zip(FRAMES, got, strict=True):
        expected = pipe(frame, latents=start, output_latent=True, **options)
        assert type(out) is type(expected)
        assert np.array_equal(out.prediction, expected.prediction)
        assert np.array_equal(out.latent, expected.latent)
        start = (0.75 * noise + 0.25 * expected.latent).astype(np.float32)
    # The first is what the pipeline says of it by itself.
    assert np.array_equal(got[0].prediction, pipe(FRAMES[0], generator=5, **options).prediction)


def test_without_blend_only_the_noise_is_shared() -> None:
    pipe = opened("normals")
    got = arrays(mc.predict_sequence(pipe, FRAMES, 0, 5, **OWN_SIZE))
    for one, frame in zip(got, FRAMES, strict=True):
        assert np.array_equal(one, pipe(frame, generator=5, **OWN_SIZE).prediction)
    blended = arrays(mc.predict_sequence(pipe, FRAMES, 0.5, 5, **OWN_SIZE))
    assert [np.array_equal(*pair) for pair in zip(got, blended, strict=True)] == [True, False, False]


def test_all_of_the_last_frame() -> None:
    """blend 1: after the first frame the noise does not matter any more but through it."""
    pipe = opened("depth")
    outputs = list(mc.predict_sequence(pipe, FRAMES[:2], 1, 5, output_latent=True, **OWN_SIZE))
    expected = pipe(FRAMES[1], latents=outputs[0].latent, **OWN_SIZE).prediction
    assert np.array_equal(outputs[1].prediction, expected)


def test_the_papers_resizing() -> None:
    """Its latents have another shape where sizes are no multiples of 8."""
    pipe = opened("depth")
    frames = np.random.default_rng(3).integers(0, 256, (2, 45, 70, 3), dtype=np.uint8)
    options = {"preset": "paper", "processing_resolution": 50}
    got = arrays(mc.predict_sequence(pipe, frames, 0, 5, **options))
    for one, frame in zip(got, frames, strict=True):
        assert np.array_equal(one, pipe(frame, generator=5, **options).prediction)


def test_a_frame_is_read_when_its_turn_comes() -> None:
    pipe = opened("depth")
    read = []

    def frames() -> Iterator[np.ndarray[Any, Any]]:
        for index, frame in enumerate(FRAMES):
            read.append(index)
            yield frame

    outputs = mc.predict_sequence(pipe, frames(), generator=1, **OWN_SIZE)
    assert read == []
    assert next(outputs).latent is None
    assert read == [0]
    assert len(list(outputs)) == 2
    assert list(mc.predict_sequence(pipe, [])) == []


def test_kinds_of_frames() -> None:
    """Images of all kinds are one sequence; so are generators of all kinds one noise."""
    pipe = opened("depth")
    expected = arrays(mc.predict_sequence(pipe, FRAMES, generator=1, **OWN_SIZE))
    mixed = [Image.fromarray(FRAMES[0]), FRAMES[1:2], FRAMES[2].astype(np.float32) / np.float32(255)]
    for generator in (mc.Generator(1), [1], [mc.Generator(1)]):
        got = arrays(mc.predict_sequence(pipe, mixed, generator=generator, **OWN_SIZE))
        assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(got, expected, strict=True))
    assert np.array_equal(got[0], expected[0])
    other = arrays(mc.predict_sequence(pipe, FRAMES, **OWN_SIZE))
    assert not np.array_equal(other[0], expected[0])


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (FRAMES, {"blend": -0.01}, "`blend` is -0.01"),
        (FRAMES, {"blend": 1.01}, "`blend` is 1.01"),
        (FRAMES, {"blend": float("nan")}, "`blend` is nan"),
        (FRAMES, {"latents": "zeros"}, "`latents`"),
        (FRAMES, {"return_dict": False}, "`return_dict`"),
        (FRAMES, {"generator": [1, 2]}, "list of 2 for 1"),
        (FRAMES, {"generator": [1, 2], "ensemble_size": 3}, "list of 2 for 3"),
        (FRAMES, {"generator": "seed"}, "generator"),
        (FRAMES, {"ensemble_size": 0}, "`ensemble_size` must be positive"),
        (FRAMES, {"preset": "prs-eth"}, "`preset`"),
        (FRAMES, {"processing_resolution": 50}, "multiple of 8"),
        (FRAMES, {"processing_resolution": -8}, "processing_resolution"),
        (FRAMES, {"output_uncertainty": True}, "ensemble"),
        (FRAMES, {"ensembling_kwargs": {"reduction": "mode"}, "ensemble_size": 3}, "reduction"),
        ([FRAMES], {}, r"`frames\[0\]` holds 3 images"),
        ([b"a.png"], {}, r"frames\[0\]"),
        ([FRAMES[0], None], {}, r"frames\[1\]"),
        ([FRAMES[0], FRAMES[0], FRAMES[0][:16]], {}, r"`frames\[2\]` is 40 x 16, the frames before it 40 x 24"),
        # Also where both would be padded to one size.
        ([FRAMES[0], FRAMES[0][:23]], {}, r"`frames\[1\]` is 40 x 23"),
    ],
)
def test_wrong_arguments(frames: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(mc.predict_sequence(opened("depth"), frames, **{"processing_resolution": 0, **options}))


# ---- the commands ----


def check_files(command: str, out: Path, names: str, frames: Any, blend: float) -> None:
    expected = arrays(mc.predict_sequence(opened(command), frames, blend, 3, **OWN_SIZE))
    for name, one in zip(names, expected, strict=True):
        stem = NAMES[command][2][0].replace("photo", name)
        array = np.load(out / expected_file(command, "npy", stem))
        assert np.array_equal(array, one[0].transpose(2, 0, 1) if command == "normals" else np.squeeze(one[0])), name


@pytest.mark.parametrize("command", COMMANDS)
def test_command(video: Path, tmp_path: Path, command: str) -> None:
    assert run(command, tmp_path / "out", video, "--sequence", "--format", "npy") == 0
    check_files(command, tmp_path / "out", "abc", FRAMES, 0.1)


@pytest.mark.parametrize("blend", [0.0, 0.6])
def test_blend_of_the_command(video: Path, tmp_path: Path, blend: float) -> None:
    # The order of the arguments is that of the frames.
    paths = [video / f"{name}.png" for name in "cab"]
    assert run("depth", tmp_path / "out", *paths, "--sequence", "--blend", str(blend), "--format", "npy") == 0
    check_files("depth", tmp_path / "out", "cab", FRAMES[[2, 0, 1]], blend)
    if not blend:
        assert run("depth", tmp_path / "single", *paths, "--format", "npy") == 0
        for name in "abc":
            file = f"depth_npy/{name}_depth.npy"
            assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "single" / file).read_bytes()


def test_an_unreadable_frame_is_left_out(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (video / "b.png").write_bytes(b"no image")
    assert run("normals", tmp_path / "out", video, "--sequence", "--format", "npy") == 1
    check_files("normals", tmp_path / "out", "ac", FRAMES[[0, 2]], 0.1)
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith(f"marigold: error: {video}/b.png: ")
    assert error[1:] == ["marigold: 1 of 3 inputs failed"]
    assert len(written(tmp_path / "out")) == 2


def test_no_frame_can_be_read(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in video.iterdir():
        path.write_bytes(b"")
    assert run("iid", tmp_path / "out", video, "--sequence") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "marigold: 3 of 3 inputs failed"
    assert written(tmp_path / "out") == []


def test_frames_of_different_sizes(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(FRAMES[1, :16]).save(video / "b.png")
    assert run("depth", tmp_path / "out", video, "--sequence", "--format", "npy") == 1
    assert written(tmp_path / "out") == ["depth_npy/a_depth.npy"]
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith(f"marigold: error: {video}/b.png: ")
    assert "40 x 16, the frames before it 40 x 24" in error[0]
    assert error[1:] == ["marigold: the sequence ends there, 1 before its end", "marigold: 2 of 3 inputs failed"]
    # Where the last frame differs, none follows it.
    Image.fromarray(FRAMES[1]).save(video / "b.png")
    Image.fromarray(FRAMES[2, :16]).save(video / "c.png")
    assert run("depth", tmp_path / "out", video, "--sequence", "--format", "npy") == 1
    assert written(tmp_path / "out") == ["depth_npy/a_depth.npy", "depth_npy/b_depth.npy"]
    assert capsys.readouterr().err.splitlines()[1:] == ["marigold: 1 of 3 inputs failed"]


def test_a_frame_that_cannot_be_saved(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sequence goes on, from its latent as if nothing had happened."""
    (tmp_path / "out/depth_npy/b_depth.npy").mkdir(parents=True)
    assert run("depth", tmp_path / "out", video, "--sequence", "--format", "npy") == 1
    assert written(tmp_path / "out") == ["depth_npy/a_depth.npy", "depth_npy/c_depth.npy"]
    assert f"error: {video}/b.png: " in capsys.readouterr().err
    third = arrays(mc.predict_sequence(opened("depth"), FRAMES, 0.1, 3, **OWN_SIZE))[2]
    assert np.array_equal(np.load(tmp_path / "out/depth_npy/c_depth.npy"), np.squeeze(third))


def test_uncertainty_of_frames(video: Path, tmp_path: Path) -> None:
    flags = ["--sequence", "--ensemble-size", "3", "--output-uncertainty", "--format", "npy"]
    assert run("normals", tmp_path / "out", video, *flags) == 0
    options = {**OWN_SIZE, "ensemble_size": 3, "output_uncertainty": True}
    for name, out in zip("abc", mc.predict_sequence(opened("normals"), FRAMES, 0.1, 3, **options), strict=True):
        array = np.load(tmp_path / f"out/normals_uncertainty/{name}_uncertainty.npy")
        assert np.array_equal(array, np.squeeze(out.uncertainty))


def test_interrupt(tmp_path: Path) -> None:
    video = tmp_path / "video"
    video.mkdir()
    for index in range(200):
        Image.fromarray(FRAMES[index % 3]).save(video / f"{index:03}.png")
    command = [sys.executable, "-m", "marigold_c", "depth", str(video), "-o", str(tmp_path / "out"), "--sequence"]
    command += ["--threads", "1", "--processing-res", "0", "--denoise-steps", "20", "--format", "npy"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "demonstration" in process.stderr.readline()
    assert process.stderr.readline().startswith("[1/200] ")
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "marigold: interrupted"
    done = 1 + error.count("/200] ")
    files = written(tmp_path / "out")
    assert files == [f"depth_npy/{index:03}_depth.npy" for index in range(len(files))]
    assert done <= len(files) <= done + 1
    assert len(files) < 200

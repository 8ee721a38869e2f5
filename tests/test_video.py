"""`marigold video`: frames in, videos and files out, and clips that cannot be read."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import family_checkpoints as families
import numpy as np
import pytest
from PIL import Image

import marigold_c as mc
from marigold_c.commands.cli import main
from marigold_c.images.readers import InputError
from marigold_c.images.videos import VideoReader, VideoWriter, beside

av = pytest.importorskip("av")
HEIGHT, WIDTH = 24, 40


def pictures(count: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> list[np.ndarray[Any, Any]]:
    """Smooth, so that a lossy codec keeps them; each another."""
    y, x = np.mgrid[: size[0], : size[1]]
    return [
        np.stack([x * 5 + 9 * n, y * 8, np.full(size, 40 * n % 256)], axis=-1).clip(0, 255).astype(np.uint8)
        for n in range(count)
    ]


def clip(path: Path, times: list[Fraction], size: tuple[int, int] = (HEIGHT, WIDTH)) -> list[np.ndarray[Any, Any]]:
    frames = pictures(len(times), size)
    with VideoWriter(path, Fraction(25)) as writer:
        for pixels, seconds in zip(frames, times, strict=True):
            writer.write(pixels, seconds)
    return frames


def even(count: int) -> list[Fraction]:
    return [Fraction(number, 25) for number in range(count)]


def read(path: Path) -> list[Any]:
    with VideoReader(path) as reader:
        return list(reader.frames())


def video(*words: str | Path) -> int:
    return main(["video", *map(str, words), "--threads", "1", "--seed", "3", "--processing-res", "0", "--quiet"])


@pytest.mark.parametrize("size", [(24, 40), (23, 41)])
def test_what_is_written_is_read(tmp_path: Path, size: tuple[int, int]) -> None:
    """Another decoder of the same frames: PyAV by itself. Time stamps of a variable rate are kept."""
    times = [Fraction(0), Fraction(1, 25), Fraction(1, 2), Fraction(3)]
    frames = clip(tmp_path / "a.mp4", times, size)
    found = read(tmp_path / "a.mp4")
    assert [frame.seconds for frame in found] == times
    for frame, pixels in zip(found, frames, strict=True):
        whole = frame.pixels[: size[0], : size[1]]
        assert np.abs(whole.astype(int) - pixels).mean() < 4
    with av.open(str(tmp_path / "a.mp4")) as container:
        other = [one.to_ndarray(format="rgb24") for one in container.decode(video=0)]
    assert np.array_equal(np.stack(other), np.stack([frame.pixels for frame in found]))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_turned_clip_is_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phones store what they film lying on its side, with the turn to show it by."""
    clip(tmp_path / "a.mp4", even(1))
    plain = read(tmp_path / "a.mp4")[0].pixels

    class Turned:
        pts, time_base, rotation = 0, Fraction(1, 25), 90

        def to_ndarray(self, format: str) -> Any:
            assert format == "rgb24"
            return plain

    monkeypatch.setattr(VideoReader, "_decoded", lambda _self: iter([Turned()]))
    assert np.array_equal(read(tmp_path / "a.mp4")[0].pixels, np.rot90(plain))


def test_frames_as_predict_sequence_gives_them(tmp_path: Path) -> None:
    clip(tmp_path / "walk.mp4", even(5))
    frames = [frame.pixels for frame in read(tmp_path / "walk.mp4")]
    assert video(tmp_path / "walk.mp4", "-o", tmp_path / "out", "--side-by-side", "--frames", "npy,png") == 0
    pipe = mc.load(mc.default_checkpoint("depth"), num_threads=1)
    outputs = mc.predict_sequence(pipe, frames, 0.1, 3, processing_resolution=0)
    folder = tmp_path / "out/walk_frames"
    for number, out in enumerate(outputs):
        values = np.load(folder / f"{number:06d}_depth.npy")
        assert np.array_equal(values, out.prediction[0, :, :, 0])
        shown = pipe.image_processor.visualize_depth(out.prediction)[0]
        assert np.array_equal(mc.read_image(folder / f"{number:06d}_depth_colored.png"), np.asarray(shown))
    assert len(list(folder.iterdir())) == 10
    coloured, both = (read(tmp_path / f"out/walk_{name}.mp4") for name in ("depth", "side_by_side"))
    assert [frame.seconds for frame in coloured] == [frame.seconds for frame in both] == even(5)
    assert both[0].pixels.shape == (HEIGHT, 2 * WIDTH, 3)
    for frame, pixels in zip(both, frames, strict=True):
        assert np.abs(frame.pixels[:, :WIDTH].astype(int) - pixels).mean() < 5
    last = mc.read_image(folder / "000004_depth_colored.png")
    assert np.abs(coloured[4].pixels.astype(int) - last).mean() < 12
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "walk_depth.mp4",
        "walk_frames",
        "walk_side_by_side.mp4",
    ]


def test_every_and_most_frames(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", even(7))
    assert video(tmp_path / "a.mp4", "-o", tmp_path, "--every", "2", "--max-frames", "3", "--task", "normals") == 0
    assert [frame.seconds for frame in read(tmp_path / "a_normals.mp4")] == [Fraction(n, 25) for n in (0, 2, 4)]


def test_one_frame(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", even(1))
    assert video(tmp_path / "a.mp4", "-o", tmp_path / "out") == 0
    assert len(read(tmp_path / "out/a_depth.mp4")) == 1


def test_a_picture_is_a_clip_of_a_length_that_nobody_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(tmp_path / "a.png")
    assert main(["video", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-2].startswith("[1] 0.00 s of a.png (")
    assert said[-1] == f"marigold: 1 frame done, results in {tmp_path / 'out'}"


@pytest.fixture(scope="module")
def rolling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.make("rollingdepth", tmp_path_factory.mktemp("rolling"))[0]


def test_a_clip_as_a_whole(tmp_path: Path, rolling: Path) -> None:
    """As predict_video gives it, with the clip's times; a checkpoint of RollingDepth chooses the method."""
    times = [Fraction(n, 25) for n in range(5)]
    clip(tmp_path / "walk.mp4", times)
    frames = [frame.pixels for frame in read(tmp_path / "walk.mp4")]
    words = ("--checkpoint", rolling, "--dilations", "1,2", "--refine-steps", "1", "--frames", "npy", "--side-by-side")
    assert video(tmp_path / "walk.mp4", "-o", tmp_path / "out", *words) == 0
    pipe = mc.load(rolling, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    outputs = list(mc.predict_video(pipe, frames, (1, 2), None, 1, 0, generator=3))
    assert len(outputs) == 5
    for number, out in enumerate(outputs):
        assert out.prediction.shape == (1, HEIGHT, WIDTH, 1)
        values = np.load(tmp_path / "out/walk_frames" / f"{number:06d}_depth.npy")
        assert np.array_equal(values, out.prediction[0, :, :, 0])
    both = read(tmp_path / "out/walk_side_by_side.mp4")
    assert [frame.seconds for frame in both] == times
    for frame, pixels in zip(both, frames, strict=True):
        assert np.abs(frame.pixels[:, :WIDTH].astype(int) - pixels).mean() < 5


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_packed_checkpoint_predicts_videos(tmp_path: Path, rolling: Path, dtype: str) -> None:
    packed = mc.load(mc.convert(rolling, tmp_path / "rolling.safetensors", dtype=dtype, num_threads=1), num_threads=2)
    opened, exact = (mc.load(rolling, dtype=kind, num_threads=1) for kind in (dtype, "float32"))
    maps = []
    for pipe in (packed, opened, exact):
        pipe.set_progress_bar_config(disable=True)
        options: dict[str, Any] = {"alignment_iterations": 50, "processing_resolution": 0, "generator": 1}
        outputs = mc.predict_video(pipe, pictures(4), (1,), refinement_steps=1, **options)
        maps.append(np.concatenate([out.prediction for out in outputs]))
    assert packed.family == "rollingdepth" and packed.prediction_type == "disparity"
    assert np.array_equal(maps[0], maps[1])
    assert 0 < np.abs(maps[0] - maps[2]).mean() < 0.08


def test_dilations_are_capped_and_taken_once(rolling: Path) -> None:
    pipe = mc.load(rolling, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {
        "alignment_iterations": 5,
        "processing_resolution": 0,
        "generator": 1,
        "match_input_resolution": False,
    }
    passes: list[int] = []
    pipe.set_progress_callback(lambda _done, total: passes.append(total))
    capped = [out.prediction for out in mc.predict_video(pipe, pictures(6), (1, 10, 25), **options)]
    assert passes == [6] * 6  # four snippets of neighbours, two of every second frame
    asked = [out.prediction for out in mc.predict_video(pipe, pictures(6), (1, 2), cap_dilations=False, **options)]
    assert np.array_equal(capped, asked)


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ({"dilations": (2,)}, 9),
        ({"dilations": (1, 0)}, 9),
        ({"dilations": (1, 5), "cap_dilations": False}, 9),
        ({"snippet_length": 5}, 9),
        ({"refinement_steps": 501}, 9),
        ({"refinement_dilation": 0}, 9),
        ({"alignment_iterations": -1}, 9),
        ({}, 2),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_before_a_frame_is_encoded(rolling: Path, options: dict[str, Any], frames: int) -> None:
    pipe = mc.load(rolling, num_threads=1)

    class Untouched:
        def __len__(self) -> int:
            return frames

        def __iter__(self) -> Any:
            raise AssertionError("a frame was asked for")

    with pytest.raises(ValueError, match=r"dilation|snippet|refinement|alignment"):
        next(mc.predict_video(pipe, Untouched(), **{"processing_resolution": 0, **options}))


ROLLING_LIMITED = """
import resource, sys
import numpy as np
import marigold_c as mc
pipe = mc.load(sys.argv[1], num_threads=1)
pipe.set_progress_bar_config(disable=True)
frames = np.zeros((40, 64, 64, 3), np.uint8)
options = dict(processing_resolution=0, generator=1, alignment_iterations=1)
list(mc.predict_video(pipe, frames[:3], **options))
passes = []
pipe.set_progress_callback(lambda done, total: passes.append(done))
used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
maps = 4 * 64 * 64 * 3 * (38 + 14)
resource.setrlimit(resource.RLIMIT_AS, (used + maps // 2, -1))
try:
    list(mc.predict_video(pipe, frames, **options))
except MemoryError as error:
    print(len(passes), error)
"""


def test_maps_that_memory_does_not_hold_are_told_before_the_first_snippet(rolling: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ROLLING_LIMITED, str(rolling)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("0 the maps of all snippets of 40 frames take 0.00 GB"), (done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dilations": (2,), "cap_dilations": False}, "no dilation is 1"),
        ({"dilations": (1, 0)}, "a dilation of 0"),
        ({"dilations": (1, 3), "cap_dilations": False}, "a dilation of 3; .* 5 frames with dilations of 1 to 2"),
        ({"dilations": ()}, "0 dilations"),
        ({"dilations": (1,) * 9, "cap_dilations": False}, "9 dilations"),
        ({"snippet_length": 5}, "has 5 frames; it must have 2 to 4"),
        ({"snippet_length": 1}, "has 1 frames"),
        ({"refinement_steps": -1}, "-1 steps of refinement"),
        ({"refinement_dilation": 0}, "dilation of 0"),
        ({"alignment_iterations": -1}, "-1 iterations"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be positive"),
        ({"processing_resolution": 30}, "multiple of 8"),
        ({"frames": pictures(2)}, "`frames` are 2; a snippet has 3"),
        ({"frames": [*pictures(3), pictures(1, (16, 40))[0]]}, r"`frames\[3\]` is 40 x 16"),
    ],
    ids=str,
)
def test_wrong_options_of_a_whole_video(rolling: Path, options: dict[str, Any], message: str) -> None:
    pipe = mc.load(rolling, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(ValueError, match=message):
        list(mc.predict_video(pipe, **{"frames": pictures(5), "processing_resolution": 0, **options}))


def test_other_families_and_schedulers_do_not_roll(tmp_path: Path, rolling: Path) -> None:
    pipe = mc.load(mc.default_checkpoint("depth"), num_threads=1)
    with pytest.raises(NotImplementedError, match="family marigold predicts each image by itself"):
        list(mc.predict_video(pipe, pictures(3)))
    pipe = mc.load(rolling, num_threads=1)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = mc.LCMScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(NotImplementedError, match="by DDIMScheduler, not by LCMScheduler"):
        list(mc.predict_video(pipe, pictures(3), processing_resolution=0))


def test_clips_that_do_not_roll(tmp_path: Path, rolling: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip(tmp_path / "one.mp4", even(1))
    clip(tmp_path / "walk.mp4", [Fraction(0), Fraction(1, 25), Fraction(1, 5), Fraction(1, 4)])
    wanted = ("--checkpoint", rolling)
    assert video(tmp_path / "one.mp4", "-o", tmp_path / "out", *wanted) == 1
    assert f"{tmp_path / 'one.mp4'}: 1 frame; --method rolling takes 3 or more" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
    assert video(tmp_path / "one.mp4", "-o", tmp_path / "out", *wanted, "--method", "blend") == 0
    words = [str(word) for word in ("video", tmp_path / "walk.mp4", "-o", tmp_path / "out", *wanted)]
    assert main([*words, "--processing-res", "0", "--threads", "1"]) == 0
    assert f"{tmp_path / 'walk.mp4'}: variable frame rate, 0.04 to 0.16 s" in capsys.readouterr().err
    assert video(tmp_path / "walk.mp4", "-o", tmp_path / "out", "--method", "rolling") == 1
    assert "family marigold predicts each image by itself" in capsys.readouterr().err
    assert video(tmp_path / "walk.mp4", "-o", tmp_path / "out", "--refine-steps", "2") == 1
    assert "--refine-steps is of --method rolling" in capsys.readouterr().err
    assert video(tmp_path / "walk.mp4", "-o", tmp_path / "out", "--dilations", "2,3") == 2
    assert "1 must be one of them" in capsys.readouterr().err


def sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_clips_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    sound(tmp_path / "sound.mp4")
    clip(tmp_path / "whole.mp4", even(4))
    for name, message in (
        ("none.mp4", "No such file"),
        ("text.mp4", "not a video that can be read"),
        ("empty.mp4", "not a video that can be read"),
        ("sound.mp4", "no picture in it"),
    ):
        assert video(tmp_path / name, "-o", tmp_path / "out") == 1
        told = capsys.readouterr().err
        assert told.count(str(tmp_path / name)) == 1 and message in told
    assert video(tmp_path / "whole.mp4", "-o", tmp_path / "out", "--max-pixels", "900") == 1
    assert "960 pixels; at most 900" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_damaged_on_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of two sizes: the video is not half written, the name and the sizes are told."""
    clip(tmp_path / "a.mp4", even(3))
    original = VideoReader.frames

    class Decoded:
        pts, time_base, rotation = 0, Fraction(1, 25), 0

        def __init__(self, height: int) -> None:
            self.pixels = np.zeros((height, WIDTH, 3), np.uint8)

        def to_ndarray(self, format: str) -> Any:
            return self.pixels

    monkeypatch.setattr(VideoReader, "_decoded", lambda _self: iter([Decoded(24), Decoded(32)]))
    assert video(tmp_path / "a.mp4", "-o", tmp_path / "out") == 1
    assert "frame 1 has 40 x 32 pixels, those before 40 x 24" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.setattr(VideoReader, "_decoded", lambda _self: iter([]))
    with pytest.raises(InputError, match="no frame in it"), VideoReader(tmp_path / "a.mp4") as reader:
        list(original(reader))


def test_pyav_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marigold_c.extras.find_spec", lambda _name: None)
    assert video(tmp_path / "a.mp4", "-o", tmp_path / "out") == 1
    assert "pip install 'marigold-c[video]'" in capsys.readouterr().err


def test_beside() -> None:
    left, right = pictures(2)
    assert np.array_equal(beside(left, right), np.hstack([left, right]))

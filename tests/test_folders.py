"""Folders of images for the command: every format that is read when it is named, sorted as people count, and a line
about what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from marigold_c.commands.cli import main
from marigold_c.images.files import find_inputs, read_image
from marigold_c.images.readers import IMAGE_SUFFIXES

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
# Endings that Pillow writes by itself; what else there is has tests of its own (test_readers.py).
WRITTEN = [suffix for suffix in IMAGE_SUFFIXES if suffix not in (".exr", ".hdr", ".heic", ".heif", ".dib", ".jpx")]


def names(folder: Path) -> list[str]:
    return [Path(one.label).name for one in find_inputs([str(folder)])]


@pytest.mark.parametrize("suffix", WRITTEN)
def test_every_format_in_a_folder(suffix: str, tmp_path: Path) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if suffix in (".jp2", ".j2k") and not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    image = Image.fromarray(PIXELS)
    image.convert({".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")).save(tmp_path / f"a{suffix}")
    (tmp_path / f"B{suffix.upper()}").write_bytes((tmp_path / f"a{suffix}").read_bytes())
    inputs = find_inputs([str(tmp_path)])
    assert sorted(one.name for one in inputs) == ["B", "a"]
    for one in inputs:
        assert read_image(one).shape == (24, 32, 3)
    assert len(find_inputs([str(tmp_path / "*")])) == 2


def test_sorted_as_people_count(tmp_path: Path) -> None:
    wanted = ["frame1.png", "frame2.png", "frame02.png", "frame10.png", "frame10_9.png", "frame10_10.png", "z.png"]
    for name in reversed(wanted):
        Image.fromarray(PIXELS).save(tmp_path / name)
    order = [name for name in wanted if name not in ("frame2.png", "frame02.png")]
    assert [name for name in names(tmp_path) if name in order] == order
    assert names(tmp_path)[1:3] == ["frame02.png", "frame2.png"]
    for scene in ("scene10", "scene9"):
        (tmp_path / scene).mkdir()
        Image.fromarray(PIXELS).save(tmp_path / scene / "a.png")
    found = find_inputs([str(tmp_path / "scene*" / "*.png")])
    assert [Path(one.label).parent.name for one in found] == ["scene9", "scene10"]


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    lines: list[str] = []
    assert len(find_inputs([str(tmp_path)], lines.append)) == 1
    assert lines == []
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "notes\n.txt").write_text("")
    (tmp_path / "more").mkdir()
    find_inputs([str(tmp_path)], lines.append)
    assert lines == [f"{tmp_path}: left out, no images by their names: more/, notes?.txt"]
    for number in range(9):
        (tmp_path / f"p{number}.raw").write_text("")
    find_inputs([str(tmp_path)], lines.append)
    assert lines[1].endswith("p0.raw, p1.raw, p2.raw and 6 more")


def test_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(PIXELS).save(tmp_path / "large.png")
    Image.fromarray(PIXELS[:10, :10]).save(tmp_path / "small.ppm")
    (tmp_path / "notes.txt").write_text("")
    arguments = ["depth", str(tmp_path), "-o", str(tmp_path / "out"), "--threads", "1", "--format", "npy"]
    assert main([*arguments, "--max-pixels", "768"]) == 0
    shown = capsys.readouterr().err
    assert f"{tmp_path}: left out, no images by their names: notes.txt\n" in shown
    assert f"{tmp_path / 'moving.gif'}: an animation of 2 frames: its first is taken\n" in shown
    assert main([*arguments, "--max-pixels", "767"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("32 x 24 are 768 pixels, the limit is 767; --max-pixels") == 2
    assert main(["depth", str(tmp_path / "out"), "-o", str(tmp_path / "none")]) == 1
    assert "no images in" in capsys.readouterr().err

"""Which images the command's arguments mean: members of archives above all, and hostile archives."""

from __future__ import annotations

import io
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marigold_c.images.files import Input, InputError, find_inputs, read_image

RGB = np.random.default_rng(11).integers(0, 256, (13, 22, 3), dtype=np.uint8)


def saved(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def member(name: str, data: bytes = b"", **options: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in options.items():
        setattr(info, key, value)
    return info, data


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


PICTURE = saved(Image.fromarray(RGB))
OTHER = saved(Image.fromarray(RGB[::-1]))


def test_members_of_archives(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.tar",
        [
            member("./b/x.png", PICTURE),
            member("notes.txt", b"no image"),
            member("b", type=tarfile.DIRTYPE),
            member("a/x.png", OTHER),
            member("a/._x.png", b"what a Mac adds"),
            member("y.PNG", PICTURE),
        ],
    )
    (tmp_path / "x.png").write_bytes(PICTURE)
    inputs = find_inputs([str(path), str(tmp_path / "x.png"), str(path)])
    assert [one.label for one in inputs] == [
        f"{path}:b/x.png",
        f"{path}:a/x.png",
        f"{path}:y.PNG",
        str(tmp_path / "x.png"),
    ]
    assert [one.name for one in inputs] == ["x", "x_2", "y", "x_3"]
    assert [one.renamed for one in inputs] == [False, True, False, True]
    assert np.array_equal(read_image(inputs[0]), RGB)
    assert np.array_equal(read_image(inputs[1]), RGB[::-1])
    assert find_inputs([str(tmp_path / "*.tar")]) == inputs[:3]


def test_hostile_members(tmp_path: Path) -> None:
    names = ["/etc/passwd.png", "../../x.png", "a/..png", "...png", "a\n\x1b[31m/\x1b]0;b.png", "c:\\d.png", "x.png"]
    hostile = [member(name, PICTURE) for name in names]
    hostile += [
        member("link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard.png", type=tarfile.LNKTYPE, linkname="x.png"),
        member("device.png", type=tarfile.CHRTYPE),
        member("pipe.png", type=tarfile.FIFOTYPE),
    ]
    inputs = find_inputs([str(archive(tmp_path / "a.tar", hostile))])
    assert len(inputs) == len(names)
    for one in inputs:
        assert one.name
        assert one.name.isprintable()
        assert not set(one.name) & set("/\\\0")
        assert one.name not in (".", "..")
        assert one.label.isprintable()
        assert np.array_equal(read_image(one), RGB)
    assert len({one.name for one in inputs}) == len(names)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]  # nothing is unpacked


def test_damaged_archives(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [member("a.png", PICTURE), member("b.png", OTHER), member("c.png", PICTURE)])
    data = path.read_bytes()
    size = 512 + -(-len(PICTURE) // 512) * 512  # of a member
    # Within data, within a header, between members, before the end mark, within it.
    for cut in (512 + len(PICTURE) // 2, size + 100, size, 2 * size + 511, 3 * size, 3 * size + 100):
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        results = []
        for one in find_inputs([str(tmp_path / "cut.tar")]):
            try:
                results.append(read_image(one).shape)
            except InputError as error:
                results.append(str(error))
        assert isinstance(results[-1], str), cut
        assert "tar" in results[-1] or "archive" in results[-1]
    (tmp_path / "text.tar").write_text("this is no archive")
    (one,) = find_inputs([str(tmp_path / "text.tar")])
    assert one.label == str(tmp_path / "text.tar")
    with pytest.raises(InputError, match="as a tar"):
        read_image(one)
    rng = np.random.default_rng(2)
    for _ in range(200):
        wrong = bytearray(data)
        for at in rng.integers(1024, size=3):
            wrong[at] = rng.integers(256)
        (tmp_path / "wrong.tar").write_bytes(wrong)
        for one in find_inputs([str(tmp_path / "wrong.tar")]):
            with suppress(InputError):
                read_image(one)


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    """A sparse file of many gigabytes has few bytes in the archive."""
    info = tarfile.TarInfo("a.png")
    info.size = 0
    info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(2**50), "GNU.sparse.realsize": str(2**50)}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    (one,) = find_inputs([str(tmp_path / "a.tar")])
    with pytest.raises(InputError, match="sparse"):
        read_image(one)


def test_large_files_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marigold_c.images.files._LARGEST_FILE", len(PICTURE))
    (tmp_path / "a.png").write_bytes(PICTURE)
    (tmp_path / "b.png").write_bytes(PICTURE + b"\0")
    small, large = find_inputs([str(tmp_path)])
    assert np.array_equal(read_image(small), RGB)
    with pytest.raises(InputError, match=f"larger than {len(PICTURE)}"):
        read_image(large)
    (in_archive,) = find_inputs([str(archive(tmp_path / "a.tar", [member("b.png", PICTURE + b"\0")]))])
    with pytest.raises(InputError, match="larger"):
        read_image(in_archive)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PICTURE)))
    assert np.array_equal(read_image(Input("standard input", "stdin", None)), RGB)

"""`marigold prepare vkitti`: Virtual KITTI 2's pictures and depth maps in one tar, as the training reads them.

The files stay as they are (JPEG, and 16-bit PNG in centimetres): decoding, the crop and the range are the data set's.
Members are ./rgb/SceneNN/VARIATION/frames/rgb/Camera_N/rgb_NNNNN.jpg and
./depth/SceneNN/VARIATION/frames/depth/Camera_N/depth_NNNNN.png.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..images.readers import InputError, stored_size
from . import frames
from .archive import archived
from .frames import Outcome

_ARCHIVES = {"rgb": "vkitti_2.0.3_rgb.tar", "depth": "vkitti_2.0.3_depth.tar"}
_NAME = re.compile(r"(?:^|/)(Scene\d+/[^/]+/frames/(rgb|depth)/Camera_\d+)/(?:rgb|depth)_(\d+)\.(?:jpg|png)$")
_HEAD = 65536


@dataclass(frozen=True)
class _File:
    """A picture or a depth map, in a tar or in a folder."""

    member: str
    read: Callable[[], bytes]


def _classified(name: str) -> tuple[str, str] | None:
    """("rgb" or "depth", what picture and depth map have in common), or None for other files."""
    match = _NAME.search(name)
    if match is None:
        return None
    folder, kind, number = match.groups()
    return kind, f"{folder.replace(f'/frames/{kind}/', '/')}/{number}"


def _in_tar(stack: ExitStack, path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    tar = stack.enter_context(tarfile.open(path, "r:"))  # noqa: SIM115
    for member in tar:
        if member.isreg():
            yield member.name, partial(_extracted, tar, member)


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


def _in_folder(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for one in sorted(path.rglob("*")):
        if one.is_file():
            yield one.relative_to(path).as_posix(), one.read_bytes


def _files(stack: ExitStack, raw: Path) -> dict[str, dict[str, _File]]:
    """By kind and by what they have in common. The official archives are read where they are; else the folder."""
    archives = [raw / name for name in _ARCHIVES.values() if (raw / name).is_file()]
    sources = [_in_tar(stack, path) for path in archives] if len(archives) == 2 else [_in_folder(raw)]
    found: dict[str, dict[str, _File]] = {"rgb": {}, "depth": {}}
    for source in sources:
        for name, read in source:
            known = _classified(name)
            if known is not None:
                kind, key = known
                inner = _NAME.search(name)
                place = name[inner.start(1) :] if inner else name
                found[kind][key] = _File(f"{kind}/{place}", read)
    return found


def _add(tar: tarfile.TarFile, file: _File) -> tuple[int, int]:
    data = file.read()
    try:
        size = stored_size(data[:_HEAD])
    except InputError as error:
        raise ValueError(f"{file.member}: {error}") from error
    entry = tarfile.TarInfo(f"./{file.member}")
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
    return size


def _add_pair(tar: tarfile.TarFile, picture: _File, depth: _File) -> Outcome:
    sizes = [_add(tar, picture), _add(tar, depth)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"{picture.member} is {sizes[0]}, {depth.member} is {sizes[1]} pixels")
    return Outcome(picture.member, (picture.member, depth.member))


def prepare(raw: Path, out: Path, progress: frames.Progress = iter) -> list[Outcome]:
    """`out`/vkitti.tar, and the list vkitti_all.txt of all pairs. `raw`: the folder of the two official archives, or of
    what they unpack to. ValueError: no pairs there."""
    if not raw.is_dir():
        raise FileNotFoundError(2, "No such file or directory", str(raw))
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        found = _files(stack, raw)
        if not found["rgb"] or not found["depth"]:
            raise ValueError(f"{raw}: has neither {' and '.join(_ARCHIVES.values())} nor the folders in them")
        tar = stack.enter_context(archived(out / "vkitti.tar"))
        for key in progress(sorted(found["rgb"])):
            picture, depth = found["rgb"][key], found["depth"].get(key)
            if depth is None:
                outcomes.append(Outcome(picture.member, error=f"{picture.member}: has no depth map"))
                continue
            outcomes.append(frames.attempt(picture.member, partial(_add_pair, tar, picture, depth)))
    frames.write_list(out / "vkitti_all.txt", outcomes)
    return outcomes

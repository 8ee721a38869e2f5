"""Lists of files: a line names the files of a sample. Known lists are checked by a checksum.

Called by dataset.py. Published numbers belong to published lists; other lists under the same names are in circulation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import DatasetError
from .names import clean_name

_LARGEST_LIST = 1 << 28  # bytes
NO_TRUTH = "None"  # what a list says where a sample has no truth


@dataclass(frozen=True)
class PublishedList:
    """lines: how many, those without a truth included. digest: list_digest of the file; None where it is not known."""

    lines: int
    digest: str | None = None


@dataclass(frozen=True)
class Line:
    """number: from 1. files: cleaned names, NO_TRUTH kept."""

    number: int
    files: tuple[str, ...]


# By data set and by the name of the list's file, of prs-eth/Marigold's data_split.
PUBLISHED: dict[str, dict[str, PublishedList]] = {
    "nyu_depth": {
        "filename_list_test.txt": PublishedList(654, "86e9a667eee7c1836a849fd1c51b8239b83e339881e626d2908908de179c3604")
    },
    "kitti_depth": {
        "eigen_test_files_with_gt.txt": PublishedList(
            697, "e3e6aa60a27c7a0d065e747bf91997c4d1997c3a3f86d75162cdf587b18f9e06"
        )
    },
    "eth3d_depth": {
        "eth3d_filename_list.txt": PublishedList(
            454, "65636907f52e7506f193155c3499e92eaf9712980ae2a239fac42ab1c8c17011"
        )
    },
    "scannet_depth": {"scannet_val_sampled_list_800_1.txt": PublishedList(800)},
    "diode_depth": {"diode_val_all_filename_list.txt": PublishedList(771)},
    "nyu_normals": {
        "nyuv2_test.txt": PublishedList(654, "ce0801e2b95b4630894351f86d7946b6571f66109b42bd6fb3d8057cad9653b3")
    },
    "scannet_normals": {"scannet_test.txt": PublishedList(300)},
    "ibims_normals": {
        "ibims_test.txt": PublishedList(100, "132dc5065b3b96658091618d090617d0f1c252f4b2d0e9e1c3e59af15696980a")
    },
    "diode_normals": {"diode_test.txt": PublishedList(771)},
    "oasis_normals": {"oasis_test.txt": PublishedList(10000)},
    "interiorverse_iid": {"interiorverse_test_scenes_85.txt": PublishedList(2672)},
    "hypersim_iid": {"hypersim_test.txt": PublishedList(5238)},
}
_CONSEQUENCES = {
    "kitti_depth": "With another list of the same name AbsRel of Marigold v1-0 was 12.3 where 9.9 is right.",
}
_KITTI_FRAME = re.compile(r"(\d{4}_\d\d_\d\d_drive_\d{4}_sync)/.*?(\d{10})\.png$")


def _kitti_frames(line: Sequence[str]) -> list[str]:
    """Drive, frame, and whether there is a truth: lists differ in how they lay out folders, not in what they mean."""
    found = _KITTI_FRAME.search(line[0])
    frame = found.groups() if found else (line[0],)
    return [*frame, *(NO_TRUTH if one == NO_TRUTH else "truth" for one in line[1:2])]


_IDENTITIES: dict[str, Callable[[Sequence[str]], Sequence[str]]] = {"kitti_depth": _kitti_frames}


def list_digest(dataset: str, lines: Iterable[Sequence[str]], columns: int) -> str:
    """SHA-256 of what is evaluated: the first `columns` names of each line, sorted.

    Line ends, blanks, order and further columns do not matter; of KITTI, neither do the folders above a drive.
    """
    identity = _IDENTITIES.get(dataset)
    samples = (line[:columns] if identity is None else identity(line) for line in lines)
    text = "\n".join(sorted(" ".join(sample) for sample in samples))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _clean(path: Path, number: int, word: str) -> str:
    try:
        name = clean_name(word)
        if not name:
            raise ValueError("is empty")
    except ValueError as error:
        raise DatasetError(f"{path}: line {number}: the name {word[:200]!r} {error}") from None
    return name


def read_list(path: Path) -> list[Line]:
    """The lines of a list; empty ones are passed over. DatasetError names the file and the line."""
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise DatasetError(f"{path}: larger than {_LARGEST_LIST} bytes: no list of files")
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    words = ((number, line.split()) for number, line in enumerate(text.split("\n"), 1))
    lines = [Line(number, tuple(_clean(path, number, word) for word in line)) for number, line in words if line]
    if not lines:
        raise DatasetError(f"{path}: the list is empty")
    return lines


def check_list(dataset: str, path: str, lines: Sequence[Line], columns: int) -> str | None:
    """What is wrong with a list that bears the name of a published one; None if it is that list, or its name is new."""
    published = PUBLISHED.get(dataset, {}).get(PurePosixPath(path.replace("\\", "/")).name)
    if published is None:
        return None
    if published.digest is None:
        differs = f"{len(lines)} lines instead of {published.lines}" if len(lines) != published.lines else None
    else:
        digest = list_digest(dataset, [line.files for line in lines], columns)
        differs = f"checksum {digest[:16]} instead of {published.digest[:16]}" if digest != published.digest else None
        if differs and len(lines) != published.lines:
            differs += f", {len(lines)} lines instead of {published.lines}"
    if differs is None:
        return None
    consequence = _CONSEQUENCES.get(dataset, "Numbers made with it cannot be compared with published ones.")
    return f"{path} is not the published list of {dataset}: {differs}. {consequence}"

"""The samples of a user's own data: a folder of images, folders of truth, the files of a sample with one name.

Called by dataset.py for data sets by folders without a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from ..errors import DatasetError
from ..images.readers import IMAGE_SUFFIXES
from .lists import Line
from .names import clean_name
from .sources import Source

TRUTH_SUFFIXES = (".npy", ".png", ".exr", ".tif", ".tiff", ".jpg", ".jpeg")


def _below(names: list[str], folder: str) -> list[PurePosixPath]:
    """The names in a folder and its folders, relative to it; hidden ones are left out."""
    base = PurePosixPath(folder)
    paths = [PurePosixPath(name) for name in names]
    inside = [path.relative_to(base) for path in paths if path.is_relative_to(base)]
    return [path for path in inside if not any(part.startswith(".") for part in path.parts)]


def find_samples(source: Source, folders: Mapping[str, str], origin: str, words: Mapping[str, str]) -> list[Line]:
    """A line for each image: the image, and of each other folder the file with the image's name but for the suffix.

    words: in place of one name, what of the path tells an image and the other files apart, its first occurrence.

    Where there is none, the line names the .npy that could be there, so that the sample fails by name when it is read.
    DatasetError: no image, or two images with one name.
    """
    names = list(source.names())
    where = {}
    for role, folder in folders.items():
        try:
            where[role] = clean_name(folder)
        except ValueError as error:
            raise DatasetError(f"{origin}: the folder {folder!r} {error}") from None
    images: dict[PurePosixPath, str] = {}
    for path in _below(names, where["image"]):
        if path.suffix.lower() in IMAGE_SUFFIXES and words.get("image", "") in str(path):
            stem = path.with_suffix("")
            if stem in images:
                raise DatasetError(f"{origin}: two images are called {stem}: {images[stem]} and {path}")
            images[stem] = str(path)
    if not images:
        raise DatasetError(f"{origin}: there is no image in {source.path / where['image']}")
    present = set(names)
    lines = []
    for number, (stem, image) in enumerate(images.items(), 1):
        files = [str(PurePosixPath(where["image"]) / image)]
        for role in list(folders)[1:]:
            name = str(stem).replace(words["image"], words[role], 1) if words else stem
            options = [str(PurePosixPath(where[role]) / f"{name}{suffix}") for suffix in TRUTH_SUFFIXES]
            files.append(next((option for option in options if option in present), options[0]))
        lines.append(Line(number, tuple(files)))
    return lines

"""The files of a game: folders and .pk3 archives laid over each other, with names that ignore case and extension.

Calls shader_scripts.py. Archives are read in place; nothing is unpacked.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from .shader_scripts import Shader, parse_shaders
from .world import LevelError, Pixels

IMAGE_RANK = {".jpg": 0, ".jpeg": 0, ".png": 1, ".tga": 2}
LARGEST_FILE = 2**28
LARGEST_SIDE = 8192
GREY = 128


class GameFiles:
    """Names are paths below the root with forward slashes; later archives over earlier ones, loose files over all."""

    def __init__(self, root: Path, texture_side: int = 512) -> None:
        """texture_side: larger pictures are made smaller."""
        self.root, self.texture_side = root, texture_side
        self._archives: list[zipfile.ZipFile] = []
        self._where: dict[str, tuple[zipfile.ZipFile, str] | Path] = {}
        for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in (".pk3", ".pk4")):
            try:
                archive = zipfile.ZipFile(path)
            except (zipfile.BadZipFile, OSError) as error:
                raise LevelError(f"{path}: not an archive: {error}") from None
            self._archives.append(archive)
            for name in archive.namelist():
                if not name.endswith("/"):
                    self._where[name] = (archive, name)
        for path in root.rglob("*"):
            if path.is_file() and path.suffix.lower() not in (".pk3", ".pk4"):
                self._where[path.relative_to(root).as_posix()] = path
        self._lower = {name.lower(): name for name in self._where}
        self._images: dict[str, tuple[int, str]] = {}
        for name in self._where:
            rank = IMAGE_RANK.get(PurePosixPath(name).suffix.lower())
            key = _stem(name)
            if rank is not None and (key not in self._images or rank > self._images[key][0]):
                self._images[key] = (rank, name)
        self._cache: dict[tuple[str, str], Pixels] = {}
        self.shaders: dict[str, Shader] = {}
        for name in self.names("scripts/", ".shader"):
            self.shaders.update(parse_shaders(self.read(name).decode("latin1")))

    def names(self, under: str = "", suffix: str = "") -> list[str]:
        """Sorted names below a folder that end so, whatever the case."""
        under, suffix = under.lower(), suffix.lower()
        return sorted(n for low, n in self._lower.items() if low.startswith(under) and low.endswith(suffix))

    def exists(self, name: str) -> bool:
        return name.lower() in self._lower

    def read(self, name: str) -> bytes:
        """The bytes of a file. LevelError: there is none, it is damaged, or larger than 256 MiB."""
        found = self._where.get(self._lower.get(name.lower(), ""))
        if found is None:
            raise LevelError(f"{self.root}: there is no {name}")
        if isinstance(found, Path):
            if found.stat().st_size > LARGEST_FILE:
                raise LevelError(f"{found}: {found.stat().st_size} bytes are too many")
            return found.read_bytes()
        archive, member = found
        if archive.getinfo(member).file_size > LARGEST_FILE:
            raise LevelError(f"{archive.filename}: {member}: {archive.getinfo(member).file_size} bytes are too many")
        try:
            return archive.read(member)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise LevelError(f"{archive.filename}: {member}: {error}") from None

    def find_image(self, name: str) -> str | None:
        """The file of a picture by a name with any extension, or none."""
        hit = self._images.get(_stem(name))
        return hit[1] if hit else None

    def image(self, name: str, mode: str = "RGBA") -> Pixels | None:
        """A picture, no side longer than texture_side; None if there is none or it cannot be read."""
        file = self.find_image(name)
        if file is None:
            return None
        if (file, mode) not in self._cache:
            pixels = decode_texture(self.read(file), mode, self.texture_side)
            if pixels is None:
                return None
            self._cache[file, mode] = pixels
        return self._cache[file, mode]

    def image_size(self, name: str) -> tuple[int, int] | None:
        """Width and height as they are stored."""
        file = self.find_image(name)
        if file is None:
            return None
        try:
            with Image.open(io.BytesIO(self.read(file))) as image:
                return image.size
        except (OSError, ValueError, SyntaxError):
            return None

    def close(self) -> None:
        for archive in self._archives:
            archive.close()


def _stem(name: str) -> str:
    return re.sub(r"\.(tga|jpg|jpeg|png)$", "", name.lower().replace("\\", "/").lstrip("/"))


def decode_texture(data: bytes, mode: str, side: int) -> Pixels | None:
    """A picture's bytes as uint8; None where they are no picture, or one of hostile size."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > LARGEST_SIDE or min(image.size) < 1:
                return None
            picture = image.convert(mode)
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError):
        return None
    if max(picture.size) > side:
        part = side / max(picture.size)
        picture = picture.resize([max(1, int(length * part)) for length in picture.size], Image.Resampling.BOX)
    return np.asarray(picture)

"""The package's readers in Python under atheris, a target each: whatever the bytes are, a reader gives something, or
raises the class that its docstring promises. Run by tools/fuzz.py; `python python_readers.py NAME` takes libFuzzer's
options.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULES = [
    "marigold_c.datasets",
    "marigold_c.images",
    "marigold_c.loading",
    "marigold_c.preparation.levels",
    "marigold_c.configurations.yaml_tree",
]


@dataclass(frozen=True)
class Target:
    """name: of the file that a reader is given, in a folder of its own. read: of that folder. promised: the names of
    the exceptions that it may raise, from marigold_c or built in."""

    name: str
    read: Callable[[Path], object]
    promised: tuple[str, ...]


def _game(folder: Path) -> Any:
    from marigold_c.preparation.levels.game_files import GameFiles

    return GameFiles(folder)


def _quake3(folder: Path) -> object:
    from marigold_c.preparation.levels.quake3 import read_quake3

    return read_quake3(_game(folder), "maps/a.bsp")


def _ufo(folder: Path) -> object:
    from marigold_c.preparation.levels.ufo import read_ufo

    return read_ufo(_game(folder), "maps/a.bsp")


def _md2(folder: Path) -> object:
    from marigold_c.preparation.levels.md2 import read_md2

    return read_md2(_game(folder), "models/a.md2")


def _md3(folder: Path) -> object:
    from marigold_c.preparation.levels.md3 import read_md3

    return read_md3(_game(folder), "models/a.md3", 1.0)


def _ac3d(folder: Path) -> object:
    from marigold_c.preparation.levels.ac3d import read_ac3d_model

    return read_ac3d_model(folder / "a.ac", [folder])


def _shaders(folder: Path) -> object:
    from marigold_c.preparation.levels.shader_scripts import material_of, parse_shaders

    shaders = parse_shaders((folder / "a.shader").read_bytes().decode("latin-1"))
    return [material_of(name, shader) for name, shader in shaders.items()]


def _archive(folder: Path) -> object:
    game = _game(folder)
    return [game.read(name) for name in game.names("", "")]


def _image(folder: Path) -> object:
    from marigold_c.images.readers import decode_image, read_field_of_view

    data = (folder / "a.png").read_bytes()
    read_field_of_view(data)
    return decode_image(data, "auto", 1 << 20, lambda _line: None)


def _tar(folder: Path) -> object:
    from marigold_c.datasets.tar_index import TarIndex, build_index

    path = folder / "a.tar"
    handle = os.open(path, os.O_RDONLY)
    try:
        facts = os.fstat(handle)
        content = build_index(handle, path, facts.st_size, facts.st_mtime_ns)
    finally:
        os.close(handle)
    return list(TarIndex(content).names())


def _header(folder: Path) -> object:
    from marigold_c.loading.safetensors_header import read_header, tensors_of

    return tensors_of(read_header(folder / "a.safetensors"))


def _list(folder: Path) -> object:
    from marigold_c.datasets.lists import read_list

    return read_list(folder / "a.txt")


def _yaml(folder: Path) -> object:
    from marigold_c.configurations.yaml_tree import load_tree, plain

    return plain(load_tree(folder / "a.yaml"))


LEVEL = ("LevelError",)
TARGETS = {
    "quake3": Target("maps/a.bsp", _quake3, LEVEL),
    "ufo": Target("maps/a.bsp", _ufo, LEVEL),
    "md2": Target("models/a.md2", _md2, LEVEL),
    "md3": Target("models/a.md3", _md3, LEVEL),
    "ac3d": Target("a.ac", _ac3d, LEVEL),
    "shaders": Target("a.shader", _shaders, ()),
    "archive": Target("a.pk3", _archive, LEVEL),
    "image": Target("a.png", _image, ("InputError", "MissingExtra")),
    "tar": Target("a.tar", _tar, ("DatasetError", "OSError")),
    "header": Target("a.safetensors", _header, ("ValueError", "OSError")),
    "list": Target("a.txt", _list, ("DatasetError",)),
    "yaml": Target("a.yaml", _yaml, ("ConfigError",)),
}


def promised(error: BaseException, names: tuple[str, ...]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def try_once(target: Target, folder: Path, data: bytes) -> None:
    path = folder / target.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    try:
        target.read(folder)
    except Exception as error:
        if not promised(error, target.promised):
            raise
        assert str(error), f"{type(error).__name__} without a message"


def main() -> None:
    import atheris

    target = TARGETS[sys.argv.pop(1)]
    with atheris.instrument_imports(include=MODULES), tempfile.TemporaryDirectory(dir="/dev/shm") as work:
        # Once before, so that all its modules are imported, and watched.
        try_once(target, Path(work), b"")
        atheris.Setup(sys.argv, lambda data: try_once(target, Path(work), data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()

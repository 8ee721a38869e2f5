"""What the tests of data sets share: the tool that writes tiny data sets in the official layouts, out of its file, and
data sets made with it.

PYTEST_DONT_REWRITE: the tests import it before pytest takes the fixtures from it.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from marigold_c.datasets import Dataset, open_dataset
from marigold_c.errors import DatasetWarning

Array = NDArray[Any]
MakeDataset = Callable[[str], Any]
COUNT = 2
NEEDS_EXR = "interiorverse_iid"
_PATH = Path(__file__).resolve().parent.parent / "tools" / "make_dataset_fixtures.py"


def load_tool() -> Any:
    """The module tools/make_dataset_fixtures.py."""
    name = "make_dataset_fixtures"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _PATH)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    return sys.modules[name]


tool = load_tool()
SETS = tuple(tool.LAYOUTS)


@pytest.fixture
def dataset_warnings(recwarn: pytest.WarningsRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are errors, unless a test expects them; indexes stay out of the user's cache."""
    warnings.simplefilter("error", DatasetWarning)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def dataset_scenes() -> dict[str, Array]:
    stored: dict[str, Array] = tool.stand_in_scenes(COUNT)
    return stored


@pytest.fixture
def make_dataset(tmp_path: Path, dataset_scenes: dict[str, Array]) -> MakeDataset:
    """Writes a data set in its official layout."""

    def make(name: str) -> Any:
        if name == NEEDS_EXR:
            pytest.importorskip("OpenEXR")
        return tool.write_fixture(tmp_path, name, dataset_scenes)

    return make


def opened(one: Any, **keys: Any) -> Dataset:
    return open_dataset(one.config, one.base, task=one.task, **keys)


def repacked(one: Any, change: Callable[[dict[str, bytes]], None]) -> Dataset:
    """The data set with other files."""
    files = dict(one.files)
    change(files)
    if one.directory.suffix == ".tar":
        tool.write_tar(one.directory, files)
    else:
        for path in sorted(one.directory.rglob("*")):
            if path.is_file():
                path.unlink()
        tool.write_folder(one.directory, files)
    return opened(one)


def rewritten(one: Any, **keys: Any) -> Dataset:
    """The data set with other keys in its configuration."""
    lines = [line for line in one.config.read_text().splitlines() if line.split(":")[0] not in keys]
    one.config.write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in keys.items())]))
    return opened(one)

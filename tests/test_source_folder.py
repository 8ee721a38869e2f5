"""Python started beside the package's sources, which have no extension, says what that is and what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import marigold_c as mc

PACKAGE = Path(mc.__file__).parent


def import_error(folder: Path) -> str:
    """The last line of what Python says that imports the package in `folder`; -S: an editable install would lend it its
    extension."""
    command = [sys.executable, "-S", "-c", "import marigold_c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder with the package's Python files only."""
    shutil.copytree(
        PACKAGE, tmp_path / "marigold_c", ignore=shutil.ignore_patterns("*.so", "__pycache__", "checkpoints")
    )
    return tmp_path


def test_sources_without_the_extension(sources: Path) -> None:
    (sources / "setup.py").touch()
    message = import_error(sources)
    assert message.startswith(f"ImportError: {sources}/marigold_c is the source of marigold_c")
    assert "its extension is not built" in message
    assert f"pip install -e '{sources}'" in message


def test_a_package_without_the_extension(sources: Path) -> None:
    assert import_error(sources) == (
        f"ImportError: {sources}/marigold_c lacks the extension _C of marigold_c: install it again"
    )

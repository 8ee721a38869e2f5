"""What the tests of data sets share: the tool that writes tiny data sets in the official layouts, out of its file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

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

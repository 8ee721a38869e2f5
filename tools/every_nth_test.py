"""An option of pytest, `-p every_nth_test --every N`: of the tests that were collected, the first of each N in a fixed
shuffled order, so that each kind of case keeps its share."""

from __future__ import annotations

import hashlib
from typing import Any


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--every", type=int, default=1, help="run one test of so many")


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    every = config.getoption("--every")
    if every > 1:
        kept = [item for item in items if int(hashlib.sha256(item.nodeid.encode()).hexdigest(), 16) % every == 0]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

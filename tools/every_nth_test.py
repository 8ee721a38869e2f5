"""An option of pytest, `-p every_nth_test --every N`: of the tests that were collected, one of each N in a fixed
shuffled order. Each operation keeps one at least in each function that tests it."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from typing import Any


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--every", type=int, default=1, help="run one test of so many")


def kind_of(item: Any) -> tuple[str, str]:
    """The function, and the operation where its parameters name one."""
    case = getattr(item, "callspec", None) and item.callspec.params.get("case")
    return item.nodeid.split("[")[0], getattr(case, "op", "")


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    every = config.getoption("--every")
    if every > 1:
        kinds = defaultdict(list)
        for item in sorted(items, key=lambda item: hashlib.sha256(item.nodeid.encode()).digest()):
            kinds[kind_of(item)].append(item)
        kept = {item for those in kinds.values() for item in those[: math.ceil(len(those) / every)]}
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]

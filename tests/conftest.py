"""What the tests do not take over from whoever starts them: a shell ignores Ctrl-C in background jobs, and so would the
processes that the tests start and interrupt.

The checkpoints are the tests' own, which stay when the package's are trained anew: stored references are theirs.
test_shipped.py looks at the package's.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from combinations import count_of

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["MARIGOLD_CHECKPOINTS"] = str(Path(__file__).parent / "checkpoints")

CHECKS = "checks"


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """How many checks an item stands for goes with its report, also out of xdist's workers."""
    for item in items:
        if (checks := count_of(item)) > 1:
            item.user_properties.append((CHECKS, checks))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Beside pytest's number of tests, that of the checks: combinations.py holds many in one test."""
    properties = [
        dict(report.user_properties).get(CHECKS, 1)
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call"
    ]
    if sum(properties) > len(properties):
        terminalreporter.write_line(f"{sum(properties)} checks in {len(properties)} tests")

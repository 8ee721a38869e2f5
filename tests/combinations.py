"""Parameters that a test goes through by itself: what pytest does for an item takes longer than most operations on a
few rows, and there are some 12 000 combinations of case, instruction set and precision.

    @over("isa", ISAS)
    @over("precision", ["bfloat16", "int8"])
    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_something(isa, precision, case): ...

is one item for each case. All combinations run, whatever the others do; those that fail are named together, each with
its own traceback. conftest.py counts them for the end of a run.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest

Test = Callable[..., None]


def over(names: str | tuple[str, ...], values: Iterable[Any]) -> Callable[[Test], Test]:
    """What pytest.mark.parametrize does with the same arguments, inside of one item. Innermost decorators of a test:
    several are crossed."""
    several = isinstance(names, tuple)
    names = names if isinstance(names, tuple) else (names,)
    axis = [dict(zip(names, value if several else (value,), strict=True)) for value in values]
    if not axis:
        raise ValueError(f"no values of {', '.join(names)}: the test would check nothing")

    def bundle(test: Test) -> Test:
        body: Test = getattr(test, "body", test)
        combinations = [{**chosen, **others} for chosen in axis for others in getattr(test, "combinations", [{}])]

        @functools.wraps(body)
        def run(**given: Any) -> None:
            failures = []
            for combination in combinations:
                try:
                    body(**given, **combination)
                except Exception as error:
                    named = ", ".join(f"{name}={value}" for name, value in combination.items())
                    error.add_note(f"with {named}")
                    failures.append((named, error))
                except pytest.skip.Exception as skipped:
                    raise RuntimeError("a skip would leave out the other combinations: leave this one out") from skipped
            if failures:
                listed = "".join(f"\n  {named}: {error}" for named, error in failures)
                message = f"{len(failures)} of {len(combinations)} combinations fail:{listed}\n"
                raise ExceptionGroup(message, [error for _, error in failures])

        signature = inspect.signature(body)
        kept = [parameter for name, parameter in signature.parameters.items() if name not in combinations[0]]
        vars(run).update(
            body=body, combinations=combinations, __signature__=signature.replace(parameters=kept), __annotations__={}
        )
        return run

    return bundle


def count_of(item: pytest.Item) -> int:
    """How many checks an item of pytest stands for."""
    return len(getattr(getattr(item, "function", None), "combinations", [{}]))

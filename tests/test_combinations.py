"""combinations.py: all combinations run, and each that fails is named."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any, cast

import pytest
from combinations import count_of, over


def test_all_combinations_run_and_those_that_fail_are_named() -> None:
    ran = []

    @over(("backend", "isa"), [("ref", None), ("cpu", "avx2")])
    @over("threads", [1, 2, 3])
    def check(case: str, backend: str, isa: str | None, threads: int) -> None:
        ran.append((case, backend, isa, threads))
        assert (backend, threads) not in (("ref", 2), ("cpu", 1)), "wrong"

    assert list(inspect.signature(check).parameters) == ["case"]
    assert count_of(cast(pytest.Item, SimpleNamespace(function=check))) == 6
    with pytest.raises(ExceptionGroup) as raised:
        check(case="x")
    assert ran == [("x", *those, threads) for those in (("ref", None), ("cpu", "avx2")) for threads in (1, 2, 3)]
    assert raised.value.message.startswith("2 of 6 combinations fail")
    named = [error.__notes__ for error in raised.value.exceptions]
    assert named == [["with backend=ref, isa=None, threads=2"], ["with backend=cpu, isa=avx2, threads=1"]]
    assert all(note[0].removeprefix("with ") in raised.value.message for note in named)


def test_nothing_is_left_out_in_silence() -> None:
    with pytest.raises(ValueError, match="no values of isa"):
        over("isa", [])

    @over("isa", ["scalar", "avx2"])
    def check(isa: str) -> None:
        pytest.skip("not here")

    with pytest.raises(RuntimeError, match="a skip would leave out"):
        check()


def test_tests_without_combinations_count_once() -> None:
    def check() -> None: ...

    items: list[Any] = [SimpleNamespace(function=check), SimpleNamespace()]
    assert [count_of(item) for item in items] == [1, 1]

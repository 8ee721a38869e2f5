"""A handle is used by one thread at a time: whoever comes meanwhile is refused, in C (MG_ERR_BUSY) and in Python
(RuntimeError), and the call under way is not disturbed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_trainer import assert_same, open_trainer, random_batch

import marigold_c as mc
from marigold_c import _testing as engine

MG_OK, MG_ERR_BUSY = 0, 9


@pytest.mark.parametrize(("trains", "functions"), [(False, 10), (True, 6)])
def test_functions_of_the_header_refuse_handles_that_are_in_use(trains: bool, functions: int) -> None:
    during, afterwards = engine.busy_handles(str(mc.default_checkpoint()), trains)
    assert len(during) == functions
    assert during == dict.fromkeys(during, MG_ERR_BUSY)
    assert afterwards == dict.fromkeys(during, MG_OK)


class Learning:
    """A pass of a trainer in another thread, which lasts while the block is executed."""

    def __init__(self, trainer: mc.Trainer) -> None:
        self.trainer = trainer
        self.thread = threading.Thread(target=trainer.forward_backward, args=random_batch(0, 2, 32, 32))

    def __enter__(self) -> None:
        self.thread.start()
        wait_until_refused(self.trainer.memory_stats)

    def __exit__(self, *_exception: object) -> None:
        assert self.thread.is_alive()
        self.thread.join()


def wait_until_refused(call: Callable[[], object]) -> None:
    for _ in range(10**7):
        try:
            call()
        except RuntimeError as error:
            assert "already running in another thread" in str(error)
            return
    raise AssertionError("it was never in use")


def test_a_trainer_refuses_a_second_thread() -> None:
    trainer, undisturbed = open_trainer(num_threads=1), open_trainer(num_threads=1)
    batch = random_batch(0, 2, 32, 32)
    undisturbed.forward_backward(*batch)
    value = trainer._engine.read(0, "value")
    uses: list[Callable[[], object]] = [
        lambda: trainer._engine.read(0, "value"),
        lambda: trainer._engine.write(0, "value", value),
        lambda: trainer._engine.write(0, "m", value),
        trainer._engine.clear_gradients,
        trainer._engine.follow_gradients,
        lambda: setattr(trainer._engine, "steps", 7),
        lambda: trainer.optimizer_step(),
        lambda: trainer.forward_backward(*random_batch(0)),
    ]
    with Learning(trainer):
        for use in uses:
            with pytest.raises(RuntimeError, match="already running in another thread"):
                use()
    assert trainer.steps == 0
    assert_same(trainer.gradients(), undisturbed.gradients())


class Late:
    """An array whose contents are asked for: that is when `begin` is called."""

    def __init__(self, contents: Any, begin: Callable[[], None]) -> None:
        self.contents, self.begin = contents, begin

    def __array__(self, *_arguments: Any, **_named: Any) -> Any:
        self.begin()
        return self.contents


def test_a_pass_that_begins_while_an_array_is_converted() -> None:
    trainer = open_trainer(num_threads=1)
    value = trainer._engine.read(0, "value")
    learning = Learning(trainer)
    with pytest.raises(RuntimeError, match="this trainer is already running in another thread"):
        trainer._engine.write(0, "value", Late(value + 1, learning.__enter__))
    learning.__exit__()
    np.testing.assert_array_equal(trainer._engine.read(0, "value"), value)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="only classes in C are buffers before Python 3.12")
def test_numbers_that_are_drawn_while_a_state_is_converted() -> None:
    generator, expected = mc.Generator(3), mc.Generator(3)
    drawn: list[Any] = []
    thread = threading.Thread(target=lambda: drawn.append(generator.randn(20_000_000)))

    class State:
        def __buffer__(self, _flags: int) -> memoryview:
            thread.start()
            wait_until_refused(generator.get_state)
            return memoryview(mc.Generator(5).get_state())

    with pytest.raises(RuntimeError, match="this generator is already running in another thread"):
        generator.set_state(State())  # type: ignore[arg-type]
    thread.join()
    np.testing.assert_array_equal(drawn[0], expected.randn(20_000_000))
    assert generator.initial_seed() == 3


def test_opening_a_trainer_asks_for_each_weight_whether_to_stop() -> None:
    polls, parameters = engine.polls_of_opening(str(mc.default_checkpoint()))
    assert polls >= parameters > 100

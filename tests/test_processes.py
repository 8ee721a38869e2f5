"""Several processes as threads: how they agree, sums of gradients during the backward pass, and training in parts."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from thread_processes import ThreadProcesses, run_together

import marigold_c as mc
from marigold_c.errors import ProcessFailed
from marigold_c.extras import MissingExtra
from marigold_c.training.gradient_sums import GradientSums, decline
from marigold_c.training.processes import Alone, exchange, fair_share, only_first, results, started_processes, together

Array = NDArray[np.float32]


# ---- agreeing ----


def test_results_are_those_of_all() -> None:
    assert run_together(3, lambda p: results(p, lambda: p.rank**2)) == [[0, 1, 4]] * 3
    assert run_together(3, lambda p: together(p, lambda: p.rank**2)) == [0, 1, 4]
    calls: list[int] = []
    assert run_together(3, lambda p: only_first(p, lambda: calls.append(p.rank) or "done")) == ["done"] * 3
    assert calls == [0]


@pytest.mark.parametrize("size", [2, 3])
def test_a_failure_is_told_to_all(size: int) -> None:
    def work(processes: ThreadProcesses) -> None:
        try:
            together(processes, lambda: 1 / (processes.rank - 1))
        finally:
            assert processes.parted

    outcomes = run_together(size, work)
    assert isinstance(outcomes[1], ZeroDivisionError)
    for rank in {*range(size)} - {1}:
        error = outcomes[rank]
        assert isinstance(error, ProcessFailed) and (error.rank, error.kind) == (1, "ZeroDivisionError")
        assert str(error) == f"process 1 of {size} failed, and all end with it: division by zero"


def test_a_failure_that_all_have_is_raised_once() -> None:
    def work(processes: ThreadProcesses) -> None:
        together(processes, lambda: int("x"))

    first, second, third = run_together(3, work)
    assert isinstance(first, ValueError)
    assert isinstance(second, SystemExit) and isinstance(third, SystemExit) and second.code == 1


def test_one_process_needs_nobody() -> None:
    assert results(Alone(), lambda: {1: 2}) == [{1: 2}] and only_first(Alone(), lambda: "x") == "x"
    with pytest.raises(ZeroDivisionError):
        together(Alone(), lambda: 1 / 0)


def test_processes_are_found_by_their_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK", "MPI_LOCALNRANKS"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(started_processes(), Alone)
    monkeypatch.setenv("PMIX_RANK", "0")
    monkeypatch.setattr("marigold_c.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"several processes needs mpi4py, .*pip install 'marigold-c\[mpi\]'"):
        started_processes()


@pytest.mark.parametrize(
    ("everyone", "shares"),
    [
        ([[0, 1], [0, 1]], [1, 1]),
        ([range(16)] * 3, [5, 5, 5]),
        ([[0], [1]], [1, 1]),  # each is kept on a processor of its own
        ([[0, 1, 2, 3], [4, 5]], [4, 2]),
        ([[0]] * 4, [1] * 4),
    ],
    ids=str,
)
def test_processors_are_divided(everyone: list[list[int]], shares: list[int]) -> None:
    assert [fair_share(everyone, mine) for mine in everyone] == shares


# ---- sums ----


class StandIn:
    """Gradients of three parts and a bit, which become whole when the test says so."""

    isa = "any"

    def __init__(self, rank: int, count: int = (3 << 20) + 100) -> None:
        self.block = np.full(count, rank + 1, np.float32)
        self.whole = 0

    def gradient_block(self) -> Array:
        return self.block

    def follow_gradients(self) -> None:
        self.whole = 0

    def gradients_done(self) -> int:
        return self.whole


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_parts_are_summed_as_soon_as_they_are_whole() -> None:
    """In the order of the block; what is not whole yet is left alone."""

    def work(processes: ThreadProcesses) -> Array:
        gradients = StandIn(processes.rank)
        sums = GradientSums(gradients, processes)
        with sums:
            gradients.whole = (2 << 20) - 1
            wait_for(lambda: gradients.block[0] == 3)
            time.sleep(0.05)
            assert processes.sums == [1 << 20] and (gradients.block[1 << 20 :] == processes.rank + 1).all()
            gradients.whole = 2 << 20
            wait_for(lambda: gradients.block[(2 << 20) - 1] == 3)
            gradients.block[-100:] = 5  # the backward pass goes on
        assert processes.sums == [1 << 20] * 3 + [100] and sums.early == 2 << 20
        return gradients.block

    for block in run_together(2, work):
        assert (block[:-100] == 3).all() and (block[-100:] == 10).all()


class SlowSum:
    def __init__(self, under_way: list[SlowSum]) -> None:
        self.ready = time.monotonic() + 0.02
        self.under_way = under_way
        under_way.append(self)
        assert len(under_way) <= 4

    def done(self) -> bool:
        over = time.monotonic() > self.ready
        if over:
            self.under_way.remove(self)
        return over


def test_a_few_sums_are_under_way_and_all_are_waited_for() -> None:
    under_way: list[SlowSum] = []

    class Slow(ThreadProcesses):
        def start_sum(self, numbers: Array) -> Any:
            return SlowSum(under_way)

    def work(processes: ThreadProcesses) -> None:
        with GradientSums(StandIn(0, 9 << 20), Slow(processes.hub, 0)):
            pass
        assert not under_way

    assert run_together(1, work) == [None]


@pytest.mark.parametrize("moment", ["before", "within", "after the sums"])
def test_all_end_where_a_batch_fails(moment: str) -> None:
    def work(processes: ThreadProcesses) -> None:
        gradients = StandIn(processes.rank)
        if processes.rank == 1 and moment == "before":
            decline(processes, OSError("no file"))
        with GradientSums(gradients, processes):
            if moment == "after the sums":
                gradients.whole = gradients.block.size
                wait_for(lambda: gradients.block[-1] == 3)
            if processes.rank == 1:
                raise OSError("no file")

    mine, theirs = run_together(2, work)
    assert isinstance(theirs, OSError)
    assert isinstance(mine, ProcessFailed) and (mine.rank, mine.reason) == (1, "no file")
    assert not [one for one in threading.enumerate() if one.name == "gradient sums"]


def test_an_interrupted_process_keeps_nobody_waiting() -> None:
    def work(processes: ThreadProcesses) -> None:
        with GradientSums(StandIn(processes.rank), processes):
            if processes.rank == 0:
                raise KeyboardInterrupt

    mine, theirs = run_together(2, work)
    assert isinstance(mine, KeyboardInterrupt)
    assert isinstance(theirs, ProcessFailed) and "interrupted" in str(theirs)


def test_other_layouts_are_refused() -> None:
    def work(processes: ThreadProcesses) -> None:
        gradients = StandIn(processes.rank)
        gradients.isa = ("avx2", "avx512")[processes.rank]
        with GradientSums(gradients, processes):
            pass

    first, second = run_together(2, work)
    assert isinstance(first, RuntimeError) and "avx2 (3145828 numbers), avx512 (3145828 numbers)" in str(first)
    assert "MARIGOLD_ISA" in str(first) and isinstance(second, SystemExit)


# ---- the trainer ----


def random_batch(seed: int, samples: int = 1, h: int = 16, w: int = 24) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    image, target, noise = (rng.standard_normal((samples, 4, h, w)).astype(np.float32) for _ in range(3))
    return image, target, noise, rng.integers(0, 1000, samples), rng.random((samples, 1, h, w)) > 0.2


def open_trainer(**options: Any) -> mc.Trainer:
    values = {"task": "depth", "num_threads": 1, "learning_rate": 1e-3, "max_gradient_norm": 1.0, **options}
    return mc.Trainer.from_pretrained(mc.default_checkpoint(), **values)


def difference(a: dict[str, Array], b: dict[str, Array]) -> float:
    """Of all numbers together, relative."""
    apart = sum(float(((a[name].astype(np.float64) - b[name]) ** 2).sum()) for name in a)
    return float(np.sqrt(apart / sum(float((b[name].astype(np.float64) ** 2).sum()) for name in b)))


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 3])
def test_processes_are_one_with_more_batches(size: int) -> None:
    """Gradients within 1e-6; the same bits in all processes; weights after three steps."""
    batches = 2 * size
    alone = open_trainer()
    gradients: list[dict[str, Array]] = []
    for step in range(3):
        for number in range(batches):
            alone.forward_backward(*random_batch(batches * step + number), weight=1 / batches)
        gradients.append(alone.gradients())
        alone.optimizer_step()

    def work(processes: ThreadProcesses) -> tuple[list[dict[str, Array]], dict[str, Array]]:
        trainer = open_trainer()
        found = []
        for step in range(3):
            first = batches * step + processes.rank
            trainer.forward_backward(*random_batch(first), weight=1 / batches)
            with trainer.summed_over(processes):
                trainer.forward_backward(*random_batch(first + size), weight=1 / batches)
            found.append(trainer.gradients())
            trainer.optimizer_step()
        return found, trainer.parameters()

    outcomes = run_together(size, work)
    first_gradients, first_weights = outcomes[0]
    assert difference(first_gradients[0], gradients[0]) < 1e-6
    assert difference(first_weights, alone.parameters()) < 1e-6
    start = open_trainer().parameters()
    assert difference(first_weights, start) > 1e-3
    for found, weights in outcomes[1:]:
        for name in weights:
            np.testing.assert_array_equal(weights[name], first_weights[name])
            np.testing.assert_array_equal(found[-1][name], first_gradients[-1][name])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_most_gradients_are_whole_before_the_backward_pass_ends(checkpointing: bool) -> None:
    """By size: the block is in the order in which the backward pass is done with it. What is called whole is final."""
    trainer = open_trainer(gradient_checkpointing=checkpointing)
    engine = trainer._engine
    batch = random_batch(3, samples=2, h=32, w=48)
    trainer.forward_backward(*batch)
    final = engine.gradient_block().copy()
    trainer.clear_gradients()
    seen: list[tuple[int, bool]] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            done = engine.gradients_done()
            if done and (not seen or done > seen[-1][0]):
                seen.append((done, np.array_equal(engine.gradient_block()[:done], final[:done])))
            time.sleep(0)

    engine.follow_gradients()
    assert engine.gradients_done() == 0
    thread = threading.Thread(target=watch)
    thread.start()
    trainer.forward_backward(*batch)
    ended.set()
    thread.join()
    assert engine.gradients_done() == final.size
    assert len(seen) > 10 and all(same for _, same in seen)
    assert any(0.2 < done / final.size < 0.6 for done, _ in seen)


def test_gradients_are_one_block(tmp_path: Any) -> None:
    """A view that keeps its trainer alive; each gradient lies in it once, and there is nothing else but zeros."""
    trainer = open_trainer()
    trainer.forward_backward(*random_batch(0))
    block = trainer._engine.gradient_block()
    squares = sum(float((one.astype(np.float64) ** 2).sum()) for one in trainer.gradients().values())
    assert float((block.astype(np.float64) ** 2).sum()) == pytest.approx(squares, rel=1e-12)
    del trainer
    assert np.isfinite(block).all()
    block[:] = 0


def test_one_batch_is_summed_at_a_time() -> None:
    def work(processes: ThreadProcesses) -> None:
        trainer = open_trainer()
        with trainer.summed_over(processes):
            trainer.forward_backward(*random_batch(0))
            trainer.forward_backward(*random_batch(1))

    first, second = run_together(2, work)
    assert isinstance(first, RuntimeError) and "last batch of a step only" in str(first)
    assert isinstance(second, SystemExit)


def test_exchange_after_a_failed_batch_leaves_a_trainer_usable() -> None:
    def work(processes: ThreadProcesses) -> float:
        trainer = open_trainer()
        bad = list(random_batch(0))
        bad[3] = np.array([5000])
        with pytest.raises((ValueError, ProcessFailed)), trainer.summed_over(processes):
            trainer.forward_backward(*(bad if processes.rank else random_batch(0)))
        trainer.clear_gradients()
        with trainer.summed_over(processes):
            trainer.forward_backward(*random_batch(processes.rank))
        return trainer.optimizer_step()

    one, two = run_together(2, work)
    assert one == two > 0
    assert exchange(Alone(), 3) == [3]

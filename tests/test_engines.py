"""Workers: processes of this machine and Ray's actors give what one process gives, also when they are killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from engine_jobs import Closed, Deadly, NotedInference, Squares
from evaluation_cases import arguments, contents, evaluate, infer, write_sets

import marigold_c as mc
from marigold_c.commands import cli
from marigold_c.datasets import open_dataset
from marigold_c.errors import SampleError
from marigold_c.evaluation.engines import Job, Share, in_processes, process_shares, serially
from marigold_c.evaluation.ray_engine import _crew_size, on_ray
from marigold_c.extras import MissingExtra

pytest.importorskip("yaml", reason="configurations of data sets need the extra evaluation")

pytestmark = pytest.mark.long

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="needs the extra ray")
WORKERS = 2
Engine = Callable[..., Iterator[tuple[int, Any]]]


def with_processes(job: Job, indices: Sequence[int], workers: int = WORKERS) -> Iterator[tuple[int, Any]]:
    return in_processes(job, indices, [Share(1)] * workers)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A real one on this machine, for all of the module's tests."""
    import ray

    # Workers import engine_jobs; what is a processor to Ray is a number to this machine.
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(num_cpus=WORKERS + 1, runtime_env={"env_vars": {"PYTHONPATH": path}}, **options)
    yield
    ray.shutdown()


def with_ray(job: Job, indices: Sequence[int], workers: int = WORKERS) -> Iterator[tuple[int, Any]]:
    return on_ray(job, indices, device="cpu", threads=1, workers=workers, address=None, say=lambda _: None)


@pytest.fixture(params=["processes", pytest.param("ray", marks=needs_ray)])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "ray":
        request.getfixturevalue("cluster")
        return with_ray
    return with_processes


def pids(notes: Path) -> list[int]:
    return sorted(int(path.name) for path in notes.iterdir() if path.name.isdigit())


def gone(pid: int) -> bool:
    """Whether the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- handing out and taking back ----


def test_every_sample_once(engine: Engine, tmp_path: Path) -> None:
    results = list(engine(Squares(tmp_path, 0.05, WORKERS), range(9)))
    assert sorted(results) == [(index, index * index) for index in range(9)]
    assert len(pids(tmp_path)) == WORKERS
    wait_for(lambda: all(gone(pid) for pid in pids(tmp_path)))


def test_no_samples(engine: Engine, tmp_path: Path) -> None:
    assert list(engine(Squares(tmp_path), [])) == []
    assert pids(tmp_path) == []


def test_a_worker_that_dies_is_replaced(engine: Engine, tmp_path: Path) -> None:
    results = list(engine(Deadly(tmp_path), range(8), workers=1))
    assert sorted(results) == [(index, index * index) for index in range(8)]
    assert len(pids(tmp_path)) == 2


def test_the_last_sample_s_worker_dies(engine: Engine, tmp_path: Path) -> None:
    """Others are idle then; one of them takes it."""
    results = list(engine(Deadly(tmp_path, crew=WORKERS, number=1, patience=2.0), range(2)))
    assert sorted(results) == [(0, 0), (1, 1)]
    assert len(pids(tmp_path)) == WORKERS


def test_a_sample_that_kills_every_worker_is_given_up(engine: Engine, tmp_path: Path) -> None:
    results = dict(engine(Deadly(tmp_path, times=99), range(6)))
    assert "3 workers were lost over it" in results.pop(3)
    assert results == {index: index * index for index in (0, 1, 2, 4, 5)}


@pytest.mark.parametrize(
    ("how", "kind", "words"), [("refuse", SampleError, "reason"), ("die", RuntimeError, "in a row")]
)
def test_what_cannot_be_opened(how: str, kind: type[Exception], words: str, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(kind, match=words):
        list(engine(Closed(tmp_path, how=how), range(4)))


def test_an_exception_that_cannot_be_sent(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="1 and 2"):
        list(with_processes(Closed(tmp_path, how="unsendable"), range(4)))


def test_leaving_early_ends_the_workers(engine: Engine, tmp_path: Path) -> None:
    results = engine(Squares(tmp_path, 0.05), range(100))
    next(results)
    results.close()  # type: ignore[attr-defined]
    wait_for(lambda: all(gone(pid) for pid in pids(tmp_path)))


def test_in_this_process_in_order(tmp_path: Path) -> None:
    assert list(serially(Squares(tmp_path), [3, 1, 2], 1)) == [(3, 9), (1, 1), (2, 4)]
    assert pids(tmp_path) == [os.getpid()]


# ---- shares ----


def test_shares_of_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(11)))
    assert [share.threads for share in process_shares("cpu", None, 3)] == [4, 4, 3]
    assert [share.threads for share in process_shares("cpu", None, None)] == [6, 5]
    assert [share.threads for share in process_shares("cpu", 2, 4)] == [1, 1, 1, 1]
    assert all(share.visible_device is None for share in process_shares("cpu", None, 3))


def test_shares_of_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert [share.visible_device for share in process_shares("cuda", 4, None)] == ["2", "5"]
    shares = process_shares("cuda", 4, 4)
    assert [share.visible_device for share in shares] == ["2", "5", "2", "5"]
    assert [share.visible_device for share in process_shares("cuda:1", 4, None)] == [None]
    list(in_processes(Squares(tmp_path, crew=4), range(4), shares))
    assert sorted((tmp_path / str(pid)).read_text() for pid in pids(tmp_path)) == ["1 2", "1 2", "1 5", "1 5"]


def test_size_of_a_crew() -> None:
    machine = {"CPU": 64.0, "GPU": 4.0}
    assert _crew_size(machine, False, None, None) == (16, 4)
    assert _crew_size(machine, False, 8, None) == (8, 8)
    assert _crew_size(machine, False, None, 3) == (3, 21)
    assert _crew_size(machine, True, None, None) == (4, 16)
    assert _crew_size({"CPU": 1.0}, False, None, None) == (1, 1)
    assert _crew_size({}, True, None, None) == (1, 1)


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_ray_is_named_where_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"marigold-c\[ray\]"):
        list(with_ray(Squares(tmp_path), range(2)))


# ---- real work ----


def noted(base: Path, out: Path, notes: Path, **more: Any) -> NotedInference:
    notes.mkdir()
    out.mkdir(exist_ok=True)
    return NotedInference(
        task="depth",
        dataset=open_dataset(base / "depth.yaml", base, task="depth"),
        checkpoint=str(mc.default_checkpoint("depth")),
        call={"num_inference_steps": 1, "processing_resolution": 0, "preset": "paper"},
        noise={"generator": 5},
        folder=out,
        notes=notes,
        **more,
    )


def predictions(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name != "marigold_infer.json"}


def test_one_of_two_workers_is_killed_in_the_middle(engine: Engine, tmp_path: Path) -> None:
    """Once by its own sample, once from outside while it works; the files are those of one process."""
    write_sets(tmp_path, 12)
    assert infer("depth", tmp_path, tmp_path / "one", "--quiet") == 0
    wanted = predictions(tmp_path / "one")
    job = noted(tmp_path, tmp_path / "a", tmp_path / "notes_a", fatal=5)
    assert sorted(index for index, outcome in engine(job, range(12)) if outcome.fault is None) == list(range(12))
    assert contents(tmp_path / "a") == wanted
    assert (tmp_path / "notes_a/killed").exists()

    notes = tmp_path / "notes_b"
    results = engine(noted(tmp_path, tmp_path / "b", notes), range(12))
    faults = []
    for number, (_, outcome) in enumerate(results):
        faults.append(outcome.fault)
        if number == 2:
            os.kill(pids(notes)[0], signal.SIGKILL)
    assert faults == [None] * 12
    assert contents(tmp_path / "b") == wanted


@pytest.mark.parametrize("task", ["depth", "normals", "iid"])
@pytest.mark.parametrize("name", ["processes", pytest.param("ray", marks=needs_ray)])
def test_the_command_gives_the_same_bits(
    name: str, task: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "ray":
        request.getfixturevalue("cluster")
    write_sets(tmp_path, 5)
    more = ["--engine", name, "--workers", str(WORKERS)]
    options = ["--alignment", "least_square"] if task == "depth" else []
    assert infer(task, tmp_path, tmp_path / "one") == 0
    assert infer(task, tmp_path, tmp_path / "many", *more) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    said = capsys.readouterr().err
    assert "[5/5]" in said
    for folder, engine in (("a", []), ("b", more)):
        assert evaluate(task, tmp_path, tmp_path / "one", "-o", tmp_path / folder, *engine, *options) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    for folder, engine in (("c", []), ("d", more)):
        assert infer(task, tmp_path, tmp_path / folder, "--eval", *engine, *options) == 0
    assert contents(tmp_path / "c") == contents(tmp_path / "d")


def test_a_checkpoint_that_cannot_be_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sets(tmp_path, 3)
    (tmp_path / "empty").mkdir()
    words = ["--engine", "processes", "--workers", "2", "--checkpoint", tmp_path / "empty"]
    assert infer("depth", tmp_path, tmp_path / "out", *words) == 1
    assert "empty" in capsys.readouterr().err


def test_the_first_process_is_interrupted(tmp_path: Path) -> None:
    """Ctrl-C: the command says so, its workers end, what is finished stays."""
    write_sets(tmp_path, 40)
    out = tmp_path / "out"
    words = arguments("infer", "depth", tmp_path, "-o", out, "--denoise-steps", "4", "--seed", "5", "--quiet")
    timer = threading.Thread(
        target=lambda: (wait_for(lambda: len(contents(out)) > 3), os.kill(os.getpid(), signal.SIGINT))
    )
    timer.start()
    code = cli.main(
        [*words, "--engine", "processes", "--workers", "2", "--processing-res", "0", "--ensemble-size", "8"]
    )
    timer.join()
    assert code == 130
    assert 3 < len(contents(out)) < 41

"""Workers on a Ray cluster: one actor each, which opens the job once. Called by the two commands with --engine ray.

Data, checkpoint and the folder of predictions must be where the workers' machines find them under the same paths.
Needs the extra `ray`. Machines with other instruction sets may differ in the last bits of results; MARIGOLD_ISA in the
workers' environment makes them alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from ..extras import optional_module
from .engines import Event, Job, Share, work_through

_PATIENCE = 20.0  # seconds without an event before it is said what is waited for


class _RayWorker:
    """The actor."""

    def __init__(self) -> None:
        self._work: Callable[[int], Any] | None = None

    def open(self, job: Job, share: Share) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._work = job.open(share)

    def work(self, index: int) -> Any:
        assert self._work is not None
        return self._work(index)


class RayCrew:
    """Actors. cpus, gpus: what each asks of the cluster."""

    def __init__(self, ray: Any, job: Job, cpus: int, gpus: int, say: Callable[[str], None]) -> None:
        self._ray, self._say, self._needs = ray, say, f"{cpus} CPUs" + (f" and {gpus} GPU" if gpus else "")
        self._actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_RayWorker)
        self._job, self._share = ray.put(job), Share(cpus)
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, tuple[int, str]] = {}
        self._hired = 0

    def hire(self) -> None:
        self._hired += 1
        actor = self._actor.remote()
        self._actors[self._hired] = actor
        self._pending[actor.open.remote(self._job, self._share)] = (self._hired, "ready")

    def give(self, worker: Hashable, index: int) -> None:
        assert isinstance(worker, int)
        self._pending[self._actors[worker].work.remote(index)] = (worker, "done")

    def next_event(self) -> Event:
        ready: list[Any] = []
        while not ready:
            ready, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=_PATIENCE)
            if not ready and all(kind == "ready" for _, kind in self._pending.values()):
                self._say(f"marigold: waiting for the cluster to have {self._needs} free")
        worker, kind = self._pending.pop(ready[0])
        try:
            return Event(worker, kind, self._ray.get(ready[0]))
        except self._ray.exceptions.RayTaskError as error:
            return Event(worker, "failed", error.cause if isinstance(error.cause, Exception) else error)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError) as error:
            self._ray.kill(self._actors.pop(worker))
            return Event(worker, "lost", " ".join(str(error).split())[:200])

    def dismiss(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        self._pending.clear()


def _crew_size(resources: dict[str, float], gpu: bool, threads: int | None, workers: int | None) -> tuple[int, int]:
    """(workers, CPUs of each) out of what the cluster has."""
    cpus = max(1, int(resources.get("CPU", 1)))
    if workers is None:
        workers = int(resources.get("GPU", 0)) if gpu else cpus // threads if threads else min(cpus, max(2, cpus // 4))
    workers = max(1, workers)
    return workers, threads or max(1, cpus // workers)


def on_ray(
    job: Job,
    indices: Sequence[int],
    *,
    device: str,
    threads: int | None,
    workers: int | None,
    address: str | None,
    say: Callable[[str], None],
) -> Iterator[tuple[int, Any]]:
    """As work_through. address: of a cluster, None for RAY_ADDRESS or else a local one. MissingExtra without Ray."""
    ray = optional_module("ray", "--engine ray")
    if not indices:
        return
    connected = ray.is_initialized()
    if not connected:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        gpu = device.startswith("cuda")
        count, cpus = _crew_size(ray.cluster_resources(), gpu, threads, workers)
        say(f"marigold: {min(count, len(indices))} workers of {cpus} CPUs on Ray")
        yield from work_through(RayCrew(ray, job, cpus, int(gpu), say), job, indices, count)
    finally:
        if not connected:
            ray.shutdown()

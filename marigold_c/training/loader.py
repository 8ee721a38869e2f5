"""Batches read ahead by threads, in the order of the sampler whatever their number. Called by learner.py and,
for that number, by run.py.

A batch is a function of its plan and of the files alone: threads only change how early it is ready. Reading releases
the interpreter for most of its time (files, decompression, resizing), so threads are enough to keep the trainer fed.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from .._cuda import is_cuda
from ..errors import DatasetError, SampleError
from ..messages import explain
from .examples import Example, TrainingSet
from .latent_cache import CachedLatents, LatentCache
from .mixed_sampler import BatchPlan

_AHEAD_PER_WORKER = 2  # batches
_MOST_REPLACEMENTS = 100  # bad samples in a row before a data set is given up


def reading_threads(wanted: int | None, device: str, trainer_threads: int | None) -> int:
    """How many read ahead: as many as are wanted, else 2, or none where the trainer computes on every processor of this
    process (trainer_threads None). There a reader takes turns with one of the trainer's threads, for which all others
    wait: what it saves is less than what it costs."""
    if wanted is not None:
        return wanted
    processors = len(os.sched_getaffinity(0))
    return 2 if is_cuda(device) or (trainer_threads or processors) < processors else 0


class _Sampler(Protocol):
    def batches(self, first: int = 0) -> Iterator[BatchPlan]: ...


@dataclass(frozen=True, eq=False)
class Item:
    """One sample of a batch: its pixels, or its latents where the cache has them. index and flip: what it is."""

    index: int
    flip: bool
    files: tuple[str, ...]
    example: Example | None
    latents: CachedLatents | None

    @property
    def size(self) -> tuple[int, ...]:
        if self.example is not None:
            return self.example.image.shape[1:]
        assert self.latents is not None
        return self.latents.size


@dataclass(frozen=True, eq=False)
class Batch:
    plan: BatchPlan
    items: tuple[Item, ...]

    @property
    def files(self) -> list[str]:
        return [file for item in self.items for file in item.files]


class BadSamples:
    """The samples that were skipped, each counted once. Shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reasons: dict[tuple[int, int], str] = {}
        self._news: list[str] = []

    def add(self, data_set: int, index: int, reason: str) -> None:
        with self._lock:
            if (data_set, index) not in self._reasons:
                self._reasons[data_set, index] = reason
                self._news.append(reason)

    def __contains__(self, key: tuple[int, int]) -> bool:
        with self._lock:
            return key in self._reasons

    def __len__(self) -> int:
        return len(self._reasons)

    def take_news(self) -> list[str]:
        """What was added since the last call."""
        with self._lock:
            news, self._news = self._news, []
            return news


class Loader:
    """Iterates over batches without end, from number `first` on. Closing stops the threads.

    skip_bad: samples that cannot be used are counted and replaced by the next one of the set that can; otherwise the
    batch that has one raises its SampleError.
    """

    def __init__(
        self,
        data_sets: Sequence[TrainingSet],
        sampler: _Sampler,
        workers: int,
        skip_bad: bool = False,
        caches: Sequence[LatentCache] | None = None,
        first: int = 0,
    ) -> None:
        self._sets, self._caches = data_sets, caches
        self._skip_bad = skip_bad
        self.bad_samples = BadSamples()
        self._plans = sampler.batches(first)
        self._ahead = _AHEAD_PER_WORKER * workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="loader") if workers else None
        self._waiting: deque[Future[Batch]] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self._pool is None:
            return self._read(next(self._plans))
        while len(self._waiting) <= self._ahead:
            self._waiting.append(self._pool.submit(self._read, next(self._plans)))
        return self._waiting.popleft().result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, plan: BatchPlan) -> Batch:
        items: list[Item] = []
        for position in range(len(plan.samples)):
            items.append(self._usable(plan, position, items[0] if items else None))
        return Batch(plan, tuple(items))

    def _usable(self, plan: BatchPlan, position: int, first: Item | None) -> Item:
        """The sample at a position of a batch; if it is bad and may be skipped, the next one of its set that is not."""
        wanted, count = plan.samples[position], len(self._sets[plan.data_set])
        for step in range(min(count, _MOST_REPLACEMENTS) if self._skip_bad else 1):
            index = (wanted + step) % count
            if (plan.data_set, index) in self.bad_samples:
                continue
            try:
                return self._item(plan, position, index, first)
            except SampleError as error:
                if not self._skip_bad:
                    raise
                self.bad_samples.add(plan.data_set, index, str(error))
        name = self._sets[plan.data_set].name
        raise DatasetError(
            f"{name}: {min(count, _MOST_REPLACEMENTS)} samples in a row cannot be used, from number {wanted} on; "
            f"{len(self.bad_samples)} were skipped so far"
        )

    def _item(self, plan: BatchPlan, position: int, index: int, first: Item | None) -> Item:
        data_set = self._sets[plan.data_set]
        generator = plan.sample_generator(position)
        flip = data_set.flips(generator)
        files = data_set.files(index)
        latents = self._caches[plan.data_set].load(index, flip) if self._caches else None
        try:
            example = None if latents else data_set.example(index, flip, generator)
        except OSError as error:
            raise data_set.refuse(index, explain(error)) from error
        item = Item(index, flip, files, example, latents)
        if first is not None and item.size != first.size:
            raise data_set.refuse(
                index,
                f"is {item.size[0]} x {item.size[1]}, but {first.files[0]} in the same batch is {first.size[0]} x "
                f"{first.size[1]}; give resize_to_hw, or max_train_batch_size 1",
                files[0],
            )
        return item

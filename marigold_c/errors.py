"""The exceptions and warnings of marigold_c that are not Python's own."""

from __future__ import annotations

from typing import Any


class CheckpointError(ValueError):
    """A checkpoint file is damaged, hostile or does not fit its configuration."""


class DeviceError(RuntimeError):
    """A device is missing, unknown or failed."""


class NotFiniteError(ValueError):
    """A loss or gradients that are no finite numbers: training cannot go on from here."""


class DatasetError(ValueError):
    """A data set cannot be opened: its configuration, its list of files or its archive."""


class DatasetNotFoundError(DatasetError):
    """Where the data set should be, there is neither its folder nor its archive."""


class SampleError(DatasetError):
    """One sample of a data set cannot be read; the others can. The parts of the message are attributes."""

    def __init__(self, dataset: str, sample: str, file: str, reason: str) -> None:
        super().__init__(f"{dataset}: sample {sample}: {file}: {reason}")
        self.dataset, self.sample, self.file, self.reason = dataset, sample, file, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleError, (self.dataset, self.sample, self.file, self.reason)


class ProcessFailed(RuntimeError):
    """Another of several processes that work together failed. rank: its number; reason and kind: its message and the
    name of its exception."""

    def __init__(self, rank: int, size: int, reason: str, kind: str) -> None:
        super().__init__(f"process {rank} of {size} failed, and all end with it: {reason}")
        self.rank, self.size, self.reason, self.kind = rank, size, reason, kind

    def __reduce__(self) -> tuple[Any, ...]:
        return ProcessFailed, (self.rank, self.size, self.reason, self.kind)


class DatasetWarning(UserWarning):
    """A data set can be read, but numbers made with it may not be those that are meant."""

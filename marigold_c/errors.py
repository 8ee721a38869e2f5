"""The exceptions and warnings of marigold_c that are not Python's own."""

from __future__ import annotations

from typing import Any


class CheckpointError(ValueError):
    """A checkpoint file is damaged, hostile or does not fit its configuration."""


class DeviceError(RuntimeError):
    """A device is missing, unknown or failed."""


class DatasetError(ValueError):
    """A data set cannot be opened: its configuration, its list of files or its archive."""


class SampleError(DatasetError):
    """One sample of a data set cannot be read; the others can. The parts of the message are attributes."""

    def __init__(self, dataset: str, sample: str, file: str, reason: str) -> None:
        super().__init__(f"{dataset}: sample {sample}: {file}: {reason}")
        self.dataset, self.sample, self.file, self.reason = dataset, sample, file, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleError, (self.dataset, self.sample, self.file, self.reason)


class DatasetWarning(UserWarning):
    """A data set can be read, but numbers made with it may not be those that are meant."""

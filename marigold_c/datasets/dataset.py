"""A data set for evaluation: its samples, their images and truths, the names of predictions.

    data = open_dataset("config/dataset_depth/data_nyu_test.yaml", "/data", task="depth")
    for index, sample in enumerate(data.samples):
        image, truth = data.read_image(index), data.read_truth(index)

Called by the evaluation commands, by training and by users. Opening reads the list and maps the index of the archive;
images and truths are read one by one. A Dataset can be pickled and may be used from several processes and threads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, DatasetWarning, SampleError
from ..images.readers import InputError, stored_size
from .crops import CROPS
from .decoding import decode_rgb, decode_unit_colours
from .folders import find_samples
from .lists import NO_TRUTH, Line, check_list, read_list
from .measured_points import read_points
from .names import clean_name
from .prediction_names import prediction_name
from .settings import Protocol, Settings, Truth, drawing
from .sources import Source, open_source

_HEAD = 1 << 16  # bytes of an image that nearly always tell its size


@dataclass(frozen=True)
class SampleFiles:
    """One line of the list. name: the image's path, by which the sample is known. members: all its files, in order."""

    index: int
    name: str
    members: tuple[str, ...]


class _Reader:
    """The files of one sample; implements truths.SampleReader."""

    def __init__(self, dataset: Dataset, sample: SampleFiles) -> None:
        self._dataset, self._sample = dataset, sample

    def member(self, role: str) -> str | None:
        columns = self._dataset.settings.columns
        position = columns.index(role) if role in columns else len(self._sample.members)
        return self._sample.members[position] if position < len(self._sample.members) else None

    @contextmanager
    def blame(self, role: str) -> Iterator[None]:
        try:
            yield
        except SampleError:
            raise
        except (InputError, DatasetError, OSError) as error:
            file = self.member(role) or f"(no {role} in the list)"
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise SampleError(self._dataset.display_name, self._sample.name, file, reason) from error

    def decode(self, role: str, function: Callable[..., Any], *arguments: Any) -> Any:
        with self.blame(role):
            name = self.member(role)
            if name is None or name == NO_TRUTH:
                raise InputError(f"the list names no {role} for this sample")
            return function(self._dataset.source.read(name), *arguments)

    def image_size(self) -> tuple[int, int]:
        with self.blame("image"):
            head = self._dataset.source.read(self._sample.members[0], _HEAD)
            try:
                return stored_size(head)
            except InputError:
                if len(head) < _HEAD:
                    raise
            return stored_size(self._dataset.source.read(self._sample.members[0]))


def _decode_tone_mapped(data: bytes) -> NDArray[np.uint8]:
    """An image in EXR: clipped to [0, 1], gamma encoded, and cut to 8 bits."""
    return (decode_unit_colours(data, True) * np.float32(255)).astype(np.uint8)


class Dataset:
    """See open_dataset, which makes it.

    name, display_name, task; min_depth and max_depth in metres (None but for depth): the range that predictions are
    clipped to; alignment_max_res: largest side at which predictions are aligned for the published numbers, or None;
    protocol: processing resolution and seed of the published numbers; targets: names of the maps (intrinsics);
    list_path: the list of samples, or None; warnings: what a report on numbers made with this data set should say.
    """

    def __init__(self, settings: Settings, source: Source, list_path: Path | None, lines: Sequence[Line]) -> None:
        self.settings, self.source, self.list_path = settings, source, list_path
        description = settings.description
        self.name, self.display_name, self.task = settings.name, settings.display_name, description.task
        self.min_depth, self.max_depth = settings.min_depth, settings.max_depth
        self.protocol: Protocol = description.protocol
        self.alignment_max_res = description.protocol.alignment_max_resolution
        self.targets = settings.targets
        self.warnings: tuple[str, ...] = ()
        if description.drops_none:
            lines = [line for line in lines if line.files[1:2] != (NO_TRUTH,)]
        self.samples: Sequence[SampleFiles] = [
            SampleFiles(index, line.files[0], line.files) for index, line in enumerate(lines)
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"<Dataset {self.display_name}: {len(self)} samples in {self.source.path}>"

    def read_image(self, index: int) -> NDArray[np.uint8]:
        """The photograph as uint8 (H, W, 3), cropped as the data set is. SampleError names the sample and the file."""
        reader = _Reader(self, self.samples[index])
        tone_mapped = self.samples[index].name.lower().endswith(".exr")
        image: NDArray[np.uint8] = reader.decode("image", _decode_tone_mapped if tone_mapped else decode_rgb)
        if self.settings.crop is not None:
            with reader.blame("image"):
                image = np.ascontiguousarray(image[CROPS[self.settings.crop](*image.shape[:2])])
        return image

    def read_truth(self, index: int) -> Truth:
        """The truth and its mask. SampleError: a file is missing, damaged, or does not have the size of the image."""
        truth: Truth = self.settings.description.read_truth(_Reader(self, self.samples[index]), self.settings)
        return truth

    def read_points(self, index: int) -> NDArray[np.float32]:
        """Of depth completion, the measured points: metres (H, W) of the image, 0 where nothing was measured.

        SampleError: a file is missing, damaged, or does not have the size of the image. What the values are worth is
        not looked at.
        """
        if self.task != "completion":
            raise ValueError(f"{self.display_name} is a data set for {self.task}: it has no measured points")
        return read_points(_Reader(self, self.samples[index]), self.settings, lambda: self.read_truth(index))

    def prediction_path(self, index: int, target: str | None = None) -> str:
        """Where the prediction for a sample is stored, relative to the folder of predictions, as prs-eth/Marigold does.

        `target`: one of `targets`; needed for intrinsics, None otherwise. DatasetError: the image has an unusual name.
        """
        if (self.task == "iid") != (target is not None):
            raise ValueError(f"target={target!r}: name a target for intrinsic images, and only for them")
        naming = self.settings.description.naming
        folder = clean_name(self.settings.folders.get("image", ""))
        return prediction_name(self.samples[index].name, naming, target, folder)

    def close(self) -> None:
        """Closes the archive."""
        self.source.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _find_list(name: str, config: Path | None) -> Path:
    """The list, relative to the working folder or to a folder above the configuration, as the reference lays them."""
    folders = [Path(), *(config.absolute().parents if config else ())]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    above = f" or above {config.parent}" if config else ""
    raise DatasetError(f"{config or 'the configuration'}: the list {name} is not in the working folder{above}")


def _check_lines(settings: Settings, path: Path, lines: Sequence[Line]) -> None:
    needed = len(settings.columns) - ("mask" in settings.columns and settings.description.by_folders)
    for line in lines:
        if len(line.files) < needed:
            names = ", ".join(settings.columns[:needed])
            raise DatasetError(f"{path}: line {line.number} names {len(line.files)} files; {settings.name} has {names}")


def _notes(settings: Settings, lines: Sequence[Line]) -> Iterator[str]:
    """What a list makes doubtful."""
    if settings.list_name is not None:
        wrong = check_list(settings.name, settings.list_name, lines, len(settings.columns))
        if wrong is not None:
            yield wrong
    first: dict[str, int] = {}
    for line in lines:
        before = first.setdefault(line.files[0], line.number)
        if before != line.number:
            yield f"{settings.list_name}: lines {before} and {line.number} name one image, {line.files[0]}"
            return


def _with_points(settings: Settings, source: Source, origin: str) -> Settings:
    """Where points are looked for in a folder and there is none, they are drawn as the data set's protocol says."""
    if settings.points is not None or "sparse" not in settings.folders:
        return settings
    folder = clean_name(settings.folders["sparse"]) + "/"
    if any(name.startswith(folder) for name in source.names()):
        return settings
    points = settings.description.points
    if points is None:
        raise DatasetError(
            f"{origin}: there are no measured points in {source.path / folder}; `points: N` draws N of each truth"
        )
    return drawing(settings, points)


def open_dataset(config: str | Path | Mapping[str, Any], base_data_dir: str | Path, *, task: str) -> Dataset:
    """The data set that a configuration describes, in the folder of all data sets.

    config: a YAML file of prs-eth/Marigold (config/dataset_depth/..., needs the extra `evaluation`), or its keys; for
    own data: name: folder_depth | folder_normals | folder_iid, disp_name, dir, images, truth, optionally mask,
    filenames and, for depth, min_depth, max_depth, units_per_metre (docs/datasets.md). Of depth completion dir alone is
    needed; layout, points and more say what differs.
    base_data_dir: what `dir` is relative to. An archive may lie there unpacked, under its name without .tar.
    task: "depth", "normals", "iid" or "completion".

    DatasetError: the configuration, the list or the archive is missing or wrong. DatasetWarning: the list is not the
    published one, or names an image twice. MissingExtra: PyYAML or pydantic is not installed.
    """
    from .config import read_config  # needs the extra `evaluation`

    path = None if isinstance(config, Mapping) else Path(config)
    origin = "the configuration" if path is None else str(path)
    settings = read_config(config, task)
    list_path = None if settings.list_name is None else _find_list(settings.list_name, path)
    lines = None if list_path is None else read_list(list_path)
    if lines is not None and list_path is not None:
        _check_lines(settings, list_path, lines)
    source = open_source(Path(base_data_dir) / settings.directory)
    settings = _with_points(settings, source, origin)
    if lines is None:
        lines = find_samples(source, settings.folders, origin, settings.words)
    dataset = Dataset(settings, source, list_path, lines)
    if not dataset.samples:
        raise DatasetError(f"{list_path}: no sample of the list has a truth")
    dataset.warnings = tuple(_notes(settings, lines))
    for note in dataset.warnings:
        warnings.warn(note, DatasetWarning, stacklevel=2)
    return dataset

"""The weight files of a checkpoint as far as their headers tell of them: those in a folder, or those of a repository on
the hub, of which nothing else is fetched. Read by inspection.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .folders import STEMS, hub_listing, weight_patterns
from .safetensors_header import read_header, tensors_of


@dataclass(frozen=True)
class StoredWeights:
    """Weights, read or not.

    place: the folder or repository, for messages. sizes: bytes of every file of the networks, by its path there.
    read: the tensors' entries in the header of a safetensors file, {name: {"dtype": ..., "shape": ...}};
    CheckpointError for one that is damaged.
    """

    place: str
    sizes: dict[str, int]
    read: Callable[[str], dict[str, Any]]

    def files(self, component: str, variant: str | None) -> list[str]:
        """Those with a component's weights under a variant."""
        patterns = weight_patterns(component, variant)
        return sorted(name for name in self.sizes if any(fnmatchcase(name, pattern) for pattern in patterns))


def stored_in(folder: Path) -> StoredWeights:
    """Of a folder here."""
    files = [path for component in STEMS for path in (folder / component).glob("*") if path.is_file()]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return StoredWeights(str(folder), sizes, lambda name: tensors_of(read_header(folder / name)))


def stored_of(path_or_id: str) -> tuple[Path, StoredWeights | None]:
    """The folder with a checkpoint's configurations, and its weights; None for a packed file, which has both in one.

    Of a hub id the configurations are downloaded, and of its weights only the headers, when they are read. Raises as
    resolve_folder does.
    """
    folder, listing = hub_listing(path_or_id)
    if listing is not None:
        repository, sizes = listing.repository, listing.sizes
        return folder, StoredWeights(repository.name, sizes, lambda name: repository.header(folder, name, sizes[name]))
    return folder, stored_in(folder) if folder.is_dir() else None

"""Where a checkpoint lies: a folder, a packed file, a hub id that is downloaded, or the small one in the package."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path

from ..errors import CheckpointError
from .hub import Repository, damaged_blobs

WEIGHT_STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
# Which some checkpoints have: the second UNet of Marigold-HR.
OPTIONAL_STEMS = {"boosting_unet": "diffusion_pytorch_model"}
STEMS = WEIGHT_STEMS | OPTIONAL_STEMS
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FOLDER_OF_HUB = re.compile(rf"({_HUB_ID.pattern})/([A-Za-z0-9][\w.-]*)")
_SMALL_FILES = (
    *("model_index.json", "README.md", "LICENSE*", "scheduler/scheduler_config.json"),
    *(f"{component}/config.json" for component in STEMS),
    # What the tokenizer's two ids are read from; which of them exist depends on who wrote the folder.
    *(f"tokenizer/{name}.json" for name in ("tokenizer_config", "special_tokens_map", "vocab", "tokenizer")),
)
# AutoencoderTiny lies at the root of its repositories.
_VAE_FILES, _VAE_WEIGHTS = ("config.json", "README.md", "LICENSE*"), {"": "diffusion_pytorch_model"}


# The task's name to the engine, and the command's.
_SHIPPED = {
    "depth": "marigold-tiny-depth",
    "normals": "marigold-tiny-normals",
    "intrinsics": "marigold-tiny-iid-lighting",
    "iid": "marigold-tiny-iid-lighting",
}


def default_checkpoint(task: str = "depth") -> Path:
    """The path of the small checkpoint in the package: a demonstration, far from the quality of the papers'.

    Args:
        task: "depth", "normals", or "intrinsics" ("iid").

    The variable MARIGOLD_CHECKPOINTS names another folder to look in, for those who install code and data apart.

    Raises:
        ValueError: Another task.
    """
    if task not in _SHIPPED:
        raise ValueError(f"no checkpoint for {task!r} is shipped; shipped: {', '.join(_SHIPPED)}")
    place = os.environ.get("MARIGOLD_CHECKPOINTS") or Path(__file__).parents[1] / "checkpoints"
    return Path(place) / _SHIPPED[task]


def _patterns(component: str, stem: str, variant: str | None) -> list[str]:
    if variant is None:
        names = [f"{stem}.safetensors", f"{stem}-?????-of-?????.safetensors", f"{stem}.safetensors.index.json"]
    else:
        names = [
            f"{stem}.{variant}.safetensors",
            f"{stem}.{variant}-?????-of-?????.safetensors",
            f"{stem}-?????-of-?????.{variant}.safetensors",
            f"{stem}.safetensors.index.{variant}.json",
            f"{stem}.{variant}.safetensors.index.json",
        ]
    return [f"{component}/{name}" if component else name for name in names]


def stems_of(folder: Path) -> dict[str, str]:
    """The components of a checkpoint's folder that have weights, and the beginning of their files' names."""
    found = {name: stem for name, stem in OPTIONAL_STEMS.items() if (folder / name / "config.json").is_file()}
    return WEIGHT_STEMS | found


def weight_patterns(component: str, variant: str | None) -> list[str]:
    """File names of a component's weights: one file, or shards with their index."""
    return _patterns(component, STEMS[component], variant)


def weight_files(folder: Path, component: str, variant: str | None) -> list[Path]:
    """The files of a component's weights that are opened; component "" is a network at the folder's root.

    CheckpointError if there are none.
    """
    stem = STEMS[component or "vae"]
    where = folder / component
    names = [path.name for path in where.iterdir()]
    for one in (None, "fp16") if variant is None else (variant, None):
        found = _complete_set(names, "", stem, one)
        if found:
            return [where / name for name in found]
    raise CheckpointError(f"{where}: no safetensors weights {stem}")


# ---- the hub ----


def _complete_set(names: Collection[str], component: str, stem: str, variant: str | None) -> list[str]:
    """Those of the names that hold a component's weights: one file, or an index and all its shards; else none."""
    single, *sharded = _patterns(component, stem, variant)
    if single in names:
        return [single]
    found = {pattern: sorted(name for name in names if fnmatchcase(name, pattern)) for pattern in sharded}
    indices = [name for pattern, matches in found.items() if pattern.endswith(".json") for name in matches]
    for matches in (matches for pattern, matches in found.items() if not pattern.endswith(".json")):
        if indices and matches and f"-of-{len(matches):05d}" in matches[0]:
            return [*indices, *matches]
    return []


def _select(names: Collection[str], stems: dict[str, str], variant: str | None) -> tuple[list[str], list[str]]:
    """The weight files to load, and the components that have none.

    A component that lacks the variant comes in the default one, and without a default one, as "fp16"; but a variant
    that was asked for must be that of one component at least.
    """
    chosen = {}
    for component, stem in stems.items():
        sets = (
            _complete_set(names, component, stem, one)
            for one in ((None, "fp16") if variant is None else (variant, None))
        )
        chosen[component] = next((one for one in sets if one), [])
    files = [name for one in chosen.values() for name in one]
    if variant is not None and variant not in _variants_of(files, stems):
        return [], list(stems)
    return files, [component for component, one in chosen.items() if not one]


def _variants_of(names: Collection[str], stems: dict[str, str]) -> set[str | None]:
    shape = re.compile(
        rf"(?:{'|'.join(set(stems.values()))})(?:\.(\w+))?(?:-\d{{5}}-of-\d{{5}})?(?:\.(\w+))?\.safetensors"
    )
    matches = (shape.fullmatch(name.rsplit("/", 1)[-1]) for name in names)
    return {match[1] or match[2] for match in matches if match}


def _explain_lack(
    repository: Repository, names: Collection[str], stems: dict[str, str], lacking: list[str], variant: str | None
) -> ValueError:
    where = " and ".join(component or "its root" for component in lacking)
    variants = _variants_of(names, stems)
    if variants and variant is not None and variant not in variants:
        there = ", ".join(sorted(one or "the default" for one in variants))
        return ValueError(f"{repository.name!r} has no weights of variant {variant!r}; it has: {there}")
    pickled = any(name.endswith((".bin", ".ckpt", ".pt", ".pth")) for name in names)
    hint = " (only pickled ones, which are not read: convert them to safetensors)" if pickled else ""
    return CheckpointError(f"{repository.name!r} has no safetensors weights in {where}{hint}")


def _only_in_part(repository: Repository, folder: Path, error: OSError) -> FileNotFoundError:
    return FileNotFoundError(
        f"{repository.name!r} is only in part in the cache ({folder}), and the rest cannot be had: {error}"
    )


def _present(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _download(
    repository: Repository,
    small_files: tuple[str, ...],
    stems_in: Callable[[Path], dict[str, str]],
    variant: str | None,
) -> Path:
    """The cache's folder of a repository, with the weights that _select chooses and nothing that is not needed.
    stems_in: the components of a folder with the small files."""
    if variant is not None and not re.fullmatch(r"[\w-]+", variant):
        raise ValueError(f"variant {variant!r} is no plain name such as 'fp16'")
    folder = repository.snapshot(small_files, required=small_files[0])
    stems = stems_in(folder)
    present = _present(folder)
    if all(_complete_set(present, component, stem, variant) for component, stem in stems.items()):
        return folder  # nothing that the hub has could be preferred
    try:
        names = repository.files(folder)
    except OSError as error:
        if _select(present, stems, variant)[1]:
            raise _only_in_part(repository, folder, error) from error
        return folder
    files, lacking = _select(names, stems, variant)
    if lacking:
        raise _explain_lack(repository, names, stems, lacking, variant)
    repository.fetch(folder, files)
    return folder


def resolve_folder(
    path_or_id: str | PathLike[str],
    variant: str | None = None,
    cache_dir: str | PathLike[str] | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    without: Collection[str] = (),
) -> Path:
    """The folder or packed file of a checkpoint, downloaded first if `path_or_id` is a hub id; without the weights of
    the components in `without`.

    Raises FileNotFoundError, PermissionError or ConnectionError (all OSError) if there is no such repository or
    revision, if it is gated, or if the hub cannot be reached and the cache does not have it; ValueError for a variant
    that it lacks; CheckpointError for a file that arrives damaged.
    """
    if (folder := _local_folder(path_or_id)) is not None:
        return folder
    repository = Repository(str(path_or_id), cache_dir, revision, local_files_only, token)

    def stems(folder: Path) -> dict[str, str]:
        return {component: stem for component, stem in stems_of(folder).items() if component not in without}

    return _download(repository, _SMALL_FILES, stems, variant)


@dataclass(frozen=True)
class Listing:
    """What the hub has of a repository: bytes by file."""

    repository: Repository
    sizes: dict[str, int]


def hub_listing(path_or_id: str | PathLike[str]) -> tuple[Path, Listing | None]:
    """The folder or packed file of a checkpoint, and None; of a hub id a folder with its configurations alone, and what
    the hub has beside them: None where the cache has weights and the hub is not asked or cannot be reached.

    Raises as resolve_folder does.
    """
    if (folder := _local_folder(path_or_id)) is not None:
        return folder, None
    repository = Repository(str(path_or_id))
    folder = repository.snapshot(_SMALL_FILES, required=_SMALL_FILES[0])
    try:
        return folder, Listing(repository, repository.files(folder))
    except OSError as error:
        if not any(name.endswith(".safetensors") for name in _present(folder)):
            raise _only_in_part(repository, folder, error) from error
        return folder, None


def resolve_vae_folder(
    path_or_id: str | PathLike[str],
    cache_dir: str | PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    revision: str | None = None,
) -> Path:
    """The folder of a VAE that lies at the root of its repository (AutoencoderTiny): config.json beside its weights.
    Or a packed file, whose VAE is meant.

    Downloaded first if `path_or_id` is a hub id; raises as resolve_folder does.
    """
    if (folder := _local_folder(path_or_id)) is None:
        repository = Repository(str(path_or_id), cache_dir, revision, local_files_only, token)
        return _download(repository, _VAE_FILES, lambda _folder: _VAE_WEIGHTS, None)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is no folder of a VAE: it has no config.json")
    return folder


def resolve_unet_folder(
    path_or_id: str | PathLike[str],
    cache_dir: str | PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    revision: str | None = None,
) -> Path:
    """The folder of a UNet alone: config.json beside its weights, as "guangkaixu/genpercept-models/unet_depth_v2".

    Downloaded first if `path_or_id` is a hub id followed by a folder in that repository; raises as resolve_folder does.
    """
    path = Path(path_or_id).expanduser()
    if not path.exists() and isinstance(path_or_id, str) and (match := _FOLDER_OF_HUB.fullmatch(path_or_id)):
        repository = Repository(match[1], cache_dir, revision, local_files_only, token)
        small = (f"{match[2]}/config.json", "README.md", "LICENSE*")
        stems = {match[2]: WEIGHT_STEMS["unet"]}
        return _download(repository, small, lambda _folder: stems, None) / match[2]
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path_or_id} is no folder of a UNet: it has no config.json")
    return path


def _local_folder(path_or_id: str | PathLike[str]) -> Path | None:
    """The folder or packed file if it is one here, None if the name is that of a repository on the hub."""
    path = Path(path_or_id).expanduser()
    if path.exists():
        return path
    if isinstance(path_or_id, str) and _HUB_ID.fullmatch(path_or_id):
        return None
    raise FileNotFoundError(
        f"no checkpoint at {str(path_or_id)!r}: no such folder or file, and not a hub id (owner/name)"
    )


@contextmanager
def explaining_damage(folder: Path) -> Iterator[None]:
    """Around opening a folder: where a file of the hub's cache was damaged since it came, says how to fetch it anew.

    Costs nothing unless a CheckpointError passes; then the folder's files are compared with their checksums.
    """
    try:
        yield
    except CheckpointError as error:
        damaged = damaged_blobs(folder) if folder.is_dir() else {}
        if not damaged:
            raise
        names = ", ".join(str(path) for path in damaged)
        blobs = " ".join(f"'{blob}'" for blob in damaged.values())
        raise CheckpointError(
            f"{error}; not what was downloaded any more: {names}; to download anew, delete {blobs} and load again"
        ) from error

"""Repositories of the hub, through huggingface_hub into its cache. Called by folders.py; imports huggingface_hub when
it is needed, as it is optional.

Small files are left to huggingface_hub. Weight files are fetched here first, with its HTTP function and into the place
in its cache where it then finds them, because huggingface_hub (2.4) goes on with an interrupted file only within one
call, deletes what has arrived when the call or the process ends, and does not compare a file with its checksum. Here
what has arrived stays as BLOB.incomplete, the next call asks for the rest, and a file gets its name only when its
SHA-256 is the one that the hub announced. A version of huggingface_hub that lacks what this needs of its internals
(_internals) downloads in its own way, and the checksum is compared afterwards.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..extras import install_command
from ..progress import tqdm_class

_BLOB_NAME = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_IDLE_ATTEMPTS = 2  # how often in a row nothing may arrive; each is up to five attempts of huggingface_hub's


@cache
def _hidden_bar() -> Any:
    """A class of progress bars that do not show: small files, and files that are in the cache already, need none."""

    class HiddenBar(tqdm_class()):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})

    return HiddenBar


@dataclass(frozen=True)
class Repository:
    """A repository as from_pretrained names it. Every method raises OSError, or a subclass, that names it."""

    name: str
    cache_dir: str | PathLike[str] | None = None
    revision: str | None = None
    local_files_only: bool = False
    token: str | bool | None = None

    def __post_init__(self) -> None:
        try:
            import huggingface_hub  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"{self.name!r} is no folder here, and downloading it from the hub needs huggingface_hub: "
                f"{install_command('hub')}"
            ) from error

    @property
    def offline(self) -> bool:
        from huggingface_hub import constants

        return self.local_files_only or bool(constants.HF_HUB_OFFLINE)

    @property
    def _cache(self) -> Path:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE if self.cache_dir is None else self.cache_dir).expanduser()

    def snapshot(self, patterns: Sequence[str], required: str) -> Path:
        """The cache's folder of the revision, with the files of the patterns in it. `required` must be among them."""
        from huggingface_hub import snapshot_download

        with self._explained():
            folder = snapshot_download(
                self.name,
                revision=self.revision,
                cache_dir=self._cache,
                local_files_only=self.local_files_only,
                token=self.token,
                allow_patterns=list(patterns),
                tqdm_class=_hidden_bar(),
            )
        if not (Path(folder) / required).is_file():
            where = "the cache has none of it" if self.offline else "the repository has no such file"
            raise FileNotFoundError(f"{self.name!r} is no checkpoint in diffusers layout, no {required}: {where}")
        return Path(folder)

    def files(self, folder: Path) -> dict[str, int]:
        """All files that the hub has at the commit of a snapshot's folder, and their bytes."""
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        if self.offline:
            raise FileNotFoundError("the hub is not asked in offline mode")
        with self._explained():
            tree = HfApi().list_repo_tree(self.name, recursive=True, revision=folder.name, token=self.token)
            return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}

    def header(self, folder: Path, name: str, size: int) -> dict[str, Any]:
        """The tensors' types and shapes in a safetensors file of so many bytes at the commit of a snapshot's folder.

        Asks for the first 100 kB, and for the rest of the header where it is longer. CheckpointError for a damaged one.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import SafetensorsParsingError

        if size < 8:
            raise CheckpointError(f"{self.name}/{name}: no safetensors file: it has {size} bytes")
        with self._explained():
            try:
                found = HfApi().parse_safetensors_file_metadata(self.name, name, revision=folder.name, token=self.token)
            except (SafetensorsParsingError, AttributeError, LookupError, TypeError, ValueError) as error:
                # huggingface_hub takes it for granted that a header that is JSON has the right types in it.
                raise CheckpointError(f"{self.name}/{name}: no safetensors file, or damaged: {error}") from error
        return {key: {"dtype": one.dtype, "shape": one.shape} for key, one in found.tensors.items()}

    def fetch(self, folder: Path, names: Iterable[str]) -> None:
        """Downloads the weight files that a snapshot's folder lacks. CheckpointError where one arrives damaged."""
        from huggingface_hub import hf_hub_download

        for name in names:
            if (folder / name).is_file():
                continue
            with self._explained():
                verified = self._fetch_blob(folder, name)
                path = hf_hub_download(self.name, name, revision=folder.name, cache_dir=self._cache, token=self.token)
                if not verified:
                    blob = Path(path).resolve()
                    self._verify(blob, blob.name, name, None)

    def _fetch_blob(self, folder: Path, name: str) -> bool:
        """Puts a file where huggingface_hub's cache has it, under the name of its checksum; False if that is left to
        huggingface_hub."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        internals = _internals()
        if internals is None:
            return False

        url = hf_hub_url(self.name, name, revision=folder.name)
        metadata = get_hf_file_metadata(url, token=self.token)
        if metadata.etag is None or not _BLOB_NAME.fullmatch(metadata.etag):
            return False  # a mirror that names files in another way: huggingface_hub knows what to do
        storage = folder.parent.parent
        blob = storage / "blobs" / metadata.etag
        lock = storage.parent / ".locks" / storage.name / f"{metadata.etag}.lock"
        for parent in (blob.parent, lock.parent):
            parent.mkdir(parents=True, exist_ok=True)
        with internals.lock(lock):
            if not blob.exists():
                partial = blob.with_name(f"{blob.name}.incomplete")
                self._transfer(internals, url, partial, name, metadata.size)
                self._verify(partial, blob.name, name, metadata.size)
                partial.replace(blob)
        return True

    def _transfer(self, internals: _Internals, url: str, partial: Path, name: str, size: int | None) -> None:
        """Appends to `partial` what it lacks, as long as something arrives at all."""
        # The address of the repository, not of the store it leads to: that one expires. HTTP clients keep the token
        # from the other host.
        headers = {**internals.headers(token=self.token), "Accept-Encoding": "identity"}
        with partial.open("ab") as file:
            if size is not None and file.tell() > size:
                file.truncate(0)
        idle, most = 0, partial.stat().st_size
        while True:
            before = partial.stat().st_size
            try:
                with partial.open("ab") as file:
                    internals.http_get(
                        url, file, resume_size=before, headers=headers, expected_size=size, displayed_filename=name
                    )
                return
            except Exception as error:  # the classes are those of the HTTP client, another one in each major version
                arrived = partial.stat().st_size
                if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
                    raise OSError(error.errno, error.strerror, str(partial)) from error  # the disk's, as when full
                if _is_refusal(error) or "Consistency check failed" in str(error):
                    partial.unlink()
                    raise CheckpointError(
                        f"{self.name}/{name}: the hub sent {arrived} bytes and announced {size}; the file was "
                        "discarded, load again to download it anew"
                    ) from error
                # A server that ignores ranges begins anew each time: only what is more than ever before counts.
                idle, most = (0, arrived) if arrived > most else (idle + 1, most)
                if idle == _IDLE_ATTEMPTS:
                    raise ConnectionError(
                        f"downloading {self.name}/{name} stopped at {arrived} of {size} bytes: {error}; what has "
                        "arrived is kept, load again to download the rest"
                    ) from error

    def _verify(self, partial: Path, checksum: str, name: str, size: int | None) -> None:
        arrived = partial.stat().st_size
        if size is not None and arrived != size:
            found = f"{arrived} bytes instead of {size}"
        elif _SHA256.fullmatch(checksum) and (digest := _sha256(partial)) != checksum:
            found = f"SHA-256 {digest} instead of {checksum}"
        else:
            return
        partial.unlink()
        raise CheckpointError(
            f"{self.name}/{name} arrived damaged: {found}; it was discarded, load again to download it anew"
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """huggingface_hub's exceptions as ours: what is wrong with which repository, and what to do."""
        from huggingface_hub import constants
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        hub, revision = constants.ENDPOINT, self.revision or constants.DEFAULT_REVISION
        try:
            yield
        except GatedRepoError as error:
            raise PermissionError(
                f"{self.name!r} is gated: accept its conditions at {hub}/{self.name}, then give a token of that "
                "account (token=..., or `hf auth login`)"
            ) from error
        except RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"{self.name!r} is neither a folder here nor a repository on {hub}; if it is private, give a token "
                "(token=..., or `hf auth login`)"
            ) from error
        except RevisionNotFoundError as error:
            raise FileNotFoundError(
                f"{self.name!r} has no revision {revision!r}; give a branch, a tag or a full commit hash"
            ) from error
        except LocalEntryNotFoundError as error:
            absent = f"{self.name!r} at revision {revision!r} is not, or not completely, in the cache {self._cache}"
            if self.offline:
                raise FileNotFoundError(
                    f"{absent}, and the hub is not asked in offline mode (local_files_only, HF_HUB_OFFLINE); load it "
                    "once with a network"
                ) from error
            raise ConnectionError(f"{absent}, and {hub} cannot be reached: {error.__cause__ or error}") from error
        except HfHubHTTPError as error:
            raise ConnectionError(f"{hub} does not give {self.name!r}: {error}") from error
        except (OSError, ValueError, MemoryError):
            raise
        except Exception as error:  # the HTTP client's
            raise ConnectionError(f"{hub} cannot be reached for {self.name!r}: {error}") from error


@dataclass(frozen=True)
class _Internals:
    """What is used of huggingface_hub beyond the interface that it documents."""

    http_get: Callable[..., Any]
    lock: Callable[[Path], AbstractContextManager[Any]]
    headers: Callable[..., dict[str, str]]


def _internals() -> _Internals | None:
    """None where the installed version has them not, or not with the arguments that are given here."""
    try:
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import WeakFileLock, build_hf_headers
    except ImportError:
        return None
    if (
        not {"resume_size", "headers", "expected_size", "displayed_filename"}
        <= inspect.signature(http_get).parameters.keys()
    ):
        return None
    return _Internals(http_get, WeakFileLock, build_hf_headers)


def _is_refusal(error: Exception) -> bool:
    """Whether the server says that the part asked for is beyond the end of what it has."""
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None) == 416


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged_blobs(folder: Path) -> dict[Path, Path]:
    """Files of a snapshot's folder that are not what the hub announced, and where the cache has them."""
    blobs = {path: path.resolve() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        path: blob
        for path, blob in blobs.items()
        if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) and _sha256(blob) != blob.name
    }


def quiet_downloads() -> None:
    """No progress bars from here on in this process; without huggingface_hub there are none."""
    try:
        from huggingface_hub.utils import disable_progress_bars
    except ImportError:
        return
    disable_progress_bars()

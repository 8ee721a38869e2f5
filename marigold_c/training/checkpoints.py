"""Checkpoints of a run: folders that appear whole or not at all, and that the pipelines (and diffusers) load.

Called by run.py. A folder is written beside its name, flushed to the disk, and put in place by renaming; the folder
that it replaces is removed after that. So there is a whole `latest` at every moment, or, if the process was killed
between the two renames, a whole `_old_latest` that is put back on the next start.

    RUN/checkpoint/latest       what to go on from: unet/, scheduler/, trainer_state.safetensors, training_state.json
    RUN/checkpoint/iter_NNNNNN  backups, without the state of the optimiser
    RUN/checkpoint/best         the best of all validations

Each holds the rest of the base checkpoint as links (or copies), and a model_index.json.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from ..atomic_files import write_atomically
from ..errors import CheckpointError
from ..loading.config import read_json_object

LATEST, BEST = "latest", "best"
STATE_FILE = "training_state.json"
TRAINER_FILE = "trainer_state.safetensors"
_OLD, _PART = "_old_", ".part"
_BACKUP = re.compile(r"iter_(\d{6,})")
_DIFFUSERS = "0.42.1"  # whose classes take these options
_COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer")
_LIBRARIES = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}
_PREDICTION_TYPES = {"depth": "depth", "normals": "normals", "iid": "intrinsics"}


def backup_name(iteration: int) -> str:
    return f"iter_{iteration:06d}"


def _flush(folder: Path) -> None:
    """Everything below a folder is on the disk."""
    for parent, _, files in os.walk(folder):
        for name in (*files, "."):
            path = Path(parent) / name
            if path.is_symlink():
                continue
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _flush_entry(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class CheckpointStore:
    """The checkpoints of one run; only one process at a time has it open for writing."""

    def __init__(self, folder: Path, writes: bool = True) -> None:
        """Makes the folder, and finishes what a killed process left. RuntimeError: another process trains there.

        writes False: for the other processes of the run that writes; nothing is made or changed.
        """
        self.folder = folder
        if not writes:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lock: IO[str] = (folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise RuntimeError(f"{folder}: another process trains there") from None
        self._recover()

    def close(self) -> None:
        self._lock.close()

    def _recover(self) -> None:
        for path in list(self.folder.iterdir()):
            if path.name.startswith(".") and path.name.endswith(_PART):
                shutil.rmtree(path)
            elif path.name.startswith(_OLD):
                name = self.folder / path.name.removeprefix(_OLD)
                if name.exists():
                    shutil.rmtree(path)
                else:
                    path.rename(name)

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def latest(self) -> Path | None:
        """The checkpoint to go on from, if there is one."""
        path = self.path(LATEST)
        return path if (path / STATE_FILE).is_file() else None

    def save(self, name: str, write: Callable[[Path], None]) -> Path:
        """Makes the checkpoint `name`: `write` fills an empty folder. If it fails, the old one stays as it is."""
        target, part, old = self.path(name), self.path(f".{name}{_PART}"), self.path(f"{_OLD}{name}")
        if part.exists():
            shutil.rmtree(part)
        try:
            part.mkdir()
            write(part)
            _flush(part)
            if target.exists():
                target.rename(old)
            part.rename(target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            if old.exists() and not target.exists():
                old.rename(target)
            raise
        _flush_entry(self.folder)
        if old.exists():
            shutil.rmtree(old)
        return target

    def duplicate(self, source: Path, name: str) -> Path:
        """`source` under another name without its trainer state. Its files are never changed, so they are linked."""

        def write(folder: Path) -> None:
            for entry in source.iterdir():
                if entry.name in (TRAINER_FILE, STATE_FILE):
                    continue
                if entry.is_symlink():
                    (folder / entry.name).symlink_to(entry.readlink())
                elif entry.is_dir():
                    shutil.copytree(entry, folder / entry.name, symlinks=True, copy_function=_link_or_copy)
                else:
                    _link_or_copy(entry, folder / entry.name)

        return self.save(name, write)

    def backups(self) -> list[Path]:
        """Oldest first."""
        found = [(int(match[1]), path) for path in self.folder.iterdir() if (match := _BACKUP.fullmatch(path.name))]
        return [path for _, path in sorted(found)]

    def drop_backups(self, keep: int) -> None:
        """Removes all backups but the `keep` latest."""
        for path in self.backups()[:-keep]:
            shutil.rmtree(path)


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """In a new checkpoint, or in the place of what a whole one says."""
    text = json.dumps(state, indent=1) + "\n"
    write_atomically(folder / STATE_FILE, lambda file: file.write(text.encode()))


def read_state(folder: Path) -> dict[str, Any]:
    """What write_state wrote. CheckpointError if it cannot be read."""
    return dict(read_json_object(folder / STATE_FILE))


def model_index(task: str, class_name: str, options: Mapping[str, Any], scheduler: str) -> dict[str, Any]:
    """model_index.json of a checkpoint of ours, as diffusers reads it."""
    return {
        "_class_name": class_name,
        "_diffusers_version": _DIFFUSERS,
        "prediction_type": _PREDICTION_TYPES[task],
        **options,
        **_LIBRARIES,
        "scheduler": ["diffusers", scheduler],
    }


def boosting_index(base: Path) -> dict[str, Any]:
    """What model_index.json says of the second UNet of Marigold-HR: that it is there, and the order of its latents."""
    stated = read_json_object(base / "model_index.json")
    order = {key: stated[key] for key in ("boosting_inputs",) if key in stated}
    return {"boosting_unet": _LIBRARIES["unet"], **order}


def complete_checkpoint(folder: Path, base: Path, index: Mapping[str, Any], copy: bool) -> None:
    """Adds model_index.json and the base's other components to a folder with scheduler/ and what was trained.

    copy False: links to the base's folders; they must stay where they are. CheckpointError: the base lacks one.
    """
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for name in _COMPONENTS:
        if (folder / name).is_dir():
            continue
        source = (base / name).resolve()
        if not source.is_dir():
            raise CheckpointError(f"{base}: has no folder {name}, which a checkpoint to start from needs")
        if copy:
            shutil.copytree(source, folder / name)
            continue
        try:
            (folder / name).symlink_to(source, target_is_directory=True)
        except OSError:  # a file system without links
            shutil.copytree(source, folder / name)

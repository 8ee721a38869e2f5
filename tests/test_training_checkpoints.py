"""Checkpoints appear whole or not at all: killed processes, failing disks, two processes."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from marigold_c.errors import CheckpointError
from marigold_c.training.checkpoints import (
    LATEST,
    CheckpointStore,
    backup_name,
    complete_checkpoint,
    model_index,
    read_state,
    write_state,
)

SIZE = 200_000


def write(number: int, folder: Path) -> None:
    """A checkpoint whose files all hold one number."""
    (folder / "unet").mkdir()
    for name in ("unet/weights", "trainer_state.safetensors"):
        (folder / name).write_bytes(bytes([number % 251]) * SIZE)
    write_state(folder, {"iteration": number})


def number_of(folder: Path) -> int:
    """The number, if the checkpoint is whole."""
    number = int(read_state(folder)["iteration"])
    for name in ("unet/weights", "trainer_state.safetensors"):
        data = np.fromfile(folder / name, np.uint8)
        assert len(data) == SIZE and (data == number % 251).all()
    return number


def test_save_replaces_and_leaves_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoint")
    assert store.latest is None
    for number in (1, 2, 3):
        store.save(LATEST, lambda folder, n=number: write(n, folder))  # type: ignore[misc]
        assert store.latest is not None and number_of(store.latest) == number
    assert sorted(path.name for path in store.folder.iterdir()) == [".lock", "latest"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_the_old_one_stays_if_writing_fails(tmp_path: Path, error: BaseException) -> None:
    store = CheckpointStore(tmp_path)
    store.save(LATEST, lambda folder: write(1, folder))

    def fail(folder: Path) -> NoReturn:
        write(2, folder)
        raise error

    with pytest.raises(type(error)):
        store.save(LATEST, fail)
    assert store.latest is not None and number_of(store.latest) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "latest"]


def test_the_old_one_comes_back_if_the_new_one_cannot_be_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(LATEST, lambda folder: write(1, folder))
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"):
        store.save(LATEST, lambda folder: write(2, folder))
    assert store.latest is not None and number_of(store.latest) == 1


def test_what_a_killed_process_left_is_put_right(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(LATEST, lambda folder: write(1, folder))
    store.close()
    (tmp_path / ".latest.part").mkdir()
    (tmp_path / ".latest.part" / "unet").mkdir()
    (tmp_path / LATEST).rename(tmp_path / "_old_latest")  # killed between the two renames
    store = CheckpointStore(tmp_path)
    assert store.latest is not None and number_of(store.latest) == 1
    store.close()
    (tmp_path / "_old_latest").mkdir()  # killed while the old one was removed
    store = CheckpointStore(tmp_path)
    assert number_of(store.path(LATEST)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "latest"]


ENDLESS = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_training_checkpoints import write
from marigold_c.training.checkpoints import CheckpointStore
store = CheckpointStore(Path({folder!r}))
number = int(sys.argv[1])
while True:
    store.save("latest", lambda folder: write(number, folder))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.long
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """After each kill there is a whole checkpoint: the last that was told to be saved, or the one after it."""
    script = ENDLESS.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    generator = np.random.default_rng(5)
    last = 0
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", script, str(last + 1)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(generator.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        told = [int(line) for line in (first + process.stdout.read()).split()]
        process.stdout.close()
        process.wait()
        store = CheckpointStore(tmp_path)
        assert store.latest is not None
        found = number_of(store.latest)
        assert found in (told[-1], told[-1] + 1)
        store.close()
        last = found


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(RuntimeError, match="another process trains there"):
        CheckpointStore(tmp_path)
    store.close()
    CheckpointStore(tmp_path).close()


def test_backups_share_their_files_and_have_no_state(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    latest = store.save(LATEST, lambda folder: write(1, folder))
    (latest / "vae").symlink_to("/nowhere")
    for number in (2, 10, 4):
        store.duplicate(latest, backup_name(number))
    assert [path.name for path in store.backups()] == ["iter_000002", "iter_000004", "iter_000010"]
    backup = store.path("iter_000002")
    assert sorted(path.name for path in backup.iterdir()) == ["unet", "vae"]
    assert (backup / "vae").readlink() == Path("/nowhere")
    assert (backup / "unet" / "weights").stat().st_ino == (latest / "unet" / "weights").stat().st_ino
    store.save(LATEST, lambda folder: write(9, folder))
    assert (backup / "unet" / "weights").read_bytes()[0] == 1
    store.drop_backups(1)
    assert [path.name for path in store.backups()] == ["iter_000010"]


@pytest.mark.parametrize("copy", [False, True])
def test_the_rest_of_the_base(tmp_path: Path, copy: bool) -> None:
    base, folder = tmp_path / "base", tmp_path / "out"
    (folder / "unet").mkdir(parents=True)
    for name in ("vae", "text_encoder", "tokenizer"):
        (base / name).mkdir(parents=True)
        (base / name / "config.json").write_text(name)
    index = model_index("iid", "MarigoldIntrinsicsPipeline", {"default_denoising_steps": 4}, "DDIMScheduler")
    assert index["prediction_type"] == "intrinsics"
    complete_checkpoint(folder, base, index, copy)
    assert (folder / "vae" / "config.json").read_text() == "vae"
    assert (folder / "vae").is_symlink() != copy
    (base / "text_encoder" / "config.json").unlink()
    (base / "text_encoder").rmdir()
    (tmp_path / "other" / "unet").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="has no folder text_encoder"):
        complete_checkpoint(tmp_path / "other", base, index, copy)

"""What visitors leave while they are here, and nothing after: photographs in memory, results in a folder each."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from .limits import Photograph

_PREFIX = "marigold-app-"
_LOCK = ".lock"
SESSION = "session-"
KEPT_FOR = 900.0  # seconds for which uploads and the answers of the interface stay


class Workspace:
    """A folder of the server's own, for uploads and results; goes with the server, and those of killed servers go when
    the next one starts."""

    def __init__(self, parent: Path | None = None) -> None:
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        _remove_abandoned(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)).resolve()  # readable by the user alone
        self._lock = (self.path / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def sweep(self, older_than: float = KEPT_FOR) -> None:
        """Removes uploads that nobody took and answers of so many seconds ago; sessions stay."""
        latest = time.time() - older_than
        for one in self.path.iterdir():
            if one.is_dir() and not one.name.startswith(SESSION) and one.stat().st_mtime < latest:
                shutil.rmtree(one, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _remove_abandoned(parent: Path) -> None:
    """Folders whose lock nobody holds: their server was killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError), (folder / _LOCK).open("r+") as lock:
            if folder.stat().st_uid == os.getuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Session:
    """folder: of its results. kept: what tabs remember."""

    folder: Path
    photograph: Photograph | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    def new_folder(self, name: str) -> Path:
        """An empty folder; what was in it goes."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """By the name that the page gives itself; at most `most`, of which the one used least recently goes."""

    def __init__(self, workspace: Path, most: int = 32) -> None:
        self._workspace, self._most = workspace, most
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: str) -> Session:
        with self._lock:
            session = self._sessions.get(name)
            if session is None:  # folders cannot be guessed: who knows one may read it
                session = self._sessions[name] = Session(self._workspace / f"{SESSION}{secrets.token_hex(16)}")
                session.folder.mkdir()
            self._sessions.move_to_end(name)
            gone = [self._sessions.popitem(last=False)[1] for _ in range(len(self._sessions) - self._most)]
        for one in gone:
            one.close()
        return session

    def close(self, name: str) -> None:
        with self._lock:
            session = self._sessions.pop(name, None)
        if session is not None:
            session.close()

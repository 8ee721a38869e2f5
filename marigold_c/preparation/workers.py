"""Worker processes of the preparations. Called by scenes/generator.py and levels/generator.py."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.process import BaseProcess


def end_with_parent() -> None:
    """Lets a worker of a pool end when the process that made the pool is killed. By itself it would wait for work
    forever: it holds the other end of its queue, too. Files are written whole or not at all, so it may end anywhere."""

    def watch(parent: BaseProcess) -> None:
        parent.join()
        os._exit(1)

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()

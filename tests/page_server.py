"""`marigold app` as a process of its own, on a port of its own, with a folder for temporary files of its own."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

_STARTS_WITHIN = 300  # seconds


class PageServer:
    """address: "http://127.0.0.1:PORT". temporary: its TMPDIR. It opens a browser where BROWSER names one."""

    def __init__(self, temporary: Path, *flags: str, port: int = 0, **environment: str) -> None:
        self.temporary = temporary
        command = [sys.executable, "-m", "marigold_c", "app", f"--port={port}", *flags]
        command += [] if "BROWSER" in environment else ["--no-browser"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary), "GRADIO_TEMP_DIR": "/nowhere", **environment},
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], _STARTS_WITHIN)
        line = self.process.stdout.readline() if ready else ""
        found = re.search(r"http://\S+", line)
        if found is None:
            self.process.kill()
            raise AssertionError(f"it did not start: {line!r}")
        self.address = found[0]
        self.port = int(self.address.rpartition(":")[2])

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.address}/health", timeout=60) as answer:
            return dict(json.load(answer))

    def wait_until_idle(self, seconds: float) -> float:
        """How long it took until nothing ran."""
        started = time.monotonic()
        while self.health()["busy"]:
            assert time.monotonic() < started + seconds, "still busy"
            time.sleep(0.05)
        return time.monotonic() - started

    def files(self) -> list[Path]:
        """All that it left in its folder for temporary files."""
        return [one for one in self.temporary.rglob("*") if one.is_file() and one.name != ".lock"]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

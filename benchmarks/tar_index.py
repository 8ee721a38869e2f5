"""Times opening a large tar through its index, and what reading costs in memory, beside Python's tarfile.

    python benchmarks/tar_index.py [--members 120000] [--gigabytes 20] [--folder FOLDER] [--reads 2000] [--output FILE]

The archive is written with headers only; its contents are holes, so that it takes little room on a file system that has
them. Each figure is measured in a process of its own: building the index, opening with it (a new process each time, the
best and the worst of several), reading members at random, and tarfile's way to the first member, which reads all
headers. Memory is the resident set of the process before and after. The targets of the project are printed beside the
figures; nothing fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

BLOCK = tarfile.BLOCKSIZE
STARTUP_TARGET = 1.0  # seconds, of a process that finds the index
OPENINGS = 5


def name_of(number: int) -> str:
    return f"scene_{number // 100:05d}/rgb_{number:07d}.png"


def write_archive(path: Path, members: int, total: int) -> None:
    """Members of one size, as many bytes together as asked for; only the header blocks are written."""
    size = max(total // members - BLOCK, 1)
    step = BLOCK + size + -size % BLOCK
    with path.open("wb") as file:
        for number in range(members):
            entry = tarfile.TarInfo("./" + name_of(number))
            entry.size = size
            file.seek(number * step)
            file.write(entry.tobuf(tarfile.GNU_FORMAT))
        file.truncate(members * step + 2 * BLOCK)


def resident() -> int:
    """Bytes of memory of this process, files that it maps included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def work(side: str, path: Path, members: int, reads: int) -> dict[str, float]:
    """One measurement, in this process."""
    from marigold_c.datasets.sources import TarSource

    random.seed(1)
    chosen = [name_of(random.randrange(members)) for _ in range(reads)]
    before, start = resident(), time.perf_counter()
    if side == "tarfile":
        with tarfile.open(path) as archive:
            member = archive.extractfile("./" + name_of(members - 1))
            assert member is not None
            member.read(1)
        return {"seconds": time.perf_counter() - start, "memory": resident() - before, "reading": 0, "after reading": 0}
    source = TarSource(path)
    source.read(chosen[0], 1)
    opened, after = time.perf_counter() - start, resident()
    for name in chosen:
        source.read(name, 4096)
    seconds = time.perf_counter() - start - opened
    return {"seconds": opened, "memory": after - before, "reading": seconds, "after reading": resident() - before}


def measured(side: str, path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--work", side, "--archive", str(path)]
    command += ["--members", str(arguments.members), "--reads", str(arguments.reads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def row(what: str, seconds: str, memory: float) -> str:
    return f"| {what} | {seconds} | {memory / 2**20:.1f} |"


def compare(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    write_archive(path, arguments.members, int(arguments.gigabytes * 1e9))
    built = measured("index", path, arguments)
    opened = [measured("index", path, arguments) for _ in range(OPENINGS)]
    peer = measured("tarfile", path, arguments)
    worst = max(one["seconds"] for one in opened)
    status = path.stat()
    print(
        f"{arguments.members} members, {status.st_size / 1e9:.1f} GB ({status.st_blocks * 512 / 1e6:.0f} MB on disk)\n"
    )
    print("| | seconds | memory, MiB |\n|---|---|---|")
    print(row("the index is built, first member read", f"{built['seconds']:.2f}", built["memory"]))
    best = min(one["seconds"] for one in opened)
    times = f"{best:.4f} to {worst:.4f} (target {STARTUP_TARGET:.0f})"
    print(row("opened with the index, first member read", times, max(one["memory"] for one in opened)))
    reading = min(one["reading"] for one in opened)
    after = max(one["after reading"] for one in opened)
    print(row(f"then {arguments.reads} members at random", f"{reading:.3f}", after))
    print(row("tarfile: to the last member", f"{peer['seconds']:.2f}", peer["memory"]))
    return {"members": arguments.members, "bytes": status.st_size, "built": built, "opened": opened, "tarfile": peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=120_000)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--reads", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--work", choices=("index", "tarfile"), help=argparse.SUPPRESS)
    parser.add_argument("--archive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work, arguments.archive, arguments.members, arguments.reads)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        report = compare(Path(folder) / "large.tar", arguments)
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

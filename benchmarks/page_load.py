"""The page under load: several visitors at once, each asking for the next map as soon as it has one.

    python benchmarks/page_load.py [--visitors 8] [--seconds 120] [--photo FILE]

Needs the extra "app". A server of its own process is started; each visitor is a client of the HTTP interface. Printed
are answers, errors, how long visitors waited (median, longest), the smallest and largest number of answers that a
visitor got (a fair order gives all about the same), whether equal seeds gave equal files, and the server's memory in
each quarter of the time (flat: nothing is kept).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Visitor:
    waits: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    maps: dict[int, set[str]] = field(default_factory=dict)  # hashes of the files of each seed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def resident_megabytes(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def visit(visitor: Visitor, address: str, photo: Path, until: float, folder: Path) -> None:
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False, download_files=folder)
    while time.monotonic() < until:
        seed, begun = len(visitor.waits) % 3, time.monotonic()
        try:
            answer = client.predict(photo=handle_file(photo), seed=seed, formats="npy", api_name="/v1_depth")
        except Exception as error:  # whatever it is, it is counted and shown
            visitor.errors.append(f"{type(error).__name__}: {error}")
            continue
        visitor.waits.append(time.monotonic() - begun)
        content = b"".join(Path(path).read_bytes() for path in sorted(answer["files"]))
        visitor.maps.setdefault(seed, set()).add(hashlib.sha256(content).hexdigest())


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    import urllib.request

    for _ in range(600):
        if server.poll() is not None:
            sys.exit(f"the server ended with {server.returncode}")
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server does not answer")


def report(visitors: list[Visitor], memory: list[float]) -> None:
    waits = [wait for visitor in visitors for wait in visitor.waits]
    counts = [len(visitor.waits) for visitor in visitors]
    errors = [error for visitor in visitors for error in visitor.errors]
    maps: dict[int, set[str]] = {}
    for visitor in visitors:
        for seed, hashes in visitor.maps.items():
            maps.setdefault(seed, set()).update(hashes)
    print(f"{len(waits)} answers, {len(errors)} errors {sorted(set(errors))[:3]}")
    print(f"waited: median {statistics.median(waits):.2f} s, longest {max(waits):.2f} s")
    print(f"answers of a visitor: {min(counts)} to {max(counts)}")
    print(f"files of equal seeds: {'equal' if all(len(one) == 1 for one in maps.values()) else 'NOT EQUAL'}")
    quarter = max(1, len(memory) // 4)
    parts = [max(memory[at : at + quarter]) for at in range(0, 4 * quarter, quarter) if memory[at : at + quarter]]
    print("server's memory, largest of each quarter: " + ", ".join(f"{part:.0f} MB" for part in parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--photo", type=Path, default=ROOT / "examples" / "photo.jpg")
    args = parser.parse_args()
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "marigold_c", "app", "--no-browser", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    visitors, memory = [Visitor() for _ in range(args.visitors)], []
    with tempfile.TemporaryDirectory() as folder:
        try:
            wait_for(address, server)
            until = time.monotonic() + args.seconds
            threads = [
                threading.Thread(target=visit, args=(visitor, address, args.photo, until, Path(folder) / str(number)))
                for number, visitor in enumerate(visitors)
            ]
            for thread in threads:
                thread.start()
            while time.monotonic() < until:
                memory.append(resident_megabytes(server.pid))
                time.sleep(1)
            for thread in threads:
                thread.join()
        finally:
            server.terminate()
            server.wait()
    report(visitors, memory)


if __name__ == "__main__":
    main()

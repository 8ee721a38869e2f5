"""Loading from the hub where the line breaks, the process is killed, or a file arrives damaged."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hub_bench import ID, SMALL, UNET, UNET_FP16, Bench, Failure, Worker, content, files_of, weights
from hub_server import Fault, sha256

import marigold_c as mc

pytest.importorskip("huggingface_hub", reason="loading from the hub needs huggingface_hub: pip install marigold-c[hub]")

pytestmark = pytest.mark.long

pytest_plugins = ("hub_bench",)


def test_dropped_connections_within_one_call(bench: Bench) -> None:
    """A line that breaks again and again, but lets something through each time."""
    bench.hub.add(ID, SMALL | weights())
    bench.hub.faults[UNET] = Fault(drop_after=40_000)
    assert files_of(bench.load()) == SMALL | weights()
    # Each goes on where the last whole piece of 16 KiB ended.
    assert bench.ranges(UNET) == [None, "bytes=32768-", "bytes=65536-"]


def test_server_without_ranges(bench: Bench) -> None:
    """It begins anew: that is not appended to what was there."""
    bench.hub.add(ID, SMALL | weights())
    bench.hub.faults[UNET] = Fault(end_at=50_000)
    assert "stopped at 49152" in str(bench.fails())
    bench.hub.faults[UNET] = Fault(whole_only=True)
    with contextlib.suppress(Failure):  # huggingface_hub before 1.0 appends; the checksum finds that
        bench.load()
    assert files_of(bench.load()) == SMALL | weights()


def test_reset_connection_within_one_call(bench: Bench) -> None:
    """huggingface_hub 2.4 gives up at once; here one more try is made where nothing at all arrives."""
    bench.hub.add(ID, SMALL | weights())
    bench.hub.faults[UNET] = Fault(drop_after=0, reset=True, times=1)
    assert files_of(bench.load()) == SMALL | weights()
    assert len(bench.ranges(UNET)) == 2


def test_dropped_connection_and_the_next_call(bench: Bench) -> None:
    """A line that is dead from the middle of the file on, until the next call."""
    bench.hub.add(ID, SMALL | weights())
    bench.hub.faults[UNET] = Fault(end_at=50_000)
    for _ in range(2):
        error = bench.fails()
        assert "ConnectionError" in error.classes and "OSError" in error.classes
        assert f"{ID}/{UNET}" in str(error) and "stopped at 49152 of 100000 bytes" in str(error)
        assert "kept, load again" in str(error)
        assert "only in part" in str(bench.fails(local_files_only=True))
    bench.hub.faults.clear()
    bench.hub.take_requests()
    folder = bench.load()
    assert bench.ranges(UNET) == ["bytes=49152-"]
    assert files_of(folder) == SMALL | weights()


def test_killed_process(bench: Bench, tmp_path: Path) -> None:
    """What a killed process had of a file is not downloaded again; until it is whole, it is not loaded."""
    bench.hub.add(ID, SMALL | weights())
    bench.hub.faults[UNET] = Fault(drop_after=70_000, stall=(stall := threading.Event()))
    worker = Worker(bench.hub, tmp_path)
    worker.send("resolve_folder", path_or_id=ID, cache_dir=str(bench.cache))
    deadline = time.monotonic() + 30
    partial = bench.cache / f"models--{ID.replace('/', '--')}/blobs/{sha256(content(UNET))}.incomplete"
    while not partial.exists() or (arrived := partial.stat().st_size) < 60_000:
        assert time.monotonic() < deadline and worker.process.poll() is None
        time.sleep(0.01)
    worker.process.kill()
    worker.close()
    stall.set()
    bench.hub.faults.clear()
    assert "only in part" in str(bench.fails(local_files_only=True))
    bench.hub.take_requests()
    folder = bench.load()
    assert bench.ranges(UNET) == [f"bytes={arrived}-"]
    assert files_of(folder) == SMALL | weights()
    assert not partial.exists()


def test_two_processes_at_once(bench: Bench, tmp_path: Path) -> None:
    """The second waits for the first, and takes what that has downloaded."""
    bench.hub.add(ID, SMALL | weights())
    bench.hub.faults[UNET] = Fault(drop_after=70_000, stall=(stall := threading.Event()), times=1)
    workers = [Worker(bench.hub, tmp_path) for _ in range(2)]
    for worker in workers:
        worker.send("resolve_folder", path_or_id=ID, cache_dir=str(bench.cache))
    deadline = time.monotonic() + 30
    # Both have asked for the size of the file before one of them gets it.
    while [(one.method, one.path) for one in bench.hub.requests].count(("HEAD", UNET)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stall.set()
    assert {worker.process.stdout.readline() for worker in workers if worker.process.stdout} == {
        json.dumps({"value": str(folder := next(bench.cache.glob("models--*/snapshots/*")))}) + "\n"
    }
    for worker in workers:
        worker.close()
    assert [one for one in bench.ranges(UNET) if one is None] == [None]
    assert files_of(folder) == SMALL | weights()


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (flipped, "SHA-256"),
        (lambda data: data[:-10_000], "the hub sent 90000 bytes and announced 100000"),
        (lambda data: data + b"more", "the hub sent 100004 bytes and announced 100000"),
        (lambda data: b"", "the hub sent 0 bytes and announced 100000"),
    ],
)
def test_arrives_damaged(bench: Bench, damage: Any, expected: str) -> None:
    bench.hub.add(ID, SMALL | weights())
    bench.hub.faults[UNET] = Fault(body=damage(content(UNET)))
    for _ in range(2):
        error = bench.fails()
        assert "CheckpointError" in error.classes
        assert f"{ID}/{UNET}" in str(error) and expected in str(error) and "load again" in str(error)
        assert not [path for path in bench.blobs() if sha256(content(UNET)) in path.name]
    assert "only in part" in str(bench.fails(local_files_only=True))
    bench.hub.faults.clear()
    assert files_of(bench.load()) == SMALL | weights()


def test_damaged_while_resuming(bench: Bench) -> None:
    """A beginning that was changed on the disk is found when the rest is there, and not kept."""
    bench.hub.add(ID, SMALL | weights())
    folder = bench.load()
    blob = (folder / UNET).resolve()
    blob.unlink()
    partial = blob.with_name(f"{blob.name}.incomplete")
    for beginning in (b"\0" * 50_000, b"\0" * 100_000):
        partial.write_bytes(beginning)
        assert "SHA-256" in str(bench.fails())
        assert not partial.exists()
    partial.write_bytes(b"\0" * 100_001)  # longer than the file: begun anew
    assert files_of(bench.load()) == SMALL | weights()


def test_damaged_in_the_cache(bench: Bench) -> None:
    files = files_of(mc.default_checkpoint())
    bench.hub.add(ID, files)
    folder = bench.load()
    blob = (folder / UNET_FP16).resolve()
    blob.write_bytes(b"\xff" * len(files[UNET_FP16]))
    with pytest.raises(Failure, match=r"diffusion_pytorch_model\.fp16\.safetensors") as caught:
        bench.worker.call("open_explained", folder=str(folder))
    assert "CheckpointError" in caught.value.classes
    assert f"delete '{blob}' and load again" in str(caught.value)
    # The advice works.
    blob.unlink()
    assert files_of(bench.load())[UNET_FP16] == files[UNET_FP16]
    bench.worker.call("open_explained", folder=str(folder))
    # A file that is wrong in itself gets no such advice.
    (folder / "unet/config.json").unlink()
    (folder / "unet/config.json").write_text("{}")
    with pytest.raises(Failure) as caught:
        bench.worker.call("open_explained", folder=str(folder))
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("internal", ["WeakFileLock", "http_get's arguments"])
def test_a_version_without_an_internal(bench: Bench, tmp_path: Path, internal: str) -> None:
    """Files come all the same, by huggingface_hub's own way, and a damaged one is found and not kept."""
    worker = Worker(bench.hub, tmp_path)
    there = Bench(bench.hub, worker, bench.cache)
    worker.call("lack", internal=internal)
    bench.hub.add(ID, SMALL | weights())
    bench.hub.faults[UNET] = Fault(body=flipped(content(UNET)))
    for _ in range(2):
        error = there.fails()
        assert "CheckpointError" in error.classes
        assert f"{ID}/{UNET} arrived damaged: SHA-256" in str(error)
        assert not [path for path in bench.blobs() if sha256(content(UNET)) in path.name]
    bench.hub.faults.clear()
    assert files_of(there.load()) == SMALL | weights()
    worker.close()

"""benchmarks/peers.py beside the libraries it compares, on the small preset: all rows agree. Those that are missing are
skipped."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers.py"
LIBRARIES = {"PyTorch": "torch", "OpenVINO": "openvino", "ONNX Runtime": "onnxruntime"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_peers_agree_on_every_row(library: str, tmp_path: Path) -> None:
    if not importlib.util.find_spec(LIBRARIES[library]):
        pytest.skip(f"{library} is not installed")
    output, peer = tmp_path / "peers.json", f"{library} float32"
    options = ("--tiny", "--ours", "float32", "--rows", "all", "--repeats", "1", "--threads", "1")
    command = [sys.executable, str(PEERS), *options, "--peers", peer, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text(encoding="utf-8"))
    (comparison,) = report["comparisons"]
    assert len(comparison["measurements"]) == 6
    for entry in comparison["measurements"]:
        assert entry["disagreement"][peer]["largest"] < 2e-4, entry["row"]
        assert entry["median"][peer] > 0
    assert report["alone"][peer]["peak_bytes"] > 10e6

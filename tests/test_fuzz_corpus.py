"""The seeds of the fuzzers: each gets through its reader, so that a mutation reaches what lies behind the checks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import marigold_c as mc
from marigold_c import _C
from marigold_c.loading.safetensors_header import read_header

FUZZ = Path(__file__).parent / "fuzz"
CORPUS = FUZZ / "corpus"
sys.path.insert(0, str(FUZZ))
from python_readers import TARGETS, promised, try_once  # noqa: E402

NETWORKS = ("unet", "vae", "text_encoder")


@pytest.mark.parametrize("seed", sorted((CORPUS / "config").iterdir()), ids=lambda path: path.name)
def test_configurations(seed: Path) -> None:
    data = seed.read_bytes()
    text = data[1:].decode()
    if data[0] < len(NETWORKS):
        assert _C.declared_weights(NETWORKS[data[0]], text, "config.json")
    else:
        assert _C.Scheduler(text)


@pytest.mark.parametrize("seed", sorted((CORPUS / "safetensors").iterdir()), ids=lambda path: path.name)
def test_safetensors(seed: Path) -> None:
    assert read_header(seed)


def test_packed() -> None:
    """Past the checksum: what is missing is what a whole checkpoint would say."""
    with pytest.raises(mc.CheckpointError, match="its dtype is missing"):
        _C.Pipeline(str(CORPUS / "packed" / "one"))


@pytest.mark.parametrize("name", TARGETS)
def test_python_readers_take_anything(name: str, tmp_path: Path) -> None:
    for data in (
        b"",
        b"\x00" * 64,
        b"\xff" * 300,
        b"IBSP\x2e\x00\x00\x00" + b"\xff" * 200,
        b"AC3Db\nOBJECT world\nkids 9\n",
    ):
        try_once(TARGETS[name], tmp_path, data)


def test_what_is_promised() -> None:
    assert promised(FileNotFoundError("a"), ("OSError",))
    assert not promised(KeyError("a"), ("OSError", "ValueError"))

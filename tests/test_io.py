"""Checkpoints are untrusted: right files are read exactly, wrong ones are refused by name, and nothing crashes."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors_files import layout, pack, write
from strict_readers import strict_safetensors

from marigold_c import _testing
from marigold_c.errors import CheckpointError

FILE = "model.safetensors"


# ---- right safetensors files ----
def read(folder: Path, variant: str | None = None) -> dict[str, tuple[str, tuple[int, ...], np.ndarray]]:
    found = _testing.read_checkpoint(str(folder), variant)
    return {k: (t, s, np.frombuffer(v, np.float32) if v is not None else None) for k, (t, s, v, _) in found.items()}


def test_all_half_precision_values_are_converted_exactly(tmp_path: Path) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    write(tmp_path / FILE, {"f16": ("F16", bits.view(np.float16)), "bf16": ("BF16", bits)})
    found = read(tmp_path)
    np.testing.assert_array_equal(found["f16"][2], bits.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found["bf16"][2].view(np.uint32), bits.astype(np.uint32) << 16)


def test_tensors_at_odd_addresses_and_empty_files(tmp_path: Path) -> None:
    values = np.arange(7, dtype=np.float32)
    header, data = layout({"a": ("F32", values), "b": ("F16", values)})
    text = json.dumps(header).encode()
    for padding in range(8):
        (tmp_path / FILE).write_bytes(pack(text + b" " * padding, data))
        np.testing.assert_array_equal(read(tmp_path)["a"][2], values)
        np.testing.assert_array_equal(read(tmp_path)["b"][2], values)
    (tmp_path / FILE).write_bytes(pack(b"{}", b""))
    assert read(tmp_path) == {}


def test_variant_and_shards(tmp_path: Path) -> None:
    one, two = np.ones((2, 3), np.float32), np.full(4, 2, np.float32)
    stem = "diffusion_pytorch_model"
    write(tmp_path / f"{stem}.safetensors", {"x": ("F32", one)})
    write(tmp_path / f"{stem}.fp16.safetensors", {"x": ("F16", two)})
    assert read(tmp_path)["x"][:2] == ("F32", (2, 3))
    assert read(tmp_path, "fp16")["x"][:2] == ("F16", (4,))
    for name in (
        f"{stem}.safetensors.index.json",
        f"{stem}.safetensors.index.fp16.json",
        f"{stem}.fp16.safetensors.index.json",
    ):
        folder = tmp_path / name
        write(folder / "s-00001-of-00002.safetensors", {"a": ("F32", one)})
        write(folder / "s-00002-of-00002.safetensors", {"b": ("BF16", np.zeros(3))})
        index = {"weight_map": {"a": "s-00001-of-00002.safetensors", "b": "s-00002-of-00002.safetensors"}}
        (folder / name).write_text(json.dumps(index))
        assert sorted(read(folder, "fp16" if "fp16" in name else None)) == ["a", "b"]


def test_every_stored_type(tmp_path: Path) -> None:
    """Types without a float32 form are listed, so that a network can ignore them; shapes may be scalar or empty."""
    sizes = {"F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
    header: dict[str, Any] = {}
    end = 0
    for dtype, size in {**sizes, "F8_E4M3": 1, "F8_E5M2": 1}.items():
        header[dtype] = {"dtype": dtype, "shape": [3], "data_offsets": [end, end + 3 * size]}
        end += 3 * size
    header["scalar"] = {"dtype": "F32", "shape": [], "data_offsets": [end, end + 4]}
    header["empty"] = {"dtype": "F16", "shape": [0, 2**40], "data_offsets": [end, end]}
    (tmp_path / FILE).write_bytes(pack(json.dumps(header).encode(), bytes(range(end + 4))))
    found = _testing.read_checkpoint(tmp_path, None)
    assert {key: (dtype, shape) for key, (dtype, shape, _, _) in found.items()} == {
        key: (entry["dtype"], tuple(entry["shape"])) for key, entry in header.items()
    }
    assert all(found[key][2] is None for key in sizes)
    assert b"".join(found[key][3] for key in header if key != "empty") == bytes(range(end + 4))


def test_links_and_names_outside_ascii(tmp_path: Path) -> None:
    """The download cache is made of symbolic links; folders may be called anything, even what is not UTF-8."""
    for name in ("größe 漢字 %s %n", os.fsdecode(b"\xff\xfe")):
        folder = tmp_path / name
        write(tmp_path / "blob", {"ключ": ("F32", np.ones(1))})
        folder.mkdir()
        (folder / FILE).symlink_to(tmp_path / "blob")
        assert list(_testing.read_checkpoint(folder, None)) == ["ключ"]
        (tmp_path / "blob").write_bytes(b"short")
        with pytest.raises(CheckpointError, match="5 bytes; too short"):
            _testing.read_checkpoint(folder, None)
        (tmp_path / "blob").unlink()
        with pytest.raises(CheckpointError, match="no weights"):
            _testing.read_checkpoint(folder, None)


# ---- wrong ones ----
def lie(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (lie(dtype="F31"), 'dtype is "F31"; no such type'),
        (lie(dtype="F32\0"), "no such type"),
        (lie(dtype=""), "no such type"),
        (lie(dtype=3), "dtype is 3; a string"),
        ({"x": {"shape": [2, 3], "data_offsets": [0, 24]}}, "dtype is missing"),
        ({"x": {"dtype": "F32", "data_offsets": [0, 24]}}, "shape is missing"),
        ({"x": {"dtype": "F32", "shape": [2, 3]}}, "data_offsets is missing"),
        ({"x": {**lie()["x"], "dtype": None}}, "dtype is null"),
        (lie(shape={"0": 6}), "shape is {"),
        (lie(shape=[True, 6]), "whole numbers"),
        (lie(shape=["6"]), "whole numbers"),
        (lie(shape=[2**64]), "whole numbers"),
        (lie(shape=[2**62, 4, 0]), "more bytes than can be addressed"),
        (lie(shape=[2**63 - 1]), "more bytes than can be addressed"),
        (lie(shape=[2**32 + 2, 2**32 + 3]), "more bytes than can be addressed"),
        (lie(data_offsets={"0": 0, "1": 24}), "list of two"),
        (lie(data_offsets=[0, 24, 24]), "list of two"),
        (lie(data_offsets=["0", "24"]), "list of two"),
        (lie(data_offsets=[0.0, 24.0]), "list of two"),
        (lie(data_offsets=[2**63 - 25, 2**63 - 1]), "outside the 24 bytes"),
        ({**lie(), "__metadata__": 3}, "__metadata__ is 3"),
        ({**lie(), "__metadata__": {"a": [1]}}, "an object of strings"),
        ({"x" * 5000 + "é": 3}, "an object was expected"),
        ({"é" * 3000: 3}, "an object was expected"),
        ({"": 3}, "an object was expected"),
        (lie(dtype="F16"), r"span 24 bytes, dtype and shape say 12"),
        (lie(shape=[2, 4]), "span 24 bytes"),
        (lie(shape=[-2, -3]), "whole numbers"),
        (lie(shape=[2.0, 3]), "whole numbers"),
        (lie(shape=[2**40, 2**40]), "more bytes than can be addressed"),
        (lie(shape=[1] * 9), "9 dimensions"),
        (lie(shape="2"), "shape"),
        (lie(data_offsets=[0, 25]), "outside the 24 bytes"),
        (lie(data_offsets=[24, 0]), "in order"),
        (lie(data_offsets=[-24, 0]), "in order"),
        (lie(data_offsets=[0]), "list of two"),
        (lie(data_offsets=[0, 2**63]), "in order"),
        ({"x": 3}, "entry of the header is 3; an object"),
        ([], "no JSON object"),
        ("x", "no JSON object"),
        (None, "no JSON object"),
        ({}, "24 bytes of data, of which the header describes 0"),
        ({**lie(), "y": lie()["x"]}, "begins at byte 0"),
        (lie(shape=[1], data_offsets=[4, 8]), "begins at byte 4"),
        (lie(shape=[1], data_offsets=[0, 4]), "describes 4"),
        (
            {**lie(shape=[4], data_offsets=[0, 16]), "y": lie(shape=[3], data_offsets=[12, 24])["x"]},
            'tensor "y" begins at byte 12 of the data, the one before it ends at 16',
        ),
        (
            {**lie(shape=[2], data_offsets=[0, 8]), "y": lie(shape=[3], data_offsets=[12, 24])["x"]},
            'tensor "y" begins at byte 12 of the data, the one before it ends at 8',
        ),
    ],
)
def test_lying_headers_are_refused(tmp_path: Path, header: Any, message: str) -> None:
    (tmp_path / FILE).write_bytes(pack(json.dumps(header).encode(), bytes(24)))
    with pytest.raises(CheckpointError, match=message) as caught:
        read(tmp_path)
    assert FILE in str(caught.value)


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(lie()["x"])
    (tmp_path / FILE).write_bytes(pack(f'{{"x": {entry}, "\\u0078": {entry}}}'.encode(), bytes(24)))
    with pytest.raises(CheckpointError, match=f'{FILE}.*key "x" twice'):
        read(tmp_path)


def test_messages_hold_no_control_characters(tmp_path: Path) -> None:
    """What a file says is quoted on terminals and in logs."""
    (tmp_path / FILE).write_bytes(pack(json.dumps({"\x1b[2J\x7f\b": {"dtype": "\x1b[31m"}}).encode(), b""))
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path)
    assert str(caught.value).isprintable()


def test_headers_beyond_100_megabytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(struct.pack("<Q", 10**8 + 1))
    os.truncate(tmp_path / FILE, 10**8 + 9)
    with pytest.raises(CheckpointError, match=r"claims 100000001 bytes; .* at most 100000000 are read"):
        read(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 3, 10**6, 2**31, 2**63, 2**64 - 1])
def test_lying_header_lengths_are_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / FILE).write_bytes(pack(json.dumps(lie()).encode(), bytes(24), length))
    with pytest.raises(CheckpointError, match=FILE):
        read(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    write(tmp_path / FILE, {"a": ("F32", np.zeros(5)), "b": ("F16", np.zeros((2, 2)))})
    whole = (tmp_path / FILE).read_bytes()
    for length in range(len(whole)):
        (tmp_path / FILE).write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=FILE):
            read(tmp_path)


def damage(rng: random.Random, raw: bytes) -> bytes:
    """One to three faults: a changed, lost or doubled piece, or another number where the header has one."""
    damaged = bytearray(raw)
    for _ in range(rng.randrange(1, 4)):
        at, length = rng.randrange(len(damaged) + 1), rng.randrange(4)
        numbers = list(re.finditer(rb"\d+", bytes(damaged[8:])))
        fault = rng.randrange(5)
        if fault == 0:
            damaged[at : at + 1] = bytes([rng.randrange(256)])
        elif fault == 1:
            del damaged[at : at + length]
        elif fault == 2:
            damaged[at:at] = damaged[at : at + length]
        elif numbers:
            number = rng.choice(numbers)
            value = rng.choice([0, 1, 2, 4, 7, 8, 20, 28, 36, 2**31, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64, -1])
            damaged[8 + number.start() : 8 + number.end()] = str(value).encode()
    # Mostly, the length is right all the same, so that later checks are reached.
    if len(damaged) >= 8 and rng.random() < 0.7:
        struct.pack_into("<Q", damaged, 0, max(bytes(damaged).rfind(b"}") - 7, 0))
    return bytes(damaged)


@pytest.mark.parametrize("seed", range(10))
def test_random_damage_is_refused_or_harmless(tmp_path: Path, seed: int) -> None:
    """Files are accepted exactly where the Python reader above accepts them, with the same contents."""
    rng = random.Random(seed)
    write(tmp_path / FILE, {"a": ("F32", np.zeros(5)), "b": ("F16", np.zeros((2, 2))), "c": ("I64", np.zeros(1))})
    whole = (tmp_path / FILE).read_bytes()
    refused = 0
    for _ in range(500):
        raw = damage(rng, whole)
        (tmp_path / FILE).write_bytes(raw)
        try:
            wanted = strict_safetensors(raw)
        except ValueError:
            with pytest.raises(CheckpointError, match=FILE):
                read(tmp_path)
            refused += 1
            continue
        found = _testing.read_checkpoint(tmp_path, None)
        assert {key: (dtype, shape, data) for key, (dtype, shape, _, data) in found.items()} == wanted
    assert 200 < refused < 500


@pytest.mark.parametrize("seed", range(5))
def test_random_damage_to_an_index(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    name = "diffusion_pytorch_model.safetensors.index.json"
    write(tmp_path / "s1.safetensors", {"a": ("F32", np.zeros(5))})
    write(tmp_path / "s2.safetensors", {"b": ("F32", np.zeros(5))})
    index = {"metadata": {"total_size": 40}, "weight_map": {"a": "s1.safetensors", "b": "s2.safetensors"}}
    whole = json.dumps(index).encode()
    for cut in range(len(whole)):
        (tmp_path / name).write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match=re.escape(name)):
            read(tmp_path)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.choice(b'{}[]":,0129ab./\\ \xff')
        (tmp_path / name).write_bytes(damaged)
        try:
            assert set(read(tmp_path)) <= {"a", "b"}
        except CheckpointError as error:
            assert name in str(error)


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 5, None, "gone.safetensors"]
)
def test_bad_shard_names_are_refused(tmp_path: Path, shard: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match=r"index\.json"):
        read(tmp_path)


def test_index_and_shard_must_agree(tmp_path: Path) -> None:
    write(tmp_path / "s.safetensors", {"a": ("F32", np.zeros(1))})
    write(tmp_path / "t.safetensors", {"a": ("F32", np.zeros(1))})
    index = tmp_path / "model.safetensors.index.json"
    for weight_map, message in (
        ({"b": "s.safetensors"}, 'tensor "b" is not in the shard'),
        ({"a": "t.safetensors", "b": "s.safetensors"}, "in two shards"),
        ({"a": "s.safetensors", "b": "s.safetensors"}, 'tensor "b" is not in the shard "s.safetensors"'),
        ({}, "weight_map"),
        ([], "weight_map"),
        ("s.safetensors", "weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(CheckpointError, match=message):
            read(tmp_path)


def test_missing_and_irregular_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no weights; looked for diffusion_pytorch_model\.safetensors"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match='variant "fp16"'):
        read(tmp_path, "fp16")
    with pytest.raises(ValueError, match="plain name"):
        read(tmp_path, "../x")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="pickled"):
        read(tmp_path)
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(CheckpointError, match="not a regular file"):
        read(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    with pytest.raises(CheckpointError, match="not a regular file"):
        read(tmp_path)
    (tmp_path / FILE).rmdir()
    (tmp_path / FILE).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read(tmp_path)


def test_what_the_system_refuses_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="name too long"):
        read(tmp_path / ("x" * 300))
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(FILE)
    with pytest.raises(OSError, match=f"{FILE}: cannot be opened"):
        read(tmp_path)
    listener.close()
    (tmp_path / FILE).unlink()
    write(tmp_path / FILE, {"x": ("F32", np.zeros(1))})
    (tmp_path / FILE).chmod(0)
    if not os.access(tmp_path / FILE, os.R_OK):  # the super-user may read it all the same
        with pytest.raises(PermissionError, match=FILE):
            read(tmp_path)

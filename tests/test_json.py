"""The strict JSON reader: accepts exactly what is valid, with the values that Python reads, in bounded memory."""

from __future__ import annotations

import json
import math
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
from strict_readers import strict_json

from marigold_c import _testing
from marigold_c.errors import CheckpointError


def random_json(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(4 if depth > 4 else 6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([0, -1, 2**63 - 1, -(2**63), rng.randrange(10**9)])
    if kind == 2:
        return rng.choice([0.5, -1e300, 5e-324, rng.uniform(-1e6, 1e6)])
    if kind == 3:
        return "".join(rng.choice('aé漢😀"\\/\n\t\x00 z') for _ in range(rng.randrange(8)))
    if kind == 4:
        return [random_json(rng, depth + 1) for _ in range(rng.randrange(5))]
    return {f"key{i}{rng.choice('aé')}": random_json(rng, depth + 1) for i in range(rng.randrange(5))}


@pytest.mark.parametrize("seed", range(100))
def test_json_reads_what_python_writes(seed: int) -> None:
    rng = random.Random(seed)
    value = random_json(rng)
    text = json.dumps(value, ensure_ascii=bool(seed % 2), indent=rng.choice([None, 2]))
    assert _testing.parse_json(text.encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        *('{"a":1,"a":2}', "[1,]", "{,}", '{"a" 1}', "[1 2]", "01", "1.", ".5", "+1", "1e", "-", "NaN", "Infinity"),
        *("1e999", '"\\x"', '"\\u12"', '"\\ud800"', '"\\udc00"', '"abc', '"\n"', "tru", "nul", "", " ", "[", "{", "]"),
        *("[1]]", "1 2", "'a'", "{1:2}", "// c\n1", '{"a\\u0000b":1}', "[" * 65 + "]" * 65, "[" * 100000),
    ],
)
def test_json_refuses(text: str) -> None:
    with pytest.raises(CheckpointError, match="not valid JSON"):
        _testing.parse_json(text.encode())


@pytest.mark.parametrize("raw", [b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf5\x80\x80\x80"', b'"\xe2\x82"'])
def test_json_refuses_invalid_utf8(raw: bytes) -> None:
    with pytest.raises(CheckpointError, match="UTF-8"):
        _testing.parse_json(raw)


def test_json_depth_and_large_integers() -> None:
    assert _testing.parse_json(b"[" * 64 + b"]" * 64) is not None
    assert math.isclose(_testing.parse_json(b"123456789012345678901234567890"), 1.2345678901234568e29)


def assert_same_json(raw: bytes) -> bool:
    """Both readers accept the text and agree on its value, types and signs included, or both refuse it."""
    try:
        wanted = strict_json(raw)
    except ValueError:
        with pytest.raises(CheckpointError):
            _testing.parse_json(raw)
        return False
    assert repr(_testing.parse_json(raw)) == repr(wanted), raw
    return True


@pytest.mark.parametrize("seed", range(20))
def test_json_accepts_exactly_what_is_valid(seed: int) -> None:
    rng = random.Random(seed)
    alphabet = b'{}[]",:0123456789.eE+-\\/bfnrtu \t\r\n\x00\x1f\x7f\x80\xc3\xa9\xed\xa0\xf0\x9f\xff'
    accepted = 0
    for _ in range(300):
        text = json.dumps(random_json(rng), ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1])).encode()
        damaged = bytearray(text)
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(damaged) + 1)
            piece = bytes([rng.choice(alphabet)]) if rng.random() < 0.7 else text[at : at + rng.randrange(6)]
            damaged[at : at + rng.randrange(3)] = piece
        accepted += assert_same_json(bytes(damaged))
    assert 60 < accepted < 280


@pytest.mark.parametrize(
    "text",
    [
        *("-0", "-0.0", "0e0", "1E+2", "1e-400", "123456789012345678901234567890", "9223372036854775808", "1.5e308"),
        *('"\\ud83d\\ude00"', '"\\ud83dx"', '"\\ud83d\\n"', '"\\ud83d\\ud83d"', '"\\uD83D\\uDE0"', '"\\u00e9\\/"'),
        *("\ufeff1", "\u00a01", "1\x0b", "\x00", "1\x00", '"a\x7f"', "[]]", "nulL", "--1", "1e+", "0x1", '"\\'),
        *('{"a":{"b":1},"b":{"b":1}}', '{"a":{"b":1,"b":1}}', '{"":0}', '{"a":1,}', "{,}", '{"a":}', '{"a"}', "{1:1}"),
        *("[" * 64 + "]" * 64, "[" * 65 + "]" * 65, '{"a":' * 64 + "1" + "}" * 64, '{"a":' * 65 + "1" + "}" * 65),
    ],
)
def test_json_corner_cases(text: str) -> None:
    assert_same_json(text.encode())


@pytest.mark.parametrize("cut", range(60))
def test_json_cut_off_anywhere(cut: int) -> None:
    whole = '{"a": [1.5e3, -2, {"é😀": null}], "b\\n\\u00e9\\ud83d\\ude00": true}'.encode()
    assert assert_same_json(whole[:cut]) == (cut >= len(whole))


def test_json_limits_memory() -> None:
    """A few bytes of text must not become a hundred times as much memory without bound."""
    count = 2**20
    assert len(_testing.parse_json(b"[" + b"0," * (count - 2) + b"0]")) == count - 1
    with pytest.raises(CheckpointError, match=f"million values at byte {2 * count - 1} of"):
        _testing.parse_json(b"[" + b"0," * (count - 1) + b"0]")


def test_json_text_is_cut_to_its_room() -> None:
    raw = b'{"a": [1, -2.5, 12345678901234], "b": "x", "c": [true, null, {}]}'
    whole = raw
    assert _testing.json_text(raw, 256) == whole
    for room in range(1, len(whole) + 1):
        assert _testing.json_text(raw, room) == whole[: room - 1]


@pytest.mark.parametrize("value", ["1.5", '"1"', "[1]", "true", "8", "-1", "1e300", "-9223372036854775808"])
def test_json_whole_numbers(value: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape('"n" is ') + ".*; a whole number from 0 to 7 was expected"):
        _testing.json_int(f'{{"n": {value}}}'.encode(), "n", 0, 7)
    assert [_testing.json_int(raw, "n", 0, 7) for raw in (b'{"n": 7}', b'{"n": 3.0}', b'{"n": null}', b"{}")] == [
        *(7, 3, -77, -77),
    ]


def test_json_files(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        _testing.read_json(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"config\.json.*byte 0 of 0"):
        _testing.read_json(path)
    path.write_bytes(b'{"a": 1}')
    assert _testing.read_json(path) == {"a": 1}
    os.truncate(path, 2**26 + 1)
    with pytest.raises(CheckpointError, match=r"config\.json: 67108865 bytes of JSON; at most 67108864"):
        _testing.read_json(path)

"""Packed checkpoints that are damaged, or that lie: refused by name and numbers; nothing is read out of bounds."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import packed_files
import pytest
from safetensors_files import pack

import marigold_c as mc
from marigold_c import _C
from marigold_c.commands.cli import main
from marigold_c.errors import CheckpointError

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 41, 56, 3), dtype=np.uint8)
NAME, SMALL, EMBEDDING = "unet.conv_in.weight", "unet.conv_in.bias", "text_encoder.empty_prompt"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mc.convert(mc.default_checkpoint(), tmp_path_factory.mktemp("packed") / "depth.safetensors", num_threads=1)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return tmp_path / "broken.safetensors"


def load(checkpoint: Path) -> Any:
    return mc.load(checkpoint, num_threads=1)


def engine(checkpoint: Path) -> _C.Pipeline:
    return _C.Pipeline(checkpoint, num_threads=1)


def refused(path: Path, match: str | None = None, kind: type[Exception] = CheckpointError) -> str:
    """Both readers refuse it, the engine first."""
    with pytest.raises(kind, match=match) as caught:
        engine(path)
    with pytest.raises((CheckpointError, NotImplementedError, OSError)):
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_files_that_are_none(packed: Path, broken: Path) -> None:
    for raw in (b"", b"1234567", b"\0" * 8, b"\xff" * 64, pack(b"{", b""), b"PK\3\4" * 100):
        broken.write_bytes(raw)
        refused(broken)
    for header in (b"{}", b'{"__metadata__":null}', b'{"__metadata__":{}}', b'{"__metadata__":{"format":"pt"}}'):
        broken.write_bytes(pack(header, b""))
        refused(broken, "not one that `marigold convert` made")
    (fifo := broken.parent / "fifo").touch()
    refused(fifo, "too short")


def test_truncated_files(packed: Path, broken: Path) -> None:
    raw = packed.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    for length in (4, 8, 100, end - 1, end, end + 1, end + 64, len(raw) // 2, len(raw) - 64, len(raw) - 1):
        broken.write_bytes(raw[:length])
        refused(broken)
    broken.write_bytes(raw + b"\0" * 64)
    refused(broken, "of which the header describes")


def test_any_damage_of_the_header_is_seen(packed: Path, broken: Path) -> None:
    raw = bytearray(packed.read_bytes()[:200_000])
    end = 8 + int.from_bytes(raw[:8], "little")
    assert end < len(raw)
    whole = bytearray(packed.read_bytes())
    chosen = random.Random(0)
    broken.write_bytes(whole)
    for at in [*range(8, 60), *chosen.sample(range(60, end), 150)]:
        with broken.open("r+b") as file:
            file.seek(at)
            file.write(bytes([whole[at] ^ 1 << chosen.randrange(8)]))
        with pytest.raises((CheckpointError, NotImplementedError)):
            engine(broken)
        with pytest.raises((CheckpointError, NotImplementedError)):
            load(broken)
        with broken.open("r+b") as file:
            file.seek(at)
            file.write(whole[at : at + 1])
    assert engine(broken).info()["task"] == "depth"


def test_damaged_weights_are_found_by_verify(packed: Path, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, data = packed_files.read(packed)
    name = "vae.decoder.conv_out.weight"
    begin, end = header[name]["data_offsets"]
    raw = bytearray(packed.read_bytes())
    raw[len(raw) - len(data) + end - 1] ^= 4  # in the last of its zeros, if it has some
    broken.write_bytes(raw)
    engine(broken)
    assert main(["info", str(broken), "--verify"]) == 1
    err = capsys.readouterr().err
    assert f'tensor "{name}" is damaged: the CRC-32 of its {end - begin} bytes is' in err
    _C.verify_packed(packed)


def note(header: dict[str, Any], name: str, change: Callable[[list[str]], object]) -> None:
    words = header["__metadata__"][name].split(" ")
    change(words)
    header["__metadata__"][name] = " ".join(words)


def lies() -> Iterator[Any]:
    """(what is changed in the header, exception, part of its message); the checksum is made right again."""

    def case(title: str, change: Callable[[dict[str, Any]], object], match: str, kind: Any = CheckpointError) -> Any:
        return pytest.param(change, kind, match, id=title)

    def text(name: str, value: str | None) -> Callable[[dict[str, Any]], object]:
        def change(header: dict[str, Any]) -> None:
            texts = header["__metadata__"]
            texts.pop(name)
            if value is not None:
                texts[name] = value

        return change

    def words(index: int, value: str, name: str = NAME) -> Callable[[dict[str, Any]], object]:
        return lambda header: note(header, name, lambda parts: parts.__setitem__(index, value))

    def swap(header: dict[str, Any]) -> None:
        texts = header["__metadata__"]
        header[NAME], header[SMALL] = header[SMALL], header[NAME]
        texts[NAME], texts[SMALL] = texts[SMALL], texts[NAME]

    def swap_data(header: dict[str, Any]) -> None:
        header[NAME], header[SMALL] = header[SMALL], header[NAME]

    def rename(header: dict[str, Any]) -> None:
        header["unet.else"] = header.pop(NAME)
        header["__metadata__"]["unet.else"] = header["__metadata__"].pop(NAME)

    def shift(header: dict[str, Any]) -> None:
        """The first tensor gives its last 32 bytes to the second, which then is not aligned."""
        first, second = sorted((k for k in header if k != "__metadata__"), key=lambda k: header[k]["data_offsets"])[:2]
        for name, index, step in ((first, 1, -32), (second, 0, -32)):
            header[name]["data_offsets"][index] += step
        for name in (first, second):
            begin, end = header[name]["data_offsets"]
            header[name]["shape"] = [end - begin]

    def retype(header: dict[str, Any]) -> None:
        entry = header[NAME]
        entry["dtype"], entry["shape"] = "F32", [entry["shape"][0] // 4]

    yield case("version", text("version", "2"), "version .?2.*this version reads 1", NotImplementedError)
    yield case("no version", text("version", None), "no version", NotImplementedError)
    yield case("format", text("format", "other"), "not one that `marigold convert` made")
    yield case("no dtype", text("dtype", None), "its dtype is missing")
    yield case("dtype", text("dtype", "float8"), 'its dtype is "float8"')
    yield case("no model_index", text("model_index.json", None), 'has no "model_index.json"')
    yield case("no vae config", text("vae/config.json", None), 'has no "vae/config.json"')
    yield case(
        "no scheduler", text("scheduler/scheduler_config.json", None), 'has no "scheduler/scheduler_config.json"'
    )
    yield case("config", text("unet/config.json", "{"), "unet/config.json")
    yield case("other architecture", text("unet/config.json", "{}"), '"block_out_channels" is missing')
    yield case("no note", text(NAME, None), f'tensor "{NAME}": its note in __metadata__ is missing')
    yield case("empty note", text(NAME, ""), f'tensor "{NAME}": its note in __metadata__ is ""')
    yield case("checksum alone", text(NAME, "00000000 "), f'tensor "{NAME}": its note')
    yield case("no shape", text(NAME, "00000000 float32/32/1 "), f'tensor "{NAME}": its note')
    yield case("checksum", words(0, "0000000g"), f'tensor "{NAME}": its note')
    yield case("short checksum", words(0, "0000000"), f'tensor "{NAME}": its note')
    yield case("layout", words(1, "float32/64/9"), f'tensor "{NAME}" is in the unknown layout "float32/64/9"')
    yield case("panel of 0", words(1, "float32/0/1"), "unknown layout")
    yield case("negative panel", words(1, "float32/-32/1"), "unknown layout")
    yield case("huge panel", words(1, "float32/2147483647/1"), "unknown layout")
    yield case("long layout", words(1, "x" * 10_000), "unknown layout")
    yield case("other panel", words(1, "float32/48/1"), r"has \d+ bytes; its shape in layout float32/48/1 has \d+")
    yield case("plain", words(1, "float32", "unet.conv_out.weight"), "in layout float32 has 9216")
    yield case("shape", words(2, "64,8,3,4"), rf"{NAME[5:]} is .*\[64, 8, 3, 4\], the configuration asks for")
    yield case("negative shape", words(2, "64,-8,3,3"), f'tensor "{NAME}": its note')
    yield case("zero", words(2, "64,0,3,3"), f'tensor "{NAME}": its note')
    yield case("huge shape", words(2, "64,99999999999999999999,3,3"), "1 misshapen")
    yield case("five dimensions", words(2, "64,8,3,3,1"), f'tensor "{NAME}": its note')
    yield case("fewer dimensions", words(2, "64,8,9"), "1 misshapen")
    yield case("blank", words(2, "64,8,3,3 "), f'tensor "{NAME}": its note')
    yield case("text shape", words(2, "1,2,64", EMBEDDING), "1 misshapen")
    yield case(
        "text layout", words(1, "float32/64/1", EMBEDDING), "has 512 bytes; its shape in layout float32/64/1 has"
    )
    yield case("entries of two", swap, "2 misshapen")
    yield case("data of two", swap_data, r"unet.conv_in.\w+\" has \d+ bytes; its shape in layout")
    yield case("renamed", rename, r"1 missing, 0 misshapen, 1 unused")
    yield case("unaligned", shift, "multiple of 64 was expected")
    yield case("type", retype, f'tensor "{NAME}" is F32 at byte')


@pytest.mark.parametrize(("change", "kind", "match"), list(lies()))
def test_lies_are_refused(
    packed: Path, broken: Path, change: Callable[[dict[str, Any]], object], kind: Any, match: str
) -> None:
    refused(packed_files.rewrite(packed, broken, change), match, kind)


def test_written_again_by_another_program(packed: Path, broken: Path) -> None:
    header, data = packed_files.read(packed)
    broken.write_bytes(pack(json.dumps(header).encode(), bytes(data)))
    refused(broken, "the header does not begin with its checksum")


def test_random_lies(packed: Path, broken: Path) -> None:
    """Bytes of the header are changed and the checksum made right: refused, or opened and run without a fault."""
    raw = packed.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    start = 8 + len(packed_files.BEGINNING) + 8
    broken.write_bytes(raw)
    opened = 0
    chosen = random.Random(1)
    for _ in range(300):
        text = bytearray(raw[8:end])
        for _ in range(chosen.choice((1, 1, 2, 4))):
            at = chosen.randrange(start - 8, len(text))
            text[at] = chosen.choice((chosen.choice(b'0123456789,"{}[]: .'), chosen.randrange(256), text[at] ^ 1))
        text[start - 16 : start - 8] = b"0" * 8
        text[start - 16 : start - 8] = f"{zlib.crc32(text):08x}".encode()
        with broken.open("r+b") as file:
            file.seek(8)
            file.write(text)
        try:
            pipe = engine(broken)
            pipe.run(IMAGE, num_inference_steps=1, processing_resolution=32)
            opened += 1
        except (CheckpointError, NotImplementedError, ValueError, MemoryError) as error:
            assert str(error)
    assert opened  # changed checksums of weights and other texts harm nobody


def test_many_notes_are_read_in_a_time_that_grows_with_their_number(tmp_path: Path) -> None:
    """With a search through all notes for each tensor this header would take minutes."""
    count, prefix = 120_000, "unet." + 40 * "a"
    notes = {f"{prefix}{i}": "00000000 float32 16" for i in range(count)}
    texts = {"crc32": "00000000", "format": "marigold_c packed checkpoint", "version": "1", **notes}
    entries = {
        key: {"dtype": "U8", "shape": [64], "data_offsets": [64 * i, 64 * i + 64]} for i, key in enumerate(notes)
    }
    packed_files.write(tmp_path / "many.safetensors", {"__metadata__": texts, **entries}, bytes(64 * count))
    script = "import sys; from marigold_c import _C; _C.Pipeline(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "many.safetensors"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (20, 20)),
    )
    assert done.returncode == 1
    assert "CheckpointError" in done.stderr

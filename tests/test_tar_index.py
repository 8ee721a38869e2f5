"""The index of a tar: every member found where it lies, hostile and damaged archives and indexes named as such."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import stat
import struct
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from marigold_c.datasets.sources import FolderSource, TarSource, open_source
from marigold_c.datasets.tar_index import SUFFIX, index_paths, open_index
from marigold_c.errors import DatasetError
from marigold_c.images.readers import InputError

BLOCK = 512
LONG = "a_folder_with_a_long_name/" * 12 + "picture.png"  # 323 characters: beyond what a plain header holds
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **fields: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for key, value in fields.items():
        setattr(entry, key, value)
    archive.addfile(entry, io.BytesIO(content) if entry.isreg() else None)


def write(path: Path, members: dict[str, bytes], kind: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in members.items():
            add(archive, name, content)
    return path


def read_all(source: TarSource) -> dict[str, bytes]:
    return {name: source.read(name) for name in source.names()}


def expected(path: Path) -> dict[str, bytes]:
    """The same by Python's tarfile."""
    with tarfile.open(path) as archive:
        found = {member.name: archive.extractfile(member) for member in archive if not member.isdir()}
        return {name.removeprefix("./"): file.read() for name, file in found.items() if file is not None}


@pytest.mark.parametrize("kind", FORMATS)
def test_members_as_tarfile_reads_them(kind: str, tmp_path: Path) -> None:
    random.seed(3)
    names = [f"./scene_{number:03d}/rgb_{number:04d}.png" for number in range(200)]
    names += [] if kind == "ustar" else [LONG, "müll/größe.npy", "with blanks/x y.npy"]
    path = write(tmp_path / "a.tar", {name: random.randbytes(random.randrange(2000)) for name in names}, FORMATS[kind])
    source = TarSource(path)
    assert read_all(source) == expected(path)
    assert len(read_all(source)) == len(names)
    assert source.read("scene_000/rgb_0000.png", 7) == expected(path)["scene_000/rgb_0000.png"][:7]
    assert (tmp_path / f"a.tar{SUFFIX}").is_file()
    assert read_all(TarSource(path)) == expected(path)  # from the stored index


def test_last_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "./a", b"first")
        add(archive, "b", b"between")
        add(archive, "a", b"second")
    assert read_all(TarSource(tmp_path / "a.tar")) == {"a": b"second", "b": b"between"}


def test_links_stand_for_their_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "folder", type=tarfile.DIRTYPE)
        add(archive, "folder/file", b"content")
        add(archive, "hard", type=tarfile.LNKTYPE, linkname="folder/file")
        add(archive, "folder/soft", type=tarfile.SYMTYPE, linkname="../hard")
        add(archive, "folder/far", type=tarfile.SYMTYPE, linkname="../../etc/passwd")
        add(archive, "loop", type=tarfile.SYMTYPE, linkname="loop")
        add(archive, "pipe", type=tarfile.FIFOTYPE)
    source = TarSource(tmp_path / "a.tar")
    assert {name: source.read(name) for name in ("folder/file", "hard", "folder/soft")} == dict.fromkeys(
        ("folder/file", "hard", "folder/soft"), b"content"
    )
    for name in ("folder/far", "loop"):
        with pytest.raises(InputError, match="link to a file that is not in the archive"):
            source.read(name)
    for name in ("pipe", "folder", "missing"):
        with pytest.raises(InputError, match="no such member"):
            source.read(name)


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A header block with a right checksum and anything for a size."""
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124 : 124 + len(size)] = size
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


END = bytes(2 * BLOCK)
SMALL = header(b"fine", b"00000000003\0") + b"abc".ljust(BLOCK, b"\0")
NEGATIVE = b"\xff" * 12
HUGE = b"\x80" + (2**62).to_bytes(11, "big")


def pax(record: bytes) -> bytes:
    return header(b"pax", b"%011o\0" % len(record), b"x") + record.ljust(BLOCK, b"\0")


HOSTILE = {
    "beyond the end": (SMALL + header(b"big", b"00000010000\0") + END, "at byte 1024: the member 'big' would take"),
    "huge": (header(b"huge", HUGE) + END, r"'huge' would take bytes 512 to \d{19}, but the archive has 1536"),
    "negative": (SMALL + header(b"less", NEGATIVE) + END, "'less' has the size -"),
    "negative long name": (header(b"long", NEGATIVE, b"L") + END, "has the size -"),
    "huge long name": (header(b"long", HUGE, b"L") + END, "a long name or pax header of"),
    "parent": (SMALL + header(b"../../etc/passwd", b"0" * 11) + END, r"'\.\./\.\./etc/passwd' leads out"),
    "hidden parent": (header(b"a/../../b", b"0" * 11) + END, "leads out"),
    "absolute": (header(b"/etc/passwd", b"0" * 11) + END, "'/etc/passwd' is absolute"),
    "pax parent": (pax(b"18 path=../secret\n") + header(b"x", b"0" * 11) + END, "'../secret' leads out"),
    "pax size": (pax(b"21 size=99999999999999\n"[:21]) + header(b"x", b"0" * 11) + END, "damaged pax header"),
    "pax huge size": (pax(b"23 size=99999999999999\n") + header(b"x", b"0" * 11) + END, "'x' would take"),
    "pax negative size": (pax(b"11 size=-1\n") + header(b"x", b"0" * 11) + END, "the size '-1'"),
    "pax without length": (pax(b"99999 path=x\n") + header(b"x", b"0" * 11) + END, "damaged pax header"),
    "no end": (SMALL, "ends without its end mark after 1024 bytes"),
    "cut in a header": (SMALL + header(b"x", b"0" * 11)[:200], "ends without its end mark"),
    "cut in a member": (SMALL[:600], "'fine' would take bytes 512 to 515|ends without"),
    "empty": (b"", "ends without its end mark after 0 bytes"),
    "no tar": (b"\x89PNG\r\n\x1a\n" * 100, "at byte 0: no header of a tar member"),
    "gzip": (b"\x1f\x8b" + bytes(1000), "a compressed archive; decompress it"),
    "damaged header": (SMALL + b"\1" + header(b"x", b"0" * 11)[1:] + END, "at byte 1024: no header"),
    "sparse map without an end": (header(b"s", b"0" * 11, b"S")[:482] + b"\1" + bytes(29), "."),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused_by_name(case: str, tmp_path: Path) -> None:
    content, message = HOSTILE[case]
    (tmp_path / "hostile.tar").write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        TarSource(tmp_path / "hostile.tar")
    assert str(tmp_path / "hostile.tar") in str(caught.value)
    assert not (tmp_path / f"hostile.tar{SUFFIX}").exists()


def test_every_cut_archive_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tar", {"a": b"x" * 700, LONG: b"y" * 100, "b": b"z"}).read_bytes()
    end = whole.rstrip(b"\0").__len__() // BLOCK * BLOCK + BLOCK  # after the last block that holds anything
    for length in range(0, end + 1, 128):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(DatasetError, match=r"cut\.tar"):
            TarSource(tmp_path / "cut.tar")


def test_damaged_bytes_never_do_more_than_fail(tmp_path: Path) -> None:
    whole = bytearray(write(tmp_path / "a.tar", {"./a": b"x" * 700, LONG: b"y" * 100}, FORMATS["pax"]).read_bytes())
    random.seed(5)
    path = tmp_path / "damaged.tar"
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(random.randrange(1, 4)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        path.write_bytes(damaged)
        for one in index_paths(path):
            one.unlink(missing_ok=True)
        try:
            read_all(TarSource(path))
        except (DatasetError, InputError):
            continue


def test_old_sparse_members_are_passed_over(tmp_path: Path) -> None:
    block = bytearray(header(b"holes", b"00000000003\0", b"S"))
    block[257:265] = b"ustar  \0"
    block[482] = 1  # one more block of the map follows
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "a.tar").write_bytes(bytes(block) + bytes(BLOCK) + b"abc".ljust(BLOCK, b"\0") + SMALL + END)
    source = TarSource(tmp_path / "a.tar")
    assert source.read("fine") == b"abc"
    with pytest.raises(InputError, match="--sparse"):
        source.read("holes")


def test_pax_sparse_members_are_refused_under_their_names(tmp_path: Path) -> None:
    record = b"22 GNU.sparse.major=1\n" + b"29 GNU.sparse.name=real/name\n"
    content = header(b"pax", b"%011o\0" % len(record), b"x") + record.ljust(BLOCK, b"\0")
    (tmp_path / "a.tar").write_bytes(content + header(b"GNUSparseFile.0/name", b"0" * 11) + END)
    with pytest.raises(InputError, match="--sparse"):
        TarSource(tmp_path / "a.tar").read("real/name")


def test_index_follows_the_archive(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"a": b"old"})
    assert TarSource(path).read("a") == b"old"
    write(path, {"a": b"new", "b": b""})
    assert read_all(TarSource(path)) == {"a": b"new", "b": b""}


def test_archive_that_changed_in_secret_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"a": b"old", "b": b"1"})
    TarSource(path)
    times = path.stat()
    write(path, {"b": b"1", "a": b"new"})
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(InputError, match="has changed since its index was made"):
        TarSource(path).read("a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_index_goes_to_the_cache_where_the_folder_is_read_only(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = write(folder / "a.tar", {"a": b"content"})
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert TarSource(path).read("a") == b"content"
        assert [one.name for one in folder.iterdir()] == ["a.tar"]
        (stored,) = (cache / "marigold_c" / "tar_index").iterdir()
        assert stored == index_paths(path)[1]
        assert TarSource(path).read("a") == b"content"
    finally:
        folder.chmod(stat.S_IRWXU)


def refuse_writing(*_: Any) -> None:
    raise PermissionError(13, "Permission denied")


def test_archive_is_read_where_no_index_can_be_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tar", {"a": b"content"})
    monkeypatch.setattr("marigold_c.datasets.tar_index.write_atomically", refuse_writing)
    assert read_all(TarSource(path)) == {"a": b"content"}
    assert not (tmp_path / f"a.tar{SUFFIX}").exists()


def test_second_place_takes_the_index_that_the_first_refuses(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import marigold_c.datasets.tar_index as module

    path, store = write(tmp_path / "a.tar", {"a": b"content"}), module.write_atomically
    monkeypatch.setattr(
        module, "write_atomically", lambda to, put: refuse_writing() if to.parent == tmp_path else store(to, put)
    )
    assert read_all(TarSource(path)) == {"a": b"content"}
    assert index_paths(path)[1].is_file() and index_paths(path)[1].is_relative_to(cache)


def test_damaged_index_is_made_anew_or_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {f"name_{number}": b"%d" % number for number in range(20)})
    TarSource(path)
    stored = tmp_path / f"a.tar{SUFFIX}"
    whole = stored.read_bytes()
    random.seed(7)
    for number in range(200):
        damaged = bytearray(whole)
        if number % 4 == 0:
            del damaged[random.randrange(len(damaged)) :]
        else:
            damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
        stored.write_bytes(damaged)
        source = TarSource(path)
        for name in range(20):
            try:
                content = source.read(f"name_{name}")
            except (DatasetError, InputError):
                continue
            assert content == b"%d" % name


def test_index_of_another_version_is_made_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"a": b"content"})
    TarSource(path)
    stored = tmp_path / f"a.tar{SUFFIX}"
    whole = stored.read_bytes()
    stored.write_bytes(whole[:8] + struct.pack("<I", 99) + whole[12:])
    assert TarSource(path).read("a") == b"content"
    assert stored.read_bytes() == whole


def test_sources_in_threads_and_other_processes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {f"{number}": b"%d" % number * 999 for number in range(50)})
    source = pickle.loads(pickle.dumps(TarSource(path)))
    failures: list[BaseException] = []

    def read() -> None:
        try:
            assert read_all(source) == {f"{number}": b"%d" % number * 999 for number in range(50)}
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    source.close()
    with pytest.raises(ValueError, match="is closed"):
        source.read("1")


def test_folder_and_archive_stand_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "unpacked" / "b").mkdir(parents=True)
    (tmp_path / "unpacked" / "b" / "file").write_bytes(b"content")
    write(tmp_path / "packed.tar", {"b/file": b"content"})
    assert isinstance(open_source(tmp_path / "unpacked.tar"), FolderSource)
    assert isinstance(open_source(tmp_path / "packed"), TarSource)
    for name in ("unpacked", "packed"):
        source = open_source(tmp_path / name)
        assert (list(source.names()), source.read("b/file")) == (["b/file"], b"content")
        with pytest.raises(InputError, match="no such"):
            source.read("b/other")
    with pytest.raises(InputError, match="is no file"):
        open_source(tmp_path / "unpacked").read("b")
    with pytest.raises(DatasetError, match=r"neither at .*/nothing nor at .*/nothing\.tar"):
        open_source(tmp_path / "nothing")


def test_archive_of_many_members_with_holes(tmp_path: Path) -> None:
    """2 GB in 4 000 members of which only the headers are written: small on disk, opened without reading it."""
    path, count, size = tmp_path / "large.tar", 4000, 500 * 1024
    step = BLOCK + size + -size % BLOCK
    with path.open("wb") as file:
        for number in range(count):
            file.seek(number * step)
            file.write(header(b"./scene/%06d.png" % number, b"%011o\0" % size))
        file.truncate(count * step + 2 * BLOCK)
    if path.stat().st_blocks * 512 > 200 << 20:
        pytest.skip("the file system stores holes")
    source = TarSource(path)
    assert sum(1 for _ in source.names()) == count
    assert source.read("scene/003999.png") == bytes(size)
    handle = os.open(path, os.O_RDONLY)
    try:
        member = open_index(handle, path).find("scene/002000.png")
        assert member is not None and (member.data, member.size) == (2000 * step + BLOCK, size)
    finally:
        os.close(handle)


@pytest.mark.long
def test_benchmark_reports(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parent.parent / "benchmarks" / "tar_index.py"
    output = tmp_path / "report.json"
    options = ["--members", "300", "--gigabytes", "0.01", "--reads", "20", "--folder", tmp_path, "--output", output]
    command = [sys.executable, script, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report["members"] == 300 and len(report["opened"]) == 5
    assert "opened with the index" in done.stdout
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []

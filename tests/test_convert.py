"""Packed checkpoints: the folder's results on any instruction set; whole or not at all; hostile ones are refused."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import packed_files
import pytest

import marigold_c as mc
from marigold_c import _C, _testing
from marigold_c.commands.cli import main

TASKS = ("depth", "normals", "iid")
DTYPES = ("float32", "bfloat16", "int8")
ISAS = _testing.isas()
ISA = os.environ.get("MARIGOLD_ISA") or ISAS[-1]  # what pipelines choose
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 41, 56, 3), dtype=np.uint8)
EMBEDDING = "text_encoder.empty_prompt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packed")


@pytest.fixture(scope="module")
def packed(folder: Path) -> Callable[..., Path]:
    """packed(task, dtype): the shipped checkpoint of a task, packed once."""

    def path_of(task: str = "depth", dtype: str = "float32") -> Path:
        path = folder / f"{task}-{dtype}.safetensors"
        if not path.exists():
            mc.convert(mc.default_checkpoint(task), path, dtype=dtype, num_threads=1)
        return path

    return path_of


def load(checkpoint: Path, **options: Any) -> Any:
    pipe = mc.load(checkpoint, num_threads=1, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def engine(checkpoint: Path, **options: Any) -> _C.Pipeline:
    return _C.Pipeline(checkpoint, num_threads=1, **options)


# ---- the same results ----
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("task", TASKS)
def test_predicts_what_the_folder_predicts(packed: Callable[..., Path], task: str, dtype: str) -> None:
    options = {"ensemble_size": 3, "batch_size": 2, "generator": 0, "output_uncertainty": True, "output_latent": True}
    expected = load(mc.default_checkpoint(task), dtype=dtype)(IMAGES, 2, **options)
    pipe = load(packed(task, dtype))
    found = pipe(IMAGES, 2, **options)
    assert pipe.dtype == dtype
    for name in ("prediction", "uncertainty", "latent"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    stats = pipe.memory_stats()
    assert stats["weights_packed"] == 0
    assert 0.9 * packed(task, dtype).stat().st_size < stats["weights_mapped"] <= packed(task, dtype).stat().st_size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("isa", "other"), [*((isa, ISAS[-1]) for isa in ISAS), *((ISAS[-1], other) for other in ISAS[:-1])]
)
def test_another_instruction_set_repacks(folder: Path, isa: str, other: str, dtype: str) -> None:
    """What is packed for one and opened by another is what it would have packed: every byte of every weight."""
    shipped = mc.default_checkpoint("depth")
    paths = {one: folder / f"{one}-{dtype}.safetensors" for one in (isa, other)}
    for one, path in paths.items():
        if not path.exists():
            engine(shipped, isa=one, dtype=dtype).save(path)
    again = folder / f"{isa}-of-{other}-{dtype}.safetensors"
    opened = engine(paths[other], isa=isa)
    opened.save(again, replace=True)
    found, expected = packed_files.tensors(again), packed_files.tensors(paths[isa])
    embedding, own = found.pop(EMBEDDING), expected.pop(EMBEDDING)
    assert found == expected
    # The text encoder ran where the file was made: its last bits are that processor's.
    np.testing.assert_allclose(np.frombuffer(embedding[2], "f4"), np.frombuffer(own[2], "f4"), rtol=1e-4, atol=1e-5)
    z = np.random.default_rng(1).standard_normal((1, 4, 8, 8), dtype=np.float32)
    np.testing.assert_array_equal(opened.vae_decode(z), engine(shipped, isa=isa, dtype=dtype).vae_decode(z))
    again.unlink()


def layouts() -> list[str]:
    """The panels of every instruction set, and the plain order."""
    kinds = [("float32", 1), ("bfloat16", 2), ("int8", 4)]
    return ["float32", *(f"{dtype}/{panel}/{group}" for dtype, group in kinds for panel in (8, 32, 64))]


@pytest.mark.parametrize("layout", layouts())
@pytest.mark.parametrize("other", layouts())
def test_layouts_become_each_other(layout: str, other: str) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1, 1), (33, 5, 3, 3), (64, 130, 1, 1), (7, 64, 3, 2), (100, 3, 1, 1)):
        weight = rng.standard_normal(shape).astype(np.float32)
        direct, by_way, plain = _testing.repack(weight.tobytes(), shape, layout, other, 2)
        unpacked = np.frombuffer(plain, np.float32).reshape(shape)
        if layout.split("/")[0] == other.split("/")[0]:
            assert by_way == direct
        if other.startswith("float32"):
            np.testing.assert_array_equal(unpacked, weight)
        elif other.startswith("bfloat16"):
            bits = weight.view(np.uint32)
            bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
            np.testing.assert_array_equal(unpacked.view(np.uint32), bits)
        else:
            step = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127
            assert (np.abs(unpacked - weight) <= 0.5001 * step).all()
            np.testing.assert_allclose(unpacked / step, np.rint(unpacked / step), atol=1e-4)


def test_layout_texts() -> None:
    for text in layouts():
        assert _testing.layout_text(text) == text
    wrong = (
        "",
        "float32/",
        "float32/0",
        "float32/0/1",
        "float32/-16/1",
        "float32/16",
        "float32/+16/1",
        "float32/16/1 ",
    )
    wrong += ("float32/16/0", "float32/016/1", "float32/65/1", "float32/99999999999999999999/1", "float16/16/1", "int8")
    wrong += ("int8/32/8", "bfloat16", "float32/16/1/1", "\u00e9/16/1", "float32/2147483647/2147483647")
    for text in wrong:
        assert _testing.layout_text(text) is None, text


def test_checksums_are_those_of_zlib() -> None:
    data = random.Random(0).randbytes(1000)
    for begin in range(9):
        for end in (begin, begin + 1, begin + 7, begin + 8, begin + 17, 1000):
            assert _testing.crc32(data[begin:end], 0) == zlib.crc32(data[begin:end])
            assert _testing.crc32(data[begin:end], 77) == zlib.crc32(data[begin:end], 77)


@pytest.mark.parametrize("task", TASKS)
def test_configurations_are_those_of_the_folder(packed: Callable[..., Path], task: str) -> None:
    pipe, expected = load(packed(task)), load(mc.default_checkpoint(task))
    assert type(pipe) is type(expected)
    assert pipe.config == expected.config
    assert pipe.unet.config == expected.unet.config
    assert pipe.vae.config == expected.vae.config
    assert pipe.scheduler.config == expected.scheduler.config
    assert mc.DDIMScheduler.from_pretrained(packed(task)).config == expected.scheduler.config
    np.testing.assert_array_equal(pipe.empty_text_embedding, expected.empty_text_embedding)


@pytest.mark.parametrize("scheduler", [mc.EulerDiscreteScheduler, mc.DPMSolverMultistepScheduler])
def test_every_scheduler_is_packed(scheduler: type[Any], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(mc.default_checkpoint(), folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(scheduler.from_config(json.loads(path.read_text()), use_karras_sigmas=True).config))
    mc.convert(folder, tmp_path / "packed.safetensors")
    ours, theirs = load(tmp_path / "packed.safetensors"), load(folder)
    assert type(ours.scheduler) is type(theirs.scheduler) is scheduler
    assert ours.scheduler.config == theirs.scheduler.config
    image = np.random.default_rng(0).random((24, 32, 3), np.float32)
    runs = [pipe(image, num_inference_steps=3, generator=0).prediction for pipe in (ours, theirs)]
    np.testing.assert_array_equal(*runs)


@pytest.fixture(scope="module")
def other_vae(folder: Path) -> Path:
    """A packed checkpoint whose VAE adds something to each pixel."""
    source, path = folder / "other", folder / "other.safetensors"
    shutil.copytree(mc.default_checkpoint("normals"), source)
    weights = source / "vae" / "diffusion_pytorch_model.safetensors"
    header, _ = packed_files.read(weights)
    raw = bytearray(weights.read_bytes())
    entry = header["decoder.conv_out.bias"]
    begin, end = (8 + int.from_bytes(raw[:8], "little") + offset for offset in entry["data_offsets"])
    values = np.array([0.25, -0.5, 1], {"F16": np.float16, "F32": np.float32}[entry["dtype"]]).tobytes()
    assert len(values) == end - begin
    raw[begin:end] = values
    weights.write_bytes(raw)
    return mc.convert(source, path, num_threads=1)


def test_a_packed_vae_moves(packed: Callable[..., Path], other_vae: Path) -> None:
    pipe, other = load(packed("depth")), load(other_vae)
    z = np.random.default_rng(1).standard_normal((1, 4, 8, 8), dtype=np.float32)
    expected = other.vae.decode(z)
    assert not np.array_equal(pipe.vae.decode(z), expected)
    pipe.vae = other.vae
    np.testing.assert_array_equal(pipe.vae.decode(z), expected)
    np.testing.assert_array_equal(load(mc.default_checkpoint(), vae=other_vae).vae.decode(z), expected)


def test_a_packed_vae_of_another_precision(packed: Callable[..., Path]) -> None:
    """Its weights are brought into the types of the pipeline that takes it."""
    z = np.random.default_rng(1).standard_normal((1, 4, 8, 8), dtype=np.float32)
    exact = load(mc.default_checkpoint()).vae.decode(z)
    for dtype in ("bfloat16", "int8"):
        rounded = load(mc.default_checkpoint(), vae=packed("depth", dtype)).vae.decode(z)
        assert 1e-4 < np.abs(rounded - exact).max() < 0.1


def test_a_replaced_vae_is_packed(packed: Callable[..., Path], other_vae: Path, tmp_path: Path) -> None:
    path = mc.convert(mc.default_checkpoint(), tmp_path / "x", vae=other_vae, num_threads=1)
    z = np.random.default_rng(1).standard_normal((1, 4, 8, 8), dtype=np.float32)
    np.testing.assert_array_equal(load(path).vae.decode(z), load(other_vae).vae.decode(z))
    assert not np.array_equal(load(path).vae.decode(z), load(packed()).vae.decode(z))
    assert load(path).vae.config == load(other_vae).vae.config


def test_a_packed_file_is_packed_again(packed: Callable[..., Path], tmp_path: Path) -> None:
    again = mc.convert(packed(), tmp_path / "x", num_threads=1)
    assert again.read_bytes() == packed().read_bytes()
    assert mc.convert(packed(), tmp_path / "x", force=True, num_threads=3).read_bytes() == packed().read_bytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_its_precision_is_what_was_asked_for(packed: Callable[..., Path], dtype: str, tmp_path: Path) -> None:
    assert load(packed("depth", dtype)).dtype == dtype
    assert load(packed("depth", dtype), dtype="auto").dtype == dtype
    assert load(packed("depth", dtype), dtype=dtype).dtype == dtype
    other = "float32" if dtype != "float32" else "bfloat16"
    with pytest.raises(ValueError, match=rf'dtype "{other}": .*{dtype}\.safetensors was packed as {dtype}'):
        load(packed("depth", dtype), dtype=other)
    with pytest.raises(ValueError, match=rf"was packed as {dtype}"):
        mc.convert(packed("depth", dtype), tmp_path / "x", dtype=other)
    with pytest.raises(ValueError, match="packed file, which has no variants"):
        load(packed("depth", dtype), variant="fp16")


# ---- the format ----
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_file_is_what_its_description_says(packed: Callable[..., Path], dtype: str) -> None:
    path = packed("iid", dtype)
    raw = path.read_bytes()
    header, data = packed_files.read(path)
    texts = header.pop("__metadata__")
    end, at = 8 + int.from_bytes(raw[:8], "little"), 0
    stated = texts["crc32"].encode()
    assert raw.startswith(packed_files.BEGINNING + stated, 8)
    assert f"{zlib.crc32(raw[8:end].replace(stated, b'0' * 8, 1)):08x}".encode() == stated
    assert texts["format"] == "marigold_c packed checkpoint"
    assert (texts["version"], texts["dtype"], texts["isa"]) == ("1", dtype, ISA)
    for name in ("model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"):
        assert texts[name] == (mc.default_checkpoint("iid") / name).read_text(encoding="utf-8")
    assert end % 64 == 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        assert (entry["dtype"], entry["shape"]) == ("U8", [end - begin])
        assert begin == at
        assert begin % 64 == 0
        assert texts[name].startswith(f"{zlib.crc32(data[begin:end]):08x} ")
        at = end
    assert at == len(data)


def test_other_readers_read_it(packed: Callable[..., Path]) -> None:
    numpy_reader = pytest.importorskip("safetensors.numpy")
    found = numpy_reader.load_file(packed())
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: raw for name, (_, _, raw) in packed_files.tensors(packed()).items()
    }


def test_the_licence_goes_along(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(mc.default_checkpoint(), source)
    (source / "README.md").write_text('---\nlicense: "a \\\\ b\u00e9\t\U0001f600\x7f"\n---\n', encoding="utf-8")
    path = mc.convert(source, tmp_path / "x.safetensors", num_threads=1)
    header, _ = packed_files.read(path)
    assert header["__metadata__"]["licence"] == '"a \\\\ b\u00e9\t\U0001f600\x7f"'
    assert mc.convert(path, tmp_path / "y", num_threads=1).read_bytes() == path.read_bytes()


# ---- the command ----
def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_commands(packed: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = Path(__file__).parent / "data" / "scene0.png"
    target = tmp_path / "x.safetensors"
    code, out, _ = command(capsys, "convert", mc.default_checkpoint(), target, "--dtype", "float32", "--threads", 1)
    assert (code, target.read_bytes()) == (0, packed().read_bytes())
    assert re.fullmatch(rf"{re.escape(str(target))}: 36\.\d MB, float32 for {ISA}\n", out)
    code, _, err = command(capsys, "convert", mc.default_checkpoint(), target)
    assert (code, err) == (1, f"marigold: error: {target}: File exists\n")
    assert command(capsys, "convert", mc.default_checkpoint(), target, "--force")[0] == 0
    shared = ("--seed", 0, "--threads", 1, "--quiet", "--format", "npy", "--processing-res", 64)
    assert command(capsys, "depth", photo, "-o", tmp_path / "a", "--checkpoint", target, *shared)[0] == 0
    assert command(capsys, "depth", photo, "-o", tmp_path / "b", *shared)[0] == 0
    name = "depth_npy/scene0_depth.npy"
    np.testing.assert_array_equal(np.load(tmp_path / "a" / name), np.load(tmp_path / "b" / name))


@pytest.mark.parametrize("dtype", DTYPES)
def test_info(packed: Callable[..., Path], dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed("normals", dtype)
    code, out, _ = command(capsys, "info", path, "--json", "--verify")
    facts = json.loads(out)
    _, plain, _ = command(capsys, "info", mc.default_checkpoint("normals"), "--json")
    expected = json.loads(plain)
    for key in ("class_name", "task", "default_denoising_steps", "unet", "vae", "scheduler"):
        assert facts[key] == expected[key]
    parts = {name: part["parameters"] for name, part in facts["packed"]["components"].items()}
    stored = expected["variants"]["default"]["components"]
    assert (parts["unet"], parts["vae"]) == (stored["unet"]["parameters"], stored["vae"]["parameters"])
    assert (code, facts["verified"], facts["packed"]["dtype"], facts["packed"]["isa"]) == (0, True, dtype, ISA)
    code, out, _ = command(capsys, "info", path)
    assert code == 0
    assert f"packed as {dtype} for {ISA}: 9." in out
    assert "checksums" not in out
    assert "checksums    all right" in command(capsys, "info", path, "--verify")[1]
    code, _, err = command(capsys, "info", mc.default_checkpoint(), "--verify")
    assert (code, "is a folder; only packed files have checksums" in err) == (1, True)


# ---- whole or not at all ----
def test_an_existing_file_stays(tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"x\.safetensors"):
        mc.convert(mc.default_checkpoint(), target)
    with pytest.raises(FileExistsError, match=r"x\.safetensors: not overwritten"):
        engine(mc.default_checkpoint()).save(target)
    assert target.read_bytes() == b"mine"
    mc.convert(mc.default_checkpoint(), target, force=True, num_threads=1)
    assert load(target).task == "depth"
    assert list(tmp_path.iterdir()) == [target]


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    pipe = engine(mc.default_checkpoint())
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileNotFoundError, match="none/x: cannot be written"):
        pipe.save(tmp_path / "none" / "x")
    with pytest.raises(NotADirectoryError, match="file/x"):
        pipe.save(tmp_path / "file" / "x")
    for force in (False, True):
        with pytest.raises(OSError, match=r"not a regular file|not overwritten"):
            pipe.save("/dev/null", replace=force)
        with pytest.raises(IsADirectoryError, match="not a regular file"):
            pipe.save(tmp_path, replace=force)
    with pytest.raises(FileNotFoundError, match="/none"):
        mc.convert(tmp_path / "none", tmp_path / "x")
    with pytest.raises(ValueError, match="num_threads"):
        mc.convert(mc.default_checkpoint(), tmp_path / "x", num_threads=0)
    with pytest.raises(NotImplementedError, match="dtype"):
        mc.convert(mc.default_checkpoint(), tmp_path / "x", dtype="float8")
    pipe.save(tmp_path / "x")  # goes on working
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop", "x"]


LIMITED = """
import resource, signal, sys
import marigold_c as mc
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, resource.RLIM_INFINITY))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL if sys.argv[3] == "killed" else signal.SIG_IGN)
mc.convert(sys.argv[1], sys.argv[2], force=True, num_threads=1)
"""


@pytest.mark.parametrize("way", ["killed", "full"])
@pytest.mark.parametrize("existing", [True, False])
def test_what_is_cut_short_leaves_nothing(tmp_path: Path, way: str, existing: bool) -> None:
    """The process is killed, or the disk is full, after 20 of 36 MB."""
    target = tmp_path / "x.safetensors"
    if existing:
        target.write_bytes(b"mine")
    arguments = [sys.executable, "-c", LIMITED, str(mc.default_checkpoint()), str(target), way]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=100, check=False)
    if way == "killed":
        assert done.returncode == -signal.SIGXFSZ
    else:
        assert done.returncode == 1
        assert re.search(r"OSError: .*x\.safetensors: cannot be written at byte \d+", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == [target.name] * existing
    assert not existing or target.read_bytes() == b"mine"


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    pipe = engine(mc.default_checkpoint())
    interrupted = 0

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for index in range(20):
            target = tmp_path / str(index)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.005)
                pipe.save(target)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += not target.exists()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
    assert not list(tmp_path.glob("*partial*"))
    for path in tmp_path.iterdir():
        _C.verify_packed(path)


def test_memory_does_not_grow_with_the_file(folder: Path) -> None:
    script = (
        "import resource, sys, marigold_c as mc; from marigold_c import _C\n"
        "pipe = _C.Pipeline(mc.default_checkpoint(), num_threads=1); pipe.memory()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pipe.save(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    arguments = [sys.executable, "-c", script, str(folder / "memory.safetensors")]
    grown = int(subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=100).stdout)
    assert grown < 12_000, f"{grown} kB for a file of 36 MB"  # one weight, and pages of the source


# ---- two converters at once ----

# Between the last look at a file's place and the moment it gets its name, another program's file appears there.
MEANWHILE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static void appear(const char *path) {
    const int file = strstr(path, "contested") ? open(path, O_CREAT | O_EXCL | O_WRONLY, 0600) : -1;
    if (file < 0)
        return;
    if (write(file, "theirs", 6) != 6)
        _exit(99);
    close(file);
}

int rename(const char *from, const char *to) {
    appear(to);
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
}

int link(const char *from, const char *to) {
    appear(to);
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "link"))(from, to);
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_file_that_appears_at_the_last_moment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "meanwhile.c").write_text(MEANWHILE)
    library, target = "meanwhile.so", tmp_path / "contested.safetensors"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / library, tmp_path / "meanwhile.c", "-ldl"], check=True)
    preload = f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()  # its paths may have no blanks
    done = subprocess.run(
        [sys.executable, "-m", "marigold_c", "convert", mc.default_checkpoint(), target, "--threads", "1"],
        env={**os.environ, "LD_PRELOAD": preload, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "contested.safetensors: not overwritten" in done.stderr
    assert target.read_text() == "theirs"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".c", ".safetensors", ".so"]

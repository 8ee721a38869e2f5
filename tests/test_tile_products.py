"""Products by AMX (csrc/backend/cpu/isa/product_tiles.h): the instructions in software on any processor, held to
float64; beside the processor's own, to the bit, where it has them; and the set `amx` in its process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from marigold_c import _testing
from reference_ops import round_to_bfloat16

HERE = Path(__file__).resolve().parent
HAS_AMX = "amx" in _testing.isas()
needs_amx = pytest.mark.skipif(not HAS_AMX, reason="needs a processor with AMX, and Linux's permission")
if shutil.which("cc") is None:
    pytest.skip("needs cc", allow_module_level=True)

COLUMNS = 32
ROWS = (1, 2, 15, 16, 17, 31, 32, 33, 48, 75)
STEPS = (1, 7, 15, 16, 17, 32, 45)
Bytes = NDArray[np.uint8]


def compiled(folder: Path, name: str, *flags: str) -> Path:
    program = folder / name
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", *flags, HERE / "tile_products.c"]
    subprocess.run([*command, "-o", program, "-lm"], check=True)
    return program


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("tiles")
    found = {"software": compiled(folder, "software", "-DIN_SOFTWARE")}
    if HAS_AMX:
        found["hardware"] = compiled(folder, "hardware", "-mamx-tile", "-mamx-bf16", "-mamx-int8")
    return found


def halves(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """bfloat16 as it is stored."""
    return (round_to_bfloat16(values).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def floats(values: NDArray[np.uint16]) -> NDArray[np.float64]:
    return (values.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def product(program: Path, kind: str, a: Bytes, b: Bytes, c: Bytes | None) -> Bytes:
    """a: rows x steps x 4, b: steps x columns x 4, c: rows x columns x 4 bytes, or None: nothing to add to."""
    before = c if c is not None else np.full((len(a), COLUMNS, 4), 0xFF, np.uint8)
    words = [program, kind, str(len(a)), str(len(b)), str(int(c is not None))]
    given = a.tobytes() + b.tobytes() + before.tobytes()
    done = subprocess.run(words, input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, np.uint8).reshape(len(a), COLUMNS, 4)


def operands(kind: str, rows: int, steps: int) -> tuple[Bytes, Bytes, Bytes]:
    random = np.random.default_rng(rows * 100 + steps)
    if kind == "bytes":
        a, b = (random.integers(0, 256, shape, np.uint8) for shape in ((rows, steps, 4), (steps, COLUMNS, 4)))
        return a, b, random.integers(-1000, 1000, (rows, COLUMNS), np.int32).view(np.uint8).reshape(rows, COLUMNS, 4)
    a, b = (
        halves(random.standard_normal(shape, np.float32)).view(np.uint8).reshape(*shape[:2], 4)
        for shape in ((rows, steps, 2), (steps, COLUMNS, 2))
    )
    return a, b, random.standard_normal((rows, COLUMNS), np.float32).view(np.uint8).reshape(rows, COLUMNS, 4)


def exact(kind: str, a: Bytes, b: Bytes, c: Bytes | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The product in float64, and the sum of its terms' magnitudes."""
    if kind == "bytes":
        left, right = a.astype(float), b.view(np.int8).astype(float)
    else:
        left, right = floats(a.view(np.uint16)), floats(b.view(np.uint16))
    before = np.zeros((len(a), COLUMNS)) if c is None else c.view(np.int32 if kind == "bytes" else np.float32)[..., 0]
    sums = np.einsum("msi,sni->mn", left, right) + before
    return sums, np.einsum("msi,sni->mn", np.abs(left), np.abs(right)) + np.abs(before)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("kind", ["bytes", "bfloat16"])
def test_products_in_software_agree_with_float64(programs: Mapping[str, Path], kind: str, accumulate: bool) -> None:
    for rows in ROWS:
        for steps in STEPS:
            a, b, c = operands(kind, rows, steps)
            found = product(programs["software"], kind, a, b, c if accumulate else None)
            expected, magnitude = exact(kind, a, b, c if accumulate else None)
            sums = found.view(np.int32 if kind == "bytes" else np.float32)[..., 0]
            # Bytes are exact; float32 rounds each addition of a chain, some of which follow each other.
            allowed = 0.0 if kind == "bytes" else 2.0**-23 * magnitude
            assert (np.abs(sums - expected) <= allowed).all(), (rows, steps)


@pytest.mark.parametrize("where", ["software", pytest.param("hardware", marks=needs_amx)])
@pytest.mark.parametrize("kind", ["bytes", "bfloat16"])
def test_a_row_does_not_depend_on_the_others(programs: Mapping[str, Path], where: str, kind: str) -> None:
    a, b, c = operands(kind, 75, 45)
    whole = product(programs[where], kind, a, b, c)
    for begin, end in ((0, 1), (3, 19), (16, 48), (31, 62), (74, 75), (10, 75)):
        part = product(programs[where], kind, a[begin:end], b, c[begin:end])
        assert np.array_equal(part, whole[begin:end]), (begin, end)


@needs_amx
@pytest.mark.parametrize("kind", ["bytes", "bfloat16"])
def test_software_does_what_the_processor_does(programs: Mapping[str, Path], kind: str) -> None:
    for rows in ROWS:
        for steps in STEPS:
            a, b, c = operands(kind, rows, steps)
            for before in (c, None):
                found = [product(programs[where], kind, a, b, before) for where in ("software", "hardware")]
                assert np.array_equal(*found), (rows, steps)


@needs_amx
def test_software_knows_infinities_nan_and_denormals(programs: Mapping[str, Path]) -> None:
    random = np.random.default_rng(0)
    shapes = ((40, 21, 4), (21, COLUMNS, 4))
    a, b = (random.integers(0, 256, shape, np.uint8) for shape in shapes)  # of any exponent
    c = random.integers(0, 256, (40, COLUMNS, 4), np.uint8)
    for operand in (a, b):
        rare = operand.view(np.uint16)
        rare[random.random(rare.shape) < 0.9] &= 0xBFFF  # most are small: not every sum is NaN
        rare[random.random(rare.shape) < 0.3] &= 0x807F  # denormals
    software, hardware = (product(programs[w], "bfloat16", a, b, c) for w in ("software", "hardware"))
    left, right = (found.view(np.float32)[..., 0] for found in (software, hardware))
    assert np.isnan(left).any() and np.isinf(left).any() and np.isfinite(left).mean() > 0.1
    assert np.array_equal(np.isnan(left), np.isnan(right))
    assert np.array_equal(software[~np.isnan(left)], hardware[~np.isnan(left)])


def run_python(code: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name != "MARIGOLD_ISA"}
    done = subprocess.run([sys.executable, "-c", code], env=kept, check=True, capture_output=True, text=True)
    return done.stdout.split()


LINEAR = """
import numpy as np
from marigold_c import _testing
x, weight = (np.random.default_rng(0).standard_normal(s, np.float32) for s in ((1, 1, 600, 200), (96, 200)))
def linear(isa, precision, threads=2):
    return _testing.run_op("cpu", isa, threads, "linear", {}, [x, weight], -1, precision)[1]
"""


@needs_amx
def test_threads_from_before_the_permission_and_children_multiply_by_tiles() -> None:
    code = """
import os
linear("avx512bf16", "bfloat16")  # starts threads; nobody has asked for tiles yet
for precision in ("bfloat16", "int8"):
    expected = linear("amx", precision)
    assert linear("amx", precision, 1) == expected
    child = os.fork()
    if not child:
        os._exit(0 if linear("amx", precision) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    print(precision, linear("avx512bf16", precision) == expected)
"""
    assert run_python(LINEAR + code) == ["bfloat16", "False", "int8", "True"]  # bytes are exact, whoever multiplies


@needs_amx
def test_a_small_signal_stack_leaves_amx_out() -> None:
    """Linux refuses the tiles, whose 8 KiB such a stack could not take; then the next set is the best."""
    code = """
import ctypes
class Stack(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(8192)
stack = Stack(ctypes.addressof(memory), 0, 8192)
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
from marigold_c import _C
print(_C.best_isa())
"""
    assert run_python(code) == ["avx512bf16"]

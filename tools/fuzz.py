"""Builds the harnesses of tests/fuzz with clang's libFuzzer and sanitizers, and runs each for some seconds.

    python tools/fuzz.py --seconds 60 [--jobs N] [NAME ...]

The engine's readers in C (config, json, packed, safetensors, tokenizer), and the package's in Python by atheris
(python_readers.py, one target a reader). An input that ends a harness is kept in build/fuzz/found and named. Corpora:
tests/fuzz/corpus, and earlier findings in build/fuzz/corpus. The sum of all inputs is printed last. Exit code 1: a
fault, or a harness that took no input. Where atheris is not installed (it has wheels for some versions of Python only),
the readers in Python are left out unless they are named, and that is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import scipy_openblas32

ROOT = Path(__file__).resolve().parent.parent
FUZZ, BUILD = ROOT / "tests" / "fuzz", ROOT / "build" / "fuzz"
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=undefined"
ENGINE_FLAGS = f"-O1 -g {SANITIZE} -fsanitize=fuzzer-no-link -fno-omit-frame-pointer"
LARGEST = 8192  # bytes of an input
MEMORY = 2048  # MB
SECONDS_OF_ONE = 20  # an input that takes longer is reported
DICTIONARY = ("json", "safetensors", "packed", "config", "tokenizer", "header")


def build_engine() -> list[Path]:
    """The engine's objects, compiled for coverage-guided fuzzing."""
    environment = os.environ | {"CC": "clang", "MARIGOLD_CFLAGS": ENGINE_FLAGS, "MARIGOLD_LDFLAGS": SANITIZE}
    environment.pop("MARIGOLD_BUILD_TESTING", None)
    places = ["--build-temp", str(BUILD / "objects"), "--build-lib", str(BUILD / "lib")]
    command = [sys.executable, "setup.py", "--quiet", "build_ext", *places]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return [path for path in sorted((BUILD / "objects").rglob("*.o")) if "csrc/py" not in path.as_posix()]


def build_harness(name: str, objects: list[Path]) -> Path:
    program = BUILD / f"fuzz_{name}"
    library = ["-L" + scipy_openblas32.get_lib_dir(), "-l" + scipy_openblas32.get_library()]
    run_path = "-Wl,-rpath," + scipy_openblas32.get_lib_dir()
    flags = [
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        *SANITIZE.split(),
        "-fsanitize=fuzzer",
    ]
    sources = [FUZZ / f"fuzz_{name}.c", FUZZ / "fuzz.c"]
    command = ["clang", *flags, *sources, *objects, *library, run_path, "-lm", "-pthread", "-o", program]
    subprocess.run(list(map(str, command)), check=True)
    return program


def run(name: str, command: list[str], seconds: int) -> tuple[int, bool]:
    """The number of inputs, and whether all went well."""
    kept, found = BUILD / "corpus" / name, BUILD / "found"
    for folder in (kept, found):
        folder.mkdir(parents=True, exist_ok=True)
    seeds = FUZZ / "corpus" / name.replace("_", "-")
    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={LARGEST}",
        f"-rss_limit_mb={MEMORY}",
        f"-timeout={SECONDS_OF_ONE}",
    ]
    options = [*limits, "-print_final_stats=1", f"-artifact_prefix={found}/{name}-"]
    options += [f"-dict={FUZZ / 'json.dict'}"] if name in DICTIONARY else []
    corpora = [str(kept), *([str(seeds)] if seeds.is_dir() else [])]
    environment = os.environ | {"ASAN_OPTIONS": "allocator_may_return_null=1:detect_leaks=1"}
    done = subprocess.run([*command, *options, *corpora], env=environment, capture_output=True, text=True, check=False)
    counted = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    count = int(counted[1]) if counted else 0
    well = done.returncode == 0 and count > 0
    print(f"{name}: {count} inputs, {'no fault' if well else 'A FAULT'}", flush=True)
    if not well:
        print(done.stderr[-6000:], file=sys.stderr)
    return count, well


def targets() -> dict[str, list[str]]:
    """The command of each target but those of C, which are built first."""
    sys.path.insert(0, str(FUZZ))
    from python_readers import TARGETS

    return {name: [sys.executable, str(FUZZ / "python_readers.py"), name] for name in TARGETS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="of each; default: 60")
    parser.add_argument("--jobs", type=int, default=1, help="harnesses that run at a time; default: 1")
    args = parser.parse_args()
    in_c = sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.c"))
    in_python = targets()
    unknown = sorted(set(args.names) - {*in_c, *in_python})
    if unknown:
        parser.error(f"{unknown[0]}: choose from {', '.join([*in_c, *in_python])}")
    wanted = args.names or [*in_c, *in_python]
    if not args.names and importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: the readers in Python are left out", flush=True)
        wanted = in_c
    objects = build_engine() if set(wanted) & set(in_c) else []
    commands = {name: [str(build_harness(name, objects))] if name in in_c else in_python[name] for name in wanted}
    with ThreadPoolExecutor(args.jobs) as pool:  # each waits for a process
        results = list(pool.map(lambda one: run(*one, args.seconds), commands.items()))
    print(f"{sum(count for count, _ in results)} inputs in all")
    sys.exit(not all(well for _, well in results))


if __name__ == "__main__":
    main()

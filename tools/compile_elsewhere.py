"""Compiles the engine for systems that it is not run on: every C file but the binding, warnings as errors.

    python tools/compile_elsewhere.py [aarch64-macos]

Zig's clang brings their headers. That it compiles says that nothing of another system is asked for, and no more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from engine_sources import ENGINE_ROOMS, FILE_FLAGS, FLAGS_OF_MACHINE, ROOT, sources

TARGETS = ("aarch64-macos",)
FLAGS = (
    *("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fvisibility=hidden", "-D_GNU_SOURCE"),
)


def compile_one(target: str, source: str) -> str:
    """What the compiler says, if it fails."""
    name = Path(source).name
    flags = [*FLAGS, *FILE_FLAGS.get(name, []), *FLAGS_OF_MACHINE[target.partition("-")[0]].get(name, [])]
    out = ROOT / "build" / "elsewhere" / target / Path(source).with_suffix(".o")
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *flags, "-c", source, "-o", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return f"{source}:\n{done.stderr}" if done.returncode else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=TARGETS, help="default: all")
    targets = parser.parse_args().targets
    files = sources(*(f"csrc/{room}" for room in ENGINE_ROOMS))
    failures = 0
    for target in targets:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            faults = [said for said in pool.map(partial(compile_one, target), files) if said]
        print(*faults, f"{target}: {len(files) - len(faults)} of {len(files)} files compiled", sep="\n")
        failures += len(faults)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())

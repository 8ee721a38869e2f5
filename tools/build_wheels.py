"""Builds wheels for Linux on x86-64 and aarch64 that need no compiler where they are installed, without a container.

    python tools/build_wheels.py [--out build/wheels] [x86_64] [aarch64]

Zig's clang (the package ziglang) compiles for both processors and links against the interface of an old glibc; the
stable ABI of CPython 3.11 makes one wheel of each platform serve that version and all later ones. What was built is
then looked at: the tag, the libraries and symbol versions it asks for, and that it names no folder of this machine.
Needs ziglang, auditwheel, setuptools and NumPy in the environment of the Python that runs it.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("x86_64", "aarch64")
GLIBC = (2, 28)
# What every Linux with glibc has.
SYSTEM_LIBRARIES = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"}


class WheelError(Exception):
    """A wheel is not what it says."""


@dataclass(frozen=True)
class Binary:
    """What a shared object asks of the system that loads it. glibc: the newest version among its symbols'."""

    libraries: frozenset[str]
    search_paths: tuple[str, ...]
    glibc: tuple[int, ...]
    machine: str


def read_binary(content: bytes) -> Binary:
    """The facts of an ELF file; elftools raises ELFError for another."""
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection

    elf = ELFFile(io.BytesIO(content))
    libraries: set[str] = set()
    paths: list[str] = []
    versions: list[tuple[int, ...]] = [(0,)]
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                if tag.entry.d_tag == "DT_NEEDED":
                    libraries.add(tag.needed)
                elif tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
                    paths.append(getattr(tag, "rpath", "") or getattr(tag, "runpath", ""))
        elif isinstance(section, GNUVerNeedSection):
            names = (auxiliary.name for _, needed in section.iter_versions() for auxiliary in needed)
            versions += [tuple(map(int, n[6:].split("."))) for n in names if n.startswith("GLIBC_")]
    return Binary(frozenset(libraries), tuple(paths), max(versions), elf.get_machine_arch())


def check_wheel(path: Path, target: str) -> Binary:
    """WheelError if a wheel for `target` holds another binary than the engine, or one that asks for more than the tag
    says."""
    with zipfile.ZipFile(path) as wheel:
        binaries = [name for name in wheel.namelist() if ".so" in Path(name).suffixes]
        if binaries != ["marigold_c/_C.abi3.so"]:
            raise WheelError(f"{path.name} holds the binaries {binaries}; expected marigold_c/_C.abi3.so alone")
        content = wheel.read(binaries[0])
    found = read_binary(content)
    machine = {"x86_64": "x64", "aarch64": "AArch64"}[target]
    if found.machine != machine:
        raise WheelError(f"{path.name} is for {found.machine}, not {machine}")
    if found.search_paths:
        raise WheelError(f"{path.name} looks for libraries in {found.search_paths}")
    if found.libraries - SYSTEM_LIBRARIES:
        raise WheelError(f"{path.name} needs {sorted(found.libraries - SYSTEM_LIBRARIES)}")
    if found.glibc > GLIBC:
        raise WheelError(f"{path.name} needs glibc {found.glibc}, newer than {GLIBC}")
    if bytes(ROOT) in content:
        raise WheelError(f"{path.name} names the folder {ROOT}")
    return found


def compiler_environment(target: str) -> dict[str, str]:
    """The variables with which setup.py compiles for `target` instead of this machine."""
    compiler = f"{sys.executable} -m ziglang cc -target {target}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MARIGOLD_")}
    return environment | {
        "CC": compiler,
        "LDSHARED": f"{compiler} -shared -s",
        "_PYTHON_HOST_PLATFORM": f"linux-{target}",  # what sysconfig and setuptools take the platform for
        "MARIGOLD_CFLAGS": "-g0",
    }


def build_wheel(target: str, out: Path) -> Path:
    """Compiles and packs; the new wheel in `out`. Objects stay in `out`/objects, for the next time."""
    tag = f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{target}"
    base = out / "objects" / target
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-base", str(base)]
    command += ["bdist_wheel", "--dist-dir", str(out), "--bdist-dir", str(base / "wheel"), "--plat-name", tag]
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.whl")}
    subprocess.run(command, cwd=ROOT, env=compiler_environment(target), check=True)
    made = [path for path in out.glob(f"*{tag}.whl") if before.get(path) != path.stat().st_mtime_ns]
    if len(made) != 1:
        raise WheelError(f"{out} has {len(made)} new wheels for {target}")
    return made[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; default: all")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "wheels")
    args = parser.parse_args()
    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f"unknown targets: {', '.join(sorted(unknown))}")
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for target in args.targets or TARGETS:
        wheel = build_wheel(target, out)
        found = check_wheel(wheel, target)
        size, glibc = wheel.stat().st_size / 1e6, ".".join(map(str, found.glibc))
        print(f"{wheel.name}: {size:.1f} MB, glibc {glibc} or later, needs {', '.join(sorted(found.libraries))}")
        subprocess.run([sys.executable, "-m", "auditwheel", "show", str(wheel)], check=True)


if __name__ == "__main__":
    try:
        main()
    except WheelError as error:
        raise SystemExit(f"build_wheels: {error}") from None

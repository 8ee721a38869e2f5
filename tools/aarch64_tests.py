#!/usr/bin/env python3
"""Runs tests on an emulated aarch64 processor: `make test-aarch64`, or with arguments of pytest.

    python tools/aarch64_tests.py [--cpu max] [--part] [--depth] [ARGUMENTS OF PYTEST]

Zig's clang compiles the package and its test extension for aarch64, as it does for the wheels. Debian's arm64 packages
of Python 3.11 are unpacked into a folder beside NumPy's and Pillow's wheels, and qemu-user runs that Python. Nothing of
this system changes; everything lies in build/aarch64. Before tests, lesser processors are asked which kernels they
choose. --part: a 16th of the tests; it alone ends well, saying so, where qemu, apt or a Python 3.11 is missing.
--depth: no tests, but a picture's depth on --cpu and on each of those processors, beside this one's.

An emulator is exact and slow: it shows that results are right, and nothing about speed. --cpu: a processor as qemu
names it (`qemu-aarch64 -cpu help`), which has the instruction sets that are tested.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from build_wheels import compiler_environment

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "aarch64"
SYSTEM, PACKAGES, LIBRARY = BUILD / "system", BUILD / "packages", BUILD / "lib"
VERSION = (3, 11)  # of Debian 12's Python, for which the test extension is compiled
DEBIAN_PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
WHEELS = ("numpy>=2.0", "Pillow>=10", "tqdm>=4.60", "pytest>=8", "PyYAML>=6", "pydantic>=2.11,<3")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
# What computes and reads files. Tests that start processes of their own are left out: those would not be emulated.
FILES = (
    *("test_ops", "test_ops_precision", "test_gradients", "test_references", "test_alignment", "test_io", "test_json"),
    *(
        "test_core",
        "test_graph",
        "test_rng",
        "test_resize",
        "test_ensembling",
        "test_metrics",
        "test_schedulers",
        "test_nn",
    ),
)
# Every operation stays in it, and with each of its cases all instruction sets.
PART = (
    "--every",
    "32",
    "tests/test_ops.py",
    "tests/test_ops_precision.py",
    "tests/test_gradients.py",
    "tests/test_io.py",
)
# What processors choose: without and with dot products (ARMv8.0, ARMv8.2), and with all that qemu has.
CHOICES = {"cortex-a72": "neon", "neoverse-n1": "neon_dotprod", "max": "neon_i8mm"}


class Missing(Exception):
    """What this machine lacks."""


def find_qemu() -> str:
    """An absolute path; Missing if there is none."""
    for name in ("qemu-aarch64-static", "qemu-aarch64"):
        if found := shutil.which(name):
            return found
    raise Missing("qemu-aarch64 is not installed (Debian: apt-get install qemu-user-static)")


def unpack_system() -> None:
    """Debian's Python for arm64 and what it needs, into SYSTEM, by an apt that does not know this system's packages."""
    if (SYSTEM / "complete").exists():
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Missing("apt-get and dpkg, which bring an arm64 Python, are not there")
    if "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text():
        raise Missing("the packages of an arm64 Python 3.11 are Debian 12's; this is another system")
    apt = BUILD / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State::Lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "Dir::Cache::archives": apt / "archives",
        "Debug::NoLocking": "1",
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*command, "update"], check=True)
    install = ["install", "--yes", "--download-only", "--no-install-recommends", *DEBIAN_PACKAGES]
    subprocess.run([*command, *install], check=True, stdout=subprocess.DEVNULL)
    for package in (apt / "archives").glob("*.deb"):
        subprocess.run(["dpkg", "--extract", package, SYSTEM], check=True)
    (SYSTEM / "complete").touch()


def install_packages() -> None:
    """The wheels that the package and its tests import, for aarch64."""
    if (PACKAGES / "complete").exists():
        return
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    command += ["--target", PACKAGES, "--python-version", ".".join(map(str, VERSION)), *platforms, *WHEELS]
    subprocess.run(command, check=True)
    (PACKAGES / "complete").touch()


def compile_package() -> None:
    """marigold_c with both extensions, into LIBRARY."""
    if sys.version_info[:2] != VERSION:
        raise Missing(f"the test extension is compiled with the headers of this Python, which is not {VERSION}")
    environment = compiler_environment("aarch64") | {
        "MARIGOLD_BUILD_TESTING": "1",
        "SETUPTOOLS_EXT_SUFFIX": ".cpython-311-aarch64-linux-gnu.so",
    }
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-base", BUILD, "--build-lib", LIBRARY]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def run_python(qemu: str, cpu: str, arguments: list[str]) -> int:
    """The emulated Python, with the tests' folder on its path; what it returns."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "CI", "MARIGOLD_ISA") if name in os.environ}
    environment = kept | {"PYTHONPATH": f"{LIBRARY}:{PACKAGES}:{ROOT / 'tools'}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [qemu, "-cpu", cpu, "-L", str(SYSTEM), str(SYSTEM / "usr/bin/python3.11"), *arguments]
    return subprocess.run(command, cwd=BUILD, env=environment).returncode


def check_choices(qemu: str) -> int:
    """0 if each processor chooses the kernels that are for it."""
    for cpu, expected in CHOICES.items():
        code = "from marigold_c import _C; print(_C.best_isa(), flush=True); "
        code += f"raise SystemExit(_C.best_isa() != {expected!r})"
        print(f"{cpu}: ", end="", flush=True)
        if status := run_python(qemu, cpu, ["-c", code]):
            print(f"{cpu} should have chosen {expected}", file=sys.stderr)
            return status
    return 0


def compare_depth(qemu: str, cpu: str) -> int:
    """Depth of examples/photo.jpg by both processors; 0 if they agree within 1e-5."""
    import numpy as np

    arguments = ["-m", "marigold_c", "depth", str(ROOT / "examples" / "photo.jpg"), "--seed", "0", "--format", "npy"]
    arguments += ["--quiet", "-o"]
    here, there = BUILD / "depth" / "here", BUILD / "depth" / "aarch64"
    shutil.rmtree(BUILD / "depth", ignore_errors=True)
    subprocess.run([sys.executable, *arguments, here], cwd=ROOT, check=True)
    if code := run_python(qemu, cpu, [*arguments, str(there)]):
        return code
    files = sorted(path.relative_to(here) for path in here.rglob("*.npy"))
    differences = [float(np.abs(np.load(here / name) - np.load(there / name)).max()) for name in files]
    print(f"depth of photo.jpg on {cpu}: {max(differences):.1e} from this processor's; allowed: 1e-5")
    return int(max(differences) > 1e-5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", default="max")
    parser.add_argument("--part", action="store_true")
    parser.add_argument("--depth", action="store_true")
    args, rest = parser.parse_known_args()
    try:
        qemu = find_qemu()
        unpack_system()
        install_packages()
        compile_package()
    except Missing as missing:
        print(f"aarch64_tests: SKIPPED: {missing}" if args.part else f"aarch64_tests: {missing}", file=sys.stderr)
        return 0 if args.part else 1
    if args.depth:
        return max(compare_depth(qemu, cpu) for cpu in dict.fromkeys([args.cpu, *CHOICES]))
    if code := check_choices(qemu):
        return code
    copy = BUILD / "tests"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / "tests", copy, symlinks=False, ignore=shutil.ignore_patterns("__pycache__"))
    chosen = rest or (list(PART) if args.part else [f"tests/{name}.py" for name in FILES])
    pytest = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "every_nth_test", "--basetemp", str(BUILD / "tmp")]
    return run_python(qemu, args.cpu, [*pytest, *chosen])


if __name__ == "__main__":
    sys.exit(main())

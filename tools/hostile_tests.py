#!/usr/bin/env python3
"""Runs tests where nothing is as their authors have it: `make test-hostile`, or with arguments of pytest.

The tests run in a copy whose path has blanks and umlauts, with the compiled modules and the packages of this checkout's
environment, as a user without a name (where root starts this), on one processor, with Ctrl-C ignored as in a background
job, no terminal, a read-only home, a folder for temporary files whose name has blanks, the C locale, another time zone,
and with variables set that OpenMP, OpenBLAS and the package read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
USER = 54321  # has no account
# About three minutes: what starts processes, reads and writes files, prints, is interrupted, chooses instruction sets.
FILES = (
    *(
        "test_core",
        "test_busy",
        "test_cli",
        "test_cli_flags",
        "test_pipeline_process",
        "test_sequences",
        "test_writers",
    ),
    *("test_readers", "test_hub", "test_archives", "test_visualisation", "test_source_folder", "test_packed_damage"),
    *("test_training_checkpoints", "test_training_logs", "test_cuda_missing", "test_rng", "test_nn"),
)
# And of those that compute, a few of each kind: operations, gradients, training.
TESTS = {
    "test_ops": ("test_agrees_with_float64", "test_ids_outside_the_table_read_its_ends"),
    "test_ops_precision": ("test_keys_and_values_may_be_float32", "test_values_that_are_no_numbers_are_not_lost"),
    "test_gradients": ("test_gradients_of_weights_are_added", "test_operations_without_a_gradient_say_so"),
    "test_trainer": (
        "test_threads_do_not_change_a_bit",
        "test_it_learns",
        "test_resuming_repeats_the_uninterrupted_run",
    ),
    "test_training_run": ("test_killed_at_random_moments", "test_the_cache_changes_nothing"),
}


def selection() -> list[str]:
    tests = [f"tests/{name}.py::{test}" for name, those in TESTS.items() for test in those]
    return [f"tests/{name}.py" for name in FILES] + tests


def packages() -> list[str]:
    """Folders of the environment that runs this."""
    return [folder for folder in sys.path if folder.endswith("-packages")]


def make_copy(place: Path) -> Path:
    """The files that git knows, as they are now, and what was compiled."""
    copy = place / "Prüf stand"
    names = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
    ).stdout.decode()
    compiled = [path.relative_to(ROOT) for path in (ROOT / "marigold_c").glob("*.so")]
    for name in [*map(Path, names.strip("\0").split("\0")), *compiled]:
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name, follow_symlinks=False)
    return copy


def make_environment(place: Path, copy: Path, user: int) -> Path | None:
    """An environment of its own, so that the processes that tests start find the copy as they find a package that is
    installed. Its interpreter, of a Python that the user may run; None: there is none."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in filter(os.path.exists, (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}")):
        environment = place / "Um gebung"
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([python, "-m", "venv", "--without-pip", environment], check=True)
        (folder,) = environment.glob("lib/*/site-packages")
        # As a statement in ASCII: paths in such a file are read by the locale's encoding.
        (folder / "hostile.pth").write_text(f"import sys; sys.path += {[str(copy), *packages()]!a}\n")
        with contextlib.suppress(PermissionError):
            imports = [environment / "bin/python", "-c", "import numpy, pytest"]
            if subprocess.run(imports, user=user, cwd="/", stderr=subprocess.DEVNULL).returncode == 0:
                return environment / "bin/python"
    return None


def variables(place: Path) -> dict[str, str]:
    home, temporary = place / "home", place / "zum Weg werfen"
    home.mkdir(mode=0o555)
    temporary.mkdir()
    temporary.chmod(0o777)
    kept = {name: os.environ[name] for name in ("PATH", "CI") if name in os.environ}
    return kept | {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LANG": "C",
        "LC_ALL": "C",
        "TZ": "Asia/Tokyo",
        "COLUMNS": "40",
        "OMP_NUM_THREADS": "7",
        "OPENBLAS_NUM_THREADS": "7",
        "OPENBLAS_CORETYPE": "Haswell",
        "OMP_WAIT_POLICY": "passive",
        "MARIGOLD_ISA": "avx2" if " avx2 " in Path("/proc/cpuinfo").read_text() else "scalar",  # not the best
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def restrict() -> None:
    """As in a background job, on one processor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> int:
    arguments = sys.argv[1:] or selection()
    own = os.geteuid()
    place = Path(tempfile.mkdtemp(prefix="feind selig ", dir="/tmp"))
    place.chmod(0o755)
    try:
        copy = make_copy(place)
        user = USER if own == 0 else own
        python = make_environment(place, copy, user)
        if not python:
            print(f"user {user} may not run this Python or read its packages: the tests run as user {own}", flush=True)
            user = own
            python = make_environment(place, copy, user)
        command = [python, "-m", "pytest", "-p", "no:cacheprovider", "--durations=10", *arguments]
        return subprocess.run(
            command,
            cwd=copy,
            env=variables(place),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=restrict,
            **({} if user == own else {"user": user, "group": user, "extra_groups": []}),
        ).returncode
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

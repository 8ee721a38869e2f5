"""Builds the extension modules from csrc (called by pip and setuptools; project metadata is in pyproject.toml).

marigold_c._C       the engine and its binding
marigold_c._testing the engine's internals for the test suite; only with MARIGOLD_BUILD_TESTING=1

libmarigold_cuda.so the CUDA backend, beside them; only with MARIGOLD_CUDA=1, and nvcc (tools/build_cuda.py)

Environment: MARIGOLD_CFLAGS and MARIGOLD_LDFLAGS are appended to the compiler's and the linker's arguments.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tools"))
from engine_sources import ENGINE_ROOMS, FILE_FLAGS, FLAGS_OF_MACHINE, sources  # noqa: E402

PLATFORM = sysconfig.get_platform()  # of the target: _PYTHON_HOST_PLATFORM may name another than this

# One build serves Python 3.11 and all later versions, but for those without a global lock, whose objects are larger.
LIMITED_API = [("Py_LIMITED_API", "0x030B0000")]
HAS_LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")

INSTRUCTION_SET_FLAGS = FLAGS_OF_MACHINE.get(PLATFORM.rpartition("-")[2], {})


def extension(name: str, folder: str, limited_api: bool) -> Extension:
    return Extension(
        name,
        sources=[*sources(*(f"csrc/{room}" for room in ENGINE_ROOMS)), *sources(folder)],
        depends=[str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".def")],
        include_dirs=[numpy.get_include()],
        libraries=["m", "dl"],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_23_API_VERSION"), *(LIMITED_API if limited_api else [])],
        py_limited_api=limited_api,
        extra_compile_args=[
            *("-std=gnu11", "-O3", "-Wall", "-Wextra", "-ffp-contract=fast", "-fno-math-errno", "-pthread"),
            *("-fvisibility=hidden", "-D_GNU_SOURCE", "-MMD"),
            *shlex.split(os.environ.get("MARIGOLD_CFLAGS", "")),
        ],
        extra_link_args=["-pthread", *shlex.split(os.environ.get("MARIGOLD_LDFLAGS", ""))],
    )


def is_current(obj: Path, command: str) -> bool:
    """Whether this command made the object of files, which -MMD has listed, that have not changed since it began."""
    made_by, dependencies = obj.with_suffix(".command"), obj.with_suffix(".d")
    if not (obj.exists() and made_by.exists() and dependencies.exists()):
        return False
    if made_by.read_text(encoding="utf-8") != command:
        return False
    began = made_by.stat().st_mtime
    listed = shlex.split(dependencies.read_text(encoding="utf-8").replace("\\\n", " "))[1:]
    return all(Path(name).exists() and Path(name).stat().st_mtime < began for name in listed)


class BuildExtensions(build_ext):
    """Compiles files in parallel, each once for all extensions, with the flags of its instruction set. The objects of
    an editable install stay in build/objects, and what has not changed is not compiled again."""

    def build_extensions(self) -> None:
        if self.editable_mode:
            self.build_temp = str(ROOT / "build" / "objects")
        compiler: Any = self.compiler
        compile_one = compiler._compile
        done: dict[str, str] = {}

        def compile_with_flags(
            obj: str, src: str, ext: str, cc_args: list[str], extra: list[str], pp_opts: list[str]
        ) -> None:
            if obj not in done:
                done[obj] = src
                name = Path(src).name
                flags = [*FILE_FLAGS.get(name, []), *INSTRUCTION_SET_FLAGS.get(name, [])]
                command = shlex.join([*compiler.compiler_so, src, *cc_args, *extra, *flags, *pp_opts])
                if not is_current(Path(obj), command):
                    Path(obj).unlink(missing_ok=True)
                    Path(obj).with_suffix(".command").write_text(command, encoding="utf-8")
                    compile_one(obj, src, ext, cc_args, [*extra, *flags], pp_opts)

        def compile_all(
            files: list[str], output_dir: str | None = None, macros: Any = None, **kwargs: Any
        ) -> list[str]:
            macros, objects, extra, pp_opts, build = compiler._setup_compile(
                output_dir,
                macros,
                kwargs.get("include_dirs"),
                files,
                kwargs.get("depends"),
                kwargs.get("extra_postargs"),
            )
            cc_args = compiler._get_cc_args(pp_opts, kwargs.get("debug"), None)
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                jobs = [
                    pool.submit(compile_with_flags, obj, *build[obj], cc_args, extra, pp_opts)
                    for obj in objects
                    if obj in build
                ]
                for job in jobs:
                    job.result()
            return objects  # type: ignore[no-any-return]

        compiler.compile = compile_all
        super().build_extensions()
        if os.environ.get("MARIGOLD_CUDA") == "1":
            self.build_cuda()

    def build_cuda(self) -> None:
        """The CUDA backend, into the folder where the engine is."""
        from build_cuda import BuildError, build

        try:
            build(Path(self.get_ext_fullpath("marigold_c._C")).parent, ROOT / "build" / "cuda" / "objects")
        except BuildError as error:
            raise SystemExit(f"MARIGOLD_CUDA=1: {error}") from None


def missing_requirements() -> list[str]:
    """What pip is to bring into the environment in which it builds: cuBLAS and NCCL, unless the toolkit has them."""
    if os.environ.get("MARIGOLD_CUDA") != "1":
        return []
    from build_cuda import BuildError, find_cublas, find_nccl, find_nvcc

    try:
        nvcc = find_nvcc()
        nccl = [] if find_nccl(nvcc) else ["nvidia-nccl-cu13>=2.26"]
        find_cublas(nvcc)
    except BuildError:
        return ["nvidia-cublas>=13,<14", "nvidia-nccl-cu13>=2.26"]
    return nccl


def description_for_an_index() -> str:
    """The README without what leads into the repository: a package index shows it without the files beside it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    picture, caption = r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n", r"\n\*[^*]*\*(?:[^\n]+\n)*"
    text = re.sub(picture + caption, "", text)
    return re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)


extensions = [extension("marigold_c._C", "csrc/py", HAS_LIMITED_API)]
if os.environ.get("MARIGOLD_BUILD_TESTING") == "1":
    extensions.append(extension("marigold_c._testing", "tests/ext", limited_api=False))

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": BuildExtensions},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if HAS_LIMITED_API else {},
    setup_requires=missing_requirements(),
    long_description=description_for_an_index(),
    long_description_content_type="text/markdown",
)

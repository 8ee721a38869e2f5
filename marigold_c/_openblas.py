"""Loads OpenBLAS before the extension module that is linked against it.

The extension names libscipy_openblas.so and no folder; the dynamic linker takes a library of that name that is loaded
already. So the copy of the package scipy-openblas32 is found wherever it is installed, without a path in the extension.
"""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path

LIBRARY = "libscipy_openblas.so"

# MARIGOLD_ISA restricts our kernels; these names restrict those of OpenBLAS to the same processors.
_CORE_OF_ISA = {"scalar": "Nehalem", "avx2": "Haswell"}


def library_path() -> Path:
    """Where libscipy_openblas.so of scipy-openblas32 lies; ImportError if it is not installed."""
    spec = find_spec("scipy_openblas32")  # finds it without running it: its import would load the library too early
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "lib" / LIBRARY
        if path.is_file():
            return path
    raise ImportError(
        f"marigold_c needs {LIBRARY} of the package scipy-openblas32; it is not there: pip install scipy-openblas32"
    )


def load() -> ctypes.CDLL:
    """Loads OpenBLAS for the processor that MARIGOLD_ISA names, or for this one; leaves the environment as it was."""
    path = library_path()
    core = _CORE_OF_ISA.get(os.environ.get("MARIGOLD_ISA", ""))
    before = os.environ.get("OPENBLAS_CORETYPE")
    try:
        if core is not None:
            os.environ["OPENBLAS_CORETYPE"] = core
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(f"{path} cannot be loaded: {error}") from error
    finally:
        if core is not None:
            if before is None:
                del os.environ["OPENBLAS_CORETYPE"]
            else:
                os.environ["OPENBLAS_CORETYPE"] = before

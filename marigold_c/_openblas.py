"""Loads OpenBLAS before the engine asks for it, if MARIGOLD_BLAS=openblas wants it for products of few rows.

The engine opens libscipy_openblas.so without a folder; the dynamic linker takes a library of that name that is loaded
already. So the copy of the package scipy-openblas32 (extra [openblas]) is found wherever it is installed.
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
        f"MARIGOLD_BLAS=openblas needs {LIBRARY} of scipy-openblas32, which is not installed: "
        "pip install 'marigold-c[openblas]'"
    )


def load() -> ctypes.CDLL | None:
    """Loads OpenBLAS for the processor that MARIGOLD_ISA names, or for this one; leaves the environment as it was.
    Does nothing where MARIGOLD_BLAS does not ask for it; the engine refuses other values."""
    if os.environ.get("MARIGOLD_BLAS") != "openblas":
        return None
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

"""Libraries that only some formats need: imported when asked for, and named with their extra when missing."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

# Module, the extra of this package that installs it.
_EXTRAS = {
    "tifffile": "tiff",
    "OpenEXR": "exr",
    "imagecodecs": "hdr",
    "pi_heif": "heic",
    "matplotlib": "colormaps",
    "yaml": "evaluation",
    "h5py": "prepare",
    "mitsuba": "scenes",
    "drjit": "scenes",
    "moderngl": "levels",
    "embreex": "levels",
    "trimesh": "levels",
    "tensorboardX": "training",
    "ray": "ray",
    "mpi4py": "mpi",
}
# Where the name to install is not the name to import.
_PACKAGES = {"yaml": "PyYAML", "pi_heif": "pi-heif"}


class MissingExtra(ImportError):
    """A format needs a library that is not installed; the message says how to install it."""


def check_module(module: str, purpose: str) -> None:
    """MissingExtra if the package of `module` is not installed; nothing is imported."""
    top = module.partition(".")[0]
    if find_spec(top) is None:
        extra = _EXTRAS[top]
        package = _PACKAGES.get(top, top)
        raise MissingExtra(f"{purpose} needs {package}, which is not installed: pip install 'marigold-c[{extra}]'")


def optional_module(module: str, purpose: str) -> Any:
    """The imported module; MissingExtra if it is not installed. `purpose` begins the message: "reading EXR"."""
    check_module(module, purpose)
    return import_module(module)

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
    "pydantic": "evaluation",
    "h5py": "prepare",
    "mitsuba": "scenes",
    "drjit": "scenes",
    "moderngl": "levels",
    "embreex": "levels",
    "trimesh": "levels",
    "tensorboardX": "training",
    "ray": "ray",
    "mpi4py": "mpi",
    "av": "video",
    "gradio": "app",
}
# Where the name to install is not the name to import.
_PACKAGES = {"yaml": "PyYAML", "pi_heif": "pi-heif"}


def install_command(extra: str) -> str:
    """What installs the libraries of an extra beside this package, however it was installed itself: pip takes the
    name from what is installed, so a package that came from its source is not looked for on an index."""
    return f"pip install 'marigold-c[{extra}]'"


class MissingExtra(ImportError):
    """A format needs a library that is not installed; the message says how to install it."""


def check_module(module: str, purpose: str) -> None:
    """MissingExtra if the package of `module` is not installed; nothing is imported."""
    package, _, _ = module.partition(".")
    if find_spec(package) is None:
        raise MissingExtra(
            f"{purpose} needs {_PACKAGES.get(package, package)}, which is not installed: "
            f"{install_command(_EXTRAS[package])}"
        )


def optional_module(module: str, purpose: str) -> Any:
    """The imported module; MissingExtra if it is not installed. `purpose` begins the message: "reading EXR"."""
    check_module(module, purpose)
    return import_module(module)

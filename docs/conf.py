"""Sphinx's settings for the site of `make docs`: the project's Markdown pages and notebooks, and the references.

The sources are the files of the repository as they are, so that links between them work here and there. The README is
the front page; NAVIGATION lists all pages, and a page that is missing in it is an error, as every warning is. Nothing
is fetched and no notebook is run.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import marigold_c  # noqa: E402
from marigold_c.commands.cli import COMMANDS  # noqa: E402

project = "marigold_c"
author = "The marigold_c developers"
project_copyright = author
version = release = marigold_c.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/**.md",
    "notebooks/*.ipynb",
    "examples/PHOTOS.md",
    "benchmarks/LOG.md",
    "marigold_c/checkpoints/*/README.md",
]
exclude_patterns = ["build", ".venv*", "demo_output", "csrc", "tests", "tools", "**/__pycache__"]

NAVIGATION = {
    "Start": ("docs/install", "docs/command_line", "docs/app", "docs/python", "docs/supported"),
    "Use": (
        "docs/families",
        "docs/checkpoints",
        "docs/models",
        "docs/ensembles",
        "docs/completion",
        "docs/high_resolution",
        "docs/precision_and_speed",
        "docs/processes",
        "docs/cuda",
        "docs/errors",
    ),
    "Evaluate and train": ("docs/evaluation", "docs/datasets", "docs/training", "docs/training_data"),
    "Notebooks": tuple(f"notebooks/{path.stem}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))),
    "Reference": ("docs/reference/python", "docs/reference/commands", "docs/reference/c"),
    "Inside": ("ARCHITECTURE", "CONTRIBUTING", "CHANGELOG", "benchmarks/LOG"),
    "Files in the package": (
        "examples/PHOTOS",
        *(
            f"marigold_c/checkpoints/{path.parent.name}/README"
            for path in sorted((ROOT / "marigold_c" / "checkpoints").glob("*/README.md"))
        ),
    ),
}

# ---- Markdown and notebooks ----
nb_execution_mode = "off"
myst_heading_anchors = 4
myst_enable_extensions: list[str] = []

# ---- docstrings ----
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

# ---- pages ----
html_theme = "furo"
html_title = f"marigold_c {version}"
html_extra_path = ["site"]
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_theme_options = {"light_css_variables": {"font-stack--monospace": "ui-monospace, DejaVu Sans Mono, monospace"}}


def _navigation() -> str:
    """The tables of contents belong to the site, not to the README."""
    tables = []
    for caption, entries in NAVIGATION.items():
        listed = "\n".join(f"/{entry}" for entry in entries)
        tables.append(f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n")
    return "".join(tables)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser, and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from _parsers(one)


def _commands() -> str:
    """What --help prints, of every command."""
    os.environ["COLUMNS"] = "96"
    texts = []
    for name, about in COMMANDS.items():
        top = argparse.ArgumentParser(prog=f"marigold {name}", allow_abbrev=False)
        import_module(f"marigold_c.commands.{name}").add_arguments(top)
        for index, parser in enumerate(_parsers(top)):
            what = f"{about[0].upper()}{about[1:]}.\n\n" if index == 0 else ""
            level = "##" if index == 0 else "###"
            texts.append(f"\n{level} {parser.prog}\n\n{what}```text\n{parser.format_help()}```\n")
    return "".join(texts)


def _header() -> str:
    """The public C header, section by section, as it is."""
    text = (ROOT / "csrc" / "include" / "marigold.h").read_text(encoding="utf-8")
    parts = re.split(r"^/\* ---- (.*?) ---- \*/\n", text, flags=re.MULTILINE | re.DOTALL)
    sections = [("Example and errors", parts[0])]
    for title, code in zip(parts[1::2], parts[2::2], strict=True):
        title, _, rest = re.sub(r"\s*\n \* ", " ", title).partition(":")
        sections.append((title[0].upper() + title[1:], (f"/* {rest.strip()} */\n" if rest else "") + code))
    return "".join(f"\n## {title}\n\n```c\n{code.strip()}\n```\n" for title, code in sections)


# What a page gets beside what is written in it.
ADDITIONS = {root_doc: _navigation, "docs/reference/commands": _commands, "docs/reference/c": _header}


def _add(_app: Any, page: str, source: list[str]) -> None:
    if page in ADDITIONS:
        source[0] += ADDITIONS[page]()


def setup(app: Any) -> None:
    app.connect("source-read", _add)

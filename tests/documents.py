"""The Markdown files of the project as their tests see them: code blocks, links, headings, names in backticks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parent.parent
_PATTERNS = ("*.md", "docs/**/*.md", "examples/*.md", "benchmarks/*.md", "marigold_c/checkpoints/*/README.md")
_FOLDERS = (
    ".ci",
    "benchmarks",
    "csrc",
    "deploy",
    "docs",
    "examples",
    "integrations",
    "marigold_c",
    "notebooks",
    "tests",
    "tools",
)


@dataclass(frozen=True)
class Block:
    """A code block. marker: the word after its language, which says why it is not run; line: of its first line of code.
    language: "" where it has none, or is indented rather than fenced."""

    page: str
    line: int
    language: str
    marker: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def pages() -> tuple[str, ...]:
    return tuple(sorted(str(path.relative_to(ROOT)) for pattern in _PATTERNS for path in ROOT.glob(pattern)))


@cache
def _tokens(page: str) -> tuple[Any, ...]:
    return tuple(MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8")))


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """Directives of the documentation generator, whose language is in braces, are no code."""
    found = []
    for token in _tokens(page):
        if token.type not in ("fence", "code_block") or token.info.startswith("{"):
            continue
        language, marker, *_ = [*token.info.split(), "", ""]
        found.append(Block(page, token.map[0] + (token.type == "fence") + 1, language, marker, token.content))
    return tuple(found)


def _inline(page: str) -> Iterator[tuple[int, Any]]:
    for token in _tokens(page):
        if token.type == "inline":
            for child in token.children:
                yield token.map[0] + 1, child


def links(page: str) -> list[tuple[int, str]]:
    """The targets of links and pictures, each with the line of its paragraph."""
    attribute = {"link_open": "href", "image": "src"}
    return [(line, str(one.attrGet(attribute[one.type]))) for line, one in _inline(page) if one.type in attribute]


@cache
def anchors(page: str) -> frozenset[str]:
    """What a web page of a repository calls the headings: small letters, blanks as dashes, no punctuation."""
    found: set[str] = set()
    tokens = _tokens(page)
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            text = "".join(one.content for one in following.children if one.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(slug if slug not in found else f"{slug}-1")
    return frozenset(found)


def names_in_backticks(page: str) -> list[tuple[int, str]]:
    return [(line, one.content) for line, one in _inline(page) if one.type == "code_inline"]


@cache
def files() -> frozenset[str]:
    """Every file of the project, relative to its root, and every folder, ending in a slash."""
    found = {path.name for path in ROOT.iterdir() if path.is_file()}
    for folder in _FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if "__pycache__" not in path.parts:
                found.add(str(path.relative_to(ROOT)) + ("/" if path.is_dir() else ""))
    return frozenset(found)

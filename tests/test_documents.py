"""The documents are true: every code block runs, every link leads somewhere, every file that is named exists.

Blocks of a page run in a folder with photographs and data (document_world.py), shell blocks first, then the Python
blocks as one script. A block that cannot run here says why by a word after its language: see NOT_RUN. Its commands are
checked all the same: that flags, targets of make and extras exist.
"""

from __future__ import annotations

import ast
import re
import shlex
import sysconfig
import tomllib
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.metadata import distributions
from itertools import groupby, takewhile
from pathlib import Path

import pytest

pytest.importorskip("markdown_it", reason="reading the documents needs markdown-it-py")
pytest.importorskip("yaml", reason="one of the documents' languages needs the extra evaluation")
pytest.importorskip("OpenEXR", reason="an example of the documents needs the extra exr")
pytest.importorskip("huggingface_hub", reason="examples of the documents need the extra hub")

from document_world import World
from documents import ROOT, Block, anchors, blocks, files, links, names_in_backticks, pages

import marigold_c as mc
from marigold_c.commands import cli

pytest_plugins = ("document_world",)

LANGUAGES = ("python", "sh", "yaml", "text")
MARKERS = {
    "setup": "installs, builds or downloads",
    "cuda": "needs a GPU",
    "mpi": "needs several processes",
    "server": "needs the page: run by tests/app",
    "long": "trains, renders or measures for minutes to days",
}
# How many blocks of a page have a marker: whoever adds one counts it here.
NOT_RUN = {
    "CONTRIBUTING.md": {"setup": 2},
    "README.md": {"setup": 1},
    "docs/app.md": {"setup": 3, "server": 3},
    "docs/cuda.md": {"setup": 1, "cuda": 3},
    "docs/high_resolution.md": {"long": 1},
    "docs/install.md": {"setup": 2},
    "docs/precision_and_speed.md": {"setup": 1},
    "docs/training.md": {"long": 5, "mpi": 1},
    "docs/training_data.md": {"long": 2},
}
ALL_BLOCKS = [block for page in pages() for block in blocks(page)]


def runnable(page: str, language: str) -> list[Block]:
    return [block for block in blocks(page) if block.language == language and not block.marker]


# ---- code ----


def test_every_block_has_a_language_and_a_known_marker() -> None:
    for block in ALL_BLOCKS:
        assert block.language in LANGUAGES, f"{block}: a block of {block.language or 'no language'}"
        assert block.marker in ("", *MARKERS), f"{block}: {block.marker!r} is no marker; known: {', '.join(MARKERS)}"


def test_what_is_not_run_is_counted() -> None:
    marked: dict[str, dict[str, int]] = {}
    for block in ALL_BLOCKS:
        if block.marker:
            counts = marked.setdefault(block.page, {})
            counts[block.marker] = counts.get(block.marker, 0) + 1
    assert marked == NOT_RUN


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in pages() if runnable(page, "sh") or runnable(page, "python")])
def test_blocks_run(page: str, world: World, tmp_path: Path) -> None:
    folder = world.folder(tmp_path / "work")
    for block in runnable(page, "sh"):
        world.run_shell(block, folder)
    if runnable(page, "python"):
        world.run_python(runnable(page, "python"), folder)


@pytest.mark.parametrize("block", [block for block in ALL_BLOCKS if block.language == "yaml"], ids=str)
def test_yaml_is_read(block: Block) -> None:
    import yaml

    assert isinstance(yaml.safe_load(block.code), dict)


@pytest.mark.parametrize("block", [block for block in ALL_BLOCKS if block.language == "python"], ids=str)
def test_python_names_what_exists(block: Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mc":
            assert hasattr(mc, node.attr), f"{block}: marigold_c has no {node.attr}"


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a shell block as words, without redirections."""
    for line in block.code.replace("\\\n", " ").splitlines():
        for separator, words in groupby(shlex.split(line, comments=True), key=("|", "&&", ";").__contains__):
            command = list(takewhile(lambda word: word not in ("<", ">"), words))
            if not separator and command:
                yield command


def optional_dependencies() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])


SHELL_COMMANDS = [
    (block, words)
    for block in ALL_BLOCKS
    if block.language == "sh" and block.marker != "server"
    for words in commands(block)
]


@pytest.mark.parametrize(("block", "words"), SHELL_COMMANDS, ids=lambda value: str(value)[:60])
def test_commands_exist(block: Block, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    while re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    if "marigold" in words:
        try:
            cli.parse(words[words.index("marigold") + 1 :])
        except SystemExit as leaving:
            assert leaving.code == 0, f"{block}: {capsys.readouterr().err}"
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in words[1:]:
            rule = target.replace(".venv-test", "$(TEST)")
            assert re.search(rf"^{re.escape(rule)}:", makefile, re.MULTILINE), f"{block}: {target}"
    elif words[:2] == ["pip", "install"]:
        extras = [name for word in words[2:] for name in re.findall(r"\[(.*)\]", word)]
        assert set(",".join(extras).split(",")) - {""} <= optional_dependencies(), str(block)
    elif words[0].endswith("python"):
        assert words[1].startswith("-") or words[1] in files(), f"{block}: {words[1]}"
    else:
        assert words[0] in ("hf", "git", "cd") or words[0] in files(), f"{block}: {words[0]}"


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\.\. auto(?:function|class):: (\w+)$", page, re.MULTILINE))
    listed |= {name for name in ("errors", "metrics", "utils") if f"marigold_c.{name}" in page}
    listed |= (
        {name for name in mc.__all__ if hasattr(mc.errors, name)}
        if ".. automodule:: marigold_c.errors" in page
        else set()
    )
    assert listed >= {*mc.__all__} - {"__version__"}


# ---- links and names ----


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    for line, target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), f"{page}:{line}: {target} does not exist"
        if anchor:
            there = str(found.resolve().relative_to(ROOT))
            assert anchor in anchors(there), f"{page}:{line}: {there} has no heading {anchor!r}"


def test_an_index_of_packages_gets_links_that_work() -> None:
    """Installed metadata: README.md without links into the repository, which an index does not have."""
    (installed,) = distributions(name="marigold_c", path=[sysconfig.get_path("purelib")])
    text = installed.metadata["Description"]
    assert "marigold depth photo.jpg" in text and "](https://arxiv.org" in text
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []


SOURCES = (".py", ".pyi", ".c", ".h", ".cu", ".cuh", ".inc", ".def", ".md", ".ipynb", ".toml")
# Names of files that are not of this project, or are made by it.
OTHERS = (
    "config/",
    "script/",
    "data_split/",
    "model_index.json",
    "eval.py",
    "infer.py",
    "dataset_processing.py",
    "preprocess_",
    "benchmarks/results/",
)
ROOTS = ("", "csrc/", "csrc/backend/cpu/", "csrc/backend/cuda/", "marigold_c/", "tests/", "docs/")


def exists(name: str) -> bool:
    """NAME stands for any word. Without a folder, a file may lie anywhere."""
    pattern = name.replace("NAME", "*")
    if "/" in name:
        return any(fnmatchcase(path, root + pattern) for path in files() for root in ROOTS)
    return any(fnmatchcase(path.rsplit("/", 1)[-1], pattern) for path in files())


@pytest.mark.parametrize("page", [page for page in pages() if page not in ("CHANGELOG.md", "benchmarks/LOG.md")])
def test_files_in_backticks_exist(page: str) -> None:
    for line, name in names_in_backticks(page):
        if not re.fullmatch(r"[\w./-]+", name) or name.startswith(OTHERS) or name in SOURCES:
            continue
        first = name.partition("/")[0]
        of_project = "/" in name and first in ("csrc", "docs", "tests", "tools", "benchmarks", "examples", "marigold_c")
        if name.endswith(SOURCES) or of_project:
            assert exists(name) or exists(name.rstrip("/") + "/"), f"{page}:{line}: {name} does not exist"


def test_a_marker_hides_little() -> None:
    """Most of what a reader can copy is run."""
    counts = Counter(bool(block.marker) for block in ALL_BLOCKS if block.language in ("sh", "python"))
    assert counts[False] > counts[True]

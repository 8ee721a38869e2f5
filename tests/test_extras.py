"""Install hints name what exists: each extra is in pyproject.toml with the library it is named for, pip resolves the
command without an index where the package came from its source, and docs/install.md lists every extra."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from marigold_c import extras

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED: dict[str, list[str]] = PROJECT["optional-dependencies"]
_HINT = re.compile(r"marigold-c\[([\w,]+)\]|install_command\([\"'](\w+)[\"']\)")


def hints() -> list[tuple[str, str]]:
    """Where an extra is named in what a user reads, and the extra."""
    files = [*ROOT.glob("marigold_c/**/*.py"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")]
    return [
        (str(file.relative_to(ROOT)), extra)
        for file in sorted(files)
        for found in _HINT.findall(file.read_text(encoding="utf-8"))
        for extra in (found[0] or found[1]).split(",")
        if file.name != "extras.py"
    ]


def test_every_extra_that_is_named_exists() -> None:
    named = hints()
    assert {"hub", "colormaps", "lpips", "training", "levels"} <= {extra for _, extra in named}
    assert [(where, extra) for where, extra in named if extra not in DECLARED] == []


@pytest.mark.parametrize("module", sorted(extras._EXTRAS))
def test_a_hint_installs_what_is_missing(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(extras.MissingExtra) as caught:
        extras.check_module(module, "this")
    hint = re.fullmatch(
        r"this needs ([\w-]+), which is not installed: pip install '([\w-]+)\[(\w+)\]'", str(caught.value)
    )
    assert hint and hint[2] == PROJECT["name"]
    assert hint[1] in {re.split(r"[<>=!]", requirement)[0] for requirement in DECLARED[hint[3]]}


def test_a_part_of_a_missing_package_is_missing_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import system itself raises where it is asked for a module of a package that is not there."""
    monkeypatch.setattr(extras, "find_spec", lambda name: importlib.util.find_spec(f"not_there_{name}"))
    with pytest.raises(extras.MissingExtra, match=r"casting rays needs embreex, .*marigold-c\[levels\]"):
        extras.optional_module("embreex.rtcore_scene", "casting rays")


def test_the_command_needs_no_index_after_an_installation_from_the_source() -> None:
    try:
        distribution(PROJECT["name"])
    except PackageNotFoundError:
        pytest.skip("the package is not installed")
    pytest.importorskip("huggingface_hub", reason="the extra hub is not there")
    command = extras.install_command("hub").replace("'", "").split()
    offline = [*command[:2], "--no-index", "--dry-run", *command[2:]]
    done = subprocess.run([sys.executable, "-m", *offline], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "huggingface" in done.stdout and "Would install" not in done.stdout


def test_the_page_on_installing_lists_every_extra() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    table = page.partition("| extra |")[2].partition("\n\n")[0]
    first_columns = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    listed = [name for column in first_columns for name in re.findall(r"`(\w+)`", column)]
    assert sorted(listed) == sorted(DECLARED)

"""The files that put the page into a container or a Space: no docker here, so they are read, and held to what makes an
image small, repeatable and without a superuser. hadolint has its say where it is installed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from marigold_c.commands import cli

yaml = pytest.importorskip("yaml", reason="the Space's header is YAML")
ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = ("deploy/Dockerfile", "deploy/Dockerfile.cuda")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str


def instructions(name: str) -> list[Instruction]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [Instruction(*line.split(None, 1)) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_pinned_small_and_run_as_an_ordinary_user(name: str) -> None:
    found = instructions(name)
    bases = [one.rest.split()[0] for one in found if one.word == "FROM"]
    assert len(bases) == 2, "what builds does not stay in the image"
    assert all(re.fullmatch(r"[\w./]+:[\w.-]*\d[\w.-]*", base) for base in bases), bases
    for one in found:
        if "apt-get install" in one.rest:
            assert "--no-install-recommends" in one.rest and "rm -rf /var/lib/apt/lists/*" in one.rest
        if re.search(r"\bpip (install|wheel)", one.rest):
            assert "--no-cache-dir" in one.rest
        assert one.word != "ADD" and "sudo" not in one.rest and "chmod 777" not in one.rest
    last = max(index for index, one in enumerate(found) if one.word == "FROM")
    users = [one.rest for one in found[last:] if one.word == "USER"]
    assert users and int(users[-1]) >= 1000  # by number, so that whoever runs the image can tell
    assert any(f"useradd --create-home --uid {users[-1]} " in one.rest for one in found[last:])


@pytest.mark.parametrize("name", DOCKERFILES)
def test_they_name_what_exists(name: str) -> None:
    found = instructions(name)
    text = " ".join(one.rest for one in found)
    for extras in re.findall(r"\[([\w,]+)\]'", text):
        assert set(extras.split(",")) <= set(EXTRAS)
    (command,) = (json.loads(one.rest) for one in found if one.word == "CMD")
    args = cli.parse(command)
    (port,) = (int(one.rest) for one in found if one.word == "EXPOSE")
    assert args.port == port and args.host == "0.0.0.0" and args.no_browser


def test_the_build_sees_what_it_needs_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert lines[0] == "*"
    let_in = [line[1:] for line in lines if line.startswith("!")]
    assert all((ROOT / name).exists() for name in let_in)
    manifest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = ["setup.py", "pyproject.toml", "README.md", *manifest["project"]["license-files"], "csrc", "marigold_c"]
    assert [name for name in needed if not any(fnmatch(name, one) for one in let_in)] == []
    assert "tests" not in let_in and ".git" not in let_in


def test_the_script_that_builds_is_a_script() -> None:
    script = ROOT / "deploy/build.sh"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
    named = re.findall(r"-f (\S+)", script.read_text(encoding="utf-8"))
    assert sorted(named) == sorted(DOCKERFILES)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    # Versions of Debian's packages are those of the pinned image, wheels those that the first stage made.
    done = subprocess.run(
        [hadolint, "--ignore=DL3008", "--ignore=DL3013", str(ROOT / name)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_space_starts_the_page_where_it_is_looked_for() -> None:
    head = (ROOT / "deploy/space/README.md").read_text(encoding="utf-8").split("---\n")[1]
    header = yaml.safe_load(head)
    assert header["sdk"] == "gradio" and (ROOT / "deploy/space" / header["app_file"]).is_file()
    assert int(header["sdk_version"].split(".")[0]) == int(re.findall(r">=(\d+)", EXTRAS["app"][0])[0])
    assert len(header["short_description"]) <= 60 and header["license"] == "apache-2.0"
    requirements = (ROOT / "deploy/space/requirements.txt").read_text(encoding="utf-8")
    (extras,) = re.findall(r"marigold-c\[([\w,]+)\]", requirements)
    assert set(extras.split(",")) <= set(EXTRAS)

    source = (ROOT / "deploy/space/app.py").read_text(encoding="utf-8")
    asked: list[list[str]] = []
    code = compile(source.replace("from marigold_c.commands.cli import main", ""), "app.py", "exec")
    with pytest.raises(SystemExit):
        exec(code, {"__name__": "__main__", "main": lambda words: asked.append(words)})
    args = cli.parse(asked[0])
    assert (args.host, args.port, args.no_browser) == ("0.0.0.0", 7860, True)
    assert shlex.join(asked[0]).startswith("app ")

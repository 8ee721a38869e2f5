"""What tools/release.py refuses, on a copy of the files that state the version, and its bill of materials beside
CycloneDX's own reader."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "CITATION.cff").exists():
    pytest.skip("needs the whole project", allow_module_level=True)
if shutil.which("git") is None:
    pytest.skip("needs git", allow_module_level=True)


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tool on a repository of its own, with one commit and no tag."""
    spec = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    place = tmp_path / "project"
    for name in (*module.VERSIONS, "pyproject.toml"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)
    monkeypatch.setattr(module, "ROOT", place)
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "somebody")
    git(place, "init", "--quiet")
    git(place, "add", ".")
    git(place, "commit", "--quiet", "--message", "one")
    return module


def git(place: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=place, check=True)


def test_the_version_is_that_of_the_tag(tool: Any) -> None:
    version = tool.project()["version"]
    assert tool.check_version(version) is False
    git(tool.ROOT, "tag", "other")
    assert tool.check_version(version) is False
    git(tool.ROOT, "tag", "v99.0")
    with pytest.raises(tool.ReleaseError, match=f"tags are v99.0; pyproject.toml states version {version}"):
        tool.check_version(version)
    git(tool.ROOT, "tag", f"v{version}")
    assert tool.check_version(version) is True
    git(tool.ROOT, "commit", "--quiet", "--allow-empty", "--message", "two")
    assert tool.check_version(version) is False


@pytest.mark.parametrize("name", ["csrc/pipeline/run.c", "CITATION.cff", "CHANGELOG.md"])
def test_every_file_states_the_same_version(name: str, tool: Any) -> None:
    version = tool.project()["version"]
    text = (tool.ROOT / name).read_text(encoding="utf-8")
    assert version in text
    for changed, found in ((text.replace(version, "7.7"), "7.7"), ("", "none")):
        (tool.ROOT / name).write_text(changed, encoding="utf-8")
        with pytest.raises(tool.ReleaseError, match=f"{name} states version {found}, pyproject.toml {version}"):
            tool.check_version(version)


def test_files_and_requirements_are_in_the_bill(tool: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.whl"
    file.write_bytes(b"wheel")
    bill = tool.bill_of_materials([file], tool.project())
    (listed,) = bill["metadata"]["component"]["components"]
    assert listed["name"] == "a.whl"
    assert listed["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"wheel").hexdigest()}]
    assert [one["properties"][0]["value"] for one in bill["components"]] == tool.project()["dependencies"]


def test_the_bill_fits_the_schema_of_cyclonedx(tool: Any, tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx")
    pytest.importorskip("jsonschema")
    file = tmp_path / "a.whl"
    file.write_bytes(b"wheel")
    bill = tool.bill_of_materials([file], tool.project())
    tool.check_bill(json.dumps(bill))
    bill["metadata"]["component"]["components"][0]["hashes"][0]["content"] = "short"
    with pytest.raises(tool.ReleaseError, match="does not fit its schema"):
        tool.check_bill(json.dumps(bill))


def test_nothing_is_left_where_a_step_fails(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(out: Path) -> list[Path]:
        (out / "a.tar.gz").write_bytes(b"no archive")
        raise subprocess.CalledProcessError(1, ["build"])

    monkeypatch.setattr(tool, "build", build)
    monkeypatch.setattr("sys.argv", ["release.py", "--out", str(tmp_path / "out")])
    with pytest.raises(subprocess.CalledProcessError):
        tool.main()
    assert not (tmp_path / "out").exists()

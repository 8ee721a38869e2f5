"""Everything that a release consists of, checked, in build/release: `make release`.

    python tools/release.py [--out build/release]

An sdist and the wheels of tools/build_wheels.py; their metadata, looked at by twine; a selection of the suite from the
wheel of this processor, in a new environment of each Python that is found; a bill of materials (CycloneDX 1.6, JSON)
and SHA256SUMS, with the hash of every file. Nothing is left to be uploaded if the version differs between the files
that state it, or from the tag v... of the commit. Without such a tag it is a rehearsal, and says so.
Needs build, twine, cyclonedx-python-lib[json-validation], and what build_wheels.py needs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Where the version stands beside pyproject.toml.
VERSIONS = {
    "csrc/pipeline/run.c": r'mg_version\(void\) \{ return "([^"]+)"; \}',
    "CITATION.cff": r"(?m)^version: (\S+)$",
    "CHANGELOG.md": r"(?m)^## (\S+)",
}
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
# What needs neither the test extension nor other packages than the package's own and pytest.
TESTS = ("test_references", "test_pipeline_api", "test_readers", "test_writers", "test_cli")
SUMS = "SHA256SUMS"


class ReleaseError(Exception):
    """What was built must not be published."""


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]  # type: ignore[no-any-return]


def check_version(version: str) -> bool:
    """Whether the commit has the version's tag; ReleaseError where versions differ."""
    for name, pattern in VERSIONS.items():
        found = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"))
        if not found or found[1] != version:
            raise ReleaseError(f"{name} states version {found[1] if found else 'none'}, pyproject.toml {version}")
    command = ["git", "tag", "--points-at", "HEAD", "--list", "v*"]
    tags = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    if tags and f"v{version}" not in tags:
        raise ReleaseError(f"the commit's tags are {', '.join(tags)}; pyproject.toml states version {version}")
    return bool(tags)


def build(out: Path) -> list[Path]:
    """The sdist and the wheels."""
    subprocess.run([sys.executable, "-m", "build", "--sdist", "--outdir", out, ROOT], check=True)
    subprocess.run([sys.executable, ROOT / "tools" / "build_wheels.py", "--out", out / "wheels"], check=True)
    for wheel in (out / "wheels").glob("*.whl"):
        shutil.move(wheel, out / wheel.name)
    shutil.rmtree(out / "wheels")
    return sorted([*out.glob("*.tar.gz"), *out.glob("*.whl")])


def test_wheel(wheel: Path, python: str, place: Path) -> None:
    """The wheel in a new environment, and tests that see nothing of the checkout but themselves."""
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([python, "-m", "venv", place / "venv"], check=True)
    pip = [place / "venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, wheel, "pytest>=8"], check=True)
    for name in ("tests", "examples", "README.md", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    command = [place / "venv/bin/python", "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    files = [f"tests/{name}.py" for name in TESTS]
    subprocess.run([*command, "--basetemp", place / "tmp", *files], cwd=place, check=True)


def works(python: str) -> bool:
    """A name on the path may stand for a Python that is not installed."""
    return subprocess.run([python, "-V"], capture_output=True).returncode == 0


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bill_of_materials(files: list[Path], facts: dict[str, Any]) -> dict[str, Any]:
    """CycloneDX 1.6: the package with its files' hashes, and what it needs where it is installed."""
    name, version = facts["name"], facts["version"]
    package = f"pkg:pypi/{name}@{version}"
    needed = [re.match(r"([\w.-]+)(.*)", requirement) for requirement in facts["dependencies"]]
    others = [(match[1], match[2]) for match in needed if match]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "component": {
                "type": "library",
                "bom-ref": package,
                "name": name,
                "version": version,
                "purl": package,
                "licenses": [{"license": {"id": facts["license"]}}],
                "components": [
                    {
                        "type": "file",
                        "bom-ref": f"file:{path.name}",
                        "name": path.name,
                        "hashes": [{"alg": "SHA-256", "content": sha256(path)}],
                    }
                    for path in files
                ],
            },
        },
        "components": [
            {
                "type": "library",
                "bom-ref": f"pkg:pypi/{other.lower()}",
                "name": other,
                "purl": f"pkg:pypi/{other.lower()}",
                "properties": [{"name": "requirement", "value": other + versions}],
            }
            for other, versions in others
        ],
        "dependencies": [{"ref": package, "dependsOn": [f"pkg:pypi/{other.lower()}" for other, _ in others]}],
    }


def check_bill(text: str) -> None:
    """ReleaseError unless the text fits the published schema of CycloneDX 1.6."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ReleaseError(f"the bill of materials does not fit its schema: {fault}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "release")
    out = parser.parse_args().out.resolve()
    facts = project()
    tagged = check_version(facts["version"])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        files = build(out)
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True)
        (own,) = (path for path in files if path.name.endswith(f"_{platform.machine()}.whl"))
        pythons = [found for name in PYTHONS if (found := shutil.which(name)) and works(found)]
        for python in pythons:
            test_wheel(own, python, out.parent / "release-tests")
        text = json.dumps(bill_of_materials(files, facts), indent=2)
        check_bill(text)
        bill = out / f"{facts['name']}-{facts['version']}.cdx.json"
        bill.write_text(text + "\n", encoding="utf-8")
        sums = "".join(f"{sha256(path)}  {path.name}\n" for path in [*files, bill])
        (out / SUMS).write_text(sums, encoding="utf-8")
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    print(sums, end="")
    print(f"tested on {', '.join(Path(python).name for python in pythons)}")
    if not tagged:
        print(f"a rehearsal: the commit has no tag v{facts['version']}")


if __name__ == "__main__":
    try:
        main()
    except (ReleaseError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"release: {error}") from None

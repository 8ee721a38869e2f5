"""The notebooks run from a copy, each within its time, and show what they promise; what is stored in them is clean."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebooks need the extra notebooks")
nbclient = pytest.importorskip("nbclient", reason="the notebooks need the extra notebooks")
pytest.importorskip("ipykernel", reason="the notebooks need the extra notebooks")
pytest.importorskip("matplotlib", reason="the notebooks need the extra notebooks")
pytest.importorskip("yaml", reason="one of the notebooks needs the extra evaluation")

ROOT = Path(__file__).resolve().parent.parent
# Pictures that each shows, and lines that it must print.
EXPECTED: dict[str, tuple[int, tuple[str, ...]]] = {
    "01_depth": (5, ("the same seed gives the same bits: True", "latent: (1, 4, 12, 16)")),
    "02_normals": (4, ("ten merged, mean",)),
    "03_intrinsics": (5, ("3 targets: ['albedo', 'shading', 'residual']",)),
    "04_ensembles_and_uncertainty": (5, ("the batch changes nothing: True", "closed-form")),
    "05_evaluation": (2, ("nyu_depth: 6 of 6 samples", "hypersim_iid: 6 of 6 samples", "all pixels:")),
    "06_finetune": (3, ("the loss fell: True", "the scenes were learned: True")),
}
SECONDS_PER_CELL = 120
LARGEST_BYTES = 1_500_000


def pictures(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def printed(notebook: Any) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def test_every_notebook_is_listed() -> None:
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == sorted(EXPECTED)


@pytest.mark.long
@pytest.mark.parametrize("name", EXPECTED)
def test_it_runs(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copytree(ROOT / "tests" / "data", tmp_path / "tests" / "data")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    # Raises CellExecutionError for a cell that raises, CellTimeoutError for one that takes too long.
    nbclient.NotebookClient(notebook, timeout=SECONDS_PER_CELL, kernel_name="python3").execute(cwd=folder)
    count, lines = EXPECTED[name]
    assert pictures(notebook) == count
    for line in lines:
        assert line in printed(notebook)
    assert not list(folder.iterdir())  # it cleans up after itself


def names_taken(code: str) -> Iterator[tuple[str, str]]:
    """Modules of the package that the code imports, and the names that it takes from them, also as mc.NAME."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "marigold_c":
            yield from ((str(node.module), one.name) for one in node.names)
        elif isinstance(node, ast.Import):
            assert all(one.name == "marigold_c" or not one.name.startswith("marigold_c.") for one in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mc":
            yield "marigold_c", node.attr


@pytest.mark.parametrize("name", EXPECTED)
def test_only_the_public_interface_is_used(name: str) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    taken = {pair for cell in notebook.cells if cell.cell_type == "code" for pair in names_taken(cell.source)}
    assert ("marigold_c", "load") in taken or ("marigold_c.datasets", "open_dataset") in taken
    for module, attribute in sorted(taken):
        assert module in ("marigold_c", "marigold_c.datasets"), f"{module} is not in the reference"
        assert attribute in import_module(module).__all__, f"{module}.{attribute} is not public"


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_stored(name: str) -> None:
    """Web pages of a repository show the stored outputs: they are there, small, and free of the machine's traces."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    assert path.stat().st_size <= LARGEST_BYTES
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert pictures(notebook) == EXPECTED[name][0]
    assert all(not cell.metadata for cell in notebook.cells)
    for trace in ("site-packages", "/home/", "/root/", "/tmp/", "Traceback", "Warning"):
        assert trace not in text

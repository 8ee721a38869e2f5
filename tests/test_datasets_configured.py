"""Configurations of data sets and their lists of samples: what is wrong is named, what is unusual is mentioned."""

from __future__ import annotations

import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from dataset_cases import COUNT, MakeDataset, opened, rewritten

from marigold_c.datasets import lists as list_module
from marigold_c.datasets import open_dataset
from marigold_c.errors import DatasetError, DatasetWarning
from marigold_c.extras import MissingExtra

pytest.importorskip("yaml")
pytest.importorskip("pydantic")
pytest_plugins = ("dataset_cases",)
pytestmark = pytest.mark.usefixtures("dataset_warnings")


NYU = {"name": "nyu_depth", "disp_name": "d", "dir": "nyuv2/nyu_labeled_extracted.tar", "eigen_valid_mask": True}
WRONG = {
    "no name": ({"disp_name": "d", "dir": "x"}, "name: is missing; expected a text"),
    "unknown set": (
        {**NYU, "name": "nyu_dept"},
        r"name: unknown data set 'nyu_dept'; known: ddad_completion, .*; did you mean nyu_depth\?",
    ),
    "other task": ({**NYU, "name": "nyu_normals"}, "nyu_normals is a data set for normals, not for depth"),
    "no list": (NYU, "filenames: the path of the list of samples is missing"),
    "list of lists": ({**NYU, "filenames": ["a"]}, r"filenames: is \['a'\]; expected a text"),
    "no switch": (
        {k: v for k, v in NYU.items() if k != "eigen_valid_mask"} | {"filenames": "a"},
        "mask: is missing; choose from true, false",
    ),
    "wrong switch": (
        {**NYU, "eigen_valid_mask": 1, "filenames": "a"},
        "eigen_valid_mask: is 1; expected true or false",
    ),
    "missing list": ({**NYU, "filenames": "nowhere.txt"}, r"the list nowhere\.txt is not in the working folder"),
    "training": ({"dataset": {"val": []}}, "a configuration of training"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_configurations(case: str, tmp_path: Path) -> None:
    config, message = WRONG[case]
    with pytest.raises(DatasetError, match=message):
        open_dataset(config, tmp_path, task="depth")


def test_faults_of_a_file_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: folder_depth\ndisp_name: own\n\nimages: 3\nmax_depth: 1e-x\n")
    with pytest.raises(DatasetError) as caught:
        open_dataset(path, tmp_path, task="depth")
    assert str(caught.value).splitlines() == [
        f"{path}, line 1: dir: is missing; expected a text",
        f"{path}, line 4: images: is 3; expected a text",
        f"{path}, line 5: max_depth: is '1e-x'; expected a number of at least 0",
    ]
    path.write_text("name: nyu_depth\ndisp_name: d\ndir: x\nfilenames: a\neigen_valid_maks: true\n")
    with (
        pytest.raises(DatasetError, match="eigen_valid_mask: is missing"),
        pytest.warns(DatasetWarning, match=r"passed over: eigen_valid_maks; did you mean eigen_valid_mask\?"),
    ):
        open_dataset(path, tmp_path, task="depth")


def test_unknown_keys_are_mentioned(make_dataset: MakeDataset) -> None:
    one = make_dataset("nyu_depth")
    with pytest.warns(DatasetWarning, match="without a meaning for nyu_depth are passed over: valid_mask_crop"):
        rewritten(one, valid_mask_crop="garg")


def test_keys_of_training_are_passed_over(make_dataset: MakeDataset) -> None:
    assert len(rewritten(make_dataset("nyu_depth"), resize_to_hw="null")) == COUNT


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for text, message in (
        ("a: [1", "not valid YAML"),
        ("- 1\n", "keys and values, found list"),
        ("", "name: is missing"),
    ):
        path.write_text(text)
        with pytest.raises(DatasetError, match=message) as caught:
            open_dataset(path, tmp_path, task="depth")
        assert str(path) in str(caught.value)
    with pytest.raises(DatasetError, match="No such file"):
        open_dataset(tmp_path / "b.yaml", tmp_path, task="depth")
    with pytest.raises(ValueError, match="task='flow': choose from depth, normals, iid"):
        open_dataset({}, tmp_path, task="flow")


def test_without_pydantic_the_extra_is_named() -> None:
    """In a process of its own, where nothing imported it; the help needs none, and neither does the package."""
    code = f"""
import sys
sys.modules["pydantic"] = None
import marigold_c.commands.train, marigold_c.commands.eval
from marigold_c import extras
from marigold_c.datasets import open_dataset
find = extras.find_spec
extras.find_spec = lambda name: None if name == "pydantic" else find(name)
try:
    open_dataset({NYU!r}, ".", task="depth")
except extras.MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    hint = "needs pydantic, which is not installed: pip install 'marigold-c[evaluation]'"
    assert (done.stdout.strip(), done.stderr) == (f"checking configurations {hint}", "")


def test_missing_yaml_is_named(make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make_dataset("nyu_depth")
    find = util.find_spec
    monkeypatch.setattr("marigold_c.extras.find_spec", lambda name: None if name == "yaml" else find(name))
    with pytest.raises(
        MissingExtra, match=r"needs PyYAML, which is not installed: pip install 'marigold-c\[evaluation\]'"
    ):
        opened(one)


def test_missing_data_set_is_named(make_dataset: MakeDataset) -> None:
    one = make_dataset("nyu_depth")
    one.directory.unlink()
    with pytest.raises(DatasetError, match=r"neither at .*nyu_labeled_extracted\.tar nor at .*nyu_labeled_extracted$"):
        opened(one)


def list_path(one: Any) -> Path:
    path: Path = one.config.parents[2] / "data_split" / one.name / f"{one.name}_tiny.txt"
    return path


LISTS = {
    "": "the list is empty",
    "\n \n": "the list is empty",
    "test/a.png\n": "line 1 names 1 files; nyu_depth has image, truth",
    "\n/etc/passwd b\n": "line 2: the name '/etc/passwd' is absolute",
    "a b\nc ../d\n": r"line 2: the name '\.\./d' leads out of the data set",
    "a x/../../y\n": "leads out of the data set",
    f"{'x' * 5000} b\n": "is longer than 4096 characters",
    ". b\n": "line 1: the name '.' is empty",
}


@pytest.mark.parametrize("text", LISTS)
def test_wrong_lists(text: str, make_dataset: MakeDataset) -> None:
    one = make_dataset("nyu_depth")
    list_path(one).write_text(text)
    with pytest.raises(DatasetError, match=LISTS[text]) as caught:
        opened(one)
    assert str(list_path(one)) in str(caught.value)


def test_lists_of_other_systems(make_dataset: MakeDataset) -> None:
    one = make_dataset("nyu_depth")
    text = list_path(one).read_text()
    list_path(one).write_bytes(("\n" + text.replace("\n", "\r\n").replace("test/", "./test//")).encode())
    data = opened(one)
    assert [sample.name for sample in data.samples] == [line.split()[0] for line in one.lines]
    data.read_truth(1)


def test_samples_without_a_truth_are_left_out(make_dataset: MakeDataset) -> None:
    one = make_dataset("kitti_depth")
    assert len(one.lines) == COUNT + 1 == len(opened(one)) + 1
    list_path(one).write_text(one.lines[-1])
    with pytest.raises(DatasetError, match="no sample of the list has a truth"):
        opened(one)


def test_images_named_twice_are_mentioned(make_dataset: MakeDataset) -> None:
    one = make_dataset("nyu_depth")
    list_path(one).write_text("\n".join([*one.lines, one.lines[0]]))
    with pytest.warns(DatasetWarning, match=r"lines 1 and 3 name one image, test/office_0000/rgb_0001\.png"):
        assert len(opened(one)) == COUNT + 1


def renamed(one: Any, name: str) -> Any:
    """The list under another name."""
    path = list_path(one)
    path.rename(path.with_name(name))
    one.config.write_text(one.config.read_text().replace(path.name, name))
    return one


def test_wrong_kitti_list_is_mentioned_with_its_consequence(make_dataset: MakeDataset) -> None:
    one = renamed(make_dataset("kitti_depth"), "eigen_test_files_with_gt.txt")
    with pytest.warns(
        DatasetWarning, match=r"not the published list.*3 lines instead of 697.*12\.3 where 9\.9 is right"
    ):
        data = opened(one)
    assert len(data.warnings) == 1 and "eigen_test_files_with_gt.txt" in data.warnings[0]


def test_right_list_is_taken_in_silence(make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, with any line ends, folders above the drive and further columns; but not with another frame."""
    one = make_dataset("kitti_depth")
    digest = list_module.list_digest("kitti_depth", [line.split() for line in one.lines], 2)
    published = {"kitti_depth": {"official.txt": list_module.PublishedList(3, digest)}}
    monkeypatch.setattr(list_module, "PUBLISHED", published)
    one = renamed(one, "official.txt")
    assert opened(one).warnings == ()
    path = list_path(one).with_name("official.txt")
    lines = [line.rpartition(" ")[0].removeprefix("2011_09_26/") for line in reversed(one.lines)]
    path.write_text("\r\n".join(lines))
    assert opened(one).warnings == ()
    path.write_text("\n".join(lines).replace("0000000001.png", "0000000007.png"))
    with pytest.warns(DatasetWarning, match="checksum .* instead of"):
        opened(one)
    path.write_text("\n".join(line.replace("None", "a.png") for line in lines))
    with pytest.warns(DatasetWarning, match="checksum .* instead of"):
        opened(one)


def test_published_lists() -> None:
    """Numbers of lines as published; checksums where all of a list is known."""
    lines = {name: one.lines for rows in list_module.PUBLISHED.values() for name, one in rows.items()}
    assert lines["filename_list_test.txt"] == lines["nyuv2_test.txt"] == 654
    assert (lines["eigen_test_files_with_gt.txt"], lines["eth3d_filename_list.txt"]) == (697, 454)
    known = {name for name, rows in list_module.PUBLISHED.items() if all(one.digest for one in rows.values())}
    assert known >= {"nyu_depth", "kitti_depth", "eth3d_depth", "nyu_normals", "ibims_normals"}
    for rows in list_module.PUBLISHED.values():
        assert all(one.digest is None or len(bytes.fromhex(one.digest)) == 32 for one in rows.values())

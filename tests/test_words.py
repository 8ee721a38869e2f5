"""What the commands say to somebody who is new: which flag is missing, and a help that is read in one go."""

from __future__ import annotations

from pathlib import Path

import pytest

from marigold_c.commands import cli

yaml = pytest.importorskip("yaml", reason="configurations need the extra training")

from training_cases import data_entry, settings, write_config  # noqa: E402


@pytest.mark.parametrize("given", [False, True])
def test_train_names_the_flag_that_says_where_data_sets_are(
    given: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BASE_DATA_DIR", raising=False)
    config = write_config(tmp_path / "config.yaml", settings("depth", dataset__train=data_entry("depth", "rooms")))
    flags = ["--base-data-dir", str(tmp_path / "data")] if given else []
    assert cli.main(["train", str(config), "--quiet", *flags]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "the data set is neither at" in said
    assert str(tmp_path / "data" / "rooms") in said if given else "neither at rooms nor at rooms.tar" in said
    assert ("give --base-data-dir DIR (or set BASE_DATA_DIR)" in said) is not given

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


@pytest.mark.parametrize("command", ["infer", "eval"])
def test_the_help_is_as_short_as_that_of_depth(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = {}
    for name in ("depth", command):
        assert cli.main([name, "--help"]) == 0
        shown[name] = capsys.readouterr().out
    lines = shown[command].splitlines()
    assert len(lines) <= len(shown["depth"].splitlines())
    assert lines[0].startswith(f"usage: marigold {command} TASK ") and lines[0].endswith("[options]") and not lines[1]
    # In the groups of its own: a line for each flag, at most one more where the flag or what it may be is long.
    for group in {"infer": ("data set", "prediction", "workers", "evaluation"), "eval": ("data set", "evaluation")}[
        command
    ]:
        part = shown[command].split(f"\n{group}:\n")[1].split("\n\n")[0].splitlines()
        for flag in [index for index, line in enumerate(part) if line.startswith("  -")]:
            following = next(
                (index for index in range(flag + 1, len(part)) if part[index].startswith("  -")), len(part)
            )
            assert following - flag <= 3, part[flag:following]

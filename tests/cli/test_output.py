"""Where commands write files: found out before the work, and told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyeline.cli import main
from eyeline.cli.output import make_room
from eyeline.errors import EyelineError

COMMANDS = {
    "--json": ["data", "check", "d", "--json"],
    "--sheet": ["data", "show", "d", "--sheet"],
    "--out": ["trace", "resnet18", "--out"],
    "--markdown": ["profile", "resnet18", "--markdown"],
    "--limits": ["profile", "resnet18", "--limits"],
}


def test_make_room(tmp_path: Path) -> None:
    make_room(tmp_path / "new" / "er" / "a.json")
    assert (tmp_path / "new" / "er").is_dir() and not (tmp_path / "new" / "er" / "a.json").exists()
    (tmp_path / "file").touch()
    with pytest.raises(EyelineError) as caught:
        make_room(tmp_path / "file" / "a.json", "--json")
    said = str(caught.value).removeprefix(str(tmp_path))
    assert said == "/file: cannot be made a folder (File exists); choose another --json"
    with pytest.raises(EyelineError, match="new is a folder; give --json a file"):
        make_room(tmp_path / "new", "--json")


@pytest.mark.parametrize("option", COMMANDS)
def test_a_file_in_the_way_of_its_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
) -> None:
    """Before the data or the model is looked at: "d" is not there."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main.run([*COMMANDS[option], "file/a.png"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("error: file: cannot be made a folder (") and option in err


def test_a_report_in_a_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.run(["data", "sample", "d", "--train", "2", "--val", "1", "--size", "64"]) == 0
    assert main.run(["data", "check", "d", "--json", "new/report.json"]) == 0
    assert Path("new/report.json").stat().st_size and capsys.readouterr().err == ""

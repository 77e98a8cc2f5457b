"""eyeline data check as it is typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import Run, cli, told, weights, write_split

__all__ = ["cli", "weights"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sound pictures, none like another."""
    folder = tmp_path / "d"
    write_split(folder, "train", 6)
    write_split(folder, "val", 2)
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        noise = np.random.default_rng(i).integers(0, 256, (8, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((64, 48)).save(path)
    return folder


def spoil(data: Path, split: str = "train") -> list[str]:
    """An error in each picture of a split: the places."""
    file = data / "annotations" / f"instances_{split}.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["bbox"][2] = 0
    file.write_text(json.dumps(content))
    return [f"annotations[{i}] (id {i + 1})" for i in range(len(content["annotations"]))]


def test_a_clean_set(cli: Run, data: Path) -> None:
    status, out, err = cli("data", "check", "d")
    assert status == 0 and err == ""
    lines = out.splitlines()
    assert lines[0] == "d: COCO, pictures all decoded" and lines[-1] == "no fault found"
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["pictures"] == ["6", "2"] and rows["square"] == ["3", "1"]


def test_faults_by_kind(cli: Run, data: Path) -> None:
    places = spoil(data)
    (data / "train" / "1.png").write_bytes(b"no picture")
    status, out, _ = cli("data", "check", "d")
    assert status == 1
    assert "error picture: pictures that are not there, or cannot be read: 1\n" in out
    assert "  d/train/1.png: not a picture of a known format\n" in out
    assert all(place in out for place in places[:5]) and places[5] not in out
    assert "  and 1 more; --all names them\n" in out
    assert out.endswith("\n7 errors, 0 warnings, 0 notes\n")
    _, out, _ = cli("data", "check", "d", "--all")
    assert all(place in out for place in places) and "more" not in out
    _, out, _ = cli("data", "check", "d", "--split", "val")
    assert out.endswith("\nno fault found\n")
    status, out, _ = cli("data", "check", "d", "--no-pictures", "--split", "train")
    assert "pictures not read" in out and "6 errors" in out


def test_exit_status(cli: Run, data: Path) -> None:
    """Warnings are no errors, unless --strict; notes never are."""
    (data / "val" / "1.png").write_bytes((data / "train" / "1.png").read_bytes())
    status, out, _ = cli("data", "check", "d")
    assert status == 0 and "warning leak" in out and out.endswith("1 warning, 0 notes\n")
    assert cli("data", "check", "d", "--strict")[0] == 1
    assert cli("data", "check", "d", "--strict", "--fast")[0] == 1
    assert cli("data", "check", "d", "--strict", "--no-pictures")[0] == 0
    (data / "val" / "1.png").write_bytes((data / "val" / "0.png").read_bytes())
    status, out, _ = cli("data", "check", "d", "--strict")
    assert status == 0 and "note copy" in out


def test_json(cli: Run, data: Path) -> None:
    spoil(data)
    status, out, _ = cli("data", "check", "d", "--json", "-")
    report = json.loads(out)
    assert status == 1 and report["counts"] == {"error": 6, "warning": 0, "note": 0}
    status, text, _ = cli("data", "check", "d", "--json", "found.json")
    assert status == 1 and "6 errors" in text
    assert json.loads(Path("found.json").read_text()) == report
    assert "found.json exists already" in told(cli("data", "check", "d", "--json", "found.json"))


def test_wrong_options(cli: Run, data: Path) -> None:
    assert "exclude each other" in told(cli("data", "check", "d", "--fast", "--no-pictures"))
    assert "no split 'vall'" in told(cli("data", "check", "d", "--split", "vall"))


def test_brackets_and_long_paths_stay_as_they_are(cli: Run, tmp_path: Path) -> None:
    folder = tmp_path / "[red] 데이터" / ("x" * 120)
    write_split(folder, "train", 1)
    (folder / "train" / "0.png").write_bytes(b"")
    _, out, _ = cli("data", "check", folder)
    assert f"\n  {folder}/train/0.png: not a picture of a known format\n" in out


def test_eval_of_what_is_sound(cli: Run, data: Path, weights: Path) -> None:
    """Refused; with --tolerant measured on the rest, and told in three places."""
    (data / "val" / "1.png").write_bytes(b"no picture")
    line = told(cli("eval", weights, "--data", "d", "--out", "e"))
    assert line.startswith("error: d: 1 fault in the data: d/val/1.png: not a picture")
    status, out, err = cli("eval", weights, "--data", "d", "--out", "e", "--tolerant")
    assert status == 0, err
    words = "1 (pictures that are not there, or cannot be read)"
    assert out.startswith(f"left out of the data: {words}\n")
    [fault] = json.loads(Path("e/left_out.json").read_text())["left_out"]
    assert fault["where"] == "d/val/1.png"
    assert (
        words in Path("e/report.html").read_text()
        and "--tolerant" in Path("e/report.html").read_text()
    )


MARKED = """
import os
from pathlib import Path

from eyeline.cli.main import main
from eyeline.data.checking import pictures

look = pictures.look


def marked(*arguments):
    Path(os.environ["BEGUN"]).touch()
    return look(*arguments)


pictures.look = marked
main()
"""
INTERRUPTED = """
import os
import signal
import sys


class Finder:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)


sys.meta_path.insert(0, Finder())
from eyeline.cli.main import main

main()
"""


def test_ctrl_c_ends_in_one_line(tmp_path: Path) -> None:
    """Of pictures that take long, in the midst of them."""
    folder = tmp_path / "big"
    write_split(folder, "train", 60)
    noise = np.random.default_rng(0).integers(0, 256, (2500, 2500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg", quality=90)
    for path in sorted((folder / "train").glob("*.png")):
        path.write_bytes((tmp_path / "noise.jpg").read_bytes())
    begun = tmp_path / "begun"
    command = [sys.executable, "-c", MARKED, "data", "check", str(folder)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"BEGUN": str(begun)},
    ) as process:
        last = time.monotonic() + 60
        while not begun.exists() and process.poll() is None and time.monotonic() < last:
            time.sleep(0.02)
        assert begun.exists() and process.poll() is None
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out.strip() == ""
    assert "Traceback" not in err and err.strip().count("\n") == 0
    assert time.monotonic() - sent < 10


def test_ctrl_c_while_modules_are_imported() -> None:
    command = [sys.executable, "-c", INTERRUPTED, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

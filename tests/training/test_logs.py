"""What a run tells, on a terminal and off it, in metrics.jsonl and in TensorBoard."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from toys import ToyData, ToyDetector

from eyeline.errors import EyelineError
from eyeline.training import load_recipe, train
from eyeline.training.logs import Log
from eyeline.training.position import Position
from eyeline.training.saving import RunFolder


def run(folder: Path, tensorboard: object = False, every: int = 2, **fields) -> Path:
    train(
        ToyDetector(),
        ToyData(),
        batch_size=3,
        epochs=2,
        data={"workers": 0},
        log={"tensorboard": tensorboard, "every": every},
        out=str(folder),
        **fields,
    )
    return folder


def lines(folder: Path) -> list[dict]:
    def no_nan(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=no_nan) for line in text.splitlines()]


def test_plain_lines(tmp_path, capsys):
    run(tmp_path / "r")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    printed = out.splitlines()
    assert printed[0] == f"run folder {tmp_path / 'r'}, 8 steps"
    assert [line.split("  ")[:2] for line in printed if "/s" in line] == [
        ["epoch 1/2", "step 2/8"],
        ["epoch 1/2", "step 4/8"],
        ["epoch 2/2", "step 6/8"],
        ["epoch 2/2", "step 8/8"],
    ]
    assert all("left" in line for line in printed if "/s" in line)
    assert printed[-1].startswith("epoch 2/2 done in ")


def test_bar_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    run(tmp_path / "r")
    out = capsys.readouterr().out
    assert "8/8" in out and "epoch 2/2" in out and "0:00:00" in out and "box" in out
    assert "pictures/s" not in out


def test_metrics_lines(tmp_path):
    found = lines(run(tmp_path / "r", every=3))
    assert [(line["event"], line["step"], line["epoch"]) for line in found] == [
        ("step", 3, 1),
        ("step", 4, 1),
        ("epoch", 4, 1),
        ("step", 6, 2),
        ("step", 8, 2),
        ("epoch", 8, 2),
    ]
    step, epoch = found[0], found[2]
    assert step["losses"].keys() == {"loss", "box", "label"}
    assert step["losses"]["loss"] == pytest.approx(step["losses"]["box"] + step["losses"]["label"])
    for key in ("lr", "gradient_norm", "seconds", "pictures_per_second", "memory_mb"):
        assert step[key] > 0, key
    assert step["pictures_per_second"] == pytest.approx(9 / step["seconds"])
    assert 0 < epoch["train_seconds"] <= epoch["seconds"]


def test_epochs_losses_are_means_over_the_pictures(tmp_path):
    found = lines(run(tmp_path / "r", every=1))
    steps = [line["losses"]["box"] for line in found if line["event"] == "step"][:4]
    expected = sum(n * value for n, value in zip((3, 3, 3, 2), steps, strict=True)) / 11
    assert found[4]["losses"]["box"] == pytest.approx(expected)


def test_nan_becomes_null_and_later_records_go(tmp_path):
    recipe = load_recipe({"out": str(tmp_path / "r"), "log": {"tensorboard": False}})
    with RunFolder(recipe, "m", resume=False, writes=True) as folder:
        at = Position(batches=10)
        with Log(folder, recipe, 10, at) as log:
            log.start_epoch()
            for step in (1, 2, 3):
                at.step, at.batch, at.pictures = step, 10, 2
                log.step({"box": math.nan}, 1.0, 1.0, torch.device("cpu"))
        assert [line["losses"]["box"] for line in lines(folder.path)] == [None] * 3
        with (folder.path / "metrics.jsonl").open("ab") as file:
            file.write(b'\0\0\xff{"event": "step", "step": 4, "epoch": 1}\n')  # the power went
            file.write(b'{"event": "step", "st')
        with Log(folder, recipe, 10, Position(step=2)):
            pass
        assert [line["step"] for line in lines(folder.path)] == [1, 2]


def test_the_epochs_line_tells_the_number_that_decides(tmp_path, capsys):
    recipe = {"out": str(tmp_path / "r"), "log": {"tensorboard": False}}
    numbers = {"loss": 0.5, "AP": 0.1, "AP50": 0.2, "APs": 0.3, "AR1": 0.4}
    for metric, told in (
        ("APs", "val loss 0.500  AP 0.100  AP50 0.200  APs 0.300"),
        ("AP50", "val loss 0.500  AP 0.100  AP50 0.200"),
        ("loss", "val loss 0.500  AP 0.100  AP50 0.200"),
    ):
        checked = load_recipe(recipe, [f"eval.metric={metric}"])
        at = Position(batches=1, step=1, batch=1, pictures=1, sums={"box": 1.0})
        with RunFolder(checked, "m", resume=False, writes=True) as folder:
            with Log(folder, checked, 1, at) as log:
                log.start_epoch()
                log.epoch({"box": 0.5}, numbers)
            shutil.rmtree(folder.path)
        line = capsys.readouterr().out.splitlines()[-1]
        assert line.endswith(f"train loss 1.000  {told}")


def test_other_processes_are_silent(tmp_path, capsys):
    recipe = load_recipe({"out": str(tmp_path / "r")})
    with RunFolder(recipe, "m", resume=False, writes=False) as folder:
        at = Position(batches=1, step=1, batch=1, pictures=1)
        with Log(folder, recipe, 1, at) as log:
            log.start_epoch()
            log.step({"box": 1.0}, 1.0, 1.0, torch.device("cpu"))
            log.epoch({}, {})
            log.say("hello")
        folder.save_weights(ToyDetector(), "last")
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "r").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run(tmp_path / "r", tensorboard=True)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("step/losses/box")
    assert [event.step for event in scalars] == [2, 4, 6, 8]
    written = [line["losses"]["box"] for line in lines(folder) if line["event"] == "step"]
    assert [event.value for event in scalars] == pytest.approx(written)
    assert [event.step for event in events.Scalars("epoch/losses/loss")] == [4, 8]


def test_tensorboard_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(EyelineError, match="there is no tensorboard: install eyeline"):
        run(tmp_path / "r", tensorboard=True)
    assert not (tmp_path / "r").exists()
    assert not (run(tmp_path / "r", tensorboard="auto") / "tensorboard").exists()


def test_two_runs_that_begin_at_once_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe({"log": {"tensorboard": False}})
    both = [RunFolder(recipe, "m", resume=False, writes=True) for _ in range(2)]
    for folder in both:
        with folder, Log(folder, recipe, 1, Position(batches=1)):
            assert (folder.path / "metrics.jsonl").is_file()
    assert [folder.path for folder in both] == [Path("runs/m"), Path("runs/m-2")]
    assert len(list((tmp_path / "runs").iterdir())) == 2

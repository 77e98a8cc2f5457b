"""`eyeline runs`: lists and compares what lies in run folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from eyeline.cli import main
from eyeline.training import load_recipe, save_recipe
from eyeline.training.runs import (
    differing_keys,
    find_runs,
    side_by_side,
    sort_runs,
    state_in_words,
)


def write(
    folder: Path, aps: list[float], lr: float = 1e-4, status: dict | None = None, **fields
) -> Path:
    folder.mkdir(parents=True)
    values = {"model": {"name": "retinanet"}, "data": {"path": "some/cells"}, "epochs": 3}
    recipe = load_recipe({**values, "optimizer": {"lr": lr}, **fields})
    save_recipe(recipe, folder / "recipe.yaml")
    lines = [{"event": "step", "step": 1, "epoch": 1, "losses": {"loss": 9.0}}]
    for i, ap in enumerate(aps, 1):
        lines.append(
            {
                "event": "epoch", "step": 10 * i, "epoch": i, "losses": {"loss": 2.0 / i},
                "metrics": {"AP": ap, "AP50": min(1.0, 2 * ap), "loss": 1.0 - ap},
            }
        )  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    base = {
        "state": "finished", "begun": 1000.0, "started": 1000.0, "ended": 1090.0,
        "earlier_seconds": 10.0,
    }  # fmt: skip
    (folder / "status.json").write_text(json.dumps(base | (status or {})))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    write(folder / "a", [0.1, 0.3, 0.2])
    write(folder / "b", [0.5], lr=1e-3, status={"state": "failed", "why": "x", "begun": 2000.0})
    gone = {"state": "running", "host": "elsewhere", "pid": 1, "process_began": None}
    c = write(folder / "c", [], status=gone | {"begun": 500.0, "started": 500.0})
    os.utime(c / "status.json", (560, 560))
    (folder / "d").mkdir()
    (folder / "d" / "recipe.yaml").write_text("epochs: many\n")
    write(folder / "e", [0.1])
    (folder / "e" / "metrics.jsonl").write_text('{"event": "else"}\n')
    (folder / "no-run").mkdir()
    return folder


def test_what_runs_tell(runs: Path) -> None:
    found, broken = find_runs(runs)
    a, b, c = found
    assert (a.name, a.model, a.data, a.state) == ("a", "retinanet", "some/cells", "finished")
    assert (a.epoch, a.epochs, a.best, a.best_epoch) == (3, 3, 0.3, 2)
    assert a.loss == pytest.approx(2 / 3) and a.duration == 100
    assert a.size == sum(path.stat().st_size for path in (runs / "a").iterdir())
    assert (b.state, b.epoch, b.begun) == ("failed", 1, 2000)
    assert (c.state, c.epoch, c.best, c.loss) == ("crashed", 0, None, 9.0)
    assert c.duration == pytest.approx(70)  # up to its last beat
    assert state_in_words(c) == "crashed, epoch 0/3, no sign since 01-01 00:09"
    assert state_in_words(b) == "failed, epoch 1/3" and state_in_words(a) == "finished"
    assert len(broken) == 2
    assert "recipe.yaml:1: epochs" in broken[0] and "record 1 is none of a run's" in broken[1]


def test_one_run_alone(runs: Path) -> None:
    found, broken = find_runs(runs / "a")
    assert [run.name for run in found] == ["a"] and broken == []


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("begun", "bac"), ("name", "abc"), ("metric", "bac"), ("loss", "abc"), ("duration", "abc"),
        ("state", "cba"),
    ],
)  # fmt: skip
def test_orders(runs: Path, by: str, order: str) -> None:
    assert "".join(run.name for run in sort_runs(find_runs(runs)[0], by)) == order


def test_runs_judged_by_their_loss_are_best_low(tmp_path: Path) -> None:
    for name, ap in (("x", 0.2), ("y", 0.6)):
        write(tmp_path / name, [ap], eval={"metric": "loss"})
    found = sort_runs(find_runs(tmp_path)[0], "metric")
    assert [(run.name, run.best) for run in found] == [("y", 0.4), ("x", 0.8)]


def test_what_differs(runs: Path) -> None:
    folders = [runs / "a", runs / "b"]
    assert differing_keys(folders) == {"optimizer.lr": [1e-4, 1e-3]}
    assert differing_keys([runs / "a", runs / "a"]) == {}
    rows = side_by_side(folders)
    assert rows["state"] == ["finished", "failed, epoch 1/3"]
    assert rows["best AP"] == ["0.300 @2", "0.500 @1"]
    assert rows["best validation loss"] == ["0.700 @2", "0.500 @1"]


def test_list_on_the_command_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["runs", str(runs), "--sort", "metric"]) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert [row[0] for row in rows[2:]] == ["b", "a", "c"]
    assert "failed, epoch 1/3" in out and "AP 0.300 @2" in out and "1 min 40 s" in out
    assert len(err.splitlines()) == 2 and all(x.startswith("warning: ") for x in err.splitlines())
    assert main.run(["runs", str(runs), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in content] == ["b", "a", "c"] and content[1]["best"] == 0.3


def test_comparison_on_the_command_line(runs: Path, tmp_path: Path, capsys) -> None:
    page = tmp_path / "p" / "page.html"
    command = ["runs", str(runs / "a"), str(runs / "b"), "--out", str(page)]
    assert main.run(command) == 0
    out = capsys.readouterr().out
    assert "optimizer.lr" in out and "0.001" in out and "seed" not in out
    text = page.read_text()
    assert text.count("<svg viewBox") >= 4 and "optimizer.lr" in text and "http" not in text
    assert main.run(command) == 1
    assert "exists already" in capsys.readouterr().err
    assert main.run(["runs", str(runs / "a"), str(runs / "a")]) == 0
    assert "the recipes are the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{}/none"], "no such folder"), (["{}", "--sort", "luck"], "cannot sort by 'luck'"),
        (["{}/a", "{}/no-run"], "no run folder"),
        (["{}", "--out", "x.html"], "is for a comparison"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(runs: Path, capsys, arguments: list[str], told: str) -> None:
    assert main.run(["runs", *(text.format(runs) for text in arguments)]) == 1
    err = capsys.readouterr().err
    assert told in err and len([x for x in err.splitlines() if x.startswith("error")]) == 1


def test_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path}\n"

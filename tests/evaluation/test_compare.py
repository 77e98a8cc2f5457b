"""Runs side by side: what is read, what is doubted, where the dots lie."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from eyeline.cli import main
from eyeline.errors import EyelineError
from eyeline.evaluation.charts import FIELD, lines_svg, scatter_svg, ticks
from eyeline.evaluation.compare import OF_MAPS, Evaluated, doubts, page, read_runs, table


def write(run: Path, ap: float, speed: float, split: str = "val", **facts: str) -> Path:
    """A run with an evaluation of `split`."""
    folder = run / f"eval-{split}"
    folder.mkdir(parents=True)
    content: dict[str, Any] = {
        "coco": {"AP": ap, "AP50": ap + 0.2, "AP75": -1.0},
        "pictures_per_second": speed,
        "parameters": 12_300_000,
        "facts": {
            "model": "retinanet", "data": "cells.json", "split": split, "precision": "float32",
            "device": "cpu", "batch size": "1", **facts,
        },
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(content))
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    slow = write(tmp_path / "slow", 0.5, 4.0)
    fast = write(tmp_path / "fa<s>t", 0.3, 16.0)
    lines = [
        {"event": "step", "epoch": 1},
        {"event": "epoch", "epoch": 1, "metrics": {}},
        {"event": "epoch", "epoch": 1, "metrics": {"AP": None}},
        {"event": "epoch", "epoch": 1, "metrics": {"AP": -1.0}},  # there was nothing to find
        {"event": "epoch", "epoch": 2, "metrics": {"AP": 0.2}},
        {"event": "epoch", "epoch": 4, "metrics": {"AP": 0.45}},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (slow / "metrics.jsonl").write_text(text + '\n{"event": "epo')  # still being written
    return [fast, slow]


def test_read(runs: list[Path]) -> None:
    fast, slow = read_runs(runs)
    assert (fast.name, slow.name) == ("fa<s>t", "slow")
    assert slow.epochs == [(2, 0.2), (4, 0.45)] and fast.epochs == []
    assert slow.row(["AP", "AP50", "AP75"]) == [
        "retinanet",
        "0.500",
        "0.700",
        "-",
        "4",
        "12.3 M",
        "float32",
    ]
    assert slow.measured_on == "cells.json, val"
    assert doubts([fast, slow]) == []
    # folders of evaluations and files will do as well
    again = read_runs([runs[0] / "eval-val", runs[1] / "eval-val" / "results.json"])
    assert [run.name for run in again] == ["fa<s>t", "slow"] and again[1].epochs == slow.epochs


def test_the_newest_evaluation_counts(runs: list[Path]) -> None:
    write(runs[1], 0.6, 4.0, "test")
    os.utime(runs[1] / "eval-val" / "results.json", (1, 1))
    assert read_runs(runs)[1].coco["AP"] == 0.6


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a" / "run", 0.1, 1.0), write(tmp_path / "b" / "run", 0.2, 1.0)
    assert [run.name for run in read_runs([a, b])] == [str(a), str(b)]


def test_doubts(tmp_path: Path) -> None:
    a = write(tmp_path / "a", 0.1, 1.0)
    b = write(tmp_path / "b", 0.2, 1.0, "test", device="cuda:0")
    told = doubts(read_runs([a, b]))
    assert len(told) == 2
    assert "different pictures: a on cells.json, val; b on cells.json, test" in told[0]
    assert told[1] == "speeds differ by device too: a cpu; b cuda:0"


def test_doubts_of_numbers(tmp_path: Path) -> None:
    """Tiles and looks change what is found; so do the classes that are told apart."""
    runs = []
    for name, classes, facts in (
        ("a", ["sky", "road", "car", "tree"], {}),
        ("b", ["sky", "road"], {"tiles": "256 pixels"}),
    ):
        run = write(tmp_path / name, 0.1, 1.0, **facts)
        path = run / "eval-val/results.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": classes}))
        runs.append(run)
    assert doubts(read_runs(runs)) == [
        "the runs tell different classes apart: a 4 (sky, road, car ...); b 2 (sky, road)",
        "numbers and speeds differ by tiles too: a none; b 256 pixels",
    ]
    assert doubts(read_runs([runs[0], write(tmp_path / "old", 0.1, 1.0)])) == []


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(EyelineError, match=r"run first: eyeline eval .*/run$"):
        read_runs([tmp_path / "run"])
    with pytest.raises(EyelineError, match="nowhere: no such run"):
        read_runs([tmp_path / "nowhere"])
    for i, content in enumerate(["{}", "[]", "no json"]):
        path = tmp_path / f"{i}.json"
        path.write_text(content)
        with pytest.raises(EyelineError, match="not the results of `eyeline eval`"):
            read_runs([path])


def test_table_best_first(runs: list[Path]) -> None:
    from rich.console import Console

    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(table(read_runs(runs)))
    lines = [line.split() for line in capture.get().splitlines() if line.strip()]
    assert lines[0] == [
        "run",
        "model",
        "AP",
        "AP50",
        "AP75",
        "pictures/s",
        "parameters",
        "precision",
    ]
    assert lines[2][:3] == ["slow", "retinanet", "0.500"] and lines[3][0] == "fa<s>t"


def test_a_narrow_table_keeps_the_names_of_runs(tmp_path: Path) -> None:
    from rich.console import Console

    run = Evaluated(
        "camvid-2", tmp_path, dict.fromkeys(OF_MAPS, 0.5), 12345.0, 10**8,
        {"model": "deeplabv3plus", "precision": "float32"},
    )  # fmt: skip
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(table([run]))
    words = [line.split() for line in capture.get().splitlines()]
    pieces = ["".join(line[i] for line in words[3:5]) for i in (0, 1)]
    assert pieces == ["camvid-2", "deeplabv3plus"] and words[3][2:] == [
        "0.500", "0.500", "0.500", "12,345", "100.0", "M", "float32",
    ]  # fmt: skip


def test_page(runs: list[Path]) -> None:
    html = page(read_runs(runs))
    assert "<script" not in html and "http" not in html and "url(" not in html
    assert "fa&lt;s&gt;t" in html and "fa<s>t" not in html
    assert re.findall(r'class="num best">(.*?)<', html) == ["0.500", "0.700", "16"]
    assert "AP against epochs" in html and "best 0.450 after epoch 4" in html
    for svg in re.findall(r"<svg.*?</svg>", html, re.S):
        ElementTree.fromstring(svg)
    alone = page(read_runs(runs[:1]))
    assert "AP against epochs" not in alone and 'class="doubts"' not in alone


def dots(svg: str) -> dict[str, tuple[float, float]]:
    root = ElementTree.fromstring(svg)
    return {
        c.find("title").text.split(":")[0]: (float(c.get("cx")), float(c.get("cy")))  # type: ignore
        for c in root.iter("circle")
    }


def test_dots_lie_where_they_should() -> None:
    """x ticks 0 .. 20, y ticks 0.2 .. 0.6: a lies at (1/2, 3/4), b at (1/4, 1/4) of the field."""
    svg = scatter_svg({"a": (10.0, 0.5), "b": (5.0, 0.3), "c": (19.0, 0.4)}, "x", "y")
    left, top, right, bottom = FIELD
    assert dots(svg)["a"] == pytest.approx(
        (left + (right - left) / 2, bottom - (bottom - top) * 3 / 4), abs=0.1
    )
    assert dots(svg)["b"] == pytest.approx(
        (left + (right - left) / 4, bottom - (bottom - top) / 4), abs=0.1
    )


def test_names_do_not_lie_on_one_another() -> None:
    svg = scatter_svg({f"run{i}": (10.0, 0.5 + i / 1000) for i in range(4)}, "x", "y")
    rows = [float(t.get("y", 0)) for t in ElementTree.fromstring(svg).iter("text")
            if t.get("class") == "name"]  # fmt: skip
    rows.sort()
    assert len(rows) == 4 and min(b - a for a, b in pairwise(rows)) > 15


def test_lines() -> None:
    svg = lines_svg(
        {"a": [(1, 0.1), (2, 0.3), (4, 0.2)], "b": [], "c": [(1, 0.2), (4, 0.4)]}, "e", "AP"
    )
    root = ElementTree.fromstring(svg)
    curves = [p for p in root.iter("path") if p.get("class") == "curve"]
    assert [p.find("title").text for p in curves] == ["c", "a"]  # type: ignore
    assert len({p.get("style", "").split("dasharray:")[1] for p in curves}) == 2
    assert [len(p.get("d", "").split("L")) for p in curves] == [2, 3]
    best = list(root.iter("circle"))[1]
    assert (float(best.get("cx", 0)), float(best.get("cy", 0))) == pytest.approx(
        [float(v) for v in curves[1].get("d", "").split("L")[1].split()]
    )


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 12, 30, 36, 120])
def test_every_epoch_lies_on_the_page(epochs: int) -> None:
    points = [(epoch, 0.3 + epoch / 1000) for epoch in range(1, epochs + 1)]
    root = ElementTree.fromstring(lines_svg({"a": points}, "epoch", "AP"))
    [curve] = [p for p in root.iter("path") if p.get("class") == "curve"]
    xs = [float(point.split()[0]) for point in curve.get("d", "").removeprefix("M").split("L")]
    assert len(xs) == epochs and FIELD[0] <= min(xs) and max(xs) <= FIELD[2]
    assert max(xs) > (FIELD[0] + FIELD[2]) / 2  # nor is half of the page empty
    names = [t.text for t in root.iter("text") if t.get("y") == f"{FIELD[3] + 21}"]
    assert 2 <= len(names) and all(name and name.isdigit() for name in names)


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 17, [0, 5, 10, 15, 20]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.31, 0.34, None),
        (3, 3, None), (0, 25000, [0, 5000, 10000, 15000, 20000, 25000]),
    ],
)  # fmt: skip
def test_ticks(low: float, high: float, wanted: list[float] | None) -> None:
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 3 <= len(found) <= 9
    assert wanted is None or found == wanted


def test_command(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "c.html"
    write(tmp_path / "other", 0.4, 2.0, "test")
    status = main.run(["compare", *map(str, runs), str(tmp_path / "other"), "--out", str(out)])
    shown = capsys.readouterr()
    assert status == 0 and f"page: {out}" in shown.out and "slow" in shown.out
    assert shown.err.startswith("warning: the runs were measured on different pictures")
    assert 'class="doubts"' in out.read_text()
    (tmp_path / "empty").mkdir()
    assert main.run(["compare", str(tmp_path / "empty")]) == 1
    assert "run first: eyeline eval" in capsys.readouterr().err
    assert main.run(["compare", str(runs[0]), "--out", str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err


def test_command_never_overwrites(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("comparison.html", "comparison-2.html", "comparison-3.html"):
        assert main.run(["compare", str(runs[0])]) == 0
        assert f"page: {name}" in capsys.readouterr().out and Path(name).is_file()
    Path("mine.html").write_text("mine")
    assert main.run(["compare", str(runs[0]), "--out", "mine.html"]) == 1
    assert "error: mine.html exists already; choose another" in capsys.readouterr().err
    assert Path("mine.html").read_text() == "mine"


def test_masks_have_a_column_where_a_run_has_some(runs: list[Path], tmp_path: Path) -> None:
    from rich.console import Console

    path = runs[1] / "eval-val" / "results.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"segm": {"AP": 0.44, "AP50": 0.6}}))
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(table(read_runs(runs)))
    head, _, slow, fast = [line.split() for line in capture.get().splitlines() if line.strip()]
    assert head[5:7] == ["mask", "AP"] and slow[5] == "0.440" and fast[5] == "-"
    html = page(read_runs(runs))
    assert ">mask AP</th>" in html and 'class="num best">0.440<' in html
    assert re.findall(r'class="num best">(.*?)<', html) == ["0.500", "0.700", "0.440", "16"]

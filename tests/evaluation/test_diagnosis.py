"""What the page says of scores, confusions and pictures is what the analysis found."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

from eyeline.evaluation import diagnosis, evaluate
from eyeline.evaluation.charts import histogram_svg

NAMES = ["cat", "dog <b>"]
ROWS = [  # picture: objects (x, label), detections (x, label, score)
    ([(0, 0), (40, 1)], [(0, 0, 0.9), (40, 1, 0.8)]),  # both right
    ([(0, 0), (40, 1), (80, 0)], [(0, 0, 0.7), (40, 0, 0.75)]),  # dog for cat, one cat missed
    ([(0, 1)], [(0, 1, 0.6), (90, 1, 0.1)]),  # right; the false one lies below the threshold
    ([], []),
]


class Data(torch.utils.data.Dataset):
    classes = NAMES

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, i):
        if i >= len(ROWS):
            raise IndexError(i)
        objects = ROWS[i][0]
        boxes = torch.tensor([[x, 10, x + 30, 40] for x, _ in objects], dtype=torch.float32)
        labels = torch.tensor([label for _, label in objects], dtype=torch.int64)
        target = {"boxes": boxes.reshape(-1, 4), "labels": labels}
        if i == 2:  # and an ignored object besides
            target["boxes"] = torch.tensor([[0.0, 10, 30, 40], [120, 10, 150, 40]])
            target["labels"] = torch.tensor([1, 0])
            target["iscrowd"] = torch.tensor([False, True])
        return torch.full((3, 60, 160), i, dtype=torch.uint8), target


class Model(nn.Module):
    classes = NAMES

    def forward(self, images):
        found = ROWS[int(images[0].max())][1]
        boxes = torch.tensor([[x, 10, x + 30, 40] for x, _, _ in found], dtype=torch.float32)
        return [
            {
                "boxes": boxes.reshape(-1, 4),
                "labels": torch.tensor([label for _, label, _ in found], dtype=torch.int64),
                "scores": torch.tensor([score for *_, score in found]),
            }
        ]


@pytest.fixture(scope="module")
def report():
    return evaluate(Model(), Data(), progress=False)


def cells(html):
    """Rows of a table as text."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.S)
    return [
        [re.sub(r"<small>.*?</small>|<[^>]+>", "", c) for c in re.findall(r"<t[hd].*?</t[hd]>", r)]
        for r in rows
    ]


def test_confusions(report):
    rows = cells(diagnosis.confusions(report))
    assert rows == [
        ["", "cat", "dog &lt;b&gt;", "missed"],
        ["cat", "2", "0", "1"],
        ["dog &lt;b&gt;", "1", "2", "0"],
        ["background", "0", "0", ""],
    ]


def test_many_classes_become_a_list(report, monkeypatch):
    monkeypatch.setattr(diagnosis, "MATRIX", 1)
    rows = cells(diagnosis.confusions(report))
    assert rows[1:] == [["cat", "missed", "1", "33%"], ["dog &lt;b&gt;", "cat", "1", "33%"]]


def test_thresholds(report):
    """Cats: 0.9 and 0.7 right, 0.75 false, of 3. Dogs: 0.8 and 0.6 right, of 3."""
    html = diagnosis.scores(report)
    assert cells(html)[1:] == [
        ["cat", "0.699", "0.667", "0.667", "0.667", ""],  # 0.7 as float32, rounded down
        ["dog &lt;b&gt;", "0.600", "0.800", "1.000", "0.667", ""],
        ["one for all", "0.600", "0.727", "0.800", "0.667", ""],
    ]
    assert html.count('<svg class="histogram"') == 2


def test_worst_and_best_pictures(report):
    html = diagnosis.extremes(report, 2)
    captions = re.findall(r"<figcaption><b>(.*?)</b> (.*?)</figcaption>", html)
    assert captions == [
        ("picture 1", "F1 0.40: 1 right, 1 false, 2 missed"),
        ("picture 0", "F1 1.00: 2 right, 0 false, 0 missed"),
        ("picture 2", "F1 1.00: 1 right, 0 false, 0 missed"),
    ]
    shots = html.split("<figure>")[1:]
    marks = [
        re.findall(r'<rect class="(right|false|missed|ignored)" x="([\d.]+)"', s) for s in shots
    ]
    assert marks[0] == [
        ("right", "0.0"),
        ("missed", "120.0"),
        ("missed", "240.0"),
        ("false", "120.0"),
    ]
    assert marks[2] == [("right", "0.0"), ("ignored", "360.0")]  # 480 pixels wide: three times
    assert re.findall(r"<text[^>]*>(.*?)</text>", shots[0]) == ["dog &lt;b&gt;", "cat", "cat 0.75"]
    assert "No picture has an error" not in html
    assert diagnosis.extremes(report, 0) == ""


def test_every_kind_has_a_line_of_its_own(report):
    from eyeline.evaluation.style import CSS

    rules = dict(re.findall(r"^rect\.(\w+) {(.*)}", CSS, re.M))
    dashes = {kind: rule.partition("stroke-dasharray:")[2] for kind, rule in rules.items()}
    assert set(dashes) == {"right", "false", "missed", "ignored"}
    assert dashes["right"] == "" and len(set(dashes.values())) == 4
    assert all(f'class="{kind}"' in diagnosis.LEGEND for kind in dashes)


def test_histogram():
    right, false = np.zeros(4, int), np.zeros(4, int)
    right[3], false[0], false[1] = 9, 4, 1
    root = ElementTree.fromstring(histogram_svg(right, false, 0.5))
    bars = [(r.get("class"), float(r.get("y")), float(r.get("height"))) for r in root.iter("rect")]
    heights = [height for _, _, height in bars]
    assert heights[0] / heights[1] == pytest.approx(3 / 2, abs=0.01)  # square roots of 9 and 4
    assert heights[1] / heights[2] == pytest.approx(2, abs=0.01)
    base = bars[0][1] + bars[0][2]
    assert [kind for kind, *_ in bars] == ["good", "bad", "bad"]
    assert bars[1][1] == bars[2][1] == pytest.approx(base, abs=0.11)
    line = next(p for p in root.iter("path") if p.get("class") == "threshold")
    assert line.get("d").startswith("M176.0 ")  # halfway between 40 and 312
    texts = [t.text for t in root.iter("text")]
    assert texts[:3] == ["9", "4", "0"]
    empty = histogram_svg(np.zeros(4, int), np.zeros(4, int), None)
    assert "threshold" not in empty and "<rect" not in empty


def test_results_hold_the_analysis(report, tmp_path):
    content = json.loads(report.to_json(tmp_path / "results.json").read_text())
    assert content["confusion"] == {
        "rows": ["cat", "dog <b>", "background"],
        "columns": ["cat", "dog <b>", "missed"],
        "counts": [[2, 0, 1], [1, 2, 0], [0, 0, 0]],
    }
    assert content["thresholds"]["per_class"]["cat"]["score"] == pytest.approx(0.7)
    assert content["thresholds"]["all"]["f1"] == pytest.approx(8 / 11)
    assert content["per_picture"][1] == {
        "image_id": 1, "f1": 0.4, "right": 1, "false": 1, "missed": 2,
    }  # fmt: skip
    assert sum(content["histograms"]["dog <b>"]["right"]) == 2
    assert content["per_class"]["cat"]["APs"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert content["per_class"]["cat"]["APl"] is None
    assert content["parameters"] == 0


def test_nothing_found_at_all(report):
    class Blind(Model):
        def forward(self, images):
            return [{key: value[:0] for key, value in super().forward(images)[0].items()}]

    blind = evaluate(Blind(), Data(), progress=False)
    assert "nothing found" in diagnosis.scores(blind)
    assert cells(diagnosis.confusions(blind))[1] == ["cat", "0", "0", "3"]
    html = diagnosis.extremes(blind, 3)
    assert "Worst pictures" in html and "Best pictures" not in html

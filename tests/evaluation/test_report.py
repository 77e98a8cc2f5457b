"""The page: whole, well formed, without anything from elsewhere, and true to the report."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from eyeline.evaluation import evaluate
from eyeline.evaluation.charts import COLOURS, curve_svg
from eyeline.evaluation.html import LONGEST
from eyeline.evaluation.report import page
from eyeline.metrics import Curve

CLASSES = ["cell <b>", "absent & away"]
VOID = {"meta", "img", "br", "link"}


class Picture(torch.utils.data.Dataset):
    """Grey pictures with one object each; the last is large and has an ignored one too."""

    classes = CLASSES

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if i >= self.count:
            raise IndexError(i)
        last = i == self.count - 1
        size = (900, 1200) if last else (300, 400)
        boxes = torch.tensor([[10.0, 10, 60, 60], [100.0, 100, 300, 200]][: 1 + last])
        target = {
            "boxes": boxes,
            "labels": torch.zeros(len(boxes), dtype=torch.int64),
            "iscrowd": torch.tensor([False, True])[: len(boxes)],
        }
        return torch.full((3, *size), 128, dtype=torch.uint8), target


class Detector(nn.Module):
    """One good detection and one, of score 0.2, of nothing."""

    classes = CLASSES

    def forward(self, images):
        found = {
            "boxes": torch.tensor([[10.0, 10, 60, 60], [0.0, 200, 40, 280]]),
            "scores": torch.tensor([0.9, 0.2]),
            "labels": torch.tensor([0, 0]),
        }
        return [found for _ in images]


class Reader(HTMLParser):
    """Checks that tags are balanced; gathers text, tags and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v for k, v in attributes if k in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v for k, v in attributes if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def report():
    return evaluate(Detector(), Picture(5), progress=False)


@pytest.fixture(scope="module")
def html(report):
    report.facts["command"] = "eyeline eval runs/<one>"
    report.facts["date"] = "1 May 2025"
    return page(report, title="Cells & more")


def test_nothing_from_elsewhere(html):
    reader = Reader(html)
    assert len(reader.addresses) == 15  # five pictures twice, and five as the best ones
    assert all(a.startswith("data:image/jpeg;base64,") for a in reader.addresses)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in style
    assert "prefers-color-scheme: dark" in style and 'name="viewport"' in html


def test_says_what_was_measured(html, report):
    text = " ".join("".join(Reader(html).text).split())
    assert "<title>Cells &amp; more</title>" in html
    assert "5 pictures, 5 objects, 2 classes" in text
    assert "cell <b>" in text and "cell <b>" not in html  # escaped
    assert "Not in the data: absent & away." in text
    assert "eyeline eval runs/<one>" in text and "1 May 2025" in text
    assert {f"{v:.3f}" for v in report.coco.values() if v >= 0} == {"1.000"}
    numbers = re.findall(r'<th scope="row">(A[PR]\w*|VOC \d+)</th><td class="num">(.*?)</td>', html)
    assert len(numbers) == 14
    unknown = {"APs", "APl", "ARs", "ARl"}  # the objects are 50 pixels wide: medium
    assert {name for name, value in numbers if value == "-"} == unknown
    assert all(value == "1.000" for name, value in numbers if name not in unknown)


def test_pictures(html, report):
    addresses = Reader(html).addresses
    assert len(addresses) == 15
    addresses = addresses[5:]  # the pairs come after the best
    images = [Image.open(io.BytesIO(base64.b64decode(a.split(",")[1]))) for a in addresses]
    assert {max(image.size) for image in images} == {LONGEST}
    # The box's left side is at 10: of 1200 pixels, now 480, and of 400.
    for number, left in ((8, 4), (0, 12)):
        pixels = np.asarray(images[number].convert("RGB")).astype(int)
        middle = 35 * left // 10
        assert np.ptp(pixels[middle, left - 3 : left + 3]) > 60
        assert np.ptp(pixels[middle, left + 4 : left + 10]) < 60
    assert html.count("1 found, 1 annotated") == 4
    assert html.count("1 found, 2 annotated, 1 of them ignored") == 1


def test_as_many_pictures_as_wanted(report):
    assert len(Reader(page(report, pictures=3)).addresses) == 7
    assert "Best pictures" in page(report) and "Best pictures" not in page(report, pictures=0)
    assert "3 of 5, spread evenly" in page(report, pictures=3)
    assert "All of them" in page(report)
    assert "<h2>Pictures</h2>" not in page(report, pictures=0)


def test_written(report, tmp_path):
    path = report.to_html(tmp_path / "deep" / "report.html", title="T", pictures=1)
    assert path.read_text(encoding="utf-8") == page(report, title="T", pictures=1)


# ---- the curve -------------------------------------------------------------------------------


def curve(right, scores=None, objects=4):
    right = np.array(right)
    found = right.cumsum()
    scores = np.linspace(0.9, 0.1, len(right)) if scores is None else np.array(scores)
    return Curve(found / objects, found / np.arange(1, len(right) + 1), scores, objects)


def lines(svg):
    """{title: [(x, y), ...]} of the curves of an SVG."""
    root = ElementTree.fromstring(svg)
    paths = [e for e in root.iter("path") if e.get("class") == "curve"]
    pairs = {p.find("title").text: re.findall(r"([\d.]+) ([\d.]+)", p.get("d")) for p in paths}
    return {name: [(float(x), float(y)) for x, y in points] for name, points in pairs.items()}


def test_curve_by_hand():
    """Right, wrong, right, wrong on a field of 562x318 pixels with its origin at (62, 352)."""
    svg = curve_svg({"a": curve([1, 0, 1, 0], [0.9, 0.6, 0.5, 0.4])})
    # recall 1/4, 1/4, 2/4, 2/4; precision 1, 1/2, 2/3, 2/4
    assert lines(svg)["a"] == [(62, 34), (202.5, 34), (202.5, 193), (343, 140), (343, 193)]
    dot = ElementTree.fromstring(svg).find("circle")  # the last score from 0.5 on
    assert (float(dot.get("cx")), float(dot.get("cy"))) == (343, 140)


def test_classes_without_objects_or_detections_have_no_curve():
    curves = {"a": curve([1]), "b": curve([]), "c": curve([0, 0], objects=4)}
    curves["d"] = Curve(np.array([np.nan]), np.array([0.0]), np.array([0.9]), 0)
    assert set(lines(curve_svg(curves))) == {"a", "c"}


def test_many_detections_make_a_small_picture():
    right = np.random.default_rng(0).random(200_000) < 0.3
    svg = curve_svg({"a": curve(right, objects=100_000)})
    assert len(svg) < 40_000
    points = lines(svg)["a"]
    xs = [x for x, _ in points]
    assert xs == sorted(xs) and len(points) < 1300
    assert points[-1][1] == pytest.approx(352 - right.mean() * 318, abs=0.1)


def test_colours_run_out_into_grey():
    svg = curve_svg({f"class {i}": curve([1, 0, 1]) for i in range(COLOURS + 3)})
    assert svg.count('<path class="curve other" style="stroke:var(--other)"') == 3
    assert all(svg.count(f'stroke:var(--c{i})"') == 1 for i in range(COLOURS))

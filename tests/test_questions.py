"""The code that docs/questions.md quotes is in the files, and its numbers are those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

import eyeline
from eyeline.inspection.xray import xray
from eyeline.losses import sigmoid_focal_loss, smooth_l1
from eyeline.ops.deltas import encode

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
ANSWERS = re.split(r"^### ", PAGE.split("\n## ", 1)[1], flags=re.MULTILINE)[1:]
QUOTE = re.compile(r'^``` { \.python title="([\w/.]+), ([\w.]+)" }\n(.*?)^```$', re.M | re.S)
QUOTES = [
    pytest.param(*quote, id=f"{answer.split('.')[0]}-{quote[1]}")
    for answer in ANSWERS
    for quote in QUOTE.findall(answer)
]
SECTIONS = {
    "picture", "features", "anchors", "proposals", "regions", "masks", "boxes", "attention",
}  # fmt: skip


def lines_of(source: str, name: str) -> list[str]:
    """The lines of a class, or of a function that may lie in one, without their indentation."""
    node: ast.AST = ast.parse(source)
    for part in name.split("."):
        (node,) = (
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == part
        )
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    return [line.strip() for line in source.splitlines()[node.lineno - 1 : node.end_lineno]]


def contains(lines: list[str], quote: str) -> bool:
    """Do the quoted lines follow one another there?"""
    wanted = [line.strip() for line in quote.splitlines()]
    return any(lines[i : i + len(wanted)] == wanted for i in range(len(lines)))


@pytest.mark.parametrize(("path", "name", "quote"), QUOTES)
def test_quoted_code_is_there(path: str, name: str, quote: str) -> None:
    source = (ROOT / "src" / "eyeline" / path).read_text(encoding="utf-8")
    assert 1 <= len(quote.splitlines()) <= 4
    assert contains(lines_of(source, name), quote), f"{path} has no longer in {name}:\n{quote}"


def test_a_changed_line_is_noticed() -> None:
    source = "class A:\n    def f(self):\n        x = 1\n        y = 2\n\ndef f():\n    y = 3\n"
    assert contains(lines_of(source, "A.f"), "x = 1\ny = 2\n")
    assert not contains(lines_of(source, "A.f"), "x = 1\ny = 3\n")
    assert not contains(lines_of(source, "A.f"), "y = 3\n")
    with pytest.raises(ValueError, match="unpack"):
        lines_of(source, "A.g")


def test_each_of_twenty_questions_has_an_answer_code_and_a_place() -> None:
    assert [answer.split(".")[0] for answer in ANSWERS] == [str(n + 1) for n in range(20)]
    for answer in ANSWERS:
        heading, text = answer.split("\n", 1)
        assert heading.endswith("?"), heading
        assert QUOTE.search(text), heading
        seen = re.search(r"^\*\*Seen:\*\* (.*?)\n\n", text, re.M | re.S)
        assert seen, heading
        places = {place.lower() for place in re.findall(r"\*(\w+)\*", seen[1])}
        assert places and places <= SECTIONS, heading
    # Every fence with a title was read as a quotation.
    assert PAGE.count(" title=") == len(QUOTES) >= 20


# ---- numbers that the page's own blocks do not show


@pytest.mark.parametrize(
    ("name", "count"), [("retinanet", 201_600), ("faster_rcnn", 268_569)]
)  # question 2
def test_anchors_of_a_large_picture(name: str, count: int) -> None:
    with torch.device("meta"):  # shapes only
        model = eyeline.create_model(name, num_classes=1, backbone="resnet18").eval()
        image = torch.empty(1, 3, 800, 1344)
        if name == "retinanet":
            anchors = model.heads(image)[2]
        else:
            anchors = model.rpn.anchors(model.levels(image), image.shape[2:])
    assert sum(len(level) for level in anchors) == count


def test_focal_loss_of_a_background_logit() -> None:  # question 6
    loss = sigmoid_focal_loss(torch.tensor([0.5, 0.01]).logit(), torch.zeros(2))
    assert loss.tolist() == pytest.approx([0.13, 7.5e-7], rel=0.01)


def test_what_the_rpn_divides_its_box_loss_by() -> None:  # question 8
    model = eyeline.create_model("faster_rcnn", num_classes=1, backbone="resnet18", size=128)
    image = torch.rand(3, 128, 128)
    target = {"boxes": torch.tensor([[20.0, 30.0, 90.0, 110.0]]), "labels": torch.tensor([0])}
    learning = xray(model.eval(), image, target).learning
    assert learning is not None and learning.sample is not None
    positive, negative = learning.sample
    with torch.no_grad():
        levels = model.levels(model.prepare([image]).images)
        anchors = torch.cat(model.rpn.anchors(levels, (128, 128)))[positive]
        moves = torch.cat(model.rpn(levels)[1], 1)[0, positive]
    wanted = encode(target["boxes"].expand(len(positive), 4), anchors)
    total = float(smooth_l1(moves, wanted, reduction="sum"))
    assert len(positive) + len(negative) == 256 and 0 < len(positive) < 128
    assert learning.losses["rpn_box"] == pytest.approx(total / 256, rel=1e-4)

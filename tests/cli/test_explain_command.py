"""eyeline explain: its page, and one line for every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eyeline
from eyeline.checkpoints import save_weights
from eyeline.cli import main

Run = Callable[..., tuple[int, str, str]]
VOC = """<annotation><filename>a.png</filename><size><width>80</width><height>60</height></size>
<object><name>{}</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>45</xmax><ymax>50</ymax></bndbox>
</object></annotation>"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    model = eyeline.create_model(
        "retinanet", classes=["disc", "cat"], size=64, backbone="resnet18", fpn_channels=16
    )
    save_weights(model, path)
    return path


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights: Path,
) -> Run:
    """Runs `eyeline explain` in a folder with a picture and its annotation in several forms."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Path("pictures").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(Path("pictures") / name)
    Path("a.xml").write_text(VOC.format("cat"))
    Path("dog.xml").write_text(VOC.format("dog"))
    # The classes are numbered otherwise than the model's, and the other picture has one more.
    coco = {
        "images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("ab")],
        "categories": [{"id": i, "name": name} for i, name in enumerate(["cat", "disc", "dog"])],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 0, "bbox": [5, 6, 40, 44]},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [5, 6, 40, 44]},
        ],
    }
    (Path("pictures") / "coco.json").write_text(json.dumps(coco))

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        status = main.run(["explain", str(weights), *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def objects(path: str) -> list[dict[str, object]]:
    text = Path(path).read_text(encoding="utf-8")
    start = text.index('id="data">') + len('id="data">')
    found: list[dict[str, object]] = json.loads(text[start : text.index("</script>", start)])[
        "objects"
    ]
    return found


def test_a_page_beside(cli: Run) -> None:
    status, out, err = cli("pictures/a.png")
    assert (status, out, err) == (0, "a.html\n", "")
    assert objects("a.html") == []
    assert "No annotation was given." in Path("a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", ["a.xml", "pictures/coco.json", "pictures"])
def test_annotations_are_read_by_name(cli: Run, target: str) -> None:
    status, out, err = cli("pictures/a.png", "--target", target, "-o", "new/page.html")
    assert (status, err) == (0, ""), err
    assert out == "new/page.html\n"
    (one,) = objects("new/page.html")
    assert one["label"] == "cat" and not one["crowd"]
    larger = 64 / 60  # the network sees 64 pixels
    assert one["box"] == pytest.approx([v * larger for v in (5, 6, 45, 50)], abs=0.5)


def test_another_split_s_picture_of_that_name_is_not_meant(cli: Run) -> None:
    """A folder of splits numbers the pictures of each from 0."""
    for split, name in (("train", "disc"), ("val", "cat")):
        folder = Path("data") / split
        folder.mkdir(parents=True)
        Image.new("RGB", (80, 60)).save(folder / "a.png")
        content = {
            "images": [{"id": 0, "file_name": "a.png"}],
            "categories": [{"id": 3, "name": name}],
            "annotations": [{"id": 1, "image_id": 0, "category_id": 3, "bbox": [5, 6, 40, 44]}],
        }
        (folder / "_annotations.coco.json").write_text(json.dumps(content))
    status, _, err = cli("data/val/a.png", "--target", "data")
    assert status == 0, err
    assert [one["label"] for one in objects("a.html")] == ["cat"]
    status, _, err = cli("pictures/a.png", "--target", "data", "-o", "b.html")
    assert status == 1 and "data: 2 pictures are named a.png; give its own annotation" in err


def test_an_xml_may_name_its_picture(cli: Run) -> None:
    """Its own name or that in <filename> has to be the picture's, the suffix aside."""
    Path("other.xml").write_text(VOC.format("cat"))  # names a.png
    status, _, err = cli("pictures/a.png", "--target", "other.xml")
    assert status == 0, err
    Path("b.xml").write_text(VOC.format("cat"))  # is named as b.png
    status, _, err = cli("pictures/b.png", "--target", "b.xml")
    assert status == 0, err


def test_one_listed_picture_is_enough(cli: Run) -> None:
    """The other listed pictures, and the folder of this one, need not be here."""
    content = json.loads(Path("pictures/coco.json").read_text())
    content["images"].insert(0, {"id": 9, "file_name": "elsewhere.png"})
    Path("alone").mkdir()
    Path("alone/instances_val.json").write_text(json.dumps(content))
    status, _, err = cli("pictures/a.png", "--target", "alone/instances_val.json")
    assert status == 0, err
    assert [one["label"] for one in objects("a.html")] == ["cat"]


def test_what_the_annotation_holds_is_counted(cli: Run) -> None:
    content = json.loads(Path("pictures/coco.json").read_text())
    content["annotations"] = [
        {"id": i, "image_id": 0, "category_id": 0, "bbox": box, "iscrowd": crowd}
        for i, (box, crowd) in enumerate([
            ([5, 6, 40, 44], 0), ([5, 6, 0, 44], 0), ([70, 6, 40, 44], 0), ([1, 2, 30, 20], 1),
        ])
    ]  # fmt: skip
    Path("pictures/coco.json").write_text(json.dumps(content))
    status, _, err = cli("pictures/a.png", "--target", "pictures/coco.json")
    assert status == 0, err
    told = "coco.json, 1 object (2 left out: no area or outside the picture), 1 crowd."
    assert told in Path("a.html").read_text(encoding="utf-8")


def test_settings_make_another_model(cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["model.backbone=resnet18", "model.size=64", "classes=[cat,disc]"]
    status = main.run(["explain", "retinanet", "pictures/a.png", *options, "--attention", "0"])
    assert status == 0, capsys.readouterr().err
    text = Path("a.html").read_text(encoding="utf-8")
    assert "85 × 64" in text


def test_what_exists_stays(cli: Run) -> None:
    Path("a.html").write_text("mine")
    status, _, err = cli("pictures/a.png")
    assert status == 1 and "a.html exists already" in err
    assert Path("a.html").read_text() == "mine"
    status, _, err = cli("pictures/a.png", "--overwrite")
    assert status == 0, err
    assert Path("a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "none.png: no such picture"),
        (["pictures/a.png", "--target", "none.json"], "none.json: no such file or folder"),
        (
            ["pictures/a.png", "--target", "dog.xml"],
            "dog.xml:2: the class 'dog' is not one of disc, cat",
        ),
        (["pictures/b.png", "--target", "pictures"], "the class 'dog' is not one of disc, cat"),
        (["c.png", "--target", "pictures"], "pictures: no picture is named c.png"),
        (
            ["pictures/a.png", "--target", "c.png"],
            "c.png: not a file of a known format; looked for COCO",
        ),
        (
            ["pictures/a.png", "--target", "pictures", "--format", "voc"],
            "pictures: not annotations of a known format; looked for Pascal VOC",
        ),
        (["a.xml"], "a.xml"),
        (["pictures/a.png", "-o", "pictures"], "pictures is a folder; give --out a file"),
        (
            ["pictures/a.png", "-o", "pictures", "--overwrite"],
            "pictures is a folder; give --out a file",
        ),
        (["pictures/a.png", "-o", "a.xml/page.html"], "a.xml: cannot be made a folder"),
        (["pictures/b.png", "--target", "a.xml"], "a.xml: annotates a.png, not b.png"),
        (
            ["d/a.png", "--target", "a.xml"],
            "a.xml: the annotation of a.png is of 80x60 pixels, and d/a.png has 40x30",
        ),
        (["pictures/a.png", "model.size=96"], "is trained; model.size=96 would make another"),
    ],
)
def test_mistakes(cli: Run, arguments: list[str], message: str) -> None:
    Image.new("RGB", (80, 60)).save("c.png")
    Path("d").mkdir()
    Image.new("RGB", (40, 30)).save("d/a.png")
    status, out, err = cli(*arguments)
    assert status == 1 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err, err

"""eyeline data convert, split, merge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from eyeline.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main.run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def write_voc(root: Path, splits: dict[str, list[str]], label: str = "cat") -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, names in splits.items():
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(names))
        for i, name in enumerate(names):
            Image.new("RGB", (8, 6), (i, len(names), 0)).save(root / f"JPEGImages/{name}.png")
            box = "<xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax>"
            (root / f"Annotations/{name}.xml").write_text(
                f"<annotation><object><name>{label}</name><truncated>1</truncated>"
                f"<bndbox>{box}</bndbox></object></annotation>"
            )


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    names = [f"{c}{i}" for c in "abcd" for i in range(5)]
    write_voc(tmp_path / "voc", {"val": names[15:], "train": names[:15], "trainval": names})
    return tmp_path / "voc"


def test_the_attribute_that_is_the_class(cli: Run, tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "via_region_data.json").write_text(
        '{"a.png1": {"filename": "a.png", "size": 1, "regions": [{"shape_attributes": {"name": '
        '"rect", "x": 1, "y": 1, "width": 2, "height": 2}, "region_attributes": {"kind": "cat", '
        '"type": "pet"}}]}}'
    )
    status, out, _ = cli("data", "convert", ".", "a", "--to", "voc")
    assert status == 0 and "lost: train: the region attribute 'kind'" in out
    status, out, _ = cli("data", "convert", ".", "b", "--to", "voc", "--attribute", "kind")
    assert status == 0 and "lost: train: the region attribute 'type'" in out
    names = [(tmp_path / folder / "classes.txt").read_text() for folder in "ab"]
    assert names == ["pet\n", "cat\n"]


def test_convert(cli: Run, voc: Path, tmp_path: Path) -> None:
    status, out, err = cli("data", "convert", "voc", "yolo", "--to", "yolo", "--link")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "voc: trainval is left out, for its pictures are in other splits too",
        "lost: train: truncated of 15 objects",
        "lost: val: truncated of 5 objects",
        "yolo: YOLO, pictures: train 15, val 5",
    ]
    line = (tmp_path / "yolo/labels/val/d0.txt").read_text()
    assert line == "0 0.375 0.66666667 0.5 0.66666667\n"
    assert (tmp_path / "yolo/images/val/d0.png").resolve() == voc / "JPEGImages/d0.png"
    status, _, err = cli("data", "convert", "voc", "yolo", "--to", "yolo")
    assert status == 1 and err == "error: yolo exists already; choose a new folder\n"
    status, out, err = cli(
        "data", "convert", "voc", "k", "--to", "kitti", "--split", "val", "--one-based",
        "--rename", "cat=dog",
    )  # fmt: skip
    assert status == 0 and out == "k: KITTI, pictures: val 5\n"
    line = (tmp_path / "k/training/label_2/d0.txt").read_text()
    assert line.startswith("dog 1 0 -10 0 1 5 6 ")


def test_split(cli: Run, voc: Path, tmp_path: Path) -> None:
    options = ["--fractions", "0.5,0.25,0.25", "--group", "^(.)", "--stratify"]
    status, out, err = cli("data", "split", "voc", *options)
    assert (status, err) == (0, "")
    assert "voc-split: Pascal VOC, pictures: train 10, val 5, test 5" in out
    assert "cat" in out and "10 (50.0%)" in out
    lists = [(tmp_path / f"voc-split/ImageSets/Main/{s}.txt").read_text() for s in ("train", "val")]
    assert [len({name[0] for name in text.split()}) for text in lists] == [2, 1]
    assert cli("data", "split", "voc", *options)[0] == 0  # never over what is there
    again = (tmp_path / "voc-split-2/ImageSets/Main/train.txt").read_text()
    assert again == lists[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fractions", "a,b"], "numbers like 0.8,0.1,0.1"),
        (["--fractions", "0.5,0.6"], "the sum 1"),
        (["--fractions", "0.4,0.3,0.2,0.1"], "as many --names"),
        (["--format", "coca"], "no format 'coca'; there are: coco, voc"),
        (["--to", "coca"], "no format 'coca'"),
        (["--only", "tset"], "No such option"),
        (["--split", "tset"], "no split 'tset'; there are: train, trainval, val"),
    ],
)
def test_mistakes(cli: Run, voc: Path, options: list[str], said: str) -> None:
    status, _, err = cli("data", "split", "voc", *options)
    assert status in (1, 2) and said in err
    assert [path.name for path in voc.parent.iterdir()] == ["voc"]


def test_merge(cli: Run, voc: Path, tmp_path: Path) -> None:
    write_voc(tmp_path / "other", {"train": ["a0", "z"], "test": ["y"]}, "Cat")
    status, out, err = cli("data", "merge", "voc", "other", "--out", "m", "--to", "coco")
    assert (status, err) == (0, "")
    assert "look at this: other: the class 'Cat' is almost 'cat' of voc" in out
    assert "new name: other/JPEGImages/a0.png becomes a0-2.png" in out
    assert "m: COCO, pictures: train 17, val 5, test 1" in out
    rename = ["--rename", "Cat=cat"]
    status, out, err = cli("data", "merge", "voc", "other", "--out", "n", *rename)
    assert status == 0 and "almost" not in out
    assert (tmp_path / "n/classes.txt").read_text() == "cat\n"
    assert "voc is there twice" in cli("data", "merge", "voc", "voc", "--out", "o")[2]
    assert "OLD=NEW" in cli("data", "merge", "voc", "--out", "o", "--rename", "Cat")[2]
    status, _, err = cli("data", "convert", "voc", "o", "--to", "coco", "--rename", "cart=dog")
    assert (status, err.count("\n")) == (1, 1) and not (tmp_path / "o").exists()
    assert "--rename: the class 'cart' is not one of cat; did you mean 'cat'?" in err

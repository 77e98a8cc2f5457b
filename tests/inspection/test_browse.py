"""The page and the sheets of `eyeline data show`: what they tell is true, and filters hold."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_walk import data_of, walked
from PIL import Image, ImageColor

from eyeline.data.formats import read_coco
from eyeline.errors import EyelineError
from eyeline.inference.draw import PALETTE
from eyeline.inspection.browse.drawing import SIDE, drawn
from eyeline.inspection.browse.gather import Collection, gather, narrowed, told_counts
from eyeline.inspection.browse.outlines import outline, simplified
from eyeline.inspection.browse.page import write_page
from eyeline.inspection.browse.sheet import GAP, MARGIN, cells_of, save_sheets, sheets
from eyeline.ops.segmentations import decode_masks, encode_rle

KOREAN = "한글 고양이.png"
# Of each picture: split, name, size (width, height), objects (class, xywh, more).
PICTURES: list[tuple[str, str, tuple[int, int], list[tuple[str, list[float], dict[str, Any]]]]] = [
    ("train", "a.png", (200, 100), [
        ("cat", [20, 10, 60, 40], {"segmentation": [[20, 10, 80, 10, 80, 50, 20, 50]]}),
        ("dog", [100, 20, 10, 10], {}),
        ("dog", [120, 20, 20, 10], {}),
    ]),
    ("train", "b.png", (100, 200), [("cat", [10, 10, 80, 180], {})]),
    ("train", "cut.png", (64, 64), [("dog", [4, 4, 40, 40], {})]),
    ("train", KOREAN, (120, 120), []),
    ("val", "c.png", (128, 96), [
        ("cat", [8, 8, 20, 20], {}),
        ("cat", [40, 40, 0, 20], {}),  # no area
        ("dog", [60, 10, 60, 60], {"iscrowd": 1}),
    ]),
]  # fmt: skip
CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO form, with a picture cut short, a box without area and a crowd."""
    root = tmp_path_factory.mktemp("set") / "my cells"
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        images: list[Any] = []
        annotations: list[Any] = []
        for own, name, (width, height), objects in PICTURES:
            if own != split:
                continue
            path = root / split / name
            path.parent.mkdir(exist_ok=True)
            # Light grey, so that a colour drawn on it can be told.
            pixels = rng.integers(180, 200, (height, width, 1), np.uint8).repeat(3, 2)
            Image.fromarray(pixels).save(path)
            image_id = len(images) + 1
            images.append({"id": image_id, "file_name": name, "width": width, "height": height})
            for label, box, more in objects:
                annotation = {
                    "id": len(annotations) + 1, "image_id": image_id, "bbox": box, "iscrowd": 0,
                    "category_id": CLASSES.index(label) + 1, "area": box[2] * box[3],
                }  # fmt: skip
                annotations.append(annotation | more)
        content = {
            "images": images, "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
        }  # fmt: skip
        target = root / "annotations" / f"instances_{split}.json"
        target.write_text(json.dumps(content), encoding="utf-8")
    cut = root / "train" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:200])
    return root


@pytest.fixture(scope="module")
def found(data: Path) -> Collection:
    return gather(data)


@pytest.fixture(scope="module")
def page(found: Collection, data: Path) -> str:
    return write_page(found, data.parent / "page.html").read_text(encoding="utf-8")


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


def test_the_page_holds_every_object(page: str, data: Path) -> None:
    content = data_of(page)
    rows = by_name(content["pictures"])
    assert content["splits"] == ["train", "val"] and len(rows) == 5
    first = rows["a.png"]
    assert (first["width"], first["height"], first["split"]) == (200, 100, 0)
    cat, dog, _ = first["objects"]
    assert cat[:7] == [0, 20, 10, 80, 50, 0, round(2400**0.5, 1)]
    ((*ring,),) = cat[7:8]
    assert sorted(ring[0]) == sorted([20, 10, 80, 10, 80, 50, 20, 50])
    assert dog == [1, 100, 20, 110, 30, 0, 10]
    assert rows[KOREAN]["objects"] == []
    crowd = rows["c.png"]["objects"][2]
    assert crowd[5] == 1
    assert (data.parent / "my cells" / "train" / "a.png").samefile(
        data.parent / rows["a.png"]["file"].replace("%20", " ")
    )
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)


def test_what_is_wrong_is_told_of_its_object_and_picture(page: str, found: Collection) -> None:
    content = data_of(page)
    rows = by_name(content["pictures"])
    ((kind, what, where),) = rows["c.png"]["objects"][1][8]
    assert kind == "box" and "no area" in what and "annotations[1]" in where
    assert "cannot read" in rows["cut.png"]["broken"] and "image" not in rows["cut.png"]
    assert rows["cut.png"]["faults"][0][0] == "picture"
    assert content["kinds"]["box"][0] == "error"
    assert "broken" not in rows["a.png"] and rows["a.png"]["image"].startswith("data:image/jpeg")
    assert [p.name for p in narrowed(found, defects=True).pictures] == ["cut.png", "c.png"]


def test_a_picture_that_is_not_there_has_a_tile(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    (copy / "train" / "b.png").unlink()
    rows = by_name(data_of(write_page(gather(copy), tmp_path / "p.html").read_text())["pictures"])
    assert "no such picture" in rows["b.png"]["broken"] and rows["b.png"]["objects"] == []
    assert len(rows) == 5 and rows["b.png"]["split"] == 0


FILTERS = {
    "": (5, 8),
    "split=val": (1, 3),
    "class=dog": (3, 4),
    "class=cat,dog&split=train": (3, 5),
    "size=0-32": (2, 4),
    "size=32-96": (3, 3),
    "size=96-": (1, 1),
    "objects=2-": (2, 6),
    "objects=0-0": (1, 0),
    "class=dog&objects=2-": (1, 2),
    "fault=box": (1, 3),
    "fault=picture,box": (2, 4),
    "name=A.p": (1, 3),
    "name=%ED%95%9C%EA%B8%80": (1, 0),
    "class=nobody&fault=%zz&size=x": (5, 8),
    "class=cat&name=zzz": (0, 0),
}

STEPS = """<script>
(async () => {
  const root = document.documentElement;
  const later = (ms) => new Promise((done) => setTimeout(done, ms));
  for (let i = 0; i < 400 && root.dataset.ready !== "true"; i++) await later(25);
  const found = { filters: {} };
  for (const hash of HASHES) {
    location.hash = hash ? `#${hash}` : "#x=1";
    await later(20);
    found.filters[hash] = [Number(root.dataset.pictures), Number(root.dataset.objects),
      document.querySelectorAll(".tile").length];
  }
  location.hash = "#order=most&split=train";
  await later(20);
  found.order = [...document.querySelectorAll(".tile b")].map((b) => b.textContent)
    .filter((text) => text !== "No picture");
  const label = [...document.querySelectorAll("#filters label")]
    .find((l) => l.textContent.startsWith("dog"));
  label.querySelector("input").click(); // narrows further, and the address follows
  found.clicked = [Number(root.dataset.pictures), location.hash];
  document.querySelector(".tile").click();
  const dialog = document.querySelector("dialog");
  const key = (name) => dialog.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
  const title = () => dialog.querySelector("h2").textContent;
  found.large = [dialog.open, title(), dialog.querySelectorAll(".marks .dim").length,
    dialog.querySelectorAll(".marks .line").length];
  found.address = location.hash;
  const width = () => parseFloat(dialog.querySelector(".sheet").style.width);
  const whole = width();
  key("+");
  found.zoom = width() / whole;
  key("ArrowRight");
  found.right = [title(), width() > 0];
  key("ArrowRight"); // there are no more
  found.end = title();
  key("ArrowLeft");
  found.left = title();
  dialog.close();
  await later(20);
  found.closed = [dialog.open, location.hash, document.activeElement.className];
  root.dataset.found = JSON.stringify(found);
  root.dataset.walked = HASHES.length;
})();
</script>"""


def test_filters_keys_and_address(page: str, tmp_path: Path) -> None:
    script = STEPS.replace("HASHES", json.dumps(list(FILTERS)))
    errors, count, dump = walked(page, tmp_path, script)
    assert errors == [] and count == len(FILTERS)
    told = re.search(r'data-found="(.*?)"', dump)
    assert told is not None
    seen = json.loads(html.unescape(told[1]))
    assert {k: tuple(v) for k, v in seen["filters"].items()} == {
        hash: (pictures, objects, pictures) for hash, (pictures, objects) in FILTERS.items()
    }
    assert seen["order"] == ["a.png", "b.png", "cut.png", KOREAN]
    assert seen["clicked"] == [2, "#split=train&class=dog&order=most"]
    assert seen["large"] == [True, "a.png", 1, 4]  # the cat, and its outline besides its box
    assert seen["address"].endswith("&picture=train%2Fa.png")
    assert seen["zoom"] == pytest.approx(1.5)
    assert seen["right"] == ["cut.png", True] and seen["end"] == "cut.png"
    assert seen["left"] == "a.png"
    assert seen["closed"] == [False, "#split=train&class=dog&order=most", "tile"]


def test_an_address_opens_its_picture(page: str, tmp_path: Path) -> None:
    errors, _, dump = walked(page, tmp_path, "", "#class=cat&picture=val/c.png")
    assert errors == []
    dialog = re.search(r"<dialog[^>]* open.*?</dialog>", dump, re.DOTALL)
    assert dialog is not None and "<h2>c.png</h2>" in dialog[0]
    assert "has no area" in dialog[0] and 'class="fault"' in dialog[0]
    assert dialog[0].count("<pattern") == 1  # the crowd's stripes


def test_names_are_no_html(tmp_path: Path) -> None:
    """Of files and classes."""
    name = "<img src=x onerror=alert(1)>&amp;'.png"
    Image.new("RGB", (40, 30), "white").save(tmp_path / name)
    content = {
        "images": [{"id": 1, "file_name": name, "width": 40, "height": 30}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 20, 20]}],
        "categories": [{"id": 1, "name": "</script><script>alert(2)</script>"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    page = write_page(gather(tmp_path / "set.json"), tmp_path / "out.html").read_text()
    assert page.count("<script") == 2
    errors, _, dump = walked(page, tmp_path, "", f"#picture={name}")
    assert errors == []
    grid = dump[dump.index('<div id="grid"') : dump.index("</main>")]
    assert grid.count("<img") == 1 and "<script" not in grid
    assert data_of(page)["classes"][0] in html.unescape(grid)


def test_a_folder_has_thumbnails(found: Collection, tmp_path: Path) -> None:
    index = write_page(found, tmp_path / "out")
    assert index == tmp_path / "out" / "index.html"
    rows = data_of(index.read_text(encoding="utf-8"))["pictures"]
    files = [row["image"] for row in rows if "image" in row]
    assert len(files) == 4 and len(list((tmp_path / "out" / "thumbnails").iterdir())) == 4
    for row in rows:
        if "image" in row:
            with Image.open(tmp_path / "out" / row["image"]) as image:
                assert image.size == (row["width"], row["height"])  # they are small already


def test_narrowed(found: Collection) -> None:
    cats = narrowed(found, ["cat"])
    assert [p.name for p in cats.pictures] == ["a.png", "b.png", "c.png"]
    few = narrowed(found, ["cat"], limit=2, seed=3)
    assert len(few.pictures) == 2 and (few.whole, few.omitted) == (5, 1)
    assert few == narrowed(found, ["cat"], limit=2, seed=3)
    with pytest.raises(EyelineError, match="no class 'cow'; there are: cat, dog"):
        narrowed(found, ["cow"])


def test_told_counts() -> None:
    assert told_counts([1, 0, 1, 2, 3, 4], "abcdef", most=2) == "b: 2, a: 1, others: 3"
    assert told_counts([], "ab") == "no objects"


def near(pixel: Any, colour: str, tolerance: int = 40) -> bool:
    wanted = np.array(ImageColor.getrgb(colour))
    return bool((np.abs(np.asarray(pixel, int) - wanted) <= tolerance).all())


def test_boxes_of_a_sheet_lie_where_they_are_annotated(found: Collection, tmp_path: Path) -> None:
    pictures = {p.name: p for p in found.pictures}
    shown = drawn(pictures["b.png"], found.names, pictures["b.png"].labels)  # 100x200, box 10..90
    scale = SIDE / 200
    assert shown.size == (SIDE // 2, SIDE)
    pixels = np.asarray(shown)
    middle = SIDE // 2
    columns = [x for x in range(shown.width) if near(pixels[middle, x], PALETTE[0])]
    edges = {10 * scale: min(columns), 90 * scale: max(columns)}
    for wanted, got in edges.items():
        assert got == pytest.approx(wanted, abs=1.5)
    rows = [y for y in range(SIDE) if near(pixels[y, shown.width // 2], PALETTE[0])]
    assert min(rows) == pytest.approx(10 * scale, abs=1.5)
    assert max(rows) == pytest.approx(190 * scale, abs=1.5)

    (sheet,) = sheets(cells_of(found), 3, "all", found.names, np.zeros(0, np.int64))
    assert sheet.width == 2 * MARGIN + 3 * SIDE + 2 * GAP
    found_at = np.asarray(sheet)[:, MARGIN + SIDE + GAP : MARGIN + SIDE + GAP + shown.width]
    rows = [y for y in range(len(found_at) - SIDE) if (found_at[y : y + SIDE] == pixels).all()]
    assert len(rows) == 1  # the second cell of the first row


def test_ignored_objects_are_dashed_and_faults_marked(found: Collection) -> None:
    picture = next(p for p in found.pictures if p.name == "c.png")
    pixels = np.asarray(drawn(picture, found.names, picture.labels))
    scale = SIDE / 128
    top = pixels[round(10 * scale), round(60 * scale) : round(120 * scale)]  # of the crowd
    share = np.mean([near(pixel, PALETTE[1]) for pixel in top])
    assert 0.3 < share < 0.75
    solid = pixels[round(28 * scale) - 1, round(9 * scale) : round(27 * scale)]  # a cat's bottom
    assert np.mean([near(pixel, PALETTE[0]) for pixel in solid]) > 0.95
    around = pixels[round(40 * scale) : round(60 * scale), round(38 * scale) : round(42 * scale)]
    reds = [near(pixel, "#ff2020", 8) for pixel in around.reshape(-1, 3)]
    whites = [near(pixel, "#ffffff", 0) for pixel in around.reshape(-1, 3)]
    assert sum(reds) > 30 and sum(whites) > 30


def test_a_broken_picture_is_a_cell_that_says_so(found: Collection) -> None:
    cells = {cell.lines[0]: cell for cell in cells_of(found)}
    cut = cells["train/cut.png"]
    assert any("cannot read the picture" in line for line in cut.lines)
    assert len(np.unique(np.asarray(cut.image).reshape(-1, 3), axis=0)) > 2  # there are letters


def test_pages_of_sheets(found: Collection, tmp_path: Path) -> None:
    cells = [cell for _ in range(3) for cell in cells_of(found)]  # 15, at 2 a row: 12 and 3
    pages = list(sheets(cells, 2, "t", found.names, np.array([0, 1, 1])))
    assert len(pages) == 2 and pages[0].height > 2 * pages[1].height
    target = tmp_path / "s.png"
    assert save_sheets(pages, target) == [target, tmp_path / "s-2.png"]
    with pytest.raises(EyelineError, match="exists already"):
        save_sheets(pages, target)
    with pytest.raises(EyelineError, match=r"a sheet is a \.png or a \.jpg"):
        save_sheets(pages, tmp_path / "s.gif")


def test_outlines_are_those_of_the_masks(tmp_path: Path) -> None:
    y, x = np.mgrid[:120, :160]
    disc = ((x - 80) ** 2 + (y - 60) ** 2 < 50**2) & ((x - 80) ** 2 + (y - 60) ** 2 > 15**2)
    (rle,) = encode_rle(disc[None])
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 160, "height": 120}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [30, 10, 100, 100],
                         "segmentation": rle}],
        "categories": [{"id": 1, "name": "ring"}],
    }  # fmt: skip
    Image.new("RGB", (160, 120)).save(tmp_path / "a.png")
    (tmp_path / "set.json").write_text(json.dumps(content))
    (record,) = read_coco(tmp_path / "set.json").records
    assert record.segmentations is not None
    rings = outline(record.segmentations[0], record)
    again = decode_masks([rings], 120, 160)[0]
    assert (again & disc).sum() / (again | disc).sum() > 0.96
    assert sum(map(len, rings)) < 160  # numbers; all corners of the bitmap have some 700
    assert outline({"size": [3, 3], "counts": "zz"}, record) == []


def test_simplified_keeps_what_sticks_out() -> None:
    steps = np.linspace(0, 10, 41)
    top = [[v, 0.05 * (i % 2)] for i, v in enumerate(steps)]
    square = np.array([*top, [10, 10], [5, 30], [0, 10]], float)
    kept = simplified(square, 0.1).tolist()
    assert len(kept) < 9 and [5, 30] in kept and [10, 10] in kept
    assert simplified(square, 0.0).shape == square.shape

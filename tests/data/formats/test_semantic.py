"""Masks whose values or colours are classes: every layout, every list, and CamVid itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyeline.data.faults import Faults
from eyeline.data.formats import REGION, format_named, open_annotations, recognise, semantic
from eyeline.data.formats.semantic import read_target, read_targets
from eyeline.data.formats.writing import plan, write
from eyeline.data.targets import semantic_target
from eyeline.errors import EyelineError
from eyeline.ops.segmentations import decode_masks, rle_area

CAMVID = ["Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car",
          "Pedestrian", "Bicyclist", "Unlabelled"]  # fmt: skip
VALUES = np.array([[0, 0, 1, 1], [0, 2, 2, 255], [0, 2, 2, 255]], np.uint8)
COLOURS = np.array([[128, 0, 0], [0, 128, 0], [64, 64, 0]], np.uint8)
NAMES = "cat\ndog\nsky\n"


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)


def data_set(root: Path, mask: np.ndarray = VALUES, classes: str = NAMES) -> Path:
    for split in ("train", "val"):
        save(root / f"images/{split}/a.jpg", np.zeros((3, 4, 3), np.uint8))
        save(root / f"masks/{split}/a.png", mask)
    (root / "classes.txt").write_text(classes)
    return root


def fails(path: Path, *said: str) -> None:
    with pytest.raises(EyelineError) as error:
        open_annotations(path, "train")
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)


def test_content(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    assert recognise(root)[0].NAME == "semantic" and semantic.splits(root) == ["train", "val"]
    found = open_annotations(root, "val")
    [record] = found.records
    assert found.classes == ["cat", "dog", "sky"] and record.path == root / "images/val/a.jpg"
    assert record.labels.tolist() == [0, 1, 2, REGION]
    assert record.iscrowd.tolist() == [False, False, False, True]
    assert record.boxes.tolist() == [[0, 0, 2, 3], [2, 0, 4, 1], [1, 1, 3, 3], [3, 1, 4, 3]]
    assert record.where[1] == f"{root}/masks/val/a.png: dog"
    masks = decode_masks(record.segmentations or [], 3, 4)
    assert (masks == [VALUES == value for value in (0, 1, 2, 255)]).all()


def test_forms_of_a_png(tmp_path: Path) -> None:
    """Grey, palette, grey RGB, 16 bits: the values count, not what they look like."""
    root = data_set(tmp_path)
    target = np.where(VALUES == 255, 255, VALUES)
    palette = Image.fromarray(VALUES)
    palette.putpalette(bytes(range(256)) * 3)
    palette.save(root / "masks/train/a.png")
    for array, mode in [
        (None, None),
        (VALUES, "RGB"),
        (VALUES.astype(np.uint16), None),
    ]:
        if array is not None:
            save(root / "masks/train/a.png", array, mode)
        legend, [(_, mask)] = read_targets(root, "train")
        assert read_target(mask, legend).tolist() == target.tolist()
    save(root / "masks/train/a.png", VALUES == 1)
    with Image.open(root / "masks/train/a.png") as image:
        assert image.mode == "1"
    [record] = open_annotations(root, "train").records
    assert record.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("pictures", "mask", "split"),
    [
        ("train/a.png", "trainannot/a.png", "train"),  # SegNet's CamVid
        ("val/a.png", "val_labels/a_L.png", "val"),  # CamVid as it is often packed
        ("images/a.jpg", "masks/a.png", "train"),
        ("images/a.jpg", "masks/a_mask.png", "train"),
        ("images/train/a.tif", "masks/train/a.tif", "train"),
        ("images/a.jpg", "masks/a.BMP", "train"),
        ("images/training/a.jpg", "annotations/training/a.png", "training"),  # ADE20K
        ("test/images/a.jpg", "test/masks/a.png", "test"),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png", "default"),  # CVAT
    ],
)
def test_layouts(tmp_path: Path, pictures: str, mask: str, split: str) -> None:
    save(tmp_path / pictures, np.zeros((3, 4, 3), np.uint8))
    save(tmp_path / mask, VALUES)
    (tmp_path / "classes.txt").write_text(NAMES)
    if split == "default":
        (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
        (tmp_path / "ImageSets/Segmentation/default.txt").write_text("a\n")
    assert recognise(tmp_path)[0].NAME == "semantic" and semantic.splits(tmp_path) == [split]
    [record] = open_annotations(tmp_path, split).records
    assert record.path == tmp_path / pictures and record.labels.tolist() == [0, 1, 2, REGION]
    if split == "default":  # beside Annotations/ it is Pascal VOC
        (tmp_path / "Annotations").mkdir()
        assert recognise(tmp_path)[0].NAME == "voc"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "128 0 0 traffic light\n0 128 0 dog\n64 64 0 void\n"),
        ("label_colors.txt", "128 0 0\ttraffic light\n0 128 0\t\tdog\n64 64 0\t\tVoid\n"),
        ("class_dict.csv", "name,r,g,b\ntraffic light,128,0,0\ndog, 0, 128, 0\nVoid,64,64,0\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\ntraffic light:128,0,0::\n"
         "dog:0,128,0:tail:\nunlabeled:64,64,0::\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("palette", [False, True])
def test_lists_of_colours(tmp_path: Path, file: str, text: str, palette: bool) -> None:
    index = np.array([[0, 0, 1], [2, 2, 1]], np.uint8)
    data_set(tmp_path, COLOURS[index], text)
    (tmp_path / "classes.txt").rename(tmp_path / file)
    if palette:  # the same colours, by whatever numbers
        image = Image.fromarray(7 - index)
        image.putpalette(bytes(15) + COLOURS[::-1].tobytes())
        image.save(tmp_path / "masks/train/a.png")
    found = open_annotations(tmp_path, "train")
    assert found.classes == ["traffic light", "dog"]
    assert semantic_target(found.records[0]).tolist() == [[0, 0, 1], [255, 255, 1]]


def test_pixels_where_nothing_is(tmp_path: Path) -> None:
    root = data_set(tmp_path, classes="cat\n_background_\nsky\n")
    [record] = open_annotations(root, "train").records
    assert record.labels.tolist() == [0, 1, REGION]
    target = np.array([0, 7, 1])[VALUES.clip(0, 2)]
    target[VALUES == 255] = 255
    legend, [(_, mask)] = read_targets(root, "train")
    assert read_target(mask, legend, outside=7).tolist() == target.tolist()
    assert semantic_target(record, outside=7).tolist() == target.tolist()


def test_written(tmp_path: Path) -> None:
    """The values are the labels; one more stands for nothing, where there is such a pixel."""
    found = open_annotations(data_set(tmp_path / "a"), "train")
    planned = plan({"train": found}, format_named("semantic"))
    assert planned.lost == []
    write(planned, tmp_path / "b")
    with Image.open(tmp_path / "b/masks/train/a.png") as image:
        assert image.mode == "P" and np.array(image).tolist() == VALUES.tolist()
        assert np.array(image.convert("RGB"))[0, 0].tolist() == [128, 0, 0]
    assert (tmp_path / "b/classes.txt").read_text() == NAMES
    record = found.records[0]
    record.segmentations = [
        {**record.segmentations[0], "counts": [6, 6]}, *record.segmentations[1:]
    ]  # fmt: skip
    planned = plan({"train": found}, format_named("semantic"))
    assert planned.lost == [
        "train: 1 box becomes the extent of the outline",
        "train: 1 object without the pixels that others cover",
        "train: 1 object without a visible pixel left out",  # what was to be ignored
    ]
    full = open_annotations(tmp_path / "a", "val")  # after it, and has no such pixel
    write(plan({"train": found, "val": full}, format_named("semantic")), tmp_path / "c")
    with Image.open(tmp_path / "c/masks/train/a.png") as image:
        assert np.array(image).tolist() == [[3, 3, 1, 1], [3, 2, 2, 0], [3, 2, 2, 0]]
    assert (tmp_path / "c/classes.txt").read_text() == NAMES + "_background_\n"


def test_names_that_mean_something_else(tmp_path: Path) -> None:
    found = open_annotations(data_set(tmp_path / "a"), "train")
    for name in ("Void", "_background_", "1 2 3 cat"):
        found.classes[0] = name
        with pytest.raises(EyelineError, match=f"a class is called '{name}'"):
            write(plan({"train": found}, format_named("semantic")), tmp_path / "b")
    found.classes = [str(k) for k in range(255)]
    with pytest.raises(EyelineError, match="255 classes; a mask has room for 254"):
        write(plan({"train": found}, format_named("semantic")), tmp_path / "b")


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    root = data_set(tmp_path / "a")
    mask, listed = root / "masks/train/a.png", root / "classes.txt"
    wrong = VALUES.copy()
    wrong[1, 2] = 17
    save(mask, wrong)
    fails(root, f"{mask}: the value 17 is no class, at x=2, y=1; 3 have names")
    faults = Faults(gather=True)
    [record] = open_annotations(root, "train", faults=faults).records
    assert [fault.kind for fault in faults.found] == ["class"]
    assert [rle_area(s) for s in record.segmentations or []] == [4, 2, 3, 2]  # of 4 pixels, 3
    save(mask, COLOURS[VALUES % 3])
    fails(root, f"{mask}: its pixels have colours; list them")
    listed.write_text("128 0 0 cat\n0 128 0 dog\n")
    fails(root, f"{mask}: the colour (64, 64, 0) is no class, at x=1, y=1")
    for text, said in {
        "128 0 0 cat\ndog\n": "the class 'dog' has no colour",
        "1 1 1 cat\n1 1 1 dog\n": "two classes have the colour (1, 1, 1)",
        "1 1 1 cat\n1 1 2 cat\n": "the class 'cat' is listed twice",
        "1 1 256 cat\n": "no colour: 1 1 256",
        "cat\n\ndog\n": "classes.txt:2: an empty line",
    }.items():
        listed.write_text(text)
        fails(root, said)
    listed.unlink()
    fails(root, "the classes of its masks have no names; give them in classes.txt")
    save(mask, VALUES)
    assert open_annotations(root, "train", ["x", "y", "z"]).records[0].labels.tolist()[:2] == [0, 1]
    (root / "labelmap.txt").write_text("# label\ncat:1,2\n")
    fails(root, "labelmap.txt:2: should be a name and its colour")


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    mask = root / "masks/train/a.png"
    mask.write_bytes(mask.read_bytes()[:45])
    fails(root, f"{mask}: cannot read the picture")
    mask.rename(root / "masks/train/b.png")
    save(root / "masks/train/b.png", VALUES)
    fails(root, "images/train/a.jpg: it has no mask", "masks/train/a.png")
    faults = Faults(gather=True)
    found = open_annotations(root, "train", faults=faults)
    assert found.records == [] and found.unread == ["1 mask(s) without a picture"]
    assert [fault.kind for fault in faults.found] == ["file"]


def test_white_that_is_a_class(tmp_path: Path) -> None:
    """Black and white masks are common, and 255 is to be ignored: that would leave one class."""
    white = np.where(VALUES == 1, 255, 0).astype(np.uint8)
    root = data_set(tmp_path, white, "background\ncell\n")
    fails(root, 'list colours in classes.txt: "0 0 0 background" and "255 255 255 cell"')
    (root / "classes.txt").write_text("0 0 0 background\n255 255 255 cell\n")
    assert open_annotations(root, "train").records[0].labels.tolist() == [0, 1]


def test_white_that_is_the_one_class(tmp_path: Path) -> None:
    white = np.where(VALUES == 1, 255, 0).astype(np.uint8)
    root = data_set(tmp_path / "a", white, "cell\n")
    for split in ("train", "val"):  # small things are in few pictures
        for i in range(12):
            save(root / f"images/{split}/0{i:02}.jpg", np.zeros((3, 4, 3), np.uint8))
            save(root / f"masks/{split}/0{i:02}.png", np.zeros((3, 4), np.uint8))
    legend, found = read_targets(root, "train")
    assert read_target(found[-1][1], legend, 7).tolist() == np.where(white, 0, 7).tolist()
    for lazy in (True, False):
        records = open_annotations(root, "val", lazy=lazy).records
        assert (
            semantic_target(records[-1], 7).tolist()
            == (np.full((3, 4), 7) if lazy else np.where(white, 0, 7)).tolist()
        )
    (root / "classes.txt").write_text("_background_\ncell\n")
    assert open_annotations(root, "train").records[-1].labels.tolist() == [0]
    # The name is told by the folder, so that it holds whatever other classes a model has.
    (root / "classes.txt").unlink()
    with pytest.raises(
        EyelineError, match=r"where white is 'cell', name it in classes\.txt, alone"
    ):
        open_annotations(root, "train", ["cell"])
    (root / "classes.txt").write_text("void\ncell\n")
    fails(root, '"0 0 0 _background_" and "255 255 255 cell"; where 255 is to be ignored, set')
    # Other numbers mean what they did.
    own = data_set(tmp_path / "b", np.where(VALUES == 1, 1, 0).astype(np.uint8), "cell\n")
    fails(own, "the value 1 is no class")
    (own / "classes.txt").write_text("_background_\ncell\n")
    assert open_annotations(own, "train").records[0].labels.tolist() == [0]


def test_masks_where_yolo_has_its_labels(tmp_path: Path) -> None:
    save(tmp_path / "images/a.jpg", np.zeros((3, 4, 3), np.uint8))
    save(tmp_path / "labels/a.png", VALUES)
    (tmp_path / "classes.txt").write_text(NAMES)
    fails(tmp_path, "looks like YOLO and semantic masks; say which it is with format=")
    [record] = open_annotations(tmp_path, "train", format="semantic").records
    assert record.labels.tolist() == [0, 1, 2, REGION]


def test_what_is_not_a_folder_of_masks(tmp_path: Path) -> None:
    for name in ("images/a.jpg", "masks/a.jpg", "train/a.png"):
        save(tmp_path / name, np.zeros((3, 4, 3), np.uint8))
    (tmp_path / "trainannot").mkdir()
    (tmp_path / "SegmentationObject").mkdir()
    assert semantic.splits(tmp_path) is None and semantic.splits(tmp_path / "images/a.jpg") is None


def test_camvid(shared_data: Path, tmp_path: Path) -> None:
    """As many pixels of each class as the PNGs hold; by the objects, and without them."""
    for folder in (shared_data / "camvid").iterdir():
        (tmp_path / folder.name).mkdir()
        for file in sorted(folder.iterdir())[::8]:
            (tmp_path / folder.name / file.name).symlink_to(file)
    (tmp_path / "classes.txt").write_text("\n".join(CAMVID))
    assert recognise(tmp_path)[0].NAME == "semantic"
    assert semantic.splits(tmp_path) == ["test", "train", "val"]
    data = open_annotations(tmp_path, "val")
    assert data.classes == CAMVID[:11] and len(data.records) == 13
    plain, objects, direct = (np.zeros(12, int) for _ in range(3))
    legend, pairs = read_targets(tmp_path, "val")
    for record, (picture, mask) in zip(data.records, pairs, strict=True):
        assert record.path == picture and (record.height, record.width) == (360, 480)
        with Image.open(mask) as image:
            plain += np.bincount(np.array(image).ravel(), minlength=12)
        for label, segmentation in zip(record.labels, record.segmentations or [], strict=True):
            objects[label] += rle_area(segmentation)  # REGION: the last
        target = read_target(mask, legend)
        assert target.dtype == np.int64 and (target == semantic_target(record)).all()
        direct += np.bincount(np.minimum(target, 11).ravel(), minlength=12)
    assert plain.tolist() == objects.tolist() == direct.tolist()
    assert plain.sum() == 13 * 360 * 480 and plain.min() > 0


def test_of_two_masks_with_one_stem_the_png_counts(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    save(root / "masks/train/a.tif", np.zeros((3, 4), np.uint8))
    found = open_annotations(root, "train")
    assert found.records[0].mask == root / "masks/train/a.png"
    assert found.unread == ["1 mask(s) without a picture"]

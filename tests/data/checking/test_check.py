"""Every kind of fault, planted alone into a data set without any, is found where it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from planted import CLASSES, HEIGHT, OBJECTS, WIDTH, Coco, Voc, picture

from eyeline.data.checking import Report, check
from eyeline.data.faults import KINDS
from eyeline.errors import EyelineError

Found = tuple[str, str, str]  # kind, where, a part of what
Plant = Callable[[Coco], Found]


def told(report: Report) -> list[tuple[str, str]]:
    return [(fault.kind, fault.where) for fault in report.faults]


@pytest.mark.parametrize("form", [Coco, Voc])
def test_nothing_is_found_where_nothing_is_wrong(form: Any, tmp_path: Path) -> None:
    report = check(form(tmp_path).save())
    assert report.faults == []
    assert [own.pictures for own in report.statistics.values()] == [6, 3]
    assert report.known == CLASSES and report.pictures == "decoded"


def cut(data: Coco) -> Found:
    path = data.picture("train", 2)
    path.write_bytes(path.read_bytes()[:-300])
    return "picture", str(path), "truncated"


def missing(data: Coco) -> Found:
    data.picture("val", 1).unlink()
    return "picture", str(data.picture("val", 1)), "no such picture"


def no_picture(data: Coco) -> Found:
    data.picture("val", 1).write_text("<html>not found</html>")
    return "picture", str(data.picture("val", 1)), "not a picture"


def other_size(data: Coco) -> Found:
    data.content["train"]["images"][1]["width"] = WIDTH + 1
    return "size", str(data.picture("train", 1)), "the picture is 96x64, its annotation says 97x64"


def no_size(data: Coco) -> Found:
    data.content["train"]["images"][1]["width"] = "wide"
    return "field", str(data.file("train")), "train1.jpg should be two numbers"


def outside(data: Coco) -> Found:
    data.annotation("train", 5)["bbox"] = [90, 10, 8.5, 10]
    return "box", data.place("train", 5), "is not inside 96x64"


def flat(data: Coco) -> Found:
    data.annotation("val", 3)["bbox"][2] = 0
    return "box", data.place("val", 3), "has no area"


def endless(data: Coco) -> Found:
    data.annotation("val", 3)["bbox"][3] = float("nan")
    return "box", data.place("val", 3), "nan"


def tiny(data: Coco) -> Found:
    data.annotation("train", 7)["bbox"][3] = 0.5
    return "tiny", data.place("train", 7), "x 0.5 pixels"


def shares(data: Coco) -> Found:
    data.annotation("train", 7)["bbox"] = [0.25, 0.5, 0.125, 0.25]
    return "scale", data.place("train", 7), "multiply by its width and height"


def no_box(data: Coco) -> Found:
    data.annotation("train", 7)["bbox"] = [1, 2, 3]
    return "field", f"{data.file('train')}: annotations[7]", "bbox should be"


def no_such_image(data: Coco) -> Found:
    data.annotation("val", 0)["image_id"] = 77
    return "reference", f"{data.file('val')}: annotations[0]", "there is no image_id 77"


def one_id_for_two_images(data: Coco) -> Found:
    images = data.content["train"]["images"]
    images.append({**images[0], "file_name": "train0.jpg"})
    return "reference", f"{data.file('train')}: images[6]", "two images have the id 1"


def one_id_for_two_objects(data: Coco) -> Found:
    data.annotation("train", 9)["id"] = 3
    return "id", data.place("train", 9), "annotations[2] (id 3) has the same id"


def unknown_class(data: Coco) -> Found:
    data.content["val"]["categories"].append({"id": 3, "name": "WBC"})
    data.annotation("val", 4)["category_id"] = 3
    return "class", data.place("val", 4), "the class 'WBC' is not one of Platelets, RBC"


def mistyped_in_val(data: Coco) -> Found:
    data.content["val"]["categories"][0]["name"] = "platlets"
    for k in (0, 2, 4, 6, 8, 10):
        data.annotation("val", k)["category_id"] = 2
    data.annotation("val", 4)["category_id"] = 1
    return "class", data.place("val", 4), "did you mean 'Platelets'?"


def mistyped(data: Coco) -> Found:
    for split in ("train", "val"):
        data.content[split]["categories"].append({"id": 3, "name": "platlets"})
    for annotation in data.content["train"]["annotations"] * 2:  # 60 objects, of which one
        data.content["train"]["annotations"].append(
            {**annotation, "id": 1000 + len(data.content["train"]["annotations"])}
        )
        x, y, width, height = annotation["bbox"]
        moved = [x + 1 + len(data.content["train"]["annotations"]) % 7 / 8, y, width, height]
        data.content["train"]["annotations"][-1]["bbox"] = moved
    data.annotation("train", 6)["category_id"] = 3
    return "name", data.place("train", 6), "(1 object) is almost 'Platelets' (41)"


def other_case(data: Coco) -> Found:
    """However many there are of each."""
    for split in ("train", "val"):
        data.content[split]["categories"].append({"id": 3, "name": "rbc"})
    for k in (1, 5, 9, 13, 17):
        data.annotation("train", k)["category_id"] = 3
    return "name", data.place("train", 1), "'rbc' (5 objects) is almost 'RBC' (13)"


def nothing_to_learn(data: Coco) -> Found:
    for annotation in data.content["train"]["annotations"]:
        annotation["category_id"] = 2
    return "untrained", str(data.file("train")), "no object of the class 'Platelets', val has 6"


def never_used(data: Coco) -> Found:
    for split in ("train", "val"):
        data.content[split]["categories"].append({"id": 3, "name": "WBC"})
    return "empty", str(data.file("train")), "no picture has an object of the class 'WBC'"


def gaps(data: Coco) -> Found:
    for split in ("train", "val"):
        data.content[split]["categories"][1]["id"] = 9
        for annotation in data.content[split]["annotations"]:
            annotation["category_id"] = {1: 1, 2: 9}[annotation["category_id"]]
    return "numbers", str(data.file("train")), "the ids of 2 classes go from 1 to 9, with gaps"


def other_ids(data: Coco) -> Found:
    data.content["val"]["categories"].reverse()
    for k, category in enumerate(data.content["val"]["categories"], 1):
        category["id"] = k
    return "numbers", str(data.file("val")), "('RBC' 1, there 2)"


def drawn_twice(data: Coco) -> Found:
    again = {**data.annotation("train", 2), "id": 99}
    data.content["train"]["annotations"].append(again)
    return "twice", data.place("train", 24), f"the same class and box as {data.place('train', 2)}"


def in_two_splits(data: Coco) -> Found:
    shutil.copy(data.picture("train", 3), data.picture("val", 2))
    return "leak", str(data.picture("val", 2)), "the same picture, byte by byte, as"


def saved_again_in_val(data: Coco) -> Found:
    small = Image.open(data.picture("train", 3)).resize((72, 48))
    small.resize((WIDTH, HEIGHT)).save(data.picture("val", 2), quality=40)
    return "leak", str(data.picture("val", 2)), "in val and in train: keep them in one split"


def saved_again(data: Coco) -> Found:
    Image.open(data.picture("train", 3)).save(data.picture("train", 5), quality=40)
    return "copy", str(data.picture("train", 5)), f"alike) as {data.picture('train', 3)}"


def not_listed(data: Coco) -> Found:
    path = data.folder / "val" / "more.png"
    picture(99).save(path)
    return "unlisted", str(path), "nothing annotates it"


def listed_twice(data: Coco) -> Found:
    images = data.content["train"]["images"]
    images.append({**images[2], "id": 77})
    data.annotation("train", 9)["image_id"] = 77
    return "reference", str(data.picture("train", 2)), "listed twice, with different objects"


def broken_mask(data: Coco) -> Found:
    data.annotation("train", 5)["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [7]}
    return "field", data.place("train", 5), "its segmentation: "


def outline_of_two_corners(data: Coco) -> Found:
    data.annotation("train", 5)["segmentation"] = [[3, 3, 9, 9]]
    return "field", data.place("train", 5), "three corners"


def zeroed(data: Coco) -> Found:
    data.save()
    data.file("val").write_bytes(bytes(300))
    return "file", f"{data.file('val')}:1:1", "not valid JSON"


def not_json(data: Coco) -> Found:
    data.save()
    data.file("val").write_text('{"images": [\n  {"id": 1,}\n]}')
    return "file", f"{data.file('val')}:2:12", "not valid JSON"


PLANTS: list[Plant] = [
    cut, missing, no_picture, other_size, no_size, outside, flat, endless, tiny, shares, no_box,
    no_such_image, one_id_for_two_images, one_id_for_two_objects, unknown_class, mistyped_in_val,
    mistyped, other_case, nothing_to_learn, never_used, gaps, other_ids, drawn_twice, in_two_splits,
    saved_again_in_val, saved_again, not_listed, listed_twice, broken_mask,
    outline_of_two_corners, not_json, zeroed,
]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_a_fault_planted_alone_is_found_alone(plant: Plant, tmp_path: Path) -> None:
    data = Coco(tmp_path)
    kind, where, what = plant(data)
    if plant not in (not_json, zeroed):
        data.save()
    report = check(tmp_path)
    assert told(report) == [(kind, where)]
    assert what in report.faults[0].what
    assert report.faults[0].severity == KINDS[kind].severity


def test_places_are_those_of_the_records(tmp_path: Path) -> None:
    """By them a page of the data finds what to mark."""
    data = Coco(tmp_path)
    _, where, _ = outside(data)
    cut(data)
    report = check(data.save())
    records = report.splits["train"].records
    assert [r.path for r in records if where in r.where] == [data.picture("train", 1)]
    [box, damaged] = sorted(report.faults, key=lambda fault: fault.kind)
    assert damaged.where in {str(record.path) for record in records}
    assert report.picture_of(box) == data.picture("train", 1)
    assert report.picture_of(damaged) == data.picture("train", 2)


@pytest.mark.parametrize("lines", [True, False])
def test_the_line_of_an_entry(lines: bool, tmp_path: Path) -> None:
    data = Coco(tmp_path)
    _, where, _ = outside(data)
    [fault] = check(data.save(lines)).as_json()["faults"]
    assert fault["where"] == where and fault["file"] == str(data.file("train"))
    if lines:
        text = data.file("train").read_text().splitlines()
        before = [i for i, line in enumerate(text, 1) if '"id": 6,' in line]
        assert fault["line"] == before[-1] - 1  # the brace before it
    else:
        assert fault["line"] is None


# Four numbers that mean something else


def changed(data: Coco, change: Callable[..., list[float]], pictures: int) -> Report:
    for annotation in data.content["train"]["annotations"]:
        if annotation["image_id"] <= pictures:
            x, y, w, h = annotation["bbox"]
            annotation["bbox"] = change(x, y, x + w, y + h)
    return check(data.save())


def test_corners_where_sides_were_declared(tmp_path: Path) -> None:
    report = changed(Coco(tmp_path), lambda x1, y1, x2, y2: [x1, y1, x2, y2], 6)
    [fault] = report.by_kind()["order"]
    assert "two corners, read as x, y, width and height" in fault.what
    assert set(report.by_kind()) == {"box", "order"}


def test_sides_where_corners_were_declared(tmp_path: Path) -> None:
    data = Voc(tmp_path)
    for objects in data.objects.values():
        objects[:] = [(n, [x, y, x2 - x, y2 - y]) for n, (x, y, x2, y2) in objects]
    report = check(data.save())
    faults = report.by_kind()["order"]
    assert len(faults) == 2  # one a split
    assert all("x, y, width and height, read as two corners" in fault.what for fault in faults)


def test_x_and_y_exchanged_in_some_pictures(tmp_path: Path) -> None:
    data = Coco(tmp_path)
    for annotation in data.content["train"]["annotations"]:  # in the right part of the picture
        annotation["bbox"][0] = 95 - annotation["bbox"][2]
    report = changed(data, lambda x1, y1, x2, y2: [y1, x1, y2 - y1, x2 - x1], 2)
    [fault] = report.by_kind()["order"]
    assert fault.what.startswith("8 boxes do not fit") and "x and y exchanged" in fault.what
    assert fault.where == data.place("train", 0)


def test_corners_exchanged(tmp_path: Path) -> None:
    data = Voc(tmp_path)
    for stem in ("train0", "train4"):
        data.objects[stem] = [(n, [x2, y1, x1, y2]) for n, (x1, y1, x2, y2) in data.objects[stem]]
    [fault] = check(data.save()).by_kind()["order"]
    assert "right or lower corner first" in fault.what
    assert fault.where == f"{data.file('train0')}:3"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("box", [["inf"] * 4, ["-inf", "-inf", "inf", "inf"], ["1e39"] * 4])
def test_numbers_that_are_not_finite(box: list[str], tmp_path: Path) -> None:
    data = Voc(tmp_path)
    data.objects["val0"] = [("RBC", [float(value) for value in box])] * OBJECTS
    report = check(data.save())
    assert [fault.where for fault in report.by_kind()["box"]] == [
        f"{data.file('val0')}:{line}" for line in range(3, 3 + OBJECTS)
    ]
    assert report.statistics["val"].objects == 3 * OBJECTS
    assert set(report.by_kind()) == {"box"}


def test_corners_counted_from_1(tmp_path: Path) -> None:
    data = Voc(tmp_path)
    for stem in ("train0", "train1", "val0"):
        data.objects[stem][0] = ("RBC", [1, 5, 20, 20])
        data.objects[stem][1] = ("Platelets", [50, 5, WIDTH, 20])
    [fault] = check(data.save()).faults
    assert fault.kind == "corner" and "3 begin at 1, and 3 end at the border" in fault.what
    assert check(tmp_path, one_based=True).faults == []
    data.objects["train5"][2] = ("RBC", [0, 5, 20, 25])
    assert check(data.save()).faults == []


# Pascal VOC: a file of its own for each picture


def test_a_picture_turned_by_exif(tmp_path: Path) -> None:
    data = Voc(tmp_path)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture(77).save(data.picture("train1"), exif=exif)
    [fault] = check(data.save()).faults
    assert (fault.kind, fault.where) == ("rotation", str(data.picture("train1")))
    assert "(96x64, upright it is 64x96)" in fault.what


def test_files_that_belong_to_nothing(tmp_path: Path) -> None:
    data = Voc(tmp_path)
    data.objects["alone"] = data.objects["train0"]
    data.splits["val"].remove("val2")
    picture(55).save(data.picture("bare"))
    report = check(data.save())
    assert told(report) == [
        ("orphan", str(data.file("alone"))),
        ("unlisted", str(data.picture("bare"))),
        ("unlisted", str(data.picture("val2"))),
    ]
    assert "nothing annotates it" in report.faults[1].what
    assert f"though {data.file('val2')} annotates it" in report.faults[2].what
    assert check(tmp_path, ["train", "val"]).faults == []  # others may be of other splits


def test_a_list_of_what_others_list_is_left_out(tmp_path: Path) -> None:
    data = Voc(tmp_path)
    data.splits["trainval"] = [*data.splits["train"], *data.splits["val"]]
    data.objects["val1"][0] = ("RBC", [5, 5, 5, 5])
    data.objects["val2"][1] = ("", [5, 5, 9, 9])
    report = check(data.save())
    assert report.left_out == ["trainval"]
    assert told(report) == [  # each once, though "trainval" lists it too
        ("class", f"{data.file('val2')}:4"),
        ("box", f"{data.file('val1')}:3"),
    ]


def test_a_picture_listed_in_two_splits(tmp_path: Path) -> None:
    data = Voc(tmp_path)
    data.splits["val"].append("train3")
    [fault] = check(data.save()).faults
    assert (fault.kind, fault.where) == ("leak", str(data.picture("train3")))
    assert "listed in val and in train" in fault.what


def test_a_class_mistyped_in_val(tmp_path: Path) -> None:
    """Without a list of classes, those of the training split count."""
    data = Voc(tmp_path)
    data.objects["val1"][2] = ("platlets", data.objects["val1"][2][1])
    report = check(data.save())
    [fault] = report.faults
    assert (fault.kind, fault.where) == ("class", f"{data.file('val1')}:5")
    assert "did you mean 'Platelets'?" in fault.what
    assert report.known == CLASSES  # the object itself is kept, to be looked at
    assert report.splits["val"].classes == [*CLASSES, "platlets"]
    assert report.statistics["val"].by_class["platlets"] == 1


# How pictures are read


def test_headers_alone(tmp_path: Path) -> None:
    """A JPEG cut short is seen by its end; what has no such mark, and what is alike, is not."""
    data = Coco(tmp_path)
    cut(data)
    saved_again(data)
    picture(88).save(tmp_path / "x.bmp")
    data.picture("val", 0).write_bytes((tmp_path / "x.bmp").read_bytes()[:-99])
    quick = check(data.save(), pictures="headers")
    assert told(quick) == [("picture", str(data.picture("train", 2)))]
    whole = check(tmp_path)
    assert [fault.where for fault in whole.by_kind()["picture"]] == [
        str(data.picture("train", 2)),
        str(data.picture("val", 0)),
    ]
    assert check(tmp_path, pictures=False).faults == []


def test_bytes_behind_the_end_do_no_harm(tmp_path: Path) -> None:
    data = Coco(tmp_path)
    path = data.picture("train", 0)
    path.write_bytes(path.read_bytes() + bytes(500))
    assert check(data.save(), pictures="headers").faults == []


# The report


def test_numbers(tmp_path: Path) -> None:
    data = Coco(tmp_path)
    data.content["val"]["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 20]},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 32, 32]},
        {"id": 3, "image_id": 1, "category_id": 2, "bbox": [0, 0, 10, 40], "iscrowd": 1},
        {"id": 4, "image_id": 2, "category_id": 2, "bbox": [5, 5, 0, 40]},
    ]
    own = check(data.save()).as_json()["splits"]["val"]
    assert own == {
        "pictures": 3, "without_objects": 1, "objects": 4, "ignored": 1,
        "by_class": {"Platelets": 1, "RBC": 3}, "sizes": {"96x64": 3},
        "small": 2, "medium": 1, "large": 0,
        "aspect_ratios": [0.25, 1.0, 2.0], "per_picture": [0.0, 1.0, 3.0],
    }  # fmt: skip


def test_the_form_for_machines(tmp_path: Path) -> None:
    data = Coco(tmp_path)
    outside(data)
    report = json.loads(json.dumps(check(data.save()).as_json()))
    assert list(report) == [
        "version", "path", "format", "pictures", "classes", "splits", "maps", "left_out", "unread",
        "counts", "faults",
    ]  # fmt: skip
    assert report["version"] == 1 and report["format"] == "coco"
    assert report["counts"] == {"error": 1, "warning": 0, "note": 0}
    assert report["faults"] == [
        {
            "kind": "box",
            "severity": "error",
            "file": str(data.file("train")),
            "line": report["faults"][0]["line"],
            "where": data.place("train", 5),
            "what": "the box [90.0, 10.0, 98.5, 20.0] is not inside 96x64; mend it, or take it out",
            "picture": str(data.picture("train", 1)),
        }
    ]
    assert isinstance(report["faults"][0]["line"], int)


def test_what_is_no_data_set_is_told_at_once(tmp_path: Path) -> None:
    Coco(tmp_path / "a").save()
    with pytest.raises(EyelineError, match="no such file"):
        check(tmp_path / "b")
    with pytest.raises(EyelineError, match="no split 'tset'"):
        check(tmp_path / "a", ["tset"])


# Real data: every line that is told is true


def test_bccd(shared_data: Path) -> None:
    root = shared_data / "bccd" / "BCCD"
    report = check(root)
    files = root / "Annotations"
    assert [fault.where for fault in report.by_kind()["box"]] == [
        f"{files / 'BloodImage_00343.xml'}:50",
        f"{files / 'BloodImage_00338.xml'}:158",
    ]
    # The same cells at another focus; and LabelImg's corners.
    [leak] = report.by_kind()["leak"]
    assert leak.where.endswith("BloodImage_00037.jpg") and "BloodImage_00038.jpg" in leak.what
    assert set(report.by_kind()) == {"box", "leak", "corner"}
    assert sum(own.pictures for own in report.statistics.values()) == 364


def test_tiny_coco(shared_data: Path) -> None:
    report = check(shared_data / "tiny_coco")
    counts = {kind: len(faults) for kind, faults in report.by_kind().items()}
    assert counts == {"untrained": 10, "empty": 21, "numbers": 1}
    small = [own.small for own in report.statistics.values()]
    assert np.sum(small) == 175 + 137

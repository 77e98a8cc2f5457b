from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyeline.data.datasets import open_dataset
from eyeline.data.formats import Record
from eyeline.data.headers import check_header
from eyeline.errors import EyelineError


def record(path: Path, width: int, height: int) -> Record:
    none = np.zeros(0)
    return Record(path, width, height, none.reshape(0, 4), none, none, None, 1, [])


def test_annotations_of_the_picture_as_it_lies(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.png", "a.tif"):
        Image.new("RGB", (8, 6)).save(tmp_path / name, exif=exif)
        check_header(record(tmp_path / name, 6, 8))  # annotated upright
        check_header(record(tmp_path / name, 60, 80))
        with pytest.raises(EyelineError, match=rf"{name}: .*EXIF rotation \(8x6, upright .* 6x8"):
            check_header(record(tmp_path / name, 8, 6))
    Image.new("RGB", (8, 6)).save(tmp_path / "b.png")  # another size, but not by turning
    check_header(record(tmp_path / "b.png", 6, 8))


def test_pictures_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EyelineError, match=r"none\.png: no such picture"):
        check_header(record(tmp_path / "none.png", 6, 8))
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    monkeypatch.setenv("EYELINE_MAX_PIXELS", "47")
    with pytest.raises(EyelineError, match=r"a\.png: 8x6 are 48 pixels, more than the limit of 47"):
        check_header(record(tmp_path / "a.png", 8, 6))


def test_real_pictures_in_no_time(shared_data: Path) -> None:
    for name, split in (("bccd", "train"), ("tiny_coco", "train")):
        records = open_dataset(shared_data / name, split, bad_boxes="drop").annotations.records
        start = time.process_time()
        for one in records:
            check_header(one)
        assert (time.process_time() - start) / len(records) < 2e-3  # ten times what it takes
        assert len(records) >= 50

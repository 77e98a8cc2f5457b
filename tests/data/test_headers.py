"""What pictures' headers tell, before anything is decoded."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eyeline.data.checking.pictures import check_pictures, look_at_all
from eyeline.data.formats import Annotations, Record, open_annotations


def told(path: Path, width: int, height: int) -> list[str]:
    none = np.zeros(0)
    record = Record(path, width, height, none.reshape(0, 4), none, none, None, 1, [])
    seen = look_at_all([path], decode=False, track=lambda paths, told, total: paths)
    return [str(f) for f in check_pictures({"train": Annotations([], [record], "x")}, seen)]


def test_annotations_of_the_picture_as_it_lies(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.png", "a.tif"):
        Image.new("RGB", (8, 6)).save(tmp_path / name, exif=exif)
        assert told(tmp_path / name, 6, 8) == []  # annotated upright
        assert "boxes drawn on another" in told(tmp_path / name, 60, 80)[0]
        [lying] = told(tmp_path / name, 8, 6)
        assert lying.startswith(f"{tmp_path / name}: its annotations were made without its EXIF")
        assert "(8x6, upright it is 6x8)" in lying
    Image.new("RGB", (8, 6)).save(tmp_path / "b.png")  # another size, but not by turning
    assert "boxes drawn on another" in told(tmp_path / "b.png", 6, 8)[0]


def test_pictures_that_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(tmp_path / "none.png", 6, 8) == [f"{tmp_path / 'none.png'}: no such picture"]
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    assert told(tmp_path / "a.png", 8, 6) == []
    monkeypatch.setenv("EYELINE_MAX_PIXELS", "47")
    assert "8x6 are 48 pixels, more than the limit of 47" in told(tmp_path / "a.png", 8, 6)[0]


def test_real_pictures_in_no_time(shared_data: Path) -> None:
    for name in ("bccd", "tiny_coco"):
        paths = [record.path for record in open_annotations(shared_data / name, "train").records]
        start = time.process_time()
        seen = look_at_all(paths, decode=False, track=lambda paths, told, total: paths)
        assert (time.process_time() - start) / len(paths) < 2e-3  # ten times what it takes
        assert len(seen) >= 50 and all(one.size for one in seen.values())

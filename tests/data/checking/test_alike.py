"""Names and pictures that are nearly the same, and those that are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted import picture

from eyeline.data import alike
from eyeline.data.alike import ALIKE, fingerprint, is_slip, nearest_before, nearest_name


@pytest.mark.parametrize(
    "name, other, slip",
    [
        ("platlets", "Platelets", True),
        ("Plateltes", "Platelets", True),
        ("traffic_light", "Traffic light", True),
        ("cars", "car", True),
        ("RBC ", "rbc", True),
        ("persn", "person", True),
        ("pesron", "person", True),
        ("Car", "car", True),
        ("car", "cat", False),
        ("bear", "deer", False),
        ("speed 30", "speed 50", False),
        ("class1", "class2", False),
        ("snowboard", "skateboard", False),
        ("hand", "head", False),
        ("3", "8", False),
    ],
)
def test_slips(name: str, other: str, slip: bool) -> None:
    assert is_slip(name, other) is is_slip(other, name) is slip


def test_no_two_classes_of_coco_are_slips(shared_data: Path) -> None:
    from eyeline.data.formats import open_annotations

    classes = open_annotations(shared_data / "tiny_coco", "val").classes
    assert len(classes) == 80
    assert [(a, b) for a in classes for b in classes if a < b and is_slip(a, b)] == []


def test_nearest_name() -> None:
    assert nearest_name("platlets", ["RBC", "Platelets"]) == "Platelets"
    assert nearest_name("WBC", ["Platelets"]) is None


def test_the_nearest_before_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "BLOCK", 7)
    prints = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    which, likeness = nearest_before(prints)
    assert likeness[0] == -1
    for i in range(1, 30):
        products = [float(prints[i] @ prints[j]) for j in range(i)]
        assert which[i] == int(np.argmax(products))
        assert likeness[i] == pytest.approx(max(products), rel=1e-5)


def test_even_pictures_are_like_nothing() -> None:
    grey = np.full((40, 50, 3), 128, np.uint8)
    assert not fingerprint(grey).any()
    assert np.linalg.norm(fingerprint(np.asarray(picture(1)))) == pytest.approx(1)


def test_photographs_and_their_copies(shared_data: Path, tmp_path: Path) -> None:
    """Copies come above the bound, other photographs far below it: the margins are wide."""
    folder = shared_data / "tiny_coco"
    photos = [Image.open(p).convert("RGB") for p in sorted(folder.rglob("*.jpg"))]
    assert len(photos) == 100
    prints = np.stack([fingerprint(np.asarray(photo)) for photo in photos])
    assert nearest_before(prints)[1].max() < 0.5
    least = 1.0
    for photo, own in zip(photos[::10], prints[::10], strict=True):
        width, height = photo.size
        photo.save(tmp_path / "a.jpg", quality=30)
        small = photo.resize((width // 2, height // 2))
        bright = photo.point(lambda value: min(255, int(value * 1.1)))
        for copy in (Image.open(tmp_path / "a.jpg"), small, bright):
            least = min(least, float(fingerprint(np.asarray(copy)) @ own))
    assert least > 0.97 > ALIKE

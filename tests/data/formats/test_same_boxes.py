"""The same real boxes are read from every format."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from made import assert_same

from eyeline.data.formats import FORMATS, Annotations, Format, open_annotations, recognise
from eyeline.data.formats.fitting import fitted
from eyeline.data.formats.writing import plan, write

ALL = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.NAME)
PICTURES = {
    "bccd": {"train": 205, "val": 87, "test": 72},
    "tiny_coco": {"train": 50, "val": 50},
}
BOXES = {"bccd": (4888, 2), "tiny_coco": (655, 0)}  # of pictures without crowds; without area


def names(data: Annotations, labels: np.ndarray) -> list[str]:
    return [data.classes[label] for label in labels]


@cache
def opened(shared_data: Path, source: str) -> dict[str, Annotations]:
    """All splits, with the same classes."""
    splits = {split: open_annotations(shared_data / source, split) for split in PICTURES[source]}
    assert {split: len(own.records) for split, own in splits.items()} == PICTURES[source]
    return splits


def without_more(data: Annotations) -> Annotations:
    """Nothing but boxes and labels, without the pictures that have a crowd or nothing."""
    kept = [record for record in data.records if len(record.boxes) and not record.iscrowd.any()]
    plain = [replace(r, segmentations=None, areas=None, attributes={}) for r in kept]
    return replace(data, records=plain, category_ids=None, unread=[])


@pytest.mark.parametrize(
    "format",
    [format for format in FORMATS if "plain" in format.HOLDS],  # the others are pictures of masks
    ids=lambda format: format.NAME,
)
@pytest.mark.parametrize("source", list(PICTURES))
def test_boxes_and_labels(source: str, format: Format, shared_data: Path, tmp_path: Path) -> None:
    """Without outlines every format holds every box, those without area too, to the last bit."""
    splits = {split: without_more(own) for split, own in opened(shared_data, source).items()}
    boxes = np.concatenate([r.boxes for own in splits.values() for r in own.records])
    without_area = (boxes[:, 2:] <= boxes[:, :2]).any(1).sum()
    assert (len(boxes), without_area) == BOXES[source]
    write(plan(splits, format), tmp_path / "new", link=True)
    for split, own in splits.items():
        found = open_annotations(tmp_path / "new", split)
        expected = {r.path.name: (r.boxes.tolist(), names(own, r.labels)) for r in own.records}
        blank = " " if "blanks" in format.HOLDS else "_"
        assert {
            r.path.name: (r.boxes.tolist(), [n.replace(blank, " ") for n in names(found, r.labels)])
            for r in found.records
        } == expected


@ALL
@pytest.mark.parametrize("source", list(PICTURES))
def test_all_that_a_format_holds(
    source: str, format: Format, shared_data: Path, tmp_path: Path
) -> None:
    """Outlines, masks, crowds and the rest, as far as `fitted` says that they are kept."""
    split = "val"
    given = opened(shared_data, source)[split]
    given = replace(given, records=given.records[:15])
    kept, lost = fitted(given, format.HOLDS)
    planned = plan({split: given}, format)
    assert planned.lost == [f"{split}: {text}" for text in lost]
    write(planned, tmp_path / "new", link=True)
    assert recognise(tmp_path / "new")[0] is format
    assert_same(kept, open_annotations(tmp_path / "new", split), planned.names)

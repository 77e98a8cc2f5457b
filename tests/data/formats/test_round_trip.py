"""What is written in any format is read again as it was: all that the format can hold."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from made import annotations, assert_same, make_pictures

from eyeline.data.formats import FORMATS, Annotations, Format, open_annotations, recognise
from eyeline.data.formats.fitting import FEATURES, fitted
from eyeline.data.formats.writing import plan, write

# Making a failing example small takes minutes: that is left to the slow test.
QUICK = {"deadline": None, "phases": [Phase.explicit, Phase.reuse, Phase.generate]}
ALL = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.NAME)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@ALL
def test_what_a_format_says_of_itself(format: Format) -> None:
    attributes = {"difficult", "truncated", "occluded"}
    assert format.HOLDS <= {*FEATURES, *attributes, *getattr(format, "ATTRIBUTES", ())}
    assert sum(f.NAME == format.NAME for f in FORMATS) == 1 and format.TITLE and format.LAYOUT


@ALL
@settings(max_examples=15, **QUICK)
@given(data=st.data())
def test_read_gives_back_what_was_written(
    format: Format, pictures: list[Path], data: st.DataObject
) -> None:
    round_trip(format, pictures, data)


@pytest.mark.slow
@ALL
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_many_round_trips(format: Format, pictures: list[Path], data: st.DataObject) -> None:
    round_trip(format, pictures, data)


def round_trip(format: Format, pictures: list[Path], data: st.DataObject) -> None:
    made = data.draw(annotations(pictures))
    kept, lost = fitted(made, format.HOLDS)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "new"
        planned = plan({"train": made}, format)
        write(planned, target)
        assert planned.lost == [f"train: {text}" for text in lost]
        assert recognise(target)[0] is format
        read = open_annotations(target, "train")
        assert_same(kept, read, planned.names)
        # And once more: nothing is lost of what came from the format itself.
        again, lost = fitted(replace(read, unread=[]), format.HOLDS)
        assert lost == []
        assert_same(again, read, {record.path: record.path.name for record in read.records})
        assert [path.name for path in Path(folder).iterdir()] == ["new"]


@ALL
@settings(max_examples=5, **QUICK)
@given(data=st.data())
def test_two_splits(format: Format, pictures: list[Path], data: st.DataObject) -> None:
    first = data.draw(annotations(pictures[:2]))
    second = replace(data.draw(annotations(pictures[2:])), category_ids=first.category_ids)
    classes = [*first.classes, *(n for n in second.classes if n not in first.classes)]
    splits = {
        "train": replace(first, classes=classes, category_ids=None),
        "val": with_names(second, classes),
    }
    kept = {split: fitted(own, format.HOLDS)[0] for split, own in splits.items()}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "new"
        planned = plan(splits, format)
        write(planned, target, link=True)
        for split in splits:
            read = open_annotations(target, split)
            assert_same(kept[split], read, planned.names)
            assert all(record.path.is_symlink() for record in read.records)
        assert sorted(format.splits(target) or []) == ["train", "val"]


def with_names(own: Annotations, classes: list[str]) -> Annotations:
    records = []
    for record in own.records:
        labels = record.labels.copy()
        for k, name in enumerate(own.classes):
            labels[record.labels == k] = classes.index(name)
        records.append(replace(record, labels=labels))
    return replace(own, classes=classes, records=records, category_ids=None)

"""Annotations made up by Hypothesis, and when two are equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from eyeline.data.formats import REGION, Annotations, Record
from eyeline.ops.segmentations import Segmentation, encode_rle

SIZES = {
    "a.png": (8, 6),
    "b.jpg": (31, 13),
    "A.jpg": (640, 480),
    "sub/a.png": (9, 9),
    "ü 1.png": (2, 3),
}
POINTS = ["left_eye", "right_eye", "nose"]
NAMES = ["cat", "traffic light", "개", "x&y <z>", "'t", "no: 1", "0", "Ünder_score"]


def make_pictures(folder: Path) -> list[Path]:
    """Pictures of all SIZES; some share their stem."""
    for name, size in SIZES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (len(name), 2, 3)).save(path)
    return [folder / name for name in SIZES]


def hundredths(low: float, high: float) -> st.SearchStrategy[float]:
    return st.integers(round(low * 100), round(high * 100)).map(lambda value: value / 100)


@st.composite
def segmentation(draw: Callable, width: int, height: int) -> Segmentation:
    kind = draw(st.sampled_from(["none", "polygons", "mask"]))
    if kind == "none":
        return []
    if kind == "mask":
        bits = draw(st.integers(0, 2**32 - 1))
        mask = np.random.default_rng(bits).random((1, height, width)) < 0.4
        mask[:, 12:] = mask[:, :, 14:] = False  # dust all over takes long to outline
        return encode_rle(mask, compressed=draw(st.booleans()))[0]
    corner = st.tuples(hundredths(0, width), hundredths(0, height))
    polygons = draw(st.lists(st.lists(corner, min_size=2, max_size=4), min_size=1, max_size=2))
    return [[value for point in polygon for value in point] for polygon in polygons]


@st.composite
def keypoints(draw: Callable, width: int, height: int) -> list[list[float]]:
    visible = draw(st.lists(st.integers(0, 2), min_size=len(POINTS), max_size=len(POINTS)))
    place = st.tuples(hundredths(-3, width + 3), hundredths(-3, height + 3))
    return [[*draw(place), v] if v else [0, 0, 0] for v in visible]


@st.composite
def records(draw: Callable, path: Path, number: int, num_classes: int, points: bool) -> Record:
    with Image.open(path) as image:
        width, height = image.size
    count = draw(st.integers(0, 3))
    corner = st.tuples(hundredths(-3, width + 3), hundredths(-3, height + 3))
    two = st.tuples(corner, corner).map(lambda p: np.sort(np.array(p), axis=0).ravel())

    def each(strategy: st.SearchStrategy) -> list:
        return draw(st.lists(strategy, min_size=count, max_size=count))

    labels = np.array(each(st.integers(REGION, num_classes - 1)), np.int64)
    difficult = np.array(each(st.booleans()), bool) & (labels != REGION)
    crowd = np.array(each(st.booleans()), bool)
    # The annotated size need not be the picture's.
    more = draw(st.sampled_from([0, 0, 0, 1]))
    width, height = width + more, height + 2 * more
    return Record(
        path=path,
        width=width,
        height=height,
        boxes=np.array(each(two), np.float32).reshape(-1, 4),
        labels=labels,
        iscrowd=difficult | crowd | (labels == REGION),
        segmentations=draw(st.sampled_from([None, each(segmentation(width, height))])),
        image_id=number,
        where=[f"made up: {i}" for i in range(count)],
        areas=draw(st.sampled_from([None, np.array(each(hundredths(0, 99)), np.float32)])),
        attributes={
            "difficult": difficult.astype(np.float64),
            "truncated": np.array(each(st.sampled_from([0, 0.25, 1])), np.float64),
            "occluded": np.array(each(st.sampled_from([0, 1, 3])), np.float64),
        },
        keypoints=np.array(each(keypoints(width, height)), np.float32).reshape(-1, len(POINTS), 3)
        if points
        else None,
    )


@st.composite
def annotations(draw: Callable, pictures: list[Path]) -> Annotations:
    classes = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    paths = draw(st.lists(st.sampled_from(pictures), min_size=1, max_size=3, unique=True))
    ids = draw(st.permutations(range(1, 10)))
    points = draw(st.booleans())
    return Annotations(
        classes,
        [
            draw(records(path, i, len(classes), points))
            for path, i in zip(paths, ids[: len(paths)], strict=True)
        ],
        "made up",
        draw(st.sampled_from([None, sorted(ids)[: len(classes)]])),
        keypoint_names=POINTS if points else None,
    )


def assert_same(ours: Annotations, other: Annotations, renamed: dict[Path, str]) -> None:
    """All that `ours` tells, `other` tells too, of pictures that may be renamed."""
    assert other.classes == ours.classes and other.keypoint_names == ours.keypoint_names
    if ours.category_ids:
        assert other.category_ids == ours.category_ids
    found = {record.path.name: record for record in other.records}
    assert len(found) == len(other.records) == len(ours.records)
    for mine in ours.records:
        theirs = found[renamed[mine.path]]
        assert theirs.path.read_bytes() == mine.path.read_bytes()
        assert (theirs.width, theirs.height) == (mine.width, mine.height)
        if ours.category_ids:
            assert theirs.image_id == mine.image_id
        assert theirs.boxes.dtype == np.float32 and theirs.boxes.shape == (len(mine.boxes), 4)
        assert theirs.boxes.tolist() == mine.boxes.tolist()
        assert theirs.labels.tolist() == mine.labels.tolist()
        assert theirs.iscrowd.tolist() == mine.iscrowd.tolist()
        nothing: list[Segmentation] = [[]] * len(mine.boxes)
        assert (theirs.segmentations or nothing) == (mine.segmentations or nothing)
        if mine.areas is not None:
            assert theirs.areas is not None and theirs.areas.tolist() == mine.areas.tolist()
        assert (theirs.keypoints is None) == (mine.keypoints is None)
        if mine.keypoints is not None and theirs.keypoints is not None:
            assert theirs.keypoints.dtype == np.float32
            assert theirs.keypoints.tolist() == mine.keypoints.tolist()
        for name in {*mine.attributes, *theirs.attributes}:
            assert theirs.attribute(name).tolist() == mine.attribute(name).tolist(), name
        assert len(theirs.where) == len(mine.boxes)

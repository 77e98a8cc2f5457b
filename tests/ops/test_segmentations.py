"""Polygons, run-length encodings and bitmaps, to and fro; pycocotools is the oracle."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eyeline.ops.segmentations import decode_masks, encode_rle, mask_to_polygons, rle_area

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 17), st.integers(1, 17)))
RING = np.ones((5, 5), bool)
RING[1:4, 1:4] = False
NESTED = RING.copy()
NESTED[2, 2] = True  # an island in the hole
DIAGONAL = np.eye(4, dtype=bool)
KNOT = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)  # the hole touches the outside


@given(MASKS)
@example(RING)
@example(NESTED)
@example(DIAGONAL)
@example(~DIAGONAL)
@example(KNOT)
@example(np.zeros((3, 4), bool))
@example(np.ones((1, 1), bool))
@settings(max_examples=150, deadline=None)
def test_every_form_gives_the_mask_back(mask: np.ndarray) -> None:
    height, width = mask.shape
    [short], [long] = encode_rle(mask[None]), encode_rle(mask[None], compressed=False)
    polygons = mask_to_polygons(mask)
    for form in (short, long, polygons):
        through_json = json.loads(json.dumps(form))
        assert (decode_masks([through_json], height, width)[0] == mask).all()
    assert rle_area(short) == rle_area(long) == mask.sum()
    assert sum(long["counts"]) == mask.size


@given(MASKS)
@settings(max_examples=50, deadline=None)
def test_encodings_equal_pycocotools(mask: np.ndarray) -> None:
    library = pytest.importorskip("pycocotools.mask")
    theirs = library.encode(np.asfortranarray(mask, np.uint8))
    [ours] = encode_rle(torch.from_numpy(mask)[None])
    assert ours == {"size": list(mask.shape), "counts": theirs["counts"].decode()}
    polygons = [polygon for polygon in mask_to_polygons(mask)]
    if polygons:
        encoded = library.merge(library.frPyObjects(polygons, *mask.shape))
        assert (library.decode(encoded).astype(bool) == mask).all()


def test_several_masks_keep_their_order() -> None:
    masks = np.random.default_rng(0).random((6, 40, 50)) > 0.7
    encoded = encode_rle(torch.from_numpy(masks))
    assert (decode_masks(encoded, 40, 50) == masks).all()
    assert [rle_area(rle) for rle in encoded] == masks.sum((1, 2)).tolist()
    assert encode_rle(masks[:0]) == []


def test_polygons_by_hand() -> None:
    """Corners only, along the pixels' edges."""
    mask = np.zeros((6, 7), bool)
    mask[1:4, 2:6] = True
    [polygon] = mask_to_polygons(torch.from_numpy(mask))
    corners = set(zip(polygon[::2], polygon[1::2], strict=True))
    assert corners == {(2, 1), (6, 1), (6, 4), (2, 4)} and len(polygon) == 8
    assert len(mask_to_polygons(DIAGONAL)) == 4
    assert len(mask_to_polygons(NESTED)) == 2
    assert mask_to_polygons(np.zeros((2, 2), bool)) == []


def test_real_masks_survive_polygons(shared_data) -> None:
    """COCO's own, with thousands of pixels, and crowds with many holes."""
    from eyeline.data.datasets import open_dataset

    dataset = open_dataset(shared_data / "tiny_coco", "val", masks=True)
    seen = 0
    for i in range(12):
        _, target = dataset[i]
        masks = target["masks"].numpy()
        back = decode_masks([mask_to_polygons(mask) for mask in masks], *masks.shape[1:])
        assert (back == masks).all()
        seen += len(masks)
    assert seen > 20

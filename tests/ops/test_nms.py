"""NMS: the fast form, the padded form and the compiled form against the slow twin."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.ops import nms as module
from eyeline.ops.nms import nms, nms_padded, nms_plain
from eyeline.ops.select import fixed_shapes

STORED = Path(__file__).parents[1] / "parity" / "roi_ops.npz"  # make_roi_ops.py wrote it
THRESHOLDS = [0.0, 0.2, 1 / 3, 0.5, 0.7, 1.0]


def coarse(*shape: int, spread: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes on a coarse grid, so that many touch, coincide or tie; some have no area."""
    corner = torch.randint(0, spread, (*shape, 2))
    boxes = torch.cat([corner, corner + torch.randint(0, 8, (*shape, 2))], -1).float()
    return boxes, torch.randint(0, 10, shape).float(), torch.randint(0, 3, shape)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor | None]:
    n = draw(st.integers(0, 30))
    box = st.tuples(st.integers(-4, 8), st.integers(-4, 8), st.integers(0, 5), st.integers(0, 5))
    rows = draw(st.lists(box, min_size=n, max_size=n))
    scores = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    group = st.sampled_from([0, 1, 7, 2**40])
    groups = draw(st.none() | st.lists(group, min_size=n, max_size=n))
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(n, 4)
    boxes[:, 2:] += boxes[:, :2]
    scale = draw(st.sampled_from([1.0, 0.1, 1e-3, 1e4]))
    return (
        boxes * scale,
        torch.tensor(scores, dtype=torch.float32),
        None if groups is None else torch.tensor(groups, dtype=torch.int64),
    )


@settings(max_examples=300, deadline=None)
@given(
    case=cases(),
    threshold=st.sampled_from(THRESHOLDS),
    limit=st.none() | st.integers(0, 8),
    block=st.integers(1, 8),
)
def test_equals_the_slow_twin(case, threshold, limit, block):
    boxes, scores, groups = case
    wanted = nms_plain(boxes, scores, threshold, groups, limit)
    before = module.BLOCK
    try:
        module.BLOCK = block  # so that few boxes take many rounds
        assert torch.equal(nms(boxes, scores, threshold, groups, limit), wanted)
    finally:
        module.BLOCK = before


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("spread", [12, 300])
def test_many_boxes_equal_the_slow_twin(monkeypatch, threshold, spread):
    monkeypatch.setattr(module, "BLOCK", 64)
    boxes, scores, groups = coarse(400, spread=spread)
    for chosen in (None, groups):
        wanted = nms_plain(boxes, scores, threshold, chosen)
        assert torch.equal(nms(boxes, scores, threshold, chosen), wanted)
        assert torch.equal(nms(boxes, scores, threshold, chosen, 9), wanted[:9])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8])
def test_equals_torchvision(threshold):
    """IoUs of these boxes hit the thresholds exactly, some of which float32 does not hold."""
    with np.load(STORED) as file:
        boxes, scores, keep = (
            torch.from_numpy(file[name]) for name in ("nms_boxes", "nms_scores", f"nms_{threshold}")
        )
    assert torch.equal(nms(boxes, scores, threshold), keep)
    assert torch.equal(nms_plain(boxes, scores, threshold), keep)
    index, valid = nms_padded(boxes, scores, threshold, 120)
    assert torch.equal(index[valid], keep)


A, B, FAR = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [50.0, 50.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("boxes", "scores", "threshold", "kept"),
    [
        ([], [], 0.5, []),
        ([A], [0.1], 0.5, [0]),
        ([A, A, A], [0.1, 0.3, 0.2], 0.5, [1]),  # identical
        ([A, A, A], [0.5, 0.5, 0.5], 0.5, [0]),  # tied: the first
        ([FAR, A, FAR], [0.5, 0.5, 0.5], 0.5, [0, 1]),  # tied: in the order they come
        ([A, B], [0.9, 0.8], 0.5, [0, 1]),  # IoU is the threshold: both stay
        ([A, B], [0.9, 0.8], 0.49, [0]),
        ([A, [10.0, 0.0, 20.0, 10.0]], [0.9, 0.8], 0.0, [0, 1]),  # touching
        ([[5.0, 5.0, 5.0, 5.0]] * 2, [0.9, 0.8], 0.0, [0, 1]),  # no area
        ([A, [9.0, 9.0, 1.0, 1.0]], [0.9, 0.8], 0.0, [0, 1]),  # corners exchanged
        ([A, FAR], [-math.inf, 0.5], 0.5, [1, 0]),  # -inf is a score like any other here
    ],
)
def test_by_hand(boxes, scores, threshold, kept):
    b, s = torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores)
    assert nms(b, s, threshold).tolist() == kept
    assert nms_plain(b, s, threshold).tolist() == kept


def test_a_dropped_box_drops_nobody():
    """A chain: 0 drops 1, so 1 cannot drop 2; then 2 drops 3."""
    x = torch.arange(4.0) * 3
    boxes = torch.stack([x, torch.zeros(4), x + 10, torch.full((4,), 10.0)], 1)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    keep, suppressor, iou = nms(boxes, scores, 0.5, return_suppressors=True)
    assert keep.tolist() == [0, 2]
    assert suppressor.tolist() == [-1, 0, -1, 2]
    torch.testing.assert_close(iou, torch.tensor([0, 7 / 13, 0, 7 / 13]))


def test_groups_never_drop_one_another_even_far_from_the_origin():
    """Offsets by group, the usual trick, would round these boxes into one another."""
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5]])
    boxes = boxes + 2.0**20
    groups = torch.tensor([0, 10**6, 10**6])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5, groups).tolist() == [0, 1, 2]
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.3, groups).tolist() == [0, 1]


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("grouped", [False, True])
def test_suppressors_explain_every_dropped_box(limit, grouped):
    boxes, scores, groups = coarse(200)
    chosen = groups if grouped else None
    keep, suppressor, iou = nms(boxes, scores, 0.4, chosen, limit, return_suppressors=True)
    assert torch.equal(keep, nms(boxes, scores, 0.4, chosen, limit))
    kept = keep.tolist()
    assert (suppressor[keep] == -1).all()
    place = {
        box: at for at, box in enumerate(scores.argsort(descending=True, stable=True).tolist())
    }
    explained = 0
    for i in range(len(boxes)):
        killers = [
            j
            for j in kept
            if place[j] < place[i]
            and (not grouped or groups[i] == groups[j])
            and module.plain_iou(boxes[i], boxes[j]).item() > 0.4
        ]
        assert int(suppressor[i]) == (killers[0] if killers else -1)
        if killers:
            assert iou[i] == module.plain_iou(boxes[i], boxes[killers[0]])
            explained += 1
        else:
            assert iou[i] == 0
            assert i in kept or limit is not None
    assert explained > 2


@pytest.mark.parametrize(
    ("box", "score", "threshold"),
    [
        ([math.nan, 0.0, 1.0, 1.0], 0.5, 0.5),
        ([0.0, 0.0, math.inf, 1.0], 0.5, 0.5),
        (A, math.nan, 0.5),
        (A, 0.5, -0.1),
        (A, 0.5, math.nan),
    ],
)
def test_bad_input_is_named(box, score, threshold):
    boxes, scores = torch.tensor([A, box]), torch.tensor([0.5, score])
    with pytest.raises(EyelineError, match=r"box 1 of 2|threshold") as error:
        nms(boxes, scores, threshold)
    assert "\n" not in str(error.value)


def test_shapes_must_agree():
    with pytest.raises(EyelineError, match=r"boxes \(3, 4\) and scores \(2,\)"):
        nms(torch.zeros(3, 4), torch.zeros(2), 0.5)


def padded_case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    boxes, scores, groups = coarse(2, 3, 40)
    scores[0, 0, ::3] = -math.inf
    valid = torch.rand(2, 3, 40) > 0.2
    valid[1, 2] = False  # a row without any
    return boxes, scores, groups, valid


def check_padded(index: Tensor, found: Tensor, limit: int) -> None:
    """Each row against the slow twin, run on the candidates alone."""
    boxes, scores, groups, valid = padded_case()
    assert index.shape == found.shape == (2, 3, limit)
    assert not index[~found].any()
    for row in np.ndindex(2, 3):
        usable = (valid[row] & (scores[row] > -math.inf)).nonzero()[:, 0]
        wanted = nms_plain(boxes[row][usable], scores[row][usable], 0.4, groups[row][usable], limit)
        assert torch.equal(index[row][found[row]], usable[wanted])
        assert found[row].tolist() == [i < len(wanted) for i in range(limit)]


@pytest.mark.parametrize("context", [nullcontext, fixed_shapes])
@pytest.mark.parametrize("limit", [1, 6, 25, 60])  # of 40: in turns, and from 20 on in rounds
def test_padded_equals_the_slow_twin(limit, context):
    torch.manual_seed(3)
    boxes, scores, groups, valid = padded_case()
    with context():
        index, found = nms_padded(boxes, scores, 0.4, limit, groups, valid)
    torch.manual_seed(3)
    check_padded(index, found, limit)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_padded_compiled_equals_the_slow_twin(backend):
    torch.manual_seed(3)
    boxes, scores, groups, valid = padded_case()
    compiled = torch.compile(nms_padded, fullgraph=True, backend=backend)
    index, found = compiled(boxes, scores, 0.4, 8, groups, valid)
    torch.manual_seed(3)
    check_padded(index, found, 8)


def chain(count: int) -> tuple[Tensor, Tensor]:
    """Each box overlaps the next alone, by half, and is the better: every second one is kept."""
    x = torch.arange(count) * 10.0
    boxes = torch.stack([x, torch.zeros(count), x + 15, torch.full((count,), 10.0)], 1)
    return boxes[None], torch.linspace(1, 0.1, count)[None]


def test_rounds_go_on_while_a_chain_of_boxes_is_undecided(monkeypatch):
    """The host looks as often as it must, and every box is decided."""
    looks = []

    def look(open_):
        looks.append(bool(open_.any()))
        return looks[-1]

    monkeypatch.setattr(module, "_any_left", look)
    boxes, scores = chain(150)  # 75 rounds
    with fixed_shapes():
        index, found = nms_padded(boxes, scores, 0.1, 150)
    assert index[0, found[0]].tolist() == list(range(0, 150, 2))
    assert looks == [True] * (75 // module.ROUNDS) + [False]


def test_padded_without_candidates():
    index, found = nms_padded(torch.zeros(2, 0, 4), torch.zeros(2, 0), 0.5, 7)
    assert index.shape == found.shape == (2, 7)
    assert not found.any() and not index.any()


def test_padded_names_nan():
    scores = torch.tensor([[0.5, math.nan]])
    with pytest.raises(EyelineError, match="box 1 of 2"):
        nms_padded(torch.tensor([[A, FAR]]), scores, 0.5, 3)


@given(st.just(0.0) | st.floats(1e-30, 1))
def test_thresholds_round_down_to_float32(value):
    below = module.float32_below(value)
    assert below == float(np.float32(below)) <= value
    assert value < float(np.nextafter(np.float32(below), np.float32(2)))

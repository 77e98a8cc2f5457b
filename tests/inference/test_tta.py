"""Test-time augmentation on a detector that reads its boxes off the picture."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.inference import TTA, Predictor
from eyeline.inference.options import set_suppression
from eyeline.inference.tta import TWELVE, Augmented, Pass, Passes, in_picture
from eyeline.nn.detector import Detector, Preprocess, make_config
from eyeline.registry import create_model
from eyeline.structures import Batch, Padded

CONFIG = SimpleNamespace(
    nms="hard", nms_sigma=0.5, nms_floor=0.001, class_agnostic_nms=False, vote_iou=None,
    max_detections=10,
)  # fmt: skip


class Bright(Detector):
    """Finds the bounding box of what is brighter than half; counts what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = Preprocess(1, 100, 1000, (0.0,) * 3, (1.0,) * 3, divisor=1)
        self.config = CONFIG
        self.classes, self.name = ["lamp"], "bright"
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def compute(self, batch: Batch) -> Padded:
        self.seen.append(tuple(batch.images.shape[2:]))
        boxes = []
        for image in batch.images:
            y, x = (image.mean(0) > 0.5).nonzero().T
            boxes.append(torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float())
        one = torch.ones(len(boxes), 1)
        return Padded(torch.stack(boxes)[:, None], one * 0.9, one.long() * 0, one.bool())


def picture(x1: int, y1: int, x2: int, y2: int, width: int = 200, height: int = 100) -> Tensor:
    image = torch.zeros(3, height, width)
    image[:, y1:y2, x1:x2] = 1
    return image


def boxes(result: list[dict[str, Tensor]]) -> list[list[float]]:
    return [p["boxes"].tolist() for p in result]


def test_the_twelve() -> None:
    assert len(TWELVE) == len(set(TWELVE)) == 12
    assert sorted({p.ratio for p in TWELVE}) == [0.6, 1.0, 1.2, 1.4, 1.6, 1.8]
    assert sum(p.flip for p in TWELVE) == 6
    limits = {p.ratio: (round(p.smallest * 500, 6), round(p.largest * 500, 6)) for p in TWELVE}
    assert limits == {  # pixels in pictures of 500, as in the authors' code
        1.0: (0, math.inf), 0.6: (32, math.inf), 1.2: (0, 160), 1.4: (0, 128), 1.6: (0, 96),
        1.8: (0, 64),
    }  # fmt: skip


def test_every_pass_is_made_at_its_size() -> None:
    model = Bright()
    Augmented(model)([picture(20, 30, 60, 70)])
    assert len(model.seen) == 12
    sizes = [(100, 200), (60, 120), (120, 240), (140, 280), (160, 320), (180, 360)]
    assert model.seen == [size for size in sizes for _ in range(2)]


def test_a_mirrored_result_maps_back_exactly() -> None:
    images = [picture(20, 30, 60, 70), picture(101, 3, 180, 99, width=300)]
    plain = Augmented(Bright(), TTA((Pass(),)))(images)
    flipped = Augmented(Bright(), TTA((Pass(flip=True),)))(images)
    assert boxes(plain) == boxes(flipped) == [[[20, 30, 60, 70]], [[101, 3, 180, 99]]]
    for p in flipped:
        assert p["scores"].tolist() == pytest.approx([0.9])


def test_masks_are_mirrored_too() -> None:
    """They lie over their boxes; the batch is half as large as the picture of 6 x 8."""
    one = torch.ones(1, 1)
    masks = torch.tensor([[0.0, 1.0], [0.2, 0.3]])[None, None]
    found = Padded(torch.tensor([[[0.0, 1, 2, 2]]]), one, one.long(), one.bool(), masks)
    batch = Batch(torch.zeros(1, 3, 3, 4), torch.tensor([[3, 4]]), torch.tensor([[6, 8]]))
    back: Any = in_picture(found, Pass(flip=True), batch)
    assert back.boxes.tolist() == [[[4, 2, 8, 4]]]
    torch.testing.assert_close(back.masks[0, 0], torch.tensor([[1.0, 0.0], [0.3, 0.2]]))
    plain: Any = in_picture(found, Pass(), batch)
    assert plain.boxes.tolist() == [[[0, 2, 4, 4]]] and plain.masks is masks


def test_twelve_boxes_become_one() -> None:
    """Seen at every size, the box moves by at most a pixel; one remains, about where it is."""
    (found,) = Augmented(Bright())([picture(20, 30, 60, 52)])
    assert found["boxes"].shape == (1, 4) and found["scores"].tolist() == pytest.approx([0.9])
    assert found["boxes"][0].tolist() == pytest.approx([20, 30, 60, 52], abs=1.5)


@pytest.mark.parametrize(
    ("box", "ratios"),
    [  # of a picture of 200: the longer side from 12.8; below 64, 51.2, 38.4, 25.6 the shorter
        ((20, 30, 32, 42), {1.0, 1.2, 1.4, 1.6, 1.8}),
        ((20, 30, 50, 42), {0.6, 1.0, 1.2, 1.4, 1.6, 1.8}),
        ((20, 30, 60, 60), {0.6, 1.0, 1.2, 1.4, 1.6}),
        ((20, 10, 120, 80), {0.6, 1.0}),
    ],
)
def test_what_each_scale_may_report(box: tuple[int, ...], ratios: set[float]) -> None:
    reported = set()
    for one in TWELVE:
        augmented = Augmented(Bright(), TTA((one,)))
        if len(augmented([picture(*box)])[0]["boxes"]):
            reported.add(one.ratio)
    assert reported == ratios


def merge(config: Any = CONFIG, **options: Any) -> list[tuple[list[float], float, int]]:
    model = Bright()
    model.config = config
    first = Padded(
        torch.tensor([[[0.0, 0, 10, 10], [50.0, 0, 60, 10]]]), torch.tensor([[0.9, 0.5]]),
        torch.tensor([[0, 0]]), torch.tensor([[True, True]]),
    )  # fmt: skip
    second = Padded(  # IoU 10 / 12 with the first; the third is an empty slot
        torch.tensor([[[0.0, 0, 12, 10], [50.0, 0, 60, 10], [0.0, 0, 9, 10]]]),
        torch.tensor([[0.3, 0.6, 0.99]]), torch.tensor([[0, 1, 0]]),
        torch.tensor([[True, True, False]]),
    )  # fmt: skip
    found = Augmented(model, TTA(**options)).merge([first, second])
    assert found.boxes.shape == (1, config.max_detections, 4)
    n = int(found.valid.sum())
    assert found.valid[0, :n].all()
    columns = (part[0, :n].tolist() for part in found[:3])
    return [(box, round(score, 6), label) for box, score, label in zip(*columns, strict=True)]


def test_merging_by_hand() -> None:
    there = [50, 0, 60, 10]
    assert merge() == [([0, 0, 10.5, 10], 0.9, 0), (there, 0.6, 1), (there, 0.5, 0)]
    plain = [([0, 0, 10, 10], 0.9, 0), (there, 0.6, 1), (there, 0.5, 0)]
    assert merge(vote_iou=None) == plain
    assert merge(vote_iou=None, nms_iou=0.9) == [*plain, ([0, 0, 12, 10], 0.3, 0)]
    agnostic = SimpleNamespace(**{**vars(CONFIG), "class_agnostic_nms": True})
    assert [label for *_, label in merge(agnostic)] == [0, 1]
    few = SimpleNamespace(**{**vars(CONFIG), "max_detections": 1})
    assert merge(few) == [([0, 0, 10.5, 10], 0.9, 0)]


def test_the_masks_of_what_is_kept_stay_with_it() -> None:
    def look(x: float, score: float, mask: float) -> Padded:
        one = torch.ones(1, 1)
        boxes = torch.tensor([[[x, 0, x + 10, 10]]])
        return Padded(boxes, one * score, one.long(), one.bool(), torch.full((1, 1, 2, 2), mask))

    looks = [look(0, 0.3, 0.1), look(50, 0.9, 0.2), look(0, 0.6, 0.3)]
    found = Augmented(Bright()).merge(looks)
    assert found.masks is not None and found.masks.shape == (1, 10, 2, 2)
    assert found.masks[found.valid][:, 0, 0].tolist() == pytest.approx([0.2, 0.3])


SMALL = {"backbone": "resnet18", "size": 64, "num_classes": 2, "score_threshold": 0.001}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return create_model("retinanet", **SMALL).eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)


def test_one_pass_equals_no_augmentation(model: nn.Module, image: Tensor) -> None:
    with torch.no_grad():
        (plain,), (one,) = model([image]), Augmented(model, TTA((Pass(),)))([image])
    assert len(plain["boxes"]) > 5
    for key, value in plain.items():
        assert torch.equal(one[key], value)


def test_predictor(model: nn.Module, image: Tensor) -> None:
    plain = Predictor(model, score_threshold=0.001)(image)
    one = Predictor(model, score_threshold=0.001, tta=TTA((Pass(),)))(image)
    assert torch.equal(plain.boxes, one.boxes) and torch.equal(plain.scores, one.scores)
    predictor = Predictor(model, score_threshold=0.001, tta=True)
    twelve = predictor(image)
    assert len(predictor.model.prepare([image])) == 12
    assert 0 < len(twelve) <= 100 and not torch.equal(plain.boxes[:5], twelve.boxes[:5])
    both = predictor([image, image], batch_size=2)
    torch.testing.assert_close(both[1].scores, twelve.scores, rtol=1e-4, atol=1e-6)


def test_predictor_takes_the_suppression(model: nn.Module, image: Tensor) -> None:
    plain = Predictor(model, score_threshold=0.001)(image)
    soft = Predictor(model, score_threshold=0.001, nms="soft_gaussian")
    assert soft.model.config.nms == "soft_gaussian" and model.config.nms == "hard"
    sunk = soft(image)
    assert sunk.scores[0] == plain.scores[0] and not torch.equal(sunk.scores, plain.scores)
    few = Predictor(model, score_threshold=0.001, class_agnostic_nms=True, nms_iou=0.1)(image)
    assert 0 < len(few) < len(plain)
    voted = Predictor(model, score_threshold=0.001, vote_iou=0.5)(image)
    assert torch.equal(voted.scores, plain.scores) and not torch.equal(voted.boxes, plain.boxes)


def test_the_options_of_the_suppression_merge_the_passes_too(model: nn.Module) -> None:
    assert Predictor(model, tta=True).model.tta == TTA()
    predictor = Predictor(model, tta=True, nms_iou=0.3, vote_iou=0.8, nms="soft_linear")
    assert predictor.model.tta == TTA(nms_iou=0.3, vote_iou=0.8)
    own = TTA((Pass(),), nms_iou=0.6)
    assert Predictor(model, tta=own, nms_iou=0.3).model.tta is own


def test_wrong_options_are_named(model: nn.Module) -> None:
    for options, message in (
        ({"nsm": "hard"}, "unknown option 'nsm'"),
        ({"nms": "softly"}, "nms must be one of hard, soft_linear, soft_gaussian, not 'softly'"),
        ({"nms_iou": 45.0}, "nms_iou must be from 0 to 1"),
        ({"vote_iou": "much"}, "vote_iou must be float | None"),
        ({"nms_sigma": 0.0}, "nms_sigma must be from"),
    ):
        with pytest.raises(EyelineError, match=message.replace("|", r"\|")):
            set_suppression(model, options)
    with pytest.raises(EyelineError, match="Linear has no option 'nms'"):
        set_suppression(nn.Linear(1, 1), {"nms": "hard"})
    with pytest.raises(EyelineError, match="nms_iou must be from 0 to 1"):
        create_model("faster_rcnn", **SMALL, nms_iou=1.5)
    with pytest.raises(EyelineError, match="nms must be one of"):
        make_config(type(model.config), {"paper": {}}, {"num_classes": 1, "nms": "weak"})


def test_passes_of_some_sizes_alone() -> None:
    assert TTA.merging({}).passes == TWELVE
    some = TTA.merging({"nms_iou": 0.3}, [1.2, 1.0])
    assert [(p.ratio, p.flip) for p in some.passes] == [
        (1.0, False), (1.0, True), (1.2, False), (1.2, True),
    ]  # fmt: skip
    assert some.nms_iou == 0.3
    with pytest.raises(
        EyelineError, match=r"no pass is made at 1\.3 of the size; there are: 1, 0\.6"
    ):
        TTA.merging({}, [1.3])
    with pytest.raises(EyelineError, match="1 must be among the sizes"):
        TTA.merging({}, [1.8])  # would report no large object


def test_passes_are_told_apart() -> None:
    assert TTA().told() == TTA.merging({}, [0.6, 1, 1.2, 1.4, 1.6, 1.8]).told() == "twelve passes"
    assert TTA.merging({}, [0.6, 1]).told() == "sizes 1, 0.6, plain and mirrored"
    assert TTA.merging({}, [1.8, 1]).told() == "sizes 1, 1.8, plain and mirrored"
    assert TTA((Pass(),)).told() == "size 1, plain"


def test_wrong_augmentations_are_named(image: Tensor) -> None:
    for make, message in (
        (lambda: TTA(()), "at least one pass"),
        (lambda: TTA((Pass(ratio=0.0),)), "ratio above 0"),
        (lambda: TTA(vote_iou=7), "vote_iou must be from 0 to 1"),
        (lambda: Augmented(nn.Linear(1, 1)), "Linear has no 'preprocess'"),
        (lambda: Augmented(Bright()).prepare(Bright().prepare([image])), "not a Batch"),
    ):
        with pytest.raises(EyelineError, match=message):
            make()


def test_what_is_prepared_passes() -> None:
    augmented = Augmented(Bright())
    passes = augmented.prepare([picture(20, 30, 60, 70)] * 2)
    assert augmented.prepare(passes) is passes
    moved = passes.to("cpu")
    assert isinstance(moved, Passes) and len(moved) == 12
    assert moved.original_sizes.tolist() == [[100, 200]] * 2
    assert augmented.name == "bright" and augmented.classes == ["lamp"]

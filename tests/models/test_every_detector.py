"""One suite over every registered detector, and over each with its second version's options.

A new detector is covered as it stands. Targets always carry masks; who wants none ignores them.
"""

from __future__ import annotations

import sys
from copy import deepcopy

import pytest
import torch
from tests.training.toys import known
from torch import nn

from eyeline.errors import EyelineError
from eyeline.export import optimize
from eyeline.nn.layers import FrozenBatchNorm2d
from eyeline.note import watch
from eyeline.registry import find, list_models
from eyeline.structures import Batch

# The threshold lies below what a fresh network says, so that there is something to look at.
SMALL = dict(num_classes=3, backbone="resnet18", min_size=96, max_size=128, score_threshold=0.001)
# These, and the second versions' options, go to the detectors that have them.
NARROW = dict(
    fpn_channels=64, head_width=64, proposals=(200, 100), proposals_before_nms=(300, 200),
    head_samples=64, mask_width=32, tcb_channels=64, neck_width=256,
)  # fmt: skip
SECOND = dict(
    rpn_depth=2, fpn_norm="batch", head_convs=4, head_layers=1, head_norm="batch",
    mask_norm="batch", mask_head_norm="batch",
)  # fmt: skip
# Where absolute sizes in pixels are meant for larger pictures.
OF_ITS_OWN = {
    name: dict(anchor_sizes=(12, 24, 48, 96)) for name in ("refinedet320", "refinedet512")
}
SECOND_OF = {
    "retinanet": dict(head_norm="group", box_loss="giou", fpn_extra_from="backbone"),
    "cascade_rcnn": {},  # its options are those of the two above, which have them here
    "cascade_mask_rcnn": {},
}


def second(name):
    return SECOND_OF.get(name, known(name, SECOND))


NAMES = list_models("detection")
DETECTORS = [*NAMES, *(f"{name} v2" for name in NAMES if second(name))]


def build(name, **options):
    """A fresh model and a seeded generator; a copy, which costs less than initialising."""
    if name not in built or options:
        torch.manual_seed(0)
        plain, _, version = name.partition(" ")
        more = second(plain) if version else {}
        own = known(plain, NARROW) | OF_ITS_OWN.get(plain, {})
        model = find(plain).build(**SMALL | own | more | options)
        if options:
            return model
        built[name] = model
    torch.manual_seed(0)
    return deepcopy(built[name])


built = {}


def pictures(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes
    ]


def target(*boxes, size=(90, 120), labels=None, **more):
    """Of a picture (height, width); an object's mask fills its box."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(boxes), dtype=torch.int64) if labels is None else torch.tensor(labels)
    return {"boxes": boxes, "labels": labels, "masks": filled(boxes, size), **more}


def filled(boxes, size):
    """Masks (G, H, W) of the pixels whose centres lie in the boxes (G, 4)."""
    x1, y1, x2, y2 = boxes[..., None, None].unbind(1)  # each (G, 1, 1)
    y = torch.arange(size[0])[:, None] + 0.5
    x = torch.arange(size[1]) + 0.5
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


def random_target(count, size=(90, 120)):
    generator = torch.Generator().manual_seed(2)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([90.0, 60.0])
    extent = 5 + 20 * torch.rand(count, 2, generator=generator)
    return target(*torch.cat([corners, corners + extent], 1).tolist(), size=size)


def unsettle(model):
    """Batch norms as after training; fresh ones change nothing."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            with torch.no_grad():
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.1)


def finite(losses):
    return all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())


def check_training(model, images, targets, half=None):
    """Losses and gradients are finite; `half` is autocast's dtype."""
    with torch.autocast("cpu", half, enabled=half is not None):
        losses = model(images, targets)
    sum(losses.values()).backward()
    assert finite(losses)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


IMAGES = pictures((90, 120), (110, 80))
TARGETS = [
    target([10, 10, 60, 50], [30, 20, 110, 85], labels=[0, 2]),
    target([5, 40, 70, 100], size=(110, 80), labels=[1]),
]
# For each map of a detector that has its own layers for each: objects of many sizes.
SIZES = [i / 20 for i in range(1, 20)]
NESTED = [
    target(
        *([60 - 60 * s, 45 - 45 * s, 60 + 60 * s, 45 + 45 * s] for s in SIZES),
        *([0, 0, 120 * s, 90 * s] for s in SIZES),
    ),
    TARGETS[1],
]
NOTHING = [target(), target(size=(110, 80))]


def test_there_are_detectors():
    assert {
        "faster_rcnn",
        "mask_rcnn",
        "refinedet320",
        "refinedet512",
        "retinanet",
        "ssd300",
        "ssd512",
        "yolov1",
        "yolov2",
        "yolov3",
        "yolov3_tiny",
        "faster_rcnn v2",
        "retinanet v2",
    } <= set(DETECTORS)
    assert second("faster_rcnn").keys() >= {"rpn_depth", "fpn_norm", "head_convs", "head_norm"}


@pytest.mark.parametrize("name", DETECTORS)
class TestDetector:
    def test_gives_losses_and_predictions_in_both_modes(self, name):
        model = build(name)
        for mode in (True, False):
            model.train(mode)
            losses = model(IMAGES, TARGETS)
            assert losses and finite(losses)
            with torch.no_grad():
                predictions = model(IMAGES)
            assert len(predictions) == 2
            assert mode or all(len(p["scores"]) for p in predictions)
            for image, p in zip(IMAGES, predictions, strict=True):
                assert (
                    {"boxes", "scores", "labels"}
                    <= set(p)
                    <= {"boxes", "scores", "labels", "masks"}
                )
                if "masks" in p:
                    assert p["masks"].dtype == torch.bool
                    assert p["masks"].shape == (len(p["scores"]), *image.shape[1:])
                assert p["boxes"].shape == (len(p["scores"]), 4)
                assert len(p["scores"]) == len(p["labels"])
                assert (p["scores"].diff() <= 0).all()
                assert ((p["labels"] >= 0) & (p["labels"] < 3)).all()
                assert (p["boxes"] >= 0).all()
                assert (p["boxes"][:, 2] <= image.shape[2] + 1e-3).all()
                assert (p["boxes"][:, 3] <= image.shape[1] + 1e-3).all()

    def test_every_parameter_gets_a_gradient(self, name):
        model = build(name)
        check_training(model, IMAGES, NESTED)
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []

    @pytest.mark.parametrize("mode", ["train", "eval"])
    @pytest.mark.parametrize("empty", ["one", "all"])
    def test_pictures_without_objects(self, name, empty, mode):
        model = build(name).train(mode == "train")
        check_training(model, IMAGES, [NOTHING[0], TARGETS[1]] if empty == "one" else NOTHING)
        # As one process of several does, so that all have the same gradients to share.
        assert all(p.grad is not None for p in model.parameters())

    @pytest.mark.parametrize("count", [1, 300])
    def test_one_and_three_hundred_objects_of_one_class(self, name, count):
        model = build(name, num_classes=1)
        check_training(model, IMAGES[:1], [random_target(count)])
        with torch.no_grad():
            found = model.eval()(IMAGES[:1])[0]
        assert len(found["labels"]) and (found["labels"] == 0).all()

    def test_pictures_of_very_different_sizes(self, name):
        sizes = [(12, 150), (150, 12), (64, 64), (300, 200)]
        model, images = build(name), pictures(*sizes)
        targets = [target([2, 3, 10, 11], size=size) for size in sizes]
        check_training(model, images, targets)
        with torch.no_grad():
            found = model.eval()(images)
        for (height, width), p in zip(sizes, found, strict=True):
            assert len(p["boxes"]) and torch.isfinite(p["boxes"]).all()
            limit = torch.tensor([width, height, width, height]) + 1e-3
            assert ((p["boxes"] >= 0) & (p["boxes"] <= limit)).all()

    def test_the_same_seed_gives_the_same_losses(self, name):
        model, seen = build(name), []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            with torch.no_grad():
                seen.append(model(IMAGES, TARGETS))
        assert all(torch.equal(seen[0][key], seen[1][key]) for key in seen[0])
        differ = [key for key in seen[0] if not torch.equal(seen[0][key], seen[2][key])]
        # Another seed draws other anchors and regions, or drops other units, where any are drawn.
        draws = known(name.partition(" ")[0], {"rpn_samples": 0, "dropout": 0})
        assert bool(differ) is bool(draws)

    def test_validation_losses_repeat_and_leave_the_generator_alone(self, name):
        model = build(name).eval()
        state = torch.get_rng_state()
        with torch.no_grad():
            first, second = model(IMAGES, TARGETS), model(IMAGES, TARGETS)
        assert all(torch.equal(first[k], second[k]) for k in first)
        assert torch.equal(state, torch.get_rng_state())

    def test_a_crowd_is_never_positive(self, name):
        """A crowd over the whole picture leaves nothing that could be background either."""
        model = build(name).eval()
        seen = []
        crowd = target([0, 0, 120, 90], iscrowd=torch.tensor([True]))
        regions = []

        def look(stage, value):
            if "matched" in stage:
                seen.append(value.matches)
            elif "labels" in stage:
                regions.append(value[1])

        with watch(look):
            losses = model(IMAGES[:1], [crowd])
        assert finite(losses)
        assert seen  # RefineDet matches twice
        assert all((matches < 0).all() for matches in seen)
        assert all((matches == -2).any() for matches in seen)
        assert all((labels == 3).all() for labels in regions)  # background, if any

    def test_the_class_of_a_crowd_counts_for_nothing(self, name):
        model, seen = build(name).eval(), []
        for label in (0, 1):
            mixed = target(
                [10, 10, 60, 50], [30, 20, 110, 85], labels=[2, label],
                iscrowd=torch.tensor([False, True]),
            )  # fmt: skip
            with torch.no_grad():
                seen.append(model(IMAGES[:1], [mixed]))
        assert all(torch.equal(seen[0][key], seen[1][key]) for key in seen[0])
        with torch.no_grad():
            counted = model(IMAGES[:1], [mixed | {"iscrowd": torch.tensor([False, False])}])
        assert not torch.equal(counted["classification"], seen[0]["classification"])

    def test_nothing_but_a_crowd_in_training(self, name):
        """No anchor and no region is left to sample."""
        model = build(name)
        crowd = target([0, 0, 120, 90], iscrowd=torch.tensor([True]))
        check_training(model, IMAGES[:1], [crowd])
        assert all(torch.isfinite(buffer).all() for buffer in model.buffers())

    def test_masks_change_nothing_where_none_are_wanted(self, name):
        model = build(name).eval()
        bare = [{k: v for k, v in t.items() if k != "masks"} for t in TARGETS]
        try:
            with torch.no_grad():
                without = model(IMAGES, bare)
        except EyelineError as error:
            assert "mask" in str(error)
            return
        with torch.no_grad():
            losses = model(IMAGES, TARGETS)
        assert losses.keys() == without.keys()
        assert all(torch.equal(losses[key], without[key]) for key in losses)

    def test_a_batch_equals_its_pictures_one_by_one(self, name):
        """Padding may be seen by the convolutions, so pictures of one size are compared."""
        model = build(name).eval()
        for parameter in model.parameters():  # lest scores be equal, at 0 or at 1
            parameter.data.add_(0.01 * torch.randn_like(parameter))
        images = pictures((96, 128), (96, 128))
        with torch.no_grad():
            together = model(images)
            alone = [model([image])[0] for image in images]
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a["boxes"], b["boxes"], atol=1e-2, rtol=0)
            torch.testing.assert_close(a["scores"], b["scores"], atol=1e-4, rtol=0)

    def test_a_prepared_batch_is_accepted(self, name):
        model = build(name).eval()
        batch = model.prepare(IMAGES, TARGETS)
        assert isinstance(batch, Batch)
        with torch.no_grad():
            ours, theirs = model(batch), model(IMAGES, TARGETS)
            found, expected = model(model.prepare(IMAGES)), model(IMAGES)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        for a, b in zip(found, expected, strict=True):
            assert a.keys() == b.keys() and len(a["scores"])
            assert all(torch.equal(a[key], b[key]) for key in a)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast_gives_no_nan(self, name, dtype):
        model = build(name)
        images, targets = pictures((64, 64)), [target([10, 10, 50, 60], size=(64, 64))]
        targets[0]["resized"] = torch.tensor(True)  # float16 is slow here: kept small
        check_training(model, images, targets, dtype)
        with torch.no_grad(), torch.autocast("cpu", dtype):
            found = model.eval()(images)
        for p in found:
            assert len(p["scores"]) and p["boxes"].dtype == p["scores"].dtype == torch.float32
            assert torch.isfinite(p["boxes"]).all() and torch.isfinite(p["scores"]).all()

    def test_optimize_folds_every_batch_norm_and_changes_nothing(self, name):
        model = build(name).eval()
        unsettle(model)
        fast = optimize(model)
        assert not any(isinstance(m, (nn.BatchNorm2d, FrozenBatchNorm2d)) for m in fast.modules())
        batch = model.prepare(IMAGES)
        with torch.no_grad():
            ours, theirs = model.compute(batch), fast.compute(batch)
        assert ours.valid.sum() > 10
        torch.testing.assert_close(theirs.scores, ours.scores, atol=1e-4, rtol=0)

    def test_an_optimized_model_gives_the_same_losses(self, name):
        wide = known(name.partition(" ")[0], dict(fpn_channels=128))
        model = build(name, **wide).eval()  # wide enough for every kind of layer
        targets = [random_target(3) for _ in IMAGES[:1]]
        with torch.no_grad():
            plain, fast = model(IMAGES[:1], targets), optimize(model)(IMAGES[:1], targets)
        assert plain.keys() == fast.keys()
        for key, loss in plain.items():
            torch.testing.assert_close(fast[key], loss, rtol=1e-3, atol=1e-4)

    def test_optimize_in_bf16_gives_no_nan(self, name):
        fast = optimize(build(name).eval(), "bf16")
        with torch.no_grad():
            found = fast(IMAGES)
        for p in found:
            assert len(p["scores"])
            assert torch.isfinite(p["boxes"]).all() and torch.isfinite(p["scores"]).all()

    def test_state_dict_round_trip(self, name):
        model, other = build(name).eval(), build(name).eval()
        for parameter in model.parameters():
            parameter.data.add_(0.01 * torch.randn_like(parameter))
        unsettle(model)
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            a, b = model(IMAGES), other(IMAGES)
        assert all(len(x["boxes"]) for x in a)
        assert all(torch.equal(x["boxes"], y["boxes"]) for x, y in zip(a, b, strict=True))

    @pytest.mark.parametrize("channels", [1, 4])
    def test_other_numbers_of_channels(self, name, channels):
        stats = (0.5,) * channels
        model = build(name, in_channels=channels, image_mean=stats, image_std=stats)
        first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
        assert first.in_channels == channels
        assert finite(model([torch.rand(channels, 90, 120)], TARGETS[:1]))

    @pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
    def test_norms(self, name, norm):
        assert all(v.isfinite() for v in build(name, norm=norm)(IMAGES, TARGETS).values())

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (dict(targets=[target([10, 10, 10, 50])]), "picture 0: boxes"),
            (dict(targets=[target([1, 1, 9, 9], labels=[3])]), "label 3 is not in 0 .. 2"),
            (dict(targets=[target([1, 1, float("nan"), 9])]), "picture 0: boxes"),
            (dict(targets=[]), "1 pictures came with 0 targets"),
            (dict(images=[torch.zeros(1, 9, 9)]), r"shape \(1, 9, 9\)"),
        ],
    )
    def test_bad_input_is_named(self, name, bad, message):
        model = build(name)
        arguments = dict(images=IMAGES[:1], targets=TARGETS[:1]) | bad
        with pytest.raises(EyelineError, match=message):
            model(arguments["images"], arguments["targets"])

    def test_a_threshold_of_zero_keeps_everything(self, name):
        model = build(name, score_threshold=0.0, nms_iou=1.0).eval()
        with torch.no_grad():
            assert len(model(IMAGES[:1])[0]["scores"]) == model.config.max_detections

    def test_boxes_may_be_whole_numbers(self, name):
        model = build(name).eval()
        whole = TARGETS[0] | {"boxes": TARGETS[0]["boxes"].long()}
        with torch.no_grad():
            assert model(IMAGES[:1], [whole]) == model(IMAGES[:1], TARGETS[:1])

    def test_a_misspelt_choice_is_named(self, name):
        with pytest.raises(EyelineError, match="norm must be one of"):
            build(name, norm="batchnorm")

    def test_unknown_options_suggest_the_nearest(self, name):
        with pytest.raises(EyelineError, match="did you mean backbone"):
            build(name, bakbone="resnet18")


def conventions(name):
    return sys.modules[find(name).build.__module__].CONVENTIONS


# A second version is torchvision's; where there is one, it stands for that convention. As many
# samples of a bin as a region has cells, detectron2's way, have no fixed shapes. What differs in
# numbers alone, or stands in the file of another model, is not compiled again.
COMPILED = [
    pytest.param(
        f"{name} v2" if second(name) and convention == "torchvision" else name,
        convention,
        marks=[pytest.mark.slow] if i else [],  # of each detector its paper's, always
    )
    for name in NAMES
    for i, (convention, options) in enumerate(conventions(name).items())
    if options.get("sampling_ratio") != 0
    and convention != "yhenon"
    and not (convention == "mmdetection" and name in ("ssd512", "yolov3_tiny"))
]


@pytest.mark.parametrize(("name", "convention"), COMPILED)
def test_compute_has_fixed_shapes_when_compiled_whole(name, convention):
    """`fullgraph=True`: no break, so no host synchronisation and no branch on a tensor."""
    model = build(name, convention=convention, score_threshold=0.01, max_detections=20).eval()
    batch = model.prepare(IMAGES)
    torch._dynamo.reset()
    compiled = torch.compile(model.compute, fullgraph=True, backend="eager")
    with torch.no_grad():
        ours, theirs = model.compute(batch), compiled(batch)
    assert theirs.boxes.shape == (2, 20, 4)
    assert ours.valid.any()
    for a, b in zip(model.finish(ours, batch), model.finish(theirs, batch), strict=True):
        torch.testing.assert_close(a["boxes"], b["boxes"], atol=1e-3, rtol=0)
        torch.testing.assert_close(a["scores"], b["scores"], atol=1e-5, rtol=0)
        assert torch.equal(a["labels"], b["labels"])

"""One suite over every registered detector."""

from __future__ import annotations

import pytest
import torch

from eyeline.errors import EyelineError
from eyeline.note import watch
from eyeline.registry import find, list_models
from eyeline.structures import Batch

DETECTORS = list_models("detection")
# The threshold lies below what a fresh network says, so that there is something to look at.
SMALL = dict(num_classes=3, backbone="resnet18", min_size=96, max_size=128, score_threshold=0.001)


def build(name, **options):
    torch.manual_seed(0)
    return find(name).build(**{**SMALL, **options})


def pictures(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes
    ]


def target(*boxes, labels=None, size=(90, 120), **more):
    """With masks, for the models that need some: ellipses in the boxes."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(boxes), dtype=torch.int64) if labels is None else torch.tensor(labels)
    return {"boxes": boxes, "labels": labels, "masks": ellipses(boxes, size), **more}


def ellipses(boxes, size):
    y, x = (torch.arange(side) + 0.5 for side in size)
    middle, radius = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    across = ((x - middle[:, :1]) / radius[:, :1]) ** 2  # (G, W)
    down = ((y - middle[:, 1:]) / radius[:, 1:]) ** 2  # (G, H)
    return down[:, :, None] + across[:, None] <= 1


IMAGES = pictures((90, 120), (110, 80))
TARGETS = [
    target([10, 10, 60, 50], [30, 20, 110, 85], labels=[0, 2]),
    target([5, 40, 70, 100], labels=[1], size=(110, 80)),
]


def test_there_are_detectors():
    assert {"faster_rcnn", "mask_rcnn", "retinanet"} <= set(DETECTORS)


@pytest.mark.parametrize("name", DETECTORS)
class TestDetector:
    def test_gives_losses_and_predictions_in_both_modes(self, name):
        model = build(name)
        for mode in (True, False):
            model.train(mode)
            losses = model(IMAGES, TARGETS)
            assert losses and all(v.ndim == 0 and torch.isfinite(v) for v in losses.values())
            with torch.no_grad():
                predictions = model(IMAGES)
            assert len(predictions) == 2
            assert mode or all(len(p["scores"]) for p in predictions)
            for image, p in zip(IMAGES, predictions, strict=True):
                assert set(p) == {"boxes", "scores", "labels", *["masks"] * model.needs_masks}
                if model.needs_masks:
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
        sum(model(IMAGES, TARGETS).values()).backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []

    @pytest.mark.parametrize("empty", ["one", "all"])
    def test_pictures_without_objects(self, name, empty):
        model = build(name)
        none = [target(), target(size=(110, 80))]
        targets = [none[0], TARGETS[1]] if empty == "one" else none
        losses = model(IMAGES, targets)
        sum(losses.values()).backward()
        assert all(torch.isfinite(v) for v in losses.values())

    def test_three_hundred_objects_and_one_class(self, name):
        model = build(name, num_classes=1)
        corners = torch.rand(300, 2) * torch.tensor([90.0, 60.0])
        boxes = torch.cat([corners, corners + 5 + 20 * torch.rand(300, 2)], 1)
        many = target(*boxes.tolist())
        losses = model(IMAGES[:1], [many])
        assert all(torch.isfinite(v) for v in losses.values())

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
        with watch(lambda stage, value: seen.append(value) if "matched" in stage else None):
            model(IMAGES[:1], [crowd])
        assert len(seen) == 1
        assert (seen[0] < 0).all()
        assert (seen[0] == -2).any()

    def test_a_batch_equals_its_pictures_one_by_one(self, name):
        """Padding may be seen by the convolutions, so pictures of one size are compared."""
        model = build(name, score_threshold=0.01).eval()
        images = pictures((96, 128), (96, 128))
        with torch.no_grad():
            together = model(images)
            alone = [model([image])[0] for image in images]
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a["boxes"], b["boxes"], atol=1e-2, rtol=0)
            torch.testing.assert_close(a["scores"], b["scores"], atol=1e-5, rtol=0)

    def test_a_prepared_batch_is_accepted(self, name):
        model = build(name).eval()
        batch = model.prepare(IMAGES, TARGETS)
        assert isinstance(batch, Batch)
        with torch.no_grad():
            assert model(batch).keys() == model(IMAGES, TARGETS).keys()

    def test_autocast_gives_finite_losses(self, name):
        model = build(name)
        with torch.autocast("cpu", torch.bfloat16):
            losses = model(IMAGES, TARGETS)
        sum(losses.values()).backward()
        assert all(torch.isfinite(v) for v in losses.values())

    def test_state_dict_round_trip(self, name):
        model, other = build(name).eval(), build(name).eval()
        for parameter in model.parameters():
            parameter.data.add_(0.01 * torch.randn_like(parameter))
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            a, b = model(IMAGES), other(IMAGES)
        assert all(len(x["boxes"]) for x in a)
        assert all(torch.equal(x["boxes"], y["boxes"]) for x, y in zip(a, b, strict=True))

    @pytest.mark.parametrize("channels", [1, 4])
    def test_other_numbers_of_channels(self, name, channels):
        stats = (0.5,) * channels
        model = build(name, in_channels=channels, image_mean=stats, image_std=stats)
        assert model([torch.rand(channels, 90, 120)], TARGETS[:1])

    @pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
    def test_norms(self, name, norm):
        assert all(v.isfinite() for v in build(name, norm=norm)(IMAGES, TARGETS).values())

    @pytest.mark.parametrize("convention", ["paper", "torchvision"])
    def test_compute_has_fixed_shapes_when_compiled_whole(self, name, convention):
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
        model = build(name, score_threshold=0.0).eval()
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

"""Preprocess, and the way back."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eyeline import create_model
from eyeline.data.transforms import MultiScale
from eyeline.errors import EyelineError
from eyeline.nn.detector import Detector, Preprocess, prepare_of
from eyeline.ops.resize import fitted_size
from eyeline.structures import Padded
from eyeline.training.freezing import freeze

PLAIN = Preprocess(2, 240, 320, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def test_fitted_size_keeps_the_aspect_within_both_bounds():
    assert fitted_size((480, 640), 240, 320) == (240, 320)
    assert fitted_size((480, 640), 800, 1333) == (800, 1066)
    assert fitted_size((100, 1000), 800, 1333) == (133, 1333)
    assert fitted_size((1, 5000), 800, 1333) == (1, 1333)


def test_pictures_are_padded_right_and_below():
    batch = PLAIN([torch.full((3, 480, 640), 255, dtype=torch.uint8), torch.ones(3, 480, 480)])
    assert batch.images.shape == (2, 3, 256, 320)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.sizes.tolist() == [[240, 320], [240, 240]]
    assert batch.original_sizes.tolist() == [[480, 640], [480, 480]]
    assert (batch.images[1, :, :240, :240] == 1).all()
    assert (batch.images[1, :, 240:] == 0).all()
    assert (batch.images[1, :, :, 240:] == 0).all()


def test_halving_takes_the_mean_of_four_pixels():
    image = torch.rand(3, 480, 640)
    expected = image.unflatten(1, (240, 2)).unflatten(3, (320, 2)).mean((2, 4))
    torch.testing.assert_close(PLAIN([image]).images[0, :, :240], expected, atol=1e-6, rtol=0)


def test_normalises_by_mean_and_deviation():
    preprocess = Preprocess(2, 32, 32, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    pixel = preprocess([torch.full((3, 32, 32), 0.5)]).images[0, :, 5, 5]
    torch.testing.assert_close(pixel, torch.tensor([0.4, 0.15, 0.05]))


@pytest.mark.parametrize("size", [(96, 200), (60, 60), (31, 500)])
@pytest.mark.parametrize("interleaved", [True, False])
def test_a_batch_equals_its_plain_making(size, interleaved):
    """Of pictures that grow, shrink and stay, in either layout of memory, whole or cut out."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocess = Preprocess(2, *size, mean, std)
    images = [torch.randint(256, (3, *hw), dtype=torch.uint8) for hw in ((40, 70), (96, 150))]
    images += [torch.rand(3, 210, 130), torch.rand(3, 200, 300)[:, 20:80, 30:99]]
    if interleaved:
        images = [image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in images]
    batch = preprocess(images)
    expected = torch.zeros_like(batch.images)
    for slot, image in zip(expected, images, strict=True):
        new = fitted_size(tuple(image.shape[1:]), *size)
        pixels = image.float().contiguous() / (255 if image.dtype == torch.uint8 else 1)
        pixels = F.interpolate(pixels[None], size=new, mode="bilinear")[0]
        pixels = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        slot[:, : new[0], : new[1]] = pixels
    torch.testing.assert_close(batch.images, expected, atol=2e-6, rtol=0)


def test_boxes_go_there_and_back():
    boxes = torch.tensor([[10.0, 20.0, 300.0, 401.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1])}]
    batch = PLAIN([torch.zeros(3, 479, 641)], targets)
    scaled = batch.targets[0]["boxes"]
    height, width = batch.sizes[0].tolist()
    torch.testing.assert_close(scaled[0, 2], torch.tensor(300 * width / 641))
    torch.testing.assert_close(scaled[0, 3], torch.tensor(401 * height / 479))
    padded = Padded(
        torch.cat([scaled, scaled])[None], torch.tensor([[0.5, 0.4]]),
        torch.tensor([[1, 1]]), torch.tensor([[True, False]]),
    )  # fmt: skip
    (result,) = Detector().finish(padded, batch)
    torch.testing.assert_close(result["boxes"], boxes)
    assert result["scores"].tolist() == [0.5]


def test_a_resized_picture_goes_in_as_it_is():
    rng = np.random.default_rng(0)
    image = torch.zeros(3, 480, 640, dtype=torch.uint8)
    target = {"boxes": torch.tensor([[64.0, 48, 128, 96]]), "labels": torch.tensor([1])}
    sizes = set()
    for _ in range(20):
        small, moved = MultiScale((96, 120, 160), 1000)(image, target, rng)
        batch = PLAIN([small], [moved])
        height, width = batch.sizes[0].tolist()
        sizes.add(height)
        wanted = torch.tensor([0.1 * width, 0.1 * height, 0.2 * width, 0.2 * height])
        torch.testing.assert_close(batch.targets[0]["boxes"][0], wanted)
    assert sizes == {96, 120, 160}
    assert PLAIN([image]).sizes.tolist() == [[240, 320]]  # at test the network's own size


def test_a_batch_carries_its_targets():
    model = Detector()
    model.preprocess = PLAIN
    target = {"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": torch.tensor([0])}
    batch = model.prepare([torch.zeros(3, 20, 30)], [target])
    assert model.prepare(batch) is batch
    with pytest.raises(EyelineError, match="a Batch carries its targets"):
        model.prepare(batch, [target])


@pytest.mark.parametrize(
    ("key", "value"),
    [("min_size", "abc"), ("min_size", 1.5), ("rpn_beta", True), ("proposals", [1, 2, 3]),
     ("anchor_rounded", 1), ("image_mean", 0.5)],
)  # fmt: skip
def test_options_have_types(key, value):
    with pytest.raises(EyelineError, match=f"{key} must be .*, not"):
        create_model("faster_rcnn", num_classes=2, **{key: value})


def test_a_size_for_each_level():
    with pytest.raises(EyelineError, match="anchor_sizes are 5 positive numbers"):
        create_model("retinanet", num_classes=2, backbone="resnet18", anchor_sizes=[16, 32])


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (torch.ones(3, 8, 8, dtype=torch.int64), "picture 1 has values of torch.int64; give uint8"),
        (torch.ones(3, 8, 8, dtype=torch.bool), "picture 1 has values of torch.bool; give uint8"),
        (torch.linspace(0, 255, 192).view(3, 8, 8), "picture 1 has values from 0 to 255, not 0"),
        (torch.linspace(-2, 1, 192).view(3, 8, 8), "picture 1 has values from -2 to 1, not 0 to 1"),
        (torch.full((3, 8, 8), torch.nan), "picture 1 has values from nan to nan, not 0 to 1"),
    ],
)
def test_pictures_of_other_values_are_named(image, told):
    with pytest.raises(EyelineError) as caught:
        PLAIN([torch.zeros(3, 8, 8), image])
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_rounding_may_exceed_the_range(dtype):
    image = torch.full((3, 240, 240), 1.0, dtype=dtype)
    image[0, 0, 0] = 1.0005
    assert PLAIN([image]).images.dtype == torch.float32


def test_workers_get_no_model():
    model = create_model("retinanet", num_classes=2, backbone="resnet18", size=64)
    freeze(model, ["backbone"])  # which such a model cannot be pickled with
    prepare = prepare_of(model)
    sent = pickle.dumps(prepare)
    assert len(sent) < 2000
    targets = [{"boxes": torch.tensor([[1.0, 2, 30, 40]]), "labels": torch.tensor([1])}]
    images = [torch.rand(3, 50, 60)]
    ours, theirs = model.prepare(images, targets), pickle.loads(sent)(images, targets)
    assert torch.equal(ours.images, theirs.images)
    assert torch.equal(ours.targets[0]["boxes"], theirs.targets[0]["boxes"])


def test_a_prepare_of_its_own_is_called():
    class Own(Detector):
        def prepare(self, images, targets=None):
            return "own"

    class Plain(torch.nn.Module):
        prepare = Own.prepare

    assert prepare_of(Own())([]) == prepare_of(Plain())([]) == "own"
    assert prepare_of(torch.nn.Identity()) is None

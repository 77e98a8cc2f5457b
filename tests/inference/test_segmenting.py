"""A Predictor with a segmenter: pictures to maps, whole, in tiles, at several sizes."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from PIL import Image
from tests.inference.toy_segmenter import CLASSES, bands, toy

from eyeline.errors import EyelineError
from eyeline.export import calibrate
from eyeline.inference import Predictor
from eyeline.inference.segmenting import Looking, Looks


@pytest.fixture(scope="module")
def model():
    return toy()


def test_pictures_of_every_kind_become_maps(model, tmp_path):
    predictor = Predictor(model)
    image, truth = bands()
    array = image.permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "a.png")
    for source in (image, array, Image.fromarray(array), tmp_path / "a.png", image / 255):
        result = predictor(source)
        assert result.map.dtype == torch.uint8 and result.classes == CLASSES
        assert result.image.dtype == torch.uint8
        # The toy sees every second pixel: those beside a border may be of either side.
        inner = torch.ones(36, dtype=torch.bool)
        inner[[11, 12, 23, 24]] = False
        assert torch.equal(result.map[:, inner].long(), truth[:, inner])
        assert result.logits is None
    assert predictor(tmp_path / "a.png").path == str(tmp_path / "a.png")


def test_pictures_that_share_a_batch_are_not_padded(model):
    """Each result is that of the picture alone."""
    predictor = Predictor(model, logits=True)
    images = [bands()[0], bands(30, 17)[0], bands(30, 17, 5)[0], bands()[0] / 255]
    together = predictor(images, batch_size=4)
    for image, result in zip(images, together, strict=True):
        alone = predictor(image)
        assert torch.equal(alone.map, result.map)
        torch.testing.assert_close(result.logits, alone.logits)
        assert result.logits.argmax(0).equal(result.map.long())
        torch.testing.assert_close(result.probabilities.sum(0), torch.ones(result.map.shape))


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_every_precision_finds_the_classes(model, precision):
    image, truth = bands()
    ranges = calibrate(model, [[image]]) if precision == "int8" else None
    result = Predictor(model, precision=precision, ranges=ranges)(image)
    assert (result.map == truth).float().mean() > 0.85


def test_tiles_blend_to_what_the_whole_gives(model):
    image, _ = bands(100, 150)
    whole = Predictor(model, logits=True)(image)
    tiled = Predictor(model, tile=64, overlap=0.5, logits=True)(image)
    # A tile ends with zeros where the picture goes on: the last pixel of it differs a little.
    assert (tiled.map == whole.map).float().mean() > 0.97
    assert torch.equal(Predictor(model, tile=64, overlap=0.5)(image).map, tiled.map)


def test_flips_and_scales_are_averaged(model):
    image, truth = bands(48, 72)
    plain = Predictor(model, logits=True)(image)
    flipped = Predictor(model, flip=True, logits=True)(image)
    mean = (
        plain.probabilities + Predictor(model, logits=True)(image.flip(-1)).probabilities.flip(-1)
    ) / 2
    torch.testing.assert_close(flipped.probabilities, mean, rtol=1e-4, atol=1e-5)
    scaled = Predictor(model, scales=(0.5, 1, 1.5), flip=True)(image)
    assert (scaled.map == truth).float().mean() > 0.85


def test_a_model_that_resizes_sees_its_scales():
    """What it is shown is its own size times the scale; maps have the picture's."""
    image, truth = bands(48, 72)
    sized = toy(min_size=24, max_size=100)
    predictor = Predictor(sized, scales=(1, 2))
    seen = []
    predictor.model.plain.conv.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[2:]))
    result = predictor(image)
    assert seen == [(24, 36), (48, 72)] and result.map.shape == (48, 72)
    assert (result.map == truth).float().mean() > 0.85
    assert sized.preprocess.min_size == 24  # the caller's model is as it was
    with pytest.raises(EyelineError, match=r"resizes every picture \(shorter side 24"):
        Predictor(sized, tile=64)


def test_streams_and_asyncio(model):
    image, _ = bands()
    predictor = Predictor(model)
    assert [r.map.shape for r in predictor.stream([image, image])] == [(24, 36)] * 2

    async def both():
        async with predictor:
            return await asyncio.gather(*(predictor.apredict(image) for _ in range(2)))

    assert all(torch.equal(r.map, predictor(image).map) for r in asyncio.run(both()))


def test_other_channels_than_three():
    """Of a picture of four channels the first three are drawn."""
    model = toy(False, in_channels=4, image_mean=(0.5,) * 4, image_std=(0.2,) * 4)
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 4), dtype=np.uint8)
    result = Predictor(model)(picture)
    assert result.map.shape == (20, 30) and result.image.shape == (4, 20, 30)
    assert result.plot().width == 30 * 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(tta=True), "tta is for detectors; this model gives each pixel a class"),
        (dict(score_threshold=0.3), "score_threshold is for detectors"),
        (dict(nms_iou=0.3), "nms_iou is for detectors"),
        (dict(scale=2), "unknown option 'scale'"),
        (dict(overlap=0.3), "overlap is that of tiles; give tile, too"),
        (dict(scales=(0,)), "scales are factors from 0.1 to 10, not 0"),
        (dict(scales=(1, 1e9)), "factors from 0.1 to 10, not 1, 1e\\+09"),
        (dict(tile=33), "no multiple of 32"),
        (dict(classes=["a"]), "1 class names given, but the model has 3"),
    ],
)
def test_options_that_cannot_be_meant(model, options, words):
    with pytest.raises(EyelineError, match=words):
        Predictor(model, **options)


def test_a_detector_takes_no_tiles():
    class Detector(torch.nn.Module):
        classes = ("a",)
        compute = None

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 1)

    for options in (dict(tile=512), dict(flip=True), dict(logits=True), dict(scales=(1, 2))):
        with pytest.raises(EyelineError, match="is for segmenters; this model finds boxes"):
            Predictor(Detector(), **options)


@torch.inference_mode()
def test_a_list_is_computed_in_batches_of_one_size(model):
    """As the evaluation calls it: as many calls as sizes, and each picture's own numbers."""
    seen = []
    hook = model.conv.register_forward_pre_hook(lambda _, x: seen.append(tuple(x[0].shape)))
    images = [bands()[0], bands(30, 17)[0], bands(shift=5)[0], bands(30, 17, 5)[0]]
    found = Looking(model, Looks())(images)
    hook.remove()
    assert seen == [(2, 3, 24, 36), (2, 3, 30, 17)]
    for image, logits in zip(images, found, strict=True):
        torch.testing.assert_close(logits, model(image[None])[0])
    mirrored = Looking(model, Looks(flip=True))
    for image, logits in zip(images, mirrored(images), strict=True):
        torch.testing.assert_close(logits, mirrored(image[None])[0])

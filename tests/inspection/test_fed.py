"""`eyeline data show --augmented` shows what training feeds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from eyeline.data.images import read_image
from eyeline.data.loader import build_loader
from eyeline.data.samples import write_samples
from eyeline.inspection.browse.fed import Fed, Feed, batch_cells, draw_cell, fed_image, page
from eyeline.nn.detector import prepare_of
from eyeline.training.build import build
from eyeline.training.recipe import Recipe, load_recipe

TRANSFORMS = ["hflip", {"multi_scale": {"min_sizes": [64, 80], "max_size": 120}}, "photometric"]


def recipe_of(path: Path, name: str = "retinanet", **more: object) -> Recipe:
    values = {
        "model": {"name": name, "backbone": "resnet18", "size": 64},
        "data": {"path": str(path), "transforms": TRANSFORMS, "val": None},
        "batch_size": 3, "seed": 7,
    }  # fmt: skip
    return load_recipe(values | more)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("set") / "digits", train=8, val=2, size=64)


@pytest.mark.parametrize("name", ["retinanet", "mask_rcnn"])
def test_draws_and_batches_are_those_of_training(digits: Path, name: str) -> None:
    recipe = recipe_of(digits, name)
    feed = Feed(recipe)
    # As `train` does it.
    model, dataset, _ = build(recipe)
    loader = build_loader(dataset, 3, prepare_of(model), True, 0, 7, False)
    pictures, differing = 0, 0
    for epoch in (0, 2):
        loader.set_epoch(epoch)
        shown = list(feed.batches(epoch, 3))
        keys = list(loader.batch_sampler)
        for (indices, own), batch, listed in zip(shown, loader, keys, strict=True):
            assert indices == [index for _, index in listed]
            assert torch.equal(own.images, batch.images)
            for i, index in enumerate(indices):
                fed = feed.draw(index, epoch)
                target = batch.targets[i]
                assert torch.equal(fed.target["boxes"], target["boxes"])
                assert ("masks" in target) == (name == "mask_rcnn")
                if "masks" in target:
                    assert torch.equal(fed.target["masks"], target["masks"])
                height, width = batch.sizes[i].tolist()
                assert fed.image.shape == (3, height, width)
                whole = feed.shown(batch.images[i])[:, :height, :width]
                assert torch.equal(fed.image, whole)
                pictures += 1
                first = feed.draw(index, epoch + 1).image
                differing += first.shape != whole.shape or not torch.equal(first, whole)
    assert pictures == 16 and differing > 8


def test_normalisation_is_undone(digits: Path) -> None:
    recipe = recipe_of(digits, data={"path": str(digits), "transforms": [], "val": None})
    feed = Feed(recipe)
    path = feed.dataset.annotations.records[3].path
    assert torch.allclose(feed.draw(3, 0).image, read_image(path).float() / 255, atol=1e-5)


def test_padding_is_striped_and_the_rest_is_not(digits: Path) -> None:
    feed = Feed(recipe_of(digits))
    ((indices, batch),) = feed.batches(0, 1)
    assert batch.sizes.unique().numel() > 1  # multi_scale draws two sizes
    small = int(batch.sizes[:, 0].argmin())
    cell = batch_cells(feed, indices, batch)[small]
    pixels = np.asarray(cell.image).astype(int)
    dark = (pixels == (28, 33, 38)).all(-1)
    height, width = batch.sizes[small].tolist()
    edge = round(height * cell.image.height / batch.images.shape[2])
    assert 0.2 < dark[edge:].mean() < 0.45 and not dark[: edge - 1, : edge - 1].any()
    share = 1 - height * width / batch.images[0, 0].numel()
    assert f"{share:.0%} padding" in cell.lines[1]


def test_keypoints_are_drawn() -> None:
    target = {
        "boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64),
        "iscrowd": torch.zeros(0, dtype=torch.bool),
        "keypoints": torch.tensor([[[10.0, 20.0, 2.0], [70.0, 60.0, 0.0]]]),
    }  # fmt: skip
    image = fed_image(Fed(torch.full((3, 80, 100), 0.5), target), [])
    pixels = np.asarray(image)
    scale = image.width / 100
    assert (pixels[round(20 * scale), round(10 * scale)] == 255).all()
    assert abs(pixels[round(60 * scale), round(70 * scale)].astype(int) - 128).max() < 3


def test_the_page_shows_originals_draws_and_batches(digits: Path) -> None:
    feed = Feed(recipe_of(digits))
    html = page(feed, [1, 4], draws=3, batches=2, title="digits")
    assert html.count("<img") == 2 * (1 + 3) + 2 * 3
    assert html.count("<figcaption>") == html.count('alt="') == 14
    names = [feed.name(i) for i in (1, 4)]
    assert all(name in html for name in names)
    assert "6 pictures more are not shown" in html
    assert [cell for cell in re.findall(r"<h3>(.*?)</h3>", html)] == [
        f"Batch {n}: " + " × ".join(map(str, batch.images.shape))
        for n, (_, batch) in enumerate(feed.batches(0, 2), 1)
    ]
    fed = feed.draw(4, 1)
    size = f"{fed.image.shape[2]} x {fed.image.shape[1]}"
    assert f"as fed: {size}" in draw_cell(feed, 4, 1).lines[1]

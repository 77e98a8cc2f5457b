"""What a network is fed in training: each picture several times, as its transforms and the model's
`prepare` leave it, and whole batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import islice

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from eyeline.data.annotated import AnnotatedPictures
from eyeline.data.images import read_image
from eyeline.data.loader import build_loader
from eyeline.data.maps import SegmentationDataset
from eyeline.errors import EyelineError
from eyeline.evaluation.html import counted, document, facts, picture_uri
from eyeline.inference.draw import draw_boxes
from eyeline.inference.overlay import paint_map
from eyeline.inspection.browse.drawing import fitted, masks_of
from eyeline.inspection.browse.gather import told_counts, told_shares
from eyeline.inspection.browse.sheet import Cell
from eyeline.nn.detector import Preprocess, as_float, prepare_of
from eyeline.ops.labels import IGNORE
from eyeline.structures import Batch, Target
from eyeline.training.build import build
from eyeline.training.checks import check_data
from eyeline.training.recipe import Recipe

LETTERS = 18  # the page shows the pictures smaller
DOT = 3  # radius of a keypoint in pixels
PADDING = 14  # pixels from stripe to stripe over the padding of a batch
CSS = """
body { max-width: 110rem; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr));
  gap: 1.2rem 1rem; align-items: start; margin-bottom: 2rem; }
.row img { display: block; max-width: 100%; height: auto; border-radius: .2rem; }
"""


@dataclass
class Fed:
    """A picture as a network gets it."""

    image: Tensor  # (3, H, W) float in [0, 1], its normalisation undone
    target: Target  # in the pixels of `image`


class Feed:
    """The training pictures of a recipe, in the order and with the draws that training will have.

    Raises:
        EyelineError: as `train_recipe` does before its first step.
    """

    def __init__(self, recipe: Recipe) -> None:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"val": None})})
        self.recipe = recipe
        self.model, dataset, _ = build(recipe)
        check_data(self.model, dataset, None)
        if not isinstance(dataset, AnnotatedPictures):
            raise EyelineError(f"{type(dataset).__name__} does not tell its pictures' names")
        self.dataset = dataset
        preprocess = getattr(self.model, "preprocess", None)
        self.prepare = prepare_of(self.model)
        if self.prepare is None or not isinstance(preprocess, Preprocess):
            raise EyelineError(
                f"{type(self.model).__name__} prepares its pictures in a way of its own, which "
                "cannot be undone for you to see; give a model with a `preprocess`"
            )
        self.preprocess = preprocess
        self.loader = build_loader(
            dataset, recipe.batch_size, self.prepare, True, 0, recipe.seed,
            recipe.data.aspect_grouping, recipe.data.sizes, recipe.data.sizes_every,
        )  # fmt: skip

    def draw(self, index: int, epoch: int) -> Fed:
        """The picture of that index, as the network gets it in that epoch (from 0), without the
        padding that other pictures of its batch may bring."""
        image, target = self.loader.dataset[epoch, index]
        assert self.prepare is not None
        return self.unpadded(self.prepare([image], [target]), 0)

    def batches(self, epoch: int, count: int) -> Iterator[tuple[list[int], Batch]]:
        """The first batches of an epoch, each with the indices of its pictures."""
        self.loader.set_epoch(epoch)
        keys = list(self.loader.batch_sampler)
        for listed, batch in zip(keys[:count], islice(self.loader, count), strict=True):
            yield [key[1] for key in listed], batch

    def unpadded(self, batch: Batch, i: int) -> Fed:
        assert batch.targets is not None
        return Fed(batch.inside(i, self.shown(batch.images[i])), batch.targets[i])

    def shown(self, image: Tensor) -> Tensor:
        """Normalised (3, H, W) back to [0, 1]."""
        pre = self.preprocess
        mean, std = (torch.tensor(v)[:, None, None] for v in (pre.mean, pre.std))
        return (image * std + mean).clamp(0, 1)

    def name(self, index: int) -> str:
        return self.dataset.annotations.records[index].path.name


def key_of(feed: Feed, pictures: Sequence[int]) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """Names, labels and areas for the key of a sheet of these pictures."""
    dataset = feed.dataset
    records = [dataset.annotations.records[i] for i in pictures]
    if not isinstance(dataset, SegmentationDataset):
        return dataset.classes, np.concatenate([record.labels for record in records]), None
    sizes = [(record.height, record.width) for record in records]
    maps = [dataset.classes_of(r, size).ravel() for r, size in zip(records, sizes, strict=True)]
    counts = np.bincount(np.concatenate(maps), minlength=IGNORE + 1)
    count = len(dataset.classes)
    areas = np.append(counts[:count], counts[IGNORE])
    return [*dataset.classes, "ignored"], np.arange(count + 1), areas


def original(feed: Feed, index: int) -> Cell:
    """A picture as it is annotated."""
    record = feed.dataset.annotations.records[index]
    image = as_float(read_image(record.path, channels=feed.dataset.channels))
    height, width = image.shape[1:]
    shown = fitted(image)
    if isinstance(feed.dataset, SegmentationDataset):
        classes = feed.dataset.classes_of(record, (height, width))
        shown = paint_map(shown, classes, feed.dataset.classes)
        told = _told_map(torch.from_numpy(classes), feed.dataset.classes)
        return Cell(shown, [record.path.name, f"as annotated: {width} x {height}, {told}"])
    shown = draw_boxes(
        shown, record.boxes * (shown.width / width), record.labels, None, feed.dataset.classes,
        masks_of(record) if feed.dataset.masks else None, record.iscrowd, LETTERS,
    )  # fmt: skip
    size = f"{width} x {height}"
    told = told_counts(record.labels, feed.dataset.classes)
    return Cell(shown, [record.path.name, f"as annotated: {size}, {told}"])


def draw_cell(feed: Feed, index: int, epoch: int) -> Cell:
    """A picture as it is fed in an epoch."""
    fed = feed.draw(index, epoch)
    height, width = fed.image.shape[1:]
    if "map" in fed.target:
        told = _told_map(fed.target["map"], feed.dataset.classes)
    else:
        told = told_counts(fed.target["labels"].tolist(), feed.dataset.classes)
    return Cell(
        fed_image(fed, feed.dataset.classes),
        [f"epoch {epoch + 1}", f"as fed: {width} x {height}, {told}"],
    )


def batch_cells(feed: Feed, indices: Sequence[int], batch: Batch) -> list[Cell]:
    """The pictures of a batch, with their padding striped."""
    height, width = batch.images.shape[2:]
    cells = []
    for i, index in enumerate(indices):
        h, w = batch.sizes[i].tolist()
        assert batch.targets is not None
        image = feed.shown(batch.images[i])
        if batch.offsets is not None:  # all of the padding to one side
            image = image.roll((-batch.offsets[i]).tolist(), (1, 2))
        fed = Fed(image, batch.targets[i])
        share = 1 - h * w / (height * width)
        told = f"{w} x {h} of {width} x {height}, {share:.0%} padding"
        shown = fed_image(fed, feed.dataset.classes, (h, w))
        cells.append(Cell(shown, [feed.name(index), told]))
    return cells


def fed_image(fed: Fed, classes: Sequence[str], size: tuple[int, int] | None = None) -> Image.Image:
    """The picture with its boxes, masks and keypoints drawn, its longer side SIDE.

    Args:
        size: height and width inside the padding, which is striped.
    """
    target = fed.target
    if "map" in target:
        return _map_image(fed, classes, size)
    masks = target.get("masks")
    if masks is not None and masks.shape[1:] != fed.image.shape[1:]:  # those of a padded picture
        missing = [b - a for a, b in zip(masks.shape[1:], fed.image.shape[1:], strict=True)]
        masks = torch.nn.functional.pad(masks, (0, missing[1], 0, missing[0]))
    image = fitted(fed.image)
    scale = image.width / fed.image.shape[2]
    if size is not None:
        image = _striped(image, round(size[1] * scale), round(size[0] * scale))
    boxes, labels = target["boxes"] * scale, target["labels"]
    shown = draw_boxes(image, boxes, labels, None, classes, masks, target["iscrowd"], LETTERS)
    if "keypoints" in target:
        _dots(shown, target["keypoints"][..., :3] * torch.tensor([scale, scale, 1]))
    return shown


def _map_image(fed: Fed, classes: Sequence[str], size: tuple[int, int] | None) -> Image.Image:
    """The picture with its map painted on it."""
    image, found = fitted(fed.image), fed.target["map"]
    missing = [b - a for a, b in zip(found.shape, fed.image.shape[1:], strict=True)]
    found = torch.nn.functional.pad(found, (0, missing[1], 0, missing[0]), value=-1)
    shown = paint_map(image, found, classes)
    if size is None:
        return shown
    scale = image.width / fed.image.shape[2]
    return _striped(shown, round(size[1] * scale), round(size[0] * scale))


def _told_map(found: Tensor, classes: Sequence[str]) -> str:
    """Shares of the pixels, in words."""
    labels = found.flatten().long().numpy()
    labels = np.where(labels == IGNORE, len(classes), labels)
    return told_shares(np.ones(len(labels)), labels, len(labels), [*classes, "ignored"])


def all_cells(feed: Feed, pictures: Sequence[int], draws: int, batches: int) -> Iterator[Cell]:
    """For a sheet: of each picture the original and its draws, a row of 1 + draws, then batches."""
    for index in pictures:
        yield original(feed, index)
        for epoch in range(draws):
            yield draw_cell(feed, index, epoch)
    for number, (indices, batch) in enumerate(feed.batches(0, batches), 1):
        for cell in batch_cells(feed, indices, batch):
            yield Cell(cell.image, [f"batch {number}: {cell.lines[0]}", *cell.lines[1:]])


def page(feed: Feed, pictures: Sequence[int], draws: int, batches: int, title: str) -> str:
    """The originals, each beside `draws` epochs' draws of it, and the first batches, as HTML."""
    rows = []
    for index in pictures:
        cells = [original(feed, index), *(draw_cell(feed, index, e) for e in range(draws))]
        rows.append(_row(cells, cells[0].lines[0]))
    composed = []
    for number, (indices, batch) in enumerate(feed.batches(0, batches), 1):
        shape = " × ".join(map(str, batch.images.shape))
        composed.append(f"<h3>Batch {number}: {shape}</h3>")
        composed.append(_row(batch_cells(feed, indices, batch), f"batch {number}"))
    count = len(feed.dataset)
    omitted = count - len(pictures)
    left_out = f" {counted(omitted, 'picture')} more are not shown: --count." if omitted else ""
    body = f"""<header>
<h1>{escape(title)}</h1>
<p>What the network is fed in training, with {counted(count, "picture")}: each after its transforms
and the model’s preparation, normalisation undone, with the boxes that the network gets. Training
with the same seed has the same draws.{left_out}</p>
</header>
<main>
<section><h2>How</h2>{facts(_facts(feed))}</section>
<section><h2>Picture by picture</h2>
<p>First each picture as it is annotated, then as it is drawn in the first epochs. Dashed and
hatched: ignored.</p>
{"".join(rows)}</section>
<section><h2>Batch by batch</h2>
<p>The first batches of the first epoch. Striped: padding, which is zero after normalisation.</p>
{"".join(composed)}</section>
</main>
"""
    return document(f"{title}: as fed", body, CSS)


def _facts(feed: Feed) -> dict[str, str]:
    recipe, pre = feed.recipe, feed.preprocess
    names = [t if isinstance(t, str) else str(t) for t in recipe.data.transforms]
    return {
        "model": recipe.model.name if recipe.model else "",
        "transforms": ", ".join(names) or "none",
        "size": f"{pre.told()}, padded to multiples of {pre.divisor}",
        "mean taken off": ", ".join(f"{value:.3f}" for value in pre.mean),
        "divided by": ", ".join(f"{value:.3f}" for value in pre.std),
        "batch": f"{counted(recipe.batch_size, 'picture')}"
        + (", upright and wide ones apart" if recipe.data.aspect_grouping else ""),
        "seed": str(recipe.seed),
    }


def _row(cells: Sequence[Cell], name: str) -> str:
    figures = "".join(
        f'<figure><img src="{picture_uri(cell.image, "JPEG")}" width="{cell.image.width}" '
        f'height="{cell.image.height}" loading="lazy" '
        f'alt="{escape(name)}: {escape(", ".join(cell.lines))}"><figcaption>'
        f"<b>{escape(cell.lines[0])}</b> {escape(' '.join(cell.lines[1:]))}</figcaption></figure>"
        for cell in cells
    )
    return f'<div class="row">{figures}</div>'


def _dots(image: Image.Image, keypoints: Tensor) -> None:
    """(G, P, 3) x, y and visibility, above 0 where it is annotated."""
    pen = ImageDraw.Draw(image)
    for x, y, visible in keypoints.reshape(-1, 3).tolist():
        if visible > 0:
            pen.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), "#ffffff", "#000000")


def _striped(image: Image.Image, width: int, height: int) -> Image.Image:
    """With stripes right of `width` and below `height`."""
    pixels = np.array(image)
    y, x = np.indices(pixels.shape[:2])
    lines = ((x + y) % PADDING < PADDING // 3) & ((x >= width) | (y >= height))
    pixels[lines] = (28, 33, 38)
    return Image.fromarray(pixels)

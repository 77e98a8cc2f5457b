"""Pictures cut into overlapping tiles, and the tiles' logits blended to those of the picture.

Letters   H and W the picture's height and width, C its channels, K classes, t a tile's side,
          b the pixels in which two neighbours are blended.

The tiles are a grid: what belongs to a tile is decided for rows and for columns alike (`spans`),
and a pixel's weight is the product of its row's and its column's. Along an axis a tile's weight is
1, but for b pixels at each end in which it fades into its neighbour, as a raised cosine; two
neighbours' weights add up to 1 there. So sum(w * logits) / sum(w) is sum(w * logits), and at most
two tiles of an axis speak for a pixel. A picture's own borders are no seams: there the weight is 1.

No tile goes past the border and nothing is padded: of each row and column the last tile is moved
inwards, and is up to `align` - 1 pixels longer so that it begins on the network's grid. A picture
that is smaller than a tile is one tile.

Does the result depend on the tiles? A convolution's value depends on the pixels within its reach;
a tile that ends nearer than that shows zeros instead. Give the reach as `margin`: then pixels
nearer than that to a tile's end have weight 0 there, and the result is that of the whole picture
but for rounding, whatever t is. Strides matter too: tiles begin at multiples of `align`, which has
to be a multiple of the network's output stride. Networks that look at the whole of what they are
given (PSPNet's and DeepLabV3's pooling, squeeze-and-excitation, attention) have no such margin: for
them a tile is the picture, and another t gives another result; take tiles as large as the crops
they were trained with, or larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from eyeline.device import PRECISIONS, autocast
from eyeline.errors import EyelineError

Model = Callable[[Tensor], Tensor]  # pictures (B, C, h, w) -> logits (B, K, h, w)


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut.

    Args:
        tile: side of a tile in pixels, a multiple of `align`.
        overlap: of neighbouring tiles: below 1 a share of the tile, from 1 on pixels; at least so
            much, for tiles begin at multiples of `align`. What is more than half a tile is not
            blended, but makes the margin wider.
        margin: pixels at a tile's ends that have weight 0, but at the picture's borders; at most
            half the overlap.
        align: tiles begin at multiples of it; the network's output stride, or a multiple of it.
        batch_size: tiles that go through the network at once.
        precision: "float32", "bf16" or "fp16"; logits are added up in float32.
    """

    tile: int = 512
    overlap: float = 0.25
    margin: int = 0
    align: int = 32
    batch_size: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("tile", "align", "batch_size"):
            value = getattr(self, name)
            if value < 1 or int(value) != value:
                raise EyelineError(f"{name} is a whole number from 1 on, not {value}")
        if self.tile % self.align:
            lower = self.tile // self.align * self.align
            near = " or ".join(str(v) for v in (lower, lower + self.align) if v)
            raise EyelineError(
                f"a tile of {self.tile} pixels is no multiple of {self.align}, in which tiles are "
                f"aligned to the network's stride; take {near}"
            )
        if not (0 <= self.overlap < 1 or (self.overlap >= 1 and self.overlap % 1 == 0)):
            raise EyelineError(f"overlap is a share below 1, or whole pixels, not {self.overlap:g}")
        if self.stride < 1:
            raise EyelineError(
                f"tiles of {self.tile} pixels cannot overlap by {self.least_overlap}: they begin "
                f"{self.align} pixels apart at least; take larger tiles"
            )
        if not 0 <= 2 * self.margin <= self.tile - self.stride:
            raise EyelineError(
                f"margin is from 0 to half the overlap, which is {self.tile - self.stride} pixels, "
                f"not {self.margin}; take a larger overlap"
            )
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise EyelineError(f"no precision {self.precision!r}; there are: {known}")

    @property
    def least_overlap(self) -> int:
        """Pixels that are asked for."""
        return int(self.overlap if self.overlap >= 1 else math.ceil(self.overlap * self.tile))

    @property
    def stride(self) -> int:
        """Pixels from a tile to the next."""
        return (self.tile - self.least_overlap) // self.align * self.align

    @property
    def blend(self) -> int:
        """b: pixels in which neighbours are blended."""
        return min(self.tile - self.stride - 2 * self.margin, self.stride)


class Span(NamedTuple):
    """A tile along one axis, in pixels of the picture."""

    start: int  # what the network sees ...
    stop: int
    low: int  # ... and what of it counts
    high: int
    weight: Tensor  # (high - low,) float32


def spans(length: int, tiling: Tiling) -> list[Span]:
    """The tiles along an axis of so many pixels, in their order.

    `low` and `high` both rise; the last `blend` pixels of each are the first of the next.
    """
    t, stride, blend = tiling.tile, tiling.stride, tiling.blend
    if length < 1:
        raise EyelineError(f"a picture with a side of {length} pixels has no tiles")
    last = max(0, length - t) // tiling.align * tiling.align
    starts = [*range(0, last, stride), last]
    cut = (t - stride - blend) // 2  # the margin, or more
    ramp = (torch.arange(blend, dtype=torch.float64) + 0.5) * (math.pi / 2 / max(1, blend))
    ramp = ramp.sin().square().float()
    found: list[Span] = []
    for start in starts:
        is_last = start == last
        stop = length if is_last else start + t
        low = found[-1].high - blend if found else 0
        high = length if is_last else stop - cut
        weight = torch.ones(high - low)
        if found and blend:
            weight[:blend] = ramp
        if not is_last and blend:
            weight[-blend:] = 1 - ramp
        found.append(Span(start, stop, low, high, weight))
    return found


class Patch(NamedTuple):
    """A part of the picture that is done."""

    row: int  # of tiles, which completes it
    top: int
    left: int
    logits: Tensor  # (K, h, w) float32, on the model's device


def blended(
    model: Model,
    rows: Callable[[int, int], Tensor],
    height: int,
    width: int,
    tiling: Tiling,
    device: torch.device,
    first: int = 0,
) -> Iterator[Patch]:
    """The picture's logits from its tiles', part by part, from left to right and then down.

    Memory, besides the network's own: of logits K x (b x W + (batch_size + 3) x t x t) x 4 bytes;
    of the picture t rows. A row of tiles gives the same bits whether those before it are asked for
    or not, as long as `batch_size` is the same.

    Args:
        rows: gives (C, bottom - top, W) of the picture, uint8 or float in [0, 1], for a top and a
            bottom; both only grow from call to call.
        device: where the model is.
        first: rows of tiles whose parts are left out.
    """
    down, across = spans(height, tiling), spans(width, tiling)
    carry: Tensor | None = None  # (K, b, W): what the row of tiles above says of the next one
    for i in range(max(0, first - 1), len(down)):
        row, above = down[i], carry
        bottom = down[i + 1].low if i + 1 < len(down) else height  # from there on not done yet
        beside: Tensor | None = None  # (K, h, b): what the tile to the left says of the next one
        tiles = _logits(model, rows(row.start, row.stop), row, across, tiling, device)
        for j, (column, logits) in enumerate(zip(across, tiles, strict=True)):
            right = across[j + 1].low if j + 1 < len(across) else width
            total = logits * (row.weight[:, None] * column.weight).to(device)  # (K, h, w)
            fresh = column.low  # columns before it have had what the row above says
            if beside is not None:
                total[:, :, : beside.shape[2]] += beside
                fresh += beside.shape[2]
            if above is not None:
                total[:, : tiling.blend, fresh - column.low :] += above[:, :, fresh : column.high]
            if i + 1 < len(down):
                if carry is None:
                    carry = total.new_empty(len(total), tiling.blend, width)
                # In place: above's columns up to column.high have been added.
                carry[:, :, column.low : right] = total[:, bottom - row.low :, : right - column.low]
            beside = total[:, :, right - column.low :].clone()
            if i >= first:
                done = total[:, : bottom - row.low, : right - column.low]
                yield Patch(i, row.low, column.low, done)


def _logits(
    model: Model,
    band: Tensor,
    row: Span,
    across: Sequence[Span],
    tiling: Tiling,
    device: torch.device,
) -> Iterator[Tensor]:
    """What counts of each tile's logits, (K, h, w), from left to right."""
    for _, group in groupby(across, lambda column: column.stop - column.start):
        same = list(group)  # tiles of one size
        for at in range(0, len(same), tiling.batch_size):
            batch = same[at : at + tiling.batch_size]
            images = torch.stack([band[:, :, c.start : c.stop] for c in batch]).to(device)
            with torch.inference_mode(), autocast(device, tiling.precision):
                found = model(images)
            size = (len(batch), *images.shape[2:])
            if found.ndim != 4 or (len(found), *found.shape[2:]) != size:
                raise EyelineError(
                    f"a segmenter gives logits (B, K, h, w) of its pictures' size; for pictures of "
                    f"shape {tuple(images.shape)} came {tuple(found.shape)}"
                )
            top, high = row.low - row.start, row.high - row.start
            for column, logits in zip(batch, found, strict=True):
                left, side = column.low - column.start, column.high - column.start
                yield logits[:, top:high, left:side].float()


def sliding_logits(
    model: Model,
    image: Tensor,
    tiling: Tiling | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """The logits (K, H, W) of a picture of any size, float32 on the CPU, tile by tile.

    Args:
        model: a segmenter in eval mode: pictures (B, C, h, w) -> logits (B, K, h, w).
        image: (C, H, W), uint8 or float in [0, 1].
        device: where the model is, if it has no parameters that tell.

    Raises:
        EyelineError: the model is in training mode, or takes other channels.
    """
    tiling = tiling or Tiling()
    if image.ndim != 3:
        raise EyelineError(f"a picture is (C, H, W), not of shape {tuple(image.shape)}")
    where = check_model(model, image.shape[0], device)
    height, width = image.shape[1:]
    out: Tensor | None = None
    patches = blended(model, lambda top, end: image[:, top:end], height, width, tiling, where)
    for patch in patches:
        if out is None:
            out = torch.empty(len(patch.logits), height, width)
        _, h, w = patch.logits.shape
        out[:, patch.top : patch.top + h, patch.left : patch.left + w] = patch.logits
    assert out is not None
    return out


def check_model(
    model: Model, channels: int, device: torch.device | str | None = None
) -> torch.device:
    """Where the model is. Raises EyelineError: it is in training mode, or takes other channels."""
    if getattr(model, "training", False):
        raise EyelineError("the model is in training mode; call its eval() before")
    takes = getattr(model, "channels", channels)
    if takes != channels:
        raise EyelineError(f"the model takes {takes} channels, the picture has {channels}")
    if device is None and isinstance(model, nn.Module):
        found = next(model.parameters(), None)
        device = None if found is None else found.device
    return torch.device(device or "cpu")

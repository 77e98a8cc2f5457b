"""Tiles of large pictures: where they lie, what they weigh, and that the blend is exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.inference.tiles import Tiling, blended, sliding_logits, spans

K = 4


class Reaching(nn.Module):
    """Three convolutions of 3 and one of 5: a value depends on the pixels within 5 of it."""

    channels = 3

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 6, 3), (6, 6, 5), (6, 6, 3), (6, K, 3))
        self.layers = nn.ModuleList(nn.Conv2d(a, b, k, padding=k // 2) for a, b, k in sizes)

    def forward(self, images: Tensor) -> Tensor:
        x = images / 255 if images.dtype == torch.uint8 else images
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class Strided(nn.Module):
    """Halves the picture twice and comes back: values depend on the place within 4 pixels, too."""

    channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, K, 3, 1, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(self.down(images), size=images.shape[2:], mode="bilinear")


class Global(nn.Module):
    """Adds what it sees on the average."""

    channels = 3

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean((2, 3), keepdim=True)
        return torch.cat([images - mean, images[:, :1] * 0 + mean[:, :1]], 1)


def picture(height: int, width: int) -> Tensor:
    return torch.rand(3, height, width)


TILINGS = [
    Tiling(tile=32, overlap=0.25, align=8),
    Tiling(tile=32, overlap=0.5, align=8),
    Tiling(tile=32, overlap=24, align=8),  # more than half of it
    Tiling(tile=32, overlap=0, align=8),
    Tiling(tile=64, overlap=12, margin=6, align=4),
    Tiling(tile=40, overlap=20, margin=3, align=1, batch_size=3),
]


@pytest.mark.parametrize("tiling", TILINGS)
def test_spans(tiling: Tiling) -> None:
    seen = 0
    for length in (1, 5, 31, 32, 33, 63, 64, 65, 71, 72, 97, 129, 200):
        found = spans(length, tiling)
        seen += len(found) > 2
        weight = torch.zeros(length)
        for i, span in enumerate(found):
            assert 0 <= span.start <= span.low < span.high <= span.stop <= length
            assert span.start % tiling.align == 0 and len(span.weight) == span.high - span.low
            assert span.stop - span.start < tiling.tile + tiling.align
            assert span.weight.min() > 0
            weight[span.low : span.high] += span.weight
            # At most two speak for a pixel, and none nearer to its end than the margin.
            assert i < 2 or span.low >= found[i - 2].high
            assert span.low == 0 or span.low - span.start >= tiling.margin
            assert span.high == length or span.stop - span.high >= tiling.margin
            if i:
                last = found[i - 1]
                assert last.high - span.low == tiling.blend
                assert last.stop - span.start >= tiling.least_overlap
        assert found[0].low == 0 and found[-1].high == length
        torch.testing.assert_close(weight, torch.ones(length))
    assert seen >= 2


def test_the_window_is_smooth() -> None:
    weight = spans(300, Tiling(tile=96, overlap=0.5, align=1))[1].weight
    assert weight.diff().abs().max() < torch.pi / 2 / 48 + 1e-6  # a raised cosine's steepest
    assert 0 < weight[0] < 1e-3 and weight.max() > 0.999
    torch.testing.assert_close(weight, weight.flip(0))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tile": 0}, "tile is a whole number from 1 on"),
        ({"tile": 100}, "take 96 or 128"),
        ({"tile": 16}, "no multiple of 32.*take 32"),
        ({"overlap": -0.1}, "overlap is a share below 1, or whole pixels"),
        ({"overlap": 1.5}, "whole pixels"),
        ({"overlap": 512}, "cannot overlap by 512"),
        ({"tile": 64, "overlap": 0.9}, "begin 32 pixels apart"),
        ({"margin": 65}, "half the overlap, which is 128 pixels"),
        ({"batch_size": 0}, "batch_size"),
        ({"precision": "int8"}, "no precision 'int8'"),
    ],
)
def test_tilings_that_cannot_be(options: dict[str, Any], told: str) -> None:
    with pytest.raises(EyelineError, match=told):
        Tiling(**options)


def plain(model: nn.Module, image: Tensor, tiling: Tiling) -> Tensor:
    """sum(w * logits) / sum(w), straight from the definition."""
    _, height, width = image.shape
    total, weights = torch.zeros(K, height, width), torch.zeros(height, width)
    with torch.no_grad():
        for row in spans(height, tiling):
            for column in spans(width, tiling):
                logits = model(image[None, :, row.start : row.stop, column.start : column.stop])[0]
                for y in range(row.low, row.high):
                    w = row.weight[y - row.low] * column.weight
                    part = logits[:, y - row.start][:, column.low - column.start :][:, : len(w)]
                    total[:, y, column.low : column.high] += w * part
                    weights[y, column.low : column.high] += w
    return total / weights


@pytest.mark.parametrize("size", [(90, 75), (33, 130), (20, 20), (64, 71)])
@pytest.mark.parametrize("tiling", TILINGS)
def test_the_blend_is_the_weighted_mean(tiling: Tiling, size: tuple[int, int]) -> None:
    """Of a network whose tiles differ, so that a seam or a weight in the wrong place shows."""
    model, image = Global(), picture(*size)
    image += torch.linspace(0, 3, size[1]) + torch.linspace(0, 5, size[0])[:, None]
    found = sliding_logits(model.eval(), image, tiling)
    torch.testing.assert_close(found, plain(model, image, tiling), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tile", [16, 24, 32, 56])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_the_result_does_not_depend_on_the_tile(tile: int, share: float) -> None:
    model, image = Reaching().eval(), picture(71, 90)
    with torch.no_grad():
        whole = model(image[None])[0]
    overlap = 10 + round(share * (tile - 10))
    found = sliding_logits(model, image, Tiling(tile, overlap, margin=5, align=1, batch_size=2))
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)
    # With a margin of 4 pixels the outermost show that a tile had ended.
    if share == 0:
        cut = sliding_logits(model, image, Tiling(tile, 8, margin=4, align=1))
        assert (cut - whole).abs().max() > 1e-4


@pytest.mark.parametrize("tile", [32, 48, 64])
def test_nor_where_the_network_has_a_stride(tile: int) -> None:
    model, image = Strided().eval(), picture(96, 84)
    with torch.no_grad():
        whole = model(image[None])[0]
    # Reach: (1 + 2 + 4) pixels of the layers, and the 4 of the way back.
    tiling = Tiling(tile, overlap=24, margin=12, align=4)
    torch.testing.assert_close(sliding_logits(model, image, tiling), whole, rtol=0, atol=1e-5)
    other = Tiling(tile + 1, overlap=24, margin=12, align=1)  # tiles that begin off its grid
    assert (sliding_logits(model, image, other) - whole).abs().max() > 1e-3


def test_a_picture_smaller_than_a_tile_is_seen_whole() -> None:
    model, image = Reaching().eval(), (picture(40, 63) * 255).byte()
    with torch.no_grad():
        whole = model(image[None])[0]
    assert torch.equal(sliding_logits(model, image), whole)


def test_rows_left_out_change_no_bit_of_the_others() -> None:
    model, image = Reaching().eval(), picture(150, 90)
    tiling = Tiling(32, 0.5, align=8, batch_size=2)

    def parts(first: int) -> list[tuple[int, int, int, Tensor]]:
        def rows(top: int, bottom: int) -> Tensor:
            return image[:, top:bottom]

        found = blended(model, rows, 150, 90, tiling, torch.device("cpu"), first)
        return [(p.row, p.top, p.left, p.logits.clone()) for p in found]

    every = parts(0)
    assert every[-1][0] >= 6
    for first in (1, 3, every[-1][0]):
        rest, expected = parts(first), [p for p in every if p[0] >= first]
        assert [p[:3] for p in rest] == [p[:3] for p in expected] and rest[0][0] == first
        assert all(torch.equal(a[3], b[3]) for a, b in zip(rest, expected, strict=True))


def test_half_precision_adds_up_in_float32() -> None:
    model, image = Reaching().eval(), picture(64, 64)
    found = sliding_logits(model, image, Tiling(32, 16, align=8, precision="bf16"))
    exact = sliding_logits(model, image, Tiling(32, 16, align=8))
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.05


def test_models_that_cannot_be_used() -> None:
    model = Reaching()
    with pytest.raises(EyelineError, match="training mode"):
        sliding_logits(model, picture(8, 8))
    with pytest.raises(EyelineError, match="takes 3 channels, the picture has 4"):
        sliding_logits(model.eval(), torch.rand(4, 8, 8))
    with pytest.raises(EyelineError, match="of shape"):
        sliding_logits(model, torch.rand(1, 3, 8, 8))
    with pytest.raises(EyelineError, match="of its pictures' size"):
        sliding_logits(lambda images: images[:, :, ::2], picture(8, 8))

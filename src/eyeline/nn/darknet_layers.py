"""Darknet's layers: what `eyeline.nn.darknet_net` puts together.

Of each kind a function from how it is written, and from what it reads, to a module and the shape
of its result. Letters: B pictures, H and W of a map.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn.backbones.darknet import SLOPE
from eyeline.nn.cells import reorg
from eyeline.nn.darknet_sections import Section
from eyeline.nn.fused import fused, max_pool
from eyeline.nn.layers import make_norm
from eyeline.nn.local import Local

SLOPES = {"leaky": SLOPE, "relu": 0.0, "relie": 0.01}  # below 0, of those that are a line there
# May write over what they are given, the result of a layer.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    **{name: partial(F.leaky_relu_, negative_slope=slope) for name, slope in SLOPES.items()},
    "relu6": F.relu6,
    "elu": F.elu,
    "logistic": torch.sigmoid,
    "tanh": torch.tanh,
    "mish": F.mish,
    "swish": F.silu,
}


class Result(NamedTuple):
    """What a layer gives, for pictures of the size that the network is built for."""

    channels: int
    height: int
    width: int
    stride: Fraction  # pixels of a cell

    def __str__(self) -> str:
        return f"{self.channels} x {self.height} x {self.width}"


class How(NamedTuple):
    """How layers are made."""

    norm: str
    epsilon: float
    outputs: int | None = None  # of a layer that a head reads; None: what its options say


Shape = tuple[int, int, int]
LARGEST = 2**40  # numbers of a layer: beyond it shapes overflow


class Convolution(nn.Module):
    """Convolution, norm or bias, activation: (B, inputs, H, W) to (B, outputs, H', W')."""

    fusable: ClassVar = [("conv", "norm")]

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, activation: str) -> None:
        super().__init__()
        self.conv, self.norm, self.activation = conv, norm, activation
        nn.init.kaiming_normal_(conv.weight, SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        if self.activation in SLOPES:
            return fused(x, self.conv, self.norm, relu=True, slope=SLOPES[self.activation])
        return ACTIVATIONS[self.activation](fused(x, self.conv, self.norm))

    def extra_repr(self) -> str:
        return self.activation


def _slid(result: Result, size: int, stride: int, padding: int) -> tuple[int, int]:
    """Height and width after a window; padding on both sides together."""
    height, width = ((side + padding - size) // stride + 1 for side in result[1:3])
    return height, width


def _check_count(section: Section, *factors: int) -> None:
    """Whether a layer of so many numbers, their product, can be made."""
    if (count := math.prod(factors)) > LARGEST:
        raise section.error(f"{count} numbers; {LARGEST} is the most")


def _convolution(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    before, size, stride = given[0], section.whole("size"), section.whole("stride")
    padding, groups = section.padding(), section.whole("groups")
    outputs = how.outputs or section.whole("filters")
    if before.channels % groups or outputs % groups:
        raise section.error(f"groups={groups} do not divide {before.channels} to {outputs}")
    _check_count(section, before.channels // groups, outputs, size, size)
    normed = section.whole("batch_normalize", 0) == 1
    conv = nn.Conv2d(
        before.channels, outputs, size, stride, padding, groups=groups, bias=not normed
    )
    norm = make_norm(how.norm, outputs, how.epsilon) if normed else nn.Identity()
    shape = (outputs, *_slid(before, size, stride, 2 * padding))
    return Convolution(conv, norm, section.activation()), shape


class Place(nn.Module):
    """A layer with weights for each place of the map, and its activation; a map of another size is
    averaged to fit."""

    def __init__(self, layer: nn.Module, size: tuple[int, int], activation: str) -> None:
        super().__init__()
        self.layer, self.size, self.activation = layer, size, activation

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != self.size:
            x = F.adaptive_avg_pool2d(x, self.size)
        if isinstance(self.layer, Local):
            return ACTIVATIONS[self.activation](self.layer(x))
        return ACTIVATIONS[self.activation](self.layer(x.flatten(1))[:, :, None, None])


def _local(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    before, size, stride = given[0], section.whole("size"), section.whole("stride")
    pad = section.whole("pad", 0)
    if pad and size != 3:  # darknet pads by one cell whatever the size
        raise section.error(f"size={size}; with pad=1 it is read with size=3")
    outputs, out = section.whole("filters"), _slid(before, size, stride, 2 if pad else 0)
    if min(out) < 1:
        return nn.Identity(), (outputs, *out)
    _check_count(section, before.channels, outputs, size, size, *out)
    layer = Local(before.channels, outputs, size, out, stride, int(pad > 0))
    return Place(layer, (before.height, before.width), section.activation()), (outputs, *out)


def _connected(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    channels, height, width, _ = given[0]
    outputs = how.outputs or section.whole("output")
    _check_count(section, channels, height, width, outputs)
    layer = nn.Linear(channels * height * width, outputs)
    return Place(layer, (height, width), section.activation()), (outputs, 1, 1)


class Pool(nn.Module):
    """The greatest in a window. What lies outside does not count; of an uneven padding the smaller
    half is at the left and the top."""

    def __init__(self, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.size, self.stride, self.padding = size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.padding // 2, self.padding - self.padding // 2
        if near == far:
            return max_pool(x, self.size, self.stride, near)
        return F.max_pool2d(
            F.pad(x, (near, far, near, far), value=-math.inf), self.size, self.stride
        )

    def extra_repr(self) -> str:
        return f"{self.size}, stride={self.stride}, padding={self.padding}"


def _pool(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    size, stride, padding = section.window()
    if 2 * math.ceil(padding / 2) > size:
        raise section.error(f"padding={padding} is too much for size={size}")
    shape = (given[0].channels, *_slid(given[0], size, stride, padding))
    return Pool(size, stride, padding), shape


class Route(nn.Module):
    """Maps one behind the other, by their channels."""

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, 1) if len(maps) > 1 else maps[0]


def _route(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    for other in given:
        if other[1:] != given[0][1:]:
            raise section.error(f"its layers give {given[0]} and {other}")
    return Route(), (sum(result.channels for result in given), *given[0][1:3])


class Shortcut(nn.Module):
    """The sum of two maps, and an activation."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](x + other)


def _shortcut(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    if given[0] != given[1]:
        raise section.error(f"it adds {given[1]} to {given[0]}")
    return Shortcut(section.activation()), given[0][:3]


class Upsample(nn.Module):
    """Each cell becomes `stride` x `stride` of its value."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=float(self.stride))


def _upsample(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    stride, (channels, height, width, _) = section.whole("stride"), given[0]
    return Upsample(stride), (channels, height * stride, width * stride)


class Reorg(nn.Module):
    """`stride` x `stride` cells become one, in darknet's way: `eyeline.nn.cells.reorg`."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return reorg(x, "darknet", self.stride)


def _reorg(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    s, (channels, height, width, _) = section.whole("stride"), given[0]
    if channels % s**2 or height % s or width % s:
        raise section.error(f"stride={s} does not divide {given[0]}, by channels {s**2}")
    return Reorg(s), (channels * s**2, height // s, width // s)


def _dropout(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    return nn.Dropout(section.share("probability")), given[0][:3]


def _crop(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    size = (section.whole("crop_height"), section.whole("crop_width"))
    if size != given[0][1:3]:
        raise section.error(f"it cuts {size[0]} x {size[1]} from {given[0]}; all of it is read")
    return nn.Identity(), given[0][:3]


def _average(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    return nn.AdaptiveAvgPool2d(1), (given[0].channels, 1, 1)


def _softmax(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    return nn.Softmax(1), given[0][:3]


def same(section: Section, given: list[Result], how: How) -> tuple[nn.Module, Shape]:
    return nn.Identity(), given[0][:3]


BUILD: dict[str, Callable[[Section, list[Result], How], tuple[nn.Module, Shape]]] = {
    "convolutional": _convolution,
    "local": _local,
    "connected": _connected,
    "maxpool": _pool,
    "route": _route,
    "shortcut": _shortcut,
    "upsample": _upsample,
    "reorg": _reorg,
    "dropout": _dropout,
    "crop": _crop,
    "avgpool": _average,
    "softmax": _softmax,
}

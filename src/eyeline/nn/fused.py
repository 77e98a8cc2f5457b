"""A layer and what follows it as one step, so that `optimize` can compute them as one.

Networks are written with `fused` where a norm, a shortcut or a ReLU follows a layer. In training
it is these steps, one after another. `optimize` puts a `FusedLayer` in the layer's place, which
does in one pass over its result what it can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.nn import resizing
from eyeline.nn.layers import FrozenBatchNorm2d, convolved, is_bare
from eyeline.ops import phases, winograd

# Called instead of the plain steps while a calibration watches: (x, layer, add, relu, slope) and
# what `max_pool` or `beside` is given -> result.
watcher: Callable[[Any, nn.Module, Any, bool, float], Any] | None = None
pool_watcher: Callable[..., Any] | None = None
join_watcher: Callable[..., Any] | None = None


def fused(
    x: Tensor,
    layer: nn.Module,
    norm: nn.Module | None = None,
    add: Tensor | None = None,
    relu: bool = False,
    slope: float = 0.0,
) -> Tensor:
    """relu(norm(layer(x)) + add), without those that are not given.

    `add` has the result's shape. What the layer returns is written over. What is below 0 the ReLU
    multiplies by `slope`.
    """
    if norm is None or isinstance(norm, nn.Identity):
        if isinstance(layer, FusedLayer):
            return layer(x, add, relu, slope)  # type: ignore[no-any-return]
        if watcher is not None and getattr(layer, "norm", None) is None:
            return watcher(x, layer, add, relu, slope)  # type: ignore[no-any-return]
        norm = None
    return plain(x, layer, norm, add, relu, slope)


def plain(
    x: Tensor, layer: nn.Module, norm: nn.Module | None, add: Tensor | None, relu: bool,
    slope: float = 0.0,
) -> Tensor:  # fmt: skip
    """The steps of `fused` one by one."""
    if isinstance(norm, FrozenBatchNorm2d) and norm.joins(layer, x):
        x = norm(x, layer)
    else:
        if layer.training and is_bare(layer):
            x = convolved(layer, x, layer.weight, layer.bias, training=True)
        else:
            x = layer(x)
        if norm is not None:
            x = norm(x)
    return after(x, add, relu, slope)


def after(x: Tensor, add: Tensor | None, relu: bool, slope: float = 0.0) -> Tensor:
    """What follows a layer: relu(x + add), written over x."""
    if add is not None:
        x += add
    if not relu:
        return x
    return F.leaky_relu(x, slope, inplace=True) if slope else F.relu(x, inplace=True)


def max_pool(
    x: Tensor, kernel: int, stride: int | None = None, padding: int = 0, ceil_mode: bool = False
) -> Tensor:
    """`F.max_pool2d`; between layers of 8 bits its numbers have 8 bits too."""
    how = (kernel, stride or kernel, padding, ceil_mode)
    if not isinstance(x, Tensor):
        return x.max_pool(*how)
    if pool_watcher is not None:
        return pool_watcher(x, *how)  # type: ignore[no-any-return]
    return F.max_pool2d(x, *how[:3], ceil_mode=ceil_mode)


def beside(x: Tensor, others: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """`eyeline.nn.resizing.beside`; between layers of 8 bits its numbers have 8 bits too."""
    for part in (x, *others):
        if not isinstance(part, Tensor):
            return part.beside(x, others, size)  # type: ignore[no-any-return]
    if join_watcher is not None:
        return join_watcher(x, others, size)  # type: ignore[no-any-return]
    return resizing.beside(x, others, size)


class FusedLayer(nn.Module):
    """A layer for inference that adds and applies a ReLU by itself: layer(x, add, relu, slope)."""

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedLayer:
        return self  # what it computes never changes, and torch cannot copy packed weights


class PackedLayer(FusedLayer):
    """Its weights are packed in the order that oneDNN wants for the size of the last input: one
    that is best for one size was seen to be twenty times slower than the best for another."""

    def __init__(self) -> None:
        super().__init__()
        self.last: tuple[torch.Size | None, Tensor | None] = (None, None)

    def pack(self, shape: list[int]) -> Tensor:
        """The weights in the best order for inputs of that shape."""
        raise NotImplementedError

    def packed_for(self, x: Tensor) -> Tensor:
        shape, packed = self.last
        if packed is None or shape != x.shape:
            packed = self.pack(list(x.shape))
            self.last = (x.shape, packed)  # at once, so that threads may share the layer
        return packed


class PackedConv2d(PackedLayer):
    """A convolution on a CPU through oneDNN, its ReLU included. Input and output have the dtype of
    the weights.

    A shortcut is added afterwards: as a part of the convolution it gained nothing where maps are
    large, and oneDNN has no such thing for groups in bfloat16.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.shape = (conv.padding, conv.stride, conv.dilation, conv.groups)

    def pack(self, shape: list[int]) -> Tensor:
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            self.weight, *self.shape, shape
        )
        return packed

    def forward(
        self, x: Tensor, add: Tensor | None = None, relu: bool = False, slope: float = 0.0
    ) -> Tensor:
        x = x.to(self.weight.dtype)
        then: tuple[str, list[float]] = ("none", [])
        if relu and add is None:
            then = ("leaky_relu", [slope]) if slope else ("relu", [])
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.packed_for(x), self.bias, *self.shape, *then, ""
        )
        return out if add is None else after(out, add, relu, slope)


class WinogradConv2d(FusedLayer):
    """A 3x3 convolution of many channels in float32, its ReLU included: see `eyeline.ops.winograd`,
    whose `suits` says which. Small maps go the direct way. A dilated one is several plain ones.

    The kernels are transformed when an input comes that they are not there for; those of the last
    one alone are kept, for they are up to four times the weights. Two kinds of maps in turn cost
    about a direct convolution at each change.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.direct = PackedConv2d(conv)
        self.weight, self.bias, self.outputs = conv.weight, conv.bias, conv.out_channels
        self.dilation = conv.dilation[0]
        self.last: tuple[tuple[winograd.Form, bool] | None, Tensor | None] = (None, None)

    def kernels(self, x: Tensor, form: winograd.Form) -> Tensor:
        tiles = winograd.tiles_of(x, form)
        kind, (before, packed) = (form, tiles < winograd.FEW), self.last
        if packed is None or kind != before:
            packed = winograd.kernels_of(self.weight, form=form, tiles=tiles)
            self.last = (kind, packed)  # at once, so that threads may share the layer
        return packed

    def forward(
        self, x: Tensor, add: Tensor | None = None, relu: bool = False, slope: float = 0.0
    ) -> Tensor:
        form, d, size = winograd.best_form(x, self.dilation), self.dilation, x.shape[2:]
        if form is None:
            return self.direct(x, add, relu, slope)  # type: ignore[no-any-return]
        below = slope if relu and add is None else 1.0
        x = x if d == 1 else phases.apart(x, d)
        kernels = self.kernels(x, form)
        out = winograd.convolve(x, kernels, self.outputs, self.bias, below, form)
        out = out if d == 1 else phases.together(out, d, size)
        return out if add is None else after(out, add, relu, slope)

"""A layer and what follows it as one step, so that `optimize` can compute them as one.

Networks are written with `fused` where a norm, a shortcut or a ReLU follows a layer. In training
it is these steps, one after another. `optimize` puts a `FusedLayer` in the layer's place, which
writes its result once instead of reading and writing it again for each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Called instead of the plain steps while a calibration watches: (x, layer, add, relu) -> result.
watcher: Callable[[Any, nn.Module, Any, bool], Any] | None = None


def fused(
    x: Tensor,
    layer: nn.Module,
    norm: nn.Module | None = None,
    add: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """relu(norm(layer(x)) + add), without those that are not given.

    `add` has the result's shape. What the layer returns is written over.
    """
    if norm is None or isinstance(norm, nn.Identity):
        if isinstance(layer, FusedLayer):
            return layer(x, add, relu)  # type: ignore[no-any-return]
        if watcher is not None and getattr(layer, "norm", None) is None:
            return watcher(x, layer, add, relu)  # type: ignore[no-any-return]
        norm = None
    return plain(x, layer, norm, add, relu)


def plain(
    x: Tensor, layer: nn.Module, norm: nn.Module | None, add: Tensor | None, relu: bool
) -> Tensor:
    """The steps of `fused` one by one."""
    x = layer(x)
    if norm is not None:
        x = norm(x)
    if add is not None:
        x += add
    return F.relu(x, inplace=True) if relu else x


class FusedLayer(nn.Module):
    """A layer for inference that adds and cuts off at zero by itself: layer(x, add, relu)."""


class PackedConv2d(FusedLayer):
    """A convolution on a CPU through oneDNN, its weights in the order that oneDNN wants.

    Input and output are of the weights' dtype.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert not isinstance(conv.padding, str)
        self.stride, self.padding = conv.stride, conv.padding
        self.dilation, self.groups = conv.dilation, conv.groups
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight, conv.padding, conv.stride, conv.dilation, conv.groups
        )
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor, add: Tensor | None = None, relu: bool = False) -> Tensor:
        x = x.to(self.weight.dtype)
        layer = (self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups)
        if add is not None and self.groups == 1:
            then = "relu" if relu else None
            return torch.ops.mkldnn._convolution_pointwise.binary(
                x, add.to(x.dtype), *layer, "add", 1.0, then, [], ""
            )
        then = "relu" if relu and add is None else "none"
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *layer, then, [], "")
        if add is not None:  # torch does not fuse it where there are groups
            out += add
            return F.relu(out, inplace=True) if relu else out
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedConv2d:
        return self  # it never changes, and torch cannot copy the weights' layout

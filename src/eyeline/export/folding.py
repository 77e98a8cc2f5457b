"""A copy of a model for inference, its batch norms folded into its convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from typing import TypeGuard, TypeVar

import torch
from torch import nn

from eyeline.nn.layers import ConvNorm, FrozenBatchNorm2d

M = TypeVar("M", bound=nn.Module)


def folded(model: M) -> M:
    """A copy of `model` for inference, its batch norms folded into the convolutions before them.

    Folded are neighbours in an `nn.Sequential`, the norm of a `ConvNorm`, and the pairs that a
    module names in its class attribute `fusable = [("conv1", "bn1"), ...]`: there the norm is
    always applied to the convolution's output, and to nothing else.
    """
    model = deepcopy(model).eval().requires_grad_(False)
    for module in list(model.modules()):
        for conv_name, norm_name in _pairs(module):
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            if isinstance(conv, nn.Conv2d) and _is_fixed(norm):
                setattr(module, conv_name, fold(conv, norm))
                setattr(module, norm_name, nn.Identity())
        if isinstance(module, ConvNorm) and module.norm is not None and _is_fixed(module.norm):
            folded = fold(module, module.norm)
            module.weight, module.bias, module.norm = folded.weight, folded.bias, None
    return model


@torch.no_grad()
def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> nn.Conv2d:
    """The convolution that equals `norm(conv(x))`, for a batch norm with fixed statistics.

    w' = w s and b' = (b - mean) s + beta, with s = gamma / sqrt(var + eps); in float64, rounded
    once.
    """
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    scale = (variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    folded = deepcopy(conv)
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = shift if conv.bias is None else conv.bias.double() * scale + shift
    folded.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    folded.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
    return folded


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    yield from getattr(module, "fusable", ())
    if isinstance(module, nn.Sequential):
        yield from pairwise(module._modules)


def _is_fixed(norm: nn.Module) -> TypeGuard[nn.BatchNorm2d | FrozenBatchNorm2d]:
    """Whether it is a batch norm, and no more, that in eval mode uses stored statistics."""
    stored = type(norm) is nn.BatchNorm2d and norm.running_mean is not None
    return stored or type(norm) is FrozenBatchNorm2d

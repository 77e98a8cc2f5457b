"""Normalisation by name, and convolutions that bring theirs."""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.lone import normed
from eyeline.ops import phases, winograd
from eyeline.ops.select import may_look
from eyeline.ops.winograd_training import Convolve

NORMS = ("frozen", "batch", "group")
OPTIONAL_NORMS = ("none", *NORMS)  # where a paper has none


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine part never change:
    y = (x - mean) w / sqrt(var + eps) + b.

    Its four buffers are named as those of `nn.BatchNorm2d`, so either kind's weights load. Given
    the convolution before it too, both are one: the kernels are scaled instead of their results,
    and the gradient passes those once less. The convolution itself is then not called.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, conv: nn.Conv2d | None = None) -> Tensor:  # (B, C, H, W)
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        if conv is None:
            shift, scale = shift.to(x.dtype), scale.to(x.dtype)
            return torch.addcmul(shift[:, None, None], x, scale[:, None, None])
        weight = conv.weight * scale[:, None, None, None].to(conv.weight.dtype)
        if conv.bias is not None:
            shift = shift + conv.bias * scale
        return convolved(conv, x, weight, shift.to(weight.dtype), self.training)

    def joins(self, layer: nn.Module, x: Tensor) -> bool:
        """Whether it may be one with a layer before it, and gains: where the results are more than
        the kernels, and no hook waits for the layer's own."""
        if not is_bare(layer):
            return False
        cells = len(x) * x.shape[2] * x.shape[3] // (layer.stride[0] * layer.stride[1])
        return cells > layer.weight[0].numel()

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


def is_bare(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a convolution and nothing else, for whose own call no hook waits."""
    return type(layer) is nn.Conv2d and not (layer._forward_hooks or layer._forward_pre_hooks)


def make_norm(kind: str, channels: int, eps: float = 1e-5) -> nn.Module:
    """A normalisation layer: "frozen" or "batch" (norm), "group" (32 groups; Wu and He, 2018)."""
    if kind == "frozen":
        return FrozenBatchNorm2d(channels, eps)
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps)
    if kind == "group":
        if channels % 32:
            raise EyelineError(f'norm "group" makes 32 groups, which {channels} channels are not')
        return nn.GroupNorm(32, channels, eps)
    raise EyelineError(f"norm must be one of {', '.join(NORMS)}, not {kind!r}")


class ConvNorm(nn.Conv2d):
    """A convolution, by default as large going out as coming in, and the norm that follows it.

    Without one ("none") it is an `nn.Conv2d` with a bias, and its weights are named as such; with
    one it has no bias, and the norm's weights lie below `norm`. A batch norm that would see one
    value alone of each channel in training uses its running statistics (nn/lone.py).

    Args:
        inputs, outputs: channels, in `groups`.
        kernel: side of the kernel; `padding` is half of it, rounded down, times `dilation`, if
            none is given.
        norm: "none", "batch", "frozen" or "group"; it adds `norm_epsilon` to the variance.
    """

    norm: nn.Module | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        norm: str = "none",
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        norm_epsilon: float = 1e-5,
    ) -> None:
        padding = kernel // 2 * dilation if padding is None else padding
        bias = norm == "none"
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, groups, bias=bias)
        self.norm = None if norm == "none" else make_norm(norm, outputs, norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H, W)
        if isinstance(self.norm, FrozenBatchNorm2d):
            return self.norm(x, self)  # type: ignore[no-any-return]
        x = convolved(self, x, self.weight, self.bias, self.training)
        return x if self.norm is None else normed(x, self.norm)


def convolved(
    conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, training: bool
) -> Tensor:
    """A convolution, with these weights for its own. In training it may go Winograd's way; else a
    model computes what is written, and `optimize` makes it fast."""
    eager = may_look(x) and not torch.is_autocast_enabled("cpu")
    d = conv.dilation[0]
    if training and eager and winograd.suits(conv) and winograd.enough(x, dilation=d):
        if d == 1:
            return Convolve.apply(x, weight, bias)  # type: ignore[no-any-return]
        parts = Convolve.apply(phases.apart(x, d), weight, bias)
        return phases.together(parts, d, x.shape[2:])
    return conv._conv_forward(x, weight, bias)

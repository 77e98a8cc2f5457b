"""ResNet, ResNeXt and Wide ResNet as backbones.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385.
Xie et al., "Aggregated Residual Transformations", CVPR 2017, arXiv:1611.05431 (groups, width).
Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, arXiv:1605.07146 (twice the width).

Letters   B pictures, H and W of the input; C2..C5 the outputs of the four stages.
Departs   the stride of a bottleneck lies in its 3x3 convolution, as in most published weights
          since 2016; the paper has it in the first 1x1, and so have Caffe's weights
          (`stride_in_1x1`). Parameter names are those under which the published classification
          weights are stored. For segmentation late strides can be dilation instead
          (`output_stride`; Chen et al., "Rethinking Atrous Convolution", 2017, arXiv:1706.05587,
          sec. 3).
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from eyeline.nn.backbones.dilation import stage_strides
from eyeline.nn.backbones.encoder import Encoder
from eyeline.nn.fused import fused, max_pool
from eyeline.nn.layers import make_norm


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut (Fig. 5, left): one of a dilation, `then` another."""

    expansion = 1
    fusable: ClassVar = [("conv1", "bn1"), ("conv2", "bn2")]

    def __init__(
        self, inputs: int, planes: int, stride: int, norm: str, eps: float, groups: int, width: int,
        stride_in_1x1: bool, dilation: int = 1, then: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        d = dilation
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=d, dilation=d, bias=False)
        self.bn1 = make_norm(norm, planes, eps)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=then, dilation=then, bias=False)
        self.bn2 = make_norm(norm, planes, eps)
        self.downsample = shortcut(inputs, planes, stride, norm, eps)

    def forward(self, x: Tensor) -> Tensor:
        out = fused(x, self.conv1, self.bn1, relu=True)
        side = x if self.downsample is None else fused(x, *self.downsample)
        return fused(out, self.conv2, self.bn2, add=side, relu=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (in groups), 1x1 and the shortcut (Fig. 5, right); `then` is a `BasicBlock`'s."""

    expansion = 4
    fusable: ClassVar = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")]

    def __init__(
        self, inputs: int, planes: int, stride: int, norm: str, eps: float, groups: int, width: int,
        stride_in_1x1: bool, dilation: int = 1, then: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        inner = planes * width // 64 * groups
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(inputs, inner, 1, first, bias=False)
        self.bn1 = make_norm(norm, inner, eps)
        self.conv2 = nn.Conv2d(
            inner, inner, 3, second, dilation, dilation=dilation, groups=groups, bias=False
        )
        self.bn2 = make_norm(norm, inner, eps)
        self.conv3 = nn.Conv2d(inner, planes * 4, 1, bias=False)
        self.bn3 = make_norm(norm, planes * 4, eps)
        self.downsample = shortcut(inputs, planes * 4, stride, norm, eps)

    def forward(self, x: Tensor) -> Tensor:
        out = fused(x, self.conv1, self.bn1, relu=True)
        out = fused(out, self.conv2, self.bn2, relu=True)
        side = x if self.downsample is None else fused(x, *self.downsample)
        return fused(out, self.conv3, self.bn3, add=side, relu=True)


def shortcut(inputs: int, outputs: int, stride: int, norm: str, eps: float) -> nn.Module | None:
    """The projection of eq. 2 where the shape changes (option B of the paper), else None."""
    if stride == 1 and inputs == outputs:
        return None
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(conv, make_norm(norm, outputs, eps))


class ResNet(Encoder):
    """The convolutional part: (B, in_channels, H, W) -> [C2, C3, C4, C5] at strides 4, 8, 16, 32,
    or less of both.

    Args:
        block, depths: kind of block, and how many in each of the four stages.
        groups, width: ResNeXt's cardinality and the width of a group, at 64 planes.
        planes: of the stem and the first stage, doubled at each further one; 64 in the paper.
        norm: "batch", "frozen" or "group"; `norm_epsilon` is what it adds to the variance.
        stride_in_1x1: a bottleneck's stride lies in its first convolution, not in its second.
        output_stride: of C5, and of C4 where it is 8: 32, or 16 or 8, with dilation in the 3x3
            convolutions in place of the strides left out.
        first_dilates: the first block of such a stage has that stage's dilation; or, as in
            torchvision, the convolution that had the stride keeps the one before it.
        multi_grid: factors of the dilations of the last stage's blocks, one each, the last one
            for all further blocks (the paper cited above, sec. 3.2.1).
        depth: the last map, 5 for C5; what would come behind it is left out.

    `absent` begins the names that published weights have of the stages left out.
    """

    fusable: ClassVar = [("conv1", "bn1")]

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        groups: int = 1,
        width: int = 64,
        norm: str = "batch",
        norm_epsilon: float = 1e-5,
        in_channels: int = 3,
        stride_in_1x1: bool = False,
        output_stride: int = 32,
        first_dilates: bool = False,
        multi_grid: tuple[int, ...] = (1,),
        planes: int = 64,
        depth: int = 5,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 7, 2, padding=3, bias=False)
        self.bn1 = make_norm(norm, planes, norm_epsilon)
        inputs, outputs = planes, []
        for stage, (stride, before, dilation) in enumerate(stage_strides(output_stride, depth)):
            blocks, inner = [], planes << stage  # 64, 128, 256, 512
            for i in range(depths[stage]):
                step = stride if stage > 0 and i == 0 else 1  # C2's is the max pooling's
                grid = multi_grid[min(i, len(multi_grid) - 1)] if stage == 3 else 1
                wide = before if i == 0 and not first_dilates else dilation
                how = (step, norm, norm_epsilon, groups, width, stride_in_1x1)
                blocks.append(block(inputs, inner, *how, wide * grid, dilation * grid))
                inputs = inner * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            outputs.append(inputs)
        self.channels = outputs
        self.stage_channels = [planes, *outputs]
        self.absent = tuple(f"layer{stage}" for stage in range(depth, 5))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _maps(self, x: Tensor) -> list[Any]:
        """[C1, C2, C3, C4, C5], to `depth`; C1 (B, 64, H/2, W/2) is the stem's."""
        c1 = fused(x, self.conv1, self.bn1, relu=True)
        maps, x = [c1], max_pool(c1, 3, 2, padding=1)  # (B, 64, H/4, W/4)
        # C2 (B, 64 e, H/4, W/4), e the block's expansion, .. C5 (B, 512 e, H/32, W/32)
        for stage in range(1, len(self.channels) + 1):
            x = getattr(self, f"layer{stage}")(x)
            maps.append(x)
        return maps


VARIANTS: dict[str, dict[str, Any]] = {
    "resnet18": dict(block=BasicBlock, depths=(2, 2, 2, 2)),
    "resnet34": dict(block=BasicBlock, depths=(3, 4, 6, 3)),
    "resnet50": dict(block=Bottleneck, depths=(3, 4, 6, 3)),
    "resnet101": dict(block=Bottleneck, depths=(3, 4, 23, 3)),
    "resnet152": dict(block=Bottleneck, depths=(3, 8, 36, 3)),
    "resnext50_32x4d": dict(block=Bottleneck, depths=(3, 4, 6, 3), groups=32, width=4),
    "resnext101_32x8d": dict(block=Bottleneck, depths=(3, 4, 23, 3), groups=32, width=8),
    "resnext101_64x4d": dict(block=Bottleneck, depths=(3, 4, 23, 3), groups=64, width=4),
    "wide_resnet50_2": dict(block=Bottleneck, depths=(3, 4, 6, 3), width=128),
    "wide_resnet101_2": dict(block=Bottleneck, depths=(3, 4, 23, 3), width=128),
}

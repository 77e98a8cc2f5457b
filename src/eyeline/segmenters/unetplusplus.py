"""UNet++: Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", DLMIA
2018, arXiv:1807.10165, and "UNet++: Redesigning Skip Connections to Exploit Multiscale Features in
Image Segmentation", IEEE TMI 2020, arXiv:1912.05074.

Between U-Net's way down and its way up lies a triangle of nodes: each reads all nodes before it at
its level and the one below. The top row's nodes are the ends of U-Nets of depth 1, 2 .., each with
a head of its own, so that a trained network can be cut to the depth that suffices.

Letters   B pictures, K classes, H and W of the batch; X^i,j the node of level i (its stride 2^i)
          and column j, column 0 being the way down; D the deepest level; L a depth of pruning.
Departs   `convention="smp"` is segmentation-models-pytorch's: a backbone whose maps at strides 2 to
          32 are column 0, the nodes at the ends of the rows as wide as a U-Net's decoder, cells
          repeated where the paper's are enlarged by learned 2x2 convolutions, one head, behind two
          more convolutions at stride 1 (3x3 where the paper's are 1x1).
          A `backbone=` without that has the paper's heads on its rows' ends, at stride 2.
          The papers' sum of cross entropy and Dice is `losses=("cross_entropy", "dice")`; heads but
          the last count with the first of these alone, and its weight. The authors' code has
          drop-out in each node, of which the papers do not speak.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.backbones import build_encoder
from eyeline.nn.decoding import DoubleConv, fitted, fitting, he
from eyeline.nn.detector import make_config
from eyeline.nn.fused import beside, max_pool
from eyeline.nn.segmenter import Maps, Segmenter, SegmenterConfig
from eyeline.note import note
from eyeline.registry import register
from eyeline.structures import Batch


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig):
    """Numbers of the papers, each with its section; of that of 2018 where no year is given."""

    # The papers' network
    width: int = 32  # sec. 4: of level 0; doubled at each level
    depth: int = 4  # Fig. 1: D
    norm: str = "none"  # of a backbone "batch" by default
    # Another way down
    backbone: str | None = None
    decoder_widths: tuple[int, ...] = (256, 128, 64, 32, 16)  # of the rows' ends, coarse to fine
    decoder_norm: str = "batch"
    decoder_upsampling: str = "learned"  # or "nearest"
    # Heads
    supervision: bool = True  # sec. 3.2: one at each column; else at the last alone
    mode: str = "fast"  # sec. 3.2: the last head; "accurate": the mean of all
    # Sec. 3.2: L; the nodes beyond are not computed, a backbone is all the same; 0: D
    pruned: int = 0


CONVENTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "smp": dict(backbone="resnet34", norm="batch", decoder_upsampling="nearest", supervision=False),
}


class UNetPlusPlus(Segmenter):
    """Options are the fields of `Config`."""

    class_dependent = ("heads",)

    def __init__(self, config: Config) -> None:
        self.set_up(config)
        c = config
        self.backbone: Any = None
        self.last: nn.Module | None = None
        if c.backbone is None:
            depth, how = c.depth, (c.norm, c.norm_epsilon)
            widths = [c.width << i for i in range(depth + 1)]
            ends = widths[-2::-1]
        else:
            self.backbone = build_encoder(
                c.backbone, norm=c.norm, norm_epsilon=c.norm_epsilon, in_channels=c.in_channels
            )
            widths, how = list(self.backbone.stage_channels), (c.decoder_norm, c.norm_epsilon)
            depth, ends = len(widths) - 1, list(c.decoder_widths)
            if len(ends) != depth + 1:
                raise EyelineError(f"decoder_widths must be {depth + 1} numbers, not {ends}")
            self.last = DoubleConv(ends[-2], ends[-1], *how)
        if not 0 <= c.pruned <= depth or (c.pruned and not c.supervision):
            raise EyelineError(
                f"pruned must be from 1 to {depth}, of a network with supervision, or 0: "
                f"not {c.pruned}"
            )
        self.depth = depth

        def width(i: int, j: int) -> int:
            """Channels of X^i,j."""
            return ends[depth - 1 - i] if i + j == depth and j else widths[i]

        learned = c.decoder_upsampling == "learned"
        self.nodes, self.enlarging = nn.ModuleDict(), nn.ModuleDict()
        if c.backbone is None:
            for i, inputs in enumerate([c.in_channels, *widths[:-1]]):
                self.nodes[f"{i}_0"] = DoubleConv(inputs, widths[i], *how)
        for j in range(1, depth + 1):
            for i in range(depth + 1 - j):
                below = width(i + 1, j - 1)
                if learned:
                    self.enlarging[f"{i}_{j}"] = nn.ConvTranspose2d(below, widths[i], 2, stride=2)
                    below = widths[i]
                self.nodes[f"{i}_{j}"] = DoubleConv(below + j * widths[i], width(i, j), *how)
        kernel = 1 if c.backbone is None else 3
        columns = range(1, depth + 1) if c.supervision else [depth]
        ended = {j: width(0, j) for j in columns}
        if self.last is not None:
            ended[depth] = ends[-1]
        self.heads = nn.ModuleDict(
            {str(j): nn.Conv2d(n, c.num_classes, kernel, padding=kernel // 2)
             for j, n in ended.items()}
        )  # fmt: skip
        self.auxiliary_weights = {f"head_{j}": 1.0 for j in columns}  # eq. 3 of 2020
        for part in (self.nodes, self.enlarging, self.last):
            if part is not None:
                he(part)
        for head in self.heads.values():
            nn.init.xavier_uniform_(head.weight)
            nn.init.zeros_(head.bias)

    def compute(self, batch: Batch) -> Tensor:
        """A prepared batch to logits (B, K, H, W), float32; of the mean of several heads'
        probabilities the logarithms (sec. 3.2), of one class the logit."""
        if self.config.mode == "fast":
            return super().compute(batch)
        said = self.said(batch.images.to(self.dtype)).values()
        size = batch.images.shape[2:]
        logits = torch.stack([self.resized(head(), size) for head in said])  # (L, B, K, H, W)
        if self.config.num_classes == 1:
            return note("logits", logits.sigmoid().mean(0).logit(torch.finfo(logits.dtype).eps))
        mean = logits.softmax(2).mean(0)
        return note("logits", mean.clamp(min=torch.finfo(mean.dtype).tiny).log())

    def maps(self, images: Tensor) -> Maps:
        """(B, in_channels, H, W) -> logits (B, K, H, W), and those of the heads before, at the
        stride of level 0."""
        said = self.said(images)
        last = said.pop(max(said))
        return last(), {f"head_{j}": head for j, head in said.items()}

    def said(self, images: Tensor) -> dict[int, Callable[[], Tensor]]:
        """What gives each head's logits, by column."""
        row = self.row(images).items()
        return {j: partial(self.heads[str(j)], x) for j, x in row if str(j) in self.heads}

    def row(self, images: Tensor) -> dict[int, Tensor]:
        """What the heads read, by column: X^0,1 .. X^0,L."""
        limit = self.config.pruned or self.depth
        rows = [[x] for x in self.contract(images, limit)]  # X^i,0
        for j in range(1, limit + 1):
            for i in range(limit + 1 - j):
                below, size = rows[i + 1][j - 1], rows[i][0].shape[2:]
                if self.enlarging:
                    below = fitted(self.enlarging[f"{i}_{j}"](below), size)
                # Eq. 1: the node below, and all before it, the nearest first.
                x = self.nodes[f"{i}_{j}"](beside(below, rows[i][::-1], size))
                rows[i].append(note(f"X^{i},{j}, eq. 1", x))
        row = dict(enumerate(rows[0]))
        del row[0]
        if self.last is not None and limit == self.depth:
            row[limit] = note("at stride 1", self.last(beside(row[limit], [], images.shape[2:])))
        return row

    def contract(self, images: Tensor, limit: int) -> list[Tensor]:
        """X^0,0 .. X^L,0."""
        if self.backbone is not None:
            return self.backbone.stages(images)[: limit + 1]  # type: ignore[no-any-return]
        maps = []
        for i in range(limit + 1):
            x = max_pool(maps[-1], 2) if i else images
            maps.append(note(f"X^{i},0, eq. 1", self.nodes[f"{i}_0"](x)))
        return maps


PAPER = (
    'Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", '
    "DLMIA 2018, arXiv:1807.10165"
)


@register("unetplusplus", task="segmentation", paper=PAPER)
def unetplusplus(num_classes: int, **options: Any) -> UNetPlusPlus:
    """UNet++; options are the fields of `Config`."""
    options = {"num_classes": num_classes, **options}
    options = fitting(options, Config, CONVENTIONS, alone=("width", "depth"))
    return UNetPlusPlus(make_config(Config, CONVENTIONS, options))

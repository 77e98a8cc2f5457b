"""Region proposal network: Ren et al., "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497, sec. 3.1,
on a pyramid: Lin et al., CVPR 2017, arXiv:1612.03144, sec. 4.1.

Letters   B pictures, A anchors a cell, N anchors in all (N_l of level l), P proposals, G objects.
Departs   The loss of the boxes is divided by the number of sampled anchors. Eq. 1 has
          lambda / N_reg = 10 / 2400 = 1/240 there, the authors' code the 256 of the sample.
          Anchors that cross the picture's border take part, as in the pyramid's paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.losses.normaliser import batch_total
from eyeline.losses.smooth_l1 import smooth_l1
from eyeline.nn.anchors import AnchorPyramid, flatten_cells
from eyeline.nn.fused import fused
from eyeline.nn.heads.sampling import random_order
from eyeline.nn.layers import ConvNorm
from eyeline.nn.lineage import best_of_levels, every_box, of_proposals
from eyeline.note import note
from eyeline.ops.boxes import clip
from eyeline.ops.deltas import decode, encode
from eyeline.ops.matching import assign, pad_objects
from eyeline.ops.nms import nms_padded
from eyeline.ops.sampling import balanced_sample
from eyeline.ops.select import counting, highest, numbers, slots, take
from eyeline.structures import Assignment, Sample, Target


class RPN(nn.Module):
    """Which anchors hold an object, and where in or about them it lies.

    Args:
        channels: of every level.
        anchors: the anchors of the pyramid.
        objectness: "softmax", two scores an anchor as in the paper, or "sigmoid", one. Two
            scores are used by their difference, which makes both the same logistic loss.
        foreground_iou, background_iou: an anchor from the first on is an object (so is each
            object's best anchor), below the second background, in between ignored.
        samples, positive_fraction: anchors of a picture that the loss sees, and how many of them
            may be objects.
        nms_iou: of two proposals of a level that overlap more, the better stays.
        beta: where smooth L1 bends.
        depth: how many 3x3 convolutions with ReLU stand before the two outputs; one in the paper.
    """

    def __init__(
        self,
        channels: int,
        anchors: AnchorPyramid,
        objectness: str = "softmax",
        foreground_iou: float = 0.7,
        background_iou: float = 0.3,
        samples: int = 256,
        positive_fraction: float = 0.5,
        nms_iou: float = 0.7,
        beta: float = 1.0,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.anchors = anchors
        self.foreground_iou, self.background_iou = foreground_iou, background_iou
        self.samples, self.positive_fraction = samples, positive_fraction
        self.nms_iou, self.beta = nms_iou, beta
        self.scores_per_anchor = 2 if objectness == "softmax" else 1
        if depth < 1:
            raise EyelineError(f"rpn_depth is {depth}; it must be 1 or more")
        self.conv = ConvNorm(channels, channels, 3)
        self.deeper = nn.ModuleList(ConvNorm(channels, channels, 3) for _ in range(depth - 1))
        self.objectness = nn.Conv2d(channels, anchors.per_cell * self.scores_per_anchor, 1)
        self.deltas = nn.Conv2d(channels, anchors.per_cell * 4, 1)
        for conv in (self.conv, *self.deeper, self.objectness, self.deltas):
            nn.init.normal_(conv.weight, std=0.01)  # sec. 3.1.3
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels (B, C, H_l, W_l) to logits (B, N_l) and deltas (B, N_l, 4) of each, float32."""
        logits, deltas = [], []
        for level in levels:
            hidden = fused(level, self.conv, relu=True)
            for conv in self.deeper:
                hidden = fused(hidden, conv, relu=True)
            scores = flatten_cells(self.objectness(hidden), self.scores_per_anchor)
            logits.append(self.as_logits(scores.float()))
            deltas.append(flatten_cells(self.deltas(hidden), 4).float())
        return logits, deltas

    @torch.no_grad()
    def propose(
        self,
        logits: list[Tensor],
        deltas: list[Tensor],
        anchors: list[Tensor],
        sizes: Tensor,
        before: int,
        after: int,
        min_size: float = 1e-3,
    ) -> tuple[Tensor, Tensor]:
        """The best boxes of each picture: of each level the best `before`, of these what NMS
        leaves, of all levels the best `after`.

        Returns boxes (B, P, 4), best first, and which of them are meant (B, P).
        """
        note("boxes of all anchors, sec. 3.1.1", deltas, every_box, logits, deltas, anchors, sizes)
        boxes, scores, rows = [], [], []
        for level, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
            best, index = highest(level, before)  # (B, k)
            rows.append(index)
            box = decode(take(level_deltas, index), level_anchors[index])  # (B, k, 4)
            missing = before - index.shape[1]
            scores.append(F.pad(best, (0, missing), value=-torch.inf))
            boxes.append(F.pad(clip(box, sizes[:, None]), (0, 0, 0, missing)))
        all_boxes, all_scores = torch.stack(boxes, 1), torch.stack(scores, 1)  # (B, L, k, ...)
        sides = all_boxes[..., 2:] - all_boxes[..., :2]
        large, filled = (sides >= min_size).all(-1), all_scores > -torch.inf
        note(
            "best of each level, sec. 3.3", all_boxes, best_of_levels,
            all_boxes, all_scores, rows, logits, before,
        )  # fmt: skip

        kept, valid = nms_padded(
            all_boxes, all_scores, self.nms_iou, min(before, after), valid=large & filled
        )  # (B, L, D)
        left_scores = all_scores.gather(2, kept).masked_fill(~valid, -torch.inf).flatten(1)
        left = all_boxes.gather(2, kept[..., None].expand(*kept.shape, 4)).flatten(1, 2)
        count = slots(valid.flatten(1), min(after, left_scores.shape[1]))
        best, index = left_scores.topk(count)  # (B, P)
        proposals = note(
            "proposals, sec. 3.1", take(left, index), of_proposals,
            all_boxes, all_scores, large, self.nms_iou, after,
        )  # fmt: skip
        return proposals, best > -torch.inf

    def losses(
        self,
        levels: list[Tensor],
        anchors: list[Tensor],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        """Eq. 1 over the sampled anchors of the batch: logistic loss and smooth L1."""
        all_anchors = torch.cat(anchors)  # (N, 4)
        objects = pad_objects(targets)
        limits = (self.foreground_iou, self.background_iou)
        matches = assign(all_anchors, objects, *limits, force_match=True)
        note(
            "anchors matched to objects, sec. 3.1.2", matches,
            Assignment, objects.boxes, objects.labels, matches, *limits,
        )  # fmt: skip
        order = random_order(self, targets, len(all_anchors))
        index, filled = balanced_sample(matches, order, self.samples, self.positive_fraction)
        note("sampled anchors, sec. 3.1.3", index, Sample, index, filled)
        matches = matches.gather(1, index)
        boxes, _ = objects.of(matches)  # (B, S, 4)
        picture = torch.arange(len(targets), device=index.device)[:, None].expand_as(index)
        chosen = counting(filled.flatten())
        counts, matches, boxes, picture, index = (
            part.flatten(0, 1)[chosen] for part in (filled, matches, boxes, picture, index)
        )
        truth = counts & (matches >= 0)
        logits, deltas = self.at(levels, picture, index)
        objectness = F.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none")
        # What is no object wants no other box than the one it has.
        wanted = encode(boxes, all_anchors[index]).where(truth[:, None], deltas.detach())
        box = smooth_l1(deltas, wanted, self.beta, reduction="sum")
        total = batch_total(counts.sum(), len(targets))
        return {"rpn_objectness": (objectness * counts).sum() / total, "rpn_box": box / total}

    def at(self, levels: list[Tensor], picture: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` says of S single anchors: logits (S,) and deltas (S, 4).

        The loss sees 256 of some hundred thousand anchors. Computed at their cells alone, the
        gradient is the same and costs next to nothing.

        Args:
            picture, anchor: (S,) index into the batch, and into the anchors of all levels.
        """
        shapes = [level.shape[2:] for level in levels]
        ends = list(accumulate(h * w * self.anchors.per_cell for h, w in shapes))

        def of_level(values: Sequence[int]) -> Tensor:  # for each anchor, ready to broadcast
            return numbers(values, anchor, torch.int64)[level_index][:, None, None]

        level_index = torch.bucketize(anchor, numbers(ends, anchor, torch.int64), right=True)
        height, width = (of_level([shape[axis] for shape in shapes]) for axis in (0, 1))
        *earlier, last = (self.conv, *self.deeper)
        reach = 1 + len(earlier)  # cells that the convolutions see around one
        step = torch.arange(-reach, reach + 1, device=anchor.device)
        cell = (anchor[:, None, None] - of_level([0, *ends[:-1]])) // self.anchors.per_cell
        rows, columns = cell // width + step[:, None], cell % width + step  # (S, side, 1 or side)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        index = (picture[:, None, None] * height + rows) * width + columns
        inputs = levels[0].new_zeros(*index.shape, levels[0].shape[1])  # (S, side, side, C)
        for i, level in enumerate(levels):
            chosen = counting(level_index == i)
            here = inside[chosen] & (level_index[chosen] == i)[:, None, None]
            table = level.permute(0, 2, 3, 1).flatten(0, 2)  # (B H W, C)
            near = index[chosen].clamp(0, len(table) - 1)  # a row that exists
            values = table.index_select(0, near.flatten()).view(*near.shape, table.shape[1])
            inputs = inputs.index_add(0, chosen, values * here[..., None])
        for conv in earlier:  # each takes a cell from every side; outside lies 0 for the next
            around = F.conv2d(inputs.permute(0, 3, 1, 2), conv.weight, conv.bias)  # type: ignore[arg-type]
            inside = inside[:, 1:-1, 1:-1]
            inputs = F.relu(around).permute(0, 2, 3, 1) * inside[..., None]
        kernel = last.weight.permute(0, 2, 3, 1).flatten(1)  # (C, 3 * 3 * C)
        hidden = F.relu(F.linear(inputs.flatten(1), kernel, last.bias))
        place = (torch.arange(len(anchor), device=anchor.device), anchor % self.anchors.per_cell)
        per_cell = (self.anchors.per_cell, -1)
        scores = F.linear(hidden, self.objectness.weight.flatten(1), self.objectness.bias)
        deltas = F.linear(hidden, self.deltas.weight.flatten(1), self.deltas.bias)
        logits = self.as_logits(scores.unflatten(1, per_cell)[place].float())
        return logits, deltas.unflatten(1, per_cell)[place].float()

    def as_logits(self, scores: Tensor) -> Tensor:
        """One or two scores an anchor (..., 1 or 2) to logits of "object" (...)."""
        return scores[..., 1] - scores[..., 0] if scores.shape[-1] == 2 else scores[..., 0]

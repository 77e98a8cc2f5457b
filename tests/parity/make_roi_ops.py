"""Writes roi_ops.npz: inputs and torchvision's results of RoIAlign, RoIPool and NMS.

    python tests/parity/make_roi_ops.py        # in an environment with torchvision 0.28

eyeline's tests read the file; they never import torchvision.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torchvision.ops as tv

SCALES = (0.25, 0.125)


def main() -> None:
    torch.manual_seed(0)
    levels = [torch.randn(2, 3, 14, 18), torch.randn(2, 3, 7, 9)]
    corner = torch.rand(16, 2) * torch.tensor([80.0, 64.0]) - 8
    boxes = torch.cat([corner, corner + torch.rand(16, 2) * 40], 1)
    boxes[0] = torch.tensor([9.0, 9.0, 9.0, 9.0])  # no area
    boxes[1] = torch.tensor([-300.0, -300.0, -200.0, -200.0])  # far outside
    boxes[2] = torch.tensor([40.0, 40.0, 30.0, 20.0])  # corners exchanged
    boxes[3] = torch.tensor([0.0, 0.0, 72.0, 56.0])  # all of the picture
    image = torch.randint(0, 2, (16,))
    level = torch.randint(0, 2, (16,))
    out = {"boxes": boxes, "image": image, "level": level, "fine": levels[0], "coarse": levels[1]}

    def pooled(operator, **options):
        """Result for all regions, and the gradient of sum(result * ramp) for both levels."""
        maps = [x.clone().requires_grad_() for x in levels]
        result = torch.zeros(16, 3, 3, 4)
        for index, scale in enumerate(SCALES):
            mine = (level == index).nonzero()[:, 0]
            regions = torch.cat([image[mine, None].float(), boxes[mine]], 1)
            part = operator(maps[index], regions, (3, 4), spatial_scale=scale, **options)
            result = result.index_copy(0, mine, part)
        ramp = torch.linspace(-1, 1, result.numel()).view_as(result)
        return (result.detach(), *torch.autograd.grad((result * ramp).sum(), maps))

    for aligned in (False, True):
        for ratio in (0, 2):
            result = pooled(tv.roi_align, aligned=aligned, sampling_ratio=ratio)
            for name, value in zip(("out", "fine", "coarse"), result, strict=True):
                out[f"align_{aligned}_{ratio}_{name}"] = value
    for name, value in zip(("out", "fine", "coarse"), pooled(tv.roi_pool), strict=True):
        out[f"pool_{name}"] = value

    corner = torch.randint(0, 12, (120, 2)).float()
    out["nms_boxes"] = torch.cat([corner, corner + torch.randint(0, 8, (120, 2))], 1)
    out["nms_scores"] = torch.randint(0, 30, (120,)).float()
    for threshold in (0.3, 0.5, 0.7, 0.8):  # 0.3 and 0.8 lie off float32's grid, and IoUs on them
        out[f"nms_{threshold}"] = tv.nms(out["nms_boxes"], out["nms_scores"], threshold)
    np.savez_compressed(
        Path(__file__).with_name("roi_ops.npz"), **{k: v.numpy() for k, v in out.items()}
    )


if __name__ == "__main__":
    main()

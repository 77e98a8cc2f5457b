"""Whose checkpoint an unknown one looks like, by its names."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What some keys begin with, all of a line needed -> whose such names are.
FAMILIES: list[tuple[tuple[str, ...], str]] = [
    ((r"vgg\.\d", r"loc\.\d", r"conf\.\d"), "SSD in the names of ssd.pytorch"),
    ((r"module_list\.\d",), "YOLOv3 in the names of PyTorch-YOLOv3"),
    ((r"(model\.)?model\.\d+\.(conv|cv1|m)\.",), "a YOLO of ultralytics"),
    ((r"backbone\.", r"neck\.", r"(roi_head|rpn_head|bbox_head)\."),
     "another detector of mmdetection"),
    ((r"backbone\.stages\.", r"bbox_head\."), "another detector of mmdetection"),
    ((r"backbone\.(bottom_up\.|res2|stem)", r"(proposal_generator|roi_heads|head)\."),
     "another detector of detectron2"),
    ((r"transformer\.encoder\.", r"(bbox_embed|class_embed)\."), "a DETR"),
    ((r"model\.(backbone\.conv_encoder|decoder)\.", r"(model\.|class_)"), "a DETR of transformers"),
    ((r"(backbone\.)?features\.\d", r"classifier\.\d"), "a VGG or AlexNet classifier"),
    ((r"(vit\.)?(blocks|encoder\.layer)\.0\.",), "a vision transformer"),
    ((r"stem\.", r"stages\.0\."), "a classifier of timm"),
    ((r"backbone\.", r"classifier\.\d"), "a segmentation model of torchvision"),
]  # fmt: skip


def looks_like(names: Iterable[str]) -> str:
    """The family of a checkpoint with these names; "" where none is known."""
    names = list(names)
    for patterns, family in FAMILIES:
        if all(any(re.match(pattern, name) for name in names) for pattern in patterns):
            return family
    return ""

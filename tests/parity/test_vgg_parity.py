"""torchvision's VGG16 and ours, of the same weights, say the same of a real picture.

The references are torchvision's, written by make_vgg.py; it is not needed here.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from references import filled, stored
from torch import Tensor

from eyeline.checkpoints import load_weights
from eyeline.nn.backbones import build_backbone
from eyeline.registry import create_model


@pytest.mark.parametrize(("name", "norm"), [("vgg16", "none"), ("vgg16_bn", "frozen")])
@torch.no_grad()
def test_last_pooling(name: str, norm: str, pictures: list[Tensor]) -> None:
    weights = filled("vgg", json.loads(str(stored("vgg")[f"{name}.shapes"])))
    options = {"num_classes": 2, "width": 8, "size": 224, "norm": norm}
    detector: Any = create_model("ssd300", **options, pretrained=weights)
    square = F.interpolate(pictures[0][None].float(), (224, 224), mode="bilinear").round()
    images = detector.prepare([square[0].to(torch.uint8)]).images
    plain = build_backbone("vgg16", norm=norm, width=8).eval()
    load_weights(plain, weights, skip=["fc6", "fc7"])
    wanted = torch.from_numpy(stored("vgg")[f"{name}.pool5"])
    torch.testing.assert_close(plain(images)[3], wanted, rtol=1e-4, atol=1e-5)
    # SSD's has the same convolutions; its third pooling rounds up, which 56 cells do not show.
    conv5_3 = detector.eval().backbone(images)[1]
    torch.testing.assert_close(F.max_pool2d(conv5_3, 2), wanted, rtol=1e-4, atol=1e-5)

"""PSPNet: what the suite over every segmenter does not ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from eyeline.registry import create_model
from eyeline.segmenters.pspnet import PyramidPooling


@torch.no_grad()
def test_pyramid_against_a_loop() -> None:
    """Means of the parts, whose borders overlap where they do not divide the map, in a plain loop;
    enlarged with corners on corners."""
    torch.manual_seed(0)
    pyramid = PyramidPooling(8, (1, 2, 3, 6), "batch", 1e-5, True, True).eval()
    x = torch.rand(1, 8, 9, 13)
    means: list[torch.Tensor] = []
    for conv in pyramid.convs:
        conv.register_forward_hook(lambda _, given, __: means.append(given[0]))
    found = pyramid(x)
    assert found.shape == (1, 16, 9, 13) and torch.equal(found[:, 8:], x)
    for side, mean in zip((1, 2, 3, 6), means, strict=True):
        for i in range(side):
            for j in range(side):
                rows = slice(i * 9 // side, -(-(i + 1) * 9 // side))
                columns = slice(j * 13 // side, -(-(j + 1) * 13 // side))
                part = x[..., rows, columns].mean((2, 3))
                torch.testing.assert_close(mean[..., i, j], part)
    whole = pyramid.convs[0](means[0]).relu()
    torch.testing.assert_close(found[:, :2], whole.expand(-1, -1, 9, 13))
    corner = pyramid.convs[3](means[3]).relu()[..., 0, 0]
    torch.testing.assert_close(found[:, 6:8, 0, 0], corner)


def test_conventions() -> None:
    paper: Any = create_model("pspnet", num_classes=3, backbone="resnet18")
    assert paper.auxiliary_weights == {"auxiliary": 0.4}
    assert paper.class_dependent == ("score", "auxiliary.score")
    assert type(paper.drop) is type(paper.auxiliary.drop) is nn.Dropout2d
    assert paper.joined.kernel_size == (3, 3) and paper.pyramid.convs[0].norm is not None
    smp: Any = create_model("pspnet", num_classes=3, backbone="resnet18", convention="smp")
    assert not hasattr(smp, "auxiliary") and not hasattr(smp.backbone, "layer3")
    assert smp.pyramid.convs[0].norm is None and smp.pyramid.convs[1].norm is not None
    assert smp.score.kernel_size == (3, 3) and smp.joined.kernel_size == (1, 1)


def test_one_picture_in_training_leaves_the_norm_of_the_whole_alone() -> None:
    torch.manual_seed(0)
    model: Any = create_model("pspnet", num_classes=3, backbone="resnet18", width=8).train()
    images, target = torch.rand(2, 3, 40, 40), torch.zeros(2, 40, 40, dtype=torch.int64)
    norm = model.pyramid.convs[0].norm
    assert isinstance(norm, nn.BatchNorm2d)
    model(images[:1], target[:1])
    assert not norm.running_mean.any()
    model(images, target)
    assert norm.running_mean.any()


def test_pretrained_weights_of_a_whole_backbone_fill_a_part() -> None:
    source: Any = create_model("resnet18", num_classes=5)
    model: Any = create_model(
        "pspnet", num_classes=3, backbone="resnet18", convention="smp",
        pretrained=source.state_dict(),
    )  # fmt: skip
    assert torch.equal(model.backbone.layer2[1].conv2.weight, source.layer2[1].conv2.weight)
    assert any(name.startswith("layer4.") for name in model.load_report.left_out)
    with pytest.raises(Exception, match="backbone is a mobilenet_v2"):
        create_model(
            "pspnet", num_classes=3, backbone="mobilenet_v2", pretrained=source.state_dict()
        )

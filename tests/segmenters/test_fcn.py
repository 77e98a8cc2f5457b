"""FCN: upsampling, skips, starts from coarser nets and from VGG16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.checkpoints import Checkpoint
from eyeline.errors import EyelineError
from eyeline.nn.backbones.vgg import DEPTHS, WIDTHS
from eyeline.registry import create_model
from eyeline.segmenters.fcn import Upsampling, bilinear

SMALL = dict(num_classes=3, width=2)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(1, 3, 70, 101, generator=torch.Generator().manual_seed(0))


def classifier(width: int) -> dict[str, Tensor]:
    """A VGG16 classifier in torchvision's names."""
    torch.manual_seed(0)
    state, place, inputs = {}, 0, 3
    for depth, factor in zip(DEPTHS, WIDTHS, strict=True):
        for _ in range(depth):
            state[f"features.{place}.weight"] = torch.randn(factor * width, inputs, 3, 3) / 9
            state[f"features.{place}.bias"] = torch.randn(factor * width) / 9
            place, inputs = place + 2, factor * width
        place += 1
    wide = 64 * width
    for place, inputs, outputs in ((0, 49 * 8 * width, wide), (3, wide, wide), (6, wide, 10)):
        state[f"classifier.{place}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
        state[f"classifier.{place}.bias"] = torch.randn(outputs)
    return state


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
@pytest.mark.parametrize("learned", [True, False])
def test_upsampling_starts_as_bilinear_interpolation(factor: int, learned: bool) -> None:
    """Each class by itself; but a border is 0 and not as what lies beside it."""
    scores = torch.randn(2, 3, 5, 4)
    found = Upsampling(3, factor, whole=False, learned=learned)(scores)
    plain = F.interpolate(scores, scale_factor=factor, mode="bilinear")
    assert found.shape == plain.shape
    inner = slice(factor // 2, -factor // 2)
    torch.testing.assert_close(found[..., inner, inner], plain[..., inner, inner])
    assert not torch.allclose(found[..., 0, 0], plain[..., 0, 0])


def test_bilinear_kernel() -> None:
    """The literal of the authors' net surgery for a side of 4."""
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    assert torch.equal(bilinear(4), row[:, None] * row)


def test_the_last_upsampling_has_parameters_where_it_is_learned() -> None:
    plain, learned = (create_model("fcn8s", **SMALL, final_learned=v) for v in (False, True))
    names = {name for name, _ in learned.named_parameters()}
    assert names - {name for name, _ in plain.named_parameters()} == {"final.weight"}
    assert learned.final.weight.shape == (3, 3, 16, 16)


@torch.no_grad()
def test_a_finer_net_starts_as_the_coarser_one_says(images: Tensor) -> None:
    """Its new scores are 0, so all that differs is how bilinear upsampling is cut in two."""
    torch.manual_seed(0)
    coarse: Any = create_model("fcn32s", **SMALL).eval()
    coarse.score_fr.weight.normal_()
    wanted = coarse(images)
    for name, new in (("fcn16s", 2), ("fcn8s", 4)):
        held = Checkpoint("eyeline", "fcn32s", "the file", dict(SMALL), None, coarse.state_dict())
        finer: Any = create_model(name, weights=held).eval()
        missing = {each.partition(".")[0] for each in finer.load_report.missing}
        assert len(missing) == new
        assert "not in the file, as the model had them: score_pool" in str(finer.load_report)
        found = finer(images)[..., 16:-16, 16:-16]
        assert (found - wanted[..., 16:-16, 16:-16]).abs().mean() < 0.2 * wanted.std()
        unlike = create_model(name, **SMALL).eval()(images)
        assert (unlike - wanted).abs().mean() > 0.5 * wanted.std()
    with pytest.raises(EyelineError, match="holds a fcn32s, not a fcn"):
        create_model("fcn", weights=held)
    held.name = "fcn8s"
    with pytest.raises(EyelineError, match="holds a fcn8s, not a fcn16s"):
        create_model("fcn16s", weights=held)


@torch.no_grad()
def test_the_border_moves_maps_as_far_as_the_crops_say() -> None:
    """A picture's bright spot stays where it is in the scores, in both conventions."""
    for name in ("fcn8s", "fcn16s", "fcn32s"):
        for convention in ("paper", "caffe"):
            torch.manual_seed(1)
            model: Any = create_model(name, **SMALL, convention=convention).eval()
            for part in model.modules():  # each layer says how much it sees
                if isinstance(part, torch.nn.Conv2d):
                    part.weight.fill_(1 / part.weight[0].numel())
            model.backbone.fc6.weight.zero_()[:, :, 3, 3] = 1 / model.backbone.fc6.in_channels
            dark, x = torch.zeros(1, 3, 256, 256), torch.zeros(1, 3, 256, 256)
            x[..., 112:144, 144:176] = 100.0
            seen = (model.main(x) - model.main(dark))[0, 0]
            rows, columns = seen.sum(1), seen.sum(0)
            centre = [
                float((each * (torch.arange(256) + 0.5)).sum() / each.sum())
                for each in (rows, columns)
            ]
            assert centre == pytest.approx([128, 160], abs=12), (name, convention, centre)


def test_pretrained_has_the_connected_layers_whole(images: Tensor) -> None:
    state = classifier(2)
    model: Any = create_model("fcn32s", **SMALL, pretrained=state)
    report = model.load_report
    assert report.missing == ()
    assert set(report.unused) == {"classifier.6.bias", "classifier.6.weight"}
    assert torch.equal(model.backbone.fc6.weight.flatten(1), state["classifier.0.weight"])
    assert torch.equal(model.backbone.fc7.weight.flatten(1), state["classifier.3.weight"])
    assert torch.equal(model.backbone.fc7.bias, state["classifier.3.bias"])
    # A picture of 224 pixels without a border is what the classifier saw: one cell of 7 x 7.
    with torch.no_grad():
        x = torch.randn(1, 3, 224, 224)
        pool5 = x
        for stage in (1, 2, 3, 4, 5):
            pool5 = F.max_pool2d(model.backbone.stage(pool5, stage), 2)
        fc6 = F.linear(pool5.flatten(1), state["classifier.0.weight"], state["classifier.0.bias"])
        fc7 = F.linear(fc6.relu(), state["classifier.3.weight"], state["classifier.3.bias"]).relu()
        torch.testing.assert_close(
            model.backbone.eval()(x)[2][0, :, 3, 3], fc7[0], rtol=1e-3, atol=1e-3
        )


def test_wrong_border() -> None:
    with pytest.raises(EyelineError, match="border must be 0, or 100"):
        create_model("fcn8s", **SMALL, border=50)

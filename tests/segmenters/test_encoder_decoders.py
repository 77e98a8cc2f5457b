"""What the papers of U-Net, UNet++, LinkNet and FPN say of their networks, and encoders' maps."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.backbones import DARKNETS, build_encoder
from eyeline.nn.decoding import Enlarging, fitted, he
from eyeline.note import watch
from eyeline.registry import create_model
from eyeline.segmenters.unet import mirror

GREY = dict(image_mean=(0.5,), image_std=(0.5,), in_channels=1)
ENDS = (8, 8, 8, 8, 8)  # decoder widths


def seen(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What it notes."""
    found: dict[str, Any] = {}
    with torch.no_grad(), watch(found.__setitem__):
        model.eval()(images)
    return found


def sizes(notes: dict[str, Tensor], start: str) -> list[int]:
    return [value.shape[-1] for name, value in notes.items() if name.startswith(start)]


# -- U-Net


def test_unet_has_the_papers_parameters() -> None:
    """31,030,658 of Fig. 1, for two classes of grey pictures."""
    model = create_model("unet", num_classes=2, **GREY)
    assert sum(p.numel() for p in model.parameters()) == 31_030_658


def test_unet_has_the_papers_maps() -> None:
    """Fig. 1: a tile of 572 pixels for an output of 388."""
    notes = seen(create_model("unet", num_classes=2, width=2, **GREY), torch.rand(1, 1, 388, 388))
    assert sizes(notes, "with its mirror image") == [572]
    assert sizes(notes, "way down") == [568, 280, 136, 64, 28]
    assert sizes(notes, "way up") == [52, 100, 196, 388]


each_way_up = pytest.mark.parametrize("up", ["learned", "nearest"])


@each_way_up
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_unet_covers_pictures_of_any_size(depth: int, padding: str, up: str) -> None:
    options = dict(width=2, depth=depth, padding=padding, decoder_upsampling=up)
    model = create_model("unet", num_classes=2, **options).eval()
    for size in [(1, 1), (2, 17), (33, 16), (40, 41)]:
        with torch.no_grad():
            assert model(torch.rand(1, 3, *size)).shape == (1, 2, *size)


def test_unet_sees_no_border() -> None:
    """Of one colour all over, which a mirror image keeps, all cells of the coarsest map are one;
    zeros around it would be seen."""
    for padding, same in (("valid", True), ("same", False)):
        torch.manual_seed(0)
        model = create_model("unet", num_classes=2, width=4, depth=2, padding=padding).eval()
        with torch.no_grad():
            logits = model(torch.full((1, 3, 21, 30), 0.8))
        far = (logits[..., 4:, 4:] - logits[..., :-4, :-4]).abs().max()
        assert bool(far < 1e-5) is same


@each_way_up
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_unet_looks_around_each_pixel_evenly(padding: str, up: str) -> None:
    """Where an output stands is in the middle of what it is made of, but for a pooling's cell."""
    torch.manual_seed(0)
    options = dict(width=8, depth=2, padding=padding, decoder_upsampling=up)
    model = create_model("unet", num_classes=1, **options).eval()
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    for place in (24, 32, 40):
        (grad,) = torch.autograd.grad(model.maps(image)[0, 0, place, place], image)
        rows = grad.abs().sum((0, 1, 3)).nonzero()[:, 0]
        assert rows.max() - rows.min() > 20
        assert abs(int(rows.max() + rows.min()) / 2 - place) <= 2  # half of a cell of stride 4


def test_mirror_repeats_no_edge() -> None:
    x = torch.rand(2, 1, 5, 7)
    both = mirror(mirror(x, 2, 3, 4), 3, 2, 6)
    assert torch.equal(both, F.pad(x, (2, 6, 3, 4), mode="reflect"))
    row = torch.arange(3.0)[None, None, None]
    assert mirror(row, 3, 5, 4).flatten().tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    assert mirror(row, 2, 2, 1).shape == (1, 1, 4, 3)


def test_unet_drops_out_on_the_two_lowest_levels() -> None:
    model = create_model("unet", num_classes=1, width=4, depth=3, dropout=0.9).train()
    notes: dict[str, Tensor] = {}
    with torch.no_grad(), watch(notes.__setitem__):
        model(torch.rand(1, 3, 40, 40))
    model.eval()
    kept = seen(model, torch.rand(1, 3, 40, 40))
    zeros = {
        n: float((v == 0).float().mean()) for n, v in notes.items() if n.startswith("way down")
    }
    before = {
        n: float((v == 0).float().mean()) for n, v in kept.items() if n.startswith("way down")
    }
    assert [zeros[n] > 0.85 and zeros[n] > before[n] for n in zeros] == [False, False, True, True]


# -- UNet++


@torch.no_grad()
def test_unetplusplus_pruned_is_the_head_of_that_column() -> None:
    torch.manual_seed(0)
    whole = create_model("unetplusplus", num_classes=3, width=4).eval()
    image = torch.rand(1, 3, 40, 56)
    row = whole.row(whole.prepare(image).images)
    assert list(row) == [1, 2, 3, 4]
    for level in (1, 2, 3):
        cut = create_model("unetplusplus", num_classes=3, width=4, pruned=level).eval()
        cut.load_state_dict(whole.state_dict())
        notes = seen(cut, image)
        torch.testing.assert_close(notes["logits"], whole.heads[str(level)](row[level]))
        columns = {(int(n[2]), int(n[4])) for n in notes if n.startswith("X^")}
        assert columns == {(i, j) for i in range(level + 1) for j in range(level + 1 - i)}


@torch.no_grad()
def test_unetplusplus_accurate_is_the_mean_of_its_heads() -> None:
    torch.manual_seed(0)
    model = create_model("unetplusplus", num_classes=3, width=4, depth=2, mode="accurate").eval()
    image = torch.rand(1, 3, 24, 24)
    logits, others = model.maps(model.prepare(image).images)
    mean = (logits.softmax(1) + others["head_1"]().softmax(1)) / 2
    torch.testing.assert_close(model(image).exp(), mean)
    losses = model(image, torch.zeros(1, 24, 24, dtype=torch.int64))
    assert set(losses) == {"cross_entropy", "head_1"}
    one = create_model("unetplusplus", num_classes=1, width=4, depth=2, mode="accurate").eval()
    logits, others = one.maps(one.prepare(image).images)
    mean = (logits.sigmoid() + others["head_1"]().sigmoid()) / 2
    torch.testing.assert_close(one(image).sigmoid(), mean)


def test_unetplusplus_cannot_be_cut_without_heads() -> None:
    with pytest.raises(EyelineError, match="pruned must be from 1 to 4"):
        create_model("unetplusplus", num_classes=3, width=4, supervision=False, pruned=2)
    with pytest.raises(EyelineError, match="pruned must be from 1 to 4"):
        create_model("unetplusplus", num_classes=3, width=4, pruned=5)


def test_unetplusplus_reads_all_nodes_before() -> None:
    """Eq. 1: X^0,4 the four before it and the enlarged one below."""
    model = create_model("unetplusplus", num_classes=3, width=4)
    inputs = {name: node.first.in_channels for name, node in model.nodes.items()}
    assert {name: count for name, count in inputs.items() if "_0" not in name} == {
        "0_1": 8, "1_1": 16, "2_1": 32, "3_1": 64,
        "0_2": 12, "1_2": 24, "2_2": 48, "0_3": 16, "1_3": 32, "0_4": 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "unet",
            dict(backbone="resnet18", width=7),
            "width=7 has no effect with backbone=resnet18",
        ),
        ("unet", dict(convention="smp", padding="same"), "padding='same' has no effect with back"),
        ("unet", dict(decoder_norm="group"), "decoder_norm='group' has no effect without"),
        ("unetplusplus", dict(backbone="resnet18", depth=3), "depth=3 has no effect with backbone"),
        ("unetplusplus", dict(decoder_widths=(8,) * 5), "decoder_widths.* has no effect without"),
    ],
)
def test_what_another_way_down_has_not(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EyelineError, match=message):
        create_model(name, num_classes=2, **options)


def test_a_config_as_a_file_has_it_builds_its_model() -> None:
    """Every field is given then, those without an effect by their default."""
    for options in (dict(backbone="resnet18"), dict(convention="smp"), dict(width=4, depth=2)):
        model = create_model("unet", num_classes=2, **options)
        assert create_model("unet", **dataclasses.asdict(model.config)).config == model.config


# -- LinkNet and FPN


def test_linknet_has_the_papers_maps() -> None:
    """Fig. 1: four decoders, the last at the size that it is given; then twice as large, twice."""
    notes = seen(create_model("linknet", num_classes=2), torch.rand(1, 3, 64, 64))
    assert sizes(notes, "decoder") == [4, 8, 16, 16]
    assert sizes(notes, "at stride 2") == [32]
    widths = [value.shape[1] for name, value in notes.items() if name.startswith("decoder")]
    assert widths == [256, 128, 64, 64]  # Table 1
    notes = seen(create_model("linknet", num_classes=2, convention="smp"), torch.rand(1, 3, 64, 64))
    assert sizes(notes, "decoder") == [4, 8, 16, 32, 64]


@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_enlarging_gives_whole_multiples(kernel: int, stride: int) -> None:
    layer = Enlarging(2, 3, kernel, "batch", stride=stride)
    assert layer.bias is None
    assert layer(torch.rand(2, 2, 5, 7)).shape == (2, 3, 5 * stride, 7 * stride)


def test_fpn_brings_all_levels_to_stride_4() -> None:
    model = create_model(
        "fpn", num_classes=2, backbone="resnet18", fpn_channels=16, branch_width=32
    )
    notes = seen(model, torch.rand(1, 3, 70, 90))
    assert [tuple(level.shape[2:]) for level in notes["P2 .. P5"]] == [
        (18, 23), (9, 12), (5, 6), (3, 3),
    ]  # fmt: skip
    assert [tuple(notes[f"S{i}, Fig. 3"].shape[2:]) for i in (2, 3, 4, 5)] == [(18, 23)] * 4
    assert [len(branch) for branch in model.branches] == [1, 1, 2, 3]


# -- what they share


ENCODERS = [
    pytest.param(name, marks=[] if name in ("resnet18", "vgg16") else [pytest.mark.slow])
    for name in ("resnet18", "vgg16", *DARKNETS)
]


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_have_maps_at_five_strides(name: str) -> None:
    body, image = build_encoder(name, norm="batch").eval(), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps, later = body.stages(image), body(image)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (channels, 64 // stride, 96 // stride)
        for channels, stride in zip(body.stage_channels, (2, 4, 8, 16, 32), strict=True)
    ]
    assert list(body.stage_channels[1:]) == list(body.channels)
    assert all(torch.equal(a, b) for a, b in zip(maps[1:], later, strict=True))


def test_encoders_of_timm() -> None:
    pytest.importorskip("timm", reason="timm, the extra `timm`, is not installed")
    body = build_encoder("timm:resnet18", norm="batch", in_channels=4).eval()
    maps = body.stages(torch.rand(1, 4, 64, 96))
    assert [m.shape[2] for m in maps] == [32, 16, 8, 4, 2]
    assert [m.shape[1] for m in maps] == body.stage_channels
    assert [m.shape[2] for m in body(torch.rand(1, 4, 64, 96))] == [16, 8, 4, 2]
    with pytest.raises(EyelineError, match="at the strides 2, 4, 8, 16, 32"):
        create_model("unet", num_classes=2, backbone="timm:convnext_atto")
    model = create_model(
        "fpn", num_classes=2, backbone="timm:convnext_atto", fpn_channels=16, branch_width=32
    )
    assert model(torch.rand(1, 3, 65, 97)).shape == (1, 2, 65, 97)


def test_maps_are_fitted_from_the_upper_left() -> None:
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert fitted(x, (1, 2)).flatten().tolist() == [0, 1]
    assert fitted(x, (3, 4))[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert fitted(x, (3, 2))[0, 0].tolist() == [[0, 1], [3, 4], [3, 4]]


def test_he_keeps_the_spread() -> None:
    """Behind a ReLU the next numbers spread as far, also of a convolution that enlarges."""
    for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.ConvTranspose2d(64, 64, 2, stride=2),
                  nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1)):  # fmt: skip
        torch.manual_seed(0)
        he(layer)
        with torch.no_grad():
            x = torch.randn(4, 64, 24, 24)
            out = layer(x.relu())[..., 4:-4, 4:-4]
        assert float(out.square().mean()) == pytest.approx(float(x.square().mean()), rel=0.15)
        assert layer.bias is not None and not layer.bias.any()

"""One suite over every registered segmenter. A new one needs a line in `SMALL`.

Pictures are 65 x 97, or smaller: divisible by nothing. What a model sees of padding is its own
matter; what is asked is that a picture has the logits of the canvas it lies on, whatever else is
in the batch.
"""

from __future__ import annotations

import dataclasses
import math
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.losses import cross_entropy, segmentation_loss
from eyeline.nn import backbones
from eyeline.nn.backbones import xception
from eyeline.nn.backbones.resnet import BasicBlock
from eyeline.nn.backbones.vgg import VGG16
from eyeline.nn.layers import FrozenBatchNorm2d
from eyeline.nn.segmenter import Segmenter
from eyeline.note import watch
from eyeline.registry import create_model, list_models
from eyeline.structures import Batch

# Options with which a model is small, by its name and what tells several of one apart. The first of
# a name is the paper's own; `Config` fields that a line leaves out have their defaults. "tiny" is a
# ResNet of an eighth of the width.
SMALL: dict[str, dict[str, Any]] = {
    "enet": dict(auxiliary=1.0),
    "fcn": dict(backbone="tiny"),
    "fcn8s": dict(width=4),
    "fcn8s caffe": dict(width=2, convention="caffe", skip_scales=(1e-2, 1e-4)),
    "fcn16s": dict(width=2, norm="batch"),
    "fcn32s": dict(width=2, final_learned=True),
    "fpn": dict(backbone="tiny", fpn_channels=8, branch_width=32),
    "fpn smp": dict(
        convention="smp", backbone="tiny", fpn_channels=8, branch_width=32, merge="cat"
    ),
    "hrnet": dict(width=8, modules=(1, 1, 1), blocks=1, first_blocks=1),
    "linknet": dict(backbone="tiny"),
    "linknet smp": dict(convention="smp", backbone="tiny"),
    "deeplabv3": dict(backbone="tiny", width=8),
    "deeplabv3 torchvision": dict(convention="torchvision", backbone="tiny", width=8),
    "deeplabv3plus": dict(backbone="tiny", width=8, low_width=4),
    "deeplabv3plus smp": dict(convention="smp", backbone="tiny", width=8),
    "pan": dict(backbone="tiny", width=8),
    "pan smp": dict(convention="smp", backbone="tiny", width=8),
    "pspnet": dict(backbone="tiny", width=8),
    "pspnet smp": dict(convention="smp", backbone="tiny", width=8),
    "segnet": dict(width=4),
    "unet": dict(width=4),
    "unet same": dict(width=4, padding="same", norm="batch", depth=3),
    "unet smp": dict(convention="smp", backbone="tiny", decoder_widths=(32, 16, 16, 8, 8)),
    "unetplusplus": dict(width=4),
    "unetplusplus accurate": dict(
        backbone="tiny", decoder_widths=(32, 8, 8, 8, 8), mode="accurate"
    ),
    "unetplusplus smp": dict(convention="smp", backbone="tiny", decoder_widths=(32, 8, 8, 8, 8)),
}
CASES = list(SMALL)
NAMES = list_models("segmentation")
CLASSES = ["road", "sky", "tree"]
SIZE = (65, 97)
IGNORED = 255


TINY = dict(block=BasicBlock, depths=(1, 1, 1, 1), planes=8)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones.RESNETS, "tiny", TINY)
    monkeypatch.setattr(backbones, "VARIANTS", (*backbones.VARIANTS, "tiny"))


def name_of(case: str) -> str:
    return case.partition(" ")[0]


def fields(case: str) -> set[str]:
    """The names of the options of a model's Config."""
    config: Any = shared(case).config
    return {field.name for field in dataclasses.fields(config)}


class Heights:
    """Of what a convolution gives."""

    def __init__(self, module: nn.Module) -> None:
        self.found: list[int] = []
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(self.look)

    def look(self, module: nn.Module, given: Any, result: Tensor) -> None:
        self.found.append(result.shape[2])


built: dict[str, nn.Module] = {}


def build(case: str, **options: Any) -> nn.Module:
    """A fresh model of three classes; a copy, which costs less than initialising."""
    torch.manual_seed(0)
    if options:
        return create_model(name_of(case), **{"classes": CLASSES, **SMALL[case], **options})
    model = deepcopy(shared(case)).train()
    torch.manual_seed(0)
    return model


def shared(case: str) -> nn.Module:
    """The one that `build` copies, in eval(), for tests that change nothing of it."""
    if case not in built:
        torch.manual_seed(0)
        built[case] = create_model(name_of(case), classes=CLASSES, **SMALL[case])
    return built[case].eval()


def images(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def maps(*shape: int, classes: int = 3) -> Tensor:
    """Targets: random classes, a border that is ignored."""
    generator = torch.Generator().manual_seed(2)
    found = torch.randint(0, classes, shape, generator=generator)
    found[..., :2, :] = IGNORED
    return found


IMAGES, TARGETS = images(2, 3, *SIZE), maps(2, *SIZE)


def check_losses(losses: dict[str, Tensor]) -> None:
    assert losses
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values()), losses


def unsettle(model: nn.Module) -> None:
    """Batch norms as after training; fresh ones change nothing."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            assert module.running_mean is not None and module.running_var is not None
            with torch.no_grad():
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)


def test_every_segmenter_has_a_line() -> None:
    assert "unet" in NAMES
    assert {name_of(case) for case in SMALL} == set(NAMES), "add options to SMALL"


@pytest.mark.parametrize("case", CASES)
class TestSegmenter:
    def test_losses_and_logits_in_both_modes(self, case: str) -> None:
        """A batch and a single picture, of an odd size, in train() and in eval()."""
        model = build(case)
        for mode in (True, False):
            model.train(mode)
            for count in (2, 1):
                check_losses(model(IMAGES[:count], TARGETS[:count]))
                with torch.no_grad():
                    logits = model(IMAGES[:count])
                assert logits.shape == (count, 3, *SIZE)
                assert logits.dtype == torch.float32
                assert torch.isfinite(logits).all()
        assert model.classes == CLASSES and model.task == "segmentation"
        assert not torch.equal(logits[0, :, 0, 0], logits[0, :, -1, -1])  # it looks at the picture

    def test_every_parameter_gets_a_gradient(self, case: str) -> None:
        """Of all heads."""
        model = build(case).train()
        sum(model(IMAGES, TARGETS).values()).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and torch.isfinite(p.grad).all(), name
            assert p.grad.any(), name

    def test_nothing_to_learn_from(self, case: str) -> None:
        """All is ignored: the loss is 0, and so are all gradients, which are there."""
        for mode in (True, False):
            model = build(case).train(mode)
            losses = model(IMAGES[:1], torch.full((1, *SIZE), IGNORED))
            check_losses(losses)
            assert all(value == 0 for value in losses.values())
            sum(losses.values()).backward()
            assert all(p.grad is not None and not p.grad.any() for p in model.parameters())

    def test_what_is_ignored_counts_for_nothing(self, case: str) -> None:
        """The loss is that of the labelled pixels' logits."""
        model = shared(case)
        with torch.no_grad():
            loss = model(IMAGES[:1], TARGETS[:1])["cross_entropy"]
            # Of UNet++ the last head's, not the mean of all.
            logits = Segmenter.compute(model, model.prepare(IMAGES[:1]))
            torch.testing.assert_close(loss, cross_entropy(logits[..., 2:, :], TARGETS[:1, 2:]))
            small = TARGETS[:1].to(torch.uint8)  # as files have them
            assert model(IMAGES[:1], small)["cross_entropy"] == loss

    def test_norm_epsilon_reaches_every_norm(self, case: str) -> None:
        model = build(case, norm_epsilon=0.125)
        norms = (nn.BatchNorm2d, nn.GroupNorm, FrozenBatchNorm2d)
        found = {module.eps for module in model.modules() if isinstance(module, norms)}
        assert found == {0.125} or (not found and model.config.norm == "none")

    def test_one_class(self, case: str) -> None:
        model = build(case, classes=["thing"])
        check_losses(model(IMAGES, maps(2, *SIZE, classes=1)))
        with torch.no_grad():
            assert model.eval()(IMAGES).shape == (2, 1, *SIZE)

    def test_half_precision(self, case: str) -> None:
        model = build(case)
        with torch.autocast("cpu", torch.bfloat16):
            losses = model(IMAGES, TARGETS)
        check_losses(losses)
        sum(losses.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
        for dtype in (torch.bfloat16, torch.float16):
            half = build(case).eval().to(dtype)
            with torch.no_grad():
                logits = half(IMAGES[:1, :, :40, :50])
            assert logits.dtype == torch.float32 and torch.isfinite(logits).all()

    def test_state_dict_round_trip(self, case: str) -> None:
        model, other = build(case).eval(), build(case).eval()
        for parameter in model.parameters():
            parameter.data.add_(0.01 * torch.randn_like(parameter))
        unsettle(model)
        with torch.no_grad():
            expected = model(IMAGES)
            assert not torch.equal(other(IMAGES), expected)
            other.load_state_dict(model.state_dict())
            assert torch.equal(other(IMAGES), expected)

    def test_eval_repeats_and_leaves_the_generator_alone(self, case: str) -> None:
        model = shared(case)
        state = torch.get_rng_state()
        with torch.no_grad():
            assert torch.equal(model(IMAGES), model(IMAGES))
            assert model(IMAGES, TARGETS) == model(IMAGES, TARGETS)
        assert torch.equal(state, torch.get_rng_state())

    def test_five_channels(self, case: str) -> None:
        stats = (0.5,) * 5
        model = build(case, in_channels=5, image_mean=stats, image_std=stats)
        assert model.channels == 5
        check_losses(model(images(2, 5, *SIZE), TARGETS))
        with pytest.raises(EyelineError, match=r"shape \(3, 65, 97\)"):
            model(IMAGES)

    def test_pictures_of_several_sizes(self, case: str) -> None:
        """Each has the logits that it has alone on a canvas of the largest size: of the one that
        fills the canvas its own, of smaller ones those with so much padding."""
        model = build(case).eval()
        unsettle(model)
        large, small = images(3, *SIZE), images(3, 48, 70)
        with torch.no_grad():
            found = model([large, small])
            assert [tuple(each.shape) for each in found] == [(3, *SIZE), (3, 48, 70)]
            torch.testing.assert_close(found[0], model(large[None])[0], atol=1e-4, rtol=1e-4)
            batch = model.prepare([large, small])
            alone = model.compute(Batch(batch.images[1:], batch.sizes[1:], batch.sizes[1:]))
        torch.testing.assert_close(found[1], alone[0, :, :48, :70], atol=1e-4, rtol=1e-4)
        check_losses(model([large, small], [maps(*SIZE), maps(48, 70)]))

    def test_a_batch_equals_its_pictures_one_by_one(self, case: str) -> None:
        model = shared(case)
        with torch.no_grad():
            together, alone = model(IMAGES), torch.cat([model(IMAGES[:1]), model(IMAGES[1:])])
        assert together.std() > 1e-3
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)

    def test_a_prepared_batch_is_accepted(self, case: str) -> None:
        model = shared(case)
        with torch.no_grad():
            assert model(model.prepare(IMAGES, TARGETS)) == model(IMAGES, TARGETS)
            assert torch.equal(model(model.prepare(IMAGES)), model(IMAGES))

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (dict(targets=torch.full((1, *SIZE), 3)), r"class 3 \(6305 pixels\) is not in 0 .. 2"),
            (dict(targets=torch.full((1, *SIZE), -1)), "class -1"),
            (dict(targets=torch.zeros(1, 9, 9, dtype=torch.int64)), r"picture 0: its map \(9, 9\)"),
            (dict(targets=torch.zeros(1, *SIZE)), "float32, must be int64"),
            (dict(targets=TARGETS), "1 pictures came with 2 targets"),
            (dict(images=torch.zeros(1, 1, 9, 9)), r"shape \(1, 9, 9\)"),
        ],
    )
    def test_bad_input_is_one_clear_error(
        self, case: str, bad: dict[str, Any], message: str
    ) -> None:
        given = dict(images=IMAGES[:1], targets=TARGETS[:1]) | bad
        with pytest.raises(EyelineError, match=message) as error:
            shared(case)(given["images"], given["targets"])
        assert "\n" not in str(error.value)

    def test_a_misspelt_option_suggests_the_nearest(self, case: str) -> None:
        with pytest.raises(EyelineError, match="did you mean in_channels"):
            build(case, in_chanels=3)
        with pytest.raises(EyelineError, match="norm must be one of"):
            build(case, norm="batchnorm")

    def test_notes_tell_its_steps(self, case: str) -> None:
        """Those that trace and x-ray show: the logits, and some of the network's own maps."""
        model, seen = shared(case), {}
        with torch.no_grad(), watch(seen.__setitem__):
            logits = model(IMAGES[:1])
        assert torch.equal(seen.pop("logits"), logits)
        own = [name for name, value in seen.items() if isinstance(value, Tensor)]
        assert len(own) >= 2, "note the stages of the decoder"
        assert all(not seen[name].requires_grad for name in own)

    def test_output_stride(self, case: str) -> None:
        """The backbone's last map has the stride that is asked for."""
        if "output_stride" not in fields(case):
            return
        built = 0
        for stride in (8, 16, 32):
            try:
                model = build(case, output_stride=stride).eval()
            except EyelineError as error:  # the paper's network has no other
                assert "output_stride" in str(error)
                continue
            built += 1
            seen = [Heights(module) for module in model.backbone.modules()]
            with torch.no_grad():
                assert model(images(1, 3, 96, 96)).shape == (1, 3, 96, 96)
            heights = {height for each in seen for height in each.found}
            assert min(heights - {1}) == 96 // stride
        assert built


# Ways down besides the tiny ResNet, small where they can be told, in decoders that take C1 to C5,
# dilate, or have more to learn behind the last map.
OTHERS = [
    ("unet", dict(backbone="vgg16", norm="batch", decoder_widths=(8,) * 5)),
    ("unetplusplus", dict(backbone="vgg16", convention="smp", decoder_widths=(8,) * 5)),
    ("linknet", dict(backbone="vgg16", convention="smp")),
    ("linknet", dict(backbone="mobilenet_v2")),
    ("fpn", dict(backbone="xception41", fpn_channels=8, branch_width=32)),
    ("pan", dict(backbone="vgg16", output_stride=32, width=8)),
    ("deeplabv3", dict(backbone="mobilenet_v2", width=8, multi_grid=(1,))),
    ("deeplabv3plus", dict(backbone="xception41", width=8, low_width=4)),
]


@pytest.mark.parametrize(("name", "options"), OTHERS)
def test_other_ways_down(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient on every parameter, and logits, of an odd size."""
    monkeypatch.setattr(backbones, "VGG16", partial(VGG16, width=4))
    monkeypatch.setattr(xception, "ENTRY", (8, 12, 16))
    monkeypatch.setattr(xception, "EXIT", ((16, 24, 24), (24, 24, 32)))
    monkeypatch.setitem(backbones.XCEPTIONS, "xception41", dict(middle=2))
    torch.manual_seed(0)
    model = create_model(name, classes=CLASSES, **options).train()
    sum(model(IMAGES, TARGETS).values()).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert model.eval()(IMAGES).shape == (2, 3, *SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_classes=256), "num_classes must be from 1 to 255, not 256"),
        (dict(losses=("dice", "dice")), "losses names one twice"),
        (dict(loss_weights=(math.nan,)), "loss_weights must be 0 or more"),
        (dict(class_weights=(-1.0, 1.0)), "class_weights must be 0 or more"),
        (dict(class_weights=(0.0, 0.0)), "class_weights must be 0 or more, and not all 0"),
        (dict(class_weights=(1.0, 2.0), losses=("dice",)), "class_weights have no effect"),
        (dict(class_weights=(5.0,), num_classes=1), "class_weights have no effect"),
        (
            dict(ohem_threshold=0.5),
            "ohem_threshold has no effect: it is of ohem, ",
        ),
        (dict(losses=("focal",), label_smoothing=0.1), "label_smoothing has no effect"),
        (dict(losses=("focal",), focal_gamma=-1.0), "focal_gamma must be 0 or more, not -1"),
        (
            dict(losses=("ohem",), ohem_share=2.0),
            "ohem_share must be 0 or more and at most 1",
        ),
        (
            dict(losses=("tversky",), tversky_beta=math.inf),
            "tversky_beta must be 0 or more, not",
        ),
        (
            dict(label_smoothing=math.nan),
            "label_smoothing must be 0 or more and below 1",
        ),
        (dict(depth=0), "depth must be 1 or more, not 0"),
        (dict(width=0), "width must be 1 or more, not 0"),
        (dict(dropout=1.5), "dropout must be from 0 to 1, not 1.5"),
        (
            dict(backbone="resnet18", decoder_widths=()),
            r"decoder_widths must be 1 or more, not \(\)",
        ),
        (dict(name="pspnet", bins=()), r"bins must be 1 or more, not \(\)"),
        (dict(name="pspnet", bins=(1, 0)), r"bins must be 1 or more, not \(1, 0\)"),
        (dict(name="pspnet", kernel=2), "kernel must be odd, 1 or more, not 2"),
        (dict(name="deeplabv3", multi_grid=()), "multi_grid must be 1 or more"),
        (dict(name="unetplusplus", depth=0), "depth must be 1 or more"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EyelineError, match=message) as error:
        create_model(**{"name": "unet", "num_classes": 2, **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("classes", [3, 1])
def test_losses_have_the_options_of_the_config(classes: int) -> None:
    options = {
        "cross_entropy": dict(label_smoothing=0.25),
        "ohem": dict(ohem_threshold=0.25, ohem_share=0.5),
        "focal": dict(focal_gamma=0.5),
        "tversky": dict(tversky_alpha=0.75, tversky_beta=0.125),
    }
    fields = {key: value for each in options.values() for key, value in each.items()}
    model = create_model("unet", num_classes=classes, width=4, losses=tuple(options), **fields)
    truth = torch.randint(0, classes, (2, *SIZE))
    logits, seen = torch.randn(2, classes, *SIZE), truth + (classes == 1)
    for name, named in options.items():
        plain = {key.partition("_")[2]: value for key, value in named.items()}
        wanted = segmentation_loss(name, logits, seen, **plain)
        assert model.loss(name, logits, truth) == wanted != segmentation_loss(name, logits, seen)


def test_an_auxiliary_head_weighs_as_its_loss() -> None:
    """Its own weight times that of the first loss, by which it is measured."""
    with torch.no_grad():
        plain, weighed = (
            build("enet", losses=("dice", "cross_entropy"), **more).eval()(IMAGES, TARGETS)
            for more in ({}, {"loss_weights": (0.25, 3.0)})
        )
    for name, factor in (("dice", 0.25), ("encoder", 0.25), ("cross_entropy", 3.0)):
        torch.testing.assert_close(weighed[name], factor * plain[name])


@pytest.mark.parametrize(("name", "side"), [("linknet", 32), ("enet", 8)])
def test_one_cell_of_one_picture_is_told(name: str, side: int) -> None:
    model = create_model(name, num_classes=3).train()
    with pytest.raises(EyelineError, match="batch norm cannot learn from one cell of one picture"):
        model(torch.rand(1, 3, side, side), torch.zeros(1, side, side, dtype=torch.int64))


COMPILED = [
    pytest.param(case, marks=[] if case == "unet same" else [pytest.mark.slow]) for case in CASES
]


@pytest.mark.parametrize("case", COMPILED)
def test_compute_compiles_whole(case: str) -> None:
    """`fullgraph=True`: no break, so no host synchronisation and no branch on a tensor."""
    model = build(case).eval()
    batch = model.prepare(IMAGES)
    torch._dynamo.reset()
    compiled = torch.compile(model.compute, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(batch), model.compute(batch), atol=1e-5, rtol=1e-5)

"""Speed of eyeline's segmenters beside segmentation-models-pytorch's and torchvision's, with the
same weights and pictures. `bench.py` is the command.

Four pictures of 512 x 512 in 8 bits go in on both sides, logits of that size come out. Theirs are
timed in both memory layouts, of which the faster counts.

Letters   K classes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from table import Table, take_turns

CLASSES, SIDE, BATCH = 11, 512, 4
SMP = {
    "unet": "Unet",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
}
TORCHVISION = {"fcn_resnet50": "fcn", "deeplabv3_resnet50": "deeplabv3"}
MODELS = (*SMP, *TORCHVISION)
BARS = {"float32": 1.3, "bf16": 2.0, "int8": 3.0}
TOLERANCE = 1e-4  # of logits in float32, in parts of the largest
# Of the other precisions: the root mean square of what logits differ from float32's by, in standard
# deviations of each class'; what has nothing to do with them has 1 or more. Random weights are far
# from bf16: what theirs is in it is told beside.
SPREAD_TOLERANCE = {"bf16": 0.2, "int8": 0.5}
AUXILIARY = 0.5  # weight of that loss in torchvision's reference, and in ours
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def pictures(seed: int) -> Tensor:
    """(BATCH, 3, SIDE, SIDE) uint8: smooth shapes of many sizes with some grain."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.zeros(BATCH, 3, SIDE, SIDE)
    for cells in (4, 16, 64):
        noise = torch.rand(BATCH, 3, cells, cells, generator=generator)
        whole += F.interpolate(noise, (SIDE, SIDE), mode="bilinear")
    whole += 0.2 * torch.rand(BATCH, 3, SIDE, SIDE, generator=generator)
    return (255 * whole / whole.amax()).to(torch.uint8)


class Theirs(nn.Module):
    """A peer's network with the steps before it that ours has: 8 bits to normalised numbers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        said = self.network((images.float() / 255 - mean) / std)
        return said if isinstance(said, Tensor) else (said["out"], said.get("aux"))


def build(name: str) -> tuple[Theirs, Any]:
    """A peer's network with busy random weights, and ours with the same."""
    import eyeline

    torch.manual_seed(0)
    if name in SMP:
        import segmentation_models_pytorch as smp

        network = getattr(smp, SMP[name])("resnet18", encoder_weights=None, classes=CLASSES)
    else:
        from torchvision.models import segmentation

        network = getattr(segmentation, name)(
            weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True
        )
    theirs = Theirs(network)
    for block in network.modules():
        if hasattr(
            block, "bn3"
        ):  # a ResNet-50 of random branches as loud as its shortcuts is chaos
            nn.init.constant_(block.bn3.weight, 0.25)
    for norm in network.modules():  # statistics of the pictures, so that no layer dies out
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        theirs.train()(pictures(1)[:, :, ::2, ::2])
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.1
    ours = eyeline.create_model(weights=network.state_dict())
    return theirs.eval(), ours.eval()


def main_logits(said: Any) -> Tensor:
    return said if isinstance(said, Tensor) else said[0]


@torch.inference_mode()
def run(model: nn.Module, images: Tensor) -> Tensor:
    return main_logits(model(images))


def run_bf16(model: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return run(model, images)


def training_step(model: nn.Module, ours: bool) -> Callable[[], float]:
    """One step of SGD on the four pictures. The learning rate is 0, so that all are alike."""
    images = pictures(0)
    truth = torch.randint(
        0, CLASSES, (BATCH, SIDE, SIDE), generator=torch.Generator().manual_seed(0)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def step() -> float:
        model.train()
        optimizer.zero_grad()
        if ours:
            loss = torch.stack(list(model(images, truth).values())).sum()
        else:
            said = model(images)
            main, auxiliary = said if isinstance(said, tuple) else (said, None)
            loss = F.cross_entropy(main, truth)
            if auxiliary is not None:
                loss = loss + AUXILIARY * F.cross_entropy(auxiliary, truth)
        loss.backward()
        optimizer.step()
        model.eval()
        return loss.item()

    return step


def bench(table: Table, name: str, quick: bool) -> bool:
    """Measure one network; False where outputs differ."""
    from eyeline import calibrate, optimize

    peer = "segmentation-models" if name in SMP else "torchvision"
    theirs, ours = build(name)
    encoder = "ResNet-18" if name in SMP else "ResNet-50"
    table.section(f"{name}, {encoder}, {BATCH} of {SIDE}x{SIDE}, {CLASSES} classes", peer)
    images = pictures(0)
    fast: dict[str, Any] = {"float32": optimize(ours)}
    if torch.cpu._is_avx512_bf16_supported():
        fast["bf16"] = optimize(ours, "bf16")
    if torch.cpu._is_vnni_supported():
        ranges = calibrate(ours, [list(pictures(2))])
        fast["int8"] = optimize(ours, "int8", ranges=ranges)
    equal = True
    with torch.inference_mode():
        expected = main_logits(theirs(images))
        spread = expected.std((0, 2, 3))
        for what, model in {"model": ours, "optimized": fast["float32"]}.items():
            off = float((model(images) - expected).abs().max() / expected.abs().max())
            equal &= off < TOLERANCE
            table.note(f"logits of {what}, float32: {off:.1e} of the largest apart")
        halves = {"theirs in bf16": run_bf16(theirs, images)} if "bf16" in fast else {}
        for what, said in (halves | {p: fast[p](images) for p in list(fast)[1:]}).items():
            part = float(((said - expected).square().mean((0, 2, 3)).sqrt() / spread).max())
            equal &= part < SPREAD_TOLERANCE.get(what, 1.0)
            table.note(f"{what} beside float32: {part:.3f} of the logits' spread apart")

    rounds = 2 if quick else 5
    calls: dict[str, Callable[[], object]] = {}
    for layout, form in LAYOUTS.items():
        other = build(name)[0].to(memory_format=form)
        calls[f"theirs {layout}"] = partial(run, other, images)
        if "bf16" in fast:
            calls[f"theirs bf16 {layout}"] = partial(run_bf16, other, images)
        calls[f"model {layout}"] = partial(run, deepcopy(ours).to(memory_format=form), images)
    for precision, model in fast.items():
        calls[precision] = partial(run, model, images)
    seconds = take_turns(calls, rounds, table.clock)
    usual = fastest(seconds, "theirs")
    table.row("inference float32, model(images)", usual, fastest(seconds, "model"), bar=1.0)
    for precision in fast:
        what = "float32, optimized" if precision == "float32" else f"{precision}; theirs float32"
        table.row(f"inference {what}", usual, seconds[precision], bar=BARS[precision])
    if "bf16" in fast:
        half = fastest(seconds, "theirs bf16")
        table.row("inference bf16; theirs autocast", half, seconds["bf16"], bar=1.0)
    del calls, fast

    steps = {
        f"theirs {layout}": training_step(build(name)[0].to(memory_format=form), False)
        for layout, form in LAYOUTS.items()
    }
    steps["ours"] = training_step(ours.to(memory_format=torch.channels_last), True)
    seconds = take_turns(steps, 1 if quick else 3, table.clock)
    row = ("training step float32", fastest(seconds, "theirs"), seconds["ours"])
    table.row(*row, bar=1.0)
    return equal


def fastest(seconds: dict[str, list[float]], side: str) -> list[float]:
    """Of the layouts of one side."""
    return min((seconds[f"{side} {layout}"] for layout in LAYOUTS), key=statistics.median)

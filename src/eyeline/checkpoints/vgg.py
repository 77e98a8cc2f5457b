"""VGG16's classification weights, for backbones (`pretrained=`).

torchvision's `vgg16` and `vgg16_bn`, and timm's, which are those; `vgg16_reducedfc.pth`, with which
amdegroot/ssd.pytorch, lufficc/SSD and luuuyi/RefineDet.PyTorch start (also under "features."); and
torchvision's `vgg16_features`, the convolutions of that file beside a classifier of NaN.

Whole layers fc6 and fc7 become the smaller convolutions of SSD (Liu et al., ECCV 2016, sec. 3.1;
the thinning is Chen et al.'s, ICLR 2015, arXiv:1412.7062, sec. 2.1 and 4.1): fc6 read as a
convolution of 7 x 7 keeps every third row and column, and every fourth output; fc7 every fourth
output and input. FCN's network has both whole (`Checkpoint.whole`). The classifier behind them is
left out, and for a plain VGG16 these two also.

The reduced file and its relatives come from Caffe: RGB of 0 to 255, less a mean of whole numbers.
All others saw ImageNet's mean and deviation. Convolutions alone, without a norm, do not tell.
Caffe's weights under torchvision's names, classifier and all, cannot be told from torchvision's.

A convolution before a batch norm has no bias with us; torchvision's has one, and the norm's mean
takes it up. Nothing normalises its fc6 and fc7; ours begin with a norm that changes nothing.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from eyeline.checkpoints.names import IMAGENET
from eyeline.checkpoints.renaming import NORM, rename, vgg_places, without_biases
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.errors import EyelineError

CAFFE = {
    "image_mean": (123 / 255, 117 / 255, 104 / 255),
    "image_std": (1 / 255, 1 / 255, 1 / 255),
}
# fc6 and fc7: torchvision's, timm's, and where all layers stand in a row.
CONNECTED = [
    (r"(?:classifier\.0|pre_logits\.fc1)\.(weight|bias)", r"fc6.\1"),
    (r"(?:classifier\.3|pre_logits\.fc2)\.(weight|bias)", r"fc7.\1"),
]
REDUCED = [
    (r"(?:features\.)?31\.(weight|bias)", r"fc6.\1"),
    (r"(?:features\.)?33\.(weight|bias)", r"fc7.\1"),
]
CLASSIFIER = ("classifier.6", "head.fc")
SIDE = 7  # of the map that fc6 reads
ROWS, CELLS = 4, 3  # every fourth output and input, every third row and column


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint | None:
    """The checkpoint, if it holds VGG16's convolutions; `skip`: keys that may be left over.

    Raises EyelineError where it is another VGG's.
    """
    prefix = "features." if "features.0.weight" in state else ""
    normed = f"{prefix}1.running_var" in state
    places = vgg_places(normed)
    row = re.compile(rf"{re.escape(prefix)}(\d+)\.weight")
    found = {int(m[1]) for key in state if (m := row.fullmatch(key)) and state[key].ndim == 4}
    found -= {31, 33} - places.keys()
    if found != places.keys() or state[f"{prefix}0.weight"].shape[2:] != (3, 3):
        if prefix and len(found) > 5 and "classifier.6.weight" in state:  # five are AlexNet's
            raise EyelineError(
                f"{where} holds a VGG of {len(found)} convolutions; read is VGG16's, which has 13"
            )
        return None
    start = re.escape(prefix)
    table = [(rf"{start}{place}\.(weight|bias)", rf"{name}.\1") for place, name in places.items()]
    table += CONNECTED
    if normed:
        table += [
            (rf"{start}{place + 1}\.{NORM}", rf"{name}.norm.\1") for place, name in places.items()
        ]
    else:
        table += REDUCED
    layers = ("conv1_1", "conv5_3")
    ours, renamed, dropped = rename(state, table, layers, where, (*skip, *CLASSIFIER))
    options: dict[str, Any] = {"norm": "batch" if normed else "none"}
    if ours["conv1_1.weight"].shape[1] == len(IMAGENET["image_mean"]):
        options |= _pictures(ours, normed)
    whole = _whole(ours)
    dropped += [renamed.pop(name) for name in _shrink(ours)]
    if normed:
        _without_bias(whole, dict(renamed))
        _without_bias(ours, renamed)
    return Checkpoint(
        "torchvision", "vgg16", where, options, None, ours, renamed, dropped, whole=whole
    )


def _pictures(ours: State, normed: bool) -> dict[str, Any]:
    """The mean and deviation that the weights were trained with; None where nothing tells."""
    fc6 = ours.get("fc6.weight")
    if fc6 is None:
        return IMAGENET if normed else dict.fromkeys(IMAGENET)
    return CAFFE if _reduced(fc6) or bool(fc6.isnan().all()) else IMAGENET


def _reduced(fc6: Tensor) -> bool:
    return fc6.shape[2:] == (3, 3)


def _whole(ours: State) -> State:
    """fc6 and fc7 as convolutions of 7 x 7 and 1 x 1, where the file has all of them."""
    names = [f"{name}.{kind}" for name in ("fc6", "fc7") for kind in ("weight", "bias")]
    if not set(names) <= ours.keys() or _reduced(fc6 := ours["fc6.weight"]) or fc6.isnan().all():
        return {}
    fc6 = fc6.reshape(len(fc6), -1, SIDE, SIDE)  # (4096, 512, 7, 7)
    fc7 = ours["fc7.weight"].reshape(-1, len(fc6), 1, 1)  # (4096, 4096, 1, 1)
    return {name: ours[name] for name in names} | {"fc6.weight": fc6, "fc7.weight": fc7}


def _shrink(ours: State) -> list[str]:
    """fc6 and fc7 as SSD has them; the names of those that cannot become so, taken out."""
    names = [f"{name}.{kind}" for name in ("fc6", "fc7") for kind in ("weight", "bias")]
    fc6, channels = ours.get("fc6.weight", torch.empty(0, 0)), len(ours["conv5_3.weight"])
    if set(names) <= ours.keys() and _reduced(fc6):
        return []
    whole = set(names) <= ours.keys() and fc6[0].numel() == channels * SIDE**2
    if not whole or fc6.isnan().all():
        return [name for name in names if ours.pop(name, None) is not None]
    fc6 = fc6.reshape(-1, channels, SIDE, SIDE)  # (4096, 512, 7, 7)
    fc7 = ours["fc7.weight"].reshape(-1, len(fc6), 1, 1)  # (4096, 4096, 1, 1)
    ours["fc6.weight"] = fc6[::ROWS, :, ::CELLS, ::CELLS]  # (1024, 512, 3, 3)
    ours["fc7.weight"] = fc7[::ROWS, ::ROWS]  # (1024, 1024, 1, 1)
    for name in ("fc6.bias", "fc7.bias"):
        ours[name] = ours[name][::ROWS]  # (1024,)
    return []


def _without_bias(ours: State, renamed: dict[str, str]) -> None:
    """Biases become part of the norms: of those that are there, and of two that change nothing."""
    without_biases(ours, renamed)
    for name in ("fc6", "fc7"):
        if f"{name}.bias" in ours:
            renamed[f"{name}.norm.bias"] = renamed.pop(f"{name}.bias")
            bias = ours[f"{name}.norm.bias"] = ours.pop(f"{name}.bias")
            ours[f"{name}.norm.weight"] = ours[f"{name}.norm.running_var"] = torch.ones_like(bias)
            ours[f"{name}.norm.running_mean"] = torch.zeros_like(bias)

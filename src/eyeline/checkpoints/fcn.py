"""FCN32s, FCN16s and FCN8s of VGG16: wkentaro/pytorch-fcn's, and those of its authors' nets that it
converted from Caffe.

They take BGR of 0 to 255 less a mean; the first layer's channels are turned round, for pictures
here are RGB. A transposed convolution at the end that is bilinear interpolation is left out: ours
has no parameters then. Whether the finer maps were scaled ("at once") no file tells: give
`skip_scales=(1e-2, 1e-4)`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from eyeline.checkpoints.names import VOC_REGIONS
from eyeline.checkpoints.renaming import WB, rename
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.errors import EyelineError

STRIDES = {"upscore": 32, "upscore16": 16, "upscore8": 8}  # of the last layer, by its name
TABLE = [
    (rf"(conv\d_\d|fc[67])\.{WB}", r"backbone.\1.\2"),
    (rf"(score_fr|score_pool[34])\.{WB}", r"\1.\2"),
    (r"(upscore2|upscore_pool4)\.weight", r"\1.weight"),
    (r"(?:upscore|upscore16|upscore8)\.weight", "final.weight"),
]
COARSE = ("fcn32s", "fcn16s", "fcn8s")


def finer(name: str) -> tuple[str, ...]:
    """The networks that the weights of a coarser one start (sec. 4.3 of the paper)."""
    return COARSE[COARSE.index(name) + 1 :] if name in COARSE else ()


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint | None:
    """The checkpoint, if it is an FCN's of these names; `skip`: keys that may be left over."""
    if not {"conv1_1.weight", "fc6.weight", "score_fr.weight"} <= state.keys():
        return None
    ends = [stride for name, stride in STRIDES.items() if f"{name}.weight" in state]
    if len(ends) != 1:
        raise EyelineError(f"{where} has not one of {', '.join(STRIDES)} at its end")
    ours, renamed, dropped = rename(state, TABLE, ("backbone.conv1_1", "score_fr"), where, skip)
    first = ours["backbone.conv1_1.weight"]
    ours["backbone.conv1_1.weight"] = first.flip(1)  # BGR to RGB
    count = len(ours["score_fr.weight"])
    learned = not is_bilinear(ours["final.weight"])
    if not learned:
        del ours["final.weight"]
        dropped.append(renamed.pop("final.weight"))
    options: dict[str, Any] = {
        "num_classes": count,
        "convention": "caffe",
        "norm": "none",
        "border": 100,
        "width": len(first),
        "in_channels": first.shape[1],
        "final_learned": learned,
        "image_mean": (122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255),
        "image_std": (1 / 255, 1 / 255, 1 / 255),
    }
    names = list(VOC_REGIONS) if count == len(VOC_REGIONS) else None
    return Checkpoint("fcn", f"fcn{ends[0]}s", where, options, names, ours, renamed, dropped)


def is_bilinear(weight: Tensor) -> bool:
    """Whether a transposed convolution (K, K, 2 f, 2 f) interpolates each class by itself."""
    side = weight.shape[-1]
    tent = 1 - (weight.new_tensor(range(side)) - (side - 1) / 2).abs() / (side / 2)
    wanted = weight.new_zeros(weight.shape)
    for i in range(len(weight)):
        wanted[i, i] = tent[:, None] * tent
    return bool((weight - wanted).abs().max() < 1e-6)

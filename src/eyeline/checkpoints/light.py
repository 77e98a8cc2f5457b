"""Classification weights of MobileNetV2 and the aligned Xception, for backbones (`pretrained=`).

torchvision's `mobilenet_v2`, and timm's `xception41` and `xception65`, among them those made of the
weights that DeepLab's authors published. The classifiers are left out.
"""

from __future__ import annotations

from typing import Any

from eyeline.checkpoints.names import IMAGENET
from eyeline.checkpoints.renaming import NORM, rename
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.nn.backbones import MOBILENET

INCEPTION = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
# Blocks of the aligned Xceptions: three before, two behind the middle flow.
XCEPTIONS = {3 + 8 + 2: "xception41_deeplab", 3 + 16 + 2: "xception65_deeplab"}


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint | None:
    """The checkpoint, if it is one of these networks'; `skip`: keys that may be left over."""
    if "features.0.0.weight" in state and "features.1.conv.0.0.weight" in state:
        table = [(rf"(features\..*\.{NORM})", r"\1")]
        ours, renamed, dropped = rename(state, table, (), where, (*skip, "classifier"))
        return _made(
            MOBILENET, ours, "features.0.0.weight", IMAGENET, 1e-5, where, renamed, dropped
        )
    blocks = sum(f"blocks.{i}.stack.conv1.conv_dw.weight" in state for i in range(100))
    if blocks in XCEPTIONS and "stem.1.bn.weight" in state:
        table = [(rf"((?:stem|blocks)\..*\.{NORM})", r"\1")]
        ours, renamed, dropped = rename(state, table, (), where, (*skip, "head"))
        name, first = XCEPTIONS[blocks], "stem.0.conv.weight"
        return _made(name, ours, first, INCEPTION, 1e-3, where, renamed, dropped)
    return None


def _made(
    name: str, ours: State, first: str, pictures: dict[str, Any], epsilon: float, where: str,
    renamed: dict[str, str], dropped: list[str],
) -> Checkpoint:  # fmt: skip
    options: dict[str, Any] = {"norm": "batch", "norm_epsilon": epsilon}
    if ours[first].shape[1] == 3:
        options |= pictures
    return Checkpoint("torchvision", name, where, options, None, ours, renamed, dropped)

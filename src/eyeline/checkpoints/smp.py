"""segmentation-models-pytorch's checkpoints: Unet, UnetPlusPlus, Linknet and FPN, with a ResNet,
ResNeXt, wide ResNet or VGG16.

A file is the state dict of a model, or holds one. Which network it is, its encoder, widths, classes
and channels are told by keys and shapes. Read are networks of five encoder stages, as by default,
with batch norm or none in the decoder, and without attention. Its encoders' pictures are RGB in
[0, 1], less ImageNet's mean, by its deviation; for other channels name yours.

Departs   Its upsampling convolutions (Linknet) and VGG with batch norm have a bias before the norm,
          which the norm's mean takes up. UnetPlusPlus with a VGG holds a centre that it never
          calls, and which is left out. All but Unet take there only sizes that 32 divides, ours
          take any.
"""

from __future__ import annotations

import re
from typing import Any

from eyeline.checkpoints.renaming import WB, count, norm_of, rename, without_biases
from eyeline.checkpoints.smp_families import (
    ENCODER,
    HEAD,
    Family,
    conv_norm,
    encoder_options,
    encoder_table,
)
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.errors import EyelineError

STAGES = 5
UNET = [
    *conv_norm(r"decoder\.center\.0", "centre.first"),
    *conv_norm(r"decoder\.center\.1", "centre.second"),
    *conv_norm(r"decoder\.blocks\.(\d)\.conv1", r"up.\1.first"),
    *conv_norm(r"decoder\.blocks\.(\d)\.conv2", r"up.\1.second"),
    (rf"segmentation_head\.0\.{WB}", r"head.\1"),
]
# x_D_L: L is the row from the coarsest, D how many nodes of it lie behind this one.
UNETPLUSPLUS = [
    *(
        line
        for theirs, ours in (("conv1", "first"), ("conv2", "second"))
        for row in range(STAGES - 1)
        for behind in range(row + 1)
        for line in conv_norm(
            rf"decoder\.blocks\.x_{behind}_{row}\.{theirs}",
            f"nodes.{STAGES - 2 - row}_{row + 1 - behind}.{ours}",
        )
    ),
    *conv_norm(rf"decoder\.blocks\.x_0_{STAGES - 1}\.conv1", "last.first"),
    *conv_norm(rf"decoder\.blocks\.x_0_{STAGES - 1}\.conv2", "last.second"),
    (rf"segmentation_head\.0\.{WB}", rf"heads.{STAGES - 1}.\1"),
]
LINKNET = [
    *conv_norm(r"decoder\.blocks\.(\d)\.block\.0", r"blocks.\1.reduce"),
    *conv_norm(r"decoder\.blocks\.(\d)\.block\.1", r"blocks.\1.enlarge"),
    *conv_norm(r"decoder\.blocks\.(\d)\.block\.2", r"blocks.\1.expand"),
    (rf"segmentation_head\.0\.{WB}", r"head.\1"),
]
FPN = [
    (rf"decoder\.p5\.{WB}", r"fpn.lateral.3.\1"),
    *((rf"decoder\.p{2 + i}\.skip_conv\.{WB}", rf"fpn.lateral.{i}.\1") for i in range(3)),
    *(
        line
        for i in range(4)  # theirs begin with P5
        for line in conv_norm(
            rf"decoder\.seg_blocks\.{3 - i}\.block\.(\d)\.block", rf"branches.{i}.\1"
        )
    ),
    (rf"segmentation_head\.0\.{WB}", r"head.\1"),
]


def _unet(ours: State, where: str) -> dict[str, Any]:
    stages = count(ours, "up", ".first.weight")
    _check_stages(stages, where)
    widths = tuple(len(ours[f"up.{i}.first.weight"]) for i in range(stages))
    return {"decoder_widths": widths, "decoder_norm": norm_of(ours, "up.0.first")}


def _unetplusplus(ours: State, where: str) -> dict[str, Any]:
    ends = [f"nodes.{i}_{STAGES - 1 - i}.first" for i in range(STAGES - 2, -1, -1)]
    ends.append("last.first")
    _check_stages(STAGES if all(f"{end}.weight" in ours for end in ends) else 0, where)
    widths = tuple(len(ours[f"{end}.weight"]) for end in ends)
    return {"decoder_widths": widths, "decoder_norm": norm_of(ours, ends[0])}


def _linknet(ours: State, where: str) -> dict[str, Any]:
    stages = count(ours, "blocks", ".expand.weight")
    _check_stages(stages, where)
    return {
        "final_width": len(ours[f"blocks.{stages - 1}.expand.weight"]),
        "decoder_norm": norm_of(ours, "blocks.0.reduce"),
    }


def _fpn(ours: State, where: str) -> dict[str, Any]:
    width = len(ours["branches.0.0.weight"])
    return {
        "fpn_channels": len(ours["fpn.lateral.3.weight"]),
        "branch_width": width,
        "merge": "add" if ours["head.weight"].shape[1] == width else "cat",
    }


def _check_stages(found: int, where: str) -> None:
    if found != STAGES:
        raise EyelineError(
            f"{where} has a decoder of other than {STAGES} stages, which is not read"
        )


FAMILIES = [
    Family(
        "unetplusplus", "UnetPlusPlus", r"decoder\.blocks\.x_0_\d\.conv1\.0\.weight",
        UNETPLUSPLUS, (f"heads.{STAGES - 1}",), _unetplusplus, idle=("decoder.center",),
    ),
    Family("unet", "Unet", r"decoder\.blocks\.0\.conv1\.0\.weight", UNET, ("head",), _unet),
    Family(
        "linknet", "Linknet", r"decoder\.blocks\.0\.block\.0\.0\.weight",
        LINKNET, ("head",), _linknet,
    ),
    Family(
        "fpn", "FPN", r"decoder\.seg_blocks\.0\.block\.0\.block\.0\.weight",
        FPN, ("head", "fpn.lateral.3"), _fpn,
    ),
]  # fmt: skip


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint | None:
    """The checkpoint, if its keys are segmentation-models-pytorch's; `skip`: keys that may be left
    over."""
    if HEAD not in state or not any(key.startswith(ENCODER) for key in state):
        return None
    family = next((f for f in FAMILIES if any(re.fullmatch(f.sign, key) for key in state)), None)
    if family is None:
        raise EyelineError(
            f"{where} holds a network of segmentation-models-pytorch that is not read; read are "
            f"{', '.join(f.theirs for f in FAMILIES)}"
        )
    table = [*encoder_table(state, where), *family.table]
    ours, renamed, dropped = rename(state, table, family.layers, where, (*skip, *family.idle))
    without_biases(ours, renamed)
    options: dict[str, Any] = {
        "num_classes": len(state[HEAD]),
        "convention": "smp",
        **encoder_options(state, ours, where),
        **family.options(ours, where),
    }
    return Checkpoint("smp", family.name, where, options, None, ours, renamed, dropped)

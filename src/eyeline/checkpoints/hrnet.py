"""HRNets of their authors: HRNet-Semantic-Segmentation's files (a network of HRNetV2's head below
"model.", beside the loss's weights of the classes), and HRNet-Image-Classification's, for
`pretrained=`; timm's HRNets have the latter's names.

What a file holds its keys and shapes tell, its small variants too, but not how corners lie when
maps are resized: as the authors' settings say, corner pixels lie on corner pixels for ADE20K (150
classes) and COCO-Stuff (171), else not. `create_model(align_corners=...)` sets it otherwise.
"""

from __future__ import annotations

import re
from typing import Any

from eyeline.checkpoints.names import IMAGENET
from eyeline.checkpoints.renaming import rename
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.errors import EyelineError

BACKBONE = "hrnet_w"
CORNERED = (150, 171)  # counts of classes
BODY = r"((?:conv[12]|bn[12]|layer1|transition[1-3]|stage[2-4])\..+)"
HEAD = (r"(last_layer\.\d\.\w+)", r"\1")
CLASSIFIER = ("incre_modules", "downsamp_modules", "final_layer", "classifier")


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint | None:
    """The checkpoint, if it is an HRNet's; `skip`: keys that may be left over.

    Raises EyelineError where it has the head of object contexts (OCR).
    """
    prefix = "model." if "model.conv1.weight" in state else ""
    if not {f"{prefix}{k}" for k in ("transition3.3.0.0.weight", "bn2.weight")} <= state.keys():
        return None
    weights = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if any(key.startswith(("ocr_", "aux_head.")) for key in weights):
        raise EyelineError(f"{where} holds an HRNet with OCR, which is not read")
    whole = "last_layer.0.weight" in weights
    start = re.escape(prefix)
    if whole:
        table = [(start + BODY, r"backbone.\1"), (start + HEAD[0], HEAD[1])]
        more: tuple[str, ...] = ("loss",)
    else:
        table, more = [(start + BODY, r"\1")], tuple(f"{prefix}{name}" for name in CLASSIFIER)
    ours, renamed, dropped = rename(state, table, (), where, (*skip, *more))

    def count(pattern: str) -> int:
        return len({m[1] for key in weights if (m := re.match(pattern, key))})

    first = weights["conv1.weight"]
    options: dict[str, Any] = {
        "width": len(weights["transition1.0.0.weight"]),
        "modules": tuple(count(rf"stage{i}\.(\d+)\.") for i in (2, 3, 4)),
        "blocks": count(r"stage2\.0\.branches\.0\.(\d+)\."),
        "first_blocks": count(r"layer1\.(\d+)\."),
        "first_width": len(weights["layer1.0.conv1.weight"]),
        "in_channels": first.shape[1],
        "norm": "batch",
        "norm_epsilon": 1e-5,
    }
    if options["in_channels"] == len(IMAGENET["image_mean"]):
        options |= IMAGENET
    name = f"{BACKBONE}{options['width']}"
    if whole:
        name, classes = "hrnet", len(weights["last_layer.3.weight"])
        options |= {"num_classes": classes, "align_corners": classes in CORNERED}
    return Checkpoint("hrnet", name, where, options, None, ours, renamed, dropped)

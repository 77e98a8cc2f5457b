"""Writes detectron2's side of the parity tests: detectron2.json (shapes) and one .npz a model.

Needs torchvision (0.28.0 made the files that are here), detectron2's Python files (of commit
02b5c4e2; its compiled part is not needed, for it takes RoIAlign and NMS from torchvision) with
fvcore, iopath, omegaconf, hydra-core, pycocotools, cloudpickle, tabulate and termcolor, and the
folder DATA of real pictures, shared/data:

    PYTHONPATH=path/to/detectron2 python tests/parity/make_detectron2.py DATA [CASE ...]

Pictures are cut to the size that the network sees, so that nothing has to be resized. Networks are
narrow, which is quick; every figure is the same in float64.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from fill import UNUSED, fill
from make_torchvision import PICTURES, confirmed, first_instead_of_random, read_picture
from torch import Tensor, nn

HERE = Path(__file__).parent
SIZES = ((320, 256), (224, 320))  # height and width of what is cut out of each picture
IDS = [i for i in range(1, 91) if i not in UNUSED]
CASES = {  # kind, depth of the ResNet
    "cascade_rcnn_resnet18": ("cascade", 18),
    "cascade_mask_rcnn_resnet50": ("cascade_mask", 50),
    "faster_rcnn_resnet50": ("faster", 50),
    "mask_rcnn_resnet18": ("mask", 18),
    "retinanet_resnet18": ("retinanet", 18),
}
RPN = "proposal_generator.rpn_head"
PYRAMID = {f"backbone.fpn_lateral{i}": 1.0 for i in (5, 4, 3, 2)} | {
    f"backbone.fpn_output{i}": 1.0 for i in (2, 3, 4, 5)
}
# Layers in the order they run, and the spread of what comes out of each.
PROPOSING = PYRAMID | {
    f"{RPN}.conv": 1.0,
    f"{RPN}.objectness_logits": 2.0,
    f"{RPN}.anchor_deltas": 0.3,
}
MASKS = {f"roi_heads.mask_head.mask_fcn{i}": 1.0 for i in (1, 2, 3, 4)} | {
    "roi_heads.mask_head.deconv": 1.0,
    "roi_heads.mask_head.predictor": 2.0,
}


def head(number: str, move: float) -> dict[str, float]:
    return {
        f"roi_heads.box_head.{number}fc1": 1.0,
        f"roi_heads.box_head.{number}fc2": 1.0,
        f"roi_heads.box_predictor.{number}cls_score": 2.5,
        f"roi_heads.box_predictor.{number}bbox_pred": move,
    }


CASCADE = PROPOSING | head("0.", 1.0) | head("1.", 1.0) | head("2.", 1.0)
RETINANET = PYRAMID | {
    "backbone.top_block.p6": 1.0,
    "backbone.top_block.p7": 1.0,
    **{f"head.cls_subnet.{2 * i}": 1.0 for i in range(4)},
    "head.cls_score": 2.0,
    **{f"head.bbox_subnet.{2 * i}": 1.0 for i in range(4)},
    "head.bbox_pred": 0.3,
}
LAYERS = {
    "cascade": CASCADE,
    "cascade_mask": CASCADE | MASKS,
    "faster": PROPOSING | head("", 1.5),
    "mask": PROPOSING | head("", 1.5) | MASKS,
    "retinanet": RETINANET,
}
BACKGROUND = {"cls_score": 10.0, "head.cls_score": -11.0}  # added to these biases


def config(kind: str, depth: int) -> CfgNode:
    """The model zoo's, with narrow pyramids and heads."""
    cfg = get_cfg()
    resnet = cfg.MODEL.RESNETS
    resnet.DEPTH, resnet.RES2_OUT_CHANNELS = depth, 64 if depth < 50 else 256
    cfg.MODEL.DEVICE, cfg.MODEL.FPN.OUT_CHANNELS = "cpu", 32
    cfg.MODEL.WEIGHTS = ""
    sides = [32, 64, 128, 256, 512]
    if kind == "retinanet":
        cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
        cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
        resnet.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[x * 2 ** (i / 3) for i in range(3)] for x in sides]
        return cfg
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    resnet.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[x] for x in sides]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN, cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 500, 300
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 400, 200
    cfg.MODEL.RPN.CONV_DIMS = [-1]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    box, mask = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD
    box.NAME, box.NUM_FC, box.FC_DIM, box.POOLER_RESOLUTION = "FastRCNNConvFCHead", 2, 64, 7
    if kind.startswith("cascade"):
        cfg.MODEL.ROI_HEADS.NAME, box.CLS_AGNOSTIC_BBOX_REG = "CascadeROIHeads", True
    cfg.MODEL.MASK_ON = kind.endswith("mask")
    mask.NAME, mask.NUM_CONV, mask.POOLER_RESOLUTION = "MaskRCNNConvUpsampleHead", 4, 14
    mask.CONV_DIM = 16
    return cfg


def is_computed(name: str) -> bool:
    return "anchor_generator" in name or "pixel_" in name


def load(model: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    missing, over = model.load_state_dict(state, strict=False)
    assert not over and all(map(is_computed, missing))


def inputs(pictures: list[Tensor], dtype: torch.dtype) -> list[dict[str, Any]]:
    return [
        {"image": p.flip(0).to(dtype), "height": p.shape[1], "width": p.shape[2]} for p in pictures
    ]


@torch.no_grad()
def calibrate(
    model: nn.Module, pictures: list[Tensor], layers: dict[str, float]
) -> dict[str, np.ndarray]:
    """One layer after another: its outputs' channels get mean 0 and, together, the spread."""
    found: dict[str, np.ndarray] = {}
    modules = dict(model.named_modules())
    for name, spread in layers.items():
        if name not in modules:
            continue
        layer, outputs = modules[name], []
        hook = layer.register_forward_hook(
            lambda _, __, out, outputs=outputs: outputs.append(
                out.transpose(0, 1).flatten(1).clone()
            )
        )
        model(inputs(pictures, torch.float32))
        hook.remove()
        outputs = [out for out in outputs if out.numel()]
        if not outputs:
            raise SystemExit(f"{name} saw nothing")
        out = torch.cat(outputs, 1) - layer.bias[:, None]  # (channels, places)
        factor = spread / out.std(1).mean()
        bias = -out.mean(1) * factor
        if "box_predictor" in name and name.endswith("cls_score"):
            bias[-1] += BACKGROUND["cls_score"]
        elif name == "head.cls_score":
            bias += BACKGROUND[name]
        layer.bias.copy_(bias)
        layer.weight *= factor
        found[f"{name}.weight"] = factor.numpy()
        found[f"{name}.bias"] = layer.bias.numpy().copy()
    return found


@contextmanager
def nms_in_any_precision() -> Iterator[None]:
    """Its NMS makes float32 of the boxes, but not of their scores."""
    theirs = torchvision.ops.boxes.batched_nms

    def same_kind(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
        return theirs(boxes.to(scores.dtype), scores, labels, iou)

    torchvision.ops.boxes.batched_nms = same_kind
    try:
        yield
    finally:
        torchvision.ops.boxes.batched_nms = theirs


@torch.no_grad()
def detections(model: nn.Module, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    found = []
    for dtype in (torch.float32, torch.float64):
        with nms_in_any_precision():
            answers = model.to(dtype).eval()(inputs(pictures, dtype))
        found.append([
            {
                "boxes": a["instances"].pred_boxes.tensor,
                "scores": a["instances"].scores,
                "labels": a["instances"].pred_classes,
            }
            | ({"masks": a["instances"].pred_masks} if a["instances"].has("pred_masks") else {})
            for a in answers
        ])  # fmt: skip
    model.float()
    return confirmed(*found)


@torch.no_grad()
def losses(
    model: nn.Module, pictures: list[Tensor], targets: list[dict[str, Tensor]]
) -> dict[str, np.ndarray]:
    """In train() mode; where sampling is random, the first ones are taken."""
    found = []
    for dtype in (torch.float32, torch.float64):
        batch = inputs(pictures, dtype)
        for entry, target in zip(batch, targets, strict=True):
            own = Instances(tuple(entry["image"].shape[1:]))
            own.gt_boxes, own.gt_classes = Boxes(target["boxes"].to(dtype)), target["labels"]
            own.gt_masks = BitMasks(target["masks"])
            entry["instances"] = own
        with EventStorage(0), first_instead_of_random(), nms_in_any_precision():
            found.append(model.to(dtype).train()(batch))
    model.float().eval()
    for name, value in found[0].items():
        print(f"  {name} {value:.5f}")
        assert abs(value - found[1][name]) < 3e-5 * abs(value), found[1][name]
    return {f"losses.{name}": value.numpy() for name, value in found[0].items()}


def read_target(data: Path, name: str, size: tuple[int, int]) -> dict[str, Tensor]:
    """Objects of which enough lies in what was cut out; a mask fills the ellipse in its box."""
    path = data / "tiny_coco" / "annotations" / "instances_val2017.json"
    objects = [
        a
        for a in json.loads(path.read_text())["annotations"]
        if a["image_id"] == int(name) and not a["iscrowd"]
    ]
    x, y, w, h = torch.tensor([a["bbox"] for a in objects]).T
    limit = torch.tensor([size[1], size[0]] * 2)
    boxes = torch.stack([x, y, x + w, y + h], 1).clamp(min=0).minimum(limit)
    labels = torch.tensor([IDS.index(a["category_id"]) for a in objects])
    large = (boxes[:, 2:] - boxes[:, :2] > 8).all(1)
    boxes, labels = boxes[large], labels[large]
    rows, columns = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1]) + 0.5
    x1, y1, x2, y2 = boxes[..., None, None].unbind(1)
    masks = ((columns - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((rows - (y1 + y2) / 2) / (y2 - y1)) ** 2
    return {"boxes": boxes, "labels": labels, "masks": masks < 0.25}


def main(data: Path, wanted: list[str]) -> None:
    pictures = [
        read_picture(data, name)[:, :h, :w] for name, (h, w) in zip(PICTURES, SIZES, strict=True)
    ]
    assert [tuple(p.shape[1:]) for p in pictures] == list(SIZES)
    targets = [read_target(data, name, size) for name, size in zip(PICTURES, SIZES, strict=True)]
    path = HERE / "detectron2.json"
    shapes = json.loads(path.read_text()) if path.exists() else {}
    for case in wanted or CASES:
        print(case)
        kind, depth = CASES[case]
        model = build_model(config(kind, depth)).eval()
        shapes[case] = {
            name: list(tensor.shape)
            for name, tensor in model.state_dict().items()
            if not is_computed(name)
        }
        load(model, fill(shapes[case]))
        calibration = calibrate(model, pictures, LAYERS[kind])
        out = {f"calibration.{k}": v for k, v in calibration.items()}
        load(model, fill(shapes[case], calibration))
        for i, found in enumerate(detections(model, pictures)):
            assert len(found["boxes"]) >= 10, f"picture {i}"
            if "masks" in found:
                found["masks"] = torch.from_numpy(np.packbits(found["masks"][:10].numpy()))
            out |= {f"{i}.{key}": value.numpy() for key, value in found.items()}
        if kind != "retinanet":  # whose losses are divided by a running mean
            out |= losses(model, pictures, targets)
        np.savez_compressed(HERE / f"detectron2_{case}.npz", **out)
        lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(s)}" for case, s in shapes.items())
        path.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

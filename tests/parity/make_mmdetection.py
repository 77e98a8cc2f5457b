"""Writes mmdetection's side of the parity tests: mmdetection.json (shapes) and one .npz a model.

Needs mmdet 3.3.0 with mmengine 0.10.7 and mmcv-lite 2.1.0 (their Python files: of mmcv's compiled
operators the two that are needed, NMS and RoIAlign, are torchvision's here), torchvision (0.28.0
made the files that are here), addict, yapf, terminaltables, shapely, pycocotools and OpenCV, and
the folder DATA of real pictures, shared/data:

    PYTHONPATH=path/to/the/files python tests/parity/make_mmdetection.py DATA [CASE ...]

Pictures are cut to the size that the network sees, so that nothing has to be resized; SSD's are
stretched here in float32, as ours are. The networks with a ResNet are narrow, which is quick. Every
figure is the same in float64.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from fill import UNUSED, fill
from make_torchvision import PICTURES, confirmed, first_instead_of_random, read_picture, shapes_of
from torch import Tensor, nn

HERE = Path(__file__).parent
SIZES = ((320, 256), (224, 320))  # height and width of what is cut out of each picture
IDS = [i for i in range(1, 91) if i not in UNUSED]
CASES = {  # the configuration file, the ResNet's depth
    "retinanet_resnet18": ("retinanet/retinanet_r50_fpn_1x_coco.py", 18),
    "faster_rcnn_resnet50": ("faster_rcnn/faster-rcnn_r50-caffe_fpn_1x_coco.py", 50),
    "mask_rcnn_resnet18": ("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", 18),
    "cascade_mask_rcnn_resnet18": ("cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py", 18),
    "ssd300": ("ssd/ssd300_coco.py", 0),
    "yolov3": ("yolo/yolov3_d53_8xb8-320-273e_coco.py", 0),
}
NECK = {f"neck.lateral_convs.{i}.conv": 1.0 for i in (3, 2, 1, 0)} | {
    f"neck.fpn_convs.{i}.conv": 1.0 for i in range(5)
}
PROPOSING = NECK | {
    "rpn_head.rpn_conv": 1.0,
    "rpn_head.rpn_cls": 2.0,
    "rpn_head.rpn_reg": 0.3,
}


def box_head(number: str, move: float) -> dict[str, float]:
    name = f"roi_head.bbox_head{number}"
    return {
        f"{name}.shared_fcs.0": 1.0,
        f"{name}.shared_fcs.1": 1.0,
        f"{name}.fc_cls": 2.5,
        f"{name}.fc_reg": move,
    }


def mask_head(number: str) -> dict[str, float]:
    name = f"roi_head.mask_head{number}"
    convs = {f"{name}.convs.{i}.conv": 1.0 for i in range(4)}
    return convs | {f"{name}.upsample": 1.0, f"{name}.conv_logits": 2.0}


# Layers in the order they run, and the spread of what comes out of each.
LAYERS = {
    "retinanet": NECK
    | {f"bbox_head.{kind}_convs.{i}.conv": 1.0 for kind in ("cls", "reg") for i in range(4)}
    | {"bbox_head.retina_cls": 2.0, "bbox_head.retina_reg": 0.3},
    "faster_rcnn": PROPOSING | box_head("", 1.5),
    "mask_rcnn": PROPOSING | box_head("", 1.5) | mask_head(""),
    "cascade_mask_rcnn": PROPOSING
    | {k: v for t in range(3) for k, v in box_head(f".{t}", 1.0).items()}
    | {k: v for t in range(3) for k, v in mask_head(f".{t}").items()},
    "ssd": {"backbone.features.31": 1.0, "backbone.features.33": 1.0}
    | {f"neck.extra_layers.{i}.{j}.conv": 1.0 for i in range(5) for j in (0, 1)}
    | {f"bbox_head.cls_convs.{i}.0": 2.5 for i in range(7)}
    | {f"bbox_head.reg_convs.{i}.0": 1.0 for i in range(7)},
    "yolov3": {f"bbox_head.convs_pred.{i}": 1.0 for i in range(3)},
}


def stand_in() -> None:
    """In place of mmcv's compiled operators; those that nobody calls are missing."""
    operators: Any = types.ModuleType("mmcv._ext")

    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
        assert offset == 0
        return torchvision.ops.nms(boxes.to(scores.dtype), scores, iou_threshold)

    def roi_align(
        levels: Tensor, rois: Tensor, output: Tensor, *argmax: Tensor, aligned_height: int,
        aligned_width: int, spatial_scale: float, sampling_ratio: int, pool_mode: int,
        aligned: bool,
    ) -> None:  # fmt: skip
        assert pool_mode == 1  # the mean
        size = (aligned_height, aligned_width)
        found = torchvision.ops.roi_align(
            levels, rois, size, spatial_scale, sampling_ratio or -1, aligned
        )
        output.copy_(found)

    sample = F.grid_sample

    def grid_sample(masks: Tensor, grid: Tensor, **how: Any) -> Tensor:
        """The pasting of masks makes float32 of the masks, but not of where they lie."""
        return sample(masks, grid.to(masks.dtype), **how)

    F.grid_sample = grid_sample
    operators.nms, operators.roi_align_forward = nms, roi_align
    operators.__getattr__ = lambda name: None
    sys.modules["mmcv._ext"] = operators


def config(case: str) -> Any:
    """The published one, with a narrow pyramid and heads."""
    import mmdet
    from mmengine.config import Config

    file, depth = CASES[case]
    cfg = Config.fromfile(f"{mmdet.__path__[0]}/.mim/configs/{file}")
    model = cfg.model
    model.backbone.pop("init_cfg")
    if not depth:
        return cfg
    model.backbone.depth, model.neck.out_channels = depth, 32
    model.neck.in_channels = [c if depth == 50 else c // 4 for c in (256, 512, 1024, 2048)]
    if "roi_head" not in model:
        model.bbox_head.in_channels = model.bbox_head.feat_channels = 32
        return cfg
    model.rpn_head.in_channels = model.rpn_head.feat_channels = 32
    heads = model.roi_head
    heads.bbox_roi_extractor.out_channels = 32
    boxes = heads.bbox_head if isinstance(heads.bbox_head, list) else [heads.bbox_head]
    for head in boxes:
        head.in_channels, head.fc_out_channels = 32, 64
    if "mask_head" in heads:
        heads.mask_roi_extractor.out_channels = 32
        heads.mask_head.in_channels, heads.mask_head.conv_out_channels = 32, 16
    model.test_cfg.rpn.update(nms_pre=300, max_per_img=200)
    model.train_cfg.rpn_proposal.update(nms_pre=500, max_per_img=400)
    return cfg


def default_boxes(file: str) -> list[Tensor]:
    import mmdet
    from mmdet.registry import TASK_UTILS
    from mmengine.config import Config

    cfg = Config.fromfile(f"{mmdet.__path__[0]}/.mim/configs/ssd/{file}")
    found: list[Tensor] = TASK_UTILS.build(cfg.model.bbox_head.anchor_generator).base_anchors
    return found


def load(model: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})


def samples(case: str, pictures: list[Tensor], dtype: torch.dtype) -> dict[str, Any]:
    """What their data loader would give: pictures in BGR, and what was done to them."""
    from mmdet.structures import DetDataSample

    found: dict[str, Any] = {"inputs": [], "data_samples": []}
    for picture in pictures:
        height, width = picture.shape[1:]
        image, scale = picture.float(), (1.0, 1.0)
        if case.startswith("ssd"):
            side = int(case[3:])
            image = F.interpolate(image[None], (side, side), mode="bilinear")[0]
            scale = (side / width, side / height)
        shape = tuple(image.shape[1:])
        told = dict(img_shape=shape, ori_shape=(height, width), scale_factor=scale)
        found["inputs"].append(image.flip(0).to(dtype))
        found["data_samples"].append(DetDataSample(metainfo=told))
    return found


def prepared(model: Any, case: str, pictures: list[Tensor], training: bool = False) -> Any:
    dtype = next(model.parameters()).dtype
    data = model.data_preprocessor(samples(case, pictures, dtype), training)
    return data["inputs"].to(dtype), data["data_samples"]


def settled(name: str, case: str, out: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """By what each channel of a layer's outputs (channels, places), taken without its bias, is
    multiplied, and what its bias becomes."""
    if out.shape[1] <= 2:  # then there is no spread but from channel to channel
        return (spread / out.std()).expand(len(out)).clone(), torch.zeros(len(out))
    scale = (spread / out.std(1).mean()).expand(len(out)).clone()
    if "convs_pred" in name:  # moves, objectness, classes
        scale.view(3, -1)[:, 4:] *= 2
    bias = -out.mean(1) * scale
    if "fc_cls" in name:
        bias[-1] += 5.0 if case.startswith("cascade") else 10.0
    elif "retina_cls" in name:
        bias += -14.0
    elif "cls_convs" in name and case.startswith("ssd"):
        bias.view(-1, 81)[:, -1] += 9.0
    elif "convs_pred" in name:
        bias.view(3, -1)[:, 4] -= 3
        bias.view(3, -1)[:, 5:] -= 6
    return scale, bias


@torch.no_grad()
def calibrate(
    model: nn.Module, case: str, pictures: list[Tensor], layers: dict[str, float]
) -> dict[str, np.ndarray]:
    """One layer after another: its outputs' channels get mean 0 and, together, the spread. Those
    that look at several levels take a pass each, the others between them one together."""
    found: dict[str, np.ndarray] = {}
    modules = dict(model.named_modules())
    names = [name for name in layers if name in modules]
    shared = [n for n in names if n.startswith("rpn_head") or case.startswith("retinanet")]
    shared = [name for name in shared if not name.startswith("neck")]
    groups: list[list[str]] = []
    for name in names:
        if name in shared or not groups or groups[-1][-1] in shared:
            groups.append([])
        groups[-1].append(name)

    def settle(name: str, layer: Any, out: Tensor) -> tuple[Tensor, Tensor]:
        scale, bias = settled(name, case, out - layer.bias[:, None], layers[name])
        axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        shape = [len(scale) if i == axis else 1 for i in range(layer.weight.ndim)]
        equal = bool((scale == scale[0]).all())
        found[f"{name}.weight"] = (scale[0] if equal else scale.view(shape)).numpy()
        found[f"{name}.bias"] = bias.numpy().copy()
        layer.weight *= scale.view(shape)
        layer.bias.copy_(bias)
        return scale, bias

    for group in groups:
        outputs: list[Tensor] = []

        def after(layer: Any, _: Any, out: Tensor, group: list[str] = group) -> Tensor | None:
            rows = out.transpose(0, 1).flatten(1).clone()
            name = next(name for name in group if modules[name] is layer)
            if name in shared:
                outputs.append(rows)  # noqa: B023
                return None
            old = layer.bias.clone().view(-1, *[1] * (out.ndim - 2))
            scale, bias = (part.view_as(old) for part in settle(name, layer, rows))
            return (out - old) * scale + bias

        hooks = [modules[name].register_forward_hook(after) for name in group]
        model.predict(*prepared(model, case, pictures))
        for hook in hooks:
            hook.remove()
        if outputs:
            settle(group[0], modules[group[0]], torch.cat(outputs, 1))
        if missing := [name for name in group if f"{name}.bias" not in found]:
            raise SystemExit(f"{missing} saw nothing")
    return found


@torch.no_grad()
def detections(model: Any, case: str, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    found = []
    for dtype in (torch.float32, torch.float64):
        answers = model.to(dtype).eval().predict(*prepared(model, case, pictures))
        found.append([])
        for answer in answers:
            own = answer.pred_instances
            one = {"boxes": own.bboxes, "scores": own.scores, "labels": own.labels}
            found[-1].append(one | ({"masks": own.masks} if "masks" in own else {}))
    model.float()
    return confirmed(*found)


@torch.no_grad()
def losses(
    model: Any, case: str, pictures: list[Tensor], targets: list[dict[str, Tensor]]
) -> dict[str, np.ndarray]:
    """Of each picture alone; where sampling is random, the first ones are taken."""
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    out = {}
    for i, (picture, target) in enumerate(zip(pictures, targets, strict=True)):
        found = []
        for dtype in (torch.float32, torch.float64):
            model.to(dtype).train()
            inputs, given = prepared(model, case, [picture])
            h, w = given[0].img_shape
            scale = torch.tensor([w / picture.shape[2], h / picture.shape[1]]).repeat(2)
            own = InstanceData(bboxes=(target["boxes"] * scale).to(dtype), labels=target["labels"])
            own.masks = BitmapMasks(target["masks"].numpy().astype(np.uint8), *picture.shape[1:])
            given[0].gt_instances, given[0].ignored_instances = own, own[:0]
            with first_instead_of_random():
                answer = model.loss(inputs, given)
            sums = {k: sum(v) if isinstance(v, list) else v for k, v in answer.items()}
            found.append({k: float(v) for k, v in sums.items() if "loss" in k})
        model.float().eval()
        for name, value in found[0].items():
            print(f"  {name} {value:.5f}")
            assert abs(value - found[1][name]) <= 5e-5 * abs(value), found[1][name]
            out[f"{i}.losses.{name}"] = np.array(value)
    return out


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
    large = (boxes[:, 2:] - boxes[:, :2] > 20).all(
        1
    )  # of smaller ones several anchors are the best
    boxes, labels = boxes[large], labels[large]
    rows, columns = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1]) + 0.5
    x1, y1, x2, y2 = boxes[..., None, None].unbind(1)
    masks = ((columns - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((rows - (y1 + y2) / 2) / (y2 - y1)) ** 2
    return {"boxes": boxes, "labels": labels, "masks": masks < 0.25}


def main(data: Path, wanted: list[str]) -> None:
    stand_in()
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    pictures = [
        read_picture(data, name)[:, :h, :w] for name, (h, w) in zip(PICTURES, SIZES, strict=True)
    ]
    targets = [read_target(data, name, size) for name, size in zip(PICTURES, SIZES, strict=True)]
    path = HERE / "mmdetection.json"
    shapes = json.loads(path.read_text()) if path.exists() else {}
    for case in wanted or CASES:
        print(case)
        cfg = config(case)
        model: Any = MODELS.build(cfg.model).eval()
        shapes[case] = shapes_of(model)
        load(model, fill(shapes[case]))
        kind = case.rpartition("_resnet")[0] or case.removesuffix("300")
        if kind == "ssd":
            model.bbox_head.loss_cls = None  # which 3.3.0 asks for and SSD has not
        calibration = calibrate(model, case, pictures, LAYERS[kind])
        out = {f"calibration.{k}": v for k, v in calibration.items()}
        load(model, fill(shapes[case], calibration))
        for i, found in enumerate(detections(model, case, pictures)):
            assert len(found["boxes"]) >= 10, f"picture {i}"
            if "masks" in found:
                found["masks"] = torch.from_numpy(np.packbits(found["masks"][:10].numpy()))
            out |= {f"{i}.{key}": value.numpy() for key, value in found.items()}
        if kind != "yolov3":  # whose losses are others than ours
            out |= losses(model, case, pictures, targets)
        out["config"] = np.array(cfg.pretty_text)
        if kind == "ssd":  # of each map, in its first cell
            out |= {
                f"{file.removesuffix('_coco.py')}.{i}": boxes.numpy()
                for file in ("ssd300_coco.py", "ssd512_coco.py")
                for i, boxes in enumerate(default_boxes(file))
            }
        np.savez_compressed(HERE / f"mmdetection_{case}.npz", **out)
        lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(s)}" for case, s in shapes.items())
        path.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

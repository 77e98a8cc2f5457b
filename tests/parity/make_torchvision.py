"""Writes torchvision's side of the parity tests: shapes.json and one .npz a model.

Needs torchvision (0.28.0 made the files that are here) and the folder of real pictures:

    python tests/parity/make_torchvision.py path/to/shared/data [CASE ...]

Every figure is the same in float64: no detection stands on a rounding error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from fill import UNUSED, fill
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import BackboneWithFPN, _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

HERE = Path(__file__).parent
PICTURES = ("000000006818", "000000037777")
KINDS = ("faster_rcnn", "retinanet", "faster_rcnn_v2", "retinanet_v2")
DETECTORS = [f"{kind}_resnet{d}" for kind in KINDS for d in (18, 50)]
CLASSIFIERS = ["resnet18", "resnet50", "resnext50_32x4d"]
IMAGENET = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]  # mean, std

# Layers in the order they run, and the spread of what comes out of each.
PYRAMID = {f"backbone.fpn.inner_blocks.{i}.0": 1.0 for i in (3, 2, 1, 0)} | {
    f"backbone.fpn.layer_blocks.{i}.0": 1.0 for i in (0, 1, 2, 3)
}
FASTER_RCNN = PYRAMID | {
    "rpn.head.conv.0.0": 1.0,
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.3,
    "roi_heads.box_head.fc6": 1.0,
    "roi_heads.box_head.fc7": 1.0,
    "roi_heads.box_predictor.cls_score": 2.5,
    "roi_heads.box_predictor.bbox_pred": 1.5,
}
RETINANET = PYRAMID | {
    "backbone.fpn.extra_blocks.p6": 1.0,
    "backbone.fpn.extra_blocks.p7": 1.0,
    **{f"head.classification_head.conv.{i}.0": 1.0 for i in range(4)},
    "head.classification_head.cls_logits": 2.0,
    **{f"head.regression_head.conv.{i}.0": 1.0 for i in range(4)},
    "head.regression_head.bbox_reg": 0.3,
}
# The second versions: where a norm follows, its weights are set and not the convolution's.
PYRAMID_V2 = {f"{name[:-2]}.1": spread for name, spread in PYRAMID.items()}
FASTER_RCNN_V2 = PYRAMID_V2 | {
    "rpn.head.conv.0.0": 1.0,
    "rpn.head.conv.1.0": 1.0,
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.3,
    **{f"roi_heads.box_head.{i}.1": 1.0 for i in range(4)},
    "roi_heads.box_head.5": 1.0,
    "roi_heads.box_predictor.cls_score": 2.5,
    "roi_heads.box_predictor.bbox_pred": 1.5,
}
RETINANET_V2 = {
    name.replace(".0", ".1") if "_head.conv." in name else name: spread
    for name, spread in RETINANET.items()
}
LAYERS = {
    "faster_rcnn": FASTER_RCNN,
    "retinanet": RETINANET,
    "faster_rcnn_v2": FASTER_RCNN_V2,
    "retinanet_v2": RETINANET_V2,
}
# What is added to the calibrated biases of the scores, so that most of a picture is background.
BACKGROUND = {
    "roi_heads.box_predictor.cls_score": 13.0,
    "head.classification_head.cls_logits": -11.5,
}
BACKGROUND_V2 = {
    "roi_heads.box_predictor.cls_score": 10.5,
    "head.classification_head.cls_logits": -14.0,
}


def detector(kind: str, backbone: str, min_size: int) -> nn.Module:
    if kind.endswith("_v2"):
        return second(kind, backbone, min_size)
    body = getattr(torchvision.models, backbone)(weights=None, norm_layer=FrozenBatchNorm2d)
    sizes = dict(min_size=min_size, max_size=1333 * min_size // 800)
    if kind == "faster_rcnn":
        model: nn.Module = FasterRCNN(_resnet_fpn_extractor(body, 5), 91, **sizes)
    else:
        extra = LastLevelP6P7(256, 256)
        pyramid = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=extra)
        model = RetinaNet(pyramid, 91, **sizes)
    overwrite_eps(model, 0.0)  # as torchvision does for its COCO weights
    return model.eval()


def second(kind: str, backbone: str, min_size: int) -> nn.Module:
    """With a ResNet-50, torchvision's own builders; with a ResNet-18 the same at a quarter of the
    width, which is quick; so are 200 proposals for the convolutions of the box head."""
    sizes = dict(min_size=min_size, max_size=1333 * min_size // 800)
    if kind == "faster_rcnn_v2":
        sizes["rpn_post_nms_top_n_test"] = 200
    if backbone == "resnet50":
        named = {"faster_rcnn_v2": "fasterrcnn", "retinanet_v2": "retinanet"}[kind]
        build = getattr(torchvision.models.detection, f"{named}_resnet50_fpn_v2")
        return build(weights=None, weights_backbone=None, **sizes).eval()
    body, width = getattr(torchvision.models, backbone)(weights=None), 64
    stages = [1, 2, 3, 4] if kind == "faster_rcnn_v2" else [2, 3, 4]
    channels = [64 << (stage - 1) for stage in stages]
    layers = {f"layer{stage}": str(i) for i, stage in enumerate(stages)}
    if kind == "faster_rcnn_v2":
        batch = nn.BatchNorm2d
        pyramid = BackboneWithFPN(body, layers, channels, width, LastLevelMaxPool(), batch)
        rpn = RPNHead(width, 3, conv_depth=2)
        head = FastRCNNConvFCHead((width, 7, 7), [width] * 4, [1024], norm_layer=batch)
        return FasterRCNN(pyramid, 91, rpn_head=rpn, box_head=head, **sizes).eval()
    pyramid = BackboneWithFPN(body, layers, channels, width, LastLevelP6P7(channels[-1], width))
    towers = RetinaNetHead(width, 9, 91, norm_layer=partial(nn.GroupNorm, 32))
    towers.regression_head._loss_type = "giou"
    return RetinaNet(pyramid, 91, head=towers, **sizes).eval()


def load(model: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})


def shapes_of(model: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


@torch.no_grad()
def calibrate(
    model: nn.Module, images: list[Tensor], layers: dict[str, float], background: dict[str, float]
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
        model(images)
        hook.remove()
        out = torch.cat(outputs, 1) - layer.bias[:, None]  # (channels, places)
        used = torch.ones(len(out), dtype=torch.bool)
        if len(out) % 91 == 0 and name in background:
            used.view(-1, 91)[:, list(UNUSED)] = False
            if "classification_head" in name:
                used.view(-1, 91)[:, 0] = False
        factor = spread / out[used].std(1).mean()
        bias = -out.mean(1) * factor
        if "box_predictor.cls_score" in name:
            bias[0] += background[name]
        elif "classification_head.cls_logits" in name:
            bias += background[name]
        layer.bias.copy_(torch.where(used, bias, -20.0))
        layer.weight *= factor
        found[f"{name}.weight"] = factor.numpy()
        found[f"{name}.bias"] = layer.bias.numpy().copy()
    return found


@contextmanager
def first_instead_of_random() -> Iterator[None]:
    """Samplers that shuffle take the first ones."""
    shuffle = torch.randperm
    torch.randperm = lambda n, device=None: torch.arange(n, device=device)
    try:
        yield
    finally:
        torch.randperm = shuffle


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether float32's detections and float64's are the same ones, if not to the last digit."""
    close = (a["boxes"][:, None] - b["boxes"]).abs().amax(-1) < 0.05
    close &= (a["scores"][:, None] - b["scores"]).abs() < 5e-4
    close &= a["labels"][:, None] == b["labels"]
    return len(a["boxes"]) == len(b["boxes"]) and bool(close.any(0).all() and close.any(1).all())


def confirmed(
    found: list[dict[str, Tensor]], exact: list[dict[str, Tensor]]
) -> list[dict[str, Tensor]]:
    """Float32's detections of each picture, which float64's have to be too."""
    for a, b in zip(found, exact, strict=True):
        scores, classes = a["scores"], len(a["labels"].unique())
        print(
            f"  {len(scores)} of {classes} classes, scores {scores.min():.3f} .. {scores.max():.3f}"
        )
        assert same(a, b), "a detection stands on a rounding error"
    return found


@torch.no_grad()
def detections(model: nn.Module, images: list[Tensor]) -> list[dict[str, Tensor] | None]:
    """Of each picture; None where one stands on a rounding error, and float64 finds others."""
    found, exact = model(images), model.double()([image.double() for image in images])
    model.float()
    for a in found:
        scores, classes = a["scores"], len(a["labels"].unique())
        print(f"  {len(scores)} of {classes} classes, scores {scores[-1]:.3f} .. {scores[0]:.3f}")
    return [a if same(a, b) else None for a, b in zip(found, exact, strict=True)]


def named(size: int, picture: int, found: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {f"{size}.{picture}.{key}": value.numpy() for key, value in found.items()}


@torch.no_grad()
def losses(
    model: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]]
) -> dict[str, np.ndarray]:
    """In train() mode; where sampling is random, the first ones are taken. Batch norms use their
    own statistics: with the batch's the order of the proposals stands on rounding errors."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with first_instead_of_random():
        found = model(images, targets)
        doubles = [{**t, "boxes": t["boxes"].double()} for t in targets]
        exact = model.double()([image.double() for image in images], doubles)
    model.float().eval()
    for name, value in found.items():
        print(f"  {name} {value:.5f}")
        assert abs(value - exact[name]) < 3e-5 * abs(value), exact[name]
    return {f"losses.{name}": value.numpy() for name, value in found.items()}


def read_picture(data: Path, name: str) -> Tensor:
    with Image.open(data / "tiny_coco" / "val2017" / f"{name}.jpg") as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def read_target(data: Path, name: str) -> dict[str, Tensor]:
    """Objects that are no crowds; labels are COCO's category ids."""
    path = data / "tiny_coco" / "annotations" / "instances_val2017.json"
    objects = [
        a
        for a in json.loads(path.read_text())["annotations"]
        if a["image_id"] == int(name) and not a["iscrowd"]
    ]
    x, y, w, h = torch.tensor([a["bbox"] for a in objects]).T
    labels = torch.tensor([a["category_id"] for a in objects])
    return {"boxes": torch.stack([x, y, x + w, y + h], 1), "labels": labels}


def main(data: Path, wanted: list[str]) -> None:
    pictures = [read_picture(data, name) for name in PICTURES]
    images = [picture / 255 for picture in pictures]
    targets = [read_target(data, name) for name in PICTURES]
    path = HERE / "shapes.json"
    shapes = json.loads(path.read_text()) if path.exists() else {}
    for case in wanted or [*DETECTORS, *CLASSIFIERS]:
        print(case)
        out = {}
        if case in DETECTORS:
            kind, backbone = case.rsplit("_", 1)
            model = detector(kind, backbone, 256)
            shapes[case] = shapes_of(model)
            load(model, fill(shapes[case]))
            calibration = calibrate(
                model, images, LAYERS[kind], BACKGROUND_V2 if "_v2" in kind else BACKGROUND
            )
            out |= {f"calibration.{k}": v for k, v in calibration.items()}
            load(model, fill(shapes[case], calibration))
            for i, found in enumerate(detections(model, images)):
                assert found and len(found["boxes"]) >= 20, f"picture {i}"
                out |= named(256, i, found)
            out |= {f"256.{k}": v for k, v in losses(model, images, targets).items()}
            if case == "faster_rcnn_resnet50":
                model = detector(kind, backbone, 800)
                load(model, fill(shapes[case], calibration))
                for i, image in enumerate(images):
                    found = detections(model, [image])[0]
                    print(f"  picture {i}", "kept" if found else "stands on a rounding error")
                    out |= named(800, i, found) if found else {}
        else:
            model = getattr(torchvision.models, case)(weights=None).eval()
            shapes[case] = shapes_of(model)
            load(model, fill(shapes[case]))
            mean, std = torch.tensor(IMAGENET)[..., None, None]
            crops = torch.stack([(image[:, :224, :224] - mean) / std for image in images])
            with torch.no_grad():
                out["logits"] = model(crops).numpy()
            print("  logits' spread", out["logits"].std())
        np.savez_compressed(HERE / f"{case}.npz", **out)
        lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(s)}" for case, s in shapes.items())
        path.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

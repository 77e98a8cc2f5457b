"""mmdetection's checkpoints, of 2.x and 3.x: Faster, Mask and Cascade R-CNN and RetinaNet with a
ResNet and FPN, SSD300 and SSD512 with VGG16, YOLOv3 with Darknet-53.

A file has the tensors and, beside them, the names of its classes and its configuration as text. The
text is never run; what it says in literals of pictures, anchors, deltas and thresholds goes into
the model (`mmdetection_config`). A file without it is taken to be of the published configuration of
its model in "pytorch" style: RGB, a bottleneck's stride in the 3x3, SSD with COCO's boxes (of 20
classes PASCAL VOC's), YOLOv3 at 608.

Letters   K classes of ours; background is the last of K + 1, where there is one.

Departs   A side of a box shrinks as far as a network says, theirs to 1/62 at most; YOLOv3's grows
          62 times at most, theirs as far as it says. R-CNN's boxes narrower than 0.01 pixels are
          none. Sizes of resized pictures are rounded down, theirs to the nearest.
          Loss weights, samplers and assigners of a configuration are not read.

Of 80 classes a file without names is taken to be of COCO, of 20 of PASCAL VOC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eyeline.checkpoints.mmdetection_config import (
    at,
    number,
    numbers,
    pixels,
    read_config,
    side,
    within,
)
from eyeline.checkpoints.mmdetection_names import (
    BODY,
    RETINANET,
    RPN,
    SSD,
    YOLOV3,
    box_head,
    mask_head,
    neck,
)
from eyeline.checkpoints.names import COCO, VOC
from eyeline.checkpoints.renaming import (
    by_cell,
    count,
    norm_of,
    of_heads,
    rename,
    resnet_of,
    ssd_slots,
)
from eyeline.checkpoints.source import Checkpoint, State, begins
from eyeline.errors import EyelineError

IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], True)
PARTS = ("neck", "bbox_head", "rpn_head", "roi_head", "mask_head")
COMPUTED = ("data_preprocessor",)
# Shares of the picture's side, in percent: least and most of all maps but the first, and the first.
SSD_PERCENTS = {
    ("ssd300", False): (15, 90, 7),
    ("ssd300", True): (20, 90, 10),
    ("ssd512", False): (10, 90, 4),
    ("ssd512", True): (15, 90, 7),
}
SSD_STRIDES = {"ssd300": (8, 16, 32, 64, 100, 300), "ssd512": (8, 16, 32, 64, 128, 256, 512)}


def read(
    state: State, metadata: Mapping[str, Any], where: str, skip: tuple[str, ...] = ()
) -> Checkpoint | None:
    """The checkpoint, if its keys are mmdetection's. What the file has under "meta" is in
    `metadata` as "meta".

    Raises EyelineError where it is of a version before 2.0 or of another detector than those above.
    """
    theirs = any(begins(key, ["backbone"]) for key in state)
    if not theirs or not any(begins(key, PARTS) for key in state):
        return None
    meta = metadata.get("meta", {})
    meta = meta if isinstance(meta, Mapping) else {}
    version = str(meta.get("mmdet_version", ""))
    first = EyelineError(
        f"{where} holds a detector of mmdetection {version or '1.x'}, which is not read: "
        "other classes and boxes stand behind its numbers; 2.x and 3.x are"
    )
    if "bbox_head.fc_cls.weight" in state or version.startswith(("0.", "1.")):
        raise first
    config = read_config(meta)
    computed = [key for key in state if begins(key, COMPUTED)]
    rest = {key: value for key, value in state.items() if key not in computed}
    if "roi_head.bbox_head.fc_cls.weight" in state or "roi_head.bbox_head.0.fc_cls.weight" in state:
        found = _rcnn(rest, config, where, skip)
    elif "bbox_head.retina_cls.weight" in state:
        found = _retinanet(rest, config, where, skip)
    elif "neck.l2_norm.weight" in state or "backbone.l2_norm.weight" in state:
        found = _ssd(rest, config, where, skip)
    elif "bbox_head.convs_pred.0.weight" in state:
        found = _yolov3(rest, config, where, skip)
    elif isinstance(kind := at(config, "model", "type"), str):
        raise EyelineError(f"{where} holds mmdetection's {kind}, which is not read")
    else:
        return None
    classes = found.options["num_classes"]
    if at(config, "model", "bbox_head", "num_classes") == classes + 1:  # 1.x counts the background
        raise first
    for part in within(at(config, "model")):
        # One that changes its weights, "ConvWS", has tensors of the same names.
        if (kind := at(part, "conv_cfg", "type")) not in (None, "Conv", "Conv2d"):
            raise EyelineError(f"{where} has convolutions {kind!s:.50}, which are not read")
    found.dropped += computed
    found.options["convention"] = "mmdetection"
    _of_pictures(found, config)
    found.classes = _classes(meta, classes)
    return found


def _rcnn(state: State, config: dict[str, Any], where: str, skip: tuple[str, ...]) -> Checkpoint:
    stages = count(state, "roi_head.bbox_head", ".fc_cls.weight")
    heads = [f"heads.{t}" for t in range(stages)] or ["head"]
    suffixes = [f".{t}" for t in range(stages)] or [""]
    masks = [
        (n, f"mask_heads.{t + 1}" if stages else "mask_head")
        for t, n in enumerate(suffixes)
        if f"roi_head.mask_head{n}.conv_logits.weight" in state
    ]
    table = [*BODY, *neck(4), *RPN]
    layers = ["fpn.output.0", "rpn.objectness"]
    for n, ours in zip(suffixes, heads, strict=True):
        table += box_head(n, ours)
        layers += [f"{ours}.{part}" for part in ("fc1", "classes", "deltas")]
    for n, ours in masks:
        table += mask_head(n, ours)
        layers += [f"{ours}.up", f"{ours}.classes"]
    ours, renamed, dropped = rename(state, table, tuple(layers), where, skip)
    channels, classes = len(ours["fpn.output.0.weight"]), len(ours[f"{heads[0]}.classes.bias"]) - 1
    if (scores := len(ours["rpn.objectness.bias"])) != len(ours["rpn.deltas.bias"]) // 4:
        raise EyelineError(f"{where}: its RPN has {scores} scores a cell, not one an anchor")
    for head in heads:
        ours[f"{head}.fc1.weight"] = by_cell(ours[f"{head}.fc1.weight"], channels)
        boxes, expected = len(ours[f"{head}.deltas.bias"]), 4 if stages else 4 * classes
        if boxes != expected:
            raise EyelineError(f"{where}: {boxes} box outputs where {expected} are expected")
    options: dict[str, Any] = {
        "num_classes": classes,
    } | of_heads(ours, heads[0], masks[0][1] if masks else None)
    name = "mask_rcnn" if masks else "faster_rcnn"
    if stages:
        if stages != 3 or len(masks) not in (0, 3):
            raise EyelineError(
                f"{where} holds a cascade of {stages} stages, {len(masks)} with masks; 3 are read"
            )
        options["masks"] = bool(masks)
        name = "cascade_mask_rcnn" if masks else "cascade_rcnn"
    options |= _of_body(ours, config, where) | _of_proposals(config, where)
    coders = at(config, "model", "roi_head", "bbox_head")
    stds = [
        numbers(at(head, "bbox_coder", "target_stds"), 4)
        for head in (coders if isinstance(coders, list) else [coders])
    ]
    weights = [tuple(1 / s for s in std) for std in stds if std and min(std) > 0]
    if len(weights) == len(heads):
        options["stage_weights" if stages else "box_weights"] = (
            tuple(weights) if stages else weights[0]
        )
    options |= _of_tests(at(_part(config, "test_cfg"), "rcnn"), where)
    return Checkpoint("mmdetection", name, where, options, None, ours, renamed, dropped)


def _part(config: dict[str, Any], name: str) -> Any:
    """ "test_cfg" or "train_cfg": in the model or, in early versions, beside it."""
    return at(config, "model", name) or at(config, name)


def _of_proposals(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Of the RPN's anchors, and of how many boxes it proposes, what a configuration tells."""
    options: dict[str, Any] = {}
    given = at(config, "model", "rpn_head", "anchor_generator")
    scales, strides = numbers(at(given, "scales"), 1), numbers(at(given, "strides"), 5)
    if scales and strides:
        options["anchor_sizes"] = tuple(scales[0] * stride for stride in strides)
    if ratios := numbers(at(given, "ratios")):
        options["anchor_ratios"] = tuple(ratios)
    training = at(_part(config, "train_cfg"), "rpn_proposal")
    test = at(_part(config, "test_cfg"), "rpn")
    for keys, ours in (
        (("nms_pre",), "proposals_before_nms"),
        (("max_per_img", "max_num"), "proposals"),
    ):
        pair = [_told(part, where, 1, *keys) for part in (training, test)]
        if None not in pair:
            options[ours] = tuple(pair)
    nms = at(test, "nms")
    if (kind := at(nms, "type")) not in (None, "nms"):
        raise EyelineError(f"{where}: its RPN has the NMS {kind!s:.50}, which is not read")
    iou = _told(nms, where, 0, "iou_threshold", "iou_thr")
    iou = _told(test, where, 0, "nms_thr") if iou is None else iou
    return options if iou is None else options | {"rpn_nms_iou": iou}


def _told(given: Any, where: str, least: float, *keys: str) -> float | None:
    """A number, by one of its names; None where it is not there.

    Raises EyelineError where it is none, or less than `least`.
    """
    for key in keys:
        if (value := at(given, key)) is not None:
            if number(value) is None or value < least:
                raise EyelineError(f"{where}: {key}={value!s:.50} of its configuration is not read")
            found: float = value
            return found
    return None


def _of_tests(given: Any, where: str) -> dict[str, Any]:
    """Thresholds of the detections, and their NMS."""
    nms, options = at(given, "nms"), {}
    kind, method = at(nms, "type") or "nms", at(nms, "method") or "linear"
    told: dict[str, Any] = {
        "score_threshold": _told(given, where, 0, "score_thr"),
        "max_detections": _told(given, where, 1, "max_per_img"),
        "nms_iou": _told(nms, where, 0, "iou_threshold", "iou_thr"),
        "class_agnostic_nms": at(nms, "class_agnostic"),
    }
    if kind == "soft_nms" and method in ("linear", "gaussian"):
        told |= {
            "nms": f"soft_{method}",
            "nms_sigma": _told(nms, where, 0, "sigma"),
            "nms_floor": _told(nms, where, 0, "min_score"),
        }
        options["nms_iou"] = 0.3
    elif kind != "nms":
        text = f"{kind!s:.50}, {method!s:.50}"
        raise EyelineError(f"{where}: its NMS is {text}, which is not read")
    return options | {key: value for key, value in told.items() if value is not None}


def _of_body(ours: State, config: dict[str, Any], where: str) -> dict[str, Any]:
    """Backbone and pyramid."""
    body = at(config, "model", "backbone")
    norm = "group"
    if "backbone.bn1.running_var" in ours:  # their statistics stand still unless told otherwise
        norm = "batch" if at(body, "norm_eval") is False else "frozen"
    return {
        "backbone": resnet_of(ours, "backbone.", where),
        "norm": norm,
        "norm_epsilon": 1e-5,
        "stride_in_1x1": at(body, "style") == "caffe",
        "fpn_channels": len(ours["fpn.output.0.weight"]),
        "fpn_norm": norm_of(ours, "fpn.output.0"),
        "min_size": 800,
        "max_size": 1333,
    }


def _retinanet(
    state: State, config: dict[str, Any], where: str, skip: tuple[str, ...]
) -> Checkpoint:
    layers = ("fpn.output.0", "fpn.extra.0", "class_head.output", "box_head.output")
    ours, renamed, dropped = rename(state, RETINANET, layers, where, skip)
    anchors = len(ours["box_head.output.bias"]) // 4
    if anchors != 9:
        raise EyelineError(f"{where} has {anchors} anchors a cell; 9 are read")
    extra = at(config, "model", "neck", "add_extra_convs")
    if extra == "on_lateral":
        raise EyelineError(f"{where} makes P6 of a lateral map, which is not read")
    from_level = ours["fpn.extra.0.weight"].shape[1] == len(ours["fpn.output.0.weight"])
    options = {
        "num_classes": len(ours["class_head.output.bias"]) // anchors,
        "head_norm": norm_of(ours, "class_head.tower.0"),
        "tower_depth": count(ours, "class_head.tower"),
        "fpn_extra_from": "level" if from_level else "backbone",
        "fpn_extra_relu": at(config, "model", "neck", "relu_before_extra_convs") is True,
        **_of_body(ours, config, where),
        **_of_tests(_part(config, "test_cfg"), where),
    }
    head = at(config, "model", "bbox_head")
    given = at(head, "anchor_generator")
    base, octave = number(at(given, "octave_base_scale")), at(given, "scales_per_octave")
    if base and octave == 3 and (strides := numbers(at(given, "strides"), 5)):
        options["anchor_sizes"] = tuple(base * stride for stride in strides)
    if ratios := numbers(at(given, "ratios"), 3):
        options["anchor_ratios"] = tuple(ratios)
    stds = numbers(at(head, "bbox_coder", "target_stds"), 4)
    if stds and min(stds) > 0:
        options["box_weights"] = tuple(1 / s for s in stds)
    return Checkpoint("mmdetection", "retinanet", where, options, None, ours, renamed, dropped)


def _ssd(state: State, config: dict[str, Any], where: str, skip: tuple[str, ...]) -> Checkpoint:
    layers = ("backbone.conv1_1", "class_heads.0", "box_heads.0")
    ours, renamed, dropped = rename(state, SSD, layers, where, skip)
    maps, classes = count(ours, "class_heads"), ssd_slots(ours, where) - 1
    name = {6: "ssd300", 7: "ssd512"}.get(maps)
    if name is None:
        raise EyelineError(f"{where} has {maps} maps; SSD300 has 6 and SSD512 has 7")
    size, first = int(name[3:]), ours["backbone.conv1_1.weight"]
    percents = SSD_PERCENTS[name, classes == len(VOC)]
    given = at(config, "model", "bbox_head", "anchor_generator", "basesize_ratio_range")
    if given is not None:
        told = tuple(100 * share for share in numbers(given, 2) or ())
        both = (SSD_PERCENTS[name, False], SSD_PERCENTS[name, True])
        known: dict[tuple[float, ...], tuple[int, int, int]] = {p[:2]: p for p in both}
        if told not in known:
            raise EyelineError(f"{where}: default boxes of {given!s:.50} are not read")
        percents = known[told]
    options: dict[str, Any] = {
        "num_classes": classes,
        "backbone": "vgg16",
        "norm": "none",
        "width": len(first),
        "in_channels": first.shape[1],
        "min_size": size,
        "max_size": size,
        "box_scales": ssd_scales(name, *percents),
        "box_strides": SSD_STRIDES[name],
        **_of_tests(_part(config, "test_cfg"), where),
    }
    return Checkpoint("mmdetection", name, where, options, None, ours, renamed, dropped)


def ssd_scales(name: str, least: int, most: int, smallest: int) -> tuple[float, ...]:
    """The sides of the default boxes of each map, and one more, in shares of the picture's; whole
    pixels, as theirs are."""
    size, maps = {"ssd300": (300, 6), "ssd512": (512, 7)}[name]
    step = (most - least) // (maps - 2)
    percents = (smallest, *(least + step * i for i in range(maps)))
    return tuple(size * percent // 100 / size for percent in percents)


def _yolov3(state: State, config: dict[str, Any], where: str, skip: tuple[str, ...]) -> Checkpoint:
    layers = ("scales.0.output", "scales.1.output", "scales.2.output")
    ours, renamed, dropped = rename(state, YOLOV3, layers, where, skip)
    outputs, over = divmod(len(ours["scales.0.output.bias"]), 3)
    if over or outputs < 6:
        raise EyelineError(f"{where} has not three priors a cell")
    options: dict[str, Any] = {
        "num_classes": outputs - 5,
        "backbone": "darknet53",
        "norm": "batch",
        "norm_epsilon": 1e-5,
        "in_channels": ours["backbone.stem.conv.weight"].shape[1],
        "min_size": 608,
        "max_size": 608,
        **_of_tests(_part(config, "test_cfg"), where),
    }
    floor = _told(_part(config, "test_cfg"), where, -1, "conf_thr")
    if floor is not None:
        options["objectness_threshold"] = max(0, floor)
    given = at(config, "model", "bbox_head", "anchor_generator", "base_sizes")
    shapes = [numbers(at(given, s, i), 2) for s in (2, 1, 0) for i in range(3)]  # finest first
    if all(shapes):
        options["priors"] = tuple(x for shape in shapes if shape for x in shape)
    return Checkpoint("mmdetection", "yolov3", where, options, None, ours, renamed, dropped)


def _of_pictures(found: Checkpoint, config: dict[str, Any]) -> None:
    """What the network takes, into the options: 0 to 255 becomes 0 to 1, BGR becomes RGB."""
    usual = {
        "yolov3": ([0.0] * 3, [255.0] * 3, True),
        "ssd300": (IMAGENET[0], [1.0] * 3, True),
        "ssd512": (IMAGENET[0], [1.0] * 3, True),
    }
    mean, std, rgb = pixels(config) or usual.get(found.name, IMAGENET)
    if not rgb:
        for key in (
            "backbone.conv1.weight",
            "backbone.conv1_1.weight",
            "backbone.stem.conv.weight",
        ):
            if key in found.state:
                found.state[key] = found.state[key].flip(1)
        mean, std = mean[::-1], std[::-1]
    found.options |= {
        "image_mean": tuple(value / 255 for value in mean),
        "image_std": tuple(value / 255 for value in std),
    }
    if (sides := side(config)) is not None:
        found.options["min_size"], found.options["max_size"] = sides


def _classes(meta: Mapping[str, Any], wanted: int) -> list[str] | None:
    """The names in a file, or those of the data set that so many classes tell."""
    told = meta.get("dataset_meta")
    parts = [meta, told] if isinstance(told, Mapping) else [meta]
    for part in parts:
        names = part.get("CLASSES", part.get("classes"))
        if isinstance(names, list | tuple) and len(names) == wanted:
            return [str(name) for name in names]
    known = {len(COCO): list(COCO), len(VOC): list(VOC)}
    return known.get(wanted)

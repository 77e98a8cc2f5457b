"""Darknet's `.cfg`: which network of ours it describes, and with which options.

A file is sections, each a layer, whose inputs are the results of the one before it or, of [route]
and [shortcut], of others by number. What is read is the layers' kinds and shapes; whether the
network is one of ours, `eyeline.checkpoints.darknet` finds by comparing layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eyeline.errors import EyelineError

Section = tuple[str, dict[str, str]]
HEADS = ("yolo", "region", "detection")
SAME = ("shortcut", "yolo", "region", "detection", "dropout", "softmax", "cost")  # in size
CELL = 32  # pixels, the unit of a [region]'s anchors


class Layer(NamedTuple):
    """What has numbers in a file."""

    kind: str  # "convolution", "connected" or "local"
    inputs: int
    outputs: int
    kernel: int = 1
    normed: bool = False
    places: int = 1  # of the map, where each has its own kernels

    @property
    def count(self) -> int:
        """How many numbers."""
        biases = self.outputs * self.places * (4 if self.normed else 1)
        return biases + self.places * self.outputs * self.inputs * self.kernel**2

    def __str__(self) -> str:
        if self.kind == "connected":
            return f"connected, {self.inputs} to {self.outputs}"
        size = f"{self.kernel}x{self.kernel}"
        size += f" at {self.places} places" if self.kind == "local" else ""
        size += "" if self.normed or self.kind == "local" else " without a norm"
        return f"{size}, {self.inputs} to {self.outputs} channels"


def parse(cfg: Path) -> list[Section]:
    """The sections of a configuration in their order, each its kind and its options."""
    sections: list[Section] = []
    try:
        lines = cfg.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EyelineError(f"cannot read {cfg}: {error}") from error
    for number, line in enumerate(lines, 1):
        line = line.split("#")[0].split(";")[0].strip()
        if line.startswith("[") and line.endswith("]"):
            sections.append((line[1:-1].strip(), {}))
        elif line:
            key, equals, value = line.partition("=")
            if not equals or not sections:
                raise EyelineError(f"{cfg}, line {number}: {line!r} is no option of a section")
            sections[-1][1][key.strip()] = value.strip()
    if not sections or sections[0][0] not in ("net", "network"):
        raise EyelineError(f"{cfg} does not begin with [net]")
    return sections


def layers_of(sections: list[Section], where: str) -> list[Layer]:
    """The layers with numbers, whose inputs follow from the layers before."""
    found: list[Layer] = []
    shapes: list[tuple[int, int, int]] = []  # channels, height, width of each layer's result
    net = sections[0][1]
    shape = tuple(_whole(net, key, size) for key, size in _NET)
    for i, (kind, options) in enumerate(sections[1:]):
        if kind not in _READ and kind not in SAME:
            raise EyelineError(f"{where}: there is no reading of a layer [{kind}]")
        try:
            if kind in _READ:
                layer, shape = _READ[kind](options, shape, shapes)
                found += [] if layer is None else [layer]
        except (ValueError, KeyError, IndexError, ZeroDivisionError) as error:
            raise EyelineError(f"{where}: layer {i}, [{kind}], has a bad option: {error}") from None
        shapes.append(shape)
    return found


_NET = (("channels", 3), ("height", 416), ("width", 416))
_Shape = Any  # channels, height, width


def _whole(options: dict[str, str], key: str, default: int) -> int:
    return int(options.get(key, default))


def _slid(options: dict[str, str], shape: _Shape, outputs: int, padding: int) -> _Shape:
    """The shape after a window that slides over a map."""
    size, stride = _whole(options, "size", 1), _whole(options, "stride", 1)
    sides = ((side + padding - size) // stride + 1 for side in shape[1:])
    return (outputs, *sides)


def _padding(options: dict[str, str]) -> int:
    """On both sides together."""
    if _whole(options, "pad", 0):
        return 2 * (_whole(options, "size", 1) // 2)
    return 2 * _whole(options, "padding", 0)


def _convolution(options: dict[str, str], shape: _Shape, _: Any) -> tuple[Layer, _Shape]:
    outputs, groups = _whole(options, "filters", 1), _whole(options, "groups", 1)
    if groups != 1:
        raise ValueError(f"groups={groups}")
    normed = _whole(options, "batch_normalize", 0) == 1
    layer = Layer("convolution", shape[0], outputs, _whole(options, "size", 1), normed)
    return layer, _slid(options, shape, outputs, _padding(options))


def _local(options: dict[str, str], shape: _Shape, _: Any) -> tuple[Layer, _Shape]:
    outputs = _whole(options, "filters", 1)
    after = _slid(options, shape, outputs, _padding(options))
    kernel = _whole(options, "size", 1)
    return Layer("local", shape[0], outputs, kernel, places=after[1] * after[2]), after


def _connected(options: dict[str, str], shape: _Shape, _: Any) -> tuple[Layer, _Shape]:
    if _whole(options, "batch_normalize", 0):
        raise ValueError("batch_normalize=1")
    outputs = _whole(options, "output", 1)
    return Layer("connected", shape[0] * shape[1] * shape[2], outputs), (outputs, 1, 1)


def _route(options: dict[str, str], _: _Shape, shapes: list[_Shape]) -> tuple[None, _Shape]:
    rows = [int(v) for v in options["layers"].split(",")]
    joined = [shapes[len(shapes) + row if row < 0 else row] for row in rows]
    return None, (sum(shape[0] for shape in joined), *joined[0][1:])


def _upsample(options: dict[str, str], shape: _Shape, _: Any) -> tuple[None, _Shape]:
    stride = _whole(options, "stride", 2)
    return None, (shape[0], shape[1] * stride, shape[2] * stride)


def _pooled(options: dict[str, str], shape: _Shape, _: Any) -> tuple[None, _Shape]:
    options = {"size": options.get("stride", "1"), **options}
    return None, _slid(options, shape, shape[0], int(options["size"]) - 1)


def _reorg(options: dict[str, str], shape: _Shape, _: Any) -> tuple[None, _Shape]:
    s = _whole(options, "stride", 1)
    return None, (shape[0] * s * s, shape[1] // s, shape[2] // s)


def _crop(options: dict[str, str], shape: _Shape, _: Any) -> tuple[None, _Shape]:
    return None, (shape[0], int(options["crop_height"]), int(options["crop_width"]))


def _averaged(_options: dict[str, str], shape: _Shape, _: Any) -> tuple[None, _Shape]:
    return None, (shape[0], 1, 1)


_READ: dict[str, Callable[..., tuple[Layer | None, _Shape]]] = {
    "convolutional": _convolution,
    "local": _local,
    "connected": _connected,
    "route": _route,
    "upsample": _upsample,
    "maxpool": _pooled,
    "reorg": _reorg,
    "crop": _crop,
    "avgpool": _averaged,
}


def model_of(sections: list[Section], layers: list[Layer], where: str) -> tuple[str, Any] | None:
    """The name of our model that a configuration is most like, and its options; None where it has
    no layer that says where objects are: it is a backbone."""
    heads = [(kind, options) for kind, options in sections if kind in HEADS]
    kinds = {kind for kind, _ in heads}
    if not heads:
        return None
    if len(kinds) > 1 or ("yolo" not in kinds and len(heads) > 1):
        raise EyelineError(f"{where}: {len(heads)} layers [{'], ['.join(sorted(kinds))}] together")
    kind, head = heads[0]
    net = sections[0][1]
    try:
        options = {
            "num_classes": _whole(head, "classes", 20),
            "convention": "darknet",
            "in_channels": _whole(net, "channels", 3),
            **dict.fromkeys(
                ("min_size", "max_size"), max(_whole(net, k, size) for k, size in _NET[1:])
            ),
        }
        if kind == "yolo":
            return ("yolov3", "yolov3_tiny")[len(heads) == 2], options | _yolo(heads)
        made = _region if kind == "region" else _detection
        name = "yolov2" if kind == "region" else "yolov1"
        return name, options | made(head, sections, layers)
    except (ValueError, KeyError, IndexError) as error:
        raise EyelineError(f"{where}: a bad option in [net] or [{kind}]: {error}") from None


def _yolo(heads: list[Section]) -> dict[str, Any]:
    priors: list[float] = []
    for _, head in heads[::-1]:  # ours begin with the finest
        shapes = [float(v) for v in head["anchors"].split(",")]
        for row in (int(v) for v in head["mask"].split(",")):
            priors += shapes[2 * row : 2 * row + 2]
    first = heads[0][1]
    return {"priors": tuple(priors), "ignore_iou": float(first.get("ignore_thresh", 0.5))}


def _region(head: dict[str, str], sections: list[Section], layers: list[Layer]) -> dict[str, Any]:
    for key, needed, default in (("softmax", 1, 0), ("coords", 4, 4)):
        if _whole(head, key, default) != needed:
            raise ValueError(f"{key}={head.get(key, default)}, and {needed} alone is read")
    if "tree" in head:
        raise ValueError("tree: a WordTree is not read")
    kinds = [kind for kind, _ in sections]
    passthrough, width = "none", 0
    tiny = layers[0].outputs == 16  # of the small Darknet's seven convolutions
    depth = len(layers) - (7 if tiny else 18) - 2
    if "reorg" in kinds:
        passthrough, before = "darknet", sections[kinds.index("reorg") - 1]
        if before[0] == "convolutional":
            width, depth = int(before[1]["filters"]), depth - 1
    return {
        "backbone": "darknet_tiny" if tiny else "darknet19",
        "neck_width": layers[-2].outputs,
        "tower_depth": max(depth, 0),
        "passthrough": passthrough,
        "passthrough_width": width,
        "priors": tuple(float(v) * CELL for v in head["anchors"].split(",")),
        "ignore_iou": float(head.get("thresh", 0.5)),
        "rescored": _whole(head, "rescore", 0) == 1,
        "object_weight": float(head.get("object_scale", 1)),
        "no_object_weight": float(head.get("noobject_scale", 1)),
        "class_weight": float(head.get("class_scale", 1)),
        "box_weight": float(head.get("coord_scale", 1)),
    }


def _detection(
    head: dict[str, str], _sections: list[Section], layers: list[Layer]
) -> dict[str, Any]:
    for key, needed, default in (("sqrt", 1, 0), ("softmax", 0, 0), ("coords", 4, 1)):
        if _whole(head, key, default) != needed:
            raise ValueError(f"{key}={head.get(key, default)}, and {needed} alone is read")
    return {
        "norm": "batch" if layers[0].normed else "none",
        "neck_width": layers[-3].outputs,
        "head": "local" if layers[-2].kind == "local" else "connected",
        "head_width": layers[-2].outputs,
        "grid": _whole(head, "side", 7),
        "boxes": _whole(head, "num", 1),
        "no_object_weight": float(head.get("noobject_scale", 1)),
        "box_weight": float(head.get("coord_scale", 1)),
    }

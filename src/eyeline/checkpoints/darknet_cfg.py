"""Darknet's `.cfg`: which model of ours it describes, and with which options.

A file is sections: [net], then one for each layer. What the layers compute is told by
`eyeline.nn.darknet_net`. Where they are a paper's own network, `darknet_standard` knows it, and the
model is the paper's as it stands; any other network stands in its place, as the option `layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from eyeline.checkpoints.darknet_standard import standard
from eyeline.errors import EyelineError
from eyeline.nn.darknet_net import DarknetNet
from eyeline.nn.darknet_sections import Section, lines_of

SHORT = {
    "conv": "convolutional", "conn": "connected", "max": "maxpool", "avg": "avgpool",
    "soft": "softmax", "network": "net",
}  # fmt: skip
Options = dict[str, Any]


def parse(cfg: Path) -> list[Section]:
    """The sections of a configuration in their order, [net] first."""
    sections: list[Section] = []
    try:
        lines = cfg.read_text("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise EyelineError(f"cannot read {cfg}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        line = line.split("#")[0].split(";")[0].strip()
        if line.startswith("[") and line.endswith("]"):
            kind = line[1:-1].strip()
            sections.append(Section(SHORT.get(kind, kind), {}, f"{cfg}, line {number}"))
        elif line:
            key, equals, value = line.partition("=")
            if not equals or not sections:
                raise EyelineError(f"{cfg}, line {number}: {line!r} is no option of a section")
            sections[-1].options.setdefault(key.strip(), value.strip())  # darknet reads the first
    if not sections or sections[0].kind != "net":
        raise EyelineError(f"{cfg} does not begin with [net]")
    return sections


class _NoValues(TorchFunctionMode):
    """No normal deviates: torch takes seconds to prepare itself for those without values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "normal_":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Modules that are made within have shapes, and no values."""
    with torch.device("meta"), _NoValues():
        yield


def network_of(cfg: Path) -> tuple[Section, list[Section], DarknetNet]:
    """[net], the other sections, and the network that they are, without values."""
    net, *sections = parse(cfg)
    size = (net.whole("height", default=416), net.whole("width", default=416))
    with shapes_alone():
        channels = net.whole("channels", default=3)
        return net, sections, DarknetNet(sections, None, None, channels, size)


def model_of(
    net: Section, sections: list[Section], network: DarknetNet
) -> tuple[str, Options] | None:
    """The name of our model that a configuration describes, and its options; None where it has no
    layer that says where objects are: it is a backbone."""
    if not network.heads:
        return None
    heads = [sections[i] for i in network.heads]  # the finest first
    for head in heads:
        if head.kind != heads[0].kind or (head.kind != "yolo" and len(heads) > 1):
            kinds = ", ".join(f"[{other.kind}]" for other in heads)
            raise head.error(f"{kinds} together are no network of ours")
    channels, first = net.whole("channels", default=3), heads[0]
    side = max(net.whole(key, default=416) for key in ("height", "width"))
    options: Options = {
        "num_classes": first.whole("classes", default=20),
        "convention": "darknet",
        "in_channels": channels,
        "min_size": side,
        "max_size": side,
    }
    adjusted = any(s.kind == "crop" and not s.whole("noadjust", 0, 0) for s in sections)
    if adjusted or channels != 3:
        for key, value in (("image_mean", 0.0), ("image_std", 1.0)):
            options[key] = (0.5 if adjusted else value,) * channels
    options |= _HEADS[first.kind](net, heads, network, options["num_classes"])
    found = standard(sections)
    if found is not None:
        return found[0], options | found[1]
    return _NAMES[first.kind], options | {"layers": lines_of(sections)}


def _check_outputs(head: Section, channels: int, wanted: int, of: str) -> None:
    """Whether a head reads as many numbers a cell as it needs."""
    if channels != wanted:
        raise head.error(f"it reads {channels} channels, and {of} make {wanted}")


def _anchors(head: Section) -> list[tuple[float, float]]:
    """Widths and heights."""
    texts = head.text("anchors", "").split(",")
    sides = [head.real("anchors", text) for text in texts]
    if len(sides) % 2 or min(sides) <= 0:
        raise head.error("anchors= are widths and heights, all of them above 0")
    return list(zip(sides[::2], sides[1::2], strict=True))


def _yolo(_net: Section, heads: list[Section], network: DarknetNet, classes: int) -> Options:
    priors: list[tuple[float, float]] = []
    each = 0  # priors of a head: as many as the first has
    for i, head in zip(network.heads, heads, strict=True):
        anchors = _anchors(head)
        rows = head.text("mask", ",".join(map(str, range(len(anchors))))).split(",")
        priors += [anchors[head.number("mask", row, 0, len(anchors) - 1)] for row in rows]
        if head.whole("classes", default=20) != classes:
            raise head.error(f"classes={head.text('classes', '20')}, in {heads[0].where} {classes}")
        each = each or len(rows)
        if len(rows) != each:
            raise head.error(f"{len(rows)} priors, in {heads[0].where} {each}")
        wanted, of = len(rows) * (5 + classes), f"{len(rows)} priors of {classes} classes"
        _check_outputs(head, network.results[i].channels, wanted, of)
    return {"priors": sum(priors, ()), "ignore_iou": heads[0].share("ignore_thresh", "0.5")}


def _region(_net: Section, heads: list[Section], network: DarknetNet, classes: int) -> Options:
    (head,), (place,) = heads, network.heads
    _only(head, softmax=(1, 0), coords=(4, 4), background=(0, 0))
    if "tree" in head.options:
        raise head.error("tree: a WordTree is not read")
    anchors, result = _anchors(head), network.results[place]
    wanted, of = len(anchors) * (5 + classes), f"{len(anchors)} priors of {classes} classes"
    _check_outputs(head, result.channels, wanted, of)
    cell = float(result.stride)
    return {
        "priors": tuple(side * cell for prior in anchors for side in prior),
        "ignore_iou": head.share("thresh", "0.5"),
        "rescored": head.whole("rescore", 0, 0) == 1,
        "object_weight": head.real("object_scale", default="1"),
        "no_object_weight": head.real("noobject_scale", default="1"),
        "class_weight": head.real("class_scale", default="1"),
        "box_weight": head.real("coord_scale", default="1"),
    }


def _detection(net: Section, heads: list[Section], network: DarknetNet, classes: int) -> Options:
    (head,), (place,) = heads, network.heads
    _only(head, sqrt=(1, 0), softmax=(0, 0), coords=(4, 1))
    height, width = (net.whole(key, default=416) for key in ("height", "width"))
    if height != width:
        raise net.error(f"{height} x {width} pixels; a network with [detection] sees squares")
    if height % 32 or height < 64:
        raise net.error(f"{height} pixels; with [detection] a multiple of 32 is read, from 64 on")
    grid, boxes = head.whole("side", default=7), head.whole("num", default=1)
    wanted, of = grid**2 * (classes + 5 * boxes), f"side={grid}, num={boxes}, classes={classes}"
    result = network.results[place]
    if (result.height, result.width) != (1, 1):
        raise head.error(f"it reads a map, {result}; [connected] has to stand before it")
    _check_outputs(head, result.channels, wanted, of)
    return {
        "grid": grid,
        "boxes": boxes,
        "no_object_weight": head.real("noobject_scale", default="1"),
        "box_weight": head.real("coord_scale", default="1"),
    }


def _only(head: Section, **needed: tuple[int, int]) -> None:
    """Options of which one value is read, each with that and what it is where none is given."""
    for key, (value, default) in needed.items():
        if head.whole(key, 0, default) != value:
            text = head.text(key, str(default))
            raise head.error(f"{key}={text}, and {value} alone is read")


_HEADS: dict[str, Callable[..., Options]] = {
    "yolo": _yolo,
    "region": _region,
    "detection": _detection,
}
_NAMES = {"yolo": "yolov3", "region": "yolov2", "detection": "yolov1"}

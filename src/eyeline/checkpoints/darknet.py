"""Darknet's `.weights`: a header and then nothing but numbers, in the order of a `.cfg`.

The header is three int32 (major, minor, revision) and how many pictures were seen, int64 from
version 0.2 on, int32 before. Of each convolution follow its biases, or of its batch norm the
biases, weights, means and variances; then its kernels. Nothing has a name or a shape: those are
our model's, whose modules are registered in that order, and the `.cfg` that lies beside the file,
where there is one, says which model that is. Without one the count of numbers tells it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from eyeline import registry
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.checkpoints.torchvision import COCO_SLOTS
from eyeline.errors import EyelineError
from eyeline.nn.backbones.darknet import LeakyConv

MODELS = ("yolov3", "yolov3_tiny")
BACKBONE = "darknet53"


class Convolution(NamedTuple):
    """What has numbers in a file."""

    inputs: int
    outputs: int
    kernel: int
    normed: bool

    @property
    def count(self) -> int:
        """How many numbers."""
        return self.outputs * (4 if self.normed else 1) + self.kernels

    @property
    def kernels(self) -> int:
        return self.outputs * self.inputs * self.kernel**2

    def __str__(self) -> str:
        return f"{self.kernel}x{self.kernel}, {self.inputs} to {self.outputs} channels"


def recognise(path: Path) -> bool:
    """Whether a file is darknet's: by its ending, or a header of its first versions."""
    if path.suffix == ".weights":
        return True
    with path.open("rb") as file:
        start = file.read(12)
    if len(start) < 12:
        return False
    major, minor, revision = np.frombuffer(start, "<i4")
    return major == 0 and minor in (1, 2) and 0 <= revision <= 5


def read(path: Path, cfg: Path | None = None) -> Checkpoint:
    """The checkpoint in a file of weights.

    Args:
        cfg: the network's configuration; by default the file of the same name that ends in .cfg,
            and without one a standard network of any number of classes.

    Raises EyelineError where the numbers are not as many as the network has, by how many; where
    the configuration has layers or a network that we have not.
    """
    values = read_values(path)
    if cfg is None and path.with_suffix(".cfg").is_file():
        cfg = path.with_suffix(".cfg")
    if cfg is None:
        name, options = _by_count(len(values), str(path))
    else:
        name, options = _by_cfg(cfg, len(values), str(path))
    part: Any = _layers(name, options)
    if name == BACKBONE:
        part, options = part.backbone, {}
    state = pour(values, part, str(path))
    classes = None
    if options.get("num_classes") == 80:
        classes = [slot for slot in COCO_SLOTS if slot is not None]
    return Checkpoint("darknet", name, str(path), options, classes, state)


def read_values(path: Path) -> np.ndarray:
    """The numbers behind the header, float32."""
    content = path.read_bytes()
    if len(content) < 16:
        raise EyelineError(f"{path} is no darknet file: it has {len(content)} bytes")
    major, minor = (int(v) for v in np.frombuffer(content, "<i4", 2))
    header = 20 if major * 10 + minor >= 2 else 16
    if (len(content) - header) % 4:
        raise EyelineError(f"{path} is cut off within a number, or no darknet file")
    return np.frombuffer(content, "<f4", offset=header)


def pour(values: np.ndarray, model: nn.Module, where: str) -> State:
    """Numbers into tensors of the model's names, convolution after convolution."""
    state: State = {}
    place = 0

    def take(name: str, shape: tuple[int, ...]) -> None:
        nonlocal place
        count = int(np.prod(shape))
        state[name] = torch.from_numpy(values[place : place + count].reshape(shape).copy())
        place += count

    wanted = sum(layer.count for _, _, layer in convolutions(model))
    if wanted != len(values):
        raise EyelineError(f"{where} {_difference(len(values), wanted)}")
    for conv, norm, layer in convolutions(model):
        for key in ("bias", "weight", "running_mean", "running_var") if norm else ():
            take(f"{norm}.{key}", (layer.outputs,))
        if not norm:
            take(f"{conv}.bias", (layer.outputs,))
        take(f"{conv}.weight", (layer.outputs, layer.inputs, layer.kernel, layer.kernel))
    return state


def convolutions(model: nn.Module) -> Iterator[tuple[str, str | None, Convolution]]:
    """Each convolution of a model of ours in the file's order: its name, its norm's, its shape."""
    normed = {f"{name}.conv" for name, m in model.named_modules() if isinstance(m, LeakyConv)}
    for name, conv in model.named_modules():
        if isinstance(conv, nn.Conv2d):
            norm = name.removesuffix("conv") + "norm" if name in normed else None
            shape = (conv.in_channels, conv.out_channels, conv.kernel_size[0])
            yield name, norm, Convolution(*shape, norm is not None)


def _difference(count: int, wanted: int, network: str = "the network") -> str:
    more = "too many" if count > wanted else "too few"
    return f"has {count} numbers, {network} {wanted}: {abs(count - wanted)} {more}"


def _layers(name: str, options: dict[str, Any]) -> nn.Module:
    """A model of ours without values."""
    with torch.device("meta"):
        build = registry.find("yolov3" if name == BACKBONE else name).build
        return build(**{"num_classes": 1} | options)


def _by_count(count: int, where: str) -> tuple[str, dict[str, Any]]:
    """Which standard network has so many numbers, whatever its number of classes."""
    near = []
    for name in MODELS:
        one, two = (
            sum(layer.count for _, _, layer in convolutions(_layers(name, {"num_classes": k})))
            for k in (1, 2)
        )
        classes, rest = divmod(count - one, two - one)
        if rest == 0 and classes >= 0:
            return name, {"num_classes": classes + 1, "convention": "darknet"}
        near.append((abs(count - one - 79 * (two - one)), one + 79 * (two - one), name))
    backbone: Any = _layers(BACKBONE, {})
    if count == sum(layer.count for _, _, layer in convolutions(backbone.backbone)):
        return BACKBONE, {}
    _, wanted, name = min(near)
    text = _difference(count, wanted, f"{name} of 80 classes")
    raise EyelineError(f"{where} {text}; another network needs its .cfg beside it")


# ---- configuration files


def _by_cfg(cfg: Path, count: int, where: str) -> tuple[str, dict[str, Any]]:
    """Which model of ours a configuration describes, and with which options."""
    sections = parse(cfg)
    theirs = convolutions_of(sections, str(cfg))
    wanted = sum(layer.count for layer in theirs)
    if count != wanted:
        raise EyelineError(f"{where} {_difference(count, wanted, str(cfg))}")
    heads = [options for kind, options in sections if kind == "yolo"]
    if not heads:
        name, options = BACKBONE, {}
    else:
        name, options = MODELS[len(heads) == 2], _options(sections[0][1], heads, str(cfg))
    ours: Any = _layers(name, options)
    found = [layer for _, _, layer in convolutions(ours.backbone if not heads else ours)]
    for i, (mine, other) in enumerate(zip(found, theirs, strict=False)):
        if mine != other:
            raise EyelineError(f"{cfg}: convolution {i} is {other}; that of our {name} is {mine}")
    if len(found) != len(theirs):
        raise EyelineError(f"{cfg} has {len(theirs)} convolutions, our {name} {len(found)}")
    return name, options


def parse(cfg: Path) -> list[tuple[str, dict[str, str]]]:
    """The sections of a configuration in their order, each its kind and its options."""
    sections: list[tuple[str, dict[str, str]]] = []
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


def convolutions_of(sections: list[tuple[str, dict[str, str]]], where: str) -> list[Convolution]:
    """The convolutions of a configuration, whose inputs follow from the layers before."""
    found: list[Convolution] = []
    channels: list[int] = []  # of each layer's result
    before = int(sections[0][1].get("channels", 3))
    for i, (kind, options) in enumerate(sections[1:]):
        try:
            if kind == "convolutional":
                shape = (int(options.get("filters", 1)), int(options.get("size", 1)))
                found.append(
                    Convolution(before, *shape, int(options.get("batch_normalize", 0)) == 1)
                )
                before = shape[0]
            elif kind == "route":
                layers = [int(v) for v in options["layers"].split(",")]
                before = sum(channels[i + v if v < 0 else v] for v in layers)
            elif kind not in ("shortcut", "upsample", "maxpool", "yolo"):
                raise EyelineError(f"{where}: there is no reading of a layer [{kind}]")
        except (ValueError, KeyError, IndexError) as error:
            raise EyelineError(f"{where}: layer {i}, [{kind}], has a bad option: {error}") from None
        channels.append(before)
    return found


def _options(net: dict[str, str], heads: list[dict[str, str]], where: str) -> dict[str, Any]:
    """What the sections [net] and [yolo] say of our config."""
    try:
        sides = int(net.get("width", 416)), int(net.get("height", 416))
        priors: list[float] = []
        for head in heads[::-1]:  # ours begin with the finest
            shapes = [float(v) for v in head["anchors"].split(",")]
            for row in (int(v) for v in head["mask"].split(",")):
                priors += shapes[2 * row : 2 * row + 2]
        return {
            "num_classes": int(heads[0].get("classes", 20)),
            "convention": "darknet",
            "in_channels": int(net.get("channels", 3)),
            "min_size": max(sides),
            "max_size": max(sides),
            "priors": tuple(priors),
            "ignore_iou": float(heads[0].get("ignore_thresh", 0.5)),
        }
    except (ValueError, KeyError) as error:
        raise EyelineError(f"{where}: a bad option in [net] or [yolo]: {error}") from None

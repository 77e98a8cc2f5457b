"""Darknet's `.weights`: a header and then nothing but numbers, in the order of a `.cfg`.

The header is three int32 (major, minor, revision) and how many pictures were seen, int64 from
version 0.2 on, int32 before. Of each convolution follow its biases, or of its batch norm the
biases, weights, means and variances; then its kernels. Connected and local layers are biases, then
weights. Nothing has a name or a shape: those are our model's, whose modules are registered in that
order, and the `.cfg` that lies beside the file, where there is one, says which model that is.
Without one the count of numbers tells it.

The files that training starts from (`darknet53.conv.74`) end behind some layer: their numbers are
those of a model's first layers. They saw pictures in [0, 1]; YOLO's first network, in its files of
before batch norm, [-1, 1], and with batch norm nothing tells. In the first files of all the header
is three float32 instead, and a connected layer's weights lie input by input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from eyeline import registry
from eyeline.checkpoints.darknet_cfg import model_of, network_of, shapes_alone
from eyeline.checkpoints.names import COCO, VOC
from eyeline.checkpoints.source import Checkpoint, State
from eyeline.errors import EyelineError
from eyeline.nn.backbones import build_backbone
from eyeline.nn.backbones.darknet import LeakyConv
from eyeline.nn.darknet_layers import Convolution
from eyeline.nn.local import Local

# What the published files of a network without a cfg are, and its priors by number of classes.
STANDARD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("yolov3", {}),
    ("yolov3_tiny", {}),
    ("yolov2", {}),
    ("yolov2", dict(passthrough_width=0)),
    ("yolov2", dict(backbone="darknet_tiny", tower_depth=0, passthrough="none", neck_width=512)),
    ("yolov2", dict(backbone="darknet_tiny", tower_depth=0, passthrough="none", neck_width=1024)),
    ("yolov1", {}),
)
PRIORS = {  # of [region], in cells
    ("darknet19", len(COCO)): (
        0.57273, 0.677385, 1.87446, 2.06253, 3.33843, 5.47434, 7.88282, 3.52778, 9.77052, 9.16828
    ),
    ("darknet19", len(VOC)): (
        1.3221, 1.73145, 3.19275, 4.00944, 5.05587, 8.09892, 9.47112, 4.84053, 11.2364, 10.0071
    ),
    ("darknet_tiny", len(COCO)): (
        0.57273, 0.677385, 1.87446, 2.06253, 3.33843, 5.47434, 7.88282, 3.52778, 9.77052, 9.16828
    ),
    ("darknet_tiny", len(VOC)): (1.08, 1.19, 3.42, 4.41, 6.63, 11.38, 9.42, 5.11, 16.62, 10.52),
}  # fmt: skip
BACKBONES = ("darknet53", "darknet19", "extraction", "darknet_tiny")
MOST = 2000  # classes that a file without a cfg may have
CLASSIFIER = 1000 * (1024 + 1)  # numbers behind the convolutions of a whole classifier
LATER = 1000  # no version has such numbers: a float32's bits


class Layer(NamedTuple):
    """What has numbers in a file."""

    kind: str  # "convolution", "connected" or "local"
    inputs: int  # of each group
    outputs: int
    kernel: int = 1
    normed: bool = False
    places: int = 1  # of the map, where each has its own kernels

    @property
    def count(self) -> int:
        """How many numbers."""
        biases = self.outputs * self.places * (4 if self.normed else 1)
        return biases + self.places * self.outputs * self.inputs * self.kernel**2


# A layer with numbers: its name, its norm's, its shape.
Numbered = tuple[str, str | None, Layer]


def recognise(path: Path) -> bool:
    """Whether a file is darknet's: by its ending, or a header of its first versions."""
    if path.suffix == ".weights":
        return True
    start = _content(path, 12)
    if len(start) < 12:
        return False
    major, minor, revision = np.frombuffer(start, "<i4")
    return major == 0 and minor in (1, 2) and 0 <= revision <= 5


def _content(path: Path, count: int = -1) -> bytes:
    """The file's first bytes, or all."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise EyelineError(f"cannot read {path}: {error.strerror}") from error


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
    state = pour(values, network(name, options), str(path), first_files(path))
    if name in BACKBONES:
        return Checkpoint("darknet", name, str(path), {}, None, state)
    classes = None
    if "layers" in options:
        pass  # a network of one's own has classes of one's own
    elif options["num_classes"] == len(COCO):
        classes = list(COCO)
    elif options["num_classes"] == len(VOC) and name in ("yolov1", "yolov2"):
        classes = list(VOC)
    return Checkpoint("darknet", name, str(path), options, classes, state)


def read_values(path: Path) -> np.ndarray:
    """The numbers behind the header, float32."""
    content = _content(path)
    if content.startswith(b"PK\x03\x04"):
        raise EyelineError(f"{path} is a torch file, not darknet's; rename it to .pth")
    if len(content) < 16:
        raise EyelineError(f"{path} is no darknet file: it has {len(content)} bytes")
    major, minor = (int(v) for v in np.frombuffer(content, "<i4", 2))
    header = 20 if major * 10 + minor >= 2 and not first_files(path) else 16
    if (len(content) - header) % 4:
        raise EyelineError(f"{path} is cut off within a number, or no darknet file")
    return np.frombuffer(content, "<f4", offset=header)


def first_files(path: Path) -> bool:
    """Whether a file is of the first, with numbers of its training in place of a version."""
    version = np.frombuffer(_content(path, 8), "<i4")
    return len(version) == 2 and bool((version > LATER).any())


def pour(values: np.ndarray, model: nn.Module, where: str, first: bool = False) -> State:
    """Numbers into tensors of the model's names, layer after layer; `first`: of the first files."""
    layers = list(convolutions(model))
    wanted = sum(layer.count for _, _, layer in layers)
    if wanted != len(values):
        raise EyelineError(f"{where} {_difference(len(values), wanted)}")
    return poured(values, model, layers, first)


def poured(
    values: np.ndarray, model: nn.Module, layers: Sequence[Numbered], first: bool = False
) -> State:
    """The same of some of its layers, of which there are enough numbers."""
    state: State = {}
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    place = 0
    for name, norm, layer in layers:
        keys = [f"{name}.bias", f"{name}.weight"]
        if norm:
            parts = ("bias", "weight", "running_mean", "running_var")
            keys = [*(f"{norm}.{part}" for part in parts), keys[1]]
        for key in keys:
            count = int(np.prod(shapes[key]))
            tensor = values[place : place + count]
            turned = first and layer.kind == "connected" and key.endswith("weight")
            tensor = tensor.reshape(shapes[key][::-1]).T if turned else tensor.reshape(shapes[key])
            state[key] = torch.from_numpy(tensor.copy())
            place += count
    return state


def read_start(path: Path, model: Any) -> Checkpoint:
    """The checkpoint in a file that ends behind some layer, or is a whole classifier, for the
    backbone of `model`, and where that is one of darknet's networks, for what follows it too.

    Its names are the backbone's, or where there is more than that, the model's.

    Raises EyelineError where the numbers end within a layer, by how many; where they are another
    backbone's.
    """
    values, where, config = read_values(path), str(path), getattr(model, "config", None)
    name = getattr(config, "backbone", None)
    if name not in BACKBONES:
        kind = "none that its config names" if name is None else f"a {name}"
        raise EyelineError(f"{where} is darknet's, the model's backbone is {kind}")
    own = "none" if getattr(config, "norm", None) == "none" else "batch"
    for norm in (own, "batch" if own == "none" else "none"):
        twin = _twin(model, name, norm)
        layers = list(convolutions(twin))
        ends = list(accumulate(layer.count for _, _, layer in layers))
        body = sum(layer.startswith("backbone.") for layer, _, _ in layers)
        whole = len(values) == ends[body - 1] + CLASSIFIER
        if whole or len(values) in ends:
            depth = body if whole else ends.index(len(values)) + 1
            break
    else:
        raise _no_start(path, len(values), model, own)
    state = poured(values, twin, layers[:depth], first_files(path))
    if depth <= body:
        state = {key.removeprefix("backbone."): value for key, value in state.items()}
    options: dict[str, Any] = {"norm": norm}
    if norm == "batch":
        options["norm_epsilon"] = 1e-6
    if name != "extraction" or norm == "none":
        middle = 0.5 if name == "extraction" else 0.0
        options |= {"image_mean": (middle,) * 3, "image_std": (1 - middle,) * 3}
    dropped = [f"a classifier of {CLASSIFIER} numbers"] if whole else []
    return Checkpoint("darknet", name, where, options, None, state, dropped=dropped)


def _twin(model: Any, backbone: str, norm: str) -> nn.Module:
    """A model's network, without values, that has such norms and takes pictures of RGB; where it is
    none of darknet's, its backbone alone."""
    if model.source is None and model.name in {name for name, _ in STANDARD}:
        like = {"norm": norm, "in_channels": 3, "image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}
        return network(model.name, dataclasses.asdict(model.config) | like)
    return nn.ModuleDict({"backbone": _bare(backbone, norm)})


def _no_start(path: Path, count: int, model: Any, norm: str) -> EyelineError:
    """What to say of numbers that end behind none of a model's layers."""
    name, where = model.config.backbone, str(path)
    for other in BACKBONES:
        for kind in ("batch", "none"):
            numbers = sum(c.count for *_, c in convolutions(_bare(other, kind)))
            if count in (numbers, numbers + CLASSIFIER):
                return EyelineError(f"{where} holds a {other}, the model's backbone is a {name}")
    layers = list(convolutions(_twin(model, name, norm)))
    ends = list(accumulate(layer.count for *_, layer in layers))
    near = min(ends, key=lambda end: abs(end - count))
    text = _difference(count, near, f"the first {ends.index(near) + 1} layers of our {model.name}")
    return EyelineError(f"{where} {text}")


def convolutions(model: nn.Module) -> Iterator[Numbered]:
    """Each layer of a model of ours that has numbers, in the file's order: its name, its norm's,
    its shape."""
    normed = {
        f"{name}.conv"
        for name, m in model.named_modules()
        if isinstance(m, (LeakyConv, Convolution)) and not isinstance(m.norm, nn.Identity)
    }
    for name, m in model.named_modules():
        if isinstance(m, nn.Conv2d):
            norm = name.removesuffix("conv") + "norm" if name in normed else None
            sizes = (m.in_channels // m.groups, m.out_channels, m.kernel_size[0])
            yield name, norm, Layer("convolution", *sizes, norm is not None)
        elif isinstance(m, nn.Linear):
            yield name, None, Layer("connected", m.in_features, m.out_features)
        elif isinstance(m, Local):
            places = m.size[0] * m.size[1]
            yield name, None, Layer("local", m.inputs, m.outputs, m.kernel, places=places)


def network(name: str, options: dict[str, Any]) -> nn.Module:
    """A model or backbone of ours without values."""
    if name in BACKBONES:
        return _bare(name)
    with shapes_alone():
        return registry.find(name).build(**{"num_classes": 1, "convention": "darknet"} | options)


def _bare(name: str, norm: str = "batch") -> nn.Module:
    with shapes_alone():
        found: nn.Module = build_backbone(name, norm=norm)
    return found


def _difference(count: int, wanted: int, network: str = "the network") -> str:
    more = "too many" if count > wanted else "too few"
    return f"has {count} numbers, {network} {wanted}: {abs(count - wanted)} {more}"


@cache
def _standard() -> list[tuple[str, dict[str, Any], int, int]]:
    """Each standard network, how many numbers it has of no class, and of each class."""
    found = []
    for name, options in STANDARD:
        one, two = (
            sum(layer.count for _, _, layer in convolutions(network(name, made)))
            for made in ({**options, "num_classes": k} for k in (1, 2))
        )
        found.append((name, options, 2 * one - two, two - one))
    return found


def _by_count(count: int, where: str) -> tuple[str, dict[str, Any]]:
    """Which standard network has so many numbers, whatever its number of classes."""
    fitting, near = [], []
    for name, options, none, each in _standard():
        classes, rest = divmod(count - none, each)
        if rest == 0 and 1 <= classes <= MOST:
            usual = classes in (len(COCO), len(VOC))
            fitting.append((not usual, name, options | {"num_classes": classes}))
        near.append((abs(count - none - len(COCO) * each), none + len(COCO) * each, name))
    for _, name, options in sorted(fitting, key=lambda entry: entry[0]):
        if name == "yolov2":
            key = (options.get("backbone", "darknet19"), options["num_classes"])
            if key not in PRIORS:
                raise EyelineError(
                    f"{where} is a yolov2 of {key[1]} classes, by its {count} numbers; its priors "
                    "are in its .cfg, which must lie beside it"
                )
            options["priors"] = tuple(32 * side for side in PRIORS[key])
        return name, options | {"convention": "darknet"}
    for name in BACKBONES:
        if count == sum(layer.count for _, _, layer in convolutions(network(name, {}))):
            return name, {}
    _, wanted, name = min(near)
    text = _difference(count, wanted, f"{name} of {len(COCO)} classes")
    raise EyelineError(f"{where} {text}; another network needs its .cfg beside it")


def _by_cfg(cfg: Path, count: int, where: str) -> tuple[str, dict[str, Any]]:
    """Which model of ours a configuration describes, and with which options."""
    net, sections, described = network_of(cfg)
    theirs = [layer for _, _, layer in convolutions(described)]
    wanted = sum(layer.count for layer in theirs)
    if count != wanted:
        raise EyelineError(f"{where} {_difference(count, wanted, str(cfg))}")
    found = model_of(net, sections, described)
    if found is not None:
        return found
    for name in BACKBONES:
        if [layer for _, _, layer in convolutions(network(name, {}))] == theirs:
            return name, {}
    raise EyelineError(
        f"{cfg} has no layer [yolo], [region] or [detection], and is none of the backbones "
        f"{', '.join(BACKBONES)}"
    )

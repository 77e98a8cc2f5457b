"""Weights into models: `read` a checkpoint of any known family, `load_weights` it into a model.

One file a family. Nothing is silent: what a file holds too much or a model misses is an error
that names it, unless the caller names it first with `skip`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eyeline import registry
from eyeline.checkpoints import darknet, fcn, hrnet
from eyeline.checkpoints.bringing import backbone_of, brought, same
from eyeline.checkpoints.channels import for_channels
from eyeline.checkpoints.eyeline import run_model, run_weights, save_weights
from eyeline.checkpoints.identify import identify, unknown
from eyeline.checkpoints.source import (
    COUNTER,
    Checkpoint,
    State,
    begins,
    fetch,
    read_metadata,
    read_whole,
    some,
    unwrap,
)
from eyeline.errors import EyelineError
from eyeline.nn.backbones import DARKNETS, MOBILENET, VGG, XCEPTIONS

__all__ = [
    "Checkpoint", "LoadReport", "Source", "fetch", "load_weights", "read", "run_model",
    "run_weights", "save_weights",
]  # fmt: skip

# What the weights were trained for: with another value they would mean something else.
MEANING = (
    "convention", "norm_epsilon", "image_mean", "image_std", "objectness", "box_weights",
    "anchor_sizes", "anchor_scales", "anchor_ratios", "anchor_offset", "anchor_rounded",
    "anchor_fitted", "anchor_clipped", "box_scales", "box_ratios", "box_strides", "box_clipped",
    "centres_clipped", "box_variances", "priors", "offsets", "tower_depths", "passthrough", "grid",
    "boxes", "head", "pooling", "sampling_ratio", "roi_aligned", "stride_in_1x1", "stage_scales",
    "layers", "stage_weights", "averaged", "fpn_extra_relu", "align_corners", "decoder_upsampling",
    "padding", "first_dilates", "multi_grid", "rates", "rates_stride", "gate", "border",
    "skip_scales", "output_stride",
)  # fmt: skip
CONNECTED = ("fc", "fc6", "fc7")  # of classifiers, in whole or in part no backbone's

Source = str | Path | Mapping[str, Tensor] | Checkpoint


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor: of the file's, of the model's."""

    loaded: tuple[str, ...]  # the model's names that were filled
    converted: dict[str, str]  # of these, those that the file calls otherwise: ours -> the file's
    left_out: tuple[str, ...]  # the file's names that were not used
    missing: tuple[str, ...]  # the model's names that keep the values they had
    replaced: tuple[str, ...] = ()  # of these, those that the file has: other classes, or `skip`
    unused: tuple[str, ...] = ()  # of `left_out`, those for which the model has no place
    widened: tuple[str, ...] = ()  # of `loaded`, those made of RGB's for other channels
    brought: dict[str, Any] = field(default_factory=dict)  # options that came with a backbone's

    def __str__(self) -> str:
        text = f"{len(self.loaded)} tensors loaded, {len(self.converted)} of them renamed"
        absent = [name for name in self.missing if name not in self.replaced]
        for what, names in (
            ("replaced by the model's own", self.replaced),
            ("not in the file, as the model had them", absent),
            ("of the file not used", self.unused),
            ("made of RGB's for the model's channels", self.widened),
        ):
            text += f"; {what}: {some(names)}" if names else ""
        if self.brought:
            text += f"; with the weights' {', '.join(self.brought)}"
        return text


def read(source: Source, num_classes: int | None = None, skip: Sequence[str] = ()) -> Checkpoint:
    """The checkpoint that `source` holds: a path, a URL, a hub id or a state dict.

    Args:
        num_classes: how many classes are wanted; a file of COCO's 91 slots can give 80 or 90.
        skip: prefixes of keys that may be left over.

    Raises EyelineError where the file is no checkpoint, holds code, or is of an unknown kind.
    """
    if isinstance(source, Checkpoint):
        return source
    if (path := _darknet(source)) is not None:
        return darknet.read(path)
    state, metadata, where = _open(source)
    if checkpoint := identify(state, metadata, where, num_classes, skip):
        return checkpoint
    raise unknown(state, where)


def load_weights(model: nn.Module, source: Source, skip: Sequence[str] = ()) -> LoadReport:
    """Fill `model` from `source`: a path, a URL, a hub id or a state dict.

    Args:
        model: a model of ours, or a part of one, such as a detector's backbone.
        skip: prefixes of names, the file's or the model's, that may be left over or missing.

    Raises EyelineError where the file is of another model, convention or class count, or where
    anything is left over or missing that `skip` does not name.
    """
    config = getattr(model, "config", None)
    if isinstance(source, Checkpoint):
        checkpoint: Checkpoint | None = source
    elif (path := _darknet(source)) is not None:
        checkpoint = darknet.read(path)
    else:
        state, metadata, where = _open(source)
        classes = getattr(config, "num_classes", None)
        checkpoint = identify(state, metadata, where, classes, skip)
        if checkpoint is None:  # a bare state dict of this very model's names?
            if not state.keys() <= model.state_dict().keys():
                raise unknown(state, where)
            name = getattr(model, "name", "")
            checkpoint = Checkpoint("state dict", name, where, {}, None, state)
    assert checkpoint is not None
    if config is not None:
        _check_same(model, checkpoint, skip)
    return fill(model, checkpoint, skip)


def _darknet(source: str | Path | Mapping[str, Tensor]) -> Path | None:
    """The local file of a source that is darknet's: nothing but numbers."""
    if isinstance(source, Mapping):
        return None
    path = fetch(source)
    return path if darknet.recognise(path) else None


def _open(source: str | Path | Mapping[str, Tensor]) -> tuple[State, dict[str, Any], str]:
    """The tensors, what the file says of itself, and what to call it in messages."""
    if isinstance(source, Mapping):
        where = "the state dict"
        return unwrap(source, where), {"meta": _meta(source)}, where
    path = fetch(source)
    whole = read_whole(path)
    return unwrap(whole, str(path)), {"meta": _meta(whole)} | read_metadata(path), str(path)


def _meta(whole: object) -> dict[str, Any]:
    """What a training script wrote beside the tensors."""
    told = whole.get("meta") if isinstance(whole, Mapping) else None
    return dict(told) if isinstance(told, Mapping) else {}


def _check_own(checkpoint: Checkpoint, source: str | None) -> None:
    """Weights of a model of the user's own go into no other, even of its name."""
    if checkpoint.own and source is None:
        raise EyelineError(
            f"{checkpoint.where} holds a {checkpoint.name} of a model file of your own; give its "
            'run folder, in which model.py lies, or create_model("FILE.py", weights=...)'
        )


def _check_same(model: nn.Module, checkpoint: Checkpoint, skip: Sequence[str]) -> None:
    """Whether the file's model, convention and class count are those of `model`."""
    _check_own(checkpoint, getattr(model, "source", None))
    if model.name not in (checkpoint.name, *checkpoint.also):
        raise EyelineError(
            f"{checkpoint.where} holds a {checkpoint.name}, the model is a {model.name}"
        )
    for key in MEANING:
        ours, theirs = getattr(model.config, key, None), checkpoint.options.get(key)
        if None not in (ours, theirs) and not same(key, ours, theirs):
            raise EyelineError(
                f"{checkpoint.where} has {key}={_short(theirs)}, the model {_short(ours)}; "
                "create_model(weights=...) builds the model that the file needs"
            )
    named = model.classes != [str(k) for k in range(len(model.classes))]
    if named and checkpoint.classes is not None and len(checkpoint.classes) == len(model.classes):
        for k, (mine, other) in enumerate(zip(model.classes, checkpoint.classes, strict=True)):
            if mine != other:
                raise EyelineError(
                    f"{checkpoint.where} calls class {k} {other!r}, the model {mine!r}; "
                    "create_model(classes=[...], weights=...) replaces what depends on the classes"
                )
    ours, theirs = model.config.num_classes, checkpoint.options.get("num_classes")
    dependent = getattr(model, "class_dependent", ())
    if theirs is not None and ours != theirs and not all(begins(d, skip) for d in dependent):
        raise EyelineError(
            f"{checkpoint.where} has {theirs} classes, the model {ours}; "
            "create_model(classes=[...], weights=...) replaces what depends on the classes"
        )


def build(
    entry: registry.Entry | None,
    weights: Source,
    classes: list[str] | None,
    num_classes: int | None,
    options: dict[str, Any],
) -> nn.Module:
    """`create_model` with weights: the model that they need, filled."""
    checkpoint = read(weights, num_classes)
    _check_own(checkpoint, entry.source if entry else None)
    if entry is None:
        backbones = (VGG, *DARKNETS, MOBILENET, *XCEPTIONS)
        if checkpoint.name in backbones or checkpoint.name.startswith(hrnet.BACKBONE):
            raise EyelineError(
                f"{checkpoint.where} holds a backbone, {checkpoint.name}: its weights go to "
                "create_model(NAME, pretrained=...)"
            )
        entry = registry.find(checkpoint.name)
    if entry.name not in (checkpoint.name, *checkpoint.also, *fcn.finer(checkpoint.name)):
        raise EyelineError(
            f"{checkpoint.where} holds a {checkpoint.name}, not a {entry.name}; "
            "a backbone's weights go to pretrained="
        )
    stated = dict(checkpoint.options)
    count = stated.pop("num_classes", None)
    if "size" in options:  # stands for these two
        stated = {k: v for k, v in stated.items() if k not in ("min_size", "max_size")}
    if num_classes is None:
        num_classes, classes = count, checkpoint.classes
    if num_classes is None:
        raise EyelineError(f"{checkpoint.where} does not tell its classes; give num_classes=")
    named = classes is not None and checkpoint.classes is not None
    renewed = num_classes != count or (named and classes != checkpoint.classes)
    if not renewed and classes is None:
        classes = checkpoint.classes
    model = entry.build(num_classes=num_classes, **{**stated, **options})
    registry.describe(model, entry, classes, num_classes)
    changed = {k: v for k, v in options.items() if k in stated and v != stated[k]}
    hint = "; given options differ from the file's: " if changed else ""
    hint += ", ".join(f"{k}={_short(v)} (file: {_short(stated[k])})" for k, v in changed.items())
    dependent = getattr(model, "class_dependent", ()) if renewed else ()
    dependent += getattr(model, "starts_from", {}).get(checkpoint.name, ())
    model.load_report = fill(model, checkpoint, dependent, hint)
    return model


def build_pretrained(
    entry: registry.Entry,
    source: Any,
    classes: list[str] | None,
    num_classes: int,
    options: dict[str, Any],
) -> nn.Module:
    """`create_model` with weights of a `Source` in its backbone: a classifier's, or those of
    another model's backbone (True: timm's). Its pictures become those that they were trained on."""
    model: Any = entry.build(num_classes=num_classes, **options)
    registry.describe(model, entry, classes, num_classes)
    if not hasattr(model, "backbone"):
        raise EyelineError(f"{model.name} has no backbone; load its weights with weights=")
    if hasattr(model.backbone, "load_pretrained"):  # timm's, whose weights have timm's names
        loaded = model.backbone.load_pretrained(None if source is True else _open(source)[0])
        model.load_report = LoadReport(tuple(loaded), {}, (), ())
        return model
    if source is True:
        raise EyelineError("pretrained=True is for backbones of timm; name a file or URL")
    if not isinstance(source, Checkpoint) and (path := _darknet(source)) is not None:
        checkpoint = darknet.read_start(path, model)
    else:
        checkpoint = read(source)
    config = getattr(model, "config", None)
    wanted = getattr(config, "backbone", checkpoint.name)
    checkpoint = backbone_of(checkpoint, wanted)
    if checkpoint.name != wanted:
        raise EyelineError(
            f"{checkpoint.where} holds a {checkpoint.name}, the model's backbone is a {wanted}"
        )
    if taken := brought(config, checkpoint, options):
        model = entry.build(num_classes=num_classes, **{**options, **taken})
        registry.describe(model, entry, classes, num_classes)
    # The first layers of a whole network may be more than its backbone.
    more = any(begins(name, ["backbone"]) for name in checkpoint.state)
    target = model if more else model.backbone
    own, theirs = target.state_dict().keys(), checkpoint.state.keys()
    if checkpoint.origin == "darknet":
        skip = [name for name in own if name not in theirs]
    else:  # one of the two ends earlier
        skip = [p for p in CONNECTED if f"{p}.weight" in own ^ theirs]
        behind = getattr(model.backbone, "absent", ())  # the last map that the model needs
        skip += [p for p in behind if any(begins(name, [p]) for name in theirs)]
    model.load_report = replace(fill(target, checkpoint, skip), brought=taken)
    return model


def fill(
    model: nn.Module, checkpoint: Checkpoint, skip: Sequence[str] = (), hint: str = ""
) -> LoadReport:
    """Copy the checkpoint's tensors into `model` by name and shape; `hint` ends an error."""
    own = model.state_dict()
    widened = []

    def file_name(name: str) -> str:
        return checkpoint.renamed.get(name, name)

    def skipped(name: str) -> bool:
        return begins(name, skip) or begins(file_name(name), skip)

    left_out = list(checkpoint.dropped)
    taken: dict[str, Tensor] = {}
    over, shapes, replaced = [], [], []
    unused = list(checkpoint.dropped)
    for name, tensor in checkpoint.state.items():
        if name in own and own[name].shape == (whole := checkpoint.whole.get(name, tensor)).shape:
            tensor = whole
        if skipped(name) or (name.endswith(COUNTER) and name not in own):
            left_out.append(file_name(name))
            replaced += [name] if name in own else []
            unused += [file_name(name)] if name not in own else []
        elif name not in own:
            over.append(file_name(name))
        elif (made := for_channels(tensor, own[name])) is not None:
            taken[name] = made
            widened.append(name)
        elif own[name].shape != tensor.shape:
            shapes.append(f"{name} is {_by(tensor)} in the file, {_by(own[name])} in the model")
        else:
            taken[name] = tensor
    missing = [name for name in own if name not in taken and not name.endswith(COUNTER)]
    lacking = [name for name in missing if not skipped(name)]
    everything = {*own, *checkpoint.state, *map(file_name, checkpoint.state), *checkpoint.dropped}
    for prefix in skip:
        if not any(begins(name, [prefix]) for name in everything):
            raise EyelineError(f"skip={prefix!r} begins no name in {checkpoint.where} or the model")
    if shapes:
        raise EyelineError(f"{checkpoint.where} does not fit the model: {some(shapes, 3)}{hint}")
    if over or lacking:
        what = f"has no place for {some(over)} of" if over else f"finds no {some(lacking)} in"
        raise EyelineError(
            f"the model {what} {checkpoint.where}; name what to leave out with skip=[...]{hint}"
        )
    model.load_state_dict(taken, strict=False)  # all checked above
    converted = {name: file_name(name) for name in taken if name in checkpoint.renamed}
    loaded = tuple(name for name in own if name in taken)
    return LoadReport(
        loaded, converted, tuple(sorted(left_out)), tuple(missing), tuple(replaced), tuple(unused),
        tuple(widened),
    )  # fmt: skip


def _short(value: Any) -> str:
    """A value in a message of one line: a network can have a hundred layers."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:100]} ... ({len(value)})"


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"

"""export_model(model, path): a model as a file that runs without eyeline."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.export.folding import folded
from eyeline.export.onnx import load_onnx, write_onnx
from eyeline.export.program import load_program, write_program
from eyeline.nn.detector import Detector, as_float
from eyeline.nn.fused import FusedLayer
from eyeline.nn.segmenter import is_segmenter
from eyeline.ops.resize import resize
from eyeline.structures import Prediction

Run = Callable[[Tensor], Mapping[str, Tensor]]


class Format(NamedTuple):
    suffix: str
    packages: tuple[str, ...]  # besides the core
    # Of a model, to a path, with facts, of a segmenter for one size
    write: Callable[[Any, Path, Mapping[str, str], tuple[int, int] | None], None]
    load: Callable[[Path], Run]


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), write_onnx, load_onnx),
    "torch": Format(".pt2", (), write_program, load_program),
}
# How far the file's detections may be from the model's.
PIXELS, SCORE, MASK = 0.01, 1e-4, 1e-3
LOGITS = 1e-3  # and a segmenter's logits from the model's, of the largest
SIZE = (512, 512)  # height and width for which a segmenter's file is written


@dataclass
class Comparison:
    """How far a file's detections are from the model's, at most; None without masks."""

    detections: int
    boxes: float  # pixels
    scores: float
    masks: float | None  # probabilities of the small masks

    def __str__(self) -> str:
        parts = [f"boxes within {self.boxes:.1g} px", f"scores within {self.scores:.1g}"]
        parts += [] if self.masks is None else [f"masks within {self.masks:.1g}"]
        return f"{self.detections} detections: {', '.join(parts)}"


@dataclass
class MapComparison:
    """How far the logits of a file are from the model's."""

    size: tuple[int, int]  # height and width of the pictures that the file takes
    logits: float  # the largest difference, as a share of the largest logit
    same: float  # share of the pixels that get the same class

    def __str__(self) -> str:
        height, width = self.size
        return (
            f"{height}x{width} pixels: logits within {self.logits:.1g} of the largest, "
            f"{self.same:.2%} of the classes the same"
        )


def export_model(
    model: nn.Module,
    path: str | Path,
    format: str = "onnx",
    picture: Tensor | None = None,
    force: bool = False,
    size: tuple[int, int] | None = None,
) -> Comparison | MapComparison:
    """Write a detector or a segmenter to a file that needs no eyeline, and compare it with the
    model.

    The file of a segmenter takes pictures (B, C, H, W) uint8 of one size, and gives their `logits`
    (B, K, H, W). That of a detector holds `eyeline.export.graph.Graph`: pictures (B, 3, H, W), of
    any size, in; `boxes`, `scores`, `labels`, `count` and, of models that have some, `masks` out.
    Names of the classes and what else one needs to know lie in its metadata. What the model's
    config says of thresholds and NMS is part of the graph.

    Args:
        model: on any device, in any mode; it is copied.
        format: "onnx", which needs `pip install 'eyeline[export]'`, or "torch", a program for
            `torch.export.load`.
        picture: (3, H, W) uint8, on which the file is compared with the model; one with objects
            tells most. Of a segmenter (C, H, W), also float in [0, 1], which is rounded to the 8
            bits that the file takes. Default: made of random blobs.
        force: overwrite a file.
        size: of a segmenter: height and width of the file's pictures; by default the `picture`'s,
            or 512 x 512.

    Raises:
        EyelineError: an unknown format, a missing package, a file that exists, a model that cannot
            be exported, or a file that does not find what the model finds; none is left then.
    """
    path = Path(path)
    check_format(format)
    check_model(model, format)
    if path.exists() and not force:
        raise EyelineError(f"{path} exists already; choose another name, or give --force")
    plain: Any = deepcopy(model).cpu().float().eval()
    maps = is_segmenter(plain)
    if maps:
        size = size or (SIZE if picture is None else (picture.shape[1], picture.shape[2]))
    elif size is not None:
        raise EyelineError("a detector's file takes pictures of any size; leave out size")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    try:
        FORMATS[format].write(folded(plain), draft, facts(plain, size), size)
        run = FORMATS[format].load(draft)
        compared: Comparison | MapComparison
        if size is not None:
            compared = compare_maps(run, plain, size, picture)
        else:
            compared = compare(run, plain, picture)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return compared


def check_format(format: str) -> None:
    """Raises EyelineError where there is no such format, or a package that it needs is missing."""
    if format not in FORMATS:
        raise EyelineError(f"no format is called {format!r}; there are: {', '.join(FORMATS)}")
    missing = [name for name in FORMATS[format].packages if find_spec(name) is None]
    if missing:
        raise EyelineError(
            f"format {format} needs {', '.join(missing)}; install: pip install 'eyeline[export]'"
        )


def check_model(model: Any, format: str) -> None:
    """Raises EyelineError where a model cannot become a graph of fixed shapes."""
    config = getattr(model, "config", None)
    if not hasattr(model, "compute") or not hasattr(model, "preprocess"):
        raise EyelineError(f"detectors and segmenters are exported, not {type(model).__name__}")
    if any(isinstance(module, FusedLayer) for module in model.modules()):
        raise EyelineError("a model is exported as it was trained; give it, not optimize(model)")
    if (kind := getattr(config, "nms", "hard")) != "hard":
        raise EyelineError(f'exported files have no operator for nms {kind!r}; use nms "hard"')
    if getattr(config, "pooling", "roi_align") == "roi_pool":
        raise EyelineError("exported files have no operator for pooling 'roi_pool'")
    if format == "torch" and getattr(config, "sampling_ratio", 1) < 1:
        raise EyelineError("sampling_ratio 0 has no fixed shapes; export to onnx")


def facts(model: Any, size: tuple[int, int] | None = None) -> dict[str, str]:
    """What users of the file need to know, each as JSON."""
    known = {
        "model": model.name,
        "classes": list(model.classes),
        "min_size": model.preprocess.min_size,
        "max_size": model.preprocess.max_size,
        "eyeline": version("eyeline"),
    }
    if size is not None:
        known["size"] = list(size)
    config = getattr(model, "config", None)
    for name in ("score_threshold", "mask_threshold", "mask_rounded"):
        if hasattr(config, name):
            known[name] = getattr(config, name)
    return {name: json.dumps(value) for name, value in known.items()}


@torch.inference_mode()
def compare(run: Run, model: Any, picture: Tensor | None = None) -> Comparison:
    """An exported file's detections beside those of the model itself.

    Raises:
        EyelineError: they are not the same, within 0.01 px, 1e-4 of the score, 1e-3 of a mask.
    """
    picture = blobs(model) if picture is None else picture
    batch = model.prepare([picture])
    padded = model.compute(batch)
    wanted = Detector.finish(model, padded, batch)[0]  # of any detector: masks stay small
    if padded.masks is not None:
        wanted["masks"] = padded.masks[0][padded.valid[0]]
    found = run(picture[None])
    count = int(found["count"][0])
    got = {name: found[name][0, :count] for name in wanted}
    hint = "not kept; see whether another picture tells the same"
    if count != len(wanted["boxes"]):
        told = f"the file finds {count} objects, the model {len(wanted['boxes'])}"
        raise EyelineError(f"{told}: {hint}")
    compared = differences(got, wanted)
    equal = compared.boxes <= PIXELS and compared.scores <= SCORE and (compared.masks or 0) <= MASK
    if not equal:  # NaN is not equal either
        raise EyelineError(f"the file differs from the model, {compared}: {hint}")
    return compared


@torch.inference_mode()
def compare_maps(
    run: Run, model: Any, size: tuple[int, int], picture: Tensor | None = None
) -> MapComparison:
    """An exported file's logits beside those of the model itself.

    Raises:
        EyelineError: they differ by more than 1e-3 of the largest, or give other classes to more
            than a thousandth of the pixels.
    """
    picture = coloured_blobs(size, len(model.preprocess.mean)) if picture is None else picture
    if picture.shape[1:] != size:
        picture = resize(as_float(picture), size)
    if picture.dtype != torch.uint8:  # all that the file takes
        picture = (picture * 255).round().to(torch.uint8)
    wanted = model(picture[None])
    found = run(picture[None])["logits"]
    if found.shape != wanted.shape:
        raise EyelineError(f"the file gives {tuple(found.shape)}, the model {tuple(wanted.shape)}")
    difference = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-9))
    same = float((found.argmax(1) == wanted.argmax(1)).float().mean())
    compared = MapComparison(size, difference, same)
    if not (difference <= LOGITS and same >= 1 - LOGITS):  # NaN is not equal either
        raise EyelineError(f"the file differs from the model: {compared}; not kept")
    return compared


def differences(ours: Prediction, theirs: Prediction) -> Comparison:
    """Each detection beside the nearest of its class, for equal scores may come in any order."""
    count = len(ours["boxes"])
    if not count:
        return Comparison(0, 0.0, 0.0, 0.0 if "masks" in ours else None)
    boxes = (ours["boxes"][:, None] - theirs["boxes"]).abs().amax(-1)  # (N, N)
    scores = (ours["scores"][:, None] - theirs["scores"]).abs()
    apart = boxes / PIXELS + scores / SCORE
    apart[ours["labels"][:, None] != theirs["labels"]] = math.inf
    cost, nearest = apart.min(1)
    if cost.isinf().any() or len(nearest.unique()) < count:
        return Comparison(count, math.inf, math.inf, math.inf if "masks" in ours else None)
    own = torch.arange(count)
    masks = None
    if "masks" in ours:
        masks = float((ours["masks"] - theirs["masks"][nearest]).abs().max())
    return Comparison(
        count, float(boxes[own, nearest].max()), float(scores[own, nearest].max()), masks
    )


def blobs(model: Any) -> Tensor:
    """A picture (C, H, W) uint8 of coloured blobs, a little smaller than the model's size."""
    p = model.preprocess
    return coloured_blobs((p.min_size * 3 // 4, p.min_size), len(p.mean))


def coloured_blobs(size: tuple[int, int], channels: int) -> Tensor:
    """A picture (C, H, W) uint8 of coloured blobs."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(1, channels, 6, 8, generator=generator)
    picture = F.interpolate(colours, size=size, mode="bicubic")[0].clamp(0, 1)
    return (picture * 255).to(torch.uint8)

"""Class activation maps: which cells of a feature map a score hangs on.

Grad-CAM    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
            Localization", ICCV 2017, arXiv:1610.02391.
Grad-CAM++  Chattopadhay et al., "Grad-CAM++: Improved Visual Explanations for Deep Convolutional
            Networks", WACV 2018, arXiv:1710.11063.
Eigen-CAM   Muhammad and Yeasin, "Eigen-CAM: Class Activation Map using Principal Components",
            IJCNN 2020, arXiv:2008.00299.
HiResCAM    Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of
            convolutional neural networks", arXiv:2011.08891.

Which     Grad-CAM's weights are means over the whole map, so that it lights up whatever looks like
          what spoke for a score, wherever it is: fit for a class. A box's or a pixel's score hangs
          on few cells, and HiResCAM, which weighs each cell by its own gradient, shows those.
          Eigen-CAM is about the picture alone: what the maps hold most of.
Letters   A feature map (C, h, w) with its cells a_kij, S score, g its gradient dS/dA.
Departs   Maps are scaled from their least value, 0, to their greatest, 1, as public code does; the
          papers leave that open. Where paper and public code disagree, `convention="paper"` is
          the paper and `convention="pytorch-grad-cam"` that package: it adds 1e-6 to Grad-CAM++'s
          denominator, which is of the size of g squared, so that gradients below 1e-3 are weighed
          otherwise; and it takes its mean from every channel before Eigen-CAM's decomposition,
          where the paper decomposes A as it is. (The authors' code of Grad-CAM++ also divides the
          alphas of a channel by their sum. The package does not, and nor do we.)
          A singular vector has no sign of its own: Eigen-CAM's map takes the one with which it
          is high where the cells' vectors are long, of which ReLU's own maps leave no choice.
          A detection's score is its log odds, log p / (1 - p): Grad-CAM asks for the score before
          softmax or sigmoid, and of a sigmoid that is it.

A model is asked for nothing but its notes: lists of maps whose names say "C2 to C5".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.detector import Detector, as_float
from eyeline.nn.fused import FusedLayer
from eyeline.note import watch
from eyeline.structures import Batch, Padded

Score = Callable[[Any], Tensor]  # a model's output for one picture -> a scalar


class Convention(NamedTuple):
    """Where implementations differ."""

    epsilon: float  # in Grad-CAM++'s denominator
    centred: bool  # Eigen-CAM's channels have their means taken away


CONVENTIONS = {"paper": Convention(0.0, False), "pytorch-grad-cam": Convention(1e-6, True)}


class Activation(NamedTuple):
    """A detection's map."""

    detection: int  # its place among the picture's detections
    method: str
    layer: str
    map: Tensor  # (h, w) uint8
    flat: bool = False  # the score's gradient is 0, as where a probability is 1 to the last digit


def class_activation(
    model: nn.Module,
    image: Tensor | Batch,
    score: Score | None = None,
    method: str = "grad-cam",
    layer: str | None = None,
    convention: str = "paper",
) -> Tensor:
    """Where a picture's features speak for a score: (h, w) float32 in 0 .. 1 on the CPU, a cell a
    value, over the picture as the network sees it, padding included; `eyeline.inspection.heat`
    lays it over the picture.

    The model's weights, mode, gradients and results stay as they are. Where nothing speaks for the
    score, or all cells alike, or it does not depend on the layer, the map is 0.

    Args:
        image: (C, H, W), uint8 or float in [0, 1], or a detector's `Batch` of one picture.
        score: what is to be explained, from the model's output: see `class_score`, `box_score`,
            `pixel_score`, `mask_score`. Eigen-CAM needs none.
        method: "grad-cam", "grad-cam++", "hires-cam" or "eigen-cam".
        layer: a stage of the backbone, "C2" .. "C5", or a level of a detector's pyramid, such as
            "P4"; the last stage by default.
        convention: "paper", or "pytorch-grad-cam" for that package's numbers.

    Raises EyelineError where a name is unknown, several pictures came, a score is missing or has
    no gradient, or the model notes no feature maps.
    """
    _check(method, METHODS, "method")
    _check(convention, CONVENTIONS, "convention")
    with _forward(model, image) as (output, maps):
        name = _layers([layer], maps)[0]
        gradients = None
        if method in BY_GRADIENT:
            if score is None:
                raise EyelineError(f"{method} needs score=, such as class_score(0) or box_score(0)")
            gradients = _gradients(model, score(output), [maps[name]])[0]
        return _map(maps[name], gradients, method, convention)


def activations(
    model: nn.Module,
    batch: Batch,
    detections: Sequence[int] | None = None,
    methods: Sequence[str] = ("grad-cam",),
    layers: Sequence[str | None] = (None,),
    convention: str = "paper",
) -> list[Activation]:
    """The maps of a detector's detections in one picture (all of them by default), by each method
    on each layer, in that order of nesting; one forward pass in all, one backward a detection.

    An `XRay` has what it takes: `activations(found.model, found.batch)`. Arguments and errors are
    those of `class_activation`; a picture without detections gives an empty list.
    """

    def scores(padded: Padded) -> dict[int, Score]:
        chosen = range(int(padded.valid[0].sum())) if detections is None else detections
        return {detection: box_score(detection) for detection in chosen}

    return _activations(model, batch, scores, methods, layers, convention)


def score_activations(
    model: nn.Module,
    batch: Batch,
    scores: Sequence[Score],
    methods: Sequence[str] = ("grad-cam",),
    layers: Sequence[str | None] = (None,),
    convention: str = "paper",
) -> list[Activation]:
    """`activations` of any scores of a detector's output; `detection` is the score's place."""
    numbered = dict(enumerate(scores))
    return _activations(model, batch, lambda _: numbered, methods, layers, convention)


def _activations(
    model: nn.Module,
    batch: Batch,
    scores: Callable[[Padded], dict[int, Score]],
    methods: Sequence[str],
    layers: Sequence[str | None],
    convention: str,
) -> list[Activation]:
    for method in methods:
        _check(method, METHODS, "method")
    _check(convention, CONVENTIONS, "convention")
    found = []
    with _forward(model, batch) as (padded, maps):
        names, chosen = _layers(layers, maps), scores(padded)
        without = {  # the same for every score
            (method, name): _map(maps[name], None, method, convention)
            for method in methods
            for name in names
            if method not in BY_GRADIENT and chosen
        }
        for key, score in chosen.items():
            gradients: list[Tensor] = []
            if len(without) < len(methods) * len(names):
                gradients = _gradients(model, score(padded), [maps[name] for name in names])
            for method in methods:
                for i, name in enumerate(names):
                    flat = False
                    if method in BY_GRADIENT:
                        cam = _map(maps[name], gradients[i], method, convention)
                        flat = not gradients[i].any()
                    else:
                        cam = without[method, name]
                    found.append(Activation(key, method, name, _bytes(cam), flat))
    return found


# ---- scores


def class_score(label: int, best: bool = False) -> Score:
    """Of a classifier the class's logit, of a segmenter its sum over the picture, of a detector
    that of its detections of the class: the sum of their log odds, or that of the best."""

    def score(output: Any) -> Tensor:
        if not isinstance(output, Padded):
            _check_index(label, output.shape[1], "class")
            logits: Tensor = output[0, label]
            return logits.sum()
        own = output.valid[0] & (output.labels[0] == label)
        if not own.any():
            raise EyelineError(f"nothing of class {label} was detected: there is no score of it")
        odds = _log_odds(output.scores[0][own])
        return odds.max() if best else odds.sum()

    return score


def box_score(detection: int) -> Score:
    """A detection's log odds; `detection` is its place in the detector's prediction."""
    return lambda padded: _log_odds(padded.scores[0, _row(padded, detection)])


def pixel_score(label: int, y: int, x: int) -> Score:
    """A segmenter's logit of a class at a pixel, of logits (1, K, H, W)."""

    def score(logits: Any) -> Tensor:
        for index, size, what in zip((label, y, x), logits.shape[1:], PLACE, strict=True):
            _check_index(index, size, what)
        logit: Tensor = logits[0, label, y, x]
        return logit

    return score


def mask_score(detection: int, y: int, x: int) -> Score:
    """The log odds of one of the m x m pixels that a detection's mask has over its box."""

    def score(padded: Any) -> Tensor:
        if padded.masks is None:
            raise EyelineError("this detector gives no masks")
        mask = padded.masks[0, _row(padded, detection)]
        for index, size, what in zip((y, x), mask.shape, PLACE[1:], strict=True):
            _check_index(index, size, what)
        return _log_odds(mask[y, x])

    return score


PLACE = ("class", "row", "column")


def _row(padded: Padded, detection: int) -> int:
    rows = padded.valid[0].nonzero()[:, 0]
    _check_index(detection, len(rows), "detection")
    return int(rows[detection])


def _log_odds(probability: Tensor) -> Tensor:
    """Finite at 0 and 1 too, but there without a gradient, as the probability itself."""
    return torch.logit(probability.float(), eps=1e-7)


# ---- methods: A (C, h, w) and its gradient to a map (h, w), neither cut off at 0 nor scaled


def grad_cam(features: Tensor, gradients: Tensor, convention: Convention) -> Tensor:
    weights = gradients.mean((1, 2))  # (C,), eq. 1
    return torch.einsum("k,kij->ij", weights, features)  # eq. 2


def grad_cam_plus_plus(features: Tensor, gradients: Tensor, convention: Convention) -> Tensor:
    """Of Y = exp(S): behind A all is linear or ReLU, so its n-th derivative is g^n times Y."""
    total = features.sum((1, 2), keepdim=True)  # (C, 1, 1)
    # alpha, eq. 19: g^2 / (2 g^2 + total g^3 + epsilon), both sides divided by g^2.
    denominator = 2 + total * gradients
    if convention.epsilon > 0:
        denominator += convention.epsilon / gradients.square()
    alpha = torch.where(denominator != 0, 1 / denominator, 0)
    weights = (alpha * gradients.relu()).sum((1, 2))  # (C,), eq. 7
    return torch.einsum("k,kij->ij", weights, features)


def hires_cam(features: Tensor, gradients: Tensor, convention: Convention) -> Tensor:
    return (gradients * features).sum(0)


def eigen_cam(features: Tensor, gradients: None, convention: Convention) -> Tensor:
    cells = features.flatten(1).T  # (h w, C)
    if convention.centred:
        cells = cells - cells.mean(0)
    # The first right singular vector v, or, where cells are fewer than channels, the left one u,
    # by the smaller of the two square matrices; the projection on v is u times a number.
    projection: Tensor
    if len(cells) < cells.shape[1]:
        projection = torch.linalg.eigh(cells @ cells.T)[1][:, -1]
    else:
        projection = cells @ torch.linalg.eigh(cells.T @ cells)[1][:, -1]
    length = features.flatten(1).norm(dim=0)  # (h w,)
    if projection @ length < 0:
        projection = -projection
    return projection.view(features.shape[1:])


METHODS: dict[str, Callable[..., Tensor]] = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "hires-cam": hires_cam,
    "eigen-cam": eigen_cam,
}
BY_GRADIENT = ("grad-cam", "grad-cam++", "hires-cam")


def _map(features: Tensor, gradients: Tensor | None, method: str, convention: str) -> Tensor:
    """Of maps (1, C, h, w), in float32: (h, w) in 0 .. 1."""
    features = features.detach()[0].float()
    if gradients is not None:
        gradients = gradients[0].float()
    cam = METHODS[method](features, gradients, CONVENTIONS[convention]).relu().cpu()
    cam = cam - cam.min()
    return cam / cam.max() if cam.max() > 0 else cam


def _bytes(cam: Tensor) -> Tensor:
    return (cam * 255).round().to(torch.uint8)


# ---- the forward pass


NAMES = re.compile(r"\b([A-Z])(\d+) to \1(\d+)\b")


@contextmanager
def _forward(model: nn.Module, image: Tensor | Batch) -> Iterator[tuple[Any, dict[str, Tensor]]]:
    """A model's output and the maps that it notes, by name, with their graph, in `eval()`.

    The picture asks for gradients, lest a frozen stem leave its maps without.
    """
    modes = {module: module.training for module in model.modules()}
    maps: dict[str, Tensor] = {}

    def collect(name: str, value: Any) -> None:
        span = NAMES.search(name)
        if span is not None and isinstance(value, (list, tuple)):
            numbers = range(int(span[2]), int(span[3]) + 1)
            maps.update(zip([f"{span[1]}{n}" for n in numbers], value, strict=True))

    model.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            given = _prepared(model, image)
            with watch(collect):
                output = model(given) if isinstance(given, Tensor) else model.compute(given)  # type: ignore[operator]
            yield output, maps
    finally:
        for module, training in modes.items():
            module.training = training


def _prepared(model: nn.Module, image: Tensor | Batch) -> Tensor | Batch:
    """What the network takes, one picture, of which gradients can be had."""
    if isinstance(model, Detector):
        given = image if isinstance(image, Batch) else list(image.view(-1, *image.shape[-3:]))
        batch = model.prepare(given).to(model.device)
        _check_one(len(batch))
        images = batch.images.clone().requires_grad_()
        return replace(batch, images=images, sizes=batch.sizes.clone(), targets=None)
    if isinstance(image, Batch):
        raise EyelineError(f"{type(model).__name__} is no detector; give it a picture, no Batch")
    weight = next(model.parameters())
    images = image if image.ndim == 4 else image[None]
    _check_one(len(images))
    images = as_float(images).to(weight.device, weight.dtype, copy=True)
    return images.detach().requires_grad_()


def _gradients(model: nn.Module, score: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """Of a score for each of the maps; 0 where it does not depend on one."""
    if any(isinstance(module, FusedLayer) for module in model.modules()):
        raise EyelineError("an optimised model has no gradients; give the one it was made of")
    if not score.requires_grad:
        raise EyelineError("the score has no gradient: it must be computed from the model's output")
    return list(
        torch.autograd.grad(
            score, maps, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    )


def _layers(names: Sequence[str | None], maps: dict[str, Tensor]) -> list[str]:
    """The names, checked; None stands for the last stage of what is noted first, the backbone."""
    if not maps:
        raise EyelineError('the model notes no feature maps: none of its notes says "C2 to C5"')
    letter = next(iter(maps))[0]
    last = [name for name in maps if name.startswith(letter)][-1]
    chosen = [last if name is None else name for name in names]
    for name in chosen:
        _check(name, maps, "layer")
    return chosen


def _check(name: str, known: Sequence[str] | dict[str, Any], what: str) -> None:
    if name not in known:
        raise EyelineError(f"no {what} is called {name!r}; there are: {', '.join(known)}")


def _check_one(pictures: int) -> None:
    if pictures != 1:
        raise EyelineError(f"a map is of one picture, and {pictures} were given")


def _check_index(index: int, size: int, what: str) -> None:
    if not 0 <= index < size:
        known = f"they are 0 .. {size - 1}" if size else "there is none"
        raise EyelineError(f"there is no {what} {index}; {known}")

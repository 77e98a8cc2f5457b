"""What every segmenter does before and after its network.

Letters   B pictures, K classes, H and W of the padded batch, h and w of a map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.losses.segmentation import SEGMENTATION_LOSSES, WEIGHTED, segmentation_loss
from eyeline.nn.detector import Prepared, Preprocess
from eyeline.nn.lone import NOTHING_LEARNT, ONE_VALUE
from eyeline.nn.resizing import resized
from eyeline.note import note
from eyeline.ops.labels import IGNORE, check_labels
from eyeline.ops.resize import resize_map
from eyeline.structures import Batch, Target

# Of a network: logits (B, K, h, w), or these and by name those of auxiliary heads, or what computes
# them, which the losses alone call.
Maps = Tensor | tuple[Tensor, Mapping[str, Tensor | Callable[[], Tensor]]]


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig:
    """What all of them can be told; a paper's Config has its numbers besides."""

    num_classes: int
    convention: str = "paper"
    norm: str = "batch"  # "frozen", "group"
    norm_epsilon: float = 1e-5
    in_channels: int = 3
    # Pictures: resized so that the shorter side is `min_size`, unless the longer would exceed
    # `max_size`, and the logits back again; 0: as they come
    min_size: int = 0
    max_size: int = 0
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    # Losses, of eyeline.losses.segmentation, with a weight each (none: 1). Of auxiliary heads the
    # first of them counts, with its weight times the head's
    losses: tuple[str, ...] = ("cross_entropy",)
    loss_weights: tuple[float, ...] = ()
    class_weights: tuple[float, ...] = ()  # none: 1
    label_smoothing: float = 0.0  # of cross_entropy
    ohem_threshold: float = 0.7
    ohem_share: float = 1 / 16
    focal_gamma: float = 2.0
    tversky_alpha: float = 0.3
    tversky_beta: float = 0.7


# What fields of the Config are called in the functions of the losses.
LOSS_OPTIONS = {
    "cross_entropy": {"smoothing": "label_smoothing"},
    "ohem": {"threshold": "ohem_threshold", "share": "ohem_share"},
    "focal": {"gamma": "focal_gamma"},
    "tversky": {"alpha": "tversky_alpha", "beta": "tversky_beta"},
}
SHARES = {"label_smoothing": "below 1", "ohem_threshold": "at most 1", "ohem_share": "at most 1"}


class SegmenterPreprocess(Preprocess):
    """Resize pictures, if so wanted, normalise them and pad them to one size: to a `Batch` whose
    targets each have `map`, (H_i, W_i) int64, of the resized pictures."""

    def __init__(
        self,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        min_size: int = 0,
        max_size: int = 0,
    ) -> None:
        super().__init__(num_classes, min_size, max_size, mean, std, divisor=1)

    def __call__(
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[Any] | None = None
    ) -> Batch:
        """Pictures (C, H, W), uint8 or float in [0, 1], and as many targets: (H, W), or {"map":
        (H, W)}, 0 .. K-1 or 255, to be ignored.

        Raises EyelineError where a picture has another shape, dtype or range, or a target cannot
        be meant.
        """
        if targets is not None:
            targets = [t if isinstance(t, dict) else {"map": t} for t in targets]
        return super().__call__(list(images), targets)

    def fitted(self, size: tuple[int, int], wanted: int | None = None) -> tuple[int, int]:
        if self.min_size:
            return super().fitted(size, wanted)
        if wanted is not None:
            raise EyelineError("data.sizes needs a model that resizes: set model.size")
        return size

    def told(self) -> str:
        return super().told() if self.min_size else "as large as it is"

    def scaled(
        self, target: Target, size: tuple[int, int], new: tuple[int, int], where: str
    ) -> Target:
        """A checked target in the resized picture's pixels."""
        if "map" not in target:
            raise EyelineError(f"{where}: the target has no map of classes, and the model needs it")
        classes = target["map"]
        if classes.shape != size or classes.is_floating_point():
            raise EyelineError(
                f"{where}: its map {tuple(classes.shape)}, {classes.dtype}, must be int64 and of "
                f"the picture's size, {size}"
            )
        check_labels(classes, self.num_classes, where)
        scaled = {"map": resize_map(classes, new).long()}
        return scaled | {k: target[k] for k in ("image_id",) if k in target}


class Segmenter(Prepared):
    """The part of a segmenter that no paper is about: from the caller's pictures and back.

    A paper's class calls `set_up` first and has `maps`: normalised pictures (B, C, H, W) to logits
    (B, K, h, w) at its own stride, or these and those of auxiliary heads by name, which count in
    the loss only; best as `partial(head, features)`, which predictions do not call.
    """

    config: Any
    task = "segmentation"
    network = "maps"
    align_corners = False  # logits are resized with corner pixels on corner pixels
    auxiliary_weights: dict[str, float]  # of the auxiliary heads' losses

    def set_up(self, config: SegmenterConfig) -> None:
        """Call it in the place of `super().__init__()`."""
        nn.Module.__init__(self)
        self.config = c = config
        if (c.min_size > 0) != (c.max_size > 0) or not 0 <= c.min_size <= c.max_size:
            raise EyelineError(
                f"min_size={c.min_size} and max_size={c.max_size}: both are 0, or the first is at "
                "most the second"
            )
        self.preprocess = SegmenterPreprocess(
            c.num_classes, c.image_mean, c.image_std, c.min_size, c.max_size
        )
        self.auxiliary_weights = {}
        if not 1 <= c.num_classes <= IGNORE:
            raise EyelineError(
                f"num_classes must be from 1 to {IGNORE}, not {c.num_classes}: in a map {IGNORE} "
                "is what is ignored"
            )
        check_losses(c)

    def maps(self, images: Tensor) -> Maps:
        raise NotImplementedError

    def forward(self, images: Any, targets: Any = None) -> Any:
        """Losses where targets are given, else logits, in train() and eval() alike.

        Args:
            images: (B, C, H, W), uint8 or float in [0, 1], or a list of (C, H, W) of any sizes, or
                a `Batch`.
            targets: (B, H, W), or a list of (H, W): classes 0 .. K-1, and 255, which is ignored.

        Returns:
            losses: by name, each a scalar; those of auxiliary heads under their own.
            logits: (B, K, H, W), float32; of pictures of several sizes a list of (K, H_i, W_i).
        """
        batch = self.prepare(images, targets).to(self.device)
        try:
            if batch.targets is None:
                return self.finish(self.compute(batch), batch)
            return self.losses(batch, batch.targets)
        except ValueError as error:
            if not str(error).startswith(ONE_VALUE):
                raise
            raise EyelineError(
                f"{NOTHING_LEARNT}; give larger pictures, several, or norm=group"
            ) from error

    def compute(self, batch: Batch) -> Tensor:
        """A prepared batch to logits (B, K, H, W), float32."""
        said = self.maps(batch.images.to(self.dtype))
        logits = said if isinstance(said, Tensor) else said[0]
        return note("logits", self.resized(logits, batch.images.shape[2:]))

    def resized(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Logits (B, K, h, w) at another size, bilinear, float32."""
        return resized(logits.float(), size, self.align_corners)

    def finish(self, logits: Tensor, batch: Batch) -> Tensor | list[Tensor]:
        """Each picture's logits without the padding, in its own size; one tensor where all have
        one size."""
        sizes, originals = batch.sizes.tolist(), batch.original_sizes.tolist()
        canvas = list(batch.images.shape[2:])
        if all(sizes[i] == canvas and originals[i] == originals[0] for i in range(len(sizes))):
            return self.resized(logits, originals[0])
        return [
            self.resized(batch.inside(i, each)[None], originals[i])[0]
            for i, each in enumerate(logits)
        ]

    def losses(self, batch: Batch, targets: list[Target]) -> dict[str, Tensor]:
        """The Config's losses of the logits, and the first of them, with its weight, for each
        auxiliary head."""
        c, size = self.config, batch.images.shape[2:]
        truth = torch.stack([
            F.pad(t["map"], (0, size[1] - t["map"].shape[1], 0, size[0] - t["map"].shape[0]),
                  value=IGNORE) for t in targets
        ])  # fmt: skip
        said = self.maps(batch.images.to(self.dtype))
        logits, others = (said, {}) if isinstance(said, Tensor) else said
        logits = note("logits", self.resized(logits, size))
        factors = c.loss_weights or (1.0,) * len(c.losses)
        found = {
            name: factor * self.loss(name, logits, truth)
            for name, factor in zip(c.losses, factors, strict=True)
        }
        for name, other in others.items():
            weight = factors[0] * self.auxiliary_weights[name]
            other = other if isinstance(other, Tensor) else other()
            found[name] = weight * self.loss(c.losses[0], self.resized(other, size), truth)
        return found

    def loss(self, name: str, logits: Tensor, truth: Tensor) -> Tensor:
        """One of `eyeline.losses.segmentation`, of logits at the pictures' size."""
        c = self.config
        if c.num_classes == 1:  # of a single logit the losses ask whether its class, 0, is there
            truth = truth.where(truth == IGNORE, 1)
        options = {key: getattr(c, field) for key, field in LOSS_OPTIONS.get(name, {}).items()}
        return segmentation_loss(name, logits, truth, c.class_weights or None, **options)


def check_losses(c: SegmenterConfig) -> None:
    """Raises EyelineError where losses or weights of a Config cannot be meant."""
    if len(c.class_weights) not in (0, c.num_classes):
        raise EyelineError(
            f"class_weights has {len(c.class_weights)} numbers for {c.num_classes} classes"
        )
    if not c.losses or len(c.loss_weights) not in (0, len(c.losses)):
        raise EyelineError("losses names one loss at least, loss_weights has a number for each")
    if unknown := [name for name in c.losses if name not in SEGMENTATION_LOSSES]:
        raise EyelineError(
            f"no loss of segmentation is called {unknown[0]!r}; there are: "
            f"{', '.join(SEGMENTATION_LOSSES)}"
        )
    if len(set(c.losses)) < len(c.losses):
        raise EyelineError(f"losses names one twice: {', '.join(c.losses)}")
    for key, weights in (("class_weights", c.class_weights), ("loss_weights", c.loss_weights)):
        if weights and not (all(0 <= w < math.inf for w in weights) and any(weights)):
            raise EyelineError(f"{key} must be 0 or more, and not all 0, not {weights}")
    for name, options in LOSS_OPTIONS.items():
        for field in options.values():
            value = getattr(c, field)
            if name not in c.losses and value != getattr(SegmenterConfig, field):
                raise EyelineError(
                    f"{field} has no effect: it is of {name}, and losses are {', '.join(c.losses)}"
                )
            share = SHARES.get(field)
            most = math.inf if share is None else 1
            if not (0 <= value < most or (value == 1 and share == "at most 1")):
                also = f" and {share}" if share else ""
                raise EyelineError(f"{field} must be 0 or more{also}, not {value:g}")
    if c.class_weights and (c.num_classes == 1 or not set(c.losses) & set(WEIGHTED)):
        raise EyelineError(
            "class_weights have no effect: they weigh several classes, in "
            f"{', '.join(WEIGHTED)}; leave them out"
        )


def check_several(classes: Sequence[str]) -> None:
    """Raises EyelineError where there is but one class: every pixel that counts would be of it, so
    that there is nothing to tell apart, to learn or to measure."""
    if len(classes) == 1:
        raise EyelineError(
            f"{classes[0]!r} is the only class, and every labelled pixel is of it; a segmenter "
            "tells two apart at least: give data.background=NAME for what is not in an outline, or "
            "masks with a class for it"
        )


def is_segmenter(model: Any) -> bool:
    return getattr(model, "task", None) == "segmentation"

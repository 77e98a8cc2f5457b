"""What every detector does before and after its network: `prepare` and `finish`.

Letters   B pictures, G objects of a picture, H and W of the padded batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.losses.iou import IOU_LOSSES
from eyeline.nn.cells import KINDS as OFFSETS
from eyeline.nn.layers import OPTIONAL_NORMS
from eyeline.ops.boxes import check_boxes
from eyeline.ops.claims import KINDS as CLAIMS
from eyeline.ops.masks import resize_masks
from eyeline.ops.pixels import check_pixels
from eyeline.ops.resize import fitted_size, resize
from eyeline.ops.suppression import KINDS, Suppression
from eyeline.structures import Batch, Padded, Prediction, Target

C = TypeVar("C")

# What an option with a name for a value may be, wherever a Config has it.
CHOICES = {
    "norm": OPTIONAL_NORMS,
    "fpn_norm": OPTIONAL_NORMS,
    "head_norm": OPTIONAL_NORMS,
    "extra_norm": OPTIONAL_NORMS,
    "mask_norm": OPTIONAL_NORMS,
    "box_loss": ("smooth_l1", *IOU_LOSSES),
    "objectness": ("softmax", "sigmoid"),
    "pooling": ("roi_align", "roi_pool"),
    "mask_resize": ("nearest-exact", "nearest"),
    "fpn_extra_from": ("backbone", "level"),
    "nms": KINDS,
    "offsets": OFFSETS,
    "offset_loss": ("squared", "logistic"),
    "ignore_by": ("prior", "box"),
    "passthrough": ("adjacent", "darknet", "none"),
    "head": ("connected", "local", "convolutional"),
    "claims": CLAIMS,
    "discarded": ("all", "negatives", "positives"),
    "method": ("cascade", "iterative_bbox", "integral"),
    "scored_at": ("last", "own"),
    "averaged": ("scores", "logits"),
    "chosen_by": ("score", "class"),
    "padding": ("valid", "same"),
    "decoder_norm": OPTIONAL_NORMS,
    "decoder_upsampling": ("learned", "nearest"),
    "branch_norm": OPTIONAL_NORMS,
    "merge": ("add", "cat"),
    "mode": ("fast", "accurate"),
    "stem_joined": ("pooled", "whole"),
}
# Within which bounds an option has to lie, or each of several numbers, wherever a Config has it.
SHARE, COUNT = (0.0, 1.0), (1, math.inf)
BOUNDS: dict[str, tuple[float, float]] = {
    "nms_iou": SHARE,
    "nms_sigma": (1e-6, 1e6),
    "nms_floor": SHARE,
    "vote_iou": SHARE,
    **dict.fromkeys(("dropout", "drop", "norm_epsilon", "norm_momentum"), SHARE),
    **dict.fromkeys(
        ("in_channels", "width", "depth", "decoder_widths", "fpn_channels", "branch_width",
         "final_width", "low_width", "first_width", "modules", "blocks", "first_blocks",
         "reduction", "bins", "rates", "multi_grid"), COUNT,
    ),
}  # fmt: skip
ODD = ("kernel", "score_kernel")  # of convolutions that keep their map's size
STRIP = 64  # rows of a picture


class Preprocess:
    """Resize to fit, normalise, pad: a list of pictures to a `Batch`.

    Plain numbers only, so that it can be sent to a loader's workers.

    Args:
        min_size, max_size: see `eyeline.ops.resize.fitted_size`.
        mean, std: of the input channels, for pictures in [0, 1].
        divisor: heights and widths are padded to multiples of it.
        masks: how the targets' masks are resized, which the model needs: "nearest-exact" takes the
            pixel under each new one's centre, "nearest" (torchvision's) the one under its corner.
            None: they are left out.
        stretch: every picture becomes `min_size` x `min_size`, whatever its aspect.
    """

    centred = False  # or: in the middle of a grey square, corner pixels on corner pixels

    def __init__(
        self,
        num_classes: int,
        min_size: int,
        max_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        divisor: int = 32,
        masks: str | None = None,
        stretch: bool = False,
    ) -> None:
        self.num_classes = num_classes
        self.min_size, self.max_size = min_size, max_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.divisor, self.masks, self.stretch = divisor, masks, stretch

    def __call__(self, images: Sequence[Tensor], targets: Sequence[Target] | None = None) -> Batch:
        """Pictures (C, H, W), uint8 or float in [0, 1], and their targets, to a `Batch`.

        A picture whose target says that it is `resized` keeps its size; one whose target has a
        `size` gets that for `min_size`, and `max_size` in proportion.

        Raises EyelineError where a picture has another shape, dtype or range, or a target cannot
        be meant.
        """
        if targets is not None and len(targets) != len(images):
            raise EyelineError(f"{len(images)} pictures came with {len(targets)} targets")
        if not images:
            raise EyelineError("no picture was given")
        originals, fitted = [], []
        for i, image in enumerate(images):
            if image.ndim != 3 or image.shape[0] != len(self.mean) or not image.numel():
                expected = f"({len(self.mean)}, H, W), as the model's in_channels say"
                raise EyelineError(f"picture {i} has shape {tuple(image.shape)}, not {expected}")
            check_pixels(image, f"picture {i} has")
            size = (image.shape[1], image.shape[2])
            originals.append(size)
            told = targets[i] if targets is not None else {}
            wanted = int(told["size"]) if "size" in told else None
            fitted.append(size if told.get("resized", False) else self.fitted(size, wanted))
        if targets is not None:
            targets = [
                self.scaled(target, originals[i], fitted[i], f"picture {i}")
                for i, target in enumerate(targets)
            ]
        device = images[0].device
        pixels, sizes = self.pixels(images, fitted), torch.tensor(fitted, device=device)
        return Batch(
            pixels,
            sizes,
            torch.tensor(originals, device=device),
            targets,
            self.offsets(sizes, pixels.shape[2:]),
        )

    def offsets(self, sizes: Tensor, canvas: Sequence[int]) -> Tensor | None:
        """Row and column (B, 2) at which pictures of `sizes` (B, 2) begin in the padded batch,
        which is (height, width); None: all at the upper left corner."""
        return None

    def fitted(self, size: tuple[int, int], wanted: int | None = None) -> tuple[int, int]:
        """The height and width that a picture of that height and width is resized to; `wanted`:
        another `min_size`, and `max_size` in proportion."""
        low, high = self.min_size, self.max_size
        if wanted is not None:
            low, high = wanted, round(high * wanted / low)
        return (low, low) if self.stretch else fitted_size(size, low, high)

    def told(self) -> str:
        """What becomes of a picture's size, in words."""
        if self.stretch:
            return f"{self.min_size} x {self.min_size}, whatever the aspect"
        return f"shorter side {self.min_size}, longer at most {self.max_size}"

    def pixels(self, images: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Resized to `sizes` and normalised: one (B, C, H, W) tensor, channels last, with zeros
        right of and below each picture."""
        d, device, channels = self.divisor, images[0].device, len(self.mean)
        height, width = (-(-max(sides) // d) * d for sides in zip(*sizes, strict=True))
        batch = torch.empty(len(images), height, width, channels, device=device)
        mean, std = (torch.tensor(values, device=device) for values in (self.mean, self.std))
        for slot, image, (h, w) in zip(batch, images, sizes, strict=True):
            slot[h:], slot[:h, w:] = 0, 0
            same = (image.shape[1], image.shape[2]) == (h, w)
            pixels = (image if same else resize(as_float(image), (h, w))).permute(1, 2, 0)
            # Row by row, as it lies in memory: torch is slow over a last axis of three.
            rows = slot.flatten(1)[:h, : w * channels]
            shift, factor = mean.repeat(w), (1 / std).repeat(w)
            # On a CPU a strip at a time, which stays in the cache from step to step.
            count = STRIP if device.type == "cpu" else h
            for strip, values in zip(rows.split(count), pixels.split(count), strict=True):
                strip.copy_(values.flatten(1))
                if values.dtype == torch.uint8:
                    strip.div_(255)
                strip.sub_(shift).mul_(factor)
        return batch.permute(0, 3, 1, 2)

    def scaled(
        self, target: Target, size: tuple[int, int], new: tuple[int, int], where: str
    ) -> Target:
        """A checked target in the resized picture's pixels."""
        boxes, labels = target["boxes"].float(), target["labels"]
        if boxes.ndim != 2 or boxes.shape[1] != 4 or len(labels) != len(boxes):
            raise EyelineError(
                f"{where}: boxes {tuple(boxes.shape)} and labels {tuple(labels.shape)} "
                "must be (G, 4) and (G,)"
            )
        check_boxes(boxes, f"{where}: boxes")
        wrong = (labels < 0) | (labels >= self.num_classes)
        if wrong.any():
            label = int(labels[wrong][0])
            raise EyelineError(f"{where}: label {label} is not in 0 .. {self.num_classes - 1}")
        factor = boxes.new_tensor([new[1] / size[1], new[0] / size[0]]).repeat(2)
        crowd = target.get("iscrowd", torch.zeros_like(labels))
        out = {"boxes": boxes * factor, "labels": labels, "iscrowd": crowd.bool()}
        if self.masks is not None:
            out["masks"] = self.scaled_masks(target, size, new, where)
        return out | {key: target[key] for key in ("image_id", "seed") if key in target}

    def scaled_masks(
        self, target: Target, size: tuple[int, int], new: tuple[int, int], where: str
    ) -> Tensor:
        """Checked masks (G, H, W) in the resized picture's pixels, bool: a byte a pixel."""
        masks, expected = target.get("masks"), (len(target["boxes"]), *size)
        if masks is None:
            raise EyelineError(
                f"{where}: the target has no masks, and this model learns from them; "
                "open the data with masks=True"
            )
        if masks.shape != expected or masks.is_floating_point():
            raise EyelineError(
                f"{where}: masks {tuple(masks.shape)}, {masks.dtype}, must be one bool mask of the "
                f"picture's size for each box, {expected}"
            )
        return resize_masks(masks.bool(), new, str(self.masks))


def as_float(image: Tensor) -> Tensor:
    """A picture as float32 in [0, 1]."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image.float()


class Prepared(nn.Module):
    """A model whose class sets `preprocess`, by which the caller's pictures become a `Batch`."""

    preprocess: Preprocess
    classes: list[str]
    name: str
    # Parameters with these prefixes are of another shape where the classes are others.
    class_dependent: tuple[str, ...] = ()
    # The method from prepared pictures to maps, whose shapes follow from the pictures' alone.
    network: str

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the network takes pictures in."""
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    @property
    def channels(self) -> int:
        """How many a picture has."""
        return len(self.preprocess.mean)

    def prepare(
        self, images: Sequence[Tensor] | Batch, targets: Sequence[Any] | None = None
    ) -> Batch:
        """Resize, normalise and pad; see `Preprocess`. A `Batch` passes as it is."""
        if isinstance(images, Batch):
            if targets is not None:
                raise EyelineError("a Batch carries its targets; give prepare the pictures' own")
            return images
        return self.preprocess(images, targets)


class Detector(Prepared):
    """The part of a detector that no paper is about: from the caller's pictures and back.

    A paper's class sets `preprocess`, and has `compute` (fixed shapes) and `losses`.
    """

    # Its losses take the targets' masks, and its predictions have some.
    needs_masks = False

    def finish(self, padded: Padded, batch: Batch) -> list[Prediction]:
        """Detections back in the pixels of the caller's pictures, without the empty slots."""
        scale = (batch.original_sizes / batch.sizes).flip(1).repeat(1, 2)  # (B, 4)
        boxes = padded.boxes * scale[:, None]
        return [
            {
                "boxes": boxes[i][valid],
                "scores": padded.scores[i][valid],
                "labels": padded.labels[i][valid],
            }
            for i, valid in enumerate(padded.valid)
        ]


def prepare_of(model: nn.Module) -> Callable[..., Batch] | None:
    """What prepares a model's pictures in a loader's workers; None where it has no `prepare`.

    Of ours it is `preprocess` alone: the model, which each worker would get, is large, and cannot
    always be pickled. A class with a `prepare` of its own gets that called.
    """
    if isinstance(model, Prepared) and type(model).prepare is Prepared.prepare:
        return model.preprocess
    return getattr(model, "prepare", None)


def make_config(
    config: type[C], conventions: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]
) -> C:
    """A paper's Config from options, on top of what the named convention sets.

    Options besides the fields: `size`, which sets `min_size` and, in COCO's proportion of
    1333 to 800, `max_size`.
    """
    options = dict(options)
    if (size := options.pop("size", None)) is not None:
        options.setdefault("min_size", size)
        options.setdefault("max_size", round(size * 1333 / 800))
    convention = options.get("convention", "paper")
    if convention not in conventions:
        known = ", ".join(conventions)
        raise EyelineError(f"convention must be one of {known}, not {convention!r}")
    fields = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    for key in options:
        if key not in fields:
            near = get_close_matches(key, [*fields, "size"], n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(fields)}"
            raise EyelineError(f"unknown model option {key!r}; {hint}")
    merged = {**conventions[convention], **options}
    merged = {k: _tupled(v) for k, v in merged.items()}
    check_values(config, merged)
    made: Any = config(**merged)
    channels = getattr(made, "in_channels", 0)
    if channels and not channels == len(made.image_mean) == len(made.image_std):
        raise EyelineError(
            f"in_channels={channels} needs as many numbers in image_mean= and image_std="
        )
    return made  # type: ignore[no-any-return]


def check_values(config: type[Any], options: Mapping[str, Any]) -> None:
    """Raises EyelineError where a value is not what the field of a Config may hold."""
    for key, known in CHOICES.items():
        if key in options and options[key] not in known:
            raise EyelineError(f"{key} must be one of {', '.join(known)}, not {options[key]!r}")
    hints = get_type_hints(config)
    for key, value in options.items():
        if not _fits(value, hints[key]):
            what = str(hints[key]).removeprefix("<class '").removesuffix("'>")
            raise EyelineError(f"{key} must be {what}, not {value!r}")
        _check_bounds(key, value)


def _check_bounds(key: str, value: Any) -> None:
    several = value if isinstance(value, tuple) else (value,)
    if key in ODD and any(number < 1 or number % 2 == 0 for number in several):
        raise EyelineError(f"{key} must be odd, 1 or more, not {value!r}")
    if key in BOUNDS and value is not None:
        low, high = BOUNDS[key]
        if not several or not all(low <= number <= high for number in several):
            wanted = f"{low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
            raise EyelineError(f"{key} must be {wanted}, not {value!r}")


def suppression(config: Any) -> Suppression:
    """What a detector's Config says of its last step, besides `nms_iou` and `max_detections`."""
    c = config
    return Suppression(c.nms, c.nms_sigma, c.nms_floor, c.class_agnostic_nms, c.vote_iou)


def _tupled(value: Any) -> Any:
    """Lists, which files have instead, as tuples, those inside them too."""
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:
    """Is a value of the type that a Config declares? Only those in use are known."""
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        if not isinstance(value, tuple) or (parts[-1] is not ... and len(parts) != len(value)):
            return False
        return all(_fits(v, parts[0]) for v in value)
    if get_origin(hint) is UnionType:
        return any(_fits(value, part) for part in get_args(hint))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))

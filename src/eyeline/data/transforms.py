"""Augmentation: callables (image, target, rng) -> (image, target).

Images are (3, H, W), uint8 or float in [0, 1], and keep their dtype. Boxes are xyxy in pixels.
Every entry of a target has one row an object, but for those in PER_PICTURE. Nothing is changed in
place, and all randomness comes from `rng`.

IoUCrop, Expand and Photometric are those of SSD: Liu et al., "SSD: Single Shot MultiBox
Detector", ECCV 2016, arXiv:1512.02325, sec. 2.2 and 3.6; numbers that the text does not give are
those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eyeline.data.colours import Distortion
from eyeline.errors import EyelineError
from eyeline.ops.masks import resize_masks
from eyeline.ops.resize import fitted_size, resize
from eyeline.structures import PER_PICTURE, Target

Transform = Callable[[Tensor, Target, np.random.Generator], tuple[Tensor, Target]]
Sample = tuple[Tensor, Target]
Range = tuple[float, float]


@dataclass(frozen=True)
class Compose:
    """One after the other. Colours are drawn in their turn, but change after the flips and crops
    that follow at once: the result is the same, and what is cut off need not be changed."""

    transforms: Sequence[Transform]

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        waiting: list[Distortion] = []
        for transform in self.transforms:
            if isinstance(transform, Photometric):
                waiting.append(transform.draw(rng))
                continue
            if not isinstance(transform, HorizontalFlip | VerticalFlip | IoUCrop):
                while waiting:
                    image = waiting.pop(0)(image)
            image, target = transform(image, target, rng)
        for distortion in waiting:
            image = distortion(image)
        return image, target


@dataclass(frozen=True)
class HorizontalFlip:
    """Left becomes right, with probability p."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check("p", self.p, 0, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return image, target
        return _flipped(image, target, axis=2)


@dataclass(frozen=True)
class VerticalFlip:
    """Top becomes bottom, with probability p."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check("p", self.p, 0, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return image, target
        return _flipped(image, target, axis=1)


@dataclass(frozen=True)
class Resize:
    """The shorter side becomes `min_size`, unless the longer would exceed `max_size`; the network
    then sees the picture in this size, whatever its own `min_size`."""

    min_size: int
    max_size: int

    def __post_init__(self) -> None:
        _check("min_size", self.min_size, 1)
        _check("max_size", self.max_size, self.min_size)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        size = image.shape[1], image.shape[2]
        image, target = _resized(image, target, fitted_size(size, self.min_size, self.max_size))
        return image, target | {"resized": torch.tensor(True)}


@dataclass(frozen=True)
class MultiScale:
    """`Resize` to one of several sizes, each as likely."""

    min_sizes: Sequence[int]
    max_size: int

    def __post_init__(self) -> None:
        if not self.min_sizes:
            raise ValueError("min_sizes is empty")
        for size in self.min_sizes:
            Resize(size, self.max_size)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        min_size = self.min_sizes[int(rng.integers(len(self.min_sizes)))]
        return Resize(min_size, self.max_size)(image, target, rng)


@dataclass(frozen=True)
class Photometric:
    """Brightness, contrast, saturation and hue, each changed with probability p.

    Args:
        brightness: at most so much is added to every channel (32 of 255).
        contrast, saturation: ranges of the factor.
        hue: at most so many degrees of the colour circle. (The authors add 18 to OpenCV's 8-bit
            hue, which counts in twos of degrees; ports, torchvision's among them, take 18.)
    """

    brightness: float = 32 / 255
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.5, 1.5)
    hue: float = 18.0
    p: float = 0.5

    rgb_only = True  # no other channels

    def __post_init__(self) -> None:
        _check("brightness", self.brightness, 0, 1)
        _check_pair("contrast", self.contrast, 0)
        _check_pair("saturation", self.saturation, 0)
        _check("hue", self.hue, 0, 180)
        _check("p", self.p, 0, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        return self.draw(rng)(image), target

    def draw(self, rng: np.random.Generator) -> Distortion:
        """All that is random about one picture."""
        contrast_last = rng.random() < 0.5  # else before the colours, as in the authors' code
        brightness = hue = 0.0
        if rng.random() < self.p:
            brightness = rng.uniform(-self.brightness, self.brightness)
        contrast = rng.uniform(*self.contrast) if rng.random() < self.p else 1.0
        saturation = rng.uniform(*self.saturation) if rng.random() < self.p else 1.0
        if rng.random() < self.p:
            hue = rng.uniform(-self.hue, self.hue) / 360
        if contrast_last:
            return Distortion(brightness, 1.0, hue, saturation, contrast_last=contrast)
        return Distortion(brightness, contrast, hue, saturation)


@dataclass(frozen=True)
class IoUCrop:
    """A random part of the picture in which some object is seen well enough (sec. 2.2).

    One of `min_ious` or the whole picture is drawn, each as likely among those for which a crop
    is found in `trials` draws. An object stays if its centre lies in the crop, a crowd if any of
    it does; one object at least stays.

    Args:
        min_ious: the IoU of the crop with at least one object; 0: any crop.
        scale: of the crop's sides (the text: 0.1 to 1 of the picture's size, which read as area
            is about the 0.3 to 1 of the sides in the authors' code).
        aspect: of the crop, relative to the picture's.
    """

    min_ious: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    scale: Range = (0.3, 1.0)
    aspect: Range = (0.5, 2.0)
    trials: int = 50

    def __post_init__(self) -> None:
        _check("min_ious", sorted(self.min_ious), 0, 1)
        _check_pair("scale", self.scale, 1e-3, 1)
        _check_pair("aspect", self.aspect, 1e-3)
        _check("trials", self.trials, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        height, width = image.shape[1:]
        boxes = target["boxes"].numpy().astype(np.float64)
        crowd = target["iscrowd"].numpy() if "iscrowd" in target else np.zeros(len(boxes), bool)
        if crowd.all():  # or no object at all
            return image, target
        for min_iou in rng.permutation([*self.min_ious, np.inf]):
            if min_iou == np.inf:
                break
            crops = self._candidates(height, width, rng)  # (T, 4)
            inside = _centres_inside(boxes, crops)  # (T, G)
            fits = (_pairwise_iou(crops, boxes) >= min_iou) & ~crowd
            good = fits.any(1) & (inside & ~crowd).any(1)
            if good.any():
                best = int(good.argmax())  # the first
                seen = _intersection(crops[best : best + 1], boxes)[0] > 0
                return _cropped(image, target, crops[best], inside[best] | (crowd & seen))
        return image, target

    def _candidates(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Crops (T, 4), whole pixels."""
        scale = rng.uniform(*self.scale, self.trials)
        # Within these bounds neither side exceeds the picture's.
        low = np.maximum(self.aspect[0], scale**2)
        high = np.minimum(self.aspect[1], 1 / scale**2)
        aspect = np.sqrt(low + (high - low) * rng.random(self.trials))
        w = np.maximum(1, np.rint(width * scale * aspect))
        h = np.maximum(1, np.rint(height * scale / aspect))
        w, h = np.minimum(w, width), np.minimum(h, height)
        left = np.floor(rng.random(self.trials) * (width - w + 1))
        top = np.floor(rng.random(self.trials) * (height - h + 1))
        return np.stack([left, top, left + w, top + h], 1)


@dataclass(frozen=True)
class Expand:
    """The picture on a larger canvas, with probability p: objects become small (sec. 3.6).

    Args:
        max_ratio: of the canvas's sides; 4 is the paper's sixteenfold area.
        fill: RGB of the canvas in [0, 1]; the mean of ImageNet.
    """

    max_ratio: float = 4.0
    p: float = 0.5
    fill: tuple[float, float, float] = (0.485, 0.456, 0.406)

    rgb_only = True  # no other channels

    def __post_init__(self) -> None:
        _check("max_ratio", self.max_ratio, 1)
        _check("p", self.p, 0, 1)
        _check("fill", sorted(self.fill), 0, 1)

    def __call__(self, image: Tensor, target: Target, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return image, target
        height, width = image.shape[1:]
        ratio = rng.uniform(1, self.max_ratio)
        h, w = int(height * ratio), int(width * ratio)
        top, left = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))
        fill = torch.tensor(self.fill)[:, None, None]
        fill = (fill * 255).round() if image.dtype == torch.uint8 else fill
        canvas = fill.to(image.dtype).expand(3, h, w).clone()
        canvas[:, top : top + height, left : left + width] = image
        shift = target["boxes"].new_tensor([left, top, left, top])
        target = target | {"boxes": target["boxes"] + shift}
        if "masks" in target:
            margins = (left, w - width - left, top, h - height - top)
            target["masks"] = F.pad(target["masks"], margins, value=False)
        return canvas, target


NAMES: dict[str, type] = {
    "hflip": HorizontalFlip,
    "vflip": VerticalFlip,
    "resize": Resize,
    "multi_scale": MultiScale,
    "photometric": Photometric,
    "iou_crop": IoUCrop,
    "expand": Expand,
}


def from_names(names: Sequence[str | Mapping[str, Any]]) -> Compose:
    """Transforms as a recipe lists them: ["hflip", {"resize": {"min_size": 240, "max_size": 320}}].

    Raises:
        EyelineError: an unknown name or option (the nearest is suggested), a value out of range.
    """
    return Compose([_from_name(entry) for entry in names])


def _from_name(entry: str | Mapping[str, Any]) -> Transform:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not (isinstance(entry, Mapping) and len(entry) == 1):
        raise EyelineError(f"a transform is a name or {{name: {{options}}}}, not {entry!r}")
    [(name, options)] = entry.items()
    if name not in NAMES:
        raise EyelineError(f"no transform is called {name!r}; {_nearest(str(name), NAMES)}")
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise EyelineError(f"transform {name!r}: options are {{option: value}}, not {options!r}")
    known = {field.name: field for field in fields(NAMES[name])}
    for option in options:
        if option not in known:
            raise EyelineError(
                f"transform {name!r} has no option {option!r}; {_nearest(str(option), known)}"
            )
    needed = [f.name for f in known.values() if f.default is MISSING and f.name not in options]
    if needed:
        raise EyelineError(f"transform {name!r} needs {' and '.join(needed)}")
    try:
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        return NAMES[name](**values)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise EyelineError(f"transform {name!r}: {error}") from None


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"


def _flipped(image: Tensor, target: Target, axis: int) -> Sample:
    """Mirrored along axis 1, the height, or 2, the width."""
    low, high = (0, 2) if axis == 2 else (1, 3)  # the coordinates that trade places
    boxes = target["boxes"].clone()
    boxes[:, low] = image.shape[axis] - target["boxes"][:, high]
    boxes[:, high] = image.shape[axis] - target["boxes"][:, low]
    target = target | {"boxes": boxes}
    if "masks" in target:
        target["masks"] = target["masks"].flip(axis)
    return image.flip(axis), target


def _resized(image: Tensor, target: Target, size: tuple[int, int]) -> Sample:
    old = image.shape[1], image.shape[2]
    return resize(image, size, antialias=True), resized_target(target, old, size)


def resized_target(target: Target, old: tuple[int, int], new: tuple[int, int]) -> Target:
    """The target of a picture that is brought from one (height, width) to another."""
    if old == new:
        return target
    before, after = (target["boxes"].new_tensor([w, h] * 2) for h, w in (old, new))
    target = target | {"boxes": target["boxes"] * after / before}  # so borders stay exact
    if "masks" in target:
        target["masks"] = resize_masks(target["masks"], new)
    return target


def _cropped(image: Tensor, target: Target, crop: np.ndarray, keep: np.ndarray) -> Sample:
    """The pixels of a crop of whole pixels, and the objects to keep, cut off at its border."""
    left, top, right, bottom = (int(v) for v in crop)
    kept = torch.from_numpy(keep)
    target = {k: value if k in PER_PICTURE else value[kept] for k, value in target.items()}
    boxes = target["boxes"] - target["boxes"].new_tensor([left, top, left, top])
    limit = boxes.new_tensor([right - left, bottom - top]).repeat(2)
    target["boxes"] = boxes.clamp(min=0).minimum(limit)
    if "masks" in target:
        target["masks"] = target["masks"][:, top:bottom, left:right]
    return image[:, top:bottom, left:right], target


def _centres_inside(boxes: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """(T, G): does the centre of the object lie in the crop?"""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres > crops[:, None, :2]) & (centres < crops[:, None, 2:])).all(2)


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[:, :2])
    high = np.minimum(a[:, None, 2:], b[:, 2:])
    return (high - low).clip(0).prod(2)


def _pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    intersection = _intersection(a, b)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    return intersection / (area_a[:, None] + area_b - intersection)


def _check(name: str, value: Any, low: float, high: float = np.inf) -> None:
    """A number, or a (first, last) in order, within [low, high]."""
    values = list(value) if isinstance(value, Sequence) else [value]
    numbers = all(isinstance(v, int | float) and low <= v <= high for v in values)
    if not (values and numbers and values == sorted(values)):
        raise ValueError(f"{name} should be from {low} to {high}, not {value!r}")


def _check_pair(name: str, value: Any, low: float, high: float = np.inf) -> None:
    if not (isinstance(value, Sequence) and len(value) == 2):
        raise ValueError(f"{name} should be [from, to], not {value!r}")
    _check(name, value, low, high)

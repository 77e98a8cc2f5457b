"""Transforms of albumentations, kornia and torchvision v2 as transforms of ours.

    import albumentations as A
    transforms = Compose([HorizontalFlip(), adapt(A.RandomBrightnessContrast(p=0.5))])

None of these libraries is imported here: whoever has one of its transforms has imported it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eyeline.data.loader import random_state
from eyeline.errors import EyelineError
from eyeline.ops.pixels import check_pixels
from eyeline.structures import PER_PICTURE, Target

# What a library makes of a picture: it, the boxes, the masks (or None), and which objects they are.
Outcome = tuple[Tensor, Tensor, Tensor | None, Tensor]
SMALLEST = 1.0  # pixels; an object of which less is left, in width or height, is dropped


def adapt(transform: Any) -> Adapter:
    """A transform (image, target, rng) -> (image, target) of another library's.

    A transform of albumentations (alone or a Compose), of kornia (`kornia.augmentation`, alone or
    an AugmentationSequential), or of `torchvision.transforms.v2`.

    Raises:
        EyelineError: it is of none of these.
    """
    names = {kind.__module__ for kind in type(transform).__mro__}
    for library, apply in LIBRARIES.items():
        if any(f"{name}.".startswith(f"{library}.") for name in names):
            return Adapter(transform, apply)
    hint = ""
    if any(name.startswith("torchvision.transforms.") for name in names):
        hint = "; its first version moves no boxes: take it from torchvision.transforms.v2"
    raise EyelineError(
        f"{type(transform).__name__} is no transform of albumentations, kornia or torchvision "
        f"v2{hint}; one of your own is any function (image, target, rng) -> (image, target)"
    )


class Adapter:
    """Calls the other library's transform, and brings what it gives into our form.

    Boxes are clipped to the picture; objects of which less than a pixel is left are dropped, with
    all that belongs to them. All randomness comes from `rng`, also that which the library draws
    from the global generators of torch, numpy and Python, so that a resumed run draws the same.
    """

    def __init__(self, transform: Any, apply: Callable[..., Outcome]) -> None:
        self.transform, self.apply = transform, apply

    def __call__(
        self, image: Tensor, target: Target, rng: np.random.Generator
    ) -> tuple[Tensor, Target]:
        """See `eyeline.data.transforms`.

        Raises:
            EyelineError: the picture that comes out is none: not (3, H, W), neither uint8 nor
                float in [0, 1]; objects went missing without a trace; or the target has
                keypoints, which nobody would move.
        """
        name = type(self.transform).__name__
        if "keypoints" in target:
            raise EyelineError(
                f"{name} would leave the keypoints where they are: adapted transforms move boxes "
                "and masks alone; take one of eyeline's, or open the data without keypoints"
            )
        seed = int(rng.integers(2**31))
        masks = target.get("masks")
        with random_state(seed):
            new, boxes, masks, kept = self.apply(
                self.transform, image, target["boxes"], masks, seed
            )
        new = _checked(new, image.dtype, name)
        if len(boxes) != len(kept) or (masks is not None and len(masks) != len(kept)):
            raise EyelineError(
                f"{name} gives {len(boxes)} boxes for {len(kept)} objects; let it drop an "
                "object's label with its box, or drop nothing"
            )
        height, width = new.shape[1:]
        boxes = boxes.float().reshape(-1, 4)
        boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height] * 2))
        seen = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST).all(1)
        kept = kept[seen]
        out = {k: v if k in PER_PICTURE else v[kept] for k, v in target.items()}
        out["boxes"] = boxes[seen]
        if masks is not None:
            out["masks"] = masks[seen].bool()
        return new, out


def _checked(image: Tensor, wanted: torch.dtype, name: str) -> Tensor:
    """In the dtype that came in, as all transforms of ours keep it."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise EyelineError(f"{name} gives a picture of shape {tuple(image.shape)}, not (3, H, W)")
    check_pixels(image, f"{name} gives")
    if image.dtype == wanted:
        return image.clamp(0, 1) if image.is_floating_point() else image
    if wanted == torch.uint8:
        return (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return image.to(wanted) / 255 if image.dtype == torch.uint8 else image.to(wanted).clamp(0, 1)


def _albumentations(
    transform: Any, image: Tensor, boxes: Tensor, masks: Tensor | None, seed: int
) -> Outcome:
    import albumentations as A  # type: ignore[import-not-found, unused-ignore]

    whole = A.Compose(
        [transform],
        bbox_params=A.BboxParams(format="pascal_voc", label_fields=["index"], clip=True),
        seed=seed,
    )
    given: dict[str, Any] = {
        "image": np.ascontiguousarray(image.permute(1, 2, 0).numpy()),
        "bboxes": boxes.double().numpy(),
        "index": np.arange(len(boxes)),
    }
    if masks is not None and len(masks):
        given["masks"] = list(masks.numpy().astype(np.uint8))
    found = whole(**given)
    kept = torch.as_tensor(np.asarray(found["index"]).astype(np.int64)).reshape(-1)
    array = torch.from_numpy(np.ascontiguousarray(found["image"])).permute(2, 0, 1).contiguous()
    if "masks" in given:
        masks = torch.from_numpy(np.stack(found["masks"]))[kept]
    elif masks is not None:
        masks = masks.new_zeros(0, *array.shape[1:])
    new = torch.as_tensor(np.asarray(found["bboxes"], np.float32)).reshape(-1, 4)
    return array, new, masks, kept


def _kornia(
    transform: Any, image: Tensor, boxes: Tensor, masks: Tensor | None, seed: int
) -> Outcome:
    augmentation = importlib.import_module("kornia.augmentation")
    x = image[None].float() / (255 if image.dtype == torch.uint8 else 1)
    given, keys = [x], ["input"]
    if len(boxes):
        # Its coordinates count from the centre of the first pixel, ours from its edge.
        given, keys = [*given, boxes[None] - 0.5], [*keys, "bbox_xyxy"]
        if masks is not None:
            given, keys = [*given, masks[None].float()], [*keys, "mask"]
    whole = transform
    if not isinstance(transform, augmentation.AugmentationSequential):
        whole = augmentation.AugmentationSequential(transform, data_keys=keys)
    found = whole(*given, data_keys=keys)
    found = found if isinstance(found, (list, tuple)) else [found]
    new = found[0][0]
    if len(boxes):
        boxes = found[1].reshape(-1, 4) + 0.5
        masks = None if masks is None else found[2][0] > 0.5
    elif masks is not None:
        masks = masks.new_zeros(0, *new.shape[1:])
    return new, boxes, masks, torch.arange(len(boxes))


def _torchvision(
    transform: Any, image: Tensor, boxes: Tensor, masks: Tensor | None, seed: int
) -> Outcome:
    # Its own types tell its transforms what is a box. (By name: nothing here needs the library.)
    types = importlib.import_module("torchvision.tv_tensors")
    size = tuple(image.shape[1:])
    given: dict[str, Any] = {
        "image": types.Image(image),
        "boxes": types.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "labels": torch.arange(len(boxes)),  # what drops a box drops its label
    }
    if masks is not None:
        given["masks"] = types.Mask(masks)
    found = transform(given)
    plain = {key: value.as_subclass(Tensor) for key, value in found.items()}
    return plain["image"], plain["boxes"], plain.get("masks"), plain["labels"]


LIBRARIES: dict[str, Callable[..., Outcome]] = {
    "albumentations": _albumentations,
    "kornia": _kornia,
    "torchvision.transforms.v2": _torchvision,
}

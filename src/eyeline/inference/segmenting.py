"""How a Predictor looks at pictures with a segmenter: whole or in tiles, once or several times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.inference.augmented import AugmentedSegmenter, check_scales
from eyeline.inference.map_result import SegmentationResult
from eyeline.inference.options import SUPPRESSION
from eyeline.inference.tiles import Tiling, blended, sliding_logits
from eyeline.nn.detector import as_float
from eyeline.nn.segmenter import is_segmenter
from eyeline.ops.labels import IGNORE
from eyeline.ops.resize import resize

OF_DETECTORS = ("score_threshold", "tta")


@dataclass(frozen=True)
class Looks:
    """How a segmenter looks at a picture.

    Args:
        tile: side in pixels of the tiles that are cut out and blended, see
            `eyeline.inference.tiles`; None: the picture as a whole.
        overlap: of neighbouring tiles; below 1 a share of the tile, from 1 on pixels.
        margin: pixels at a tile's ends that do not count, see there.
        scales: factors of both sides; probabilities of all are averaged.
        flip: look at each again, mirrored left to right.
    """

    tile: int | None = None
    overlap: float | None = None
    margin: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        check_scales(self.scales)
        for name in ("overlap", "margin"):
            if self.tile is None and getattr(self, name) is not None:
                raise EyelineError(f"{name} is that of tiles; give tile, too")

    @property
    def several(self) -> bool:
        """Is there more than one look at a picture?"""
        return self.flip or self.scales != (1.0,)

    def tiling(self) -> Tiling | None:
        if self.tile is None:
            return None
        overlap = Tiling.overlap if self.overlap is None else self.overlap
        return Tiling(self.tile, overlap, self.margin or 0)

    def told(self) -> dict[str, str]:
        """What is not as it is by default, in words."""
        found = {}
        if (tiling := self.tiling()) is not None:
            found["tiles"] = f"{self.tile} pixels, overlapping by {tiling.tile - tiling.stride}"
            if self.margin:
                found["tiles"] += f", of which {self.margin} at each end do not count"
        if self.several:
            scales = ", ".join(f"{scale:g}" for scale in self.scales)
            found["test-time augmentation"] = f"scales {scales}" + ", flipped" * self.flip
        return found


class Looking(nn.Module):
    """A segmenter that looks so; called like the segmenter itself.

    A model that resizes pictures (`min_size`) is given them at that size, times the scale, and its
    logits are resized back; tiles, which are cut out of the picture as it is, are not for it.
    """

    def __init__(self, model: Any, looks: Looks) -> None:
        super().__init__()
        self.looks = looks
        preprocess = getattr(model, "preprocess", None)
        self.resizes: Any = copy(preprocess) if getattr(preprocess, "min_size", 0) else None
        self.tiling = looks.tiling()
        if self.tiling is not None:
            self._check_tiles()
        if looks.several and self.resizes is not None:
            model.preprocess.min_size = 0  # a copy's, see `Predictor`
        self.model = AugmentedSegmenter(model, looks.scales, looks.flip) if looks.several else model
        self.plain = model
        self.train(model.training)

    @property
    def channels(self) -> int:
        return int(getattr(self.plain, "channels", 3))

    @property
    def classes(self) -> list[str]:
        return list(self.plain.classes)

    @property
    def name(self) -> str:
        return getattr(self.plain, "name", None) or type(self.plain).__name__

    @property
    def task(self) -> str:
        return "segmentation"

    @property
    def whole(self) -> nn.Module:
        """What looks at one tile, or at a picture as a whole: (B, C, h, w) -> (B, K, h, w)."""
        return self.model

    def tiling_or_default(self) -> Tiling:
        """How a picture is cut that is too large to be seen as a whole."""
        self._check_tiles()
        return self.tiling or Tiling()

    def _check_tiles(self) -> None:
        """Raises EyelineError where the model resizes what it is given."""
        if self.resizes is not None:
            raise EyelineError(
                f"this model resizes every picture ({self.resizes.told()}); it takes no tiles"
            )

    def forward(self, images: Sequence[Tensor] | Tensor) -> Any:
        """(B, C, H, W), or a list of (C, H, W) -> logits (B, K, H, W), or a list of (K, H, W).

        Of a list, pictures of one size are computed together; none is padded to another's."""
        if not isinstance(images, Tensor):
            alike: dict[Any, list[int]] = {}
            for i, image in enumerate(images):
                alike.setdefault((image.shape, image.dtype), []).append(i)
            found = [Tensor()] * len(images)
            for same in alike.values():
                logits = self(torch.stack([images[i] for i in same]))
                for i, one in zip(same, logits, strict=True):
                    found[i] = one
            return found
        if self.tiling is not None:
            device = next((p.device for p in self.parameters()), images.device)
            return torch.stack([sliding_logits(self.model, i, self.tiling, device) for i in images])
        if not self.looks.several or self.resizes is None:
            return self.model(images)
        size = (images.shape[2], images.shape[3])
        fitted = self.resizes.fitted(size)
        logits = self.model(torch.stack([resize(as_float(image), fitted) for image in images]))
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    def classes_of(self, image: Tensor) -> Tensor:
        """The map (H, W) int64 of a picture (C, H, W), on the CPU; of tiles without keeping the
        logits of the whole."""
        if self.tiling is None:
            return self(image[None])[0].argmax(0).cpu()
        height, width = image.shape[1:]
        device = next((p.device for p in self.parameters()), image.device)
        found = torch.empty(height, width, dtype=torch.int64)
        rows = lambda top, end: image[:, top:end]  # noqa: E731
        for patch in blended(self.model, rows, height, width, self.tiling, device):
            _, h, w = patch.logits.shape
            part = found[patch.top : patch.top + h, patch.left : patch.left + w]
            part.copy_(patch.logits.argmax(0))
        return found


class Segmenting:
    """What a Predictor with a segmenter calls: pictures with their paths to results."""

    def __init__(
        self, model: Looking, device: torch.device, classes: Sequence[str], keep_logits: bool
    ) -> None:
        self.model, self.device, self.classes = model, device, list(classes)
        self.keep_logits = keep_logits

    @torch.inference_mode()
    def __call__(self, pictures: list[tuple[Tensor, str | None]]) -> list[SegmentationResult]:
        """Pictures of one size are computed together; none is padded to the size of another."""
        results: list[SegmentationResult] = []

        def kind(picture: tuple[Tensor, str | None]) -> Any:
            return picture[0].shape, picture[0].dtype

        for _, group in groupby(pictures, kind):
            same = list(group)
            for (image, path), (classes, logits) in zip(same, self._looked(same), strict=True):
                if image.is_floating_point():
                    image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
                if len(self.classes) <= IGNORE:
                    classes = classes.to(torch.uint8)
                results.append(SegmentationResult(image, classes, self.classes, path, logits))
        return results

    def _looked(
        self, pictures: list[tuple[Tensor, str | None]]
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Maps (H, W), and logits (K, H, W) where they are wanted, on the CPU."""
        images = torch.stack([image for image, _ in pictures])
        if self.model.tiling is not None and not self.keep_logits:
            return [(self.model.classes_of(image), None) for image in images]
        logits = self.model(images.to(self.device))
        maps = logits.argmax(1).cpu()
        kept = logits.float().cpu() if self.keep_logits else [None] * len(maps)
        return list(zip(maps, kept, strict=True))


def check_options(model: Any, detector: Mapping[str, Any], segmenter: Mapping[str, Any]) -> None:
    """Raises EyelineError where an option that is set is for models of the other task."""
    known = {*OF_DETECTORS, *SUPPRESSION}
    if unknown := [key for key in detector if key not in known]:
        raise EyelineError(f"unknown option {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    if is_segmenter(model):
        wrong, what = detector, "for detectors; this model gives each pixel a class"
    else:
        wrong, what = segmenter, "for segmenters; this model finds boxes"
    for key, value in wrong.items():
        if value is not None and value is not False:
            raise EyelineError(f"{key} is {what}")

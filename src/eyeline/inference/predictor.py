"""Predictor: a trained detector or segmenter as one call on pictures of any kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eyeline.checkpoints import read, run_model, run_weights
from eyeline.device import find_device
from eyeline.errors import EyelineError
from eyeline.export.calibration import Ranges
from eyeline.export.optimize import optimize
from eyeline.inference.batches import Batches
from eyeline.inference.map_result import SegmentationResult
from eyeline.inference.options import set_suppression
from eyeline.inference.pipeline import ahead
from eyeline.inference.result import Result
from eyeline.inference.segmenting import Looking, Looks, Segmenting, check_options
from eyeline.inference.sources import (
    Anything,
    Loaded,
    Picture,
    find,
    groups,
    load,
    name_of,
    read_picture,
)
from eyeline.inference.tiles import Tiling
from eyeline.inference.tta import TTA, Augmented
from eyeline.inference.video import Video
from eyeline.nn.segmenter import is_segmenter
from eyeline.registry import create_model, list_models

RANGES = "int8.json"  # in a run folder, as `eyeline calibrate` writes it
Found = Result | SegmentationResult
SCORE = 0.5  # from which on a detection counts
AHEAD = 4  # batches that are read before they are needed
LARGE = 2**24  # pixels up to which a segmenter sees a picture as a whole, if nobody says how


class Predictor:
    """A model ready to use: `Predictor("runs/cells")("street.jpg").plot()`.

    Of a detector's picture it gives a `Result`, of a segmenter's a `SegmentationResult`.

    Args:
        model: a run folder (its best weights are taken), a weights file of eyeline or
            torchvision, or a model. A model is copied: training it further changes nothing here.
        device: where to compute; by default the GPU if there is one, for a model where it is.
        precision: "float32", "bf16" or "int8"; see `eyeline.optimize`.
        ranges: for "int8", what `calibrate` found, or its file; by default the run folder's.
        score_threshold: of a detector: detections with a lower score are left out.
        classes: names that replace the model's own.
        tta: of a detector: test-time augmentation: a `TTA`, or True for the twelve passes, which
            are merged by the `nms_iou` and `vote_iou` given here.
        max_batch: `apredict` computes at most so many callers' pictures at once ...
        max_wait: ... and lets the first of them wait at most so many seconds for the others.
        tile, overlap, margin, scales, flip: of a segmenter: how it looks at a picture, see
            `eyeline.inference.segmenting.Looks`. Without `tile` pictures of more than LARGE pixels,
            about 17 million, are seen in tiles of `Tiling`'s own size, if the model does not
            resize what it sees; a tile larger than the picture is the whole of it.
        logits: of a segmenter: results keep the logits.
        suppression: of a detector: `nms="soft_linear"`, `vote_iou=0.5` ...; see
            `set_suppression`.

    Raises EyelineError where an option is for models of another task.
    """

    def __init__(
        self,
        model: nn.Module | str | Path,
        device: torch.device | str | None = None,
        precision: str = "float32",
        ranges: Ranges | str | Path | None = None,
        score_threshold: float = SCORE,
        classes: Sequence[str] | None = None,
        tta: bool | TTA = False,
        max_batch: int = 8,
        max_wait: float = 0.01,
        tile: int | None = None,
        overlap: float | None = None,
        margin: int | None = None,
        scales: Sequence[float] | None = None,
        flip: bool = False,
        logits: bool = False,
        **suppression: Any,
    ) -> None:
        if not 0.0 <= score_threshold <= 1.0:
            raise EyelineError(f"score_threshold is from 0 to 1, not {score_threshold}")
        if precision == "int8":
            ranges = find_ranges(model, ranges)
        if isinstance(model, nn.Module):
            device = device or next(model.parameters()).device
        else:
            model = load_model(model)
        if not hasattr(model, "compute") and not is_segmenter(model):
            raise EyelineError(
                f"a Predictor takes a detector or a segmenter, not {type(model).__name__}"
            )
        threshold = None if score_threshold == SCORE else score_threshold
        check_options(
            model,
            {"score_threshold": threshold, "tta": tta} | suppression,
            dict(
                tile=tile, overlap=overlap, margin=margin, scales=scales, flip=flip, logits=logits
            ),
        )
        known: Any = model.classes
        self.channels: int = getattr(model, "channels", 3)  # of a picture
        self.device = find_device(device)
        self.score_threshold = score_threshold
        self.classes = list(classes) if classes is not None else list(known)
        if len(self.classes) != len(known):
            raise EyelineError(
                f"{len(self.classes)} class names given, but the model has {len(known)}"
            )
        self.model: Any = optimize(model, precision, self.device, ranges)
        self._tiled: Segmenting | None = None  # for what is large, where nobody says how
        self._look: Callable[[list[tuple[Tensor, str | None]]], Sequence[Found]] = self._detect
        if is_segmenter(model):
            looks = Looks(tile, overlap, margin, tuple(scales or (1.0,)), flip)
            plain = self.model
            self.model = Looking(plain, looks)
            self._look = self._segment
            self._whole = Segmenting(self.model, self.device, self.classes, logits)
            if tile is None and self.model.resizes is None:
                tiled = Looking(plain, replace(looks, tile=Tiling.tile))
                self._tiled = Segmenting(tiled, self.device, self.classes, logits)
        self.batches: Batches[tuple[Tensor, str | None], Found] = Batches(
            self._look, max_batch, max_wait
        )
        if is_segmenter(model):
            return
        config: Any = getattr(model, "config", None)
        if score_threshold < getattr(config, "score_threshold", 0.0):
            self.model.config = replace(config, score_threshold=score_threshold)
        set_suppression(self.model, suppression)
        if tta:
            tta = tta if isinstance(tta, TTA) else TTA.merging(suppression)
            self.model = Augmented(self.model, tta)

    def __call__(self, source: Anything, batch_size: int = 1) -> Any:
        """What is found in a picture (one result), or in a folder, pattern or list (a list).

        A picture is a path, a URL, an array (H, W, 3), a tensor (C, H, W) (each uint8 or float
        in [0, 1]) or a PIL picture, RGB; a model of other channels takes files, arrays and tensors
        of as many. Files and PIL pictures are turned upright as their EXIF orientation says. `find`
        in `eyeline.inference.sources` tells what else a source can be.

        Raises:
            EyelineError: naming the picture that is missing or cannot be read, or the camera or
                stream that has no end.
        """
        items, single = find(source)
        results = []
        for result in self._stream(items, batch_size, 1):
            if result.video is not None and result.video.is_live:
                raise EyelineError(f"{result.path}: it has no end; take its results from stream()")
            results.append(result)
        return results[0] if single and results[0].video is None else results

    def stream(
        self,
        source: Anything,
        batch_size: int = 1,
        every: int = 1,
        unread: Callable[[EyelineError], object] | None = None,
    ) -> Iterator[Any]:
        """The same one by one; a video, camera or stream gives a result a frame, with its number
        and its time.

        While the network computes, a thread reads what comes next; memory is that of a few
        batches, however long the source. Of a camera or a live stream frames are left out where
        the network is slower.

        Args:
            every: of a video, take every so manieth frame.
            unread: called with the error of what cannot be read, which is then left out.

        Raises:
            EyelineError: also where a video is damaged or broken off, after the frames that could
                be read.
        """
        yield from self._stream(find(source)[0], batch_size, every, unread)

    def _stream(
        self,
        items: list[Any],
        batch_size: int,
        every: int,
        unread: Callable[[EyelineError], object] | None = None,
    ) -> Iterator[Any]:
        for name, number in (("batch_size", batch_size), ("every", every)):
            if number < 1:
                raise EyelineError(f"{name} is at least 1, not {number}")
        batches: Any = groups(load(items, every, self.channels, unread), batch_size)
        if len(items) > 1 or (items and isinstance(items[0], (str, Video))):
            batches = ahead(batches, AHEAD, live=_is_live)
        with closing(batches):
            for group in batches:
                results = self._look([(one.image, one.path) for one in group])
                for one, result in zip(group, results, strict=True):
                    result.frame, result.time, result.video = one.frame, one.time, one.video
                    yield result

    async def apredict(self, picture: Picture) -> Any:
        """What is found in one picture, for asyncio: what many callers ask for at the same time
        is computed in batches.

        Several event loops and threads may share a predictor. A caller that is cancelled leaves
        its batch; a picture that cannot be read fails its own caller only. A detector's
        picture that shares a batch with larger ones is padded to their size, as in any batch.

        Raises:
            EyelineError: the picture is missing or cannot be read; the predictor is closed.
        """
        image = await asyncio.to_thread(read_picture, picture, self.channels)
        return await asyncio.wrap_future(self.batches.submit((image, name_of(picture))))

    def close(self) -> None:
        """Finish what `apredict` was asked for, and end its thread."""
        self.batches.close()

    async def aclose(self) -> None:
        """The same, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Predictor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def is_cut(self, image: Tensor) -> bool:
        """Is a picture (C, H, W) seen in tiles though nobody asked for them, for its size?"""
        return self._tiled is not None and image.shape[-2] * image.shape[-1] > LARGE

    def _segment(self, pictures: list[tuple[Tensor, str | None]]) -> list[SegmentationResult]:
        found: list[SegmentationResult] = []
        for cut, group in groupby(pictures, lambda picture: self.is_cut(picture[0])):
            look = self._tiled if cut and self._tiled is not None else self._whole
            found += look(list(group))
        return found

    @torch.inference_mode()
    def _detect(self, pictures: list[tuple[Tensor, str | None]]) -> list[Result]:
        batch = self.model.prepare([image for image, _ in pictures]).to(self.device)
        padded = self.model.compute(batch)
        # Masks are pasted only where they are wanted.
        padded = padded._replace(valid=padded.valid & (padded.scores >= self.score_threshold))
        predictions = self.model.finish(padded, batch)
        results = []
        for (image, path), found in zip(pictures, predictions, strict=True):
            boxes, scores, labels = (found[k].cpu() for k in ("boxes", "scores", "labels"))
            if image.is_floating_point():
                image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
            masks = found["masks"].cpu() if "masks" in found else None
            results.append(Result(image, boxes, scores, labels, self.classes, path, masks))
        return results


def _is_live(group: list[Loaded]) -> bool:
    return all(one.video is not None and one.video.is_live for one in group)


def find_ranges(
    model: nn.Module | str | Path, ranges: Ranges | str | Path | None = None
) -> Ranges | None:
    """Those given, or in the file given, or in `RANGES` of the run folder; None without one."""
    if isinstance(ranges, Ranges):
        return ranges
    if ranges is None and not isinstance(model, nn.Module) and (Path(model) / RANGES).is_file():
        ranges = Path(model) / RANGES
    return None if ranges is None else Ranges.load(ranges)


def load_model(source: str | Path) -> nn.Module:
    """The model of a run folder (its best weights, else its last) or of a weights file.

    A run of a model file of the user's own is built from the model.py in its folder, which is
    code; from nowhere else is any run. `source` may also be anything else that
    `create_model(weights=...)` takes.

    Raises:
        EyelineError: there is no such folder or file, or no weights in it.
    """
    path = Path(source)
    if path.is_dir():
        if (weights := run_weights(path)) is None:
            raise EyelineError(f"{path}: no best.safetensors in it; give the folder of a run")
        checkpoint = read(weights)
        return create_model(run_model(path, checkpoint), weights=checkpoint)
    elif not path.is_file() and str(source) in list_models():
        raise EyelineError(
            f"{source!r} is a model without weights; give a run folder or a weights file"
        )
    else:
        checkpoint = read(source)
    return create_model(checkpoint.name, weights=checkpoint)

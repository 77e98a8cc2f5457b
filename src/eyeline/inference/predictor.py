"""Predictor: a trained detector as one call on pictures of any kind."""

from __future__ import annotations

import glob
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from eyeline.checkpoints import read, run_weights
from eyeline.data.images import find_images, read_image
from eyeline.device import find_device
from eyeline.errors import EyelineError
from eyeline.export.optimize import optimize
from eyeline.inference.draw import to_pil
from eyeline.inference.options import set_suppression
from eyeline.inference.result import Result
from eyeline.inference.tta import TTA, Augmented
from eyeline.registry import create_model, list_models

Picture = str | Path | np.ndarray | Image.Image | Tensor  # one picture, or where it lies
URL_TIMEOUT = 20.0  # seconds without an answer
URL_LIMIT = 256 * 2**20  # bytes


class Predictor:
    """A detector ready to use: `Predictor("runs/cells")("street.jpg").plot()`.

    Args:
        model: a run folder (its best weights are taken), a weights file of eyeline or
            torchvision, or a model. A model is copied: training it further changes nothing here.
        device: where to compute; by default the GPU if there is one, for a model where it is.
        precision: "float32" or "bf16".
        score_threshold: detections with a lower score are left out.
        classes: names that replace the model's own.
        tta: test-time augmentation: True for the twelve passes, or a `TTA`.
        suppression: `nms="soft_linear"`, `vote_iou=0.5` ...; see `set_suppression`.
    """

    def __init__(
        self,
        model: nn.Module | str | Path,
        device: torch.device | str | None = None,
        precision: str = "float32",
        score_threshold: float = 0.5,
        classes: Sequence[str] | None = None,
        tta: bool | TTA = False,
        **suppression: Any,
    ) -> None:
        if not 0.0 <= score_threshold <= 1.0:
            raise EyelineError(f"score_threshold is from 0 to 1, not {score_threshold}")
        if isinstance(model, nn.Module):
            device = device or next(model.parameters()).device
        else:
            model = load_model(model)
        if not hasattr(model, "compute"):
            raise EyelineError(f"a Predictor takes a detector, not {type(model).__name__}")
        known: Any = model.classes
        self.device = find_device(device)
        self.score_threshold = score_threshold
        self.classes = list(classes) if classes is not None else list(known)
        if len(self.classes) != len(known):
            raise EyelineError(
                f"{len(self.classes)} class names given, but the model has {len(known)}"
            )
        self.model: Any = optimize(model, precision).to(self.device)
        config: Any = getattr(model, "config", None)
        if score_threshold < getattr(config, "score_threshold", 0.0):
            self.model.config = replace(config, score_threshold=score_threshold)
        set_suppression(self.model, suppression)
        if tta:
            self.model = Augmented(self.model, tta if isinstance(tta, TTA) else None)

    def __call__(
        self, source: Picture | Iterable[Picture], batch_size: int = 1
    ) -> Result | list[Result]:
        """The detections of a picture (one Result), or of a folder, pattern or list (a list).

        A picture is a path, a URL, an array (H, W, 3), a tensor (C, H, W) (each uint8 or float
        in [0, 1]) or a PIL picture, RGB but for tensors for a model of other channels. Files and
        PIL pictures are turned upright as their EXIF orientation says.

        Raises:
            EyelineError: naming the picture that is missing or cannot be read.
        """
        pictures, single = find_pictures(source)
        results = list(self.stream(pictures, batch_size))
        return results[0] if single else results

    def stream(self, source: Picture | Iterable[Picture], batch_size: int = 1) -> Iterator[Result]:
        """The same one by one, so that a folder of any size takes the memory of one batch."""
        if batch_size < 1:
            raise EyelineError(f"batch_size is at least 1, not {batch_size}")
        pictures, _ = find_pictures(source)
        for start in range(0, len(pictures), batch_size):
            group = pictures[start : start + batch_size]
            yield from self._predict([(_read(picture), _name(picture)) for picture in group])

    @torch.inference_mode()
    def _predict(self, pictures: list[tuple[Tensor, str | None]]) -> list[Result]:
        batch = self.model.prepare([image for image, _ in pictures]).to(self.device)
        padded = self.model.compute(batch)
        # Masks are pasted only where they are wanted.
        padded = padded._replace(valid=padded.valid & (padded.scores >= self.score_threshold))
        predictions = self.model.finish(padded, batch)
        results = []
        for (image, path), found in zip(pictures, predictions, strict=True):
            kept = (found["scores"] >= self.score_threshold).nonzero().flatten()
            kept = kept[found["scores"][kept].argsort(descending=True, stable=True)]
            boxes, scores, labels = (found[k][kept].cpu() for k in ("boxes", "scores", "labels"))
            if image.is_floating_point():
                image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
            masks = found["masks"][kept].cpu() if "masks" in found else None
            results.append(Result(image, boxes, scores, labels, self.classes, path, masks))
        return results


def load_model(source: str | Path) -> nn.Module:
    """The model of a run folder (its best weights, else its last) or of a weights file.

    `source` may also be anything else that `create_model(weights=...)` takes.

    Raises:
        EyelineError: there is no such folder or file, or no weights in it.
    """
    path = Path(source)
    if path.is_dir():
        if (weights := run_weights(path)) is None:
            raise EyelineError(f"{path}: no best.safetensors in it; give the folder of a run")
        checkpoint = read(weights)
    elif not path.is_file() and str(source) in list_models():
        raise EyelineError(
            f"{source!r} is a model without weights; give a run folder or a weights file"
        )
    else:
        checkpoint = read(source)
    return create_model(checkpoint.name, weights=checkpoint)


def find_pictures(source: Picture | Iterable[Picture]) -> tuple[list[Picture], bool]:
    """The pictures that `source` stands for, and whether it is a single one."""
    if isinstance(source, (np.ndarray, Tensor, Image.Image)):
        return [source], True
    if not isinstance(source, (str, Path)):
        return list(source), False
    if is_url(source):
        return [source], True
    path = Path(source)
    if path.is_dir():
        files = find_images(path)
        if not files:
            raise EyelineError(f"{path}: no picture in this folder")
        return list(files), False
    if not path.exists() and glob.has_magic(str(source)):
        names = sorted(n for n in glob.glob(str(source), recursive=True) if Path(n).is_file())
        if not names:
            raise EyelineError(f"{source}: no file matches this pattern")
        return [Path(name) for name in names], False
    return [path], True


def _read(picture: Picture) -> Tensor:
    """(C, H, W), uint8 or float in [0, 1]."""
    if is_url(picture):
        return _download(str(picture))
    if isinstance(picture, (str, Path)):
        return read_image(Path(picture))
    if isinstance(picture, Tensor):
        return picture
    if isinstance(picture, Image.Image):
        picture = ImageOps.exif_transpose(picture)
    elif np.issubdtype(picture.dtype, np.floating) and picture.ndim == 3:
        return torch.from_numpy(picture.copy()).permute(2, 0, 1).contiguous()
    array = np.asarray(to_pil(picture))
    return torch.from_numpy(array.copy()).permute(2, 0, 1).contiguous()


def _download(url: str) -> Tensor:
    request = urllib.request.Request(url, headers={"User-Agent": "eyeline"})
    try:
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT) as answer:
            data = answer.read(URL_LIMIT + 1)
    except (OSError, ValueError) as error:  # URLError and timeouts are OSErrors
        raise EyelineError(f"{url}: cannot be fetched ({error})") from None
    if len(data) > URL_LIMIT:
        raise EyelineError(f"{url}: larger than {URL_LIMIT // 2**20} MiB")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "picture")
        file.write_bytes(data)
        try:
            return read_image(file)
        except EyelineError as error:
            raise EyelineError(str(error).replace(str(file), url)) from None


def is_url(picture: Any) -> bool:
    return isinstance(picture, str) and picture.startswith(("http://", "https://"))


def _name(picture: Picture) -> str | None:
    return str(picture) if isinstance(picture, (str, Path)) else None

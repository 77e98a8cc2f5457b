"""Pictures decoded, resized and augmented a second, beside torchvision and albumentations.

Needs torchvision; without albumentations (and OpenCV) its side is left out. Everything runs in one
process on one thread, the sides in turn. A time is the CPU time of one picture, the mean of a
round over all pictures. No side is to be faster than eyeline by more than a tenth. `bench.py` is
the command.

Every side starts from a JPEG file and ends with the same kind of thing: `decode` with RGB bytes,
all others with a float32 batch (1, 3, H, W) of normalised pixels, padded to multiples of 32, and
with boxes in its pixels. "Floats" are resized in float32, bilinear without smoothing, as
torchvision's detectors do: checked to be equal within 1e-4 before anything is timed. "Bytes" are
resized as uint8 and rounded, which is faster and what the others advise; a learner does not mind.

    eyeline      read_image, by simplejpeg where it is installed; eyeline.data's transforms (bytes,
                 with smoothing); Preprocess.
    draft        the same, decoded at 1/2, 1/4 or 1/8 where that has as many pixels as are wanted.
    tv detector  decode_jpeg, float32, GeneralizedRCNNTransform of torchvision's detectors.
    tv           decode_jpeg, then transforms.v2 in the order it advises: resized as uint8 with
                 smoothing, then float32, normalised, padded.
    tv, PIL      the same on Pillow's decoder.
    albument.    cv2.imread to RGB, then albumentations: cv2's bilinear on uint8 without smoothing,
                 Normalize, PadIfNeeded, ToTensorV2.

The training cases draw their own randomness, each side as its library does, with the same
probabilities and ranges: a flip; brightness, contrast, saturation and hue each with 0.5; for
"multi-scale" the shorter side one of 640 to 800; for "crop" a crop (ours and torchvision's by IoU
as in SSD; albumentations has none such: its crop that keeps every box) and the size 320.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from eyeline.data.images import image_size, read_image
from eyeline.data.transforms import from_names, resized_target
from eyeline.nn.detector import Preprocess
from table import Table, take_turns

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DIVISOR = 32
SCALES = (640, 672, 704, 736, 768, 800)
DISTORTION = dict(brightness=(0.875, 1.125), contrast=(0.5, 1.5), saturation=(0.5, 1.5))
HUE = 18 / 360
BAR = 1 / 1.1
COUNT = 16  # pictures of a round

Side = Callable[[Path, Tensor, Tensor], Any]  # of a file, its boxes (G, 4) and labels (G,)


# ---- what all sides are given


def made_pictures(folder: Path, count: int = COUNT) -> list[Path]:
    """JPEGs of COCO's size and about its bytes: smooth colours, and noise at every scale."""
    paths = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        height, width = ((480, 640), (427, 640), (640, 480), (480, 640))[seed % 4]
        image = torch.zeros(1, 3, height, width)
        for cells in (4, 16, 64, 256):
            noise = torch.rand(1, 3, cells, cells, generator=generator)
            image += F.interpolate(noise, (height, width), mode="bicubic") * 0.3
        array = (image[0].clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
        paths.append(folder / f"{seed:03d}.jpg")
        Image.fromarray(array).save(paths[-1], quality=90)
    return paths


def objects(seed: int, path: Path, count: int = 7) -> tuple[Tensor, Tensor]:
    """Random boxes of a picture, as many as COCO has on average, and labels."""
    generator = torch.Generator().manual_seed(seed)
    with Image.open(path) as image:
        size = torch.tensor(image.size)
    corner = torch.rand(count, 2, generator=generator) * 0.6 * size
    extent = (0.1 + 0.3 * torch.rand(count, 2, generator=generator)) * size
    labels = torch.randint(80, (count,), generator=generator)
    return torch.cat([corner, corner + extent], 1), labels


# ---- the sides


def padded(image: Tensor) -> Tensor:
    """(3, H, W) -> (1, 3, H', W'), zeros right of and below it, as a batch of one."""
    height, width = (-(-n // DIVISOR) * DIVISOR for n in image.shape[1:])
    return F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]))[None]


def read_with_torchvision(path: Path) -> Tensor:
    return decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB)


def read_with_pillow(path: Path) -> Tensor:
    with Image.open(path) as image:
        return v2.functional.pil_to_tensor(image.convert("RGB"))


def eyeline_side(names: list[Any], size: tuple[int, int], draft: int | None = None) -> Side:
    transforms = from_names(names)
    preprocess = Preprocess(80, *size, MEAN, STD, divisor=DIVISOR)

    def run(path: Path, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        target, image = {"boxes": boxes, "labels": labels}, read_image(path, draft)
        if draft is not None:
            height, width = image_size(path)
            target = resized_target(target, (height, width), (image.shape[1], image.shape[2]))
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        image, target = transforms(image, target, rng)
        batch = preprocess([image], [target])
        assert batch.targets is not None
        return batch.images, batch.targets[0]["boxes"]

    return run


def torchvision_detector(size: tuple[int, int]) -> Side:
    transform = GeneralizedRCNNTransform(*size, MEAN, STD, size_divisible=DIVISOR)

    def run(path: Path, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        image = read_with_torchvision(path) / 255
        images, targets = transform([image], [{"boxes": boxes, "labels": labels}])
        return images.tensors, targets[0]["boxes"]

    return run


def torchvision_side(read: Callable[[Path], Tensor], steps: list[Any]) -> Side:
    finish = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    transform = v2.Compose([*steps, *finish])

    def run(path: Path, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        image = tv_tensors.Image(read(path))
        size = (image.shape[1], image.shape[2])
        moved = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)
        out = transform({"image": image, "boxes": moved, "labels": labels})
        return padded(out["image"]), out["boxes"]

    return run


def torchvision_distortion() -> Any:
    options = DISTORTION | {"hue": (-HUE, HUE), "p": 0.5}
    return v2.RandomPhotometricDistort(**options)


def albumentations_side(steps: Callable[[Any], list[Any]]) -> Side:
    import albumentations as A
    import cv2
    from albumentations.pytorch import ToTensorV2

    cv2.setNumThreads(1)
    pad = A.PadIfNeeded(
        None, None, pad_height_divisor=DIVISOR, pad_width_divisor=DIVISOR, position="top_left"
    )
    transform = A.Compose(
        [*steps(A), A.Normalize(MEAN, STD), pad, ToTensorV2()],
        bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"]),
    )

    def run(path: Path, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        out = transform(image=image, bboxes=boxes.numpy(), labels=labels.numpy())
        return out["image"][None], torch.as_tensor(out["bboxes"])

    return run


def albumentations_distortion(A: Any) -> list[Any]:
    """Its `ColorJitter` draws all four at once; here each comes with 0.5, as on the other sides."""
    still = dict(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0))
    ranges = DISTORTION | {"hue": (-HUE, HUE)}
    return [A.ColorJitter(**still | {key: ranges[key]}, p=0.5) for key in ranges]


def opencv_read(path: Path, boxes: Tensor, labels: Tensor) -> np.ndarray:
    import cv2

    return cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)


def has_albumentations() -> bool:
    try:
        import albumentations  # noqa: F401
    except ImportError:
        return False
    return True


def cases() -> Iterator[tuple[str, dict[str, Side]]]:
    """(name, sides) of each case; the first side is eyeline's."""
    others = has_albumentations()
    sides: dict[str, Side] = {
        "eyeline": lambda path, boxes, labels: read_image(path),
        "tv": lambda path, boxes, labels: read_with_torchvision(path),
        "tv, PIL": lambda path, boxes, labels: read_with_pillow(path),
    }
    yield "decode", sides | ({"albument.": opencv_read} if others else {})

    for size in ((800, 1333), (320, 533)):
        where = f"{size[0]}/{size[1]}"
        sides = {"eyeline": eyeline_side([], size), "tv detector": torchvision_detector(size)}
        yield f"floats to {where}", sides
        resize = [v2.Resize(size[0], max_size=size[1], antialias=True)]
        ours: list[Any] = [{"resize": {"min_size": size[0], "max_size": size[1]}}]
        sides = {
            "eyeline": eyeline_side(ours, size),
            "tv": torchvision_side(read_with_torchvision, resize),
            "tv, PIL": torchvision_side(read_with_pillow, resize),
        }
        if others:
            sides["albument."] = albumentations_side(lambda A, s=size[0]: [A.SmallestMaxSize(s)])
        yield f"bytes to {where}", sides

    small = (200, 333)  # at most half of COCO's pictures, so that a draft serves
    resize = [v2.Resize(small[0], max_size=small[1], antialias=True)]
    sides = {
        "eyeline": eyeline_side([], small),
        "draft": eyeline_side([], small, draft=small[0]),
        "tv": torchvision_side(read_with_torchvision, resize),
    }
    if others:
        sides["albument."] = albumentations_side(lambda A: [A.SmallestMaxSize(small[0])])
    yield f"small, to {small[0]}/{small[1]}", sides

    scales = [v2.RandomShortestSize(SCALES, max_size=1333, antialias=True)]
    common = [v2.RandomHorizontalFlip(0.5), torchvision_distortion()]
    multi_scale = {"multi_scale": {"min_sizes": list(SCALES), "max_size": 1333}}
    sides = {
        "eyeline": eyeline_side(["hflip", "photometric", multi_scale], (800, 1333)),
        "tv": torchvision_side(read_with_torchvision, common + scales),
        "tv, PIL": torchvision_side(read_with_pillow, common + scales),
    }
    if others:
        sides["albument."] = albumentations_side(
            lambda A: [
                A.HorizontalFlip(p=0.5), *albumentations_distortion(A), A.SmallestMaxSize(SCALES)
            ]
        )  # fmt: skip
    yield "train, multi-scale", sides

    to_320 = {"resize": {"min_size": 320, "max_size": 533}}
    crop = [v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes(), v2.Resize(320, max_size=533)]
    sides = {
        "eyeline": eyeline_side(["hflip", "photometric", "iou_crop", to_320], (320, 533)),
        "tv": torchvision_side(read_with_torchvision, common + crop),
        "tv, PIL": torchvision_side(read_with_pillow, common + crop),
    }
    if others:
        sides["albument."] = albumentations_side(
            lambda A: [
                A.HorizontalFlip(p=0.5), *albumentations_distortion(A),
                A.BBoxSafeRandomCrop(p=6 / 7), A.SmallestMaxSize(320),
            ]
        )  # fmt: skip
    yield "train, crop to 320", sides


# ---- measuring


def compare(sides: dict[str, Side], given: tuple[Path, Tensor, Tensor]) -> None:
    """All batches alike in kind; ours and that of torchvision's detectors in value too."""
    batches = {name: side(*given)[0] for name, side in sides.items()}
    for name, batch in batches.items():
        assert batch.dtype == torch.float32 and batch.shape[:2] == (1, 3), name
        assert batch.shape[2] % DIVISOR == batch.shape[3] % DIVISOR == 0, name
    if "tv detector" in batches:
        difference = (batches["eyeline"] - batches["tv detector"]).abs().max()
        assert difference < 1e-4, f"eyeline and torchvision's detectors differ by {difference}"


def over_all(side: Side, given: list[tuple[Path, Tensor, Tensor]]) -> Callable[[], object]:
    """The side once for every picture. Ours and torchvision draw the same in each round;
    albumentations goes on with numbers of its own."""

    def call() -> None:
        torch.manual_seed(0)
        for one in given:
            side(*one)

    return call


def bench(table: Table, folder: Path | None, quick: bool, only: str = "") -> None:
    """Measure the cases whose names contain `only`, on the JPEGs of `folder` or on made ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        paths = sorted(folder.glob("*.jpg"))[:COUNT] if folder else made_pictures(Path(made))
        if not paths:
            raise SystemExit(f"{folder}: no .jpg there")
        given = [(path, *objects(i, path)) for i, path in enumerate(paths)]
        kilobytes = statistics.mean(path.stat().st_size for path in paths) / 1024
        table.section("input, one thread, a picture", theirs="the other side")
        table.note(f"{len(paths)} pictures, {kilobytes:.0f} KiB each")
        for case, sides in cases():
            if only not in case:
                continue
            if case != "decode":
                compare(sides, given[0])
            calls = {name: over_all(side, given) for name, side in sides.items()}
            seconds = take_turns(calls, 3 if quick else 11, time.process_time)
            taken = {name: [s / len(given) for s in times] for name, times in seconds.items()}
            for name in list(sides)[1:]:
                if name == "draft":  # of ours too: the left side is the one without it
                    table.row(f"{case}: a whole picture, draft", taken["eyeline"], taken[name])
                else:
                    table.row(f"{case}; {name}", taken[name], taken["eyeline"], bar=BAR)
    torch.set_num_threads(threads)

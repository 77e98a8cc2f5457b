"""mmdetection's names of parameters, as patterns, and ours."""

from __future__ import annotations

from eyeline.checkpoints.renaming import NORM, SSD_PLACES, WB

Table = list[tuple[str, str]]

BODY: Table = [
    (r"backbone\.conv1\.weight", r"backbone.conv1.weight"),
    (rf"backbone\.(?:bn|gn)1\.{NORM}", r"backbone.bn1.\1"),
    (
        r"backbone\.layer([1-4])\.(\d+)\.(conv[123]|downsample\.0)\.weight",
        r"backbone.layer\1.\2.\3.weight",
    ),
    (
        rf"backbone\.layer([1-4])\.(\d+)\.(?:bn|gn)([123])\.{NORM}",
        r"backbone.layer\1.\2.bn\3.\4",
    ),
    (
        rf"backbone\.layer([1-4])\.(\d+)\.downsample\.1\.{NORM}",
        r"backbone.layer\1.\2.downsample.1.\3",
    ),
]


def conv(theirs: str, ours: str, groups: int = 0) -> Table:
    """A convolution that brings its norm; `groups` of the pattern's own come first."""
    last = f"\\{groups + 1}"
    return [
        (rf"{theirs}\.conv\.{WB}", f"{ours}.{last}"),
        (rf"{theirs}\.(?:bn|gn)\.{NORM}", f"{ours}.norm.{last}"),
    ]


def neck(levels: int) -> Table:
    """Of a pyramid of so many levels with a lateral convolution; what follows them is extra."""
    table = conv(r"neck\.lateral_convs\.(\d)", r"fpn.lateral.\1", 1)
    for i in range(levels):
        table += conv(rf"neck\.fpn_convs\.{i}", f"fpn.output.{i}")
    for i in range(2):
        table.append((rf"neck\.fpn_convs\.{levels + i}\.conv\.{WB}", rf"fpn.extra.{i}.\1"))
    return table


RPN: Table = [
    (rf"rpn_head\.rpn_conv(?:\.0\.conv)?\.{WB}", r"rpn.conv.\1"),
    *((rf"rpn_head\.rpn_conv\.{i + 1}\.conv\.{WB}", rf"rpn.deeper.{i}.\1") for i in range(8)),
    (rf"rpn_head\.rpn_cls\.{WB}", r"rpn.objectness.\1"),
    (rf"rpn_head\.rpn_reg\.{WB}", r"rpn.deltas.\1"),
]


def box_head(number: str, ours: str) -> Table:
    """`number` is "" or, of a cascade, ".0" and so on."""
    theirs = r"roi_head\.bbox_head" + number.replace(".", r"\.")
    return [
        *conv(rf"{theirs}\.shared_convs\.(\d)", rf"{ours}.convs.\1", 1),
        (rf"{theirs}\.shared_fcs\.0\.{WB}", rf"{ours}.fc1.\1"),
        (rf"{theirs}\.shared_fcs\.1\.{WB}", rf"{ours}.fc2.\1"),
        (rf"{theirs}\.fc_cls\.{WB}", rf"{ours}.classes.\1"),
        (rf"{theirs}\.fc_reg\.{WB}", rf"{ours}.deltas.\1"),
    ]


def mask_head(number: str, ours: str) -> Table:
    theirs = r"roi_head\.mask_head" + number.replace(".", r"\.")
    return [
        *conv(rf"{theirs}\.convs\.(\d)", rf"{ours}.convs.\1", 1),
        (rf"{theirs}\.upsample\.{WB}", rf"{ours}.up.\1"),
        (rf"{theirs}\.conv_logits\.{WB}", rf"{ours}.classes.\1"),
    ]


RETINANET: Table = [
    *BODY,
    *neck(3),
    *conv(r"bbox_head\.cls_convs\.(\d)", r"class_head.tower.\1", 1),
    *conv(r"bbox_head\.reg_convs\.(\d)", r"box_head.tower.\1", 1),
    (rf"bbox_head\.retina_cls\.{WB}", r"class_head.output.\1"),
    (rf"bbox_head\.retina_reg\.{WB}", r"box_head.output.\1"),
]

# The extra layers and the norm were the backbone's before 2.14, and the heads no lists.
SSD: Table = [
    *(
        (rf"backbone\.features\.{i}\.{WB}", rf"backbone.{name}.\1")
        for i, name in SSD_PLACES.items()
    ),
    *(
        (pattern, rf"extras.{i}.{name}.\1")
        for i in range(5)
        for j, name in enumerate(("reduce", "output"))
        for pattern in (
            rf"neck\.extra_layers\.{i}\.{j}\.conv\.{WB}",
            rf"backbone\.extra\.{2 * i + j}\.{WB}",
        )
    ),
    (r"(?:neck|backbone)\.l2_norm\.weight", "conv4_norm.weight"),
    (rf"bbox_head\.cls_convs\.(\d)(?:\.0)?\.{WB}", r"class_heads.\1.\2"),
    (rf"bbox_head\.reg_convs\.(\d)(?:\.0)?\.{WB}", r"box_heads.\1.\2"),
]


def leaky(theirs: str, ours: str, groups: int = 0) -> Table:
    """One of Darknet's convolutions."""
    last = f"\\{groups + 1}"
    return [
        (rf"{theirs}\.conv\.weight", f"{ours}.conv.weight"),
        (rf"{theirs}\.bn\.{NORM}", f"{ours}.norm.{last}"),
    ]


YOLOV3: Table = [
    *leaky(r"backbone\.conv1", "backbone.stem"),
    *leaky(r"backbone\.conv_res_block(\d)\.conv", r"backbone.stage\1.0", 1),
    *(
        line
        for i in range(8)
        for j, name in enumerate(("narrow", "wide"), 1)
        for line in leaky(
            rf"backbone\.conv_res_block(\d)\.res{i}\.conv{j}",
            rf"backbone.stage\1.{i + 1}.{name}",
            1,
        )
    ),
    *(
        line
        for s in range(3)
        for i in range(5)
        for line in leaky(rf"neck\.detect{s + 1}\.conv{i + 1}", rf"scales.{s}.tower.{i}")
    ),
    *leaky(r"neck\.conv([12])", r"scales.\1.reduce", 1),
    *leaky(r"bbox_head\.convs_bridge\.(\d)", r"scales.\1.last", 1),
    (rf"bbox_head\.convs_pred\.(\d)\.{WB}", r"scales.\1.output.\2"),
]

"""Configurations that are no paper's network, narrow enough for a test; see `make_darknet.py`."""

from __future__ import annotations

from darknet import REGION, YOLOV3, conv, route, yolo

POOL = "[maxpool]\nsize=2\nstride=2\n"
UP = "[upsample]\nstride=2\n"
SHORT = "[shortcut]\nfrom=-3\nactivation=linear\n"


def net(side):
    return f"[net]\nbatch=1\nwidth={side}\nheight={side}\nchannels=3\nburn_in=1000\n"


def activated(text, activation):
    return text.replace("activation=leaky", f"activation={activation}")


def spp(classes, side):
    """yolov3-spp.cfg with an eighth of the channels."""
    parts, width = [net(side), conv(4, 3)], 4
    for depth in (1, 2, 8, 8, 4):
        width *= 2
        parts += [conv(width, 3, 2), *[conv(width // 2, 1), conv(width, 3), SHORT] * depth]
    for width, mask, skip in ((128, "6,7,8", None), (64, "3,4,5", 61), (32, "0,1,2", 36)):
        narrow, wide = conv(width // 2, 1), conv(width, 3)
        if skip:
            parts += [route(-4), narrow, UP, route(-1, skip), *[narrow, wide] * 3]
        else:
            pools = [f"[maxpool]\nstride=1\nsize={size}\n" for size in (5, 9, 13)]
            parts += [narrow, wide, narrow, pools[0], route(-2), pools[1], route(-4), pools[2]]
            parts += [route(-1, -3, -5, -6), *[narrow, wide] * 2]
        parts += [conv(3 * (5 + classes), 1, linear=True), yolo(mask, YOLOV3, classes)]
    return "".join(parts)


def two_heads(classes, side):
    """Odd widths, other activations, groups, windows and a head of the finer scale first."""
    parts = [net(side), conv(10, 3, 2), "[maxpool]\nsize=3\nstride=2\n", conv(17, 3)]
    parts += [activated(conv(17, 5), "relu"), "[shortcut]\nfrom=-2\nactivation=relu\n"]
    parts += [activated(conv(34, 3, 2), "mish"), conv(34, 3).replace("pad=1", "pad=1\ngroups=17")]
    parts += [
        route(-1, -2),
        activated(conv(21, 1), "swish"),
        conv(2 * (5 + classes), 1, linear=True),
    ]
    parts += [yolo("1,3", YOLOV3, classes), route(7), conv(40, 3, 2), conv(40, 3, 2)]
    parts += ["[maxpool]\nsize=2\nstride=1\n", activated(conv(23, 1), "logistic")]
    parts += ["[upsample]\nstride=4\n", route(-1, 5), activated(conv(31, 3, 2), "tanh")]
    parts += ["[convolutional]\nfilters=31\nsize=3\npadding=1\nactivation=linear\n"]
    parts += [conv(2 * (5 + classes), 1, linear=True), yolo("6,8", YOLOV3, classes)]
    return "".join(parts)


def five_heads(classes, side):
    """Heads at strides 8 to 128, the coarsest first, with two priors each."""
    parts, ends = [net(side), conv(8, 3)], []
    for width in (12, 16, 20, 24, 28, 32, 36):
        parts += [conv(width, 3, 2), conv(width, 3)]
        ends.append(len(parts) - 2)
    for i, end in enumerate(ends[:1:-1]):
        if i:
            parts += [route(-3), conv(14, 1), UP, route(-1, end)]
        first = (8, 6, 4, 2, 0)[i]
        mask = f"{first}" if i == 0 else f"{first},{first + 1}"
        mask = "8,7" if i == 0 else mask
        parts += [conv(26, 1), conv(2 * (5 + classes), 1, linear=True), yolo(mask, YOLOV3, classes)]
    return "".join(parts)


def region(classes, side):
    """YOLOv2's head on a residual network of stride 16, whose fine map comes in by a reorg of 4."""
    parts = [net(side), conv(16, 7, 2), POOL, conv(16, 1), conv(16, 3), SHORT, conv(48, 3, 2)]
    parts += [
        activated(conv(24, 1), "relu"),
        conv(48, 3),
        SHORT,
        conv(64, 3, 2),
        route(4),
        conv(16, 1),
    ]
    parts += [
        "[reorg]\nstride=4\n",
        route(-1, 9),
        conv(40, 3),
        conv(5 * (5 + classes), 1, linear=True),
    ]
    text = ",".join(map(str, REGION))
    return "".join(parts) + (
        f"[region]\nanchors={text}\nbias_match=1\nclasses={classes}\ncoords=4\nnum=5\nsoftmax=1\n"
        "rescore=1\nobject_scale=5\nabsolute=1\nthresh=0.00001\n"
    )


LAYERS = {"spp": spp, "two_heads": two_heads, "five_heads": five_heads, "region": region}

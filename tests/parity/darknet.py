"""A darknet configuration and file of weights for a model of ours: what OpenCV reads."""

from __future__ import annotations

import numpy as np

YOLOV3 = (10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326)
TINY = (10, 14, 23, 27, 37, 58, 81, 82, 135, 169, 344, 319)


def conv(filters, size, stride=1, linear=False):
    norm = "" if linear else "batch_normalize=1\n"
    kind = "linear" if linear else "leaky"
    return (
        f"[convolutional]\n{norm}filters={filters}\nsize={size}\nstride={stride}\npad=1\n"
        f"activation={kind}\n"
    )


def yolo(mask, priors, classes):
    text = ",".join(map(str, priors))
    return (
        f"[yolo]\nmask={mask}\nanchors={text}\nclasses={classes}\nnum={len(priors) // 2}\n"
        "ignore_thresh=.7\nthresh=0.00001\n"
    )


def route(*layers):
    return f"[route]\nlayers={','.join(map(str, layers))}\n"


def yolov3_cfg(classes, side):
    parts = [f"[net]\nwidth={side}\nheight={side}\nchannels=3\n", conv(32, 3)]
    width = 32
    for depth in (1, 2, 8, 8, 4):
        width *= 2
        parts.append(conv(width, 3, 2))
        for _ in range(depth):
            parts += [conv(width // 2, 1), conv(width, 3)]
            parts.append("[shortcut]\nfrom=-3\nactivation=linear\n")
    for width, mask, skip in ((1024, "6,7,8", None), (512, "3,4,5", 61), (256, "0,1,2", 36)):
        if skip is not None:
            parts += [route(-4), conv(width // 2, 1), "[upsample]\nstride=2\n", route(-1, skip)]
        parts += [conv(width // 2, 1), conv(width, 3)] * 3
        parts += [conv(3 * (5 + classes), 1, linear=True), yolo(mask, YOLOV3, classes)]
    return "".join(parts)


def tiny_cfg(classes, side):
    parts = [f"[net]\nwidth={side}\nheight={side}\nchannels=3\n"]
    for width in (16, 32, 64, 128, 256, 512):
        stride = 1 if width == 512 else 2
        parts += [conv(width, 3), f"[maxpool]\nsize=2\nstride={stride}\n"]
    parts += [conv(1024, 3), conv(256, 1), conv(512, 3)]
    parts += [conv(3 * (5 + classes), 1, linear=True), yolo("3,4,5", TINY, classes)]
    parts += [route(-4), conv(128, 1), "[upsample]\nstride=2\n", route(-1, 8), conv(256, 3)]
    parts += [conv(3 * (5 + classes), 1, linear=True), yolo("0,1,2", TINY, classes)]
    return "".join(parts)


REGION = (1.3221, 1.73145, 3.19275, 4.00944, 5.05587, 8.09892, 9.47112, 4.84053, 11.2364, 10.0071)


def region(classes):
    # OpenCV takes `thresh` for that of scores.
    text = ",".join(map(str, REGION))
    return (
        f"[region]\nanchors={text}\nbias_match=1\nclasses={classes}\ncoords=4\nnum=5\nsoftmax=1\n"
        "rescore=1\nobject_scale=5\nabsolute=1\nthresh=0.00001\n"
    )


def yolov2_cfg(classes, side):
    pool = "[maxpool]\nsize=2\nstride=2\n"
    parts = [f"[net]\nwidth={side}\nheight={side}\nchannels=3\n", conv(32, 3), pool, conv(64, 3)]
    for width, depth in ((128, 3), (256, 3), (512, 5), (1024, 5)):
        parts.append(pool)
        parts += [conv(width // 2, 1) if i % 2 else conv(width, 3) for i in range(depth)]
    parts += [conv(1024, 3), conv(1024, 3), route(-9), conv(64, 1), "[reorg]\nstride=2\n"]
    parts += [route(-1, -4), conv(1024, 3), conv(5 * (5 + classes), 1, linear=True)]
    return "".join([*parts, region(classes)])


def yolov2_tiny_cfg(classes, side):
    parts = [f"[net]\nwidth={side}\nheight={side}\nchannels=3\n"]
    for width in (16, 32, 64, 128, 256, 512):
        stride = 1 if width == 512 else 2
        parts += [conv(width, 3), f"[maxpool]\nsize=2\nstride={stride}\n"]
    parts += [conv(1024, 3), conv(512, 3), conv(5 * (5 + classes), 1, linear=True)]
    return "".join([*parts, region(classes)])


CFGS = {
    "yolov3": yolov3_cfg,
    "yolov3_tiny": tiny_cfg,
    "yolov2": yolov2_cfg,
    "yolov2_tiny": yolov2_tiny_cfg,
}
# What is none of our names is a model with these options.
OPTIONS = {
    "yolov2_tiny": dict(backbone="darknet_tiny", tower_depth=0, passthrough="none", neck_width=512),
}


def model_of(name):
    """The name of ours and the options of one of CFGS."""
    return name.removesuffix("_tiny") if name in OPTIONS else name, OPTIONS.get(name, {})


def write_weights(path, state, convolutions):
    """`state` by our names, in the order of (convolution, norm or None)."""
    with open(path, "wb") as file:
        np.array([0, 2, 0], "<i4").tofile(file)
        np.array([7], "<i8").tofile(file)
        for name, norm in convolutions:
            keys = [f"{name}.bias"]
            if norm:
                keys = [
                    f"{norm}.{key}" for key in ("bias", "weight", "running_mean", "running_var")
                ]
            for key in [*keys, f"{name}.weight"]:
                np.asarray(state[key], "<f4").tofile(file)

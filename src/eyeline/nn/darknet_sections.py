"""A darknet network as it is written: layers, their options, and which others they read.

A network is told in lines, one a layer, so that a config holds it as plain data:

    convolutional filters=32 size=3 padding=1 batch_normalize=1 activation=leaky
    maxpool size=2 stride=2
    route layers=0,1
    yolo

Words and defaults are those of darknet's `.cfg`, where the same stands in sections. A layer reads
the result of the one before it; [route] and [shortcut] name others, by number from 0 or, below 0,
back from their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from eyeline.errors import EyelineError

HEADS = ("yolo", "region", "detection")
# Of each kind of layer the options that are read, and what they are where none is given.
READ: dict[str, dict[str, str]] = {
    "convolutional": dict(
        filters="1", size="1", stride="1", pad="0", padding="0", groups="1", batch_normalize="0",
        activation="logistic",
    ),
    "local": dict(filters="1", size="1", stride="1", pad="0", activation="logistic"),
    "connected": dict(output="1", activation="logistic"),
    "maxpool": dict(size="", stride="1", padding=""),  # the stride; size - 1
    "route": dict(layers=""),
    "shortcut": {"from": "", "activation": "linear"},
    "upsample": dict(stride="2"),
    "reorg": dict(stride="1"),
    "dropout": dict(probability="0.5"),
    "crop": dict(crop_height="1", crop_width="1"),
    **{kind: {} for kind in ("avgpool", "softmax", "cost", *HEADS)},
}  # fmt: skip
# The other options: those that change nothing, and those that do unless they have this value.
IDLE = (
    "learning_rate", "onlyforward", "stopbackward", "dontsave", "smooth", "clip", "cost", "numload",
    "flip", "angle", "saturation", "exposure", "shift", "noadjust", "type", "scale_l2",
)  # fmt: skip
ONLY = dict(
    batch_normalize=0, binary=0, xnor=0, flipped=0, dot=0, dilation=1, antialiasing=0, groups=1,
    group_id=0, maxpool_depth=0, out_channels=1, reverse=0, flatten=0, extra=0, scale=1, alpha=1,
    beta=1, dontload=0, dontloadscales=0, temperature=1, scale_x_y=1, new_coords=0,
)  # fmt: skip
ACTIVATIONS = (
    "linear", "leaky", "relu", "relu6", "relie", "elu", "logistic", "tanh", "mish", "swish"
)  # fmt: skip
NAMED = {"route": "layers", "shortcut": "from"}  # where other layers are named
MOST = 65536  # of an option that is a whole number


class Section(NamedTuple):
    """A layer as it is written."""

    kind: str
    options: dict[str, str]
    where: str  # what messages call it: "yolo.cfg, line 12"

    def error(self, text: str) -> EyelineError:
        return EyelineError(f"{self.where}, [{self.kind}]: {text}")

    def text(self, key: str, default: str | None = None) -> str:
        """The value of an option, or what it is where none is given."""
        found = self.options.get(key, "")
        return found or (READ[self.kind][key] if default is None else default)

    def whole(self, key: str, least: int = 1, default: int | None = None) -> int:
        """The value of an option that is a whole number."""
        text = self.text(key, None if default is None else str(default))
        return self.number(key, text, least)

    def number(self, key: str, text: str, least: int, most: int = MOST) -> int:
        """A whole number in the value of an option."""
        try:
            value = int(text)
        except ValueError:
            raise self.error(f"{key}={text} is no whole number") from None
        if not least <= value <= most:
            raise self.error(f"{key}={value} is not from {least} to {most}")
        return value

    def real(self, key: str, text: str | None = None, default: str | None = None) -> float:
        """A number in the value of an option; all of the value by default."""
        text = self.text(key, default) if text is None else text
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(f"{key}={text.strip()} is no number")
        return value

    def share(self, key: str, default: str | None = None) -> float:
        """The value of an option from 0 to 1."""
        value = self.real(key, default=default)
        if not 0 <= value <= 1:
            raise self.error(f"{key}={value:g} is not from 0 to 1")
        return value

    def activation(self) -> str:
        name = self.text("activation")
        if name not in ACTIVATIONS:
            raise self.error(f"activation={name} is none of {', '.join(ACTIVATIONS)}")
        return name

    def padding(self) -> int:
        """Of a convolution, on each side."""
        return self.whole("size") // 2 if self.whole("pad", 0) else self.whole("padding", 0)

    def window(self) -> tuple[int, int, int]:
        """Of a pooling: size, stride, padding on both sides together."""
        stride = self.whole("stride")
        size = self.number("size", self.text("size") or str(stride), 1)
        return size, stride, self.number("padding", self.text("padding") or str(size - 1), 0)

    def reads(self, number: int) -> tuple[int, ...]:
        """The layers whose results it takes, itself being that number; -1 is the picture."""
        if self.kind not in NAMED:
            return (number - 1,)
        key, found = NAMED[self.kind], [number - 1] if self.kind == "shortcut" else []
        for text in self.text(key).split(","):
            row = self.number(key, text.strip(), -MOST)
            row += number if row < 0 else 0
            if not 0 <= row < number:
                raise self.error(f"{key}={text.strip()} is no layer before it, which is {number}")
            found.append(row)
        if self.kind == "shortcut" and len(found) > 2:
            raise self.error(f"from={self.text(key)}, and one layer is read")
        return tuple(found)

    def line(self, number: int) -> str:
        """The layer of that number in the words of this module; the same of equal layers."""
        told = {key: self.text(key) for key in READ[self.kind]}
        if self.kind in NAMED:
            named = self.reads(number)[self.kind == "shortcut" :]
            told[NAMED[self.kind]] = ",".join(map(str, named))
        elif self.kind == "convolutional":
            told |= {"padding": str(self.padding()), "pad": "0"}
        elif self.kind == "maxpool":
            size, _, padding = self.window()
            told |= {"size": str(size), "padding": "" if padding == size - 1 else str(padding)}
        usual = READ[self.kind]
        return " ".join([self.kind, *(f"{k}={v}" for k, v in told.items() if v != usual[k])])

    def check(self) -> None:
        """Raises EyelineError where the kind, or an option that matters, is not read."""
        if self.kind not in READ:
            raise self.error(f"no such layer is read; known are {', '.join(READ)}")
        for key, value in self.options.items():
            if key in READ[self.kind] or key in IDLE or (self.kind in HEADS and key not in ONLY):
                continue
            if key not in ONLY:
                raise self.error(f"{key}={value}: no such option is known")
            try:
                usual = float(value) == ONLY[key]
            except ValueError:
                usual = False
            if not usual:
                raise self.error(f"{key}={value}, and {ONLY[key]} alone is read")


def sections_of(lines: Sequence[str | Section]) -> list[Section]:
    """The layers of a network, checked, from lines."""
    found = []
    for i, line in enumerate(lines):
        if isinstance(line, str):
            kind, *parts = line.split() or [""]
            options = {key: value for key, _, value in (part.partition("=") for part in parts)}
            section = Section(kind, options, f"layers, number {i}")
        else:
            section = line
        section.check()
        found.append(section)
    return found


def lines_of(sections: Sequence[Section]) -> tuple[str, ...]:
    """A network's lines; of equal networks the same."""
    return tuple(section.line(i) for i, section in enumerate(sections))

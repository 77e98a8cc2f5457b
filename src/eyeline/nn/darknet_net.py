"""The network that a darknet `.cfg` describes, layer after layer, for the heads of YOLO's papers.

Redmon, "Darknet: Open Source Neural Networks in C", 2013-2016: the language in which YOLO's authors
wrote their networks (`eyeline.nn.darknet_sections`). [yolo], [region] and [detection] end a branch:
a paper's file decodes what they read.

Letters   B pictures, C channels, H and W of a map.
Departs   a layer that does not fit those it reads is an error, where darknet cuts maps to fit: a
          shortcut of unequal maps, a route of other sizes, a window larger than its map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.nn.darknet_layers import BUILD, How, Result, same
from eyeline.nn.darknet_sections import HEADS, MOST, READ, Section, sections_of
from eyeline.note import note

COARSEST = 1024  # pixels of a cell


class DarknetNet(nn.Module):
    """A network of darknet's layers: pictures (B, in_channels, H, W) to a list of what its heads
    read, (B, outputs, h, w), the finest first. Its modules are called by the layers' numbers.

    Args:
        layers: lines, or the sections of a file.
        head: the kind of its heads, "yolo", or one "region" or "detection"; None: any, or none.
        outputs: channels that each head reads, whatever the layer before it says of filters; None:
            what it says.
        size: height and width of the pictures, or both. A network without [connected], [local] or
            [crop] takes any multiple of `divisor`, and is built for the next one.
        norm: of the layers with batch_normalize=1, "batch", "frozen" or "group"; it adds `epsilon`
            to the variance.

    Raises EyelineError, which names the layer, where one is unknown or does not fit those it reads.
    """

    def __init__(
        self,
        layers: Sequence[str | Section],
        head: str | None,
        outputs: int | None,
        in_channels: int,
        size: int | tuple[int, int],
        norm: str = "batch",
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__()
        sections = sections_of(layers)
        self.reads = [section.reads(i) for i, section in enumerate(sections)]
        self.heads = [i for i, section in enumerate(sections) if section.kind in HEADS]
        if head is not None:
            _check_heads(sections, self.heads, head)
        strides = _strides(sections, self.reads)
        canvas = (size, size) if isinstance(size, int) else size
        fixed = any(section.kind in ("connected", "local", "crop") for section in sections)
        self.divisor = 32 if fixed else math.lcm(32, *(stride.numerator for stride in strides))
        height, width = (side if fixed else _up(side, self.divisor) for side in canvas)
        before_heads = {self.reads[i][0] for i in self.heads}
        self.results: list[Result] = []
        for i, section in enumerate(sections):
            given = [self.results[j] for j in self.reads[i] if j >= 0]
            for j in self.reads[i]:
                if j in self.heads:
                    raise section.error(f"it reads layer {j}, [{sections[j].kind}], an end")
            picture = Result(in_channels, height, width, Fraction(1))
            how = How(norm, epsilon, outputs if i in before_heads else None)
            module, shape = BUILD.get(section.kind, same)(section, given or [picture], how)
            if not 1 <= min(shape) <= max(shape) <= MOST:
                text = " x ".join(map(str, shape))
                raise section.error(f"of {(given or [picture])[0]} it makes {text}")
            if section.kind in HEADS and outputs not in (None, shape[0]):
                raise section.error(f"it reads {shape[0]} channels, not {outputs}")
            self.add_module(str(i), module)
            self.results.append(Result(*shape, strides[i]))
        first_head = min(self.heads, default=0)
        self.heads.sort(key=lambda i: self.results[i].stride)
        for i in self.heads:
            _, h, w, stride = self.results[i]
            if sections[i].kind == "detection":
                continue  # no map
            if stride < 1 or (h * stride, w * stride) != (height, width):
                raise sections[i].error(
                    f"its {h} x {w} cells do not make {height} x {width} pixels"
                )
        self.strides = [int(self.results[i].stride) for i in self.heads]
        # The layers that depend on the classes.
        self.ends = [str(self.reads[i][0]) for i in self.heads]
        for name in self.ends:
            end = getattr(self.get_submodule(name), "conv", None)
            if end is not None and end.bias is not None:
                nn.init.normal_(end.weight, std=0.01)
                nn.init.zeros_(end.bias)
        self.features = _features([section.kind for section in sections], strides, first_head)
        last = {j: i for i, reads in enumerate(self.reads) for j in reads}
        for i in (*self.heads, *self.features.values()):
            last.pop(i, None)
        self.done = [{j for j in reads if last.get(j) == i} for i, reads in enumerate(self.reads)]

    def forward(self, x: Tensor) -> list[Tensor]:
        found = {-1: x}
        for i, layer in enumerate(self.children()):
            found[i] = layer(*[found[j] for j in self.reads[i]])
            for j in self.done[i]:
                del found[j]
        if self.features:
            name = f"features C{min(self.features)} to C{max(self.features)}"
            note(name, [found[i] for i in self.features.values()])
        return [found[i] for i in self.heads]


def _up(side: int, divisor: int) -> int:
    return -(-side // divisor) * divisor


def _check_heads(sections: Sequence[Section], heads: Sequence[int], kind: str) -> None:
    """Whether a network has the heads of a paper."""
    if not heads:
        raise EyelineError(f"{sections[-1].where if sections else 'layers'}: no layer [{kind}]")
    for i in heads:
        if sections[i].kind != kind:
            raise sections[i].error(f"the network's heads have to be [{kind}]")
    if kind != "yolo" and len(heads) > 1:
        raise sections[heads[1]].error("one such layer is read, not several")


def _strides(sections: Sequence[Section], reads: Sequence[tuple[int, ...]]) -> list[Fraction]:
    """Pixels of a cell of each layer's result, as far as strides tell."""
    found: list[Fraction] = []
    for section, (first, *_) in zip(sections, reads, strict=True):
        stride = found[first] if first >= 0 else Fraction(1)
        if section.kind == "upsample":
            stride /= section.whole("stride")
        elif "stride" in READ[section.kind]:
            stride *= section.whole("stride")
        found.append(stride)
        if math.lcm(*(s.numerator for s in found)) > COARSEST:
            raise section.error(f"cells of {stride} pixels; {COARSEST} is the most")
    return found


def _features(kinds: Sequence[str], strides: Sequence[Fraction], first_head: int) -> dict[int, int]:
    """The layers that give C2 to C5, by their numbers 2 to 5: the last ones at strides 4 to 32
    before the map grows smaller or, where it does not, the first head's output comes. Without gaps.
    """
    found: dict[int, int] = {}
    flat = next((i for i, kind in enumerate(kinds) if kind in ("local", "connected")), len(kinds))
    for level in (2, 3, 4, 5):
        end = next((i for i, s in enumerate(strides) if s > 2**level), first_head - 1)
        rows = [i for i in range(min(end, flat)) if strides[i] == 2**level]
        if rows:
            found[level] = rows[-1]
    return found if len(found) == max(found, default=0) - min(found, default=1) + 1 else {}

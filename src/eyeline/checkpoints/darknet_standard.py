"""The papers' own networks as darknet's layers, to know them in a `.cfg`.

The numbers that the models of ours have as options may differ; the layers may not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from eyeline.nn.darknet_sections import Section, lines_of, sections_of

Found = tuple[str, dict[str, Any], list[str]]  # name and options of a model, its network
POOL = "maxpool size=2 stride=2"


def standard(sections: Sequence[Section]) -> tuple[str, dict[str, Any]] | None:
    """The name and options of the model of ours whose network this is; None where there is none."""
    end = next((i for i, section in enumerate(sections) if section.kind in LIKE), None)
    widths = [s.whole("filters") for s in sections if s.kind == "convolutional"]
    if not end or len(widths) < 4:
        return None
    outputs = sections[end - 1].options.get("filters") or sections[end - 1].options.get("output")
    own = lines_of(sections)
    for name, options, lines in LIKE[sections[end].kind](sections, widths, outputs):
        if len(lines) == len(own) and lines_of(sections_of(lines)) == own:
            return name, options
    return None


def _conv(width: int, size: int, stride: int = 1, norm: int = 1) -> str:
    return (
        f"convolutional filters={width} size={size} stride={stride} pad=1 "
        f"batch_normalize={norm} activation=leaky"
    )


def _output(width: Any) -> str:
    return f"convolutional filters={width} activation=linear"


def _yolov3(_sections: Any, _widths: Any, outputs: Any) -> Iterator[Found]:
    lines, width = [_conv(32, 3)], 32
    for depth in (1, 2, 8, 8, 4):
        width *= 2
        lines.append(_conv(width, 3, 2))
        lines += [_conv(width // 2, 1), _conv(width, 3), "shortcut from=-3"] * depth
    for width, skip in ((1024, None), (512, 61), (256, 36)):
        if skip:
            lines += [
                "route layers=-4",
                _conv(width // 2, 1),
                "upsample",
                f"route layers=-1,{skip}",
            ]
        lines += [_conv(width // 2, 1), _conv(width, 3)] * 3 + [_output(outputs), "yolo"]
    yield "yolov3", {}, lines
    lines = [*_tiny(), _conv(256, 1), _conv(512, 3), _output(outputs), "yolo"]
    lines += ["route layers=-4", _conv(128, 1), "upsample", "route layers=-1,8", _conv(256, 3)]
    yield "yolov3_tiny", {}, [*lines, _output(outputs), "yolo"]


def _tiny() -> list[str]:
    lines = []
    for width in (16, 32, 64, 128, 256):
        lines += [_conv(width, 3), POOL]
    return [*lines, _conv(512, 3), "maxpool size=2 stride=1", _conv(1024, 3)]


def _darknet19() -> list[str]:
    lines = [_conv(32, 3), POOL, _conv(64, 3)]
    for width, depth in ((128, 3), (256, 3), (512, 5), (1024, 5)):
        lines.append(POOL)
        lines += [_conv(width // 2, 1) if i % 2 else _conv(width, 3) for i in range(depth)]
    return lines


def _yolov2(sections: Sequence[Section], widths: list[int], outputs: Any) -> Iterator[Found]:
    tiny = widths[0] == 16  # the small Darknet's seven convolutions
    depth = len(widths) - (7 if tiny else 18) - 2
    passthrough, width, neck = "none", 0, widths[-2]
    reorg = next((i for i, section in enumerate(sections) if section.kind == "reorg"), None)
    if reorg:
        passthrough = "darknet"
        if sections[reorg - 1].kind == "convolutional":
            width, depth = sections[reorg - 1].whole("filters"), depth - 1
    lines = _tiny() if tiny else _darknet19()
    lines += [_conv(neck, 3)] * depth
    if reorg:
        last = len(lines) - 1
        lines += [f"route layers={8 if tiny else 16}", *([_conv(width, 1)] if width else [])]
        lines += ["reorg stride=2", f"route layers=-1,{last}"]
    options = {
        "backbone": "darknet_tiny" if tiny else "darknet19",
        "neck_width": neck,
        "tower_depth": max(depth, 0),
        "passthrough": passthrough,
        "passthrough_width": width,
    }
    yield "yolov2", options, [*lines, _conv(neck, 3), _output(outputs), "region"]


def _yolov1(sections: Sequence[Section], widths: list[int], outputs: Any) -> Iterator[Found]:
    neck, norm = widths[-1], sections[0].text("batch_normalize", "0") == "1"
    hidden = next((s for s in sections if s.kind in ("local", "connected")), sections[-1])
    dropout = next((s for s in sections if s.kind == "dropout"), None)
    wide = [(64, 7), None, (192, 3), None, (128, 1), (256, 3), (256, 1), (512, 3), None]
    wide += [*[(256, 1), (512, 3)] * 4, (512, 1), (1024, 3), None, *[(512, 1), (1024, 3)] * 2]
    lines = [POOL if one is None else _conv(one[0], one[1], 1, int(norm)) for one in wide]
    lines[0] = _conv(64, 7, 2, int(norm))
    lines += [_conv(neck, 3, stride, int(norm)) for stride in (1, 2, 1, 1)]
    width = hidden.text("filters" if hidden.kind == "local" else "output", "1")
    key = "filters" if hidden.kind == "local" else "output"
    window = " size=3 pad=1" if hidden.kind == "local" else ""
    lines.append(f"{hidden.kind} {key}={width}{window} activation=leaky")
    part = 0.0 if dropout is None else dropout.share("probability")
    lines += [] if dropout is None else [f"dropout probability={dropout.text('probability')}"]
    options = {
        "norm": "batch" if norm else "none",
        "neck_width": neck,
        "head": hidden.kind,
        "head_width": int(width),
        "dropout": part,
    }
    yield "yolov1", options, [*lines, f"connected output={outputs} activation=linear", "detection"]


LIKE: dict[str, Callable[..., Iterator[Found]]] = {
    "yolo": _yolov3,
    "region": _yolov2,
    "detection": _yolov1,
}

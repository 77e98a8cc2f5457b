"""Who runs when, told by a clock that ticks at each look."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from slow_toy import Toy

import eyeline
from eyeline.inspection.limits import Limits
from eyeline.inspection.meters import Amounts
from eyeline.inspection.profile import fixed_size, objects, picture
from eyeline.inspection.stages import Recorder, build_stages, watching
from eyeline.nn.heads import rpn
from eyeline.ops import boxes, nms

LIMITS = Limits("abacus", 1, float32=10.0, bf16=100.0, fp16=None, int8=None, bandwidth=1.0)
SIZE = (64, 64)


class Ticks:
    """One second passes from mark to mark."""

    def __init__(self) -> None:
        self.now = 0

    def mark(self) -> int:
        self.now += 1
        return self.now

    def between(self, start: int, end: int) -> Amounts:
        return Counter(seconds=end - start)

    def wait(self) -> None:
        pass


def watch(model: Any, depth: int = 9, training: bool = False) -> tuple[Recorder, dict[Any, int]]:
    """What is booked in one call, in ticks."""
    recorder = Recorder(Ticks(), depth)
    images, targets = [picture(SIZE, 0)], None
    if training:
        targets = [objects(SIZE, 0, len(model.classes), model.needs_masks)]
    batch = model.prepare(images, targets)
    with torch.set_grad_enabled(training), watching(model, recorder):
        if training:
            sum(model(batch).values()).backward()
        else:
            model.finish(model.compute(batch), batch)
        own = recorder.own()
    return recorder, {path: amounts["seconds"] for path, amounts in own.items()}


def test_the_tree_of_a_toy() -> None:
    recorder, own = watch(Toy().eval())
    assert list(own) == [
        (), ("between the stages: compute",), ("between the stages: features",), ("backbone",),
        ("backbone", "conv"), ("head",), ("head", "conv"), ("backbone.decide",),
        ("backbone.decide", "clip"), ("finish",),
    ]  # fmt: skip
    assert recorder.calls[("backbone",)] == recorder.calls[("backbone.decide", "clip")] == 1
    assert recorder.calls[("between the stages: compute",)] == 0


def test_nothing_is_lost() -> None:
    """Every tick from the start to the end is somebody's."""
    recorder, own = watch(Toy().eval())
    assert sum(own.values()) == recorder.meter.now - 1  # type: ignore[attr-defined]


def test_depth() -> None:
    assert max(map(len, watch(Toy().eval(), depth=1)[1])) == 1
    assert max(map(len, watch(Toy().eval(), depth=2)[1])) == 2


def test_a_backward_pass_is_booked_by_stage() -> None:
    _, own = watch(Toy(), training=True)
    backward = [path for path in own if path[0:1] == ("backward",)]
    assert backward == [
        ("backward", "between the stages: losses"), ("backward", "head"),
        ("backward", "head", "conv"), ("backward", "between the stages: features"),
        ("backward", "backbone"), ("backward", "backbone", "conv"),
    ]  # fmt: skip
    assert own[()] == 3  # before forward, after it, and again once the nodes are found


@pytest.mark.parametrize("name", eyeline.list_models("detection"))
def test_stages_of_every_detector(name: str) -> None:
    options: dict[str, Any] = {"num_classes": 3, "backbone": "resnet18"}
    few = {"size": 96, "neck_width": 64, "head_width": 64, "norm": "group"}
    options |= few if name == "yolov1" else {}
    last = {
        "ssd": "extras", "refinedet": "transfer", "yolov1": "neck", "yolov2": "head",
        "yolov3": "scales",
    }  # fmt: skip
    neck = next((part for start, part in last.items() if name.startswith(start)), "fpn")
    options |= {"fpn_channels": 32} if neck == "fpn" else {}
    model: Any = fixed_size(eyeline.create_model(name, **options), SIZE).eval()
    children = {child for child, _ in model.named_children()}
    _, own = watch(model, depth=1)
    found = {path[0].partition(".")[0] for path in own if path}  # of a list "heads.0" and so on
    assert children | {"finish"} <= found
    _, own = watch(model.train(), depth=2, training=True)
    for stage in ("backbone", neck):
        assert ("forward", stage) in own and ("backward", stage) in own
    ends = {path[-1] for path in own if path[:1] == ("backward",)}
    assert any(part in end for end in ends for part in ("head", "scales", "output"))
    assert all(p.grad is not None for p in model.backbone.parameters())


def test_everything_is_put_back() -> None:
    model = eyeline.create_model("faster_rcnn", num_classes=3, backbone="resnet18")
    before = (nms.nms_padded, boxes.clip, rpn.nms_padded, dict(vars(model)), dict(vars(model.rpn)))
    recorder = Recorder(Ticks(), 1)
    with pytest.raises(KeyboardInterrupt), watching(model, recorder):
        assert rpn.nms_padded is not before[2] and "propose" in vars(model.rpn)
        raise KeyboardInterrupt
    assert (nms.nms_padded, boxes.clip, rpn.nms_padded) == before[:3]
    assert (dict(vars(model)), dict(vars(model.rpn))) == before[3:]
    hooks = [h for m in model.modules() for h in (m._forward_hooks, m._forward_pre_hooks)]
    assert hooks and not any(hooks)


def test_floors_and_sums() -> None:
    """By hand: a floor is work / limit, the larger of the two, and parts add up."""
    seconds = {(): 1.0, ("a",): 4.0, ("a", "x"): 5.0, ("b",): 10.0}
    work = {("a",): Counter(bytes=2), ("a", "x"): Counter(float32=40, bytes=1),
            ("b",): Counter(bf16=100, bytes=5)}  # fmt: skip
    a, b, rest = build_stages(seconds, work, Counter({("b",): 3}), LIMITS)
    assert (a.name, a.seconds, a.bytes, a.operations) == ("a", 9.0, 3, {"float32": 40})
    assert (a.floor, a.limit, a.fraction) == (4.0 + 2.0, "compute", 6 / 9)
    assert [(p.name, p.seconds, p.floor, p.limit) for p in a.parts] == [
        ("x", 5.0, 4.0, "compute"), ("between the parts", 4.0, 2.0, "memory"),
    ]  # fmt: skip
    assert (b.floor, b.limit, b.calls) == (5.0, "memory", 3)
    assert (rest.name, rest.seconds, rest.floor) == ("between the stages", 1.0, 0.0)


def test_functions_of_generated_code_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some packages put functions without a module into ours."""
    generated: dict[str, Any] = {}
    exec("def made(): ...", generated)
    generated["made"].__module__ = None
    monkeypatch.setattr(boxes, "made", generated["made"], raising=False)
    recorder, _ = watch(Toy().eval())
    assert recorder.calls[("backbone",)] == 1
    assert boxes.made is generated["made"]

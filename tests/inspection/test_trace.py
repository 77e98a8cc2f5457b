"""The path of a picture: every step is there, and its numbers are those counted by other means."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import eyeline
from eyeline.inspection import Limits, Step, Trace, profile_inference, trace
from eyeline.inspection.lines import origin_of, origin_of_caller
from eyeline.inspection.memory import MemoryMeter
from eyeline.inspection.profile import fixed_size, infer, objects, picture, wake
from eyeline.inspection.trace_text import count, first_shape, fitting_depth, rows
from eyeline.note import note, watch

SIZE = (64, 96)
SMALL = {"backbone": "resnet18", "fpn_channels": 16, "num_classes": 3}
LIMITS = Limits("abacus", 1, 1e9, 2e9, None, 4e9, 1e9)


class Small(nn.Module):
    """Two convolutions, <the second> twice.

    And what the page leaves out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 1, bias=False)
        self.out = nn.Linear(4, 5)
        self.tied = nn.Linear(4, 5, bias=False)
        self.tied.weight = self.out.weight
        self.scale = nn.Parameter(torch.ones(1))
        self.unused = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = self.again(self.again(self.first(images)))  # (B, 4, H, W)
        x = note("features, sec. 2", x.mean((2, 3)))  # (B, 4)
        return self.out(input=x) + self.tied(x) * self.scale


def small_trace() -> Trace:
    return trace(Small(), image=torch.rand(3, 8, 6), rounds=1)


def test_numbers_by_hand() -> None:
    found = small_trace()
    forward = found.root.find("forward")
    assert [(p.kind, p.name, len(p.calls)) for p in forward.parts] == [
        ("module", "first", 1), ("module", "again", 2), ("note", "features, sec. 2", 1),
        ("module", "out", 1), ("module", "tied", 1),
    ]  # fmt: skip
    first, again, named, out, tied = forward.parts
    places = 8 * 6
    assert [s.multiply_adds for s in forward.parts] == [
        3 * 4 * 9 * places, 2 * 4 * 4 * places, 0, 4 * 5, 4 * 5,
    ]  # fmt: skip
    assert forward.multiply_adds == sum(s.multiply_adds for s in forward.parts)
    assert [s.parameters for s in forward.parts] == [3 * 4 * 9 + 4, 16, 0, 25, 20]
    assert forward.parameters == found.root.parameters == 112 + 16 + 25 + 1 + 6  # 20 are shared
    assert (forward.own_parameters, first.own_parameters) == (1, 112)
    assert again.calls[0].inputs == again.calls[1].outputs == (1, 4, 8, 6)
    assert (out.calls[0].inputs, tied.calls[0].inputs) == ((1, 4), (1, 4))  # one by its name
    assert (named.calls[0].inputs, named.calls[0].outputs) == (None, (1, 4))
    assert found.root.calls[0].inputs == (3, 8, 6) and found.root.calls[0].outputs == (1, 5)


def test_memory_by_hand() -> None:
    root = small_trace().root
    forward = root.find("forward")
    maps = 4 * 4 * 8 * 6  # bytes of four channels
    first, again, named, out, _ = forward.parts
    assert (first.output_bytes, first.peak_bytes) == (maps, maps)
    assert (again.output_bytes, again.peak_bytes) == (2 * maps, maps)
    assert (named.output_bytes, out.output_bytes) == (16, 20)
    assert forward.peak_bytes == 2 * maps  # the second convolution's input and output
    assert root.peak_bytes == 2 * maps + 4 * 3 * 8 * 6  # and the picture as a batch


def test_memory_is_given_back() -> None:
    outside = torch.rand(10)
    with MemoryMeter() as memory:
        a = outside * 2
        assert memory.alive == 40
        b = a.view(2, 5)[0]  # the same storage
        a = a.add_(1)
        assert memory.alive == 40
        memory.begin()
        c = (outside.double() + 1) * 2
        assert memory.alive == 40 + 80
        assert memory.end() == 160  # of three in a row two at a time
        del a, c
        assert memory.alive == 40
        del b
        assert memory.alive == 0


def test_where_it_is_written() -> None:
    forward = small_trace().root.find("forward")
    lines = Path(__file__).read_text().splitlines()
    origin = forward.origin
    assert (origin.type, origin.file) == ("Small", "test_trace.py")
    assert lines[origin.line - 1] == "class Small(nn.Module):"
    assert origin.about == "Two convolutions, <the second> twice."
    assert origin.source.startswith("def forward(self, images: Tensor)")
    assert lines[origin.source_line - 1].strip() == origin.source.splitlines()[0]
    named = forward.find("features, sec. 2").origin
    assert 'note("features, sec. 2"' in lines[named.line - 1] == "        " + named.source
    conv = forward.find("first").origin
    assert (conv.type, conv.file) == ("Conv2d", "torch/nn/modules/conv.py")
    assert conv.settings == "3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)"
    assert conv.source == "" and conv.foreign
    assert origin_of(note).file == "eyeline/note.py"
    with pytest.raises(KeyError, match="forward has no part 'second'"):
        forward.find("second")


def test_origins_of_what_has_no_file() -> None:
    space: dict[str, Any] = {"__name__": "nowhere"}
    exec("def made(): ...", space)
    origin = origin_of(space["made"])
    assert (origin.type, origin.file, origin.line, origin.source) == ("made", "", 0, "")
    seen: list[int] = []
    with watch(lambda name, value: seen.append(origin_of_caller().line)):
        exec("from eyeline.note import note\n\nnote('x', 1)", {"__name__": "nowhere"})
    assert seen == [3]


def detector(name: str) -> Any:
    """A small detector that finds something."""
    pyramid = not name.startswith(("refinedet", "ssd", "yolo"))
    small = {k: v for k, v in SMALL.items() if k != "fpn_channels" or pyramid}
    small |= {"size": 96, "neck_width": 64, "head_width": 64} if name == "yolov1" else {}
    model = fixed_size(eyeline.create_model(name, max_detections=20, **small), SIZE)
    wake(model, [picture(SIZE, 0)], [objects(SIZE, 0, 3, model.needs_masks)])
    return model


@pytest.mark.parametrize("name", eyeline.list_models("detection"))
def test_every_detector(name: str) -> None:
    model = detector(name)
    plain = infer(model, [picture(SIZE, 0)], torch.device("cpu"))
    assert len(plain[0]["boxes"]) == 20
    found = trace(model, size=SIZE, rounds=1)
    for key, value in plain[0].items():
        assert torch.equal(found.result[0][key], value), key
    root = found.root
    assert [part.name for part in root.parts] == ["prepare", "compute", "finish"]
    assert root.parameters == sum(p.numel() for p in model.parameters())
    profile = profile_inference(model, LIMITS, SIZE, as_is=True, rounds=1)
    assert root.multiply_adds == sum(profile.sum.operations.values()) // 2 > 10**7
    assert sum(p.multiply_adds for p in root.parts) == root.multiply_adds
    compute = root.find("compute")
    called = {name.partition(".")[0] for name, _ in model.named_children()}
    assert called <= {part.name.partition(".")[0] for part in compute.parts}
    assert compute.parameters == root.parameters
    notes = [step for _, step in rows(root, 1) if step.kind == "note"]
    assert len(notes) >= 3 and all(s.origin.source and s.calls[0].outputs for s in notes)
    assert all(s.origin.line for s in everything(root)) and consistent(root)
    divisor = model.preprocess.divisor
    padded = (-(-side // divisor) * divisor for side in SIZE)
    assert root.find("prepare").calls[0].outputs["images"] == (1, 3, *padded)


def everything(step: Step) -> list[Step]:
    return [step] + [below for part in step.parts for below in everything(part)]


def consistent(step: Step) -> bool:
    """Parts are no more than the whole."""
    return all(
        sum(getattr(part, key) for part in s.parts) <= getattr(s, key) * (1 + 1e-9)
        for s in everything(step)
        for key in ("multiply_adds", "seconds")
    ) and all(p.peak_bytes <= s.peak_bytes for s in everything(step) for p in s.parts)


@pytest.fixture
def quick_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large classifiers take their time to draw weights that do not matter here."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: nn.init.constant_(tensor, 0.01))


@pytest.mark.parametrize("name", eyeline.list_models("classification"))
@pytest.mark.usefixtures("quick_init")
def test_every_classifier(name: str) -> None:
    model = eyeline.create_model(name, num_classes=7)
    found = trace(model, size=(32, 32), rounds=1)
    image = picture((32, 32), 0)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        logits = model.eval()(image[None])
    assert torch.equal(found.result, logits)
    assert found.root.multiply_adds == counter.get_total_flops() // 2
    assert found.root.parameters == sum(p.numel() for p in model.parameters())
    forward = found.root.find("forward")
    assert [p.name for p in forward.parts] == [
        "conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "stages C2 to C5, Table 1",
            "features, sec. 3.3", "fc",
    ]  # fmt: skip
    assert all(s.origin.line for s in everything(found.root)) and consistent(found.root)


def test_a_head_on_five_levels() -> None:
    found = trace(detector("retinanet"), size=SIZE, rounds=1)
    compute = found.root.find("compute")
    head = compute.find("class_head")
    assert [call.inputs for call in head.calls] == [
        (1, 16, 8, 12), (1, 16, 4, 6), (1, 16, 2, 3), (1, 16, 1, 2), (1, 16, 1, 1),
    ]  # fmt: skip
    assert len(head.find("output").calls) == 5
    places = 8 * 12 + 4 * 6 + 2 * 3 + 2 + 1
    assert head.find("output").multiply_adds == places * 16 * 9 * 9 * 3  # 9 anchors, 3 classes
    assert f"{' ' * 4}class_head ×5 " in found.table()
    shown = compute.find("levels P3 to P7, sec. 4").calls[0].outputs
    assert shown == [call.inputs for call in head.calls]


def test_a_picture_and_a_size() -> None:
    image = torch.zeros(3, 40, 100, dtype=torch.uint8)
    model = detector("retinanet")
    inside = trace(model, image, (32, 64), rounds=1).root.find("prepare").calls[0].outputs
    assert inside["sizes"] == (1, 2) and inside["images"] == (1, 3, 32, 64)  # 26 x 64, padded
    classifier = eyeline.create_model("resnet18", num_classes=3)
    for size, expected in ((None, (1, 3, 40, 100)), ((32, 64), (1, 3, 32, 64))):
        found = trace(classifier, image, size, rounds=1)
        assert found.root.find("forward").calls[0].inputs == expected


def test_an_untrained_model_is_woken_and_left_alone() -> None:
    model = eyeline.create_model("retinanet", max_detections=20, **SMALL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = trace(model, size=SIZE, trained=False, rounds=1)
    assert len(found.result[0]["boxes"]) == 20 and found.woken and found.to_dict()["woken"]
    told = "The weights have learned nothing; norms and score threshold are set so that the model"
    assert told in " ".join(str(found).split()) and told in found.html()
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    hooks = [h for m in model.modules() for h in (m._forward_hooks, m._forward_pre_hooks)]
    assert hooks and not any(hooks)


def test_text() -> None:
    found = trace(eyeline.create_model("faster_rcnn", **SMALL), size=SIZE, trained=False, rounds=1)
    text = str(found)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100 and len(lines) <= 50
    assert lines[0].startswith("faster_rcnn: a picture of 3×64×96 on cpu. Faster R-CNN: Ren et al.")
    header = next(line for line in lines if line.startswith("step "))
    assert header.split() == ["step", "in", "out", "params", "mult-adds", "ms", "MB", "where"]
    (backbone,) = [line for line in lines if line.startswith("    backbone ")]
    assert "1×3×64×96 " in backbone and "1×64×16×24 +3 " in backbone and "11.2 M" in backbone
    source = (Path(eyeline.__file__).parent / "nn" / "backbones" / "resnet.py").read_text()
    line = source.splitlines().index("class ResNet(Encoder):") + 1
    assert backbone.endswith(f" resnet.py:{line}")
    (anchors,) = [line for line in lines if "◇ anchors, sec. 3.1.1" in line]
    assert "1152×3" not in anchors and anchors.split()[-1].startswith("faster_rcnn.py:")
    wide = found.table(width=180, depth=2).splitlines()
    assert max(map(len, wide)) <= 180
    assert any(
        "eyeline/nn/necks/fpn.py" in line and "Feature maps of a backbone" in line for line in wide
    )
    narrow = found.table(width=60).splitlines()
    assert max(map(len, narrow)) <= 60 and "where" not in next(x for x in narrow if "step " in x)
    assert fitting_depth(found.root) == 2
    depths = [len(list(rows(found.root, depth))) for depth in (1, 2, 3, 4)]
    assert depths == sorted(set(depths)) and depths[1] <= 40 < depths[2]


def test_small_things_of_the_text() -> None:
    numbers = (0, 999, 9400, 44_500_000, 134_200_000_000)
    assert [count(n) for n in numbers] == ["", "999", "9.4 k", "44.5 M", "134.2 G"]
    assert first_shape([None]) == "" and first_shape([[(2, 3), (4,)]]) == "2×3 +1"
    assert first_shape([(2, 3), (2, 3)]) == "2×3" and first_shape([(2, 3), (1, 3)]) == "2×3 …"
    assert first_shape([()]) == "a number"


def test_json() -> None:
    found = small_trace()
    assert not found.woken and "learned nothing" not in str(found) + found.html()
    told = json.loads(json.dumps(found.to_dict()))
    assert told["model"] == "Small" and told["image"] == [3, 8, 6] and told["rounds"] == 1
    step = told["root"]["parts"][0]["parts"][1]
    assert (step["name"], step["multiply_adds"]) == ("again", 1536)
    assert step["calls"][1] == {"inputs": [1, 4, 8, 6], "outputs": [1, 4, 8, 6]}
    assert step["origin"]["type"] == "Conv2d" and "result" not in told


class Reader(HTMLParser):
    """Checks that tags are closed in their order, and keeps what was seen."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {key for key, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page() -> None:
    html = small_trace().html()
    reader = Reader(html)
    assert not {"script", "link", "iframe", "img"} & set(reader.tags)
    assert not [key for key in reader.attributes if key.startswith("on") or key in ("href", "src")]
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in html
    assert reader.tags.count("summary") == reader.tags.count("details") == 7 + 3  # 3 with source
    assert "Two convolutions, <the second> twice." in reader.text
    assert "<the second>" not in html and "And what the page leaves out" not in reader.text
    assert "1×4×8×6 → 1×4×8×6" in reader.text and "again ×2" in reader.text
    assert "x = self.again(self.again(self.first(images)))" in reader.text
    assert "160 parameters, 1 of them its own" in reader.text


def test_what_a_line_says_without_its_columns() -> None:
    """To who hears the page each value has its name: none is cut out of the tree by its style."""
    html = small_trace().html()
    assert "b { display: none" not in html
    said = Reader(html).text
    line = said[said.index("again ×2") :].partition("Conv2d")[0]
    assert line.startswith("again ×2 in 1×4×8×6 out 1×4×8×6 parameters 16 mult-adds 1.5 k ms ")
    assert "peak MB 0.0 where " in line

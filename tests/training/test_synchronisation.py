"""A GPU computes behind its host's back; reading a value makes the host wait. Nothing reads one
but what is named here, with the reason.

On a CPU a training step runs in the shapes that a GPU would see (`fixed_shapes`), and whoever reads
is caught in the act. Tensors without data ("meta") find what is copied between host and device.
With a GPU torch itself says what waits.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import eyeline
from eyeline.ops.select import fixed_shapes
from eyeline.registry import create_model, list_models
from eyeline.training.ema import AveragedModel
from eyeline.training.recipe import Ema, Recipe
from eyeline.training.step import loss_scaler, set_up, train_step

DETECTORS = list_models("detection")
NMS = ("eyeline.ops.nms", "_any_left")  # boxes may overlap in chains as long as their number
POSITIVE = ("eyeline.nn.heads.roi", "Sampled.positive")  # a mask costs as much as ten regions
OF_EACH = ("eyeline.nn.heads.roi", "Sampled.of_each")  # masks lie apart, picture by picture
LOOK = ("eyeline.training.step", "look")  # losses and norm, to be told and to be finite
ONE_STAGE = {
    "refinedet320", "refinedet512", "retinanet", "ssd300", "ssd512", "yolov1", "yolov2", "yolov3",
    "yolov3_tiny",
}  # fmt: skip
TRAINING = {
    **{name: {LOOK} for name in ONE_STAGE},
    "faster_rcnn": {LOOK, NMS},
    "mask_rcnn": {LOOK, NMS, POSITIVE, OF_EACH},
    "cascade_rcnn": {LOOK, NMS},
    "cascade_mask_rcnn": {LOOK, NMS, POSITIVE, OF_EACH},
}
COMPUTE = {name: set() for name in ONE_STAGE} | {
    name: {NMS} for name in ("faster_rcnn", "mask_rcnn", "cascade_rcnn", "cascade_mask_rcnn")
}
SOURCE = Path(eyeline.__file__).parent

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim,
    aten.unique_consecutive, aten.repeat_interleave.Tensor.overloadpacket, aten.bincount,
    aten.equal, aten.is_nonzero, aten.argwhere,
}  # fmt: skip
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
TO_HOST = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.item}
FROM_HOST = {torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor}


def caller() -> str:
    """module.function of eyeline's innermost frame; "" outside of it."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(SOURCE):
            module = ".".join(["eyeline", *path.relative_to(SOURCE).with_suffix("").parts])
            return f"{module}.{frame.f_code.co_qualname}"
        frame = frame.f_back
    return ""


class Reads(TorchDispatchMode):
    """Who reads a value, or makes a shape depend on one, by operator."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        packet = func.overloadpacket
        if packet is aten.repeat_interleave and func is not aten.repeat_interleave.Tensor:
            packet = None
        masks = packet in INDEXING and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if packet in READS or masks:
            self.seen.add(caller())
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Who brings values from the host to the device or back, by Python call."""

    def __init__(self, seen: set[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in TO_HOST or func in FROM_HOST:
            self.seen.add(caller())
        return func(*args, **(kwargs or {}))


@contextmanager
def watching() -> Iterator[set[str]]:
    reads = Reads()
    with fixed_shapes(), Copies(reads.seen), reads:
        yield reads.seen
    assert reads.count > 100, "nothing was watched"


def names(allowed: set[tuple[str, str]]) -> set[str]:
    return {f"{module}.{name}" for module, name in allowed}


def small(name: str):
    torch.manual_seed(0)
    few = {"proposals": [100, 80], "proposals_before_nms": [100, 80]}
    return create_model(
        name, num_classes=3, backbone="resnet18", norm="group", min_size=96, max_size=128,
        score_threshold=0.01, max_detections=20, **({} if name in ONE_STAGE else few),
        **({"neck_width": 64, "head_width": 64} if name == "yolov1" else {}),
    )  # fmt: skip


def batch_of(model, crowd: bool = True):
    """Three pictures: two objects, none, and three with a crowd."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, 90, 120, generator=generator) for _ in range(3)]
    corners = torch.tensor([[10.0, 5], [30, 20], [60, 10]])
    boxes = torch.cat([corners, corners + 30], 1)
    targets = []
    for count in (2, 0, 3):
        masks = torch.zeros(count, 90, 120, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes[:count].int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        iscrowd = torch.zeros(count, dtype=torch.bool)
        iscrowd[2:] = crowd
        labels = torch.arange(count) % 3
        targets.append(
            {"boxes": boxes[:count], "labels": labels, "iscrowd": iscrowd, "masks": masks}
        )
    return model.prepare(images, targets)


def one_step(model, batch, device="cpu"):
    """A step of training with everything that may be part of one."""
    recipe = Recipe(clip_norm=1.0, ema=Ema())
    optimizer = set_up(model, recipe, torch.device(device))
    average = AveragedModel(model, recipe.ema)
    scaler = loss_scaler(torch.device(device), "float32")

    def step():
        done = train_step(
            model.train(), [batch], optimizer, scaler, recipe, torch.device(device), "here"
        )
        average.update(model)
        return done

    return step


@pytest.mark.parametrize("name", DETECTORS)
def test_a_step_reads_what_is_named_and_no_more(name):
    model = small(name)
    step = one_step(model, batch_of(model))
    with watching() as seen:
        step()
    assert seen == names(TRAINING[name])


@pytest.mark.parametrize("name", DETECTORS)
def test_compute_reads_what_is_named_and_no_more(name):
    model = small(name).eval()
    batch = batch_of(model)
    with watching() as seen, torch.inference_mode():
        model.compute(batch)
    assert seen == names(COMPUTE[name])


@pytest.mark.parametrize("kind", ["soft_linear", "soft_gaussian"])
def test_soft_nms_and_voting_read_nothing(kind):
    model = create_model(
        "retinanet", num_classes=3, backbone="resnet18", size=96, nms=kind, vote_iou=0.5,
        max_detections=5,
    ).eval()  # fmt: skip
    batch = model.prepare([torch.rand(3, 90, 120)])
    with watching() as seen, torch.inference_mode():
        model.compute(batch)
    assert seen == set()


PLANTED = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.any()),
    "nonzero": lambda x: (x > 0).nonzero(),
    "mask": lambda x: x[x > 0],
    "written by a mask": lambda x: x.clone().__setitem__(x > 0, 1.0),
    "where": lambda x: torch.where(x > 0),
    "tolist": lambda x: x.tolist(),
    "unique": lambda x: x.unique(),
    "repeats": lambda x: x.repeat_interleave(torch.ones(len(x), dtype=torch.int64), 0),
    "from the host": lambda x: x + x.new_tensor([1.0]),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_read_is_seen(kind, monkeypatch):
    module = importlib.import_module("eyeline.detectors.retinanet")
    encode = module.encode
    # As if it stood in the model's file: its innermost frame of eyeline is `losses`.
    monkeypatch.setattr(module, "encode", lambda a, *b: (PLANTED[kind](a), encode(a, *b))[1])
    model = small("retinanet")
    step = one_step(model, batch_of(model))
    with watching() as seen:
        step()
    assert seen == names({LOOK}) | {"eyeline.detectors.retinanet.RetinaNet.losses"}


@pytest.mark.parametrize("crowd", [True, False])
@pytest.mark.parametrize("name", DETECTORS)
def test_shapes_of_a_gpu_give_the_same_losses_and_gradients(name, crowd):
    model = small(name)
    batch = batch_of(model, crowd)
    found = []
    for context in (nullcontext(), fixed_shapes()):
        torch.manual_seed(3)
        model.eval().zero_grad()  # eval: random choices are those of the picture
        with context:
            losses = model(batch)
            sum(losses.values()).backward()
        found.append((losses, {k: p.grad.clone() for k, p in model.named_parameters()}))
    (usual, gradients), (fixed, theirs) = found
    for key, value in usual.items():
        assert value.item() == pytest.approx(fixed[key].item(), rel=1e-5, abs=1e-7), key
    for key, gradient in gradients.items():
        torch.testing.assert_close(theirs[key], gradient, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", DETECTORS)
def test_shapes_of_a_gpu_give_the_same_detections(name):
    model = small(name).eval()
    batch = batch_of(model)
    with torch.inference_mode():
        usual = model.finish(model.compute(batch), batch)
        with fixed_shapes():
            fixed = model.finish(model.compute(batch), batch)
    assert sum(len(p["boxes"]) for p in usual) > 10
    for a, b in zip(usual, fixed, strict=True):
        assert torch.equal(a["labels"], b["labels"])
        torch.testing.assert_close(a["boxes"], b["boxes"], atol=1e-3, rtol=0)
        torch.testing.assert_close(a["scores"], b["scores"], atol=1e-6, rtol=0)


class Crossings(TorchDispatchMode):
    """Who copies from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (aten._to_copy, aten.copy_):
            devices = {x.device for x in (*args[:2], out) if isinstance(x, Tensor)}
            if len(devices) > 1:
                self.seen.add(caller())
        return out


def on_meta(name, monkeypatch, train: bool):
    """A detector and pictures on a device without data; what must be read is guessed."""

    def some(self):
        return type(self)(*(part[:4] for part in self))

    def all_of_the_first(self, pictures):
        return [type(self)(*(part[:n] for part in self)) for n in [4] + [0] * (pictures - 1)]

    roi = importlib.import_module("eyeline.nn.heads.roi")
    monkeypatch.setattr(roi.Sampled, "positive", some)
    monkeypatch.setattr(roi.Sampled, "of_each", all_of_the_first)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no "meta"
    model = small(name).train(train)
    return model.to("meta"), batch_of(model).to("meta")


@pytest.mark.parametrize("name", DETECTORS)
def test_nothing_crosses_between_host_and_device(name, monkeypatch):
    model, batch = on_meta(name, monkeypatch, train=True)
    with Crossings() as crossings:
        sum(model(batch).values()).backward()
    assert not crossings.seen
    assert all(p.grad.is_meta for p in model.parameters())
    model.eval()
    with Crossings() as crossings, torch.inference_mode():
        assert model.compute(batch).boxes.is_meta
    assert not crossings.seen


def test_a_planted_crossing_is_seen(monkeypatch):
    module = importlib.import_module("eyeline.detectors.retinanet")
    assign = module.assign

    def moved(anchors, *rest):
        return assign(anchors + torch.zeros(anchors.shape).to(anchors.device), *rest)

    monkeypatch.setattr(module, "assign", moved)
    model, batch = on_meta("retinanet", monkeypatch, train=True)
    with Crossings() as crossings:
        model(batch)
    assert crossings.seen == {"eyeline.detectors.retinanet.RetinaNet.losses"}


@contextmanager
def gpu_must_not_wait(allowed: set[tuple[str, str]], monkeypatch) -> Iterator[None]:
    """Within, a synchronisation is an error, but in the functions that may."""
    for module, path in allowed:
        owner, _, name = f"{module}:{path}".replace(":", ".").rpartition(".")
        owner = (
            importlib.import_module(module)
            if owner == module
            else getattr(importlib.import_module(module), path.split(".")[0])
        )
        monkeypatch.setattr(owner, name, waiting_is_fine(getattr(owner, name)))
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def waiting_is_fine(function):
    def call(*args, **kwargs):
        torch.cuda.set_sync_debug_mode("default")
        try:
            return function(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    return call


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")


@gpu
@pytest.mark.parametrize("name", DETECTORS)
def test_on_a_gpu_a_step_waits_only_where_named(name, monkeypatch):
    model = small(name)
    batch = batch_of(model).pin_memory()
    step = one_step(model, batch, "cuda")
    step()  # libraries are loaded, memory is taken
    with gpu_must_not_wait(TRAINING[name], monkeypatch):
        step()


@gpu
@pytest.mark.parametrize("name", DETECTORS)
def test_on_a_gpu_compute_waits_only_where_named(name, monkeypatch):
    model = small(name).eval().cuda()
    batch = batch_of(model).to("cuda")
    with torch.inference_mode():
        model.compute(batch)
        with gpu_must_not_wait(COMPUTE[name], monkeypatch):
            model.compute(batch)


@gpu
def test_on_a_gpu_a_planted_wait_is_an_error(monkeypatch):
    x = torch.rand(3, device="cuda")
    with gpu_must_not_wait(set(), monkeypatch), pytest.raises(RuntimeError, match="synchroniz"):
        x.sum().item()

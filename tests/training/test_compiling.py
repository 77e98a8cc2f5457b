"""A compiled network in training: the same losses, and nothing of it in what is saved."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset
from toys import ToyData, ToyDetector, known

import eyeline.training.loop
from eyeline.errors import EyelineError
from eyeline.registry import create_model, list_models
from eyeline.training import train
from eyeline.training.compiling import compiling
from eyeline.training.recipe import load_recipe

CPU = torch.device("cpu")
INDUCTOR = pytest.param("inductor", marks=pytest.mark.slow)  # needs a C++ compiler

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name == "mask_rcnn" else [])  # as faster_rcnn
    for name in list_models("detection")
]


def small(name, **options):
    torch.manual_seed(0)
    # Through batch norms over so few cells a rounding reaches the proposals: the gradients of two
    # stages move by up to a third, compiled or not.
    norm = "batch" if name == "retinanet" else "frozen"
    return create_model(
        name, classes=["a", "b"], backbone="resnet18", size=64, norm=norm,
        **known(name, {"fpn_channels": 16}), **options,
    )  # fmt: skip


class WithMasks(Dataset):
    """The toys' squares, filled."""

    classes = ("a", "b")

    def __len__(self):
        return 5

    def __getitem__(self, index):
        image, target = ToyData()[index]
        x1, y1, x2, y2 = target["boxes"][0].int().tolist()
        masks = torch.zeros(1, 32, 32, dtype=torch.bool)
        masks[0, y1:y2, x1:x2] = True
        return image, {**target, "masks": masks}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["aot_eager", INDUCTOR])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n == "mask_rcnn"))
        for n in list_models("detection")
    ],
)
def test_losses_and_gradients_are_those_of_eager_mode(name, backend):
    model, data = small(name), WithMasks()
    batch = model.prepare([data[i][0] for i in range(2)], [data[i][1] for i in range(2)])
    found = []
    for wanted in (False, True):
        torch.manual_seed(1)
        model.train().zero_grad()
        with compiling(model, CPU, wanted, backend):
            losses = model(batch)
            sum(losses.values()).backward()
        found.append((losses, {k: p.grad.clone() for k, p in model.named_parameters()}))
    (usual, gradients), (compiled, theirs) = found
    for key, value in usual.items():
        assert compiled[key].item() == pytest.approx(value.item(), rel=1e-4), key
    for key, gradient in gradients.items():
        scale = gradient.abs().max().item() + 1e-6
        torch.testing.assert_close(theirs[key], gradient, rtol=0, atol=2e-3 * scale, msg=key)


def test_the_network_is_compiled_and_only_to_learn():
    model, graphs = small("retinanet"), []

    def backend(graph, inputs):
        graphs.append(sum(node.op.startswith("call") for node in graph.graph.nodes))
        return graph

    batch = model.prepare([torch.rand(3, 64, 64)])
    names = list(model.state_dict())
    with compiling(model, CPU, backend=backend):
        probe = len(graphs)
        with torch.no_grad():
            model.eval()(batch)
        assert len(graphs) == probe == 1
        model.train().heads(batch.images)
        assert list(model.state_dict()) == names
    assert len(graphs) == 2 and graphs[1] > 100  # whole, in one graph
    model.heads(batch.images)
    assert len(graphs) == 2 and "heads" not in vars(model)


QUICK = dict(
    epochs=2, batch_size=2, optimizer={"name": "sgd", "lr": 1e-3}, data={"workers": 0},
    eval={"every": 0}, log={"tensorboard": False},
)  # fmt: skip


def losses_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["losses"]["loss"] for line in lines if line["event"] == "step"]


@pytest.mark.parametrize("precision", ["float32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_runs_resume_average_and_are_read_without_it(tmp_path, monkeypatch, precision):
    fast = partial(compiling, backend="aot_eager")
    monkeypatch.setattr(eyeline.training.loop, "compiling", fast)
    fields = {**QUICK, "precision": precision, "ema": 0.9, "log": {"every": 1}}
    for name, wanted in (("eager", False), ("compiled", True)):
        out = str(tmp_path / name)
        train(small("retinanet"), ToyData(4), out=out, compile=wanted, **fields)
    near = pytest.approx(
        losses_of(tmp_path / "eager"), rel=1e-3 if precision == "float32" else 0.05
    )
    assert losses_of(tmp_path / "compiled") == near and len(losses_of(tmp_path / "compiled")) == 4

    weights = load_file(tmp_path / "compiled" / "last.safetensors")
    assert weights.keys() == load_file(tmp_path / "eager" / "last.safetensors").keys()
    read = create_model("retinanet", weights=str(tmp_path / "compiled" / "last.safetensors"))
    assert torch.equal(read.state_dict()["fpn.lateral.0.weight"], weights["fpn.lateral.0.weight"])

    # on without it, and on with it from a run without
    for name, wanted in (("compiled", False), ("eager", True)):
        again = {**fields, "epochs": 3}
        model = small("retinanet")
        train(model, ToyData(4), out=str(tmp_path / name), compile=wanted, resume=True, **again)
        assert len(losses_of(tmp_path / name)) == 6


def test_what_cannot_be_compiled_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    out = tmp_path / "run"
    with pytest.raises(EyelineError, match="compile: ToyDetector does not say what its network is"):
        train(ToyDetector(), ToyData(), out=str(out), compile=True, **QUICK)

    def missing(graph, inputs):
        raise RuntimeError("no compiler of C++\nwas found")

    monkeypatch.setattr(eyeline.training.loop, "compiling", partial(compiling, backend=missing))
    with pytest.raises(EyelineError) as caught:
        train(small("retinanet"), ToyData(4), out=str(out), compile=True, **QUICK)
    message = str(caught.value)
    assert "no compiler of C++" in message and "set it to false" in message
    assert "\n" not in message and not out.exists()
    with pytest.raises(EyelineError, match="exclude each other"):
        load_recipe({"compile": True, "checkpoint_activations": True})


def test_a_copy_of_the_model_is_its_own():
    """Else it would run, and change the statistics of, the model it was copied from."""
    model = small("retinanet").train()
    images = torch.rand(1, 3, 64, 64)
    with compiling(model, CPU, backend="aot_eager"):
        copy = deepcopy(model).eval()
        for parameter in copy.parameters():
            torch.nn.init.zeros_(parameter)
        before = model.backbone.bn1.running_mean.clone()
        logits, _, _ = copy.heads(images)
        assert not any(level.any() for level in logits)
        assert torch.equal(model.backbone.bn1.running_mean, before)

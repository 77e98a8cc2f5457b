"""Files made to do harm, or damaged: they change nothing, take no memory, end in one line."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eyeline.checkpoints import inert, pickles, read
from eyeline.checkpoints.inert import Inert, read_inert, tensors_of
from eyeline.checkpoints.mmdetection_config import number, pixels, read_config, within
from eyeline.checkpoints.source import read_file
from eyeline.errors import EyelineError

SKIPPED = {"__defaults__": ({"neg": True},)}  # of a function that rebuilds tensors: all negated


class Named:
    """Pickles as the name alone."""

    def __init__(self, module: str, name: str) -> None:
        self.code = f"c{module}\n{name}\n".encode()


def program(*parts: Any) -> bytes:
    """A pickle of opcodes, names and values in a row."""

    def code(part: Any) -> bytes:
        if isinstance(part, Named):
            return part.code
        if isinstance(part, bytes):
            return part
        return pickle.dumps(part, 2)[2:-1]  # without its beginning and end

    return b"\x80\x02" + b"".join(map(code, parts)) + b"."


BUILD, CALL = b"b", b"R"
ENTRIES = [
    *((inert._Reader, *key) for key in (*inert.TORCH, *pickles.ALLOWED)),
    *((pickles._Reader, *key) for key in pickles.ALLOWED),
    (inert._Reader, "mmengine.logging", "Any"),
    (inert._Reader, "builtins", "getattr"),
    (inert._Reader, "torch", "float32"),
]


@pytest.mark.parametrize(("reader", "module", "name"), ENTRIES)
@pytest.mark.parametrize("state", [(None, SKIPPED), SKIPPED], ids=["slots", "dict"])
def test_nothing_that_a_pickle_can_name_can_be_changed(
    reader: Any, module: str, name: str, state: Any
) -> None:
    before = torch._utils._rebuild_tensor_v2.__defaults__
    try:
        with pytest.raises((AttributeError, TypeError, pickle.UnpicklingError, pickles.Refused)):
            reader(io.BytesIO(program(Named(module, name), state, BUILD))).load()
        assert torch._utils._rebuild_tensor_v2.__defaults__ == before
    finally:
        torch._utils._rebuild_tensor_v2.__defaults__ = before


def test_sources_in_a_file_are_not_compared_with_ours(tmp_path: Path) -> None:
    """torch would write the difference to a file named by the class, if that says so."""
    path = tmp_path / "model.pth"
    module = ["module", Named("mmdet.models", "Any"), "a.py", "source"]
    plain = (torch.serialization.MAGIC_NUMBER, 1001, {"little_endian": True})
    whole = [*(program(part) for part in plain), program(b"(", *module, b"t", b"Q"), program([])]
    path.write_bytes(b"".join(whole))
    assert read_inert(path) is Inert


@pytest.mark.parametrize("count", [3, 3000])
def test_arrays_of_the_other_order_of_bytes(count: int, tmp_path: Path) -> None:
    path, values = tmp_path / "model_final.pkl", np.arange(float(count))
    state = {order: values.astype(f"{order}f4") for order in "<>"}
    path.write_bytes(pickle.dumps(state | {"again": values.astype(">f4")[:2]}))
    found = read_file(path)
    for order in "<>":
        assert found[order].tolist() == values.tolist()
    assert found["again"].tolist() == [0, 1]
    number_ = io.BytesIO(pickle.dumps(np.array(258, ">i2")[()]))
    assert pickles._Reader(number_).load() == 258


def test_of_a_dtype_s_state_only_the_order_of_bytes_is_taken() -> None:
    kind = [Named("numpy", "dtype"), b"(", "f4", b"t", CALL]
    state = (3, ">", None, ("a",), {"a": 1}, 1000, 1, 63)
    found = pickles._Reader(io.BytesIO(program(*kind, state, BUILD))).load()
    assert found.dtype == np.dtype(">f4")


def test_a_shape_alone_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "model_final.pkl"
    path.write_bytes(program(Named("numpy", "ndarray"), ((1 << 20,),), CALL))
    with pytest.raises(EyelineError, match="not a checkpoint that can be read: 'str' object"):
        read_file(path)


def nested(depth: int, kind: Any) -> Any:
    """Each twice in the next: 2^depth ways to the innermost."""
    thing = kind(None, None)
    for _ in range(depth):
        thing = kind(thing, thing)
    return thing


def test_modules_in_one_another_are_walked_once() -> None:
    def module(a: Any, b: Any) -> Inert:
        made = Inert()
        made.state = {"_modules": {"a": a, "b": b}, "_parameters": {"w": torch.ones(1)}}
        return made

    assert len(tensors_of(nested(60, module), set())) == 61


def test_parts_of_a_pickle_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps(nested(60, lambda a, b: {"a": a, "b": b})))
    with pytest.raises(EyelineError, match="these are not tensors: a, b"):
        read_file(path)


def test_a_configuration_of_shared_or_deep_lists() -> None:
    lines = ["a0 = [dict(b=1)]", *(f"a{i} = [a{i - 1}, a{i - 1}]" for i in range(1, 1500))]
    config = read_config({"cfg": "\n".join([*lines, "test_pipeline = a1499"])})
    assert list(within(config["test_pipeline"])) == [{"b": 1}] and pixels(config) is None
    outer = {"a": [{"b": {"c": 1}}, {"d": 2}]}
    assert list(within(outer)) == [outer, {"b": {"c": 1}}, {"c": 1}, {"d": 2}]


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("-inf"), True, "1"])
def test_what_is_no_finite_number(value: Any) -> None:
    assert number(value) is None and number(7) == 7 and number(0.0) == 0


def vgg16(normed: bool) -> dict[str, Tensor]:
    """torchvision's names, one channel a layer."""
    step, places = (3 if normed else 2), []
    for place, depth in zip(range(5), (2, 2, 3, 3, 3), strict=True):
        start = places[-1] + step + 1 if place else 0
        places += [start + step * i for i in range(depth)]
    state = {}
    for place in places:
        state |= {f"features.{place}.weight": torch.ones(1, 3 if place == 0 else 1, 3, 3)}
        state |= {f"features.{place}.bias": torch.ones(1)}
        kinds = ("weight", "bias", "running_mean", "running_var") if normed else ()
        state |= {f"features.{place + 1}.{kind}": torch.ones(1) for kind in kinds}
    for place, inputs in ((0, 49), (3, 8), (6, 8)):
        state |= {f"classifier.{place}.weight": torch.ones(8, inputs)}
        state |= {f"classifier.{place}.bias": torch.ones(8)}
    return state


def yhenon() -> dict[str, Tensor]:
    layers = [f"fpn.P{i}_{j}" for i in (3, 4, 5) for j in (1, 2)]
    layers += ["fpn.P6", "fpn.P7_2", "classificationModel.output", "regressionModel.output"]
    return {f"{layer}.{kind}": torch.tensor(1.0) for layer in layers for kind in ("weight", "bias")}


def mmdetection() -> dict[str, Tensor]:
    kinds = (
        "backbone.l2_norm",
        "backbone.features.0",
        "bbox_head.cls_convs.0",
        "bbox_head.reg_convs.0",
    )
    names = [f"{kind}.{part}" for kind in kinds for part in ("weight", "bias")]
    return {name: torch.tensor(1.0) for name in names if name != "backbone.l2_norm.bias"}


@pytest.mark.parametrize(
    ("state", "change", "message"),
    [
        (vgg16(True), {"features.4.running_mean": None}, "KeyError: 'conv1_2.norm.running_mean'"),
        (vgg16(False), {"classifier.3.weight": torch.ones(3, 7)}, "RuntimeError: shape"),
        (yhenon(), {}, r"TypeError: len\(\) of a 0-d tensor"),
        (mmdetection(), {}, r"TypeError: len\(\) of a 0-d tensor"),
    ],
    ids=["vgg16_bn", "vgg16", "yhenon", "mmdetection"],
)
def test_damaged_shapes_are_one_line(
    state: dict[str, Tensor], change: dict[str, Any], message: str
) -> None:
    if change:  # nothing else is wrong
        assert read(state).name == "vgg16"
    damaged = {key: value for key, value in (state | change).items() if value is not None}
    with pytest.raises(EyelineError, match=rf"unexpected names or shapes \({message}") as error:
        read(damaged)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", [0, ("a",), b"a"])
def test_keys_that_are_no_names(key: Any, tmp_path: Path) -> None:
    torch.save({key: torch.ones(1), "b": torch.ones(1)}, path := tmp_path / "a.pth")
    with pytest.raises(EyelineError, match=r"these are not names: .* \(1\)"):
        read(path)

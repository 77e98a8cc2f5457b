"""optimize(model): an equal model that computes faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from eyeline.errors import EyelineError
from eyeline.export.calibration import Ranges
from eyeline.export.folding import folded
from eyeline.nn.fused import PackedConv2d, WinogradConv2d
from eyeline.nn.int8 import Grid, Int8Conv2d, Int8Layer, Int8Linear
from eyeline.nn.layers import ConvNorm
from eyeline.ops import winograd

M = TypeVar("M", bound=nn.Module)

PRECISIONS = ("float32", "bf16", "int8")
WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.GroupNorm)


def optimize(
    model: M,
    precision: str = "float32",
    device: torch.device | str | None = None,
    ranges: Ranges | None = None,
    compile: bool = False,
) -> M:
    """A copy of `model` for inference: norms folded, channels last, in `precision`.

    In float32 its outputs equal the model's in eval mode within rounding. In "bf16" convolutions
    and linear layers hold bfloat16 weights and cast their inputs; everything else (pictures,
    anchors, boxes) stays as it is. In "int8" the layers that `ranges` knows, all that the network
    passes to `fused`, multiply numbers of 8 bits; the rest is in bfloat16 where the processor has
    instructions for it, else in float32.

    On a CPU convolutions apply a ReLU as they write their result (in int8 they add a shortcut too),
    wide ones of 3x3 take fewer products in float32 (`eyeline.ops.winograd`), and their weights are
    packed: the copy cannot move to another device.

    Args:
        device: for which, and where, the copy is; by default where the model is.
        ranges: for "int8", of the model's values; see `calibrate`.
        compile: let torch write `compute` anew. The first call of a size then takes a minute or
            more, and on a CPU a C++ compiler has to be there. On a GPU it replays what it can as
            CUDA graphs, all but the loops of NMS, and a call overwrites what the one before gave:
            `finish` first. (That has not been run on a GPU yet.) Not for "int8".

    Raises:
        EyelineError: an unknown precision, "int8" with `compile`, without ranges, with those of
            another model, or where the processor has no instructions for it.
    """
    if precision not in PRECISIONS:
        raise EyelineError(f"no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    dtype = torch.float32
    if precision == "bf16" or (precision == "int8" and torch.cpu._is_avx512_bf16_supported()):
        dtype = torch.bfloat16
    if compile and precision == "int8":
        raise EyelineError("int8 layers are compiled code already: leave compile out")
    device = torch.device(device or next(model.parameters()).device)
    known = _checked(ranges, model, device) if precision == "int8" else None
    model = folded(model).to(device)
    if known is not None:
        _replace(model, lambda name, layer: _int8_layer(name, layer, known, dtype))
    for module in model.modules():
        if isinstance(module, WEIGHTED) and dtype != torch.float32:
            module.to(dtype)
            module.register_forward_pre_hook(_cast_input)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile:
        compute: Any = model.compute
        how: dict[str, Any] = {"mode": "reduce-overhead"}  # CUDA graphs
        if device.type == "cpu":
            how = {"options": {"freezing": True}}  # weights are constants
        model.compute = torch.compile(compute, fullgraph=True, **how)
        return model
    _replace(model, _packed)
    return model


def _cast_input(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].to(module.weight.dtype), *args[1:])


def _replace(model: nn.Module, replacement: Callable[[str, nn.Module], nn.Module | None]) -> None:
    """Put a layer in another's place wherever `replacement(name, layer)` gives one."""
    for name, layer in list(model.named_modules()):
        if name and (new := replacement(name, layer)) is not None:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, new)


def _packed(name: str, layer: nn.Module) -> nn.Module | None:
    """A convolution as oneDNN computes it best; None for all other layers."""
    if not _can_pack(layer):
        return None
    assert isinstance(layer, nn.Conv2d)
    return WinogradConv2d(layer) if winograd.suits(layer) else PackedConv2d(layer)


def _can_pack(layer: nn.Module) -> bool:
    """Whether it is a plain convolution on a CPU."""
    return (
        type(layer) in (nn.Conv2d, ConvNorm)
        and getattr(layer, "norm", None) is None
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and layer.weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and (layer.weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _checked(ranges: Ranges | None, model: nn.Module, device: torch.device) -> Ranges:
    if ranges is None:
        raise EyelineError(
            "int8 needs to know the model's values: calibrate it on pictures of its kind "
            "(eyeline calibrate RUN PICTURES)"
        )
    if device.type != "cpu" or not torch.cpu._is_vnni_supported():
        raise EyelineError(
            "int8 is for CPUs with products of 8 bits (AVX-512 VNNI), which this device lacks; "
            "take bf16"
        )
    ranges.check(model)
    return ranges


def _int8_layer(
    name: str, layer: nn.Module, ranges: Ranges, dtype: torch.dtype
) -> Int8Layer | None:
    """What stands for a layer in 8 bits; None where it keeps its own."""
    found = ranges.layers.get(name)
    if found is None:
        return None
    reads = Grid.spanning(*found.input)
    writes = None if found.output is None else Grid.spanning(*found.output)
    if isinstance(layer, nn.Linear):
        return Int8Linear(layer, reads, writes, dtype)
    assert isinstance(layer, nn.Conv2d)
    scales = []
    for maker, channels in found.parts:
        grid = Grid.spanning(*((maker and ranges.layers[maker].output) or found.input))
        scales.append(torch.full((channels,), grid.scale / reads.scale))
    return Int8Conv2d(layer, reads, writes, dtype, torch.cat(scales) if scales else None)

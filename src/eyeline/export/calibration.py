"""calibrate(model, pictures): between which numbers the values of a network lie, for int8."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from eyeline.errors import EyelineError
from eyeline.export.folding import folded
from eyeline.nn import fused, resizing

SAMPLE = 1 << 17  # values of a tensor that are looked at
SIZES = {Tensor.shape.__get__, Tensor.size, Tensor.ndim.__get__}  # for which no value is read
TAIL = 1e-4  # share of the values at either end that may lie outside


@dataclass(frozen=True)
class LayerRange:
    """Least and greatest value of a layer's inputs and of its results.

    `output` is None where anything but such a layer reads the results. Where the inputs are the
    results of several layers side by side, `parts` has their names, with the number of channels;
    "" stands for what no such layer made, or one whose results are read by others too.
    """

    input: tuple[float, float]
    output: tuple[float, float] | None
    parts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Ranges:
    """What `calibrate` found: of each layer, by its name, and for which weights it holds."""

    weights: str
    layers: dict[str, LayerRange]

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Ranges:
        """Raises EyelineError where the file is missing or is none of `save`."""
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            layers = {
                name: LayerRange(
                    tuple(r["input"]),
                    r["output"] and tuple(r["output"]),
                    tuple((n, int(c)) for n, c in r.get("parts", ())),
                )
                for name, r in found["layers"].items()
            }
            return cls(found["weights"], layers)
        except OSError as error:
            raise EyelineError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EyelineError(
                f"{path} holds no ranges of a calibration; write it anew with eyeline calibrate"
            ) from error

    def check(self, model: nn.Module) -> None:
        """Raises EyelineError where the ranges are those of other weights."""
        if self.weights != fingerprint(model):
            raise EyelineError(
                "the ranges for int8 were calibrated with other weights; calibrate this model "
                "(eyeline calibrate RUN PICTURES)"
            )


def fingerprint(model: nn.Module) -> str:
    """The same for equal weights, hexadecimal."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def calibrate(model: nn.Module, batches: Iterable[Any]) -> Ranges:
    """Run a model on what it will be used on, and note between which numbers its values lie.

    Args:
        model: any whose network passes its layers to `fused`; it is left as it is.
        batches: what the model is called with, one after another: for a detector lists of
            pictures, some dozens in all.

    Raises:
        EyelineError: there is no batch, or nothing passed through `fused`.
    """
    ready = folded(model)  # what is quantised are the folded layers
    observer = Observer(ready)
    count = 0
    with observer.watching():
        for batch in batches:
            observer.reads(ready(batch))
            count += 1
    if not count:
        raise EyelineError("no picture to calibrate with")
    if not observer.inputs:
        raise EyelineError("int8 finds nothing to do in this model: none of its layers are `fused`")
    return Ranges(fingerprint(model), observer.found())


class Observer(TorchFunctionMode):
    """Notes the ranges of what goes through `fused`, and which results others read as well."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {layer: name for name, layer in model.named_modules()}
        self.inputs: dict[nn.Module, tuple[float, float]] = {}
        self.outputs: dict[nn.Module, tuple[float, float]] = {}
        self.read_by_others: set[nn.Module] = set()
        self.parts: dict[nn.Module, tuple[tuple[nn.Module | None, int], ...]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        fused.watcher, fused.pool_watcher = self.step, self.pool
        fused.join_watcher = self.join
        try:
            with self:
                yield
        finally:
            fused.watcher = fused.pool_watcher = fused.join_watcher = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in SIZES:
            self.reads((args, kwargs))
        return func(*args, **(kwargs or {}))

    def reads(self, values: Any) -> None:
        """Something that is no such layer reads these (tensors, alone or in containers)."""
        for value in tree_leaves(values):
            if isinstance(value, Tensor):
                self.read_by_others.update(m for m, _ in getattr(value, "made_by", ()) if m)

    def reads_one(self, *values: Tensor | None) -> None:
        """Something reads these that has one scale for all their channels: results of several
        layers side by side stay real numbers."""
        for value in values:
            if len(getattr(value, "made_by", ())) > 1:
                self.reads(value)

    def pool(self, x: Tensor, kernel: int, stride: int, padding: int, ceil_mode: bool) -> Tensor:
        """`fused.max_pool`, watched: of whoever reads the result, the layer before learns."""
        with torch._C.DisableTorchFunction():
            self.reads_one(x)
            out = F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode)
            out.made_by = getattr(x, "made_by", ())  # type: ignore[attr-defined]
            return out

    def join(self, x: Tensor, others: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """`fused.beside`, watched: of whoever reads the result, all makers learn."""
        with torch._C.DisableTorchFunction():
            self.reads_one(x, *others)
            out = resizing.beside(x, others, size)
            makers: list[tuple[nn.Module | None, int]] = []
            for part in (x, *others):
                makers += getattr(part, "made_by", ()) or [(None, part.shape[1])]
            out.made_by = tuple(makers)  # type: ignore[attr-defined]
            return out

    def step(
        self, x: Tensor, layer: nn.Module, add: Tensor | None, relu: bool, slope: float
    ) -> Tensor:
        """`fused.plain`, watched."""
        with torch._C.DisableTorchFunction():
            self.reads_one(add)
            known = isinstance(layer, nn.Conv2d) or (isinstance(layer, nn.Linear) and add is None)
            if not known:
                self.reads((x, add))
                return fused.plain(x, layer, None, add, relu, slope)
            widen(self.inputs, layer, x)
            makers = getattr(x, "made_by", ())
            if not (isinstance(layer, nn.Conv2d) and layer.groups == 1):
                self.reads_one(x)
            elif len(makers) > 1:  # it can have a scale for each channel
                self.parts[layer] = makers
            out = fused.plain(x, layer, None, add, relu, slope)
            widen(self.outputs, layer, out)
            out.made_by = ((layer, out.shape[1]),)  # type: ignore[attr-defined]
            return out

    def found(self) -> dict[str, LayerRange]:
        for layer, makers in self.parts.items():
            below = self.inputs[layer][0] < 0  # side by side 0 must be the same step, the first
            for maker, _ in makers:
                if maker and (below or self.outputs[maker][0] < 0):
                    self.read_by_others.add(maker)
        return {
            self.names[layer]: LayerRange(
                seen,
                None if layer in self.read_by_others else self.outputs[layer],
                tuple(
                    ("" if m is None or m in self.read_by_others else self.names[m], count)
                    for m, count in self.parts.get(layer, ())
                ),
            )
            for layer, seen in self.inputs.items()
        }


def widen(ranges: dict[nn.Module, tuple[float, float]], layer: nn.Module, x: Tensor) -> None:
    """The range of a layer, so that it holds all but the outermost of the values of `x` too."""
    values = x.flatten()
    if not len(values):
        return
    values = values[:: max(1, len(values) // SAMPLE)].float().sort().values
    out = int(len(values) * TAIL)
    low, high = values[out].item(), values[-1 - out].item()
    if layer in ranges:
        low, high = min(low, ranges[layer][0]), max(high, ranges[layer][1])
    ranges[layer] = (low, high)

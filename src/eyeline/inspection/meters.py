"""Two things that can be read at any moment, and what lies between two readings: time, and work
(operations and bytes).

Both give amounts as a Counter, so that whoever reads them need not know which of the two it is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Amounts = Counter[str]  # "seconds"; or "bytes", and operations by the name of their precision
# How the products of a type are called among a machine's limits.
PRECISIONS = {
    torch.float32: "float32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int8: "int8",
    torch.uint8: "int8",
}


class Meter(Protocol):
    """Marks may be read only once everything is done that was asked for: after `wait`."""

    def mark(self) -> Any: ...
    def between(self, start: Any, end: Any) -> Amounts: ...
    def wait(self) -> None: ...


class TimeMeter:
    """Seconds on a device.

    On a CPU by the clock. On CUDA by events in the stream, which neither stop the device nor wait
    for it. Other devices are waited for at each mark.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> Any:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            return event
        self.wait()
        return time.perf_counter()

    def between(self, start: Any, end: Any) -> Amounts:
        if self.device.type == "cuda":
            return Counter(seconds=start.elapsed_time(end) / 1000)
        return Counter(seconds=end - start)

    def wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def time(self, call: Callable[[], object]) -> float:
        """Seconds of one call, with everything that it leaves the device to do."""
        self.wait()
        start = self.mark()
        call()
        end = self.mark()
        self.wait()
        return self.between(start, end)["seconds"]


class WorkMeter(TorchDispatchMode):
    """Within the context, what torch's operators do.

    Operations are those of convolutions and products of matrices, a multiplication and an
    addition each counted as one; all others are free. Bytes are what an operator reads and
    writes, each tensor once; views are free.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: Amounts = Counter()
        self.uncounted: set[str] = set()  # operators of other libraries, whose operations are lost

    def mark(self) -> Amounts:
        return self.done.copy()

    def between(self, start: Amounts, end: Amounts) -> Amounts:
        return end - start

    def wait(self) -> None:
        """Counted is at once."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:
            with self:  # where it is made of other operators, these are counted
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        operations = self._operations(func, args, kwargs, out)
        if operations:
            first = next(tensors((args, kwargs)))
            self.done[PRECISIONS.get(first.dtype, "float32")] += operations
        self.done["bytes"] += moved(func, args, kwargs, out)
        return out

    def _operations(self, func: Any, args: tuple[Any, ...], kwargs: Any, out: Any) -> int:
        """Of one operator; those that torch's own table lacks are the packed layers of the CPU."""
        packet = func._overloadpacket
        if packet in flop_registry:
            return int(flop_registry[packet](*args, **kwargs, out_val=out))
        if packet is torch.ops.aten._int_mm:
            return int(2 * args[0].shape[1] * out.numel())
        named = {a.name: value for a, value in positional(func, args)} | kwargs
        weight = named.get("W", named.get("qw"))
        if func.namespace in ("mkldnn", "onednn") and weight is not None:
            channels = out.shape[1 if "conv" in packet.__name__ else -1]
            return int(2 * out.numel() * weight.numel() // channels)
        packing = "pack" in packet.__name__ or "reorder" in packet.__name__  # nothing but copies
        if func.namespace not in ("aten", "prim", "prims", "profiler") and not packing:
            self.uncounted.add(str(packet))
        return 0


UNTOUCHED = (
    "empty",
    "new_empty",
    "detach",
    "lift_fresh",
    "alias",
    "_unsafe_view",
    "_reshape_alias",
)
OVERWRITING = ("copy_", "fill_", "zero_")  # do not read what they write to
# Of their first tensor they read no more than the rows that are asked for.
GATHERING = ("index", "index_select", "gather", "embedding")


def moved(func: Any, args: tuple[Any, ...], kwargs: Any, out: Any) -> int:
    """Bytes that an operator reads and writes."""
    name = func._overloadpacket.__name__
    if func.is_view or name.startswith(UNTOUCHED):
        return 0
    written = list(tensors(out))
    if not func._schema.returns:  # such as the optimizers': they write to some of their arguments
        given = positional(func, args)
        changed = [value for a, value in given if a.alias_info and a.alias_info.is_write]
        written = list(tensors(changed))
    read = [size(tensor) for tensor in tensors((args, kwargs))]
    if name in OVERWRITING:
        read = read[1:]
    elif name in GATHERING:
        read[0] = min(read[0], size(out))
    elif name.startswith("_embedding_bag") and "backward" not in name:
        table, rows = args[:2]
        read[0] = min(read[0], rows.numel() * table.shape[1] * table.element_size())
    return sum(read) + sum(map(size, written))


def positional(func: Any, args: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    """Arguments as an operator's schema describes them, and their values; those that are left to
    keywords and defaults come last in it, and are left out."""
    return zip(func._schema.arguments, args, strict=False)


def size(tensor: Tensor) -> int:
    """Bytes of a tensor in memory; a row that is only repeated counts once."""
    if tensor.layout is not torch.strided or tensor.is_mkldnn:
        return tensor.numel() * tensor.element_size()
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return prod(n if stride else min(n, 1) for n, stride in steps) * tensor.element_size()


def tensors(value: Any) -> Iterator[Tensor]:
    """Those in nested lists, tuples and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors(one)

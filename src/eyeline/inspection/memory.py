"""How much memory tensors hold, at every moment."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from eyeline.inspection.meters import tensors


class MemoryMeter(TorchDispatchMode):
    """Within the context, the bytes of all tensors that operators have made and that are alive.

    What a kernel takes for itself while it runs is not seen, nor what an allocator keeps.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = 0
        self._known: dict[int, weakref.ref[Any]] = {}
        self._open = [[0, 0]]  # of each stretch: alive when it began, and the most since then

    def begin(self) -> None:
        """A stretch begins; they nest."""
        self._open.append([self.alive, self.alive])

    def end(self) -> int:
        """The stretch that began last ends: at most so many bytes more than at its beginning."""
        began, most = self._open.pop()
        self._open[-1][1] = max(self._open[-1][1], most)
        return most - began

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in tensors((args, kwargs)):
            self._meet(tensor, made=False)
        out = func(*args, **kwargs)
        for tensor in tensors(out):
            self._meet(tensor, made=True)
        return out

    def _meet(self, tensor: Tensor, made: bool) -> None:
        """Count a tensor's storage until it is freed; what came from outside counts nothing."""
        if tensor.layout is not torch.strided or tensor.is_mkldnn:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if made else 0
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key, size))
        self.alive += size
        self._open[-1][1] = max(self._open[-1][1], self.alive)

    def _forget(self, key: int, size: int) -> None:
        del self._known[key]
        self.alive -= size

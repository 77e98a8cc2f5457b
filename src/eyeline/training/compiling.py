"""A model's network as torch's compiler writes it anew: fewer kernels, after a slow start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import shorten
from types import MethodType
from typing import Any

import torch
from torch import nn

from eyeline.errors import EyelineError


@contextmanager
def compiling(
    model: nn.Module,
    device: torch.device,
    wanted: bool = True,
    backend: str | Callable[..., Any] = "inductor",
) -> Iterator[None]:
    """Within, the model's `network` is compiled where it learns: it is the method from pictures to
    maps, where nearly all the time goes and no shape depends on data. What evaluates runs as ever.

    The model keeps its parameters and their names, so what is saved knows nothing of it. The first
    step takes a minute or more, and so does the first with pictures of another size.

    Raises:
        EyelineError: the model names no `network`; there is no compiler (on a CPU one for C++).
    """
    if not wanted:
        yield
        return
    name = getattr(model, "network", None)
    if name is None:
        model_name = getattr(model, "name", type(model).__name__)
        raise EyelineError(
            f"compile: {model_name} does not say what its network is; set it to false"
        )
    try:
        torch.compile(lambda x: x.sin() + 1, backend=backend)(torch.zeros(8, device=device))
    except Exception as error:  # each backend has its own
        reason = shorten(str(error), 160)
        raise EyelineError(
            f"compile: torch's compiler does not work here ({reason}); set it to false"
        ) from error
    plain = getattr(type(model), name)
    fast = torch.compile(plain, backend=backend)

    def network(self: nn.Module, *inputs: Any) -> Any:
        return fast(self, *inputs) if self.training else plain(self, *inputs)

    setattr(model, name, MethodType(network, model))  # a copy of the model gets its own
    try:
        yield
    finally:
        delattr(model, name)  # the class's own is seen again

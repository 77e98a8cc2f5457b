"""The stages of a model: what its own file calls, in its own names, without its knowing.

Watched are the modules of a model (`backbone`, and in it `layer1`), the public methods of its
direct children (`rpn.propose`), its own methods, and every public function of `nn`, `ops` and
`losses` (`detect`, and in it `nms_padded`). What a stage calls is its part, so they form a tree.
The model's own methods but for `prepare` and `finish` are no stages: they call them, and what
they do themselves lies between the stages.

A stage is a path, such as ("rpn.propose", "nms_padded"), and amounts are booked under the path of
the innermost stage that runs: its own, without its parts.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import pairwise
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from eyeline.inspection.limits import Limits
from eyeline.inspection.meters import Amounts, Meter, tensors

Path = tuple[str, ...]
LIBRARY = ("eyeline.nn", "eyeline.ops", "eyeline.losses")  # whose functions are watched,
GLUE = "eyeline.nn.fused"  # but for these: all they do is to call the layer they are given
OWN_STAGES = ("prepare", "finish")  # of a model's own methods
FORWARD, BACKWARD = "forward", "backward"  # of a training step
BETWEEN = "between"  # how rows begin that are no stage, but lie between such


class _Open(NamedTuple):
    """A call that runs."""

    path: Path  # of the stage that it is, or is in
    own: Path  # what it does itself is booked here
    module: str  # the name of the module that it is, or is in


class Recorder:
    """Who runs when, by whatever a meter measures.

    Args:
        depth: stages that lie deeper count as their parent's own work.
        own_stages: which of the model's own methods are stages.
    """

    def __init__(self, meter: Meter, depth: int, own_stages: tuple[str, ...] = OWN_STAGES) -> None:
        self.meter, self.depth, self.own_stages = meter, depth, own_stages
        self.calls: Counter[Path] = Counter()
        self._stack = [_Open((), (), "")]
        self._marks: list[tuple[Path | None, Any]] = []  # from this mark on, this one runs
        self._made: list[tuple[Path, list[Any]]] = []  # nodes of the graph, and whose they are

    def start(self) -> None:
        self._now(())

    def own(self) -> dict[Path, Amounts]:
        """Everything since the start: what each stage did itself, in order of their first call."""
        self._now(None)
        self.meter.wait()
        amounts: dict[Path, Amounts] = {}
        for (path, start), (_, end) in pairwise(self._marks):
            if path is not None:
                amounts.setdefault(path, Counter()).update(self.meter.between(start, end))
        return amounts

    def enter(
        self,
        name: str,
        module: str | None = None,
        passage: bool = False,
        arguments: Any = (),
        called: Any = None,
    ) -> None:
        """A call begins.

        Args:
            module: the name of the module that is called; None for a function.
            passage: this call is no stage, it only leads to some.
            called: the module or function itself, for recorders that describe it.
        """
        outer = self._stack[-1]
        if len(outer.path) == self.depth:
            self._stack.append(outer)
            return
        self._keep(outer.own, arguments)
        module = outer.module if module is None else module
        if passage:
            inner = _Open(outer.path, (*outer.path, f"{BETWEEN} the stages: {name}"), module)
        else:
            path = (*outer.path, name.removeprefix(f"{outer.module}."))
            inner = _Open(path, path, module)
            self.calls[path] += 1
        self._stack.append(inner)
        self._now(inner.own)

    def leave(self, result: Any = None) -> None:
        """The call that began last ends."""
        inner = self._stack.pop()
        if inner is not self._stack[-1]:
            self._keep(inner.own, result)
            self._now(self._stack[-1].own)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is done within the context is a stage."""
        self.enter(name)
        yield
        self.leave()

    def follow_backward(self) -> None:
        """Book what the backward pass does under the stages that made it necessary.

        Each node of the graph says when it is about to run. It belongs to the innermost stage
        through whose results it can be reached, and not through its arguments. This itself takes
        time, and is not counted.
        """
        self._now(None)
        known: set[Any] = set()
        for path, nodes in self._made:
            book = (BACKWARD, *path[1:])
            while nodes:
                node = nodes.pop()
                if node in known or hasattr(node, "variable"):  # those that add up gradients stay
                    continue
                known.add(node)
                node.register_prehook(self._booking(book))
                nodes.extend(after for after, _ in node.next_functions if after is not None)
        self._made.clear()
        self._now(self._stack[-1].own)

    def _booking(self, path: Path) -> Callable[[object], None]:
        return lambda gradients: self._now(path)

    def _keep(self, path: Path, value: Any) -> None:
        """Remember the nodes that made these tensors as this stage's, unless they are known."""
        if torch.is_grad_enabled():
            nodes = [t.grad_fn for t in tensors(value) if t.grad_fn is not None]
            if nodes:
                self._made.append((path, nodes))

    def _now(self, path: Path | None) -> None:
        self._marks.append((path, self.meter.mark()))


@contextmanager
def watching(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Within the context, the recorder is told of every call; then all is as it was."""
    with ExitStack() as undo:
        for name, module in model.named_modules():
            _watch_module(module, name, recorder, undo)
        for method in _methods(model):
            passage = method not in recorder.own_stages
            _replace(model, method, recorder, undo, method, "", passage)
        for name, child in model.named_children():
            for method in _methods(child):
                _replace(child, method, recorder, undo, f"{name}.{method}", name)
        own_file = type(model).__module__
        for name, space in list(sys.modules.items()):
            if name.startswith("eyeline.") or name == own_file:
                for key in _functions(space, (*LIBRARY, own_file)):
                    _replace(space, key, recorder, undo, key)
        recorder.start()
        yield


def _watch_module(module: nn.Module, name: str, recorder: Recorder, undo: ExitStack) -> None:
    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        recorder.enter(name or FORWARD, name, False, (*args, *kwargs.values()), module)

    def leave(module: nn.Module, arguments: Any, result: Any) -> None:
        recorder.leave(result)
        if not name and torch.is_grad_enabled():
            recorder.follow_backward()

    # First of all hooks and last: what others do is part of the module's work.
    before = module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)
    undo.callback(before.remove)
    undo.callback(module.register_forward_hook(leave, always_call=True).remove)


def _methods(module: nn.Module) -> list[str]:
    """Its public methods, but for `forward` and those of torch."""
    kinds = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch")]
    names = dict.fromkeys(key for kind in kinds for key in vars(kind))
    return [
        key
        for key in names
        if isinstance(getattr(type(module), key), FunctionType)
        and not key.startswith("_")
        and key not in ("forward", "extra_repr")
    ]


def _functions(space: ModuleType, homes: tuple[str, ...]) -> list[str]:
    """Names in a module of public functions that come from one of the modules `homes`."""
    return [
        key
        for key, value in vars(space).items()
        if isinstance(value, FunctionType)
        and (value.__module__ or "").startswith(homes)  # None: generated code
        and value.__module__ != GLUE
        and not key.startswith("_")
    ]


def _replace(
    owner: Any,
    key: str,
    recorder: Recorder,
    undo: ExitStack,
    name: str,
    module: str | None = None,
    passage: bool = False,
) -> None:
    """Put a function in the place of `owner.key` that tells the recorder and does the same."""
    function = getattr(owner, key)

    @wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        recorder.enter(name, module, passage, (*args, *kwargs.values()), function)
        result = None
        try:
            result = function(*args, **kwargs)
            return result
        finally:
            recorder.leave(result)

    if isinstance(owner, nn.Module):  # the method lies in the class, this one in the object
        undo.callback(delattr, owner, key)
    else:
        undo.callback(setattr, owner, key, function)
    setattr(owner, key, watched)


@dataclass(frozen=True)
class Stage:
    """One stage and its parts; all numbers are with its parts."""

    name: str
    calls: int  # 0 for what is no stage and for the backward pass
    seconds: float
    operations: dict[str, int]  # by precision; a multiplication and an addition are two
    bytes: int  # that its operators read and wrote
    floor: float  # seconds that the machine's limits allow
    limit: str  # "compute" or "memory": what sets most of the floor
    parts: list[Stage] = field(default_factory=list)

    @property
    def fraction(self) -> float:
        """How near the limit it is: 1 is as fast as the machine can be."""
        return self.floor / self.seconds if self.seconds else 0.0


def total(name: str, parts: list[Stage], calls: int = 1) -> Stage:
    """Stages one after the other: times, work and floors add up."""
    operations: Counter[str] = Counter()
    floors = {"compute": 0.0, "memory": 0.0}
    for part in parts:
        operations.update(part.operations)
        floors[part.limit] += part.floor
    return Stage(
        name,
        calls,
        sum(part.seconds for part in parts),
        dict(operations),
        sum(part.bytes for part in parts),
        sum(floors.values()),
        max(floors, key=floors.__getitem__),
        parts,
    )


def build_stages(
    seconds: dict[Path, float],
    work: dict[Path, Amounts],
    calls: Counter[Path],
    limits: Limits,
    at: Path = (),
) -> list[Stage]:
    """The stages below a path, in order, those that are none last.

    Args:
        seconds, work: of each stage alone, without its parts.
    """
    names = dict.fromkeys(path[len(at)] for path in seconds if path[: len(at)] == at != path)
    stages: list[Stage] = []
    rests: list[Stage] = []
    for name in names:
        path = (*at, name)
        parts = build_stages(seconds, work, calls, limits, path)
        if parts:
            stage = total(name, parts, calls[path])
        else:
            stage = _alone(name, path, seconds, work, calls[path], limits)
        (rests if name.startswith(BETWEEN) else stages).append(stage)
    if names and at in seconds:
        rest = f"{BETWEEN} the parts" if at else f"{BETWEEN} the stages"
        rests.append(_alone(rest, at, seconds, work, 0, limits))
    return stages + rests


def _alone(
    name: str,
    path: Path,
    seconds: dict[Path, float],
    work: dict[Path, Amounts],
    calls: int,
    limits: Limits,
) -> Stage:
    """What is booked under one path."""
    amounts = work.get(path, Counter())
    operations = {key: n for key, n in amounts.items() if key != "bytes"}
    floor, limit = limits.floor(amounts)
    return Stage(name, calls, seconds[path], operations, amounts["bytes"], floor, limit)

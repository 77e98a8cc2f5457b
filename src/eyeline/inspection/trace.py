"""The path of a picture through a model: every step in the paper's own terms.

Steps are what `stages.py` watches (modules, their methods, the functions of `nn`, `ops` and
`losses`) and the values that a paper's file names with `note`, in the order in which they come.
Time is measured in calls of their own, since looking at shapes, work and memory takes time itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from torch import Tensor, nn

from eyeline.inference.sources import Picture, read_picture
from eyeline.inspection.lines import Origin, origin_of, origin_of_caller, paper_of
from eyeline.inspection.memory import MemoryMeter
from eyeline.inspection.meters import WorkMeter, size, tensors
from eyeline.inspection.profile import (
    default_size,
    fixed_size,
    infer,
    picture,
    target,
    time_stages,
    wake,
)
from eyeline.inspection.stages import BETWEEN, OWN_STAGES, Path, Recorder, watching
from eyeline.nn.detector import as_float
from eyeline.note import watch
from eyeline.ops.resize import resize

SCHEMA = 1  # of the JSON; another where a key changes its meaning
STEPS = (*OWN_STAGES, "compute")  # of a model's own methods
EVERYTHING = 1000  # deeper than any model
NOTE = "note: "  # how the names of a note's path begin, lest a stage be called the same
# A tensor's shape; of tensors in lists and dictionaries, such lists and dictionaries; None: none.
Shapes = Any


@dataclass(frozen=True)
class Call:
    """What one call was given and what it gave."""

    inputs: Shapes
    outputs: Shapes


@dataclass(frozen=True)
class Step:
    """One step and its parts; all numbers are with its parts, and of all its calls together."""

    kind: str  # "model", "module", "function" or "note"
    name: str  # as the model's file calls it: "layer1" of its parent, "rpn.propose", a note's text
    origin: Origin  # which class or function it is, and where that is written
    calls: list[Call]  # of a note, the value is the output
    parameters: int  # those shared by several parts count once
    own_parameters: int  # held by the module itself, not by its parts
    multiply_adds: int
    seconds: float  # 0 for a note
    output_bytes: int  # of the tensors that it gives
    peak_bytes: int  # alive at most while it runs, beyond what was alive before; of its worst call
    parts: list[Step] = field(default_factory=list)

    @property
    def gives_tensors(self) -> bool:
        return any(call.outputs is not None for call in self.calls)

    def find(self, *names: str) -> Step:
        """The part, or the part of a part ..., that is called so. Raises KeyError."""
        step = self
        for name in names:
            found = [part for part in step.parts if part.name == name]
            if not found:
                raise KeyError(f"{step.name} has no part {name!r}")
            step = found[0]
        return step


@dataclass(frozen=True)
class Trace:
    """The path of one picture; `print(trace)` shows it."""

    model: str
    paper: str  # as the model's file has it
    image: tuple[int, ...]  # shape of the picture that was given
    device: str
    woken: bool  # weights that learned nothing: norms and threshold are set so that it finds some
    rounds: int  # times are medians of so many calls
    whole: list[float]  # seconds of each of as many calls that nobody watched
    uncounted: list[str]  # operators whose multiply-adds are not known
    root: Step
    result: Any = field(repr=False, compare=False)  # what the model said of the picture

    def __str__(self) -> str:
        return self.table()

    def table(self, width: int = 100, depth: int | None = None) -> str:
        """The tree as text, in lines of `width` characters.

        Args:
            depth: 1 for prepare, compute and finish, 2 for their parts too ... By default as deep
                as some 40 lines allow.
        """
        from eyeline.inspection.trace_text import table

        return table(self, width, depth)

    def html(self) -> str:
        """The tree as a page that needs no other file and runs no script."""
        from eyeline.inspection.trace_page import page

        return page(self)

    def to_dict(self) -> dict[str, Any]:
        """All but the result, for JSON."""
        told = {key: value for key, value in vars(self).items() if key not in ("root", "result")}
        return {"schema": SCHEMA, **told, "root": asdict(self.root)}


def trace(
    model: nn.Module,
    image: Picture | None = None,
    size: tuple[int, int] | None = None,
    trained: bool = True,
    rounds: int = 3,
) -> Trace:
    """Follow a picture through a model, on the model's device and in eval mode.

    Args:
        model: of any task; a copy is followed.
        image: a path, URL, array, PIL picture or tensor; by default one of random colours.
        size: height and width that the network sees; of a detector bounds that an `image` is fitted
            into. By default the model's own; a classifier takes an `image` as it is.
        trained: False for a detector whose weights learned nothing: its batch norms and its score
            threshold are set so that it finds something, see `wake` in profile.py.
        rounds: calls that are timed.

    Raises:
        EyelineError: the picture cannot be read.
    """
    model = deepcopy(model).eval()
    detector = hasattr(model, "compute")
    pixels = read_picture(image) if image is not None else picture(size or default_size(model), 0)
    if detector and (size is not None or image is None):
        fixed_size(model, size or default_size(model))
    elif size is not None:
        pixels = resize(as_float(pixels), size)
    woken = detector and not trained
    if woken:
        sides = (pixels.shape[1], pixels.shape[2])
        wake(model, [pixels], [target(model, sides, 0)])
    device = next(model.parameters()).device

    def call(stage: Any = None) -> Any:
        return infer(model, [pixels], device)

    whole, seconds = time_stages(model, call, device, rounds, EVERYTHING, STEPS)
    with MemoryMeter() as memory, WorkMeter() as counter:  # the first sees what the second leaves
        tracer = Tracer(counter, memory)
        memory.begin()
        with watch(tracer.note), watching(model, tracer):
            result = call()
            work = tracer.own()
        peak = memory.end()
    operations = {
        path: sum(n for key, n in w.items() if key != "bytes") for path, w in work.items()
    }
    made = _Builder(tracer.found, with_parts(seconds), with_parts(operations))
    name = getattr(model, "name", type(model).__name__)
    root = made.root(name, model, tuple(pixels.shape), result, peak)
    return Trace(
        name, paper_of(model), tuple(pixels.shape), str(device), woken, rounds, whole,
        sorted(counter.uncounted), root, result,
    )  # fmt: skip


def shapes(value: Any) -> Shapes:
    """Those of a value's tensors."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {key: shapes(part) for key, part in value.items()}
    return [shapes(part) for part in value] if value is not None else None


def plain(value: Any) -> Any:
    """The tensors of a value in nested lists and dictionaries, without all else; None: it has none.

    Of dataclasses and named tuples the fields' names are kept; a list of one is that one.
    """
    if isinstance(value, Tensor):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        named = {
            str(key): found for key, part in value.items() if (found := plain(part)) is not None
        }
        return named or None
    if isinstance(value, list | tuple):
        parts = [found for part in value if (found := plain(part)) is not None]
        return parts[0] if len(parts) == 1 else parts or None
    return None


class _Found:
    """What is known of a step while the model runs."""

    def __init__(self, kind: str, name: str, origin: Origin, module: nn.Module | None) -> None:
        self.kind, self.name, self.origin, self.module = kind, name, origin, module
        self.given: list[Shapes] = []
        self.gave: list[Shapes] = []
        self.output_bytes = self.peak_bytes = 0

    def keep_output(self, value: Any) -> None:
        value = plain(value)
        self.gave.append(shapes(value))
        self.output_bytes += sum(map(size, tensors(value)))

    def calls(self) -> list[Call]:
        return [Call(*both) for both in zip(self.given, self.gave, strict=True)]


class Tracer(Recorder):
    """Keeps of each step also who was called, what came in and out, and the memory it took."""

    def __init__(self, meter: WorkMeter, memory: MemoryMeter) -> None:
        super().__init__(meter, EVERYTHING, STEPS)
        self.memory = memory
        self.found: dict[Path, _Found] = {}
        self._running: list[_Found | None] = []  # None: it only leads to steps

    def enter(
        self,
        name: str,
        module: str | None = None,
        passage: bool = False,
        arguments: Any = (),
        called: Any = None,
    ) -> None:
        super().enter(name, module, passage, arguments, called)
        found = None
        if not passage:
            path = self._stack[-1].path
            if path not in self.found:
                is_module = isinstance(called, nn.Module)
                self.found[path] = _Found(
                    "module" if is_module else "function", path[-1], origin_of(called),
                    called if is_module else None,
                )  # fmt: skip
            found = self.found[path]
            found.given.append(shapes(plain(arguments)))
        self._running.append(found)
        self.memory.begin()

    def leave(self, result: Any = None) -> None:
        super().leave(result)
        found, peak = self._running.pop(), self.memory.end()
        if found is not None:
            found.keep_output(result)
            found.peak_bytes = max(found.peak_bytes, peak)

    def note(self, name: str, value: Any) -> None:
        """A named value, within the innermost step that runs."""
        path = (*self._stack[-1].path, NOTE + name)
        if path not in self.found:
            self.found[path] = _Found("note", name, origin_of_caller(), None)
        self.found[path].given.append(None)
        self.found[path].keep_output(value)


def with_parts(own: Mapping[Path, float]) -> dict[Path, float]:
    """Amounts of each step alone to those with all its parts. What lies between the parts is the
    step's own."""
    sums: dict[Path, float] = {}
    for path, amount in own.items():
        while path and path[-1].startswith(BETWEEN):
            path = path[:-1]
        for end in range(len(path) + 1):
            sums[path[:end]] = sums.get(path[:end], 0) + amount
    return sums


class _Builder:
    """The tree, from what was found at each path."""

    def __init__(
        self, found: dict[Path, _Found], seconds: dict[Path, float], operations: dict[Path, float]
    ) -> None:
        self.found, self.seconds, self.operations = found, seconds, operations

    def root(self, name: str, model: nn.Module, image: Shapes, result: Any, peak: int) -> Step:
        top = _Found("model", name, origin_of(model), model)
        top.given.append(image)
        top.keep_output(result)
        top.peak_bytes = peak
        return self._step((), top)

    def _step(self, path: Path, found: _Found) -> Step:
        parts = [
            self._step(below, part)
            for below, part in self.found.items()
            if len(below) == len(path) + 1 and below[:-1] == path
        ]
        # A function that gives no tensor, such as a check, is no step of the picture's path.
        parts = [p for p in parts if p.kind != "function" or p.parts or p.gives_tensors]
        module = found.module
        return Step(
            found.kind, found.name, found.origin, found.calls(), self._parameters(path, module),
            _count(module.parameters(recurse=False)) if module is not None else 0,
            round(self.operations.get(path, 0)) // 2,  # a multiplication and an addition are one
            self.seconds.get(path, 0.0), found.output_bytes, found.peak_bytes, parts,
        )  # fmt: skip

    def _parameters(self, path: Path, module: nn.Module | None) -> int:
        if module is not None:
            return _count(module.parameters())
        below = [f.module for p, f in self.found.items() if p[: len(path)] == path]
        return _count(p for module in below if module is not None for p in module.parameters())


def _count(parameters: Iterable[Tensor]) -> int:
    """How many numbers there are in them, each tensor once."""
    return sum(p.numel() for p in {id(p): p for p in parameters}.values())

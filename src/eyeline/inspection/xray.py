"""What a detector did with one picture, as it told `note`: every value under its name, the boxes
stage by stage, and what learning would make of the picture's annotation.

Rows of a stage lead back to the stage before (`parent`) and forward to what dropped them, so that
each detection has an origin and each missed object a last good candidate: see `fate`.

Letters   N anchors, M rows of a stage, K classes, G objects, D detections.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from eyeline.errors import EyelineError
from eyeline.evaluation.running import eval_mode
from eyeline.nn.detector import Detector
from eyeline.nn.segmenter import is_segmenter
from eyeline.note import watch
from eyeline.structures import (
    Assignment,
    Batch,
    Candidates,
    Cut,
    Moves,
    Padded,
    Prediction,
    Sample,
    Target,
)

T = TypeVar("T")


class Line(NamedTuple):
    """Where a value was noted."""

    path: Path
    number: int


@dataclass(frozen=True)
class BoxStage:
    """The boxes of one stage; a `Candidates` of one picture, without its batch axis."""

    name: str
    boxes: Tensor  # (M, 4), the resized picture's pixels
    scores: Tensor  # (M,)
    valid: Tensor  # (M,) bool
    parent: Tensor | None  # (M,)
    labels: Tensor | None  # (M,)
    class_scores: Tensor | None  # (M, K)
    dropped: dict[str, Tensor]  # rule -> (M of the stage before) bool
    limits: dict[str, float]
    suppressor: Tensor | None  # (M before); -1: none
    overlap: Tensor | None  # (M before)


@dataclass(frozen=True)
class Anchor:
    """Where an anchor stands."""

    row: int  # among all anchors
    level: int  # 0 is the finest
    y: int  # its cell
    x: int
    shape: int  # which of the cell's anchors
    box: Tensor  # (4,)


class Drawn(NamedTuple):
    """The anchors of a picture that were drawn for the loss."""

    positive: Tensor  # (P,) int64
    negative: Tensor  # (Q,) int64


@dataclass
class Learning:
    """What a step of learning would see of the annotation, with the random choices of `eval()`."""

    losses: dict[str, float]
    assignment: Assignment  # of the picture, without a batch axis: (G, 4), (G,), (N,)
    sample: Drawn | None  # the anchors that count; None: all that are not ignored do
    regions: Tensor | None  # (R, 4) that the second stage would see
    region_labels: Tensor | None  # (R,), K for background
    # (N,): the loss of each anchor as background, by which the sample's negatives were mined
    hardness: Tensor | None = None


@dataclass
class XRay:
    """What was seen. Boxes are in the resized picture's pixels, of one that is padded all round in
    those of the padded one, but for `prediction`, `target` and `values`.

    `values` has every noted value as plain tensors (or lists of them) under its name, those of
    a structure as "name: field"; of learning's they begin with "learning: ".
    """

    model: nn.Module
    image: Tensor  # (C, H, W), as it was given
    batch: Batch
    padded: Padded
    prediction: Prediction
    target: Target | None
    values: dict[str, Any]
    lines: dict[str, Line]
    shown: list[tuple[str, Any]] = field(repr=False)  # in order, as they were noted
    learning: Learning | None = None
    learning_missing: str = ""  # why there is none

    def __post_init__(self) -> None:
        self.stages = [
            _stage(name, value, self.begin) for name, value in of_kind(self.shown, Candidates)
        ]

    @property
    def begin(self) -> Tensor:
        """Where the resized picture begins in what the network sees: x, y, x, y."""
        if self.batch.offsets is None:
            return torch.zeros(4)
        return self.batch.offsets[0].flip(0).repeat(2).float()

    @property
    def maps(self) -> dict[str, list[Tensor]]:
        """Feature maps by name, each a list of (C, H_l, W_l), fine to coarse."""
        return {
            name: [level[0] for level in value]
            for name, value in self.shown
            if _is_list_of(value, 4)
        }

    @property
    def anchors(self) -> list[Tensor]:
        """Of each level (N_l, 4), in the order of rows, columns and shapes."""
        for name, value in self.shown:
            if name.startswith("anchors") and _is_list_of(value, 2):
                return list(value)
        return []

    @property
    def cuts(self) -> list[Cut]:
        """The regions that were cut out of feature maps, one entry for each pooler."""
        return [value for _, value in of_kind(self.shown, Cut)]

    @property
    def moves(self) -> Moves | None:
        """What the cells say of the anchors, of models that note it, without the batch axis."""
        for _, value in of_kind(self.shown, Moves):
            return Moves(value.moves[0], value.objectness[0], value.kind)
        return None

    @property
    def crowd(self) -> Tensor:
        """Which of the annotation's objects are crowds, (G,) bool; none without an annotation."""
        if self.target is None:
            return torch.zeros(0, dtype=torch.bool)
        return self.target.get("iscrowd", torch.zeros(len(self.target["labels"]))).bool()

    @property
    def pyramid(self) -> str | None:
        """The name of the last of the maps in whose cells the anchors stand, as many in each; None
        where there is none such, or the first stage has not a row for each anchor."""
        counts = [len(boxes) for boxes in self.anchors]
        if not counts or len(self.stages[0].boxes) != sum(counts):
            return None
        for name, maps in reversed(self.maps.items()):
            cells = [level[0].numel() for level in maps]
            if len(cells) == len(counts) and not any(
                count % cell for count, cell in zip(counts, cells, strict=True)
            ):
                return name
        return None

    @property
    def linked(self) -> bool:
        """Do the stages' rows lead from the detections back to the first stage?"""
        last = self.stages[-1]
        return (
            all(stage.parent is not None for stage in self.stages[1:])
            and last.labels is not None
            and int(last.valid.sum()) == len(self.prediction["boxes"])
        )

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Height and width in cells of each level that has anchors; none without a `pyramid`."""
        if self.pyramid is None:
            return []
        return [(level.shape[1], level.shape[2]) for level in self.maps[self.pyramid]]

    def anchor(self, row: int) -> Anchor:
        """The anchor of a row of the first stage; there has to be a `pyramid`."""
        first = 0
        for level, (anchors, (height, width)) in enumerate(
            zip(self.anchors, self.grids, strict=True)
        ):
            if row < first + len(anchors):
                per_cell = len(anchors) // (height * width)
                cell, shape = divmod(row - first, per_cell)
                return Anchor(row, level, *divmod(cell, width), shape, anchors[row - first])
            first += len(anchors)
        raise IndexError(f"there are {first} anchors, and no row {row}")

    def rows(self, detection: int) -> list[int]:
        """The row of a detection in each stage, from the first to the last."""
        last = self.stages[-1]
        rows = [int(last.valid.nonzero()[detection, 0])]
        for stage in reversed(self.stages[1:]):
            assert stage.parent is not None
            rows.append(int(stage.parent[rows[-1]]))
        return rows[::-1]

    def suppressed_by(self, detection: int) -> list[tuple[int, float]]:
        """Rows of the stage before the last that this detection dropped, and their IoU with it."""
        last = self.stages[-1]
        if last.suppressor is None or last.overlap is None:
            return []
        rows = (last.suppressor == self.rows(detection)[-2]).nonzero()[:, 0]
        rows = rows[last.overlap[rows].argsort(descending=True, stable=True)]
        return [(int(row), float(last.overlap[row])) for row in rows]

    def to_network(self, boxes: Tensor) -> Tensor:
        """Boxes (N, 4) in the given picture's pixels to the resized picture's."""
        return boxes.float() / self._scale() + self.begin

    def to_picture(self, boxes: Tensor) -> Tensor:
        """Boxes (N, 4) in the resized picture's pixels to the given picture's."""
        return (boxes - self.begin) * self._scale()

    def _scale(self) -> Tensor:
        scale = self.batch.original_sizes[0] / self.batch.sizes[0]
        return scale.flip(0).repeat(2)


def xray(model: nn.Module, image: Tensor, target: Target | None = None) -> XRay:
    """Watch a detector at work on one picture; its weights, mode and outputs stay as they are.

    Args:
        model: a detector whose file names its values with `note`.
        image: (C, H, W), uint8 or float in [0, 1].
        target: `boxes` (G, 4) in the picture's pixels, `labels` (G,) and so on, as for training;
            with it, `XRay.learning` tells what a step would make of it.

    Raises EyelineError where the model is no detector, or its file tells nothing of its boxes.
    """
    if not isinstance(model, Detector):
        hint = (
            "; xray_map shows segmenters" if is_segmenter(model) else "; the x-ray shows detectors"
        )
        raise EyelineError(f"{type(model).__name__} is no detector{hint}")
    with eval_mode(model), torch.no_grad():
        batch = model.prepare([image]).to(model.device)
        with recording() as inference:
            padded = model.compute(batch)  # type: ignore[operator]
            prediction = model.finish(padded, batch)[0]
        found = XRay(
            model, image, batch.to("cpu"), on_cpu(padded), on_cpu(prediction), target,
            inference.values, inference.lines, inference.shown,
        )  # fmt: skip
        name = type(model).__name__
        if not found.stages:
            raise EyelineError(f"{name} notes no Candidates in `compute`: nothing to be shown")
        for stage in found.stages:
            if not (
                stage.scores[stage.valid].isfinite().all()
                and stage.boxes[stage.valid].isfinite().all()
            ):
                raise EyelineError(
                    f"{name}: scores or boxes of “{stage.name}” are not finite numbers; "
                    "are the weights?"
                )
        if target is not None:
            _learn(found, model, image, target)
    return found


def _learn(found: XRay, model: Detector, image: Tensor, target: Target) -> None:
    """What `losses` notes, into `found`."""
    if model.needs_masks and "masks" not in target:
        found.learning_missing = "the annotation has no masks, which this model learns from"
        return
    batch = model.prepare([image], [target]).to(model.device)
    with recording() as seen:
        losses = model.losses(batch, batch.targets)  # type: ignore[operator]
    assignments, samples = of_kind(seen.shown, Assignment), of_kind(seen.shown, Sample)
    if not assignments:
        found.learning_missing = "the model's file does not note how anchors are matched"
        return
    regions, labels = next(
        (value for name, value in seen.shown if name.startswith("sampled regions")), (None, None)
    )
    boxes, labels_, matches, *limits = assignments[0][1]
    drawn = hardness = None
    if samples:
        index = samples[0][1].rows[0][samples[0][1].filled[0]]
        positive = matches[0][index] >= 0
        drawn = Drawn(index[positive], index[~positive])
        losses_ = samples[0][1].losses
        hardness = None if losses_ is None else losses_[0]
    found.learning = Learning(
        {name: float(loss) for name, loss in losses.items()},
        Assignment(boxes[0].cpu() + found.begin, labels_[0], matches[0], *limits),
        drawn,
        regions,
        labels,
        hardness,
    )
    found.values |= {f"learning: {name}": value for name, value in seen.values.items()}
    found.lines |= {f"learning: {name}": line for name, line in seen.lines.items()}


# ---- recording


@dataclass
class Recording:
    """What was noted: in order, as plain tensors, and where."""

    shown: list[tuple[str, Any]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)

    def __call__(self, name: str, value: Any) -> None:
        value = on_cpu(value)
        caller = sys._getframe(2)  # of `note`
        unique, count = name, 1
        while unique in self.lines:
            count += 1
            unique = f"{name} ({count})"
        self.shown.append((unique, value))
        self.lines[unique] = Line(Path(caller.f_code.co_filename), caller.f_lineno)
        if not hasattr(value, "_asdict"):
            self.values[unique] = value
            return
        for key, part in value._asdict().items():
            parts = part if isinstance(part, Mapping) else {"": part}
            for rule, tensor in parts.items():
                if isinstance(tensor, Tensor):
                    self.values[f"{unique}: {key} {rule}".rstrip()] = tensor


@contextmanager
def recording() -> Iterator[Recording]:
    """Within the context every `note` is recorded."""
    found = Recording()
    with watch(found):
        yield found


def on_cpu(value: Any) -> Any:
    """The tensors of a value, or of what it is made of, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: on_cpu(part) for key, part in value.items()}
    if hasattr(value, "_asdict"):
        return type(value)(*map(on_cpu, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(on_cpu, value))
    return value


def of_kind(shown: list[tuple[str, Any]], kind: type[T]) -> list[tuple[str, T]]:
    """Those of the values that are of one kind, in order."""
    return [(name, value) for name, value in shown if isinstance(value, kind)]


def _is_list_of(value: Any, dims: int) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(part, Tensor) and part.ndim == dims for part in value
    )


def _stage(name: str, value: Candidates, begin: Tensor) -> BoxStage:
    """Of the first picture, which begins there."""

    def first(part: Any) -> Any:
        return None if part is None else part[0]

    return BoxStage(
        name,
        value.boxes[0] + begin,
        value.scores[0],
        value.valid[0],
        *map(first, (value.parent, value.labels, value.class_scores)),
        {rule: mask[0] for rule, mask in value.dropped.items()},
        dict(value.limits),
        *map(first, (value.suppressor, value.overlap)),
    )

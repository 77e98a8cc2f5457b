"""Why a box is there, and why another is not: the story of each object and each detection.

A candidate is good for an object where it overlaps it by an IoU of 0.5 and, once a class has been
chosen, is of its class. An object that was missed had its last good candidates in some stage; what
dropped them there is why it was missed.

Letters   M rows of a stage, K classes, G objects, D detections.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from eyeline.errors import EyelineError
from eyeline.inspection.xray import BoxStage, XRay
from eyeline.ops.iou import box_iou

GOOD = 0.5  # IoU
UNLINKED = (
    "this model's file does not note from which row of the stage before each box comes (`parent`, "
    "and `labels` of the last), so that no box can be followed"
)

# What can have happened, in the words of the page.
RULES = {
    "never": "never proposed",
    "top-k": "not among the best",
    "size": "too small",
    "background": "filtered out as background",
    "objectness": "hardly an object",
    "nms": "suppressed",
    "score": "below the score threshold",
    "class": "taken for another class",
    "moved": "moved off the object",
    "limit": "beyond the limit",
    "taken": "shared with another object",
}


@dataclass(frozen=True)
class Candidate:
    """A candidate at one stage."""

    stage: int
    row: int
    box: Tensor  # (4,), the resized picture's pixels
    score: float
    label: int | None


@dataclass(frozen=True)
class Fate:
    """What became of an object.

    `detection` is the one that found it, None where it was missed. Then `stage` is the stage in
    which its last good candidates died, on the way into which they were alive, `rule` what dropped
    the best of them (a key of `RULES`), `step` that candidate, and `rules` how many each dropped.
    """

    object: int
    label: int
    detection: int | None
    iou: float  # of the detection, or of the candidate
    stage: int | None = None
    rule: str | None = None
    step: Candidate | None = None
    rules: dict[str, int] = field(default_factory=dict)
    by: Candidate | None = None  # for "nms": the box that suppressed it; for "class": itself
    by_iou: float = 0.0
    score: float | None = None  # the candidate's, of the object's class where classes are scored


def origin(x: XRay, detection: int) -> list[Candidate]:
    """A detection's way through the stages, from its anchor on."""
    return [candidate_at(x, stage, row) for stage, row in enumerate(x.rows(detection))]


def candidate_at(x: XRay, stage: int, row: int) -> Candidate:
    """The candidate in a row of a stage."""
    s = x.stages[stage]
    label = None if s.labels is None else int(s.labels[row])
    return Candidate(stage, row, s.boxes[row], float(s.scores[row]), label)


def fates(x: XRay) -> list[Fate]:
    """What became of each object of the annotation; crowds are left out.

    Detections find objects as in COCO's metric: the best first, each the object of its class that
    it overlaps most among those not yet found, by an IoU of 0.5 or more.

    Raises EyelineError where the x-ray was made without an annotation, or the model's stages do not
    lead from one to the next.
    """
    if x.target is None:
        raise EyelineError("the x-ray has no annotation: give xray(model, image, target)")
    if not x.linked:
        raise EyelineError(UNLINKED)
    crowd, objects = x.crowd, x.to_network(x.target["boxes"])
    labels = x.target["labels"]
    last = x.stages[-1]
    found = last.valid.nonzero()[:, 0]
    assert last.labels is not None
    overlap = box_iou(objects, last.boxes[found])  # (G, D)
    overlap[(labels[:, None] != last.labels[found]) | crowd[:, None]] = 0
    finder: dict[int, int] = {}  # detection of an object
    for d in range(len(found)):
        free = overlap[:, d].clone()
        free[list(finder)] = 0
        if len(free) and free.max() >= GOOD:
            finder[int(free.argmax())] = d
    return [
        Fate(g, int(labels[g]), finder[g], float(overlap[g, finder[g]]))
        if g in finder
        else _missed(x, g, objects[g], int(labels[g]))
        for g in range(len(objects))
        if not crowd[g]
    ]


def _missed(x: XRay, g: int, box: Tensor, label: int) -> Fate:
    ious = [box_iou(box[None], stage.boxes)[0] for stage in x.stages]
    alive = [
        (iou >= GOOD) & stage.valid & (True if stage.labels is None else stage.labels == label)
        for iou, stage in zip(ious, x.stages, strict=True)
    ]
    reached = [i for i, rows in enumerate(alive) if rows.any()]
    if not reached:
        row = int(ious[0].argmax())
        step = candidate_at(x, 0, row)
        return Fate(g, label, None, float(ious[0][row]), 0, "never", step, {"never": 1})
    s = reached[-1]
    rows = alive[s].nonzero()[:, 0]
    rows = rows[scores_of(x.stages[s], label)[rows].argsort(descending=True, stable=True)]
    if s == len(x.stages) - 1:  # a detection lies there, and has found another object
        row, rules = int(rows[0]), {"taken": len(rows)}
        return Fate(g, label, None, float(ious[s][row]), s, "taken", candidate_at(x, s, row), rules)
    ends = [_end(x, s, int(row), label) for row in rows]
    row, rule = int(rows[0]), ends[0]
    by, by_iou, after = None, 0.0, x.stages[s + 1]
    if rule == "nms" and after.suppressor is not None and after.overlap is not None:
        if after.suppressor[row] >= 0:
            by = candidate_at(x, s, int(after.suppressor[row]))
        by_iou = float(after.overlap[row])
    if rule == "class":
        scored = x.stages[s].class_scores
        assert scored is not None
        best = int(scored[row].argmax())
        by = Candidate(s, row, x.stages[s].boxes[row], float(scored[row, best]), best)
    return Fate(
        g, label, None, float(ious[s][row]), s + 1, rule, candidate_at(x, s, row),
        {name: ends.count(name) for name in sorted(set(ends), key=ends.count, reverse=True)},
        by, by_iou, float(scores_of(x.stages[s], label)[row]),
    )  # fmt: skip


def scores_of(stage: BoxStage, label: int) -> Tensor:
    """How sure a stage is of each row (M,): of the class, where it scores classes."""
    return stage.scores if stage.class_scores is None else stage.class_scores[:, label]


def _end(x: XRay, s: int, row: int, label: int) -> str:
    """By which rule a good candidate of stage s has no good one in the next."""
    before, after = x.stages[s], x.stages[s + 1]
    assert after.parent is not None
    child = (after.parent == row) & after.valid
    if after.labels is not None:
        child &= after.labels == label
    if child.any():
        return "moved"
    if "objectness" in after.dropped and after.dropped["objectness"][row]:
        return "objectness"  # whatever its classes
    if before.class_scores is not None and after.labels is not None:
        threshold = after.limits.get("score", 0.0)
        scores = before.class_scores[row]
        if scores[label] > threshold:
            return "top-k"
        return "class" if scores.max() > threshold else "score"
    return next((rule for rule, mask in after.dropped.items() if mask[row]), "moved")


def story(x: XRay, fate: Fate, names: list[str]) -> str:
    """A fate in one or two sentences, with the numbers that decided."""
    name = names[fate.label]
    if fate.detection is not None:
        return f"Found by detection {fate.detection}, which overlaps it by {fate.iou:.2f}."
    assert fate.stage is not None and fate.step is not None and fate.rule is not None
    limits = x.stages[fate.stage].limits
    limit, row = limits.get(fate.rule), fate.step.row
    near = f"Its best candidate (IoU {fate.iou:.2f})"
    if fate.rule == "never":
        text = f"No anchor's box overlaps it by {GOOD}; the nearest does by {fate.iou:.2f}."
    elif fate.rule == "top-k":
        among = f" {limit:.0f}" if limit else ""
        text = f"{near} scored {fate.score:.3f}, which is not among the best{among}."
    elif fate.rule == "size":
        text = f"{near} has a side too short to count."
    elif fate.rule == "background":
        text = (
            f"{near} was background with {1 - (fate.score or 0):.3f}; above {limit:g} an anchor is "
            "filtered out."
        )
    elif fate.rule == "objectness":
        sure = "" if x.moves is None else f" with {float(x.moves.objectness[row].sigmoid()):.3f}"
        text = (
            f"{near} was hardly an object{sure}; below {limit:g} it is dropped, whatever its "
            f"class ({name} {fate.score:.3f})."
        )
    elif fate.rule == "score":
        text = f"{near} gave {name} {fate.score:.3f}; it takes more than {limits['score']:g}."
    elif fate.rule == "class" and fate.by is not None and fate.by.label is not None:
        other = names[fate.by.label]
        text = f"{near} is {other} with {fate.by.score:.2f}, {name} with {fate.score:.3f}."
    elif fate.rule == "nms" and fate.by is not None:
        better = "better box of any class" if "all classes" in limits else "better box"
        text = (
            f"{near}, scored {fate.score:.2f}, was suppressed: it overlaps a {better} "
            f"({fate.by.score:.2f}) by {fate.by_iou:.2f}, and {limits['nms']:g} is allowed."
        )
    elif fate.rule == "nms":
        text = (
            f"{near}, scored {fate.score:.2f}, was lowered by soft NMS for each better box that "
            f"it overlaps, until it was below the floor of {limits.get('floor', 0.0):g}."
        )
    elif fate.rule == "limit":
        text = f"{near}, scored {fate.score:.2f}, came after the best {limit:.0f}."
    elif fate.rule == "moved":
        text = f"{near} was moved off it by the next regression."
    else:
        text = f"The detection that overlaps it by {fate.iou:.2f} has found another object."
    others = {rule: count for rule, count in fate.rules.items() if rule != fate.rule}
    if others:
        text += (
            " Other candidates: "
            + ", ".join(f"{count} {RULES[rule]}" for rule, count in others.items())
            + "."
        )
    return text

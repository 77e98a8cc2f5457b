"""What the stages of Cascade R-CNN do to the boxes of a data set: figures 1 (c), 4 and 6 of
its paper.

Cai and Vasconcelos, "Cascade R-CNN", CVPR 2018, arXiv:1712.00726.

Letters   B pictures, P proposals of a picture, G objects of it, S stages, T detectors (of one u
          each), N boxes that overlap an object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from eyeline.errors import EyelineError
from eyeline.evaluation.charts import legend, line_styles, lines_svg, moves_svg, standalone
from eyeline.evaluation.html import counted, document, facts
from eyeline.evaluation.running import bar, classes_of, eval_mode, show, unzip
from eyeline.metrics.detection import CocoMetric
from eyeline.nn.heads.roi import picture_index
from eyeline.ops.iou import box_iou, elementwise_iou

if TYPE_CHECKING:
    from rich.table import Table

IOUS = [round(0.5 + 0.05 * i, 2) for i in range(10)]  # COCO's
LOWEST = 0.5  # below this IoU a box is no hypothesis of an object: figure 1 begins here
BINS = 20  # of the input's IoU, from LOWEST to 1
DOTS = 600  # drawn of a stage
FEWEST = 5  # boxes of a bin that make a mean


@dataclass
class StageReport:
    """What `measure_stages` found. IoU and AP are in [0, 1]."""

    u: list[float]  # the IoU with which each detector learned, (T,)
    method: str
    ap: list[list[list[float | None]]]  # stage, detector, IoU of `IOUS`: (S, T, 10)
    together: list[float | None]  # the same of the model itself, (10,)
    moves: list[Tensor]  # of each stage (N, 2): a box's best IoU before and after it
    proposals: list[int]  # of each stage, how many boxes came in
    pictures: int

    def curve(self, stage: int) -> list[tuple[float, float, int]]:
        """Mean IoU before and after a stage, and of how many boxes, by bins of the first."""
        before = self.moves[stage][:, 0]
        edges = torch.linspace(LOWEST, 1, BINS + 1).tolist()
        found = []
        for low, high in pairwise(edges):
            own = (before >= low) & ((before < high) | (high == 1))
            if int(own.sum()) >= FEWEST:
                pair = self.moves[stage][own].mean(0).tolist()
                found.append((pair[0], pair[1], int(own.sum())))
        return found

    def close(self, stage: int, u: float) -> float:
        """The share of boxes that come into a stage with an IoU of u or more (figure 4)."""
        return float((self.moves[stage][:, 0] >= u).sum()) / max(1, self.proposals[stage])

    def detector(self, stage: int) -> int:
        """Which of the detectors stands at a stage."""
        return stage if self.method == "cascade" else 0

    def to_json(self, path: str | Path) -> Path:
        """Write every number but the single boxes; those of a detector under its number, 1 first,
        in the order of "u"."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {
            "method": self.method,
            "pictures": self.pictures,
            "ious": IOUS,
            "u": self.u,
            "together": _numbers(self.together),
            "stages": [
                {
                    "stage": s + 1,
                    "boxes": self.proposals[s],
                    "share_from_iou": {
                        str(t): round(self.close(s, u), 5) for t, u in enumerate(self.u, 1)
                    },
                    "iou_before_after_count": [
                        [round(x, 4), round(y, 4), n] for x, y, n in self.curve(s)
                    ],
                    "ap": {str(t): _numbers(row) for t, row in enumerate(self.ap[s], 1)},
                }
                for s in range(len(self.ap))
            ],
        }
        path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        return path

    def moves_chart(self) -> str:
        """Figure 1 (c): the IoU that comes out of each stage over the one that went in."""
        points, lines = {}, {}
        for s, name in enumerate(self.names()):
            step = max(1, len(self.moves[s]) // DOTS)
            points[name] = [(x, y) for x, y in self.moves[s][::step].tolist()]
            lines[name] = [(x, y) for x, y, _ in self.curve(s)]
        return moves_svg(points, lines, "IoU before the stage", "IoU after it", LOWEST)

    def names(self) -> list[str]:
        return [f"stage {s + 1}, u = {self.u[self.detector(s)]:g}" for s in range(len(self.ap))]

    def to_svg(self, path: str | Path) -> Path:
        """Figure 1 (c) as a picture of its own."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(standalone(self.moves_chart(), self.names()), encoding="utf-8")
        return path

    def table(self) -> Table:
        """For a terminal: AP of each detector at each stage, and of the model itself."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, title=counted(self.pictures, "picture"))
        table.title_justify = "left"
        for name in ("boxes of", "detector"):
            table.add_column(name)
        for name in ("AP", *(f"AP{round(100 * iou)}" for iou in IOUS[::2])):
            table.add_column(name, justify="right")
        for s, row in enumerate(self.ap):
            for t, values in enumerate(row):
                own = "own" if t == self.detector(s) else ""
                table.add_row(f"stage {s + 1}", f"u = {self.u[t]:g} {own}", *_row(values))
        table.add_section()
        table.add_row(f"stage {len(self.ap)}", "the model", *_row(self.together), style="bold")
        return table

    def to_html(self, path: str | Path, title: str = "Stages") -> Path:
        """Write one page that needs no other file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._page(title), encoding="utf-8")
        return path

    def _page(self, title: str) -> str:
        names = self.names()
        words = {}
        for s, name in enumerate(names):
            before, after = self.moves[s].mean(0).tolist() if len(self.moves[s]) else (0.0, 0.0)
            words[name] = f"{len(self.moves[s]):,} boxes, mean IoU {before:.3f} to {after:.3f}"
        moves = _figure(self.moves_chart(), legend(line_styles(names), words))
        own = {name: self.ap[s][self.detector(s)] for s, name in enumerate(names)}
        own["the model: all classifiers"] = self.together
        rest = "".join(
            f"<h3>At the boxes of stage {s + 1}</h3>"
            + _lines({f"detector {t + 1}, u = {u:g}": row[t] for t, u in enumerate(self.u)})
            for s, row in enumerate(self.ap)
            if len(self.u) > 1
        )
        heads = "".join(f'<th class="num">IoU ≥ {u:g}</th>' for u in self.u)
        rows = "".join(
            f'<tr><th>stage {s + 1}</th><td class="num">{self.proposals[s]:,}</td>'
            + "".join(f'<td class="num">{self.close(s, u):.1%}</td>' for u in self.u)
            + "</tr>"
            for s in range(len(self.ap))
        )
        about = facts({
            "pictures": f"{self.pictures:,}", "method": self.method,
            "u": ", ".join(f"{u:g}" for u in self.u), "AP": show(_mean(self.together)),
        })  # fmt: skip
        body = f"""<header><h1>{escape(title)}</h1>{about}</header>
<section><h2>Boxes before and after each stage</h2>
<p>As figure 1 (c) of the paper: the IoU of a box with the object that it overlaps most, and, after
the stage has moved it, with the same object. Above the diagonal a box has come closer. Dots are
boxes, lines means.</p>
{moves}</section>
<section><h2>How many boxes are close</h2>
<p>As figure 4: of the boxes that come into a stage, the share that overlaps an object so far.</p>
<div class="scroll"><table class="classes"><thead><tr><th></th><th class="num">boxes</th>{heads}
</tr></thead><tbody>{rows}</tbody></table></div></section>
<section><h2>AP over the overlap that is asked for</h2>
<p>As figure 1 (d): each detector at its own stage, and the model, in which all classifiers count.
</p>{_lines(own)}</section>
"""
        if rest:
            body += f"""<section><h2>Each detector at the boxes of each stage</h2>
<p>As figure 6: a detector that learned with a high u needs boxes that lie close.</p>
{rest}</section>
"""
        return document(title, body)


def _figure(chart: str, words: str) -> str:
    return f'<figure class="chart">{chart}<figcaption>{words}</figcaption></figure>'


def _lines(rows: dict[str, list[float | None]]) -> str:
    lines = {
        name: [(iou, v) for iou, v in zip(IOUS, values, strict=True) if v is not None]
        for name, values in rows.items()
    }
    chart = lines_svg(lines, "IoU", "AP", merit=False, y_range=(0.0, 1.0), x_from=LOWEST)
    words = {name: f"AP {show(_mean(values))}" for name, values in rows.items()}
    return _figure(chart, legend(line_styles(lines), words))


def _row(values: Sequence[float | None]) -> list[str]:
    return [show(_mean(values)), *(show(value) for value in values[::2])]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _numbers(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 4) for value in values]


def check_stages(model: nn.Module) -> None:
    """Raises EyelineError where a model has no stages to look behind."""
    if not hasattr(model, "refine"):
        name = getattr(model, "name", type(model).__name__)
        raise EyelineError(f"{name} has no stages to look behind; cascade_rcnn has")


def measure_stages(
    model: nn.Module,
    dataset: Dataset[Any],
    batch_size: int = 1,
    device: torch.device | str | None = None,
    progress: bool = True,
    workers: int = 0,
) -> StageReport:
    """Run a Cascade R-CNN over annotated pictures and look behind each of its stages.

    Args:
        model: has `refine`, `look` and `moved`, as `eyeline.detectors.cascade_rcnn` does.
        dataset: yields (image (3, H, W), target), boxes in the image's pixels.

    Raises EyelineError where the model has no stages, or the data no picture.
    """
    check_stages(model)
    cascade: Any = model
    if not len(dataset):  # type: ignore[arg-type]
        raise EyelineError("the data set to evaluate on has no pictures")
    classes = classes_of(model, dataset)
    if device is not None:
        model.to(device)
    device = next(p.device for p in model.parameters())
    loader: Any = DataLoader(dataset, batch_size, num_workers=workers, collate_fn=unzip)
    metrics: dict[tuple[int, int], CocoMetric] = {}
    whole = CocoMetric(classes)
    moves: list[list[Tensor]] = []
    boxes: list[int] = []
    pictures = len(dataset)  # type: ignore[arg-type]
    with eval_mode(model), torch.inference_mode(), bar(pictures, progress) as advance:
        for images, targets in loader:
            batch = cascade.prepare([image.to(device) for image in images])
            levels = cascade.levels(batch.images)
            anchors = cascade.rpn.anchors(levels, batch.images.shape[2:])
            proposals, valid = cascade.propose(levels, anchors, batch.sizes, test=True)
            stages, scores = cascade.refine(levels, proposals, valid, batch.sizes)

            def finished(look: Any, scores: Tensor, t: int, valid: Any = valid, batch: Any = batch):
                found = cascade.detections(look, scores, valid, batch.sizes, t)
                rows = cascade.finish(found, batch)
                return [{key: value.cpu() for key, value in row.items()} for row in rows]

            whole.update(finished(stages[-1], scores, len(stages) - 1), targets)
            moves += [[] for _ in stages[len(moves) :]]
            boxes += [0] * (len(stages) - len(boxes))
            for s, stage in enumerate(stages):
                regions = cascade.pool(
                    levels, stage.boxes.flatten(0, 1), picture_index(stage.boxes)
                )
                for t, head in enumerate(cascade.heads):
                    look = cascade.look(head, regions, stage.boxes)
                    if not look.deltas.shape[2]:  # of "integral": one regressor
                        look = look._replace(deltas=stage.deltas)
                    metric = metrics.setdefault((s, t), CocoMetric(classes))
                    metric.update(finished(look, look.scores, t), targets)
                after = cascade.moved(stage, s, batch.sizes)
                boxes[s] += int(valid.sum())
                moves[s] += overlaps(stage.boxes, after, valid, targets, batch)
            advance(len(images))
    count, detectors = len(moves), len(cascade.heads)
    ap = [[metrics[s, t].compute()["by_iou"] for t in range(detectors)] for s in range(count)]
    return StageReport(
        list(cascade.config.ious[:detectors]), cascade.config.method, ap,
        whole.compute()["by_iou"], [torch.cat(parts) for parts in moves], boxes, pictures,
    )  # fmt: skip


def overlaps(
    before: Tensor, after: Tensor, valid: Tensor, targets: Sequence[dict[str, Tensor]], batch: Any
) -> list[Tensor]:
    """Of each picture's boxes (B, P, 4) that overlap an object by LOWEST or more, (N, 2): the IoU
    with the object that a box overlaps most, and that of the moved box with the same."""
    found = []
    for i, target in enumerate(targets):
        own = ~target.get("iscrowd", torch.zeros(len(target["boxes"]))).bool()
        factor = (batch.sizes[i] / batch.original_sizes[i]).flip(0).repeat(2).cpu()
        objects = target["boxes"][own].float() * factor  # (G, 4)
        if not len(objects):
            found.append(torch.zeros(0, 2))
            continue
        first, second = before[i][valid[i]].cpu(), after[i][valid[i]].cpu()
        best, index = box_iou(objects, first).max(0)
        pair = torch.stack([best, elementwise_iou(objects[index], second)], 1)
        found.append(pair[best >= LOWEST])
    return found

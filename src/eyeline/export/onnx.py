"""ONNX: a model as a file of the standard's own operators, for any runtime.

Letters   B pictures, N boxes of a row, K groups of boxes, S boxes selected, R regions, R_l of
          level l.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyeline.export.graph import INPUT, capture
from eyeline.ops.whole import keep_whole

BOOL = 9  # ONNX's number for the type


def write_onnx(
    model: Any, path: Path, facts: Mapping[str, str], size: tuple[int, int] | None = None
) -> None:
    """Write the graph of a model, see `capture`; `facts` become the file's metadata."""
    with _quiet(), keep_whole():
        captured = capture(model, size)
        program = torch.onnx.export(
            captured,
            input_names=[INPUT],
            output_names=captured.call_spec.out_spec.context,
            custom_translation_table=translations(),
            verbose=False,
        )
        assert program is not None
        image = program.model.graph.inputs[0]
        axes = {0: "batch"} if size is not None else {0: "batch", 2: "height", 3: "width"}
        program.rename_axes({str(image.shape[i]): name for i, name in axes.items()})
        program.model.metadata_props.update(facts)
        program.save(path, external_data=False)


def load_onnx(path: Path) -> Callable[[Tensor], dict[str, Tensor]]:
    """A file that `write_onnx` wrote: pictures (B, C, H, W) uint8 to the graph's outputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        values = session.run(names, {INPUT: images.numpy()})
        return {name: torch.from_numpy(v) for name, v in zip(names, values, strict=True)}

    return run


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What the operators of `eyeline.ops.whole` become; the arguments are theirs."""
    from onnxscript import opset18 as op

    def nms_kept(
        boxes: Any,
        scores: Any,
        valid: Any,
        groups: Any,
        iou_threshold: float,
        max_detections: int,
    ) -> Any:
        never = op.Constant(value_float=float("-inf"))
        scores = op.Unsqueeze(op.Where(valid, scores, never), [1])  # (rows, 1, N)
        if groups is not None:  # each group sees its own boxes alone
            count = op.Add(op.ReduceMax(groups, keepdims=0), 1)
            group = op.Unsqueeze(op.Range(0, count, 1), [1])  # (K, 1)
            scores = op.Where(op.Equal(op.Unsqueeze(groups, [1]), group), scores, never)
        selected = op.NonMaxSuppression(
            boxes,
            scores,  # (rows, K, N)
            [max_detections],
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[torch.finfo(torch.float32).min]),
        )  # (S, 3): row, group, box
        place = op.Gather(selected, [0, 2], axis=1)  # (S, 2)
        none = op.Expand(op.Cast([0], to=BOOL), op.Shape(valid))
        there = op.Expand(op.Cast([1], to=BOOL), op.Shape(place, end=1))  # (S,)
        return op.ScatterND(none, place, there)  # (rows, N)

    def roi_align(
        levels: Sequence[Any],
        boxes: Any,
        image_index: Any,
        level_index: Any,
        height: int,
        width: int,
        scales: Sequence[float],
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        regions, places = [], []
        for i, (level, scale) in enumerate(zip(levels, scales, strict=True)):
            own = op.Squeeze(op.NonZero(op.Equal(level_index, i)), [0])  # (R_l,)
            places.append(own)
            regions.append(
                op.RoiAlign(
                    level,
                    op.Gather(boxes, own),
                    op.Gather(image_index, own),
                    mode="avg",
                    output_height=height,
                    output_width=width,
                    sampling_ratio=max(sampling_ratio, 0),
                    spatial_scale=scale,
                    coordinate_transformation_mode=(
                        "half_pixel" if aligned else "output_half_pixel"
                    ),
                )
            )
        place = op.Concat(*places, axis=0)  # (R,), where each of the regions belongs
        order = op.ScatterElements(place, place, op.Range(0, op.Size(place), 1))
        return op.Gather(op.Concat(*regions, axis=0), order)

    return {
        torch.ops.eyeline.nms_kept.default: nms_kept,
        torch.ops.eyeline.roi_align.default: roi_align,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of itself while it writes ONNX."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

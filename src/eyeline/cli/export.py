"""eyeline export: a trained detector as a file that runs without eyeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eyeline.cli.options import ClassAgnostic, Nms, NmsIou, VoteIou


def export(
    run: Annotated[str, typer.Argument(help="run folder, or weights file")],
    format: Annotated[str, typer.Option(help="onnx, or torch (torch.export)")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="default RUN/model.onnx or model.pt2")
    ] = None,
    picture: Annotated[
        str | None, typer.Option(metavar="PATH", help="on which the file is compared with the run")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite the file")] = False,
    nms: Nms = None,
    nms_iou: NmsIou = None,
    vote_iou: VoteIou = None,
    class_agnostic: ClassAgnostic = False,
) -> None:
    """Write a detector to a file for onnxruntime and the like, or for torch alone.

    One graph from pictures of any size, uint8, to boxes in their pixels. Once written, it is run
    beside the model, and the largest differences are printed.
    """
    from eyeline.cli.output import make_room
    from eyeline.data.images import read_image
    from eyeline.export.files import FORMATS, check_format, export_model
    from eyeline.inference.options import set_suppression
    from eyeline.inference.predictor import load_model

    check_format(format)
    model = load_model(run)
    chosen = {
        "nms": nms, "nms_iou": nms_iou, "vote_iou": vote_iou,
        "class_agnostic_nms": class_agnostic or None,
    }  # fmt: skip
    set_suppression(model, chosen)
    folder = Path(run) if Path(run).is_dir() else Path()
    path = out or folder / f"model{FORMATS[format].suffix}"
    make_room(path)
    channels = getattr(model, "channels", 3)
    image = None if picture is None else read_image(picture, channels=channels)
    compared = export_model(model, path, format, image, force)
    print(f"{path}; beside the model on {picture or 'a made picture'}, {compared}")
    if not compared.detections:
        print("nothing was found to compare; --picture PATH names one with objects")

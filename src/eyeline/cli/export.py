"""eyeline export: a trained model as a file that runs without eyeline."""

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
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="of a segmenter: of the file's pictures; default that of --picture"
        ),
    ] = None,
) -> None:
    """Write a model to a file for onnxruntime and the like, or for torch alone.

    One graph from pictures of any size, uint8, to boxes in their pixels; of a segmenter from
    pictures of one size to their logits. Once written, it is run
    beside the model, and the largest differences are printed.
    """
    from eyeline.cli.output import make_room
    from eyeline.cli.profile import picture_size
    from eyeline.data.images import read_image
    from eyeline.export.files import FORMATS, Comparison, check_format, export_model
    from eyeline.inference.options import set_suppression
    from eyeline.inference.predictor import load_model
    from eyeline.inference.segmenting import check_options

    check_format(format)
    model = load_model(run)
    chosen = {
        "nms": nms, "nms_iou": nms_iou, "vote_iou": vote_iou,
        "class_agnostic_nms": class_agnostic or None,
    }  # fmt: skip
    check_options(model, chosen, {"--size": size})
    set_suppression(model, chosen)
    folder = Path(run) if Path(run).is_dir() else Path()
    path = out or folder / f"model{FORMATS[format].suffix}"
    make_room(path)
    channels = getattr(model, "channels", 3)
    image = None if picture is None else read_image(picture, channels=channels)
    sides = picture_size(size, model) if size is not None else None
    compared = export_model(model, path, format, image, force, sides)
    print(f"{path}; beside the model on {picture or 'a made picture'}, {compared}")
    if isinstance(compared, Comparison) and not compared.detections:
        print("nothing was found to compare; --picture PATH names one with objects")

"""eyeline predict: detections on pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from eyeline.cli.options import ClassAgnostic, Nms, NmsIou, Tta, VoteIou


def predict(
    run: Annotated[str, typer.Argument(help="run folder, or weights file")],
    source: Annotated[str, typer.Argument(help="picture, folder, pattern or URL")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a new folder; default predictions")
    ] = None,
    threshold: Annotated[float, typer.Option(help="lowest score shown")] = 0.5,
    precision: Annotated[str, typer.Option(help="float32 or bf16")] = "float32",
    polygons: Annotated[
        bool, typer.Option("--polygons", help="masks as polygons; without it as RLE")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1)] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...")] = None,
    nms: Nms = None,
    nms_iou: NmsIou = None,
    vote_iou: VoteIou = None,
    class_agnostic: ClassAgnostic = False,
    tta: Tta = False,
) -> None:
    """Detect on a picture, a folder, a pattern or a URL.

    Writes each picture with its boxes (and masks) drawn, detections.json (COCO) and
    detections.csv.
    """
    from rich.console import Console
    from rich.progress import track

    from eyeline.cli.output import new_folder
    from eyeline.inference import Predictor
    from eyeline.inference.predictor import find_pictures, is_url
    from eyeline.inference.result import CSV_HEADER

    pictures, _ = find_pictures(source)
    predictor = Predictor(
        run, device, precision, score_threshold=threshold, tta=tta, nms=nms, nms_iou=nms_iou,
        vote_iou=vote_iou, class_agnostic_nms=class_agnostic or None,
    )  # fmt: skip
    folder = new_folder(out, Path("predictions"))
    rows, coco = [], _coco(predictor.classes)
    console = Console(stderr=True)
    for result in track(
        predictor.stream(pictures, batch_size),
        "predicting",
        total=len(pictures),
        console=console,
        disable=not console.is_terminal,
    ):
        name = Path(str(result.path)).name
        if is_url(result.path):
            name = unquote(Path(urlsplit(str(result.path)).path).name)
        result.save(_unused(folder, Path(name).stem))
        height, width = result.image.shape[1:]
        image_id = len(coco["images"]) + 1
        coco["images"].append(
            {"id": image_id, "file_name": str(result.path), "width": width, "height": height}
        )
        form = "polygons" if polygons else "rle"
        for record in result.to_coco(image_id, segmentation=form):
            area = record["bbox"][2] * record["bbox"][3]
            record = {"id": len(coco["annotations"]) + 1, "area": area, "iscrowd": 0} | record
            coco["annotations"].append(record)
        rows += result.rows()
    (folder / "detections.json").write_text(json.dumps(coco) + "\n", encoding="utf-8")
    with (folder / "detections.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_HEADER)
        writer.writerows(rows)
    print(f"{len(rows)} detections on {len(pictures)} pictures: {folder}")


def _coco(classes: list[str]) -> dict[str, list[dict[str, Any]]]:
    """COCO's annotation file, empty but for the classes; each annotation will have a score too."""
    categories = [{"id": i, "name": name} for i, name in enumerate(classes)]
    return {"images": [], "categories": categories, "annotations": []}


def _unused(folder: Path, stem: str) -> Path:
    """A name that no picture of another folder or ending has taken."""
    path, i = folder / f"{stem}.jpg", 1
    while path.exists():
        path, i = folder / f"{stem}-{i + 1}.jpg", i + 1
    return path

"""eyeline eval: how good is a trained model?"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyeline.cli.options import (
    NO_DATA,
    CalibratedRanges,
    ClassAgnostic,
    Flip,
    Margin,
    Nms,
    NmsIou,
    Overlap,
    Precision,
    Scales,
    Tile,
    Tolerant,
    Tta,
    TtaSize,
    VoteIou,
    ratios,
)
from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from eyeline.evaluation import SegmentationReport
    from eyeline.training.recipe import Data


def evaluate(
    run: Annotated[str, typer.Argument(help="run folder, or weights file")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="what the data means, where not as in the run, such as data.background=ignore",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="annotated pictures; default: those of the run"),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="RECIPE", help="whose keys data.* hold instead of the run's"),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="which part of them; default: the run's, or val")
    ] = None,
    bad_boxes: Annotated[
        str | None, typer.Option(help="error or drop; default: the run's, or error")
    ] = None,
    tolerant: Tolerant = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a new folder; default RUN/eval-SPLIT")
    ] = None,
    precision: Precision = "float32",
    ranges: CalibratedRanges = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 1,
    workers: Annotated[int, typer.Option(min=0, help="processes that load pictures")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda ...")] = None,
    nms: Nms = None,
    nms_iou: NmsIou = None,
    vote_iou: VoteIou = None,
    class_agnostic: ClassAgnostic = False,
    tta: Tta = False,
    tta_size: TtaSize = None,
    tile: Tile = None,
    overlap: Overlap = None,
    margin: Margin = None,
    scales: Scales = None,
    flip: Flip = False,
) -> None:
    """Measure a detector: COCO's twelve numbers (of masks too, where the model predicts and the
    data has some), VOC's AP, per class, pictures a second. Or a segmenter: mIoU and other numbers
    of its pixels, boundary F1, per class, errors at boundaries and inside, pictures a second.

    Processes that torchrun starts share the pictures, with the same numbers.

    Prints the table; writes report.html, results.json and, of a detector, detections.json (COCO).
    """
    from rich import print as show

    from eyeline.cli.output import free_path
    from eyeline.data.checking.progress import track
    from eyeline.data.checking.usable import in_words, open_checked, write_left_out
    from eyeline.evaluation import evaluate, evaluate_segmentation
    from eyeline.evaluation.evaluate import Report
    from eyeline.evaluation.running import millions, parameters_of
    from eyeline.export import optimize
    from eyeline.inference.options import set_suppression
    from eyeline.inference.predictor import find_ranges, load_model
    from eyeline.inference.segmenting import Looking, Looks, check_options
    from eyeline.inference.tta import TTA, Augmented
    from eyeline.nn.segmenter import is_segmenter
    from eyeline.processes import place
    from eyeline.together import together
    from eyeline.training.build import of_maps, of_objects
    from eyeline.training.parallel import own_device

    if tta_size and not tta:
        raise EyelineError("--tta-size says at which sizes --tta looks; give that, too")
    chosen = {
        "nms": nms, "nms_iou": nms_iou, "vote_iou": vote_iou,
        "class_agnostic_nms": class_agnostic or None,
    }  # fmt: skip
    passes = TTA.merging(chosen, tta_size or ()) if tta else None
    wanted = dict(
        tile=tile, overlap=overlap, margin=margin, scales=ratios(scales), flip=flip or None
    )
    with together():
        found_device = own_device(device)
        model: Any = load_model(run)
        check_options(model, chosen | {"tta": tta}, wanted)
        maps = is_segmenter(model)
        folder = Path(run)
        of_run = data_of(folder, settings or [], recipe, data)
        path = data or of_run.path
        if path is None:
            raise EyelineError(NO_DATA)
        split = split or of_run.val or "val"
        [dataset] = open_checked(
            path,
            [split],
            tolerant or of_run.tolerant,
            bad_boxes or of_run.bad_boxes,
            of_run.format,
            classes=model.classes,
            channels=getattr(model, "channels", 3),
            one_based=of_run.one_based,
            unknown=of_run.unknown,
            track=track,
            say=print if place()[0] == 0 else None,
            **(of_maps(of_run) if maps else of_objects(of_run, model.name)),
        )
        if getattr(model, "needs_masks", False) and dataset.has_masks:
            dataset.use_masks()
        out = free_path(out, (folder if folder.is_dir() else Path()) / f"eval-{split}")
        known = find_ranges(run, ranges) if precision == "int8" else None
        trained = parameters_of(model)  # `optimize` folds norms
        fast: Any = optimize(model, precision, found_device, known)
        how: dict[str, Any] = dict(batch_size=batch_size, device=found_device, workers=workers)
        report: Report | SegmentationReport
        if maps:
            looks = Looks(tile, overlap, margin, tuple(wanted["scales"] or (1.0,)), flip)
            report = evaluate_segmentation(Looking(fast, looks), dataset, closely=True, **how)
            report.facts |= looks.told()
        else:
            set_suppression(fast, chosen)
            augmented = Augmented(fast, passes) if passes else None
            report = evaluate(augmented or fast, dataset, **how)
        report.parameters, report.facts["parameters"] = trained, millions(trained)
        report.facts |= {"precision": precision, "date": date.today().isoformat()}
        report.facts["split"] = split
        report.facts["command"] = _command(
            run, *settings or [], recipe=recipe, data=path, split=split,
            bad_boxes=bad_boxes, tolerant=tolerant or None,
            precision=None if precision == "float32" else precision, ranges=ranges,
            batch_size=None if batch_size == 1 else batch_size,
            **chosen, tta=tta or None, tta_size=tta_size, **wanted | {"scales": scales},
        )  # fmt: skip
        told = {key.replace("_", " "): str(v) for key, v in chosen.items() if v is not None}
        report.facts |= told
        if passes is not None:
            report.facts["test-time augmentation"] = passes.told()
        if dataset.left_out:
            report.facts["left out"] = in_words(dataset.left_out).partition(": ")[2]
        if place()[0]:
            return  # the first of several processes writes
        report.to_json(out / "results.json")
        if isinstance(report, Report):
            report.detections_json(out / "detections.json")
        title = f"{model.name} on {Path(path).name} {split}"
        page = report.to_html(out / "report.html", title=title)
        if dataset.left_out:
            write_left_out(out / "left_out.json", dataset.left_out)
        show(report.table())
        print(f"report: {page}")


# Keys that have no option of their own
OF_DATA = ("format", "one_based", "unknown", "ignore", "shift", "ids", "background", "on_top")


def data_of(folder: Path, settings: Sequence[str], recipe: Path | None, path: str | None) -> Data:
    """What the run, or a recipe in its place, says of the data, and then the settings.

    Args:
        path: of the data, where it is not the run's; its format may be another, too.

    Raises EyelineError where a setting is not one of `OF_DATA`.
    """
    from eyeline.training import load_recipe

    for setting in settings:
        key, _, name = setting.partition("=")[0].strip().partition(".")
        if key != "data" or name.partition(".")[0] not in OF_DATA:
            known = ", ".join(f"data.{name}" for name in OF_DATA)
            raise EyelineError(f"{setting}: eval takes what data means, which is: {known}")
    source: Any = recipe or folder / "recipe.yaml"
    source = source if recipe or source.is_file() else {}
    found = load_recipe(source, settings).data
    if recipe is None and path not in (None, found.path):
        found = load_recipe(source, ["data.format=null", *settings]).data
    return found


def _command(run: str, *settings: str, **options: Any) -> str:
    """What to type for the same numbers; options that are None are left out."""
    words = ["eyeline", "eval", run, *settings]
    for key, value in options.items():
        if value is not None:
            name = "--" + key.removesuffix("_nms").replace("_", "-")  # of class_agnostic_nms
            several = value if isinstance(value, list) else [value]
            words += [name] if value is True else [w for v in several for w in (name, str(v))]
    return shlex.join(words)

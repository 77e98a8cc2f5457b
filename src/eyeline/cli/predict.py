"""eyeline predict: detections or maps of classes, on pictures and videos."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from eyeline.cli.options import (
    CalibratedRanges,
    ClassAgnostic,
    Flip,
    Nms,
    NmsIou,
    Overlap,
    Precision,
    Scales,
    Tile,
    Tta,
    VoteIou,
    ratios,
)
from eyeline.errors import EyelineError

if TYPE_CHECKING:
    from eyeline.inference import Predictor, SegmentationResult
    from eyeline.inference.records import Records
    from eyeline.inference.result import Result
    from eyeline.inference.video import Video, VideoWriter

QUEUED = 8  # results that wait to be drawn and written


def predict(
    run: Annotated[str, typer.Argument(help="run folder, or weights file")],
    source: Annotated[
        str,
        typer.Argument(
            help="picture, video, folder, pattern, list file (.txt), URL, or a camera's index"
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="a new folder; default predictions. Of a large scene a new file"
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="lowest score shown")] = 0.5,
    every: Annotated[int, typer.Option(min=1, help="of a video, every so manieth frame")] = 1,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="print a line a picture or frame, as it goes")
    ] = False,
    draw: Annotated[
        bool, typer.Option(help="write the pictures with their boxes, or in their classes' tints")
    ] = True,
    maps: Annotated[
        bool | None,
        typer.Option(help="of a segmenter: write indexed PNGs; default of pictures, not of videos"),
    ] = None,
    precision: Precision = "float32",
    ranges: CalibratedRanges = None,
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
    tile: Tile = None,
    overlap: Overlap = None,
    scales: Scales = None,
    flip: Flip = False,
    bands: Annotated[
        str | None, typer.Option(metavar="N,N,N", help="of a scene, from 1: which are the channels")
    ] = None,
    value_range: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="of a scene: what is 0 and 1 for the model"),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="ray: very many pictures, into Parquet files; resumable")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="of ray; default one a GPU, without any one")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="ray: of a Parquet file, its paths or pictures")
    ] = None,
    part_size: Annotated[int, typer.Option(min=1, help="ray: pictures a Parquet file")] = 256,
) -> None:
    """Detect on pictures or on a video, a camera, a stream; or say of each pixel what it shows.

    Writes each picture with its boxes (and masks) drawn, or an mp4 (H.264, without sound) of each
    video, and detections.json (COCO) and detections.csv. Ctrl-C ends it and leaves all of these
    whole.

    Of a segmenter: each picture in its classes' tints, maps/*.png, whose values are the classes,
    segments.json (COCO, run lengths) and segments.csv (pixels of each class). A GeoTIFF, or another
    picture of more than 32 million pixels, becomes one indexed picture of the same size and place,
    by default NAME-classes.tif, tile by tile; Ctrl-C ends it, and the same command goes on.
    """
    from rich.console import Console
    from rich.progress import Progress

    from eyeline.cli.output import free_path
    from eyeline.cli.predict_many import predict_many
    from eyeline.inference import Predictor
    from eyeline.inference.pipeline import Behind
    from eyeline.inference.records import Records
    from eyeline.inference.sources import find
    from eyeline.inference.video import Video
    from eyeline.nn.segmenter import is_segmenter

    options = {
        "precision": precision, "ranges": ranges and str(ranges.absolute()),
        "score_threshold": threshold, "tta": tta, "nms": nms, "nms_iou": nms_iou,
        "vote_iou": vote_iou, "class_agnostic_nms": class_agnostic or None,
        "tile": tile, "overlap": overlap, "scales": ratios(scales), "flip": flip,
    }  # fmt: skip
    if engine == "ray":
        if json_lines or polygons or every != 1:
            raise EyelineError(
                "--json-lines, --polygons and --every do not go with --engine ray, which writes "
                "pictures' detections to Parquet files"
            )
        predict_many(run, source, out, options, device, workers, batch_size, column, part_size)
        return
    if engine != "local":
        raise EyelineError(f"--engine is local or ray, not {engine}")
    if workers is not None or column is not None:
        raise EyelineError("--workers and --column are for --engine ray")
    items, _ = find(source)
    predictor = Predictor(run, device, **options)
    segmenter = is_segmenter(predictor.model)
    if maps is not None and not segmenter:
        raise EyelineError("--maps is for segmenters; this model finds boxes")
    asked = bands is not None or value_range is not None
    if segmenter and len(items) == 1 and (asked or is_scene(items[0])):
        scene(predictor, items[0], out, bands, value_range, options)
        return
    if asked:
        raise EyelineError("--bands and --value-range are for a segmenter and one scene")
    folder = free_path(out, Path("predictions"))
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    lines = sys.stdout if json_lines else None
    form: Literal["polygons", "rle"] = "polygons" if polygons else "rle"
    records = Records(folder, predictor.classes, lines, form, segmenter)
    unread = Unread()
    try:
        with (
            Progress(console=console, disable=not console.is_terminal) as progress,
            records,
            Outputs(folder, records, every, draw, maps) as outputs,
            Behind(outputs.add, QUEUED) as writing,
        ):
            known = len(items) > 1 and not any(isinstance(item, Video) for item in items)
            task = progress.add_task("predicting", total=len(items) if known else None)
            # Of several, the others follow what cannot be read; of one there is nothing else.
            skip = unread.add if len(items) > 1 else None
            for result in predictor.stream(items, batch_size, every, skip):
                writing.put(result)
                if len(items) == 1 and result.video is not None and result.video.count:
                    progress.update(task, total=-(-result.video.count // every))
                progress.advance(task)
    except KeyboardInterrupt:
        where = f": {folder}" if records.pictures + records.frames else ""
        print(f"stopped: {records}{where}", file=sys.stderr)
        raise
    finally:
        if records.pictures + records.frames == 0:
            records.remove()
            if made and not any(folder.iterdir()):
                folder.rmdir()
    print(f"{records}: {folder}", file=sys.stderr if json_lines else sys.stdout)
    if unread.count:
        raise EyelineError(f"{source}: {unread.count} of {len(items)} could not be read, see above")


class Unread:
    """What could not be read: told as it comes, and counted."""

    count = 0

    def add(self, error: EyelineError) -> None:
        self.count += 1
        print(f"left out: {error}", file=sys.stderr)


SCENE = 2**25  # pixels from which on a picture is seen tile by tile, from disk to disk


def is_scene(item: Any) -> bool:
    """Is it a file that is better not taken into memory, or that says where on Earth it lies?"""
    from eyeline.data import tiff
    from eyeline.data.images import image_size

    if not isinstance(item, Path) or not item.is_file():
        return False
    with item.open("rb") as file:
        layout = tiff.read_layout(file)
    if layout is not None:
        return layout.located or layout.height * layout.width > SCENE
    try:
        height, width = image_size(item)
    except EyelineError:
        return False
    return height * width > SCENE


def scene(
    predictor: Predictor,
    source: Path,
    out: Path | None,
    bands: str | None,
    value_range: tuple[float, float] | None,
    options: dict[str, Any],
) -> None:
    """One picture to one indexed picture, in tiles."""
    from eyeline.cli.predict_scene import predict_scene
    from eyeline.inference.rasters import SUFFIXES
    from eyeline.inference.sources import stem_of

    if out is None:
        target = Path(f"{stem_of(str(source))}-classes.tif")
    else:
        target = out if out.suffix.lower() in SUFFIXES else out / f"{stem_of(str(source))}.tif"
    try:
        chosen = None if bands is None else [int(band) for band in bands.split(",")]
    except ValueError:
        raise EyelineError(f"--bands is numbers from 1, such as 4,3,2, not {bands!r}") from None
    looking = predictor.model
    decisive = {key: options[key] for key in ("precision", "scales", "flip")}
    predict_scene(
        looking.whole, source, target, looking.tiling_or_default(), classes=predictor.classes,
        bands=chosen, value_range=value_range, options=decisive, device=predictor.device,
    )  # fmt: skip


class Outputs:
    """Results drawn and recorded, in their order; leaving the context ends the video's file.

    Args:
        maps: write a segmenter's maps; None: those of pictures, and not of frames.
    """

    def __init__(
        self, folder: Path, records: Records, every: int, draw: bool, maps: bool | None = None
    ) -> None:
        self.folder, self.records, self.every, self.draw = folder, records, every, draw
        self.maps = maps
        self.open = ExitStack()
        self.video: Video | None = None  # whose frames are being written
        self.writer: VideoWriter | None = None

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        self.open.close()

    def add(self, result: Result | SegmentationResult) -> None:
        from eyeline.inference.map_result import SegmentationResult
        from eyeline.inference.sources import stem_of

        stem = stem_of(str(result.path))
        if self.draw:
            if result.video is not self.video:
                self.open.close()
                self.video = result.video
                self.writer = self._begin(result.video, stem) if result.video else None
            if self.writer is None or result.time is None:
                result.save(self._unused(stem, ".jpg"))
            else:
                self.writer.write(result.plot(), result.time)
        wanted = self.maps if self.maps is not None else result.video is None
        if wanted and isinstance(result, SegmentationResult):
            frame = "" if result.frame is None else f"-{result.frame:06d}"
            path = self._unused(f"maps/{stem}{frame}", ".png")
            path.parent.mkdir(exist_ok=True)
            result.save_map(path)
        self.records.add(result)

    def _begin(self, video: Video, stem: str) -> VideoWriter:
        from eyeline.inference.video import VideoWriter

        if video.has_sound:
            print(f"{video.name}: its sound is left out", file=sys.stderr)
        path, rate = self._unused(stem, ".mp4"), video.rate / self.every
        writer = VideoWriter(path, rate, video.time_base, video.pixel_aspect)
        return self.open.enter_context(writer)

    def _unused(self, stem: str, suffix: str) -> Path:
        """A name that no picture of another folder or ending has taken."""
        path, i = self.folder / f"{stem}{suffix}", 1
        while path.exists():
            path, i = self.folder / f"{stem}-{i + 1}{suffix}", i + 1
        return path

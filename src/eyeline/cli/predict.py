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
    Margin,
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
    from eyeline.inference import SegmentationResult
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
            metavar="DIR", help="a new folder; default predictions. Of one scene a new file"
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="lowest score shown")] = 0.5,
    every: Annotated[int, typer.Option(min=1, help="of a video, every so manieth frame")] = 1,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="print a line a picture or frame, as it goes")
    ] = False,
    draw: Annotated[
        bool | None,
        typer.Option(help="write the pictures with boxes, or in their classes' tints; default"),
    ] = None,
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
    margin: Margin = None,
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
    segments.json (COCO, run lengths) and segments.csv (pixels of each class).

    A scene is a picture that says where on Earth it lies (GeoTIFF ...) or has more than 32 million
    pixels. Of a segmenter each becomes one indexed picture of the same size and place, tile by
    tile: NAME-classes.tif, or of several pictures NAME.tif in their folder. Ctrl-C ends it, and the
    same command goes on.
    """
    from rich.console import Console
    from rich.progress import Progress

    from eyeline.cli.output import free_path
    from eyeline.cli.predict_many import predict_many
    from eyeline.cli.predict_scene import (
        band_numbers,
        not_for_scenes,
        one_scene,
        several_scenes,
        split,
    )
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
        "tile": tile, "overlap": overlap, "margin": margin, "scales": ratios(scales), "flip": flip,
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
    if asked and not segmenter:
        raise EyelineError("--bands and --value-range are for segmenters; this model finds boxes")
    chosen = band_numbers(bands)
    scenes, others = split(items, asked) if segmenter else ([], items)
    unread = Unread()
    if scenes:
        not_for_scenes(
            scenes[0], json_lines=json_lines, polygons=polygons, no_maps=maps is False,
            draw=bool(draw), every=every != 1,
        )  # fmt: skip
        how: dict[str, Any] = dict(bands=chosen, value_range=value_range, batch_size=batch_size)
        how["options"] = {key: options[key] for key in ("precision", "scales", "flip")}
        if len(items) == 1:
            one_scene(predictor, scenes[0], out, **how)
            return
        folder = out or Path("predictions")
        if others and (folder / "segments.json").exists():
            raise EyelineError(f"{folder} exists already; choose another --out")
        several_scenes(predictor, scenes, folder, bool(others), unread.add, **how)
        if not others:
            unread.check(source, len(items))
            return
    else:
        folder = free_path(out, Path("predictions"))
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    lines = sys.stdout if json_lines else None
    form: Literal["polygons", "rle"] = "polygons" if polygons else "rle"
    records = Records(folder, predictor.classes, lines, form, segmenter)
    tiled = False
    try:
        with (
            Progress(console=console, disable=not console.is_terminal) as progress,
            records,
            Outputs(folder, records, every, draw is not False, maps) as outputs,
            Behind(outputs.add, QUEUED) as writing,
        ):
            known = len(others) > 1 and not any(isinstance(item, Video) for item in others)
            task = progress.add_task("predicting", total=len(others) if known else None)
            # Of several, the others follow what cannot be read; of one there is nothing else.
            skip = unread.add if len(items) > 1 else None
            for result in predictor.stream(others, batch_size, every, skip):
                writing.put(result)
                if not tiled and predictor.is_cut(result.image):
                    tiled = True
                    print(in_tiles(result), file=sys.stderr)
                if len(others) == 1 and result.video is not None and result.video.count:
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
    unread.check(source, len(items))


class Unread:
    """What could not be read: told as it comes, and counted."""

    count = 0

    def add(self, error: EyelineError) -> None:
        self.count += 1
        print(f"left out: {error}", file=sys.stderr)

    def check(self, source: str, count: int) -> None:
        """Raises EyelineError where there is any."""
        if self.count:
            raise EyelineError(f"{source}: {self.count} of {count} could not be read, see above")


def in_tiles(result: SegmentationResult) -> str:
    """That it was cut though nobody asked."""
    from eyeline.inference.predictor import LARGE
    from eyeline.inference.tiles import Tiling

    return (
        f"{result.path}: of more than {LARGE // 10**6} million pixels, so it is seen in tiles of "
        f"{Tiling.tile}, as are all so large; --tile chooses others"
    )


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

"""Videos as frames, and frames as H.264 that browsers play. Needs PyAV, the extra `video`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eyeline.data.urls import without_login
from eyeline.errors import EyelineError

VIDEO_SUFFIXES = frozenset(
    (
        ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
        ".wmv", ".flv", ".3gp", ".ogv", ".m3u8", ".mjpeg", ".mjpg",
    )
)  # fmt: skip
STREAMS = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "udp://", "rtp://", "srt://", "tcp://")
TIMEOUT = 10.0  # seconds without an answer of a camera or server

# movflags of the file while it is written: whatever ends the process, its fragments play.
FRAGMENTED = "frag_keyframe+empty_moov+default_base_moof"
KEYFRAMES = 2.0  # seconds from one to the next, that is, what such an end can cost
BT709 = 1  # of ffmpeg's AVCOL_SPC_, AVCOL_PRI_ and AVCOL_TRC_


def import_av() -> Any:
    try:
        import av
    except ImportError:
        raise EyelineError(
            "videos need the package av (PyAV); install it: pip install 'eyeline[video]'"
        ) from None
    av.logging.set_level(av.logging.PANIC)  # every error comes as an exception
    return av


@dataclass(frozen=True)
class Frame:
    image: Tensor  # (3, H, W) uint8 RGB, turned upright
    index: int  # from 0, those left out counted
    time: float  # seconds from the first frame


class Video:
    """A video file, a camera or a stream; nothing is opened until `frames` is iterated over.

    Args:
        address: a path, a URL, or a camera's index.
        kind: "file", "url" (a video on a server, which can wait), "stream" or "camera" (live).
    """

    # Known from the first frame on:
    rate: Fraction  # frames a second, on average
    time_base: Fraction  # seconds of which every frame's time is a multiple
    pixel_aspect: Fraction  # width to height of a pixel
    count: int | None  # of frames, where the file tells it
    has_sound: bool

    def __init__(self, address: str, kind: str = "file") -> None:
        self.address, self.kind = address, kind

    @property
    def name(self) -> str:
        """What it is called in messages and files: never with the password of its URL."""
        if self.kind == "camera":
            return f"camera {self.address}"
        return self.address if self.kind == "file" else without_login(self.address)

    @property
    def is_live(self) -> bool:
        """Does it go on whether or not anybody looks?"""
        return self.kind in ("camera", "stream")

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Each `every`-th frame, upright, one at a time.

        Raises:
            EyelineError: it cannot be opened; or, after all frames that can be read, that it is
                damaged or ends too early.
        """
        av = import_av()
        with self._open(av) as container:
            if not container.streams.video:
                raise EyelineError(f"{self.name}: there is no video in it")
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # in whole-frame threads an error takes others along
            self._describe(stream, container)
            in_order = container.format.name == "avi"  # it has no other times than dts
            start, count, time, end, damaged = None, 0, Fraction(0), Fraction(0), 0
            stopped = ""
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                    if packet is None:
                        break
                    if packet.pts is not None:
                        last = packet.pts + (packet.duration or 0)
                        end = max(end, last * self.time_base)
                    frames = packet.decode()
                except (av.error.InvalidDataError, av.error.BufferTooSmallError):
                    damaged += 1
                    continue
                except (av.error.FFmpegError, OSError) as error:
                    stopped = _reason(error)
                    break
                damaged += packet.is_corrupt
                for frame in frames:
                    at = frame.dts if in_order else frame.pts
                    if at is None:
                        time += 1 / self.rate if count else 0
                    else:
                        start = at if start is None else start
                        time = (at - start) * self.time_base
                    if count % every == 0:
                        yield Frame(_upright(frame), count, float(time))
                    count += 1
            first = (stream.start_time or 0) * self.time_base
            missing = _expected(stream, container) - (end - first)
        if not count:
            raise EyelineError(f"{self.name}: no frame in it can be read")
        upto = f"after {count} frames ({float(time):.1f} s)"
        if stopped:
            raise EyelineError(f"{self.name}: it broke off {upto}: {stopped}")
        if missing > max(3 / self.rate, end / 50):
            raise EyelineError(f"{self.name}: it ends {upto}, {float(missing):.1f} s are missing")
        if damaged:
            parts = "part is" if damaged == 1 else "parts are"
            raise EyelineError(f"{self.name}: {damaged} {parts} damaged; it ends {upto}")

    def _open(self, av: Any) -> Any:
        options: dict[str, str] = {}
        address, form, timeout = self.address, None, None
        if self.kind == "camera":
            address, form = _camera(self.address)
        elif self.kind != "file":
            timeout = (TIMEOUT, TIMEOUT)
            if self.address.startswith("rtsp"):
                options["rtsp_transport"] = "tcp"  # whole pictures before quick ones
        elif not os.path.isfile(address):
            raise EyelineError(f"{address}: no such video")
        else:
            address = os.path.abspath(address)  # in "a:b.mp4" ffmpeg would take a for a protocol
        try:
            return av.open(address, format=form, options=options, timeout=timeout)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            doing = "read as a video" if self.kind == "file" else "opened"
            raise EyelineError(f"{self.name}: cannot be {doing}: {_reason(error)}") from None

    def _describe(self, stream: Any, container: Any) -> None:
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self.time_base = Fraction(stream.time_base)
        self.pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
        self.has_sound = bool(container.streams.audio)
        seconds = float(_expected(stream, container))
        self.count = round(seconds * float(self.rate)) or None


def _camera(index: str) -> tuple[str, str]:
    """What ffmpeg calls a camera on this system: its address and the input's format."""
    if sys.platform == "darwin":
        return index, "avfoundation"
    if sys.platform == "win32":
        return f"video={index}", "dshow"
    path = f"/dev/video{index}"
    if not os.path.exists(path):
        others = sorted(p.name.removeprefix("video") for p in Path("/dev").glob("video[0-9]*"))
        there = f"there are: {', '.join(others)}" if others else "there is none on this machine"
        raise EyelineError(f"camera {index}: no such camera ({path}); {there}")
    return path, "v4l2"


def _expected(stream: Any, container: Any) -> Fraction:
    """Seconds that a file says it has; 0 where it does not. (The duration of a cut-off AVI is
    guessed from its size, so there its count of frames is what it says.)"""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return Fraction(stream.frames) / Fraction(stream.average_rate)
    return Fraction(stream.duration or 0) * Fraction(stream.time_base)


def _upright(frame: Any) -> Tensor:
    array = frame.to_ndarray(format="rgb24")  # (H, W, 3)
    if turns := round(frame.rotation / 90) % 4:
        array = np.ascontiguousarray(np.rot90(array, turns))
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or repr(error)


class VideoWriter:
    """Frames to an mp4 file: H.264, yuv420p, without sound.

    While it is written the file is fragmented, so that it plays up to its last fragment whatever
    ends the process; leaving the context, with an error or without, makes a plain file of it whose
    index stands in front, so that browsers play it while they load it.

    Args:
        path: ends with .mp4.
        rate: frames a second, on average; every frame has its own time.
        time_base: seconds of which the frames' times are multiples.
    """

    def __init__(
        self,
        path: str | Path,
        rate: Fraction,
        time_base: Fraction,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        self.av = import_av()
        self.path = Path(path).absolute()
        self.rate, self.time_base, self.pixel_aspect = rate, time_base, pixel_aspect
        self.count, self.last = 0, -1
        options = {"movflags": FRAGMENTED, "flush_packets": "1"}
        self.container = self.av.open(str(self.path), "w", format="mp4", container_options=options)
        self.stream: Any = None

    def write(self, picture: Image.Image, time: float) -> None:
        """Add a frame that is shown from `time` on, in seconds; one that comes no later than the
        frame before is moved to just after it. The first sets the size, odd sides made even."""
        if self.stream is None:
            self._start(picture.width + picture.width % 2, picture.height + picture.height % 2)
        size = (self.stream.width, self.stream.height)
        below, right = size[1] - picture.height, size[0] - picture.width
        if picture.size != size:
            if 0 <= below <= 1 and 0 <= right <= 1:
                array = np.asarray(picture.convert("RGB"))
                array = np.pad(array, [(0, below), (0, right), (0, 0)], mode="edge")
                picture = Image.fromarray(array)
            else:  # a stream that changed its size
                picture = picture.resize(size)
        frame = self.av.VideoFrame.from_ndarray(np.asarray(picture.convert("RGB")), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        self.last = max(round(time / self.time_base), self.last + 1)
        frame.pts, frame.time_base = self.last, self.time_base
        self._encode(frame)
        self.count += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self.stream is not None:
            self._encode(None)
        self.container.close()
        if self.stream is None:
            self.path.unlink()  # no frame came
        else:
            self._index_in_front()

    def _start(self, width: int, height: int) -> None:
        stream = self.container.add_stream("libx264", rate=self.rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = self.time_base
        context.sample_aspect_ratio = self.pixel_aspect
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = 1  # 16 .. 235
        context.gop_size = max(1, round(KEYFRAMES * self.rate))
        # Without B-frames frames are stored as they are shown: no time is moved.
        context.options = {"preset": "veryfast", "crf": "21", "bf": "0"}
        self.stream = stream

    def _encode(self, frame: Any) -> None:
        try:
            for packet in self.stream.encode(frame):
                if not packet.duration:
                    packet.duration = round(1 / (self.rate * self.time_base))
                self.container.mux(packet)
        except (self.av.error.FFmpegError, OSError) as error:
            raise EyelineError(f"{self.path}: cannot be written: {_reason(error)}") from None

    def _index_in_front(self) -> None:
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        options = {"movflags": "faststart"}
        try:
            with (
                self.av.open(str(self.path)) as source,
                self.av.open(str(part), "w", format="mp4", container_options=options) as target,
            ):
                stream = source.streams.video[0]
                copy = target.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is not None:
                        packet.stream = copy
                        target.mux(packet)
            os.replace(part, self.path)
        except (self.av.error.FFmpegError, OSError) as error:
            raise EyelineError(
                f"{self.path}: plays, but its index could not be put in front: {_reason(error)}"
            ) from None
        finally:
            part.unlink(missing_ok=True)

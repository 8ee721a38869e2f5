"""Videos in and out, through PyAV (FFmpeg). Called by commands/video.py.

Time stamps are kept, so a video with a variable frame rate stays in step with its sound and its original.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import optional_module
from .readers import LARGEST_PIXELS, InputError

Pixels = NDArray[np.uint8]
CODECS = ("libx264", "mpeg4")  # the first that FFmpeg was built with
QUALITY = "18"  # x264's constant rate factor: no difference that one sees


@dataclass(frozen=True)
class Frame:
    """pixels: (H, W, 3), upright. seconds: since the video's first frame."""

    pixels: Pixels
    seconds: Fraction


@dataclass(frozen=True)
class VideoFacts:
    """size: height and width, upright. count: frames as the file says, 0 if it does not. rate: frames a second in the
    mean."""

    size: tuple[int, int]
    count: int
    rate: Fraction


def _explained(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error  # FFmpeg's own message names the file again
    return InputError(f"{path}: not a video that can be read: {reason}")


class VideoReader:
    """The frames of a video file, one after the other."""

    def __init__(self, path: Path, max_pixels: int = LARGEST_PIXELS) -> None:
        """InputError: it is no video, is damaged, or has frames of more than max_pixels. MissingExtra: without PyAV."""
        av = optional_module("av", "reading videos")
        self.path = path
        self._errors = (av.FFmpegError, ValueError, IndexError, EOFError)
        if not path.exists():
            raise FileNotFoundError(2, os.strerror(2), str(path))
        try:
            self._container = av.open(str(path))
        except self._errors as error:
            raise _explained(path, error) from error
        if not self._container.streams.video:
            self.close()
            raise InputError(f"{path}: there is no picture in it, only {len(self._container.streams)} other streams")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        if width * height > max_pixels:
            self.close()
            raise InputError(f"{path}: frames of {width} x {height} = {width * height} pixels; at most {max_pixels}")
        rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.facts = VideoFacts((height, width), int(self._stream.frames), Fraction(rate))

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def _decoded(self) -> Iterator[Any]:
        try:
            yield from self._container.decode(self._stream)
        except self._errors as error:
            raise _explained(self.path, error) from error

    def frames(self) -> Iterator[Frame]:
        """InputError: damaged on the way, no frame at all, or frames of several sizes."""
        first: Fraction | None = None
        size: tuple[int, int] | None = None
        for number, decoded in enumerate(self._decoded()):
            pixels = np.rot90(decoded.to_ndarray(format="rgb24"), decoded.rotation // 90 % 4)
            if size is None:
                size = pixels.shape[:2]
            if pixels.shape[:2] != size:
                there = f"{pixels.shape[1]} x {pixels.shape[0]}"
                raise InputError(f"{self.path}: frame {number} has {there} pixels, those before {size[1]} x {size[0]}")
            stamp = number / self.facts.rate if decoded.pts is None else decoded.pts * Fraction(decoded.time_base)
            first = stamp if first is None else first
            yield Frame(np.ascontiguousarray(pixels), Fraction(stamp - first))
        if size is None:
            raise InputError(f"{self.path}: no frame in it")


class VideoWriter:
    """An MP4 that appears whole or not at all: until it is closed it has another name, .NAME.part.mp4."""

    CLOCK = 90000  # ticks a second

    def __init__(self, path: Path, rate: Fraction) -> None:
        """rate: frames a second, a hint for players; each frame has its own time."""
        self._av = optional_module("av", "writing videos")
        self._path, self._part = path, path.with_name(f".{path.stem}.part.mp4")
        codec = next(name for name in CODECS if name in self._av.codec.codecs_available)
        self._container = self._av.open(str(self._part), "w", format="mp4")
        self._stream = self._container.add_stream(codec, rate=max(rate.limit_denominator(1001), Fraction(1, 10)))
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, self.CLOCK)
        self._stream.options = {"crf": QUALITY} if codec == "libx264" else {}
        self._sized = False

    def write(self, pixels: Pixels, seconds: Fraction) -> None:
        """pixels: (H, W, 3); an odd side gets its last row or column twice, since the format halves colours."""
        height, width = pixels.shape[:2]
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self._sized:
            self._stream.height, self._stream.width = pixels.shape[:2]
            self._sized = True
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.time_base = Fraction(1, self.CLOCK)
        frame.pts = round(seconds * self.CLOCK)
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        """The file stays if all went well."""
        try:
            if kind is None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None:
                self._part.replace(self._path)
        finally:
            with suppress(FileNotFoundError):
                self._part.unlink()


def beside(left: Pixels, right: Pixels) -> Pixels:
    """Two pictures of one height in one. ValueError: they differ in height."""
    return np.concatenate([left, right], axis=1)

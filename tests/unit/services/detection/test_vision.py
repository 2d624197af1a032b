from importlib.resources import as_file, files
from pathlib import Path

import msgspec
import pytest
from joblog.services.detection import vision
from joblog.services.detection.workspace import TRUNCATED_SHARE, upload


def photograph(name: str) -> vision.Photograph:
    with as_file(files("skimage.data").joinpath(name)) as path:
        return vision.read(path)


def test_the_astronauts_face_is_found_where_it_is() -> None:
    (face,) = vision.find_faces(photograph("astronaut.png"))
    # Her eyes, nose and mouth lie around (224, 115), within some ninety pixels.
    assert face.x + face.width / 2 == pytest.approx(224, abs=10)
    assert face.y + face.height / 2 == pytest.approx(118, abs=10)
    assert face.width == face.height == pytest.approx(90, abs=15)


@pytest.mark.parametrize("name", ["coins.png", "rocket.jpg", "coffee.png", "hubble_deep_field.jpg"])
def test_no_face_is_found_where_nobody_is(name: str) -> None:
    assert vision.find_faces(photograph(name)) == ()


def test_each_of_the_twenty_four_coins_is_a_shape() -> None:
    shapes = vision.find_shapes(photograph("coins.png"))
    assert len(shapes) == 24
    assert all(20 <= box.width <= 80 and 20 <= box.height <= 80 for box in shapes)


def test_most_coins_are_round_blobs() -> None:
    coins = [blob for blob in vision.find_blobs(photograph("coins.png")) if 15 <= blob.radius <= 35]
    assert 14 <= len(coins) <= 24


def test_the_deep_field_has_more_blobs_than_a_cat() -> None:
    assert len(vision.find_blobs(photograph("hubble_deep_field.jpg"))) > 100
    assert len(vision.find_blobs(photograph("chelsea.png"))) < 10


def test_blobs_of_a_large_photograph_are_told_in_its_own_pixels() -> None:
    seen = photograph("hubble_deep_field.jpg")
    blobs = vision.find_blobs(seen)
    assert max(blob.x for blob in blobs) > seen.width * 0.9
    assert max(blob.y for blob in blobs) > seen.height * 0.9


def test_a_summary_is_json_with_all_counts_and_the_largest_few() -> None:
    seen = photograph("astronaut.png")
    detection = vision.detect(seen)
    summary = msgspec.json.decode(msgspec.json.encode(detection.summary()))
    assert summary["size"] == {"width": 512, "height": 512}
    assert summary["counts"] == {
        "faces": 1,
        "blobs": len(detection.blobs),
        "shapes": len(detection.shapes),
    }
    assert len(detection.blobs) > len(summary["largest"]["blobs"]) == 10
    radii = [blob["radius"] for blob in summary["largest"]["blobs"]]
    assert radii == sorted(radii, reverse=True)
    assert all(elapsed > 0 for elapsed in summary["elapsed_ms"].values())


def test_a_marked_photograph_has_a_red_frame_and_is_else_the_same(tmp_path: Path) -> None:
    seen = photograph("astronaut.png")
    detection = vision.detect(seen)
    vision.save_marked(seen, detection, tmp_path / "marked.png")
    marked = vision.read(tmp_path / "marked.png")
    (face,) = detection.faces
    assert marked.pixels[face.y, face.x].tolist() == [255, 0, 0]
    changed = (marked.pixels != seen.pixels).any(axis=2)
    assert 0 < changed.sum() < changed.size / 20


def test_a_grey_photograph_is_read_as_one_in_colour() -> None:
    seen = photograph("coins.png")
    assert seen.pixels.shape == (seen.height, seen.width, 3) == (303, 384, 3)
    assert 0 <= seen.light.min() < seen.light.max() <= 1


@pytest.mark.parametrize("name", ["coffee.png", "rocket.jpg"])
def test_a_truncated_photograph_is_refused(name: str, tmp_path: Path) -> None:
    broken = tmp_path / name
    upload(name, broken, share=TRUNCATED_SHARE)
    with pytest.raises(OSError, match="truncated"):
        vision.read(broken)


def test_a_missing_photograph_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        vision.read(Path("nowhere.png"))

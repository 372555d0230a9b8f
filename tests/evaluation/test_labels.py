"""Labels are found in the layouts of STARE and DRIVE, read from their formats, and never guessed between two."""

import gzip

import numpy as np
import pytest
from PIL import Image

from retinashift.evaluation.labels import find_label, read_label
from retinashift.imaging.files import ImageError

LABEL = np.array([[0, 255, 255], [0, 0, 255]], np.uint8)


def test_stare_has_them_in_a_folder_beside_the_photographs_gzipped(tmp_path):
    (tmp_path / "labels-ah").mkdir()
    (tmp_path / "labels-vk").mkdir()
    for folder, mark in (("labels-ah", "ah"), ("labels-vk", "vk")):
        data = b"P5 3 2 255\n" + LABEL.tobytes()
        (tmp_path / folder / f"im0001.{mark}.pgm.gz").write_bytes(gzip.compress(data))
    found = find_label(tmp_path / "im0001.ppm")
    assert found == tmp_path / "labels-ah" / "im0001.ah.pgm.gz"
    assert np.array_equal(read_label(found), LABEL > 0)
    assert find_label(tmp_path / "im0002.ppm") is None


@pytest.mark.parametrize("folder", ["labels", "1st_manual"])
def test_drive_has_them_as_gif_beside_the_folder_of_photographs(tmp_path, folder):
    (tmp_path / folder).mkdir()
    for number in ("01", "02"):
        Image.fromarray(LABEL).save(tmp_path / folder / f"{number}_manual1.gif")
    found = find_label(tmp_path / "images" / "01_test.tif")
    assert found == tmp_path / folder / "01_manual1.gif"
    assert np.array_equal(read_label(found), LABEL > 0)


def test_a_named_folder_is_the_only_one(tmp_path):
    for folder in ("labels", "mine"):
        (tmp_path / folder).mkdir()
        Image.fromarray(LABEL).save(tmp_path / folder / "eye.png")
    assert find_label(tmp_path / "eye.jpg", tmp_path / "mine") == tmp_path / "mine" / "eye.png"
    assert find_label(tmp_path / "other.jpg", tmp_path / "mine") is None
    with pytest.raises(ImageError, match="no such folder"):
        find_label(tmp_path / "eye.jpg", tmp_path / "absent")


def test_a_longer_name_is_another_photograph_and_two_labels_are_refused(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    Image.fromarray(LABEL).save(folder / "im00012.png")
    assert find_label(tmp_path / "im0001.ppm") is None
    for name in ("im0001.ah.png", "im0001.vk.png"):
        Image.fromarray(LABEL).save(folder / name)
    with pytest.raises(ImageError, match=r"several labels of im0001.ppm: im0001.ah.png, im0001.vk.png"):
        find_label(tmp_path / "im0001.ppm")


def test_a_damaged_gif_is_one_line(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a nonsense")
    with pytest.raises(ImageError, match="cannot be read as GIF"):
        read_label(tmp_path / "a.gif")

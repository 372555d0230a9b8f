"""Labels are found in the layouts of STARE and DRIVE, read from their formats, and never guessed between two."""

import gzip

import numpy as np
import pytest
from PIL import Image

from retinashift.data.labels import find_label, label_mark, read_label
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


def test_the_label_of_the_photographs_own_name_comes_before_one_that_shares_its_first_part(tmp_path):
    (tmp_path / "labels").mkdir()
    for name in ("01_manual1.gif", "01_test.gif"):
        Image.fromarray(LABEL).save(tmp_path / "labels" / name)
    assert find_label(tmp_path / "01_test.tif") == tmp_path / "labels" / "01_test.gif"


def test_a_damaged_gif_is_one_line(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a nonsense")
    with pytest.raises(ImageError, match="cannot be read as GIF"):
        read_label(tmp_path / "a.gif")


@pytest.mark.parametrize(
    "name",
    [
        "im0001.ah.ppm.gz", "a/im0001.VK.pgm", "labels-ah/x.png", "mask/x.gif", "Masks/1.tif",  # STARE
        "test/1st_manual/01_manual1.gif", "2nd_manual/01.tif", "21_manual1.gif", "21_training_mask.gif",  # DRIVE
        "manual1/01_dr.tif", "01_dr_mask.tif",  # HRF
        "Image_01L_1stHO.png", "Image_01L_2ndHO.png",  # CHASE
        "2. All Segmentation Groundtruths/a. Training Set/1. Microaneurysms/IDRiD_01_MA.tif",
        "Test_GT/drishtiGS_004/x.png", "drishtiGS_004_ODsegSoftMap.png", "Disc_Cup_Masks/g0001.bmp",
        "ddb1_fundusmask/fmask.tif", "Ground truth/1_A.png", "GroundTruth/1.png", "LABELS/1.png", "eye-labels.png",
    ],
)  # fmt: skip
def test_label_drawings_of_public_sets_are_known(name):
    assert label_mark(name) is not None


@pytest.mark.parametrize(
    "name",
    [
        "im0001.ppm", "images/ahead.png", "unmasked/x.png", "Maskell_OD.png", "Maskell/1.png", "labels_12.tif",
        "mask.png", "Manuela Lopez/OD.jpg", "manual_1.jpg", "A. Segmentation/1. Original Images/IDRiD_01.jpg",
        "images/01_test.tif", "Image_01L.jpg", "labelled/1.png", "Labelle_OS.tif", "Annotationsky/1.png",
    ],
)  # fmt: skip
def test_photographs_of_public_sets_and_of_patients_with_such_names_are_none(name):
    assert label_mark(name) is None


def test_chase_has_them_beside_the_photograph_and_the_first_observer_counts(tmp_path):
    for name in ("Image_01L.jpg", "Image_01L_1stHO.png", "Image_01L_2ndHO.png", "Image_01R_1stHO.png"):
        Image.fromarray(LABEL).save(tmp_path / name)
    assert find_label(tmp_path / "Image_01L.jpg") == tmp_path / "Image_01L_1stHO.png"
    assert find_label(tmp_path / "Image_02L.jpg") is None

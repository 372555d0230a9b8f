"""Where photographs come from: STARE in its Kaggle layout, HR folders, pairs; every flaw names the file."""

import gzip
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from builders.dicom import photography, written
from builders.photographs import kaggle_zip, ppm
from retinashift.data.checks import check_photographs
from retinashift.data.photographs import STARE_LABELLED, DataError, Source, find_photographs, list_source, stem
from retinashift.imaging.files import WRITE_SUFFIXES, write_image


def names(source):
    return [stem(item.hr.name) for item in list_source(source)]


def test_what_a_mac_puts_beside_each_file_is_no_photograph(tmp_path):
    path = kaggle_zip(tmp_path / "s.zip", ["im0001"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._im0001.ppm", b"\0\5\x16\7")
    (tmp_path / "folder").mkdir()
    for name in ("im0001.ppm", "._im0001.ppm"):
        (tmp_path / "folder" / name).write_bytes(ppm())
    assert [ref.name for ref in find_photographs(path)] == ["im0001.ppm"]
    assert [ref.name for ref in find_photographs(tmp_path / "folder")] == ["im0001.ppm"]


def test_stare_zip_as_downloaded_is_read_without_unpacking(tmp_path):
    path = kaggle_zip(tmp_path / "stare-dataset.zip", ["im0001", "im0006", "im0402"])
    items = list_source(Source(str(path), "stare"))
    assert [stem(item.hr.name) for item in items] == ["im0001", "im0006", "im0402"]
    assert np.array_equal(items[1].hr.read(), np.asarray(Image.open(io.BytesIO(ppm(6)))))


def test_stare_folder_of_the_original_site_leaves_its_labels_out(tmp_path):
    for name in (
        "stare-images/im0001.ppm.gz",
        "labels-ah/im0001.ah.ppm.gz",
        "im0002.vk.ppm.gz",
        "stare-images/IM0003.PPM",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(ppm()) if name.endswith(".gz") else ppm())
    assert names(Source(str(tmp_path), "stare")) == ["IM0003", "im0001"]


def test_full_set_is_tested_on_the_twenty_labelled_photographs(tmp_path):
    others = [f"im{n:04d}" for n in range(6, 30)]
    path = kaggle_zip(tmp_path / "s.zip", [*STARE_LABELLED, *others])
    assert names(Source(str(path), "stare", split="test")) == sorted(STARE_LABELLED)
    assert not set(names(Source(str(path), "stare", split="train"))) & set(STARE_LABELLED)


def test_labelled_set_alone_splits_ten_and_ten_and_keeps_one_patient_together(tmp_path):
    path = kaggle_zip(tmp_path / "s.zip", STARE_LABELLED)
    train, test = (names(Source(str(path), "stare", split=split)) for split in ("train", "test"))
    assert (train, test) == (STARE_LABELLED[:10], STARE_LABELLED[10:])
    assert {"im0235", "im0236"} <= set(test)


def test_one_half_of_stare_alone_is_refused_with_what_to_do(tmp_path):
    path = kaggle_zip(tmp_path / "half.zip", STARE_LABELLED[:3])
    with pytest.raises(DataError, match=r"no photograph of STARE's test split; im0\d{3}, .*rename"):
        list_source(Source(str(path), "stare", split="test"))


def test_pairs_are_matched_by_name_whatever_the_file_type(tmp_path):
    for folder, side, suffix in (("hr", 32, "png"), ("lr", 8, "tif")):
        (tmp_path / folder / "left").mkdir(parents=True)
        Image.new("RGB", (side, side), (9, 8, 7)).save(tmp_path / folder / "left" / f"eye.{suffix}")
    (item,) = list_source(Source(str(tmp_path / "hr"), "pairs", str(tmp_path / "lr")))
    assert (item.hr.name, item.lr.name) == ("left/eye.png", "left/eye.tif")
    check_photographs([item], 4)


@pytest.mark.parametrize("suffix", [*WRITE_SUFFIXES, ".ppm.gz", ".pgm.gz"])
def test_photographs_of_every_type_that_is_read_have_three_channels(tmp_path, retina, suffix):
    if suffix.endswith(".gz"):
        (tmp_path / f"eye{suffix}").write_bytes(gzip.compress(ppm()))
    elif suffix == ".dcm":
        (tmp_path / "eye.dcm").write_bytes(written(photography(retina)))
    else:
        write_image(tmp_path / f"eye{suffix}", retina[..., 1] if suffix == ".pgm" else retina)
    (item,) = list_source(Source(str(tmp_path)))
    assert stem(item.hr.name) == "eye"
    assert item.hr.read().shape[2] == 3


def test_a_missing_partner_is_named(tmp_path):
    for folder, stems in (("hr", ("a", "b")), ("lr", ("a",))):
        (tmp_path / folder).mkdir()
        for name in stems:
            Image.new("RGB", (8, 8)).save(tmp_path / folder / f"{name}.png")
    with pytest.raises(DataError, match=r"b is in .*hr but has no partner of that name in .*lr"):
        list_source(Source(str(tmp_path / "hr"), "pairs", str(tmp_path / "lr")))


def test_a_partner_of_the_wrong_size_is_named_with_the_right_one(tmp_path):
    for folder, side in (("hr", 30), ("lr", 8)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (side, side)).save(tmp_path / folder / "eye.png")
    with pytest.raises(DataError, match=r"eye.png: LR is 8x8, HR is 30x30; HR must be 32x32 \(x4\)"):
        check_photographs(list_source(Source(str(tmp_path / "hr"), "pairs", str(tmp_path / "lr"))), 4)


def test_two_photographs_of_one_name_are_refused(tmp_path):
    for suffix in ("png", "tif"):
        for folder, side in (("hr", 32), ("lr", 8)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (side, side)).save(tmp_path / folder / f"eye.{suffix}")
    with pytest.raises(DataError, match=r"holds both eye.png and eye.tif"):
        list_source(Source(str(tmp_path / "hr"), "pairs", str(tmp_path / "lr")))


def test_unreadable_and_transparent_photographs_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    (item,) = list_source(Source(str(tmp_path)))
    with pytest.raises(DataError, match=r"broken\.png"):
        item.hr.read()
    Image.new("RGBA", (8, 8)).save(tmp_path / "broken.png")
    with pytest.raises(DataError, match="alpha"):
        item.hr.read()


@pytest.mark.parametrize(
    ("what", "message"), [("none", "neither a folder nor a zip"), ("empty", "holds no photograph")]
)
def test_places_without_photographs_are_told(tmp_path, what, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        list_source(Source(str(tmp_path / what)))


def test_a_wrong_folder_is_named_with_its_setting(photographs, tmp_path):
    for source, setting in (
        (Source(str(tmp_path / "none")), "data.path"),
        (Source(str(photographs), "pairs", str(tmp_path / "none")), "data.lr_path"),
    ):
        with pytest.raises(DataError, match=rf"^{setting}: .*none is neither a folder nor a zip file$"):
            list_source(source, "data")


def test_a_folder_without_stare_names_is_told(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "eye.png")
    with pytest.raises(DataError, match="no STARE photograph"):
        list_source(Source(str(tmp_path), "stare"))


def test_labels_and_masks_are_left_out_counted_and_named(tmp_path, caplog):
    for name in ("images/01_test.tif", "Maskell_OD.png", "labels_12.tif", "mask.png", "Manuela/1.jpg",
                 "1st_manual/01_manual1.png", "1st_manual/02_manual1.png", "masks/Maskell_OD.png", "Ann_Mask.jpg",
                 "eye_1stHO.png", "eye_2ndHO.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    found = [ref.name for ref in find_photographs(tmp_path)]
    assert found == ["Manuela/1.jpg", "Maskell_OD.png", "images/01_test.tif", "labels_12.tif", "mask.png"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: left out 6 labels and masks: 1st_manual/ (2), Ann_Mask.jpg, eye_1stHO.png and 2 more"
    ]


def test_a_folder_of_labels_alone_says_what_was_left_out(tmp_path):
    (tmp_path / "manual1").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "manual1" / "01_dr.tif")
    with pytest.raises(DataError, match=r"holds no photograph .*; left out 1 label or mask: manual1/ \(1\)$"):
        find_photographs(tmp_path)


def test_a_damaged_member_of_a_zip_is_named(tmp_path):
    path = kaggle_zip(tmp_path / "s.zip", ["im0001"])
    data = bytearray(path.read_bytes())
    data[60:64] = bytes(4)  # pixels, which the checksum no longer fits
    path.write_bytes(data)
    (ref,) = find_photographs(path)
    with pytest.raises(DataError, match=r"s.zip: im0001.ppm cannot be read from the zip"):
        ref.read()


@pytest.mark.shared
def test_drive_lists_its_photographs_without_labels_and_masks(shared):
    listed = find_photographs(shared / "data" / "drive")
    assert [ref.name for ref in listed] == [f"images/{n:02d}_test.tif" for n in range(1, 21)]


@pytest.mark.shared
def test_labelled_stare_photographs_split_without_their_labels(shared):
    source = str(shared / "data" / "stare")
    assert names(Source(source, "stare", split="train")) == STARE_LABELLED[:10]
    assert names(Source(source, "stare", split="test")) == STARE_LABELLED[10:]

"""Where photographs come from: STARE in its Kaggle layout, HR folders, pairs; every flaw names the file."""

import gzip
import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from builders.dicom import photography, written
from builders.photographs import kaggle_zip, ppm
from retinashift.imaging.files import READ_SUFFIXES, write_image
from retinashift.training.config import Source
from retinashift.training.sources import (
    STARE_LABELLED,
    DataError,
    FileRef,
    Item,
    PhotographSet,
    is_label,
    list_files,
    list_source,
    stem,
)


def names(source, scale=4):
    return [stem(item.hr.name) for item in list_source(source, scale)]


def test_what_a_mac_puts_beside_each_file_is_no_photograph(tmp_path):
    path = kaggle_zip(tmp_path / "s.zip", ["im0001"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._im0001.ppm", b"\0\5\x16\7")
    (tmp_path / "folder").mkdir()
    for name in ("im0001.ppm", "._im0001.ppm"):
        (tmp_path / "folder" / name).write_bytes(ppm())
    assert [ref.name for ref in list_files(path)] == ["im0001.ppm"]
    assert [ref.name for ref in list_files(tmp_path / "folder")] == ["im0001.ppm"]


def test_stare_zip_as_downloaded_is_read_without_unpacking(tmp_path):
    path = kaggle_zip(tmp_path / "stare-dataset.zip", ["im0001", "im0006", "im0402"])
    items = list_source(Source(str(path), "stare"), 4)
    photographs = PhotographSet(items, cache_gib=1)
    assert [stem(name) for name in photographs] == ["im0001", "im0006", "im0402"]
    expected = np.asarray(Image.open(io.BytesIO(ppm(6)))).transpose(2, 0, 1)
    assert np.array_equal(photographs.hr(1).numpy(), expected)


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


def test_pairs_are_matched_by_name_whatever_the_file_type(tmp_path):
    for folder, side, suffix in (("hr", 32, "png"), ("lr", 8, "tif")):
        (tmp_path / folder / "left").mkdir(parents=True)
        Image.new("RGB", (side, side), (9, 8, 7)).save(tmp_path / folder / "left" / f"eye.{suffix}")
    photographs = PhotographSet(
        list_source(Source(str(tmp_path / "hr"), "pairs", str(tmp_path / "lr")), 4), cache_gib=1
    )
    assert photographs.hr(0).shape == (3, 32, 32)
    assert photographs.lr(0).shape == (3, 8, 8)


@pytest.mark.parametrize("suffix", READ_SUFFIXES)
def test_photographs_of_every_type_that_is_read_train(tmp_path, retina, suffix):
    if suffix.endswith(".gz"):
        (tmp_path / f"eye{suffix}").write_bytes(gzip.compress(ppm()))
    elif suffix == ".dcm":
        (tmp_path / "eye.dcm").write_bytes(written(photography(retina)))
    else:
        write_image(tmp_path / f"eye{suffix}", retina[..., 1] if suffix == ".pgm" else retina)
    photographs = PhotographSet(list_source(Source(str(tmp_path)), 4), cache_gib=1)
    assert [stem(name) for name in photographs] == ["eye"]
    assert photographs.hr(0).shape[0] == 3


def test_a_missing_partner_is_named(tmp_path):
    for folder, stems in (("hr", ("a", "b")), ("lr", ("a",))):
        (tmp_path / folder).mkdir()
        for name in stems:
            Image.new("RGB", (8, 8)).save(tmp_path / folder / f"{name}.png")
    with pytest.raises(DataError, match=r"b is in .*hr but has no partner of that name in .*lr"):
        list_source(Source(str(tmp_path / "hr"), "pairs", str(tmp_path / "lr")), 4)


def test_a_partner_of_the_wrong_size_is_named_with_the_right_one(tmp_path):
    for folder, side in (("hr", 30), ("lr", 8)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (side, side)).save(tmp_path / folder / "eye.png")
    with pytest.raises(DataError, match=r"eye.png: LR is 8x8, HR is 30x30; HR must be 32x32 \(x4\)"):
        list_source(Source(str(tmp_path / "hr"), "pairs", str(tmp_path / "lr")), 4)


def test_two_photographs_of_one_name_are_refused(tmp_path):
    for suffix in ("png", "tif"):
        for folder, side in (("hr", 32), ("lr", 8)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (side, side)).save(tmp_path / folder / f"eye.{suffix}")
    with pytest.raises(DataError, match=r"holds both eye.png and eye.tif"):
        list_source(Source(str(tmp_path / "hr"), "pairs", str(tmp_path / "lr")), 4)


def test_unreadable_and_transparent_photographs_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    photographs = PhotographSet(list_source(Source(str(tmp_path)), 4), cache_gib=1)
    with pytest.raises(DataError, match=r"broken\.png"):
        photographs.hr(0)
    Image.new("RGBA", (8, 8)).save(tmp_path / "broken.png")
    with pytest.raises(DataError, match="alpha"):
        photographs.hr(0)


@pytest.mark.parametrize(
    ("what", "message"), [("none", "neither a folder nor a zip"), ("empty", "holds no photograph")]
)
def test_places_without_photographs_are_told(tmp_path, what, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        list_source(Source(str(tmp_path / what)), 4)


def test_a_folder_without_stare_names_is_told(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "eye.png")
    with pytest.raises(DataError, match="no STARE photograph"):
        list_source(Source(str(tmp_path), "stare"), 4)


def test_labels_are_recognised_by_file_and_by_folder():
    assert all(
        is_label(n) for n in ("im0001.ah.ppm.gz", "a/im0001.VK.pgm", "labels-ah/x.png", "mask/x.gif", "Masks/1.tif")
    )
    assert not any(is_label(n) for n in ("im0001.ppm", "images/ahead.png", "unmasked/x.png"))


def test_a_photograph_is_no_label_by_how_its_file_is_called(tmp_path):
    for name in ("Maskell_OD.png", "labels_12.tif", "mask.png", "masks/Maskell_OD.png", "labels-ah/im0001.ah.ppm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert [ref.name for ref in list_files(tmp_path)] == ["Maskell_OD.png", "labels_12.tif", "mask.png"]


@pytest.mark.shared
def test_drive_lists_its_photographs_without_labels_and_masks(shared):
    listed = list_files(shared / "data" / "drive")
    assert [ref.name for ref in listed] == [f"images/{n:02d}_test.tif" for n in range(1, 21)]


def test_photographs_beyond_the_cache_are_read_again_and_equal(photographs):
    items = list_source(Source(str(photographs)), 4)
    kept, unkept = PhotographSet(items, cache_gib=1), PhotographSet(items, cache_gib=0)
    assert kept.hr(0) is kept.hr(0)
    assert unkept.hr(0) is not unkept.hr(0)
    assert (kept.hr(0) == unkept.hr(0)).all()


def test_balance_draws_sets_or_folders_equally_often(photographs):
    names = ["a/x_1.png", "a/x_2.png", "a/x_3.png", "a/y_1.png", "b/x_4.png"]
    items = [Item(FileRef(name, photographs / name)) for name in names]
    shares = {}
    for balance in ("photograph", "set", "folder"):
        pool, numbers = PhotographSet(items, cache_gib=0, balance=balance), np.random.default_rng(0).random((4000, 2))
        shares[balance] = torch.bincount(torch.tensor([pool.pick(*pair) for pair in numbers])) / 4000
    assert torch.allclose(shares["photograph"], torch.full((5,), 0.2), atol=0.03)
    assert torch.allclose(shares["set"], torch.tensor([1, 1, 1, 4, 1]) / 8, atol=0.03)
    assert torch.allclose(shares["folder"], torch.tensor([1, 1, 1, 1, 4]) / 8, atol=0.03)


def test_the_visible_share_of_a_square_is_that_of_its_bright_pixels(tmp_path):
    pixels = np.zeros((61, 83, 3), np.uint8)
    pixels[16:48, 24:] = 200
    Image.fromarray(pixels).save(tmp_path / "eye.png")
    pool = PhotographSet(list_source(Source(str(tmp_path)), 4), cache_gib=1)
    assert pool.size(0) == (61, 83)
    assert pool.visible(0, 0, 0, 16) == 0
    assert pool.visible(0, 16, 24, 32) == 1
    assert pool.visible(0, 0, 0, 48) == pytest.approx(1 / 3)
    assert pool.visible(0, 29, 51, 32) == pytest.approx(0.6, abs=0.15)  # to within its outermost pixels


@pytest.mark.shared
def test_labelled_stare_photographs_split_without_their_labels(shared):
    source = str(shared / "data" / "stare")
    assert names(Source(source, "stare", split="train")) == STARE_LABELLED[:10]
    assert names(Source(source, "stare", split="test")) == STARE_LABELLED[10:]

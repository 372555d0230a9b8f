"""What a run learns from is not what it is scored on."""

import gzip
import hashlib
import shutil
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

from builders.photographs import kaggle_zip
from retinashift.data.checks import check_no_leakage, content_hashes, read_trained_on, write_trained_on
from retinashift.data.photographs import (
    STARE_LABELLED,
    DataError,
    FileRef,
    Source,
    content_hash,
    list_source,
    split_by_patient,
)


def listed(path, *more, **settings):
    return list_source(Source(str(path), *more, **settings))


def check_apart(training, validation):
    check_no_leakage(content_hashes(training), validation)


def test_other_photographs_pass(photographs, held_out):
    check_apart(listed(photographs), listed(held_out))


def test_the_same_folder_is_refused_by_whatever_path(photographs, tmp_path):
    (tmp_path / "link").symlink_to(photographs)
    for path in (photographs, tmp_path / "link"):
        with pytest.raises(DataError, match=r"^validation: eye0.png is trained on, like 5 more; keep each"):
            check_apart(listed(photographs), listed(path))


def test_a_copy_under_another_name_is_found_by_its_bytes(photographs, held_out, tmp_path):
    shutil.copytree(held_out, tmp_path / "held_out")
    shutil.copy(photographs / "eye3.png", tmp_path / "held_out" / "copy.png")
    with pytest.raises(DataError, match=r"validation: copy.png, which data has as eye3.png, is trained on; keep"):
        check_apart(listed(photographs), listed(tmp_path / "held_out"))


def test_a_file_is_found_in_a_zip(photographs, tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(photographs / "eye3.png", "some/eye.png")
    with pytest.raises(DataError, match=r"some/eye.png, which data has as eye3.png"):
        check_apart(listed(photographs), listed(tmp_path / "s.zip"))


def test_a_gzipped_copy_has_the_same_hash(photographs, tmp_path):
    original = photographs / "eye3.png"
    (tmp_path / "eye.ppm.gz").write_bytes(gzip.compress(original.read_bytes()))
    hashes = {content_hash(FileRef(path.name, path)) for path in (original, tmp_path / "eye.ppm.gz")}
    assert hashes == {hashlib.sha256(original.read_bytes()).hexdigest()[:16]}


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "eye.ppm.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"eye.ppm.gz: cannot be read"):
        content_hash(FileRef("eye.ppm.gz", tmp_path / "eye.ppm.gz"))


def test_files_of_one_length_are_told_apart(tmp_path):
    for folder, text in (("a", b"one"), ("b", b"two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "eye.png").write_bytes(text)
    check_apart(listed(tmp_path / "a"), listed(tmp_path / "b"))


def test_the_two_splits_of_stare_are_apart(tmp_path):
    path = kaggle_zip(tmp_path / "s.zip", STARE_LABELLED)
    train, test = (listed(path, "stare", split=split) for split in ("train", "test"))
    check_apart(train, test)
    with pytest.raises(DataError, match="im0001.ppm is trained on, like 9 more"):
        check_apart(listed(path, "stare"), train)


def test_what_a_checkpoint_was_trained_on_is_read_back_and_missing_or_strange_is_none(tmp_path):
    write_trained_on(tmp_path, ["b", "a", "b"])
    assert read_trained_on(tmp_path) == {"a", "b"}
    for strange in ("{", '{"a": 1}', "[1]"):
        (tmp_path / "trained_on.json").write_text(strange)
        assert read_trained_on(tmp_path) == set()
    assert read_trained_on(tmp_path / "none") == set()


def test_what_is_held_out_depends_on_the_content_alone_and_copies_stay_together(tmp_path, photographs):
    for path in photographs.iterdir():
        shutil.copy(path, tmp_path / f"z{path.name}")
    plain, renamed = split_by_patient(listed(photographs)), split_by_patient(listed(tmp_path / "."))
    assert [len(side) for side in plain] == [4, 2]
    bytes_of = [{item.hr.path.read_bytes() for item in split[1]} for split in (plain, renamed)]
    assert bytes_of[0] == bytes_of[1]  # tmp_path holds both: each copy lies where its original does
    assert len(renamed[1]) == 4
    with pytest.raises(DataError, match="all of one patient or content"):
        split_by_patient(listed(photographs)[:1])


def test_bundled_checkpoints_name_what_they_were_trained_on_and_no_test_set(shared):
    trained = set(content_hashes(list_source(Source(str(shared / "data" / "train")))))
    for folder in (files("retinashift") / "weights").iterdir():
        known = read_trained_on(Path(str(folder)))
        assert known >= trained
        tests = [Source(str(shared / "data" / name)) for name in ("drive/images", "val", "lesions")]
        tests.append(Source(str(shared / "data" / "stare"), "stare", split="test"))
        for source in tests:
            assert not known & set(content_hashes(list_source(source)))

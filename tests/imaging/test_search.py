"""Folders and patterns find the same files, each real file once, and say what they could not look into."""

import os

import pytest

from retinashift.imaging.files import ImageError, find_images


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    touch(tmp_path / "study/1.png", tmp_path / "archive/2.png")
    (tmp_path / "study/linked").symlink_to(tmp_path / "archive")
    (tmp_path / "study/loop").symlink_to(tmp_path / "study")
    (tmp_path / "study/same.png").symlink_to(tmp_path / "study/1.png")
    expected = ["1.png", "linked/2.png"]
    assert [relative.as_posix() for _, relative in find_images([tmp_path / "study"])] == expected
    both = find_images([tmp_path / "study", tmp_path / "archive", str(tmp_path / "study/**/*.png")])
    assert len(both) == 2


def test_brackets_of_a_folder_that_exists_are_part_of_its_name(tmp_path):
    touch(tmp_path / "study [OD]/a.png", tmp_path / "study [OD]/b/c.png")
    assert [r.as_posix() for _, r in find_images([str(tmp_path / "study [OD]/*.png")])] == ["a.png"]
    assert [r.as_posix() for _, r in find_images([str(tmp_path / "study [OD]/**/*.png")])] == ["a.png", "b/c.png"]
    assert [r.as_posix() for _, r in find_images([str(tmp_path / "study*/*.png")])] == ["study [OD]/a.png"]


@pytest.mark.skipif(os.name != "posix", reason="folders are closed by their mode")
def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path / "a.png", tmp_path / "closed/b.png")
    (tmp_path / "closed").chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # a user other than root cannot come here by the whole path
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)  # nobody
        with pytest.raises(ImageError, match=r"closed: cannot be read \(Permission denied\)"):
            find_images(["."])
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "closed").chmod(0o700)

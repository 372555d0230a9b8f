"""Where results go: names and sub-folders are kept, and every clash is refused before any work."""

import gzip

import numpy as np
import pytest
from PIL import Image

from retinashift.imaging.files import ImageError
from retinashift.inference.jobs import plan_jobs


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "left/b.jpg", "left/deep/c.TIF", "d.ppm"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    return tmp_path / "in"


def targets(jobs, out):
    return [job.target.relative_to(out).as_posix() for job in jobs]


def test_sub_folders_names_and_suffixes_are_kept(folder, tmp_path):
    out = tmp_path / "out"
    assert targets(plan_jobs([folder], out), out) == ["a.png", "d.ppm", "left/b.jpg", "left/deep/c.TIF"]


def test_another_format_changes_the_suffix_only(folder, tmp_path):
    out = tmp_path / "out"
    planned = targets(plan_jobs([folder], out, file_format="png"), out)
    assert planned == ["a.png", "d.png", "left/b.png", "left/deep/c.png"]


def test_compressed_ppm_comes_out_uncompressed(folder, tmp_path):
    (folder / "d.ppm.gz").write_bytes(gzip.compress((folder / "d.ppm").read_bytes()))
    (folder / "d.ppm").unlink()
    out = tmp_path / "out"
    assert "d.ppm" in targets(plan_jobs([folder], out), out)


def test_formats_that_would_meet_in_one_name_are_refused(folder, tmp_path):
    (folder / "a.ppm").write_bytes((folder / "d.ppm").read_bytes())
    with pytest.raises(ImageError, match="would both be written"):
        plan_jobs([folder], tmp_path / "out", file_format="png")


def test_one_input_may_name_its_output(folder, tmp_path):
    job = plan_jobs([folder / "a.png"], tmp_path / "sharp.tif")[0]
    assert job.target == tmp_path / "sharp.tif"
    with pytest.raises(ImageError, match="4 images go into one file"):
        plan_jobs([folder], tmp_path / "sharp.tif")


def test_an_output_that_exists_is_refused_unless_told_otherwise(folder, tmp_path):
    (tmp_path / "out" / "left").mkdir(parents=True)
    (tmp_path / "out" / "left" / "b.jpg").write_bytes(b"mine")
    with pytest.raises(ImageError, match="exists already; give --overwrite"):
        plan_jobs([folder], tmp_path / "out")
    assert len(plan_jobs([folder], tmp_path / "out", overwrite=True)) == 4


def test_results_of_a_former_run_are_not_enlarged_again(folder):
    out = folder / "sharper"
    assert len(plan_jobs([folder], out)) == 4
    out.mkdir()
    (out / "a.png").write_bytes((folder / "a.png").read_bytes())
    with pytest.raises(ImageError, match="inside the input folder"):
        plan_jobs([folder], out, overwrite=True)


def test_a_result_never_replaces_its_own_input(folder):
    with pytest.raises(ImageError, match="replaced by its own result"):
        plan_jobs([folder], folder, overwrite=True)

"""Where results go: names and sub-folders are kept, and every clash is refused before any work."""

import gzip
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.dicom import photography, written
from retinashift.batch import places
from retinashift.batch.jobs import BatchOptions, figure_of, maps_of, parse_shard, plan_jobs
from retinashift.imaging.files import ImageError
from retinashift.inference.settings import Sampling

WITH_MAP = Sampling(output_uncertainty=True)


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
    planned = targets(plan_jobs([folder], out, BatchOptions(file_format="png")), out)
    assert planned == ["a.png", "d.png", "left/b.png", "left/deep/c.png"]


def test_compressed_ppm_comes_out_uncompressed(folder, tmp_path):
    (folder / "d.ppm.gz").write_bytes(gzip.compress((folder / "d.ppm").read_bytes()))
    (folder / "d.ppm").unlink()
    out = tmp_path / "out"
    assert "d.ppm" in targets(plan_jobs([folder], out), out)


def test_formats_that_would_meet_in_one_name_are_refused(folder, tmp_path):
    (folder / "a.ppm").write_bytes((folder / "d.ppm").read_bytes())
    with pytest.raises(ImageError, match="would both be written"):
        plan_jobs([folder], tmp_path / "out", BatchOptions(file_format="png"))


def test_one_input_may_name_its_output(folder, tmp_path):
    job = plan_jobs([folder / "a.png"], tmp_path / "sharp.tif")[0]
    assert job.target == tmp_path / "sharp.tif"
    with pytest.raises(ImageError, match="4 images cannot be written into one file"):
        plan_jobs([folder], tmp_path / "sharp.tif")


def test_an_output_that_exists_is_refused_unless_told_otherwise(folder, tmp_path):
    (tmp_path / "out" / "left").mkdir(parents=True)
    (tmp_path / "out" / "left" / "b.jpg").write_bytes(b"mine")
    with pytest.raises(ImageError, match="exists already; give --overwrite"):
        plan_jobs([folder], tmp_path / "out")
    assert len(plan_jobs([folder], tmp_path / "out", BatchOptions(overwrite=True))) == 4


def test_results_of_a_former_run_are_not_enlarged_again(folder):
    out = folder / "sharper"
    assert len(plan_jobs([folder], out)) == 4
    out.mkdir()
    (out / "a.png").write_bytes((folder / "a.png").read_bytes())
    with pytest.raises(ImageError, match="inside the input folder"):
        plan_jobs([folder], out, BatchOptions(overwrite=True))


def test_a_result_never_replaces_its_own_input(folder):
    with pytest.raises(ImageError, match="replaced by its own result"):
        plan_jobs([folder], folder, BatchOptions(overwrite=True))


def test_dicom_objects_without_a_suffix_are_found_and_their_names_are_kept_whole(folder, tmp_path):
    for name in ("IM0001", "1.2.840.10", "1.2.840.11", "DICOMDIR"):
        (folder / name).write_bytes(written(photography(np.zeros((8, 8, 3), np.uint8))))
    out = tmp_path / "out"
    planned = targets(plan_jobs([folder], out), out)
    assert [name for name in planned if name.endswith(".dcm")] == ["1.2.840.10.dcm", "1.2.840.11.dcm", "IM0001.dcm"]
    assert "1.2.840.10.png" in targets(plan_jobs([folder], out, BatchOptions(file_format="png")), out)


def test_a_file_that_is_named_gets_the_suffix_of_its_content(folder, tmp_path):
    (folder / "a.png").rename(folder / "scan.part")
    assert plan_jobs([folder / "scan.part"], tmp_path / "out")[0].target.name == "scan.part.png"


def test_what_is_no_image_is_left_out_with_a_word(folder, tmp_path, caplog):
    plan_jobs([folder], tmp_path / "out")
    assert not caplog.records
    (folder / "b.gif").write_bytes(b"BM")
    (folder / "left" / "notes.txt").write_text("x")
    plan_jobs([folder], tmp_path / "out")
    (record,) = caplog.records
    assert "b.gif and 1 more: left out" in record.getMessage()


@pytest.mark.parametrize(
    ("out", "file_format", "words"),
    [
        ("sharp.png", "tiff", "name two formats"),
        ("sharp.bmp", "same", "neither a folder nor a file"),
        ("plain", "same", "neither a folder nor a file"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(folder, tmp_path, out, file_format, words):
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(ImageError, match=words):
        plan_jobs([folder / "a.png"], tmp_path / out, BatchOptions(file_format=file_format))
    assert plan_jobs([folder / "a.png"], tmp_path / "sharp.tif", BatchOptions(file_format="tiff"))


def test_a_result_that_would_be_named_like_what_lies_beside_another_is_refused(folder, tmp_path):
    (folder / "a.png.figure.png").write_bytes((folder / "a.png").read_bytes())
    assert len(plan_jobs([folder], tmp_path / "out")) == 5
    with pytest.raises(ImageError, match=r"would both be written to .*a\.png\.figure\.png"):
        plan_jobs([folder], tmp_path / "out", BatchOptions(figure=True))


def test_maps_and_figures_of_a_run_that_was_killed_before_its_result_do_not_stop_resuming(folder, tmp_path):
    target = tmp_path / "out" / "a.png"
    target.parent.mkdir()
    for path in (*maps_of(target), figure_of(target)):
        path.write_bytes(b"half")
    with pytest.raises(ImageError, match="exists already"):
        plan_jobs([folder], tmp_path / "out", BatchOptions(sampling=WITH_MAP))
    with pytest.raises(ImageError, match="exists already"):
        plan_jobs([folder], tmp_path / "out", BatchOptions(figure=True))
    options = BatchOptions(sampling=WITH_MAP, figure=True, resume=True)
    assert len(plan_jobs([folder], tmp_path / "out", options)) == 4


@pytest.mark.parametrize("out", ["sftp://host/x", "https://example.org/x.png", "-", "s3:/x", Path("s3://bucket/x")])
def test_an_output_that_cannot_be_written_to_is_refused(folder, out):
    with pytest.raises(ImageError, match="-o takes a folder or file name|cannot be written to; -o takes a folder"):
        plan_jobs([folder], out)
    assert not Path(str(out).partition("/")[0]).exists() or out == "-"


@pytest.mark.parametrize("given", ["sftp://host/a.png", "-", "s3://", "s3://name:pass@bucket/a.png"])
def test_an_input_of_an_unknown_kind_is_refused_without_its_credentials(folder, tmp_path, given):
    words = "an input is a file, folder or pattern|leave them to the environment"
    with pytest.raises(ImageError, match=words) as error:
        plan_jobs([folder, given], tmp_path / "out")
    assert "pass" not in str(error.value)


def test_a_store_without_its_package_says_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    places.open_system.cache_clear()
    with pytest.raises(ImageError, match=r"pip install .*\[fleet\]"):
        plan_jobs(["s3://bucket/x"], tmp_path / "out")


def test_an_address_of_a_local_file_is_the_file(folder, tmp_path):
    (job,) = plan_jobs([(folder / "a.png").as_uri()], (tmp_path / "out").as_uri())
    assert (job.source, job.target) == (folder / "a.png", tmp_path / "out" / "a.png")


def test_shards_are_stable_share_nothing_and_hold_every_file(folder, tmp_path):
    whole = plan_jobs([folder], tmp_path / "out")
    parts = [plan_jobs([folder], tmp_path / "out", shard=(number, 3)) for number in (1, 2, 3)]
    assert sorted((job for part in parts for job in part), key=lambda job: job.source) == whole
    assert [len(part) for part in parts] == [1, 2, 1]  # on every machine and day
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    other = plan_jobs([elsewhere], tmp_path / "out", shard=(2, 3))
    assert [job.target for job in other] == [job.target for job in parts[1]]
    assert plan_jobs([folder / "a.png"], tmp_path / "out", shard=(1, 99)) == []


def test_shards_refuse_clashes_among_all_files_and_only_their_own_results(folder, tmp_path):
    (tmp_path / "out").mkdir()
    mine, other = (plan_jobs([folder], tmp_path / "out", shard=(number, 3)) for number in (1, 3))
    other[0].target.write_bytes(b"of the other shard")
    assert plan_jobs([folder], tmp_path / "out", shard=(1, 3)) == mine
    with pytest.raises(ImageError, match="exists already"):
        plan_jobs([folder], tmp_path / "out", shard=(3, 3))
    (folder / "a.ppm").write_bytes((folder / "d.ppm").read_bytes())
    for number in (1, 2, 3):
        with pytest.raises(ImageError, match="would both be written"):
            plan_jobs([folder], tmp_path / "out2", BatchOptions(file_format="png"), (number, 3))


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "-1/3", "1/0", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="such as 3/16"):
        parse_shard(text)


def test_a_name_without_room_for_its_sidecar_is_refused_before_any_work(folder, tmp_path):
    name = "a" * 250 + ".png"
    (folder / "a.png").rename(folder / name)
    assert len(plan_jobs([folder], tmp_path / "out")) == 4
    for beside in ({"sidecar": True}, {"figure": True}, {"sampling": WITH_MAP}):
        with pytest.raises(ImageError, match="at most 255 fit; rename"):
            plan_jobs([folder], tmp_path / "out", BatchOptions(**beside))

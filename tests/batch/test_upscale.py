"""Files through the pipeline: depth, grey, alpha and metadata stay; a failure is told and stops nothing."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from builders.dicom import photography, written
from builders.photographs import decode_map
from retinashift.batch import upscale as upscaling
from retinashift.batch.jobs import BatchOptions, Job, figure_of, maps_of, sidecar_of
from retinashift.batch.upscale import upscale_bytes, upscale_files
from retinashift.imaging.files import find_provenance, read_image, remove_stale_temporaries, replace_file, write_image
from retinashift.imaging.provenance import digest
from retinashift.inference.record import checkpoint_hash
from retinashift.inference.settings import Sampling

WITH_MAP = Sampling(output_uncertainty=True)


@pytest.fixture
def upscale(tmp_path, tiny_pipeline):
    def run(pixels, name="eye.png"):
        source, target = tmp_path / name, tmp_path / "out" / name
        write_image(source, pixels)
        outcome = next(iter(upscale_files(tiny_pipeline(), [Job(source, target)])))
        assert outcome.error == ""
        return read_image(target).pixels

    return run


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 2), (6, 5, 4)])
def test_depth_channels_and_size_of_a_file_are_kept(upscale, dtype, shape):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    out = upscale(pixels)
    assert out.dtype == dtype
    assert out.shape == (24, 20, *shape[2:])


def test_a_constant_alpha_channel_stays_constant_and_does_not_touch_the_colour(upscale):
    colour = np.random.default_rng(0).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    with_alpha = np.dstack([colour, np.full((6, 5), 200, np.uint8)])
    out = upscale(with_alpha)
    assert (out[..., 3] == 200).all()
    assert np.array_equal(out[..., :3], upscale(colour, "plain.png"))


def test_failures_are_told_and_the_next_file_is_done(tmp_path, tiny_pipeline):
    write_image(tmp_path / "good.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "bad.png").write_bytes(b"no image")
    jobs = [Job(tmp_path / name, tmp_path / "out" / name) for name in ("bad.png", "missing.png", "good.png")]
    outcomes = list(upscale_files(tiny_pipeline(), jobs))
    assert [bool(outcome.error) for outcome in outcomes] == [True, True, False]
    assert "bad.png" in outcomes[0].error
    assert "\n" not in outcomes[0].error
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.png"]


def test_a_format_that_cannot_hold_the_picture_is_an_error_and_writes_nothing(tmp_path, tiny_pipeline):
    write_image(tmp_path / "deep.png", np.zeros((4, 4, 3), np.uint16))
    job = Job(tmp_path / "deep.png", tmp_path / "out" / "deep.jpg")
    outcome = next(iter(upscale_files(tiny_pipeline(), [job])))
    assert outcome.error
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(5):
        write_image(tmp_path / f"{number}.png", rng.integers(0, 256, (6 + number, 9, 3), dtype=np.uint8))
    (tmp_path / "2.png").write_bytes(b"no image")
    return tmp_path


def jobs_in(folder, out):
    return [Job(folder / f"{number}.png", folder / out / f"{number}.png") for number in range(5)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_workers_change_neither_bytes_nor_order_nor_failures(folder, tiny_pipeline):
    for workers in (1, 2, 7):
        outcomes = list(upscale_files(tiny_pipeline(), jobs_in(folder, str(workers)), BatchOptions(workers=workers)))
        assert [bool(outcome.error) for outcome in outcomes] == [False, False, True, False, False]
        assert [outcome.job.source.name for outcome in outcomes] == [f"{n}.png" for n in range(5)]
    assert contents(folder / "1") == contents(folder / "2") == contents(folder / "7")
    alone = Job(folder / "4.png", folder / "alone.png")
    next(upscale_files(tiny_pipeline(), [alone]))
    assert alone.target.read_bytes() == (folder / "1" / "4.png").read_bytes()


def test_every_result_tells_what_made_it(folder, tiny_pipeline):
    options = BatchOptions(seed=3, sampling=Sampling(num_inference_steps=2), sidecar=True)
    outcome = next(upscale_files(tiny_pipeline(), jobs_in(folder, "out"), options))
    record = find_provenance(outcome.job.target.read_bytes(), "a")
    assert record == outcome.record
    assert (record.seed, record.steps, record.scale) == (3, 2, 4)
    assert record.input == digest(outcome.job.source.read_bytes())
    assert record.checkpoint == checkpoint_hash(tiny_pipeline())
    assert record.checkpoint != checkpoint_hash(tiny_pipeline(trained=False))
    sidecar = json.loads(outcome.job.target.with_name("0.png.json").read_text())
    assert sidecar["provenance"]["seed"] == 3
    assert sidecar["result_sha256"] == digest(outcome.job.target.read_bytes())


def test_resume_skips_what_the_same_work_has_written_and_nothing_else(folder, tiny_pipeline):
    jobs = jobs_in(folder, "out")
    list(upscale_files(tiny_pipeline(), jobs[:2]))
    before = contents(folder / "out")
    outcomes = list(upscale_files(tiny_pipeline(), jobs, BatchOptions(resume=True)))
    assert [outcome.skipped for outcome in outcomes] == [True, True, False, False, False]
    assert contents(folder / "out").items() >= before.items()
    assert outcomes[0].record.consistency_db is not None
    reseeded = upscale_files(tiny_pipeline(), jobs[:2], BatchOptions(resume=True, seed=1))
    assert all(outcome.skipped for outcome in reseeded)  # faithful results have no seed
    sampled = BatchOptions(resume=True, sampling=Sampling(num_inference_steps=2))
    again = list(upscale_files(tiny_pipeline(), jobs, sampled))
    assert all("not this input's result" in outcome.error for outcome in again if outcome.job.source.name != "2.png")
    write_image(folder / "0.png", np.zeros((6, 9, 3), np.uint8), overwrite=True)
    assert "not this input's result" in next(upscale_files(tiny_pipeline(), jobs, BatchOptions(resume=True))).error
    mended = list(upscale_files(tiny_pipeline(), jobs[:2], BatchOptions(resume=True, overwrite=True)))
    assert [(outcome.error, outcome.skipped) for outcome in mended] == [("", False), ("", True)]


def test_closing_early_leaves_whole_files_only(folder, tiny_pipeline):
    work = upscale_files(tiny_pipeline(), jobs_in(folder, "out"), BatchOptions(workers=2))
    next(work)
    work.close()
    whole = {path.name for path in (folder / "out").iterdir()}
    assert "0.png" in whole
    assert all(name.endswith(".png") and read_image(folder / "out" / name) for name in whole)


def test_the_log_line_is_json_of_one_line(folder, tiny_pipeline):
    lines = [outcome.line() for outcome in upscale_files(tiny_pipeline(), jobs_in(folder, "out"))]
    assert all(line.count("\n") == 1 for line in lines)
    assert [json.loads(line)["status"] for line in lines] == ["written", "written", "failed", "written", "written"]


def test_a_ramp_of_16_bit_loses_no_value_to_8_bit(tmp_path, tiny_pipeline):
    ramp = np.linspace(0, 65535, 128 * 128).astype(np.uint16).reshape(128, 128)
    write_image(tmp_path / "ramp.tif", ramp)
    outcome = next(upscale_files(tiny_pipeline(trained=False), [Job(tmp_path / "ramp.tif", tmp_path / "out.tif")]))
    assert not outcome.error
    pixels = read_image(tmp_path / "out.tif").pixels
    assert len(np.unique(ramp)) == 128 * 128
    assert len(np.unique(pixels)) > 128 * 128


def test_de_identification_is_not_promised_for_other_formats(folder, tiny_pipeline):
    outcome = next(upscale_files(tiny_pipeline(), jobs_in(folder, "out"), BatchOptions(deidentify=True)))
    assert "--deidentify is for DICOM" in outcome.error
    assert not (folder / "out").exists()


def test_uncertainty_lies_beside_the_result_and_says_what_it_means(tmp_path, tiny_pipeline):
    source, target = tmp_path / "eye.png", tmp_path / "out" / "eye.png"
    write_image(source, np.random.default_rng(0).integers(0, 255, (8, 6, 4), dtype=np.uint8))
    options = BatchOptions(sampling=WITH_MAP)
    outcome = next(iter(upscale_files(tiny_pipeline(head=True), [Job(source, target)], options)))
    assert outcome.error == ""
    assert outcome.record.steps == 1
    numbers, picture = maps_of(target)
    sigma, account = decode_map(numbers.read_bytes())
    assert sigma.shape == (32, 24)
    assert sigma.max() > 0
    assert account["meaning"] == "1.645 of it on each side covers 90 % of values"
    assert account["provenance"]["input"] == outcome.record.input
    assert read_image(picture).pixels.shape[1] == 24


def test_beside_dicom_the_uncertainty_lies_as_a_parametric_map_too_with_the_same_numbers(tmp_path, tiny_pipeline):
    source, target = tmp_path / "eye.dcm", tmp_path / "out" / "eye.dcm"
    pixels = np.random.default_rng(0).integers(0, 255, (8, 6, 3), dtype=np.uint8)
    source.write_bytes(written(photography(pixels)))
    run = lambda: next(  # noqa: E731
        upscale_files(tiny_pipeline(head=True), [Job(source, target)], BatchOptions(sampling=WITH_MAP, resume=True))
    )
    assert run().error == ""
    numbers, _, parametric = maps_of(target)
    sigma, account = decode_map(numbers.read_bytes())
    ds = pydicom.dcmread(parametric)
    assert np.array_equal(ds.pixel_array, np.rint(sigma * 65535))
    assert ds.StudyInstanceUID == pydicom.dcmread(target).StudyInstanceUID
    mapping = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.LUTExplanation == account["meaning"]
    assert run().skipped
    whole = parametric.read_bytes()
    parametric.unlink()
    assert not run().skipped
    assert parametric.read_bytes() == whole


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".dcm"])
def test_what_is_missing_beside_a_result_is_made_again_with_the_bytes_of_an_undisturbed_run(
    tmp_path, tiny_pipeline, retina, suffix
):
    pipeline, options = tiny_pipeline(head=True), BatchOptions(sampling=WITH_MAP, figure=True, sidecar=True)
    source, target = tmp_path / f"eye{suffix}", tmp_path / "out" / f"eye{suffix}"
    if suffix == ".dcm":
        source.write_bytes(written(photography(retina[:24, :16])))
    else:
        write_image(source, retina[:24, :16])
    (outcome,) = upscale_files(pipeline, [Job(source, target)], options)
    assert outcome.error == ""
    whole = contents(target.parent)
    for missing in options.beside(target):
        missing.unlink()
        result = target.stat().st_mtime_ns, target.read_bytes()
        (again,) = upscale_files(pipeline, [Job(source, target)], replace(options, resume=True))
        assert again.error == ""
        assert (target.stat().st_mtime_ns, target.read_bytes()) == result
        if missing == sidecar_of(target):
            assert json.loads(missing.read_bytes())["result_sha256"] == digest(target.read_bytes())
        else:
            assert missing.read_bytes() == whole[missing.name]
    (again,) = upscale_files(pipeline, [Job(source, target)], replace(options, resume=True))
    assert again.skipped


def test_the_next_run_removes_what_a_killed_one_left_and_nothing_else(folder, tiny_pipeline):
    out = folder / "out"
    out.mkdir()
    left = {name: out / name for name in (f".{'0a' * 8}.tmp", f".{'1b' * 8}.tmp", ".notes.tmp", "0000000000000000.tmp")}
    for path in left.values():
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    os.utime(left[f".{'1b' * 8}.tmp"])  # of a run that goes on
    next(upscale_files(tiny_pipeline(), jobs_in(folder, "out")))
    assert [path.name for path in left.values() if not path.exists()] == [f".{'0a' * 8}.tmp"]


def test_what_a_process_left_can_be_removed_as_soon_as_it_has_ended(folder, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *paths: os._exit(0))
    if (child := os.fork()) == 0:
        replace_file(folder / "out.png", b"whole")
    os.waitpid(child, 0)
    (left,) = folder.glob(".*.tmp")
    assert remove_stale_temporaries(folder, {os.getpid()}) == 0
    assert remove_stale_temporaries(folder, {child}) == 1
    assert not left.exists()


def test_the_results_of_a_file_can_be_had_in_memory_as_they_would_be_written(tmp_path, tiny_pipeline, retina):
    pipeline, source = tiny_pipeline(head=True), tmp_path / "eye.png"
    write_image(source, retina[:24, :16])
    target, shares = tmp_path / "out" / "eye.tif", []
    options = BatchOptions(sampling=WITH_MAP, figure=True)
    upscaled = upscale_bytes(pipeline, source.read_bytes(), "eye.png", target, options, shares.append)
    files = dict(upscaled.files())
    assert not target.parent.exists()
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    (outcome,) = upscale_files(pipeline, [Job(source, target)], options)
    assert {path: path.read_bytes() for path in target.parent.iterdir()} == files
    assert upscaled.record == outcome.record
    assert np.array_equal(read_image(target).pixels, upscaled.pixels)
    assert np.allclose(decode_map(files[maps_of(target)[0]])[0], upscaled.sigma, atol=1e-5)


def test_progress_tells_which_job_is_how_far(folder, tiny_pipeline):
    told = []
    jobs = [jobs_in(folder, "out")[number] for number in (0, 1)]
    list(upscale_files(tiny_pipeline(), jobs, progress=lambda job, share: told.append((job, share))))
    assert list(dict.fromkeys(job for job, _ in told)) == jobs
    assert [share for job, share in told if job == jobs[0]][-1] == pytest.approx(1)


def test_what_lay_beside_a_former_result_does_not_stay_beside_the_new_one(tmp_path, tiny_pipeline):
    source, target = tmp_path / "a.png", tmp_path / "out" / "a.png"
    write_image(source, np.full((6, 5, 3), 90, np.uint8))
    job, pipeline = Job(source, target), tiny_pipeline(head=True)
    options = BatchOptions(sampling=WITH_MAP, sidecar=True, figure=True)
    (first,) = upscale_files(pipeline, [job], options)
    assert first.error == ""
    assert all(path.exists() for path in options.beside(target))
    (second,) = upscale_files(pipeline, [job], BatchOptions(seed=7, overwrite=True))
    assert second.error == ""
    assert [path.name for path in target.parent.iterdir()] == ["a.png"]


def test_json_of_other_programs_beside_a_result_stays(tmp_path, tiny_pipeline):
    source, target = tmp_path / "a.png", tmp_path / "out" / "a.png"
    write_image(source, np.full((6, 5, 3), 90, np.uint8))
    job, pipeline = Job(source, target), tiny_pipeline(head=True)
    list(upscale_files(pipeline, [job]))
    sidecar_of(target).write_text('["lesions"]')
    (outcome,) = upscale_files(pipeline, [job], BatchOptions(overwrite=True))
    assert outcome.error == ""
    assert sidecar_of(target).read_text() == '["lesions"]'


def test_maps_overlays_and_figures_tell_what_made_them_like_results(tmp_path, tiny_pipeline):
    source, target = tmp_path / "a.png", tmp_path / "out" / "a.png"
    write_image(source, np.full((6, 5, 3), 90, np.uint8))
    pipeline, options = tiny_pipeline(head=True), BatchOptions(sampling=WITH_MAP, figure=True)
    (outcome,) = upscale_files(pipeline, [Job(source, target)], options)
    for path in (target, figure_of(target), *maps_of(target)):
        assert find_provenance(path.read_bytes(), path.name) == outcome.record


def test_a_figure_is_drawn_of_a_page_and_of_any_size_that_is_read_and_again_when_resuming(tmp_path, tiny_pipeline):
    frames = np.random.default_rng(0).integers(0, 255, (2, 12, 10, 3), dtype=np.uint8)
    source, target = tmp_path / "a.dcm", tmp_path / "out" / "a.dcm"
    dataset = photography(frames[0])
    dataset.NumberOfFrames, dataset.PixelData = 2, frames.tobytes()
    source.write_bytes(written(dataset))
    options = BatchOptions(figure=True, page=2, max_pixels=120)
    (outcome,) = upscale_files(tiny_pipeline(), [Job(source, target)], options)
    assert outcome.error == ""
    drawn = figure_of(target).read_bytes()
    figure_of(target).unlink()
    (again,) = upscale_files(
        tiny_pipeline(), [Job(source, target)], BatchOptions(figure=True, page=2, max_pixels=120, resume=True)
    )
    assert again.error == ""
    assert figure_of(target).read_bytes() == drawn


@pytest.mark.parametrize(
    ("name", "pixels", "words"),
    [
        ("deep.jpg", np.zeros((4, 4, 3), np.uint16), "8 bit only"),
        ("alpha.jpg", np.zeros((4, 4, 4), np.uint8), "alpha"),
        ("plain.dcm", np.zeros((4, 4, 3), np.uint8), "DICOM"),
        ("wide.webp", np.zeros((1, 4096, 3), np.uint8), "16384x4 pixels"),
        ("odd.xyz", np.zeros((4, 4, 3), np.uint8), "suffix"),
    ],
)
def test_what_a_file_cannot_hold_is_told_before_the_network_runs(
    tmp_path, tiny_pipeline, monkeypatch, name, pixels, words
):
    write_image(tmp_path / "in.png", pixels)
    monkeypatch.setattr("retinashift.batch.upscale.upscale_source", None)
    (outcome,) = upscale_files(tiny_pipeline(), [Job(tmp_path / "in.png", tmp_path / "out" / name)])
    assert words in outcome.error


def broken(*arguments, **options):
    raise TypeError("contents must be 'Dataset'\ninstances \x1b[31m")


@pytest.mark.parametrize("stage", ["decode_image", "check_target", "encode_image", "compared", "overlay", "encode_map"])
@pytest.mark.parametrize("workers", [1, 3])
def test_whatever_a_stage_raises_for_one_file_is_that_files_failure(
    folder, tiny_pipeline, monkeypatch, caplog, stage, workers
):
    real, calls = getattr(upscaling, stage), []

    def second_fails(*arguments, **options):
        calls.append(1)
        return broken() if len(calls) == 2 else real(*arguments, **options)

    monkeypatch.setattr(upscaling, stage, second_fails)
    options = BatchOptions(workers=workers, figure=True, sampling=WITH_MAP)
    good = [job for job in jobs_in(folder, "out") if job.source.name != "2.png"]
    with caplog.at_level("DEBUG", "retinashift"):
        outcomes = list(upscale_files(tiny_pipeline(head=True), good, options))
    failed = [outcome for outcome in outcomes if outcome.internal]
    assert len(failed) == 1
    assert "internal error (TypeError: contents must be 'Dataset' instances \\x1b[31m)" in failed[0].error
    assert "\n" not in failed[0].error
    assert json.loads(failed[0].line())["internal"] is True
    assert sum(not outcome.error for outcome in outcomes) == 3
    assert any(
        "broken" in record.exc_text for record in caplog.records if record.levelname == "DEBUG" and record.exc_text
    )


def test_what_the_pipeline_raises_is_the_files_failure_and_an_interrupt_is_not(folder, tiny_pipeline):
    pipeline = tiny_pipeline()

    class Odd:
        def __init__(self, error):
            self.error = error

        def __getattr__(self, name):
            return getattr(pipeline, name)

        def __call__(self, *arguments, **options):
            raise self.error

    outcomes = list(upscale_files(Odd(RuntimeError("can't allocate memory: 9 bytes")), jobs_in(folder, "out")[:2]))
    assert [(o.internal, "not enough memory" in o.error) for o in outcomes] == [(False, True)] * 2
    assert all(o.internal for o in upscale_files(Odd(KeyError("x")), jobs_in(folder, "out")[:2]))
    with pytest.raises(KeyboardInterrupt):
        list(upscale_files(Odd(KeyboardInterrupt()), jobs_in(folder, "out")))


def test_the_quality_is_that_of_jpeg_results_only_and_another_one_is_another_work(tmp_path, tiny_pipeline, retina):
    for name in ("a.jpg", "b.png"):
        write_image(tmp_path / name, retina[:24, :16])
    jobs = [Job(tmp_path / name, tmp_path / "out" / name) for name in ("a.jpg", "b.png")]
    sizes = []
    for quality in (None, 40):
        options = BatchOptions(quality=quality, overwrite=True)
        outcomes = list(upscale_files(tiny_pipeline(), jobs, options))
        assert [outcome.error for outcome in outcomes] == ["", ""]
        assert [o.record.options.get("quality") for o in outcomes] == [quality or None, None]
        sizes.append([job.target.stat().st_size for job in jobs])
    assert sizes[1][0] < 0.7 * sizes[0][0]
    assert sizes[1][1] == sizes[0][1]
    again = list(upscale_files(tiny_pipeline(), jobs, BatchOptions(quality=40, resume=True)))
    assert [outcome.skipped for outcome in again] == [True, True]
    other = list(upscale_files(tiny_pipeline(), jobs, BatchOptions(resume=True)))
    assert ["not this input's result" in outcome.error for outcome in other] == [True, False]


def test_a_log_on_a_full_disk_keeps_its_former_lines(tmp_path):
    log = tmp_path / "log"
    log.write_text('{"former": 1}\n')
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom retinashift.batch.record import append_line\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n"
        'append_line(Path(sys.argv[1]), \'{"next": 2, "more": 3}\\n\')'
    )
    done = subprocess.run([sys.executable, "-c", code, log], capture_output=True, text=True)
    assert done.returncode == 1
    assert "OSError" in done.stderr
    assert log.read_text() == '{"former": 1}\n'

"""The command line as a person meets it: exit codes, one-line errors, tables and files on disk."""

import json
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from builders.command import in_a_fresh_process, one_line_error, retinashift

COMMANDS = ("upscale", "train", "evaluate", "info", "demo", "inspect", "import", "export", "calibrate", "coverage")


@pytest.fixture
def photographs(tmp_path):
    """in/left/a.png, in/right/a.tif, in/b.ppm, in/c.jpg."""
    rng = np.random.default_rng(0)
    for name in ("left/a.png", "right/a.tif", "b.ppm", "c.jpg"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(path)
    return tmp_path / "in"


def test_help_of_every_command_answers_without_torch():
    code = f"""
import sys
import retinashift.cli as cli
for arguments in [["--help"], *([name, "--help"] for name in {COMMANDS}), ["--version"]]:
    sys.argv = ["retinashift", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert all(f"retinashift {command} " in done.stdout for command in COMMANDS)


def test_version_is_printed():
    assert retinashift("--version").stdout.startswith("retinashift ")


def test_an_error_of_a_real_process_is_one_line_and_comes_before_torch_is_loaded(tmp_path):
    done = in_a_fresh_process("upscale", tmp_path / "missing.png", "-o", tmp_path / "o", PYTHONVERBOSE="1")
    imported = [line for line in done.stderr.splitlines() if line.startswith("import ")]
    assert any("'retinashift.cli" in line for line in imported)
    assert not any("'torch'" in line for line in imported)
    assert "missing.png" in one_line_error(done)


def test_upscale_keeps_names_and_sub_folders_and_never_overwrites_silently(photographs, tmp_path, checkpoint):
    out = tmp_path / "out"
    done = retinashift("upscale", photographs, "-o", out, "-c", checkpoint)
    assert done.returncode == 0, done.stderr
    names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert names == ["b.ppm", "c.jpg", "left/a.png", "right/a.tif"]
    assert all(Image.open(out / name).size == (36, 48) for name in names)
    before = {name: (out / name).read_bytes() for name in names}
    assert "exists already" in one_line_error(
        retinashift("upscale", photographs, "-o", out, "-c", checkpoint, "--seed", 1)
    )
    assert {name: (out / name).read_bytes() for name in names} == before
    again = retinashift("upscale", photographs, "-o", out, "-c", checkpoint, "--overwrite")
    assert again.returncode == 0
    assert {name: (out / name).read_bytes() for name in names} == before  # the same seed gives the same bytes


def test_a_file_gives_the_same_bytes_alone_and_in_a_folder(photographs, tmp_path, checkpoint):
    retinashift("upscale", photographs, "-o", tmp_path / "all", "-c", checkpoint, "--steps", 4)
    retinashift("upscale", photographs / "b.ppm", "-o", tmp_path / "one.ppm", "-c", checkpoint, "--steps", 4)
    assert (tmp_path / "one.ppm").read_bytes() == (tmp_path / "all" / "b.ppm").read_bytes()


def test_a_bad_file_is_named_at_the_end_and_the_others_are_written(photographs, tmp_path, checkpoint):
    (photographs / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    done = retinashift("upscale", photographs, "-o", tmp_path / "out", "-c", checkpoint)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "failed" in line and "broken.png" in line]
    assert "4 of 5 written" in done.stderr
    assert "Traceback" not in done.stderr
    left = [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert len(left) == 4


def test_a_run_is_logged_resumed_and_inspected(photographs, tmp_path, checkpoint):
    run = ("upscale", photographs, "-o", tmp_path / "out", "-c", checkpoint, "--log", tmp_path / "log", "--workers", 2)
    (photographs / "broken.png").write_bytes(b"rubbish")
    assert retinashift(*run, "--sidecar").returncode == 1
    (photographs / "broken.png").unlink()
    again = retinashift(*run, "--resume")
    assert again.returncode == 0, again.stderr
    assert "0 of 4 written" in again.stderr
    assert "4 were there already" in again.stderr
    statuses = [json.loads(line)["status"] for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(statuses) == ["failed"] + ["skipped"] * 4 + ["written"] * 4
    results = sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.suffix != ".json")
    told = retinashift("inspect", *results)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("Super-resolved") == 4
    for line in retinashift("inspect", "--json", *results).stdout.splitlines():
        assert json.loads(line)["provenance"]["scale"] == 4
    original = retinashift("inspect", photographs / "b.ppm")
    assert original.returncode == 1
    assert "no provenance record" in original.stdout


def test_ctrl_c_ends_the_run_with_whole_files_and_says_how_to_go_on(photographs, tmp_path, checkpoint):
    with mock.patch("retinashift.batch.record.append_line", side_effect=KeyboardInterrupt):
        done = retinashift("upscale", photographs, "-o", tmp_path / "out", "-c", checkpoint, "--log", tmp_path / "log")
    assert done.returncode == 130
    assert "--resume goes on" in done.stderr
    assert not [p for p in (tmp_path / "out").rglob("*") if p.suffix == ".tmp"]


def test_nothing_to_do_and_wrong_inputs_are_one_line(tmp_path, checkpoint, photographs):
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments in (
        ("upscale", tmp_path / "missing.png", "-o", tmp_path / "o"),
        ("upscale", empty, "-o", tmp_path / "o"),
        ("upscale", photographs, "-o", tmp_path / "o", "-c", empty),
        ("upscale", photographs, "-o", tmp_path / "o", "-c", checkpoint, "--device", "abacus"),
        ("upscale", photographs, "-o", tmp_path / "one.png", "-c", checkpoint),
        ("info", "-c", tmp_path / "nowhere"),
        ("train", tmp_path / "none.yaml"),
        ("evaluate", empty, "-c", checkpoint),
    ):
        one_line_error(retinashift(*arguments))
    assert not (tmp_path / "o").exists()


def test_inputs_that_would_share_one_output_are_refused(tmp_path, checkpoint):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "eye.png")
    files = (tmp_path / "one" / "eye.png", tmp_path / "two" / "eye.png")
    assert "would both be written" in one_line_error(
        retinashift("upscale", *files, "-o", tmp_path / "o", "-c", checkpoint)
    )


def test_results_never_replace_their_own_inputs(tmp_path, checkpoint):
    Image.new("RGB", (8, 8)).save(tmp_path / "eye.png")
    result = retinashift("upscale", tmp_path / "eye.png", "-o", tmp_path, "-c", checkpoint, "--overwrite")
    assert "replaced by its own result" in one_line_error(result)


def test_pair_folder_errors_are_one_line(tmp_path):
    for folder, names in (("hr", ("a", "b")), ("lr", ("a",))):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.new("RGB", (200, 200)).save(tmp_path / folder / f"{name}.png")
    settings = tmp_path / "pairs.yaml"
    settings.write_text(
        f"data: {{path: {tmp_path}/hr, layout: pairs, lr_path: {tmp_path}/lr}}\nrun: {{out: {tmp_path}/run}}"
    )
    assert "b is in" in one_line_error(retinashift("train", settings))
    (tmp_path / "hr" / "b.png").unlink()
    assert "HR must be 800x800" in one_line_error(retinashift("train", settings))


def test_evaluate_prints_a_table_and_writes_rows_means_and_protocol(tmp_path, checkpoint):
    rng = np.random.default_rng(0)
    (tmp_path / "hr").mkdir()
    for name in "ab":
        Image.fromarray(rng.integers(30, 256, (50, 47, 3), dtype=np.uint8)).save(tmp_path / "hr" / f"{name}.png")
    target = tmp_path / "scores.json"
    done = retinashift("evaluate", tmp_path / "hr", "-c", checkpoint, "--steps", 1, "--steps", 4, "--json", target)
    assert done.returncode == 0, done.stderr
    for name in ("nearest", "bicubic", "lanczos", "retinashift, 1 step", "retinashift, 4 steps"):
        assert name in done.stdout
    report = json.loads(target.read_text())
    assert report["protocol"]["scale"] == 4
    assert one_line_error(retinashift("evaluate", tmp_path / "hr", "-c", checkpoint, "--json", target))


def test_info_names_denoiser_schedule_and_devices(checkpoint):
    done = retinashift("info", "-c", checkpoint)
    assert done.returncode == 0, done.stderr
    for word in ("LightNet", "parameters", "kappa", "0.06", "CPU"):
        assert word in done.stdout
    facts = json.loads(retinashift("info", "-c", checkpoint, "--json").stdout)
    assert (facts["scale"], facts["kappa"], len(facts["sqrt(eta)"])) == (4, 0.06, facts["steps trained"])
    assert facts["sqrt(eta)"][0] == pytest.approx(0.2)
    assert "x4" in facts["bundled"]


def test_demo_writes_its_pictures_and_beats_bicubic(tmp_path):
    done = retinashift("demo", "-o", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    for name, size in (("lr", (176, 176)), ("sr", (704, 704)), ("hr", (704, 704))):
        assert Image.open(tmp_path / "demo" / f"{name}.png").size == size
    assert Image.open(tmp_path / "demo" / "figure.png").size[0] > 1000
    assert "exists already" in one_line_error(retinashift("demo", "-o", tmp_path / "demo"))
    psnr = {
        line.split("│")[1].strip(): float(line.split("│")[2])
        for line in done.stdout.splitlines()
        if "│" in line and line.split("│")[2].strip()
    }
    assert psnr["RetinaShift"] > psnr["bicubic"] + 0.5

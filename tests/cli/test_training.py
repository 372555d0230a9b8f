"""What the train command prints: a header, lines in a pipe, validations and what to use next; or JSON, or nothing."""

import json
import re

import pytest

from builders.command import one_line_error, retinashift
from builders.photographs import draw_fundus
from retinashift.data.photographs import STARE_LABELLED


@pytest.fixture
def folders(tmp_path):
    for name, seeds in (("mine", range(3)), ("held_out", (6, 7))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            draw_fundus(seed).save(tmp_path / name / f"eye{seed}.png")
    return tmp_path


def trained(folders, *more):
    (folders / "s.yaml").write_text(
        f"data: {{path: {folders / 'mine'}}}\nvalidation: {{path: {folders / 'held_out'}}}\ncrop: {{size: 32}}\n"
        "model: {options: {width: 8, depth: 1, time_width: 16}}\noptim: {batch_size: 2}\n"
        f"run: {{out: {folders / 'run'}, steps: 4, log_every: 2, validate_every: 2}}\n"
    )
    return retinashift("train", folders / "s.yaml", *more)


def test_a_pipe_gets_plain_lines(folders):
    done = trained(folders)
    assert (done.returncode, done.stdout) == (0, "")
    assert all(character.isprintable() for line in done.stderr.splitlines() for character in line)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Loading")]
    facts, _, out = lines[0].rpartition("; ")
    assert re.fullmatch("3 photographs, 2 held out; cpu, 1 process, fp32; 4 steps, about \\d+ minutes?", facts)
    assert out == f"settings and log in {folders / 'run'}"
    assert lines[1].startswith("step 0: ")
    assert lines[2].startswith("step 1, about ")
    assert lines[-1].startswith("start ")
    assert lines[-1].endswith(f"next: retinashift upscale PHOTOGRAPHS -o out/ --checkpoint {folders / 'run' / 'best'}")


def test_json_is_one_object_a_line_and_quiet_is_nothing(folders):
    done = trained(folders, "--json")
    assert done.stderr == ""
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["event"] for report in reports][:2] == ["start", "validation"]
    assert reports[-1]["event"] == "end"
    assert reports[-1]["best"] >= reports[-1]["start"]
    done = trained(folders, "--quiet", "--set", f"run.out={folders / 'other'}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("folder", ["data", "validation"])
def test_a_wrong_folder_is_one_line_that_names_its_setting(folders, folder):
    said = one_line_error(trained(folders, "--set", f"{folder}.path=/nowhere"))
    assert said == f"error: {folder}.path: /nowhere is neither a folder nor a zip file"
    assert not (folders / "run").exists()


def test_evaluate_tells_which_photographs_a_checkpoint_was_trained_on(folders):
    trained(folders, "--set", "run.steps=1")
    arguments = ("--metrics", "none", "--seeds", "0", "--steps", "1", "-c", folders / "run" / "checkpoint")
    seen = retinashift("evaluate", folders / "mine", *arguments)
    assert "trained on 3 of 3 photographs, so their scores say nothing: eye0.png, eye1.png, eye2.png" in seen.stderr
    unseen = retinashift("evaluate", folders / "held_out", *arguments)
    assert unseen.returncode == 0
    assert "trained on" not in unseen.stderr


def test_evaluate_knows_the_split_of_stare(tmp_path):
    for number in STARE_LABELLED:
        draw_fundus(int(number[2:])).save(tmp_path / f"{number}.ppm")
    done = retinashift(
        "evaluate", tmp_path, "--split", "test", "--metrics", "none", "--steps", "1", "--seeds", "0",
        "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert {row["image"] for row in rows} == {f"{number}.ppm" for number in STARE_LABELLED[10:]}

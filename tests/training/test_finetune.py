"""`finetune` holds some patients out, trains, and prints and draws the outcome."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from builders.command import in_a_fresh_process, one_line_error
from builders.photographs import draw_fundus
from retinashift.data.checks import read_trained_on
from retinashift.data.photographs import STARE_LABELLED, DataError, content_hash, list_source, stem
from retinashift.imaging.files import read_image
from retinashift.training.finetune import finetune, plan_finetune


@pytest.fixture
def mine(tmp_path):
    """Both eyes of five patients."""
    (tmp_path / "mine").mkdir()
    for number in range(5):
        for eye in ("OD", "OS"):
            draw_fundus(10 * number + len(eye) + (eye == "OS")).save(tmp_path / "mine" / f"{number}_{eye}.png")
    return tmp_path / "mine"


def names(source):
    return {stem(item.hr.name) for item in list_source(source)}


def test_both_eyes_of_a_patient_are_on_one_side(mine, tmp_path):
    plan = plan_finetune(str(mine), str(tmp_path / "run"))
    held_out = names(plan.settings.validation)
    assert (plan.training, plan.held_out) == (8, 2)
    assert len({name[0] for name in held_out}) == 1
    assert not names(plan.settings.data) & held_out
    assert plan.settings.crop.size == 96


def test_stare_in_its_flat_layout_keeps_its_split(tmp_path):
    (tmp_path / "stare").mkdir()
    for number in STARE_LABELLED:
        draw_fundus(int(number[2:])).save(tmp_path / "stare" / f"{number}.ppm")
    plan = plan_finetune(str(tmp_path / "stare"), str(tmp_path / "run"))
    assert plan.settings.data.layout == "stare"
    assert names(plan.settings.validation) == set(STARE_LABELLED[10:])


def test_pairs_are_found_and_neither_rescaled_nor_blurred(mine, tmp_path):
    (tmp_path / "both" / "lr").mkdir(parents=True)
    mine.rename(tmp_path / "both" / "hr")
    for path in (tmp_path / "both" / "hr").iterdir():
        draw_fundus(0, 24).save(tmp_path / "both" / "lr" / path.name)
    settings = plan_finetune(str(tmp_path / "both"), str(tmp_path / "run")).settings
    assert (settings.data.layout, settings.crop.rescale_max, settings.crop.tint_max) == ("pairs", 1, 0)


def test_small_photographs_are_refused(tmp_path):
    for number in range(3):
        draw_fundus(number, 30).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match=r"\d.png is 30 pixels a side; at least 32 are needed"):
        plan_finetune(str(tmp_path), str(tmp_path / "run"))


def test_a_run_ends_with_scores_and_a_figure_and_goes_on(mine, checkpoint, tmp_path):
    plan = plan_finetune(str(mine), str(tmp_path / "run"), checkpoint=str(checkpoint), precision="fp32")
    short = plan.settings.run.model_copy(update={"steps": 4, "validate_every": 2, "save_every": 2})
    plan = replace(plan, settings=plan.settings.replace(run=short))
    done = finetune(plan)
    assert done.best >= done.start
    assert (done.checkpoint / "model_index.json").is_file()
    figure = np.asarray(read_image(done.figure).pixels)
    assert figure.std() > 20
    assert finetune(plan) == done


def test_the_command_says_what_came_of_it(mine, checkpoint, tmp_path):
    out = tmp_path / "run"
    done = in_a_fresh_process("finetune", mine, "-o", out, "-c", checkpoint, "--minutes", "0.02", "--quiet")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "PSNR on 2 held-out photographs, dB (RGB, field of view), trained on 8:"
    assert [line.split()[0] for line in lines[1:4]] == ["bicubic", "start", "fine-tuned"]
    assert lines[4] == f"Look at {out / 'held_out.png'}; use it with --checkpoint {out / 'best'}"
    again = in_a_fresh_process("finetune", mine, "-o", out, "-c", checkpoint, "--minutes", "0.02", "--json")
    reports = [json.loads(line) for line in again.stdout.splitlines()]
    assert (reports[0]["event"], reports[-1]["event"]) == ("start", "outcome")
    assert reports[-1]["checkpoint"] == str(out / "best")
    (tmp_path / "one").mkdir()
    draw_fundus(1).save(tmp_path / "one" / "a.png")
    said = one_line_error(in_a_fresh_process("finetune", tmp_path / "one", "-o", tmp_path / "other"))
    assert said == "error: the photographs are all of one patient or content; add others to hold out"


KILLED = """
import os, signal, sys
from dataclasses import replace
from retinashift.training.finetune import finetune, plan_finetune

def report(event, values):
    if event == "step" and values["step"] == 5:
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

plan = plan_finetune(sys.argv[1], sys.argv[2], checkpoint=sys.argv[3], precision="fp32")
run = plan.settings.run.model_copy(update={"steps": 8, "validate_every": 4, "save_every": 4})
finetune(replace(plan, settings=plan.settings.replace(run=run)), report)
"""


def test_the_first_hour_with_stare(checkpoint, tmp_path):
    """Twenty photographs in the flat layout, one command, killed in the middle and given again."""
    stare, out = tmp_path / "stare", tmp_path / "run"
    stare.mkdir()
    for number in STARE_LABELLED:
        draw_fundus(int(number[2:]), 64).save(stare / f"{number}.ppm")
    before = {path.name: path.read_bytes() for path in stare.iterdir()}
    words = [sys.executable, "-c", KILLED, str(stare), str(out), str(checkpoint)]
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0
    assert (out / "state" / "latest").read_text() == "00000004"
    assert not (out / "held_out.png").exists()
    plan = plan_finetune(str(stare), str(out), checkpoint=str(checkpoint), precision="fp32")
    run = plan.settings.run.model_copy(update={"steps": 8, "validate_every": 4, "save_every": 4})
    events = []
    plan = replace(plan, settings=plan.settings.replace(run=run))
    done = finetune(plan, lambda event, values: events.append((event, values)))
    assert (events[0][0], events[0][1]["step"], events[0][1]["validation"]) == ("start", 4, 10)
    assert events[0][1]["expected_minutes"] > 0
    assert done.best >= done.start
    assert read_image(done.figure).pixels.std() > 20
    held_out = {content_hash(item.hr) for item in list_source(plan.settings.validation)}
    learned = read_trained_on(done.checkpoint)
    assert len(learned) == len(held_out) == 10
    assert not learned & held_out
    assert {path.name: path.read_bytes() for path in stare.iterdir()} == before


def test_adapters_are_chosen_where_all_weights_would_not_fit(mine, checkpoint, tmp_path, monkeypatch):
    plan = plan_finetune(str(mine), str(tmp_path / "run"), checkpoint=str(checkpoint))
    assert (plan.settings.lora.rank, plan.tuned.split()[0]) == (0, "all")
    monkeypatch.setattr("retinashift.training.finetune.spare_memory", lambda device, memory: 1000)
    plan = plan_finetune(str(mine), str(tmp_path / "run"), checkpoint=str(checkpoint))
    assert plan.settings.lora.rank > 0
    assert "LoRA adapters of rank" in plan.tuned

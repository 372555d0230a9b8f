"""retinashift schedule: the numbers of the chain, or a picture of them that is never written over another."""

import numpy as np
import pytest
from typer.testing import CliRunner

from retinashift.cli import app
from retinashift.diffusion.process import sqrt_eta_schedule
from retinashift.imaging.files import read_image


def schedule(*arguments):
    return CliRunner().invoke(app, ["schedule", *map(str, arguments)])


def test_the_numbers_are_those_of_the_chain():
    done = schedule("--kappa", 1.5, "-p", 0.5, "-T", 8)
    assert done.exit_code == 0
    assert np.allclose([float(n) for n in done.stdout.split()], sqrt_eta_schedule(8, kappa=1.5, power=0.5), atol=1e-5)


def test_the_picture_is_drawn_once_and_replaced_on_demand_only(tmp_path):
    file = tmp_path / "curve.png"
    assert schedule("--plot", file).exit_code == 0
    first = file.read_bytes()
    assert read_image(file).pixels.shape == (640, 1200, 3)
    refused = schedule("--plot", file, "-T", 4)
    assert isinstance(refused.exception, FileExistsError)
    assert "exists" in str(refused.exception)
    assert file.read_bytes() == first
    assert schedule("--plot", file, "-T", 4, "--overwrite").exit_code == 0
    assert file.read_bytes() != first


@pytest.mark.parametrize("wrong", [("--kappa", -1), ("-T", 0), ("-p", -0.5)])
def test_numbers_without_a_schedule_are_refused_by_name_and_nothing_is_written(tmp_path, wrong):
    done = schedule(*wrong, "--plot", tmp_path / "curve.png")
    assert isinstance(done.exception, ValueError)
    assert list(tmp_path.iterdir()) == []


def test_the_chain_of_a_checkpoint_is_shown_and_goes_with_no_other(checkpoint, tmp_path):
    done = schedule("-c", checkpoint)
    assert len(done.stdout.split()) == 4
    assert float(done.stdout.split()[0]) == pytest.approx(0.2, abs=1e-4)
    assert schedule("-c", checkpoint, "--plot", tmp_path / "curve.png").exit_code == 0
    assert "leave --kappa, --power and --steps out" in str(schedule("-c", checkpoint, "-T", 8).exception)

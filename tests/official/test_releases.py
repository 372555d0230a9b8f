"""The table of releases against what is published about them."""

from typing import get_args

import pytest

from retinashift.diffusion.process import respaced_timesteps
from retinashift.official import RELEASES, ReleaseName


def test_every_name_that_the_command_offers_is_in_the_table():
    assert tuple(RELEASES) == get_args(ReleaseName)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("resshift_realsrx4_s15_v1.pth", "realsr_v1"),
        ("resshift_realsrx4_s4_v3.pth", "realsr_v3"),
        ("resshift_bicsrx4_s4.pth", "bicsr"),
        ("SinSR_v1.pth", "sinsr"),
    ],
)
def test_a_published_file_name_tells_its_release(file, name):
    assert [release.name for release in RELEASES.values() if release.file == file] == [name]


@pytest.mark.parametrize("name", ["ema_model_400000.pth", "resshift_faceir_s4.pth", "resshift_deblur_s4.pth"])
def test_no_other_file_name_tells_a_release(name):
    assert all(release.file != name for release in RELEASES.values())


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_the_steps_are_those_of_the_published_configurations(release):
    fifteen = release.name in ("realsr_v1", "realsr_v2", "sinsr")
    assert (release.steps, release.min_noise) == ((15, 0.04) if fifteen else (4, 0.2))


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_by_default_sampling_starts_at_the_last_step(release):
    assert respaced_timesteps(release.steps, release.default_steps, release.spacing)[-1] == release.steps - 1

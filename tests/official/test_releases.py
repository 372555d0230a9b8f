"""The table of releases against what is published about them."""

from typing import get_args

import pytest

from retinashift.diffusion.schedule import kept_steps
from retinashift.official.releases import RELEASES, ReleaseName, release_of_file


def test_every_name_that_the_command_offers_is_in_the_table():
    assert tuple(RELEASES) == get_args(ReleaseName)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("resshift_realsrx4_s15_v1.pth", "realsr_v1"),
        ("resshift_realsrx4_s4_v3.pth", "realsr_v3"),
        ("resshift_inpaint_face_s4.pth", "inpaint_face"),
        ("SinSR_v1.pth", "sinsr"),
    ],
)
def test_a_published_file_name_tells_its_release(file, name):
    release = release_of_file(file)
    assert release is not None
    assert release.name == name


def test_an_unknown_file_name_tells_nothing():
    assert release_of_file("ema_model_400000.pth") is None


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_the_steps_and_the_first_layer_are_those_of_the_published_configurations(release):
    fifteen = release.name in ("realsr_v1", "realsr_v2", "sinsr")
    assert (release.steps, release.min_noise) == ((15, 0.04) if fifteen else (4, 0.2))
    features = {1: 3, 4: 64, 8: 128}[release.lq_ratio]  # channels beside the latent's: the published first convolutions
    latent = 8 if release.name == "faceir" else 3
    expected = 136 if release.name == "faceir" else 6 if release.scale == 4 else 67
    assert latent + features == expected


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_by_default_sampling_starts_at_the_last_step(release):
    assert kept_steps(release.steps, release.default_steps, release.spacing)[-1] == release.steps - 1

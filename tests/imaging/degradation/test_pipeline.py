"""The chain is deterministic by seed, keeps its range and size, and every step gets worse with its strength."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from retinashift.cli.evaluation import parse_degradation
from retinashift.imaging.degradation.bicubic import Bicubic, bicubic_pillow
from retinashift.imaging.degradation.pipeline import (
    DEGRADATIONS,
    STEPS,
    Camera,
    apply_step,
    read_section,
)
from retinashift.training.settings import TrainConfig

ALL = Camera(
    optics_probability=1, blur_probability=1, noise_probability=1, mosaic_probability=1,
    jpeg_probability=1, second_order=1,
)  # fmt: skip
NONE = Camera(
    optics_probability=0, blur_probability=0, noise_probability=0, mosaic_probability=0,
    jpeg_probability=0,
)  # fmt: skip


@pytest.mark.parametrize("settings", [Camera(), ALL])
def test_the_same_seed_gives_the_same_input_and_another_seed_another(retina, settings):
    first, again, other = (settings(retina, 4, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first.shape == (32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_any_step_it_is_plain_reduction(retina):
    plain = NONE(retina, 4, np.random.default_rng(0)).astype(int)
    assert np.abs(plain - bicubic_pillow(retina, 4)).max() <= 1  # Pillow's 8-bit path rounds twice


@pytest.mark.parametrize("step", STEPS)
def test_a_step_keeps_shape_and_range_and_grows_with_its_strength(retina, step):
    image = retina.astype(np.float32) / 255
    least, most = getattr(ALL, step) if step != "mosaic" else (0.0, 0.0)
    made = [apply_step(image, step, strength, np.random.default_rng(3)) for strength in (least, most)]
    for picture in made:
        assert picture.shape == image.shape
        assert picture.dtype == np.float32
        assert 0 <= picture.min() <= picture.max() <= 1
    change = [np.abs(picture - image).mean() for picture in made]
    assert change[0] > 0
    assert step == "mosaic" or change[1] > 1.5 * change[0]


def test_settings_that_contradict_themselves_are_named():
    for wrong, reason in (
        ({"clean_share": -0.1}, "degradation.clean_share is -0.1; a probability"),
        ({"blur_probability": 1.5}, "degradation.blur_probability is 1.5; a probability"),
        ({"noise": (0.1, 0.05)}, "degradation.noise is 0.1 to 0.05; 0 < least <= most"),
        ({"haze": (0.1, 1.5)}, "degradation.haze is 0.1 to 1.5; 0 < least <= most <= 1"),
    ):
        with pytest.raises(ValueError, match=reason):
            Camera(**wrong)


def test_photographs_that_cannot_be_reduced_are_refused(retina):
    for pixels, reason in ((retina[:127], "no multiple"), (retina / 255, "uint8"), (retina[..., 0], "uint8")):
        with pytest.raises(ValueError, match=reason):
            ALL(pixels, 4, np.random.default_rng(0))


def test_the_clean_share_of_the_inputs_is_only_reduced(retina):
    settings = Camera(clean_share=0.5, noise_probability=1)
    made = [settings(retina, 4, np.random.default_rng(seed)) for seed in range(40)]
    clean = sum(np.array_equal(lr, bicubic_pillow(retina, 4)) for lr in made)
    assert 10 < clean < 30
    assert np.array_equal(Camera(clean_share=1)(retina, 4, np.random.default_rng(0)), bicubic_pillow(retina, 4))


def test_optics_are_left_out_unless_asked_for(retina):
    plain = Camera(blur_probability=0, noise_probability=0, mosaic_probability=0, jpeg_probability=0)
    hazy = replace(plain, optics_probability=1)
    assert np.abs(plain(retina, 4, np.random.default_rng(0)).astype(int) - bicubic_pillow(retina, 4)).max() <= 1
    assert np.abs(hazy(retina, 4, np.random.default_rng(0)).astype(int) - bicubic_pillow(retina, 4)).mean() > 3


def test_a_section_names_its_degradation_and_its_former_name_is_read_with_a_note(caplog):
    assert read_section({}) == (Bicubic, {})
    assert read_section({"kind": "camera", "noise": [0.1, 0.2]}) == (Camera, {"noise": [0.1, 0.2]})
    assert not caplog.text
    assert read_section({"kind": "realistic", "second_order": 0.2}) == (Camera, {"second_order": 0.2})
    assert "degradation.kind realistic is now called camera" in caplog.text
    assert read_section({"kind": "bicubic-pillow", "noise": [0.1, 0.2]}) == (Bicubic, {})
    assert "bicubic-pillow does not use noise" in caplog.text
    for wrong, reason in (
        ({"kind": "rain"}, "degradation.kind is 'rain'; allowed are bicubic-pillow, camera"),
        ({"kind": ["camera"]}, "degradation.kind is"),
        ({"kind": "camera", "fog": 1}, "unknown setting degradation.fog; allowed are kind, clean_share"),
    ):
        with pytest.raises(ValueError, match=reason):
            read_section(wrong)


@dataclass(frozen=True)
class Rows:
    """A toy: every row but the first of `scale` is thrown away. Its own file and one entry of the table."""

    exact: ClassVar[bool] = False
    kind: str = "rows"
    first: int = 0

    def __call__(self, hr, scale, generator):
        return hr[self.first :: scale, self.first :: scale]


def test_a_degradation_takes_one_file_and_one_entry(retina, monkeypatch, tmp_path):
    monkeypatch.setitem(DEGRADATIONS, "rows", Rows)
    settings = tmp_path / "s.yaml"
    settings.write_text("data: {path: x}\ndegradation: {kind: rows, first: 1}\n")
    config = TrainConfig.load(settings)
    assert config.degradation == Rows(first=1)
    settings.write_text(config.to_yaml())
    assert TrainConfig.load(settings) == config
    assert parse_degradation("rows") == Rows()
    assert np.array_equal(config.degradation(retina, 4, np.random.default_rng(0)), retina[1::4, 1::4])

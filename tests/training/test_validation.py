"""Validation scores beside bicubic, by the protocol."""

import pytest

from retinashift.data.photographs import list_source
from retinashift.imaging.figures import BAR, FOOT, GAP
from retinashift.training.build import build_pipeline
from retinashift.training.settings import TrainConfig
from retinashift.training.validation import SIDE, validate


def test_an_untrained_network_scores_what_bicubic_scores(smoke_settings, write_settings):
    config = TrainConfig.load(write_settings(smoke_settings))
    pipeline = build_pipeline(config)
    pipeline.register_to_config(back_projections=0)
    scores, picture = validate(pipeline, list_source(config.data), 0, config.degradation)
    assert scores["gain"] == pytest.approx(0, abs=0.1)
    assert picture.shape == (BAR + 2 * (SIDE + GAP) + FOOT, GAP + 4 * (SIDE + GAP), 3)

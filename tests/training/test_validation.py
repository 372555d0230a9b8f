"""Validation scores beside bicubic, by the protocol."""

import numpy as np
import pytest

from retinashift.data.photographs import list_source
from retinashift.imaging.figures.comparison import BAR, GAP
from retinashift.training.build import build_pipeline
from retinashift.training.pool import PhotographSet
from retinashift.training.settings import TrainConfig
from retinashift.training.validation import SIDE, most_changed, validate


def test_an_untrained_network_scores_what_bicubic_scores(smoke_settings, write_settings):
    config = TrainConfig.load(write_settings(smoke_settings))
    photographs = PhotographSet(list_source(config.data), cache_gib=1)
    pipeline = build_pipeline(config)
    pipeline.register_to_config(back_projections=0)
    scores, picture = validate(pipeline, photographs, seed=0)
    assert scores["gain"] == pytest.approx(0, abs=0.1)
    assert picture.shape == (BAR + 2 * (SIDE + GAP), GAP + 3 * (SIDE + GAP), 3)


def test_the_square_of_most_change_is_found():
    plain = np.full((60, 80, 3), 90, np.uint8)
    changed = plain.copy()
    changed[30:40, 50:60] = 120
    rows, columns = most_changed(changed, plain, 12)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (12, 12)
    assert (changed[rows, columns] != plain[rows, columns]).sum() == 300
    assert most_changed(plain, plain, 500) == (slice(0, 60), slice(0, 60))

"""A checkpoint that was trained on keeps the licence of its start."""

from __future__ import annotations

from retinashift.training.state import continued_card


def test_licence_and_text_of_the_start_are_kept_under_a_heading_of_their_own(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: other\n---\n\n# Start\n\nNon-commercial.\n\n## Data\n")
    card = continued_card(tmp_path)
    assert card.startswith("---\nlicense: other\n---\n\n# Fine-tuned with RetinaShift\n")
    assert card.endswith("## The starting checkpoint\n\n### Start\n\nNon-commercial.\n\n#### Data\n")


def test_a_card_without_metadata_is_kept_whole_and_no_card_makes_none(tmp_path):
    assert continued_card(tmp_path) is None
    (tmp_path / "README.md").write_text("---\nnever closed")
    assert continued_card(tmp_path).endswith("---\nnever closed\n")

"""The numbers in the metadata of a model card are those of its tables."""

import re
from pathlib import Path

import pytest
import yaml

CARDS = sorted((Path(__file__).parents[1] / "src" / "retinashift" / "weights").glob("*/README.md"))


def rows_of(text: str) -> list[dict[str, str]]:
    """Every row of every table whose first column is the method, by the headings of its columns."""
    rows: list[dict[str, str]] = []
    columns: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip(" *`") for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells[:1] == ["method"]:
            columns = cells
        elif cells and columns and not cells[0].startswith("-"):
            rows.append(dict(zip(columns, cells, strict=False)))
    return rows


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_the_metadata_has_the_numbers_of_the_tables(card):
    front, text = card.read_text(encoding="utf-8").removeprefix("---\n").split("\n---\n", 1)
    (model,) = yaml.safe_load(front)["model-index"]
    assert model["name"] == card.parent.name
    own = [row for row in rows_of(text) if row["method"].replace("`", "").split(",")[0] == model["name"]]
    assert own
    for result in model["results"]:
        assert re.search(r"\w", result["dataset"]["name"])
        for metric in result["metrics"]:
            values = {float(row[metric["name"]]) for row in own if metric["name"] in row}
            assert float(metric["value"]) in values, metric

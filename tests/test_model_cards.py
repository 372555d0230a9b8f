"""The numbers in the metadata of a model card are those of its tables."""

import re
from pathlib import Path

import pytest
import yaml

CARDS = sorted((Path(__file__).parents[1] / "src" / "retinashift" / "weights").glob("*/README.md"))


def rows_of(text: str) -> list[dict[str, str]]:
    """Every row of the tables whose first column is the method, by its headings; "set": DRIVE or STARE, named above."""
    rows: list[dict[str, str]] = []
    columns: list[str] = []
    named = ""
    for line in text.splitlines():
        cells = [cell.strip(" *`") for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            named = (re.findall("DRIVE|STARE", line) or [named])[0]
        elif cells[0] == "method":
            columns = cells
        elif columns and not cells[0].startswith("-"):
            rows.append(dict(zip(columns, cells, strict=False)) | {"set": named})
    return rows


def front_and_text(card: Path) -> tuple[dict, str]:
    front, text = card.read_text(encoding="utf-8").removeprefix("---\n").split("\n---\n", 1)
    (model,) = yaml.safe_load(front)["model-index"]
    return model, text


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_the_metadata_has_the_numbers_of_the_tables(card):
    model, text = front_and_text(card)
    assert model["name"] == card.parent.name
    own = [row for row in rows_of(text) if row["method"].replace("`", "").split(",")[0] == model["name"]]
    for result in model["results"]:
        name = result["dataset"]["name"]
        (mode,) = re.findall("faithful|realistic", name) or [""]
        rows = [row for row in own if row["set"] == re.findall("DRIVE|STARE", name)[0] and mode in row["method"]]
        for metric in result["metrics"]:
            values = {row[metric["name"]] for row in rows if metric["name"] in row}
            assert {float(value) for value in values} == {float(metric["value"])}, (name, metric)


@pytest.mark.parametrize("name", ["x4", "x4_one_step"])
def test_the_tables_have_the_numbers_of_the_benchmark(name):
    """The card of the student calls "PSNR" what the benchmark calls "PSNR fov"."""
    benchmark: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows_of(
        (CARDS[0].parents[4] / "docs" / "benchmark.md").read_text("utf-8").split("## What the tables")[0]
    ):
        benchmark.setdefault((row["set"], row["method"].strip("`")), {}).update(row)
    compared = 0
    for row in rows_of(front_and_text(CARDS[0].parents[1] / name / "README.md")[1]):
        known = benchmark[row["set"], row["method"].strip("`")]
        for heading, value in row.items():
            assert known[heading if heading in known else f"{heading} fov"] == value, (row, heading)
            compared += 1
    assert compared > 50

"""Memory is said in the units people use, and what is planned stays below it."""

import psutil
import pytest
import torch

from retinashift.inference.memory import free_for_tiles, parse_memory


@pytest.mark.parametrize(
    ("text", "value"), [("2G", 2**31), ("800M", 800 * 2**20), ("1.5 GiB", 3 * 2**29), ("4096", 4096), ("2gb", 2**31)]
)
def test_sizes_are_read_in_binary_units(text, value):
    assert parse_memory(text) == value


@pytest.mark.parametrize("text", ["", "two", "-1G", "0", "2X", "1e9"])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="such as 2G or 800M"):
        parse_memory(text)


def test_a_limit_counts_what_the_process_holds_already():
    held = psutil.Process().memory_info().rss
    left = free_for_tiles(torch.device("cpu"), held + 2**30, results=2**20)
    assert left == pytest.approx(2**30 - 2**20, abs=2**26)


def test_without_a_limit_other_programs_keep_half_of_what_is_free():
    free = psutil.virtual_memory().available
    assert free_for_tiles(torch.device("cpu"), None, results=0) == pytest.approx(free / 2, rel=0.2)

"""From file bytes to file bytes as the official program: tiles, padding, masks, and its order of noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from retinashift.inference.official import import_official
from retinashift.inference.official_loop import drawn_from, official_upscale, tile_starts
from retinashift.inference.pipeline import ResShiftPipeline

CASES = ["plain", "padded", "tiled", "tiled_thin"]


def given_noise(expected: dict[str, Tensor]):
    """Hands out the noise of the tiles, one by one and in order."""
    stored = [expected[f"noise{i}"] for i in range(sum(name.startswith("noise") for name in expected))]
    queue = [noise for tile in stored for noise in tile]
    return queue, lambda shape: queue.pop(0).reshape(shape)


@pytest.fixture(scope="module")
def imported(shared: Path, tmp_path_factory) -> ResShiftPipeline:
    weights = shared / "parity" / "weights"
    folder = tmp_path_factory.mktemp("imported") / "out"
    import_official(weights / "unet_a.safetensors", weights / "vq_a.safetensors", "realsr_v3", folder)
    return ResShiftPipeline.from_pretrained(folder)


def vectors(shared: Path, case: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    stored = load_file(shared / "parity" / "vectors" / "endtoend.safetensors")
    facts = json.loads((shared / "parity" / "index.json").read_text())["facts"]
    picked = {key.removeprefix(f"{case}."): value for key, value in stored.items() if key.startswith(f"{case}.")}
    return picked, facts[f"endtoend.{case}.setup"]


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
def test_a_files_bytes_become_the_official_bytes(shared, imported, worst_error, case):
    expected, setup = vectors(shared, case)
    image = expected["image_u8"].permute(2, 0, 1)[None] / 255
    left, draw = given_noise(expected)
    result = official_upscale(imported, image, draw, setup["chop_size"], setup["chop_stride"])
    assert left == []
    worst_error("endtoend", result, expected["result"], 5e-4)
    levels = (result[0].permute(1, 2, 0) * 255).round().to(torch.uint8)  # half to even, as the official program
    assert (levels.int() - expected["result_u8"].int()).abs().max() <= 1
    assert (levels == expected["result_u8"]).float().mean() > 0.999


@pytest.mark.shared
def test_filling_in_gives_the_official_bytes_and_keeps_all_else(shared, parity, inpainting, worst_error):
    expected, setup = vectors(shared, "inpaint")
    image = expected["image_u8"].permute(2, 0, 1)[None] / 255
    mask = (expected["mask_u8"] > 127).float()[None, None]
    left, draw = given_noise(expected)
    result = official_upscale(inpainting, image, draw, setup["chop_size"], setup["chop_stride"], mask)
    assert left == []
    worst_error("endtoend", result, expected["result"], 5e-4)
    levels = (result[0].permute(1, 2, 0) * 255).round().to(torch.uint8)
    assert torch.equal(levels[mask[0, 0] == 0], expected["image_u8"][mask[0, 0] == 0])
    assert (levels.int() - expected["result_u8"].int()).abs().max() <= 1


@pytest.mark.shared
def test_tiles_begin_where_the_official_ones_do(shared, worst_error):
    facts = json.loads((shared / "parity" / "index.json").read_text())["facts"]["tile_starts"]
    for said, starts in facts.items():
        length, tile, stride = (int(part.split(" ")[-1]) for part in said.split(","))
        assert tile_starts(length, tile, stride) == starts, said


@pytest.mark.shared
def test_a_seeded_generator_is_drawn_in_the_official_order(imported):
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    torch_noise = torch.Generator().manual_seed(12345)
    queue = [torch.randn(1, 3, 16, 16, generator=torch_noise) for _ in range(5)]
    by_hand = official_upscale(imported, image, lambda shape: queue.pop(0), 512, 448)
    by_seed = official_upscale(imported, image, drawn_from(torch.Generator().manual_seed(12345)), 512, 448)
    assert torch.equal(by_hand, by_seed)

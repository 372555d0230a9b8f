"""From file bytes to file bytes as the official program: tiles, padding, and its order of noise."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.codec import upsample_bicubic
from retinashift.models.swin_unet import SwinUNet
from retinashift.models.vq import VQCodec
from retinashift.official.convert import import_official
from retinashift.official.networks import vq_from_official

from .official_loop import drawn_from, official_upscale, run_chain, tile_starts

CASES = ["plain", "padded", "tiled", "tiled_thin"]


def given_noise(expected: dict[str, Tensor]):
    """Hands out the noise of the tiles, one by one and in order."""
    stored = [expected[f"noise{i}"] for i in range(sum(name.startswith("noise") for name in expected))]
    queue = [noise for tile in stored for noise in tile]
    return queue, lambda shape: queue.pop(0).reshape(shape)


def build(parity, unet: str, vq: str, **chain) -> ResShiftPipeline:
    """A pipeline of networks of the vectors, as official weights make it."""
    with torch.device("meta"):
        denoiser = SwinUNet(**parity.options(unet), attention_mask="official").eval()
    denoiser.load_state_dict(parity.weights(unet, denoiser), assign=True)
    scheduler = ResShiftScheduler(**{"num_train_timesteps": 4, "spacing": "leading"} | chain)
    return ResShiftPipeline(denoiser, scheduler, official_vq(parity, vq), scale=4 if vq == "vq_a" else 1)


def official_vq(parity, name: str) -> VQCodec:
    stored = parity.folder / "weights" / f"{name}.safetensors"
    if stored.exists():
        return vq_from_official(load_file(stored))
    shapes = {key: torch.empty(shape, device="meta") for key, shape in parity.parameters(name).items()}
    return vq_from_official(parity.recipe_weights(SimpleNamespace(named_parameters=shapes.items)))


LOOPS = {  # case: networks, and how its chain differs from the four steps of the released configurations
    "s4": ("unet_a", {}),
    "s4_wide": ("unet_a", {}),
    "s15": ("unet_a", {"num_train_timesteps": 15, "min_noise": 0.04}),
    "s15_respaced5": ("unet_a", {"num_train_timesteps": 15, "min_noise": 0.04}),
    "s4_residual": ("unet_a", {"prediction_type": "residual"}),
    "s4_epsilon": ("unet_a", {"prediction_type": "noise"}),
    "s4_epsilon_scale": ("unet_a", {"prediction_type": "scaled_noise"}),
    "face_like": ("unet_r5", {}),
}


@pytest.mark.shared
@pytest.mark.parametrize("case", LOOPS)
@torch.no_grad()
def test_the_loop_from_the_encoded_image_to_the_decoded_one_is_the_official_one(parity, case):
    unet, chain = LOOPS[case]
    given = parity.vectors("sampling", f"{case}.")
    pipeline = build(parity, unet, "vq_r2" if unet == "unet_r5" else "vq_a", **chain)
    scale = 4 if unet == "unet_a" else 1
    lq = parity.image(given["lq_seed"], 1, 3, 128, 128) if "lq_seed" in given else given["lq"]
    z_y = pipeline.codec.encode(upsample_bicubic(lq, scale, "torch")).latents
    parity.check("sampling", f"{case}.z_y", z_y, 1e-4)
    pipeline.scheduler.set_timesteps(len(given["noise"]) - 1)
    queue = list(given["noise"])
    states, estimates = zip(*run_chain(pipeline, z_y, lq, lambda shape: queue.pop(0)), strict=True)
    assert queue == []
    relative = "epsilon" in case  # their latents are in the hundreds
    for name, values in (
        ("sample", torch.stack(states)),
        ("pred_xstart", torch.stack(estimates)),
        ("final_latent", states[-1]),
    ):
        if name in given:
            parity.check("sampling", f"{case}.{name}", values, 1e-4, relative=relative)
    parity.check("sampling", f"{case}.image", pipeline.codec.decode(states[-1]).sample, 5e-4)


@pytest.mark.shared
@pytest.mark.parametrize("scale", [2, 4])
def test_the_enlargement_before_encoding_is_the_official_one(parity, scale):
    lq = parity.vectors("diffusion_ops")["upsample.lq"]
    parity.check("diffusion_ops", f"upsample.x{scale}", upsample_bicubic(lq, scale, "torch"), 1e-5)


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
def test_a_files_bytes_become_the_official_bytes(shared, parity, imported, case):
    expected, setup = vectors(shared, case)
    image = expected["image_u8"].permute(2, 0, 1)[None] / 255
    left, draw = given_noise(expected)
    result = official_upscale(imported, image, draw, setup["chop_size"], setup["chop_stride"])
    assert left == []
    parity.check("endtoend", f"{case}.result", result, 5e-4)
    assert_same_bytes(result, expected["result_u8"])


def assert_same_bytes(result: Tensor, expected: Tensor) -> None:
    """Equal, but for values that lie on the edge between two levels to within rounding."""
    different = to_bytes(result).int() - expected.int()
    assert different.abs().max() <= 1
    assert (different != 0).float().mean() < 1e-3
    on_edge = (result[0].permute(1, 2, 0) * 255).frac().sub(0.5).abs()[different != 0]
    assert (on_edge < 255 * 5e-4).all()


def to_bytes(result: Tensor) -> Tensor:
    return (result[0].permute(1, 2, 0) * 255).round().to(torch.uint8)  # half to even, as the official program


@pytest.mark.shared
def test_tiles_begin_where_the_official_ones_do(shared):
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

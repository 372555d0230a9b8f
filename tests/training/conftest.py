"""Small photographs with structure, and settings that train in seconds."""

import pytest
import torch

from builders.photographs import draw_fundus


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder with six HR photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(6):
        draw_fundus(seed).save(folder / f"eye{seed}.png")
    return folder


@pytest.fixture(scope="session")
def held_out(tmp_path_factory):
    """A folder with two photographs that are not among those six."""
    folder = tmp_path_factory.mktemp("held_out")
    for seed in (6, 7):
        draw_fundus(seed).save(folder / f"eye{seed}.png")
    return folder


@pytest.fixture(scope="session")
def swin_checkpoint(tmp_path_factory):
    """A small official-style checkpoint: a Swin U-Net with the official mask on latents of a codec with a codebook."""
    from retinashift.diffusion.scheduler import ResShiftScheduler
    from retinashift.inference.pipeline import ResShiftPipeline
    from retinashift.models.swin_unet import SwinUNet
    from retinashift.models.vq import VQCodec

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = SwinUNet(
            image_size=8, model_channels=32, channel_mult=[1], num_res_blocks=[1], attention_resolutions=[8],
            num_head_channels=16, swin_embed_dim=32, window_size=4, mlp_ratio=2, lq_size=8, attention_mask="official",
        )  # fmt: skip
        codec = VQCodec(block_out_channels=[32, 32, 32], layers_per_block=1, num_vq_embeddings=32)
    folder = tmp_path_factory.mktemp("official_style") / "start"
    pipeline = ResShiftPipeline(denoiser, ResShiftScheduler(4), codec, upsampling="torch", default_steps=4)
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def smoke_settings(photographs, tmp_path):
    """A mapping of settings for a run of seconds, to be written as YAML or changed first."""
    return {
        "data": {"path": str(photographs)},
        "crop": {"size": 32},
        "model": {"kind": "light", "options": {"width": 8, "depth": 1, "time_width": 16}},
        "optim": {"batch_size": 2, "learning_rate": 2e-3, "warmup_steps": 2, "ema": 0.9, "clip": 1.0},
        "run": {
            "precision": "fp32",
            "out": str(tmp_path / "run"),
            "steps": 8,
            "log_every": 1,
            "save_every": 4,
            "validate_every": 4,
        },
    }


@pytest.fixture
def write_settings(tmp_path):
    import yaml

    def write(mapping, name="settings.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(mapping))
        return path

    return write

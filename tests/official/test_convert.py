"""Official files to a checkpoint folder: the official loop's numbers come out of it, and bad input leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor

from retinashift.inference import chain
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.swin_unet import SwinUNet
from retinashift.official import RELEASES
from retinashift.official.convert import export_official, import_official
from retinashift.official.networks import OfficialError, swin_unet_to_official, vq_to_official


def denoiser_state(**changes) -> dict[str, Tensor]:
    options = {
        "image_size": 16, "model_channels": 32, "channel_mult": [1], "num_res_blocks": [1],
        "attention_resolutions": [16], "num_head_channels": 16, "swin_embed_dim": 32, "window_size": 4,
        "mlp_ratio": 1, "lq_size": 16, "attention_mask": "official",
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return swin_unet_to_official(SwinUNet(**(options | changes)))


def autoencoder_state(levels: int = 3) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return vq_to_official(
            VQModel(
                down_block_types=["DownEncoderBlock2D"] * levels,
                up_block_types=["UpDecoderBlock2D"] * levels,
                block_out_channels=[32] * levels,
                num_vq_embeddings=8,
            )
        )


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """A denoiser and its autoencoder, under the published names."""
    paths = tmp_path / "resshift_realsrx4_s4_v3.pth", tmp_path / "autoencoder_vq_f4.pth"
    torch.save(denoiser_state(), paths[0])
    torch.save({"state_dict": {f"module.{n}": t for n, t in autoencoder_state().items()}}, paths[1])
    return paths


def test_a_folder_has_the_chain_of_its_release_and_its_conventions(files, tmp_path):
    pipeline = ResShiftPipeline.from_pretrained(import_official(*files, "sinsr", tmp_path / "out"))
    chain, release = pipeline.scheduler.config, RELEASES["sinsr"]
    assert (chain.num_train_timesteps, chain.min_noise, chain.kappa, chain.power, chain.end) == (15, 0.04, 2, 0.3, 0.99)
    assert (chain.prediction_type, chain.input_scaling, chain.clip_x0) == ("x0", "latent", False)
    assert (chain.spacing, chain.transition) == (release.spacing, release.transition)
    assert (pipeline.config.scale, pipeline.config.upsampling, pipeline.config.default_steps) == (4, "torch", 1)
    assert pipeline.denoiser.config.attention_mask == "official"
    pipeline.scheduler.set_timesteps(pipeline.config.default_steps)
    assert pipeline.scheduler.timesteps.tolist() == [14]


def test_saving_and_loading_keeps_every_bit(files, tmp_path):
    pipeline = ResShiftPipeline.from_pretrained(import_official(*files, None, tmp_path / "out"))
    for ours, official in (
        (swin_unet_to_official(pipeline.denoiser), denoiser_state()),
        (vq_to_official(pipeline.codec), autoencoder_state()),
    ):
        assert ours.keys() == official.keys()
        assert all(torch.equal(ours[name], official[name]) for name in official)


def test_an_imported_folder_upscales_a_picture(files, tmp_path, retina):
    pipeline = ResShiftPipeline.from_pretrained(import_official(*files, None, tmp_path / "out"))
    assert pipeline(retina[:16, :16]).images[0].shape == (64, 64, 3)


def test_each_part_makes_room_when_it_is_done(files, tmp_path, retina, monkeypatch):
    pipeline = ResShiftPipeline.from_pretrained(import_official(*files, None, tmp_path / "out"))
    expected = pipeline(retina[:16, :16]).images[0]
    released = []
    monkeypatch.setattr(chain, "trim_heap", lambda: released.append(1))
    assert (pipeline(retina[:16, :16]).images[0] == expected).all()
    assert len(released) == 3  # encoder, denoiser, decoder


def test_the_model_card_names_licence_source_and_where_the_training_size_is_from(files, tmp_path):
    card = (import_official(*files, "realsr_v3", tmp_path / "out") / "README.md").read_text(encoding="utf-8")
    assert "S-Lab License 1.0" in card
    assert "non-commercial" in card
    assert "https://github.com/zsyOAOA/ResShift" in card
    assert "| 16, as the file shows |" in card
    torch.save({n: t for n, t in denoiser_state().items() if not n.endswith("attn_mask")}, files[0])
    card = (import_official(*files, "realsr_v3", tmp_path / "o2") / "README.md").read_text(encoding="utf-8")
    assert "| 64, as in realsr_v3, because the file does not show it |" in card


def test_the_autoencoder_may_lie_beside_the_denoiser_under_its_published_name(files, tmp_path):
    assert import_official(files[0], None, None, tmp_path / "out").is_dir()


def test_exported_files_are_the_imported_ones_bit_by_bit_and_nothing_is_replaced(files, tmp_path):
    folder = import_official(*files, None, tmp_path / "out")
    out = tmp_path / "unet.pth", tmp_path / "vq.pth"
    export_official(folder, *out)
    for path, official in zip(out, (denoiser_state(), autoencoder_state()), strict=True):
        exported = torch.load(path, weights_only=True)
        assert exported.keys() == official.keys()
        assert all(torch.equal(exported[name], official[name]) for name in official)
    with pytest.raises(FileExistsError, match="unet.pth exists already"):
        export_official(folder, *out)


def test_a_checkpoint_without_an_autoencoder_is_not_exported(tiny_pipeline, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "light")
    with pytest.raises(OfficialError, match="light: the official code has only SwinUNet"):
        export_official(tmp_path / "light", tmp_path / "a.pth", tmp_path / "b.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["light"]


def test_a_folder_that_exists_is_left_as_it_is(files, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        import_official(*files, None, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_write_that_fails_leaves_nothing(files, tmp_path, monkeypatch):
    def full_disk(self: ResShiftPipeline, folder: Path) -> None:
        Path(folder).mkdir()
        raise OSError("no space left on device")

    monkeypatch.setattr(ResShiftPipeline, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="no space"):
        import_official(*files, None, tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize(
    ("release", "denoiser", "levels", "said"),
    [
        ("realsr_v9", {}, 3, "'realsr_v9' is no release; name one of realsr_v1, "),
        ("realsr_v3", {}, 2, "over the side of the autoencoder's latent is 2, and must be 4"),
        ("realsr_v3", {"lq_size": 64}, 3, "the denoiser's condition over that of its state is 4, and must be 1"),
        ("realsr_v3", {"in_channels": 8, "out_channels": 8}, 3, "channels that the denoiser takes is 8, and must be 3"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, release, denoiser, levels, said):
    torch.save(denoiser_state(**denoiser), tmp_path / "a.pth")
    torch.save(autoencoder_state(levels), tmp_path / "vq.pth")
    with pytest.raises(OfficialError, match=said):
        import_official(tmp_path / "a.pth", tmp_path / "vq.pth", release, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_error_in_a_file_names_the_file(files, tmp_path):
    with pytest.raises(OfficialError, match="autoencoder_vq_f4.pth: a denoiser .* is expected"):
        import_official(files[1], files[1], "realsr_v3", tmp_path / "out")
    with pytest.raises(OfficialError, match="s4_v3.pth: an autoencoder .* is expected, and the file holds a denoiser"):
        import_official(files[0], files[0], "realsr_v3", tmp_path / "out")


def test_a_missing_autoencoder_and_an_unknown_release_are_asked_for(files, tmp_path):
    files[1].unlink()
    with pytest.raises(OfficialError, match="the autoencoder autoencoder_vq_f4.pth is needed.*--vq"):
        import_official(files[0], None, None, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="autoencoder_vq_f4.pth"):
        import_official(*files, None, tmp_path / "out")
    renamed = files[0].rename(tmp_path / "ema_model_400000.pth")
    with pytest.raises(OfficialError, match="ema_model_400000.pth is not the published name of a release"):
        import_official(renamed, files[1], None, tmp_path / "out")

"""Official ResShift weights to a RetinaShift checkpoint folder, and back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.imaging.files import replace_file
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.swin_unet import SwinUNet
from retinashift.models.vq import VQCodec
from retinashift.official import networks, releases
from retinashift.official.files import OfficialError, read_official
from retinashift.official.releases import RELEASES, Release, release_of_file

CARD = Path(__file__).with_name("card.md")


def import_official(
    unet_path: str | Path, vq_path: str | Path | None, release_name: str | None, folder: str | Path
) -> Path:
    """Turn official files into a folder for `ResShiftPipeline.from_pretrained`; returns the folder.

    Args:
        unet_path: the denoiser, averaged weights or a training checkpoint.
        vq_path: the autoencoder; None looks for the published file beside the denoiser.
        release_name: a name of `RELEASES`; None infers it from the published file name.
        folder: what to write. It appears whole or not at all.

    Raises:
        OfficialError: a file, or a pair of files, that cannot be used.
        FileExistsError: the folder exists. FileNotFoundError: a file does not.
    """
    unet_path, folder = Path(unet_path), Path(folder)
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(f"{folder} exists already; give another folder")
    release = _release(unet_path, release_name)
    beside = unet_path.with_name(releases.VQ_FILE)
    if vq_path is None and not beside.is_file():
        raise OfficialError(f"the autoencoder {beside.name} is needed and is not beside {unet_path}; give it with --vq")
    vq_path = Path(vq_path or beside)

    official, autoencoder = read_official(unet_path), read_official(vq_path)
    with _naming(unet_path):
        denoiser = networks.swin_unet_from_official(official.parameters, official.derived, releases.IMAGE_SIZE)
        seen = networks.seen_image_size(official.parameters, official.derived)
    with _naming(vq_path):
        codec = networks.vq_from_official(autoencoder.parameters)
    _check_pair(denoiser, codec)
    pipeline = ResShiftPipeline(
        denoiser, _scheduler(release), codec, scale=releases.SCALE, upsampling="torch",
        default_steps=release.default_steps,
    )  # fmt: skip
    card = CARD.read_text(encoding="utf-8").format(
        releases=releases, release=release, chain=pipeline.scheduler.config, image_size=denoiser.config.image_size,
        image_size_from="as the file shows" if seen else f"as in {release.name}, because the file does not show it",
        unet_file=unet_path.name, unet_parameters=sum(p.numel() for p in denoiser.parameters()),
        vq_file=vq_path.name, vq_parameters=sum(p.numel() for p in codec.parameters()),
    )  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        whole = Path(temporary) / folder.name
        pipeline.save_pretrained(whole)
        (whole / "README.md").write_text(card, encoding="utf-8")
        os.rename(whole, folder)
    return folder


def export_official(folder: str | Path, unet_path: str | Path, vq_path: str | Path) -> None:
    """Write a checkpoint's networks as official files: bare state dicts under official names, for `torch.load`.

    Raises:
        CheckpointError: no checkpoint there. FileExistsError: a file exists.
        OfficialError: networks that the official code has no class for.
    """
    pipeline = ResShiftPipeline.from_pretrained(folder)
    with _naming(Path(folder)):
        states = {
            Path(unet_path): networks.swin_unet_to_official(pipeline.denoiser),
            Path(vq_path): networks.vq_to_official(pipeline.codec),
        }
    for path in states:
        if path.exists():
            raise FileExistsError(f"{path} exists already; give another name")
    for path, state in states.items():
        content = BytesIO()
        torch.save({name: tensor.contiguous() for name, tensor in state.items()}, content)
        replace_file(path, content.getvalue())


def _release(unet_path: Path, name: str | None) -> Release:
    release = RELEASES.get(name) if name else release_of_file(unet_path.name)
    if release is None:
        given = f"{name!r} is no release" if name else f"{unet_path.name} is not the published name of a release"
        raise OfficialError(f"{given}; name one of {', '.join(RELEASES)} (the weights look alike, their chains differ)")
    return release


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OfficialError from inside names the file."""
    try:
        yield
    except OfficialError as error:
        raise OfficialError(f"{path}: {error}") from error


def _check_pair(denoiser: SwinUNet, codec: VQCodec) -> None:
    """OfficialError unless denoiser and autoencoder have the sizes that all releases have."""
    factor = 2 ** (len(codec.config.block_out_channels) - 1)
    channels, latent = denoiser.config, codec.config.vq_embed_dim
    for what, found, expected in (
        ("the side of the image over that of the autoencoder's latent", factor, releases.SCALE),
        ("the side of the denoiser's condition over that of its state", denoiser.lq_ratio, 1),
        ("the number of channels that the denoiser takes", channels.in_channels, latent),
        ("the number of channels that it predicts", channels.out_channels, latent),
    ):
        if found != expected:
            raise OfficialError(f"{what} is {found}, and must be {expected}; are these the files of one release?")


def _scheduler(release: Release) -> ResShiftScheduler:
    return ResShiftScheduler(
        num_train_timesteps=release.steps, min_noise=release.min_noise, spacing=release.spacing,
        transition=release.transition, kappa=releases.KAPPA, power=releases.POWER, end=releases.ETA_END,
        prediction_type="x0", input_scaling="latent",
    )  # fmt: skip

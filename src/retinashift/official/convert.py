"""Official ResShift weights in, a checkpoint folder of RetinaShift out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers.models.autoencoders.vq_model import VQModel

from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.swin_unet import SwinUNet
from retinashift.official.files import OfficialError, load_official_state, read_official
from retinashift.official.releases import LICENCE, LICENCE_NOTICE, RELEASES, RESSHIFT, Release, release_of_file
from retinashift.official.unet import seen_image_size, swin_unet_from_official, swin_unet_to_official
from retinashift.official.vq import vq_from_official, vq_to_official

CARD = """\
---
license: other
license_name: s-lab-license-1.0
license_link: {resshift}/blob/master/LICENSE
library_name: retinashift
pipeline_tag: image-to-image
tags: [super-resolution, diffusion, resshift]
---

# {name}, imported from official weights

{notice}

| | |
|---|---|
| licence | {licence} (non-commercial) |
| source | {release.source} |
| denoiser | `{unet_file}`, `SwinUNet`, {unet_parameters:,} parameters |
| autoencoder | `{vq_file}`, `VQCodec`, {vq_parameters:,} parameters; encoding does not quantise, decoding does |
| training size of the latent | {image_size}, {image_size_from} |
| chain | T = {release.steps}, kappa {release.kappa:g}, min_noise {release.min_noise:g}, power {release.power:g}, \
sqrt(eta) up to {release.end:g}; the network predicts x0 |
| sampling | x{release.scale}, {release.transition}, {release.default_steps} steps by default |

The weights were trained on everyday photographs, not on retinal ones. For research use, not for diagnosis.
"""


def import_official(
    unet_path: str | Path, vq_path: str | Path | None, release_name: str | None, folder: str | Path
) -> Path:
    """Turn official files into a folder for `ResShiftPipeline.from_pretrained`, which is returned.

    Args:
        unet_path: the denoiser, averaged weights or a training checkpoint.
        vq_path: the autoencoder; None looks for the release's own file beside the denoiser.
        release_name: a name of `RELEASES`; None tells it by the published file name.
        folder: what to write. It appears whole or not at all.

    Raises:
        OfficialError: a file, or a pair of files, that cannot be used.
        FileExistsError: the folder exists. FileNotFoundError: a file does not.
    """
    unet_path, folder = Path(unet_path), Path(folder)
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(f"{folder} exists already; give another folder")
    release = _release(unet_path, release_name)
    vq_path = _vq_file(unet_path, vq_path, release)

    official = read_official(unet_path)
    if release.tuned_decoder and not official.decoder:
        raise OfficialError(f"{unet_path} lacks the entry vae, the decoder that belongs to {release.name}")
    autoencoder = load_official_state(vq_path) | official.decoder
    with _naming(unet_path):
        denoiser = swin_unet_from_official(official.parameters, official.derived, release.image_size)
    with _naming(vq_path):
        codec = vq_from_official(autoencoder)
    _check_pair(denoiser, codec, release)

    pipeline = ResShiftPipeline(
        denoiser,
        _scheduler(release),
        codec,
        scale=release.scale,
        upsampling="torch",
        default_steps=release.default_steps,
    )
    seen = seen_image_size(official.parameters, official.derived)
    size_from = "as the file shows" if seen else f"as in {release.name}, for the file does not show it"
    _save(pipeline, folder, _card(pipeline, size_from, release, unet_path.name, vq_path.name))
    return folder


def export_official(folder: str | Path, unet_path: str | Path, vq_path: str | Path) -> None:
    """Write a checkpoint's networks as official files: bare state dicts under official names, for `torch.load`.

    Raises:
        CheckpointError: no checkpoint there. FileExistsError: a file exists.
        OfficialError: networks that the official code has no class for.
    """
    pipeline = ResShiftPipeline.from_pretrained(folder)
    if not isinstance(pipeline.denoiser, SwinUNet) or pipeline.codec is None:
        raise OfficialError(f"{folder} is no Swin U-Net on an autoencoder's latents; the official code knows no other")
    states = {Path(unet_path): swin_unet_to_official(pipeline.denoiser), Path(vq_path): vq_to_official(pipeline.codec)}
    for path in states:
        if path.exists():
            raise FileExistsError(f"{path} exists already; give another name")
    for path, state in states.items():
        beside = path.with_name(f".{path.name}.new")
        torch.save({name: tensor.contiguous() for name, tensor in state.items()}, beside)
        os.replace(beside, path)


def _release(unet_path: Path, name: str | None) -> Release:
    release = RELEASES.get(name) if name else release_of_file(unet_path.name)
    if release is None:
        said = f"{name!r} is no release" if name else f"the name {unet_path.name} does not tell the release"
        raise OfficialError(f"{said}; name one of {', '.join(RELEASES)} (the weights look alike, their chains differ)")
    return release


def _vq_file(unet_path: Path, vq_path: str | Path | None, release: Release) -> Path:
    if vq_path is not None:
        return Path(vq_path)
    beside = unet_path.parent / release.vq_file
    if not beside.is_file():
        raise OfficialError(
            f"{release.name} needs its autoencoder {release.vq_file}, which is not beside {unet_path}; "
            "give it with --vq"
        )
    return beside


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OfficialError from inside says which file it is about."""
    try:
        yield
    except OfficialError as error:
        raise OfficialError(f"{path}: {error}") from error


def _check_pair(denoiser: SwinUNet, codec: VQModel, release: Release) -> None:
    """OfficialError unless denoiser, autoencoder and release belong together as far as their sizes tell."""
    factor = 2 ** (len(codec.config.block_out_channels) - 1)
    takes = {True: "takes a mask", False: "takes no mask"}
    for what, found, wanted in (
        ("the autoencoder makes latents smaller by", factor, release.vq_factor),
        ("the denoiser's image is larger than its latent by", denoiser.lq_ratio, release.lq_ratio),
        ("the denoiser", takes[denoiser.takes_mask], takes[release.mask]),
    ):
        if found != wanted:
            raise OfficialError(f"{what} {found}, but in {release.name} it is {wanted}; are these its files?")
    channels = codec.config.vq_embed_dim
    if {denoiser.config.in_channels, denoiser.config.out_channels} != {channels}:
        raise OfficialError(
            f"the denoiser works on {denoiser.config.in_channels} channels and predicts "
            f"{denoiser.config.out_channels}, but the autoencoder's latent has {channels}; are these its files?"
        )


def _scheduler(release: Release) -> ResShiftScheduler:
    return ResShiftScheduler(
        num_train_timesteps=release.steps,
        kappa=release.kappa,
        power=release.power,
        min_noise=release.min_noise,
        end=release.end,
        prediction_type="x0",
        input_scaling="latent",
        spacing=release.spacing,
        transition=release.transition,
    )


def _card(pipeline: ResShiftPipeline, size_from: str, release: Release, unet_file: str, vq_file: str) -> str:
    return CARD.format(
        name=release.name,
        notice=LICENCE_NOTICE,
        licence=LICENCE,
        resshift=RESSHIFT,
        release=release,
        unet_file=unet_file,
        unet_parameters=sum(p.numel() for p in pipeline.denoiser.parameters()),
        vq_file=vq_file,
        vq_parameters=sum(p.numel() for p in pipeline.codec.parameters()),
        image_size=pipeline.denoiser.config.image_size,
        image_size_from=size_from,
    )


def _save(pipeline: ResShiftPipeline, folder: Path, card: str) -> None:
    """Write beside the folder and rename, so that it is never there in part."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        whole = Path(beside) / folder.name
        pipeline.save_pretrained(whole)
        (whole / "README.md").write_text(card, encoding="utf-8")
        os.rename(whole, folder)

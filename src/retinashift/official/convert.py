"""Official ResShift weights to a RetinaShift checkpoint folder, and back.

Files are read without trusting them: tensors by name, and nothing else.
"""

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from retinashift import official
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.imaging.files import replace_file
from retinashift.imaging.photograph import naming
from retinashift.inference.gate import listed
from retinashift.inference.pipeline import ResShiftPipeline
from retinashift.models.swin_unet import SwinUNet
from retinashift.models.vq import VQCodec
from retinashift.official import networks
from retinashift.official.networks import OfficialError

PREFIXES = re.compile(r"(module\.|_orig_mod\.)*")
CARD = Path(__file__).with_name("card.md")


def import_official(unet_path: Path, vq_path: Path | None, release_name: str | None, folder: Path) -> Path:
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
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(f"{folder} exists already; give another folder")
    release = _release(unet_path, release_name)
    beside = unet_path.with_name(official.VQ_FILE)
    if vq_path is None and not beside.is_file():
        raise OfficialError(f"the autoencoder {beside.name} is needed and is not beside {unet_path}; give it with --vq")
    vq_path = vq_path or beside

    unet, autoencoder = read_official(unet_path), read_official(vq_path)
    with naming(unet_path, OfficialError):
        denoiser = networks.swin_unet_from_official(unet)
        seen = networks.seen_image_size(unet)
    with naming(vq_path, OfficialError):
        codec = networks.vq_from_official(autoencoder)
    _check_pair(denoiser, codec)
    scheduler = ResShiftScheduler(
        num_train_timesteps=release.steps, min_noise=release.min_noise, spacing=release.spacing,
        transition=release.transition, kappa=official.KAPPA, power=official.POWER, end=official.ETA_END,
        prediction_type="x0", input_scaling="latent",
    )  # fmt: skip
    pipeline = ResShiftPipeline(
        denoiser, scheduler, codec, scale=official.SCALE, upsampling="torch", default_steps=release.default_steps
    )
    card = CARD.read_text(encoding="utf-8").format(
        releases=official, release=release, chain=scheduler.config, image_size=denoiser.config.image_size,
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


def export_official(folder: Path, unet_path: Path, vq_path: Path) -> None:
    """Write a checkpoint's networks as official files: bare state dicts under official names, for `torch.load`.

    Raises:
        CheckpointError: no checkpoint there. FileExistsError: a file exists.
        OfficialError: networks that the official code has no class for.
    """
    pipeline = ResShiftPipeline.from_pretrained(folder)
    with naming(folder, OfficialError):
        states = {
            unet_path: networks.swin_unet_to_official(pipeline.denoiser),
            vq_path: networks.vq_to_official(pipeline.codec),
        }
    for path in states:
        if path.exists():
            raise FileExistsError(f"{path} exists already; give another name")
    for path, state in states.items():
        content = BytesIO()
        torch.save({name: tensor.contiguous() for name, tensor in state.items()}, content)
        replace_file(path, content.getvalue())


def read_official(path: Path) -> dict[str, Tensor]:
    """The tensors by their official name, on the CPU; reads a .safetensors file, or any other with `weights_only=True`.

    Raises:
        OfficialError: the file cannot be read, holds anything but tensors by name, or a value that is not finite.
        FileNotFoundError: there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file")
    contents = _load_tensors(path)
    if isinstance(contents, Mapping) and "state_dict" in contents:
        contents = contents["state_dict"]
    if not isinstance(contents, Mapping):
        raise OfficialError(f"{path} holds a {type(contents).__name__}; a dict of tensors by name is expected")
    if not contents:
        raise OfficialError(f"{path} holds no tensors")
    state: dict[str, Tensor] = {}
    for name, tensor in contents.items():
        plain = isinstance(tensor, Tensor) and tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not (plain and isinstance(name, str) and name.isprintable()):
            kind = type(tensor).__name__ if plain or not isinstance(tensor, Tensor) else "a tensor without plain values"
            raise OfficialError(f"{path} holds {kind} under {str(name)[:60]!r}; only tensors by name are expected")
        bare = PREFIXES.sub("", name, count=1)
        if bare in state:
            raise OfficialError(f"{path} holds {bare} twice, under different prefixes")
        state[bare] = tensor
    if broken := [n for n, w in state.items() if w.is_floating_point() and not w.float().isfinite().all()]:
        raise OfficialError(f"{path} holds values that are not finite: {listed(broken)}; get the file again")
    return state


def _load_tensors(path: Path) -> Any:
    """One attempt: a file that the restricted reader refuses is not tried with another one."""
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch compares no checksums
                if damaged := archive.testzip():
                    raise pickle.UnpicklingError(f"the checksum of {damaged} is wrong")
        with warnings.catch_warnings(record=True) as remarks:  # of a file that is refused, one line suffices
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise OfficialError(
            f"{path} is refused: it is damaged, or holds objects other than tensors; nothing in it was run"
        ) from error
    except Exception as error:  # a damaged file makes the two readers raise almost anything
        raise OfficialError(f"{path} cannot be read as a file of weights; it may be truncated") from error
    for remark in remarks:
        warnings.warn_explicit(remark.message, remark.category, remark.filename, remark.lineno)
    return contents


def _release(unet_path: Path, name: str | None) -> official.Release:
    known = {release.name if name else release.file: release for release in official.RELEASES.values()}
    if (release := known.get(name or unet_path.name)) is None:
        given = f"{name!r} is no release" if name else f"{unet_path.name} is not the published name of a release"
        names = f"{', '.join(official.RELEASES)} (the weights look alike, their chains differ)"
        raise OfficialError(f"{given}; name one of {names}")
    return release


def _check_pair(denoiser: SwinUNet, codec: VQCodec) -> None:
    """OfficialError unless denoiser and autoencoder have the sizes that all releases have."""
    factor = 2 ** (len(codec.config.block_out_channels) - 1)
    channels, latent = denoiser.config, codec.config.vq_embed_dim
    for what, found, expected in (
        ("the side of the image over the side of the autoencoder's latent", factor, official.SCALE),
        ("the side of the denoiser's condition over that of its state", denoiser.lq_ratio, 1),
        ("the number of channels that the denoiser takes", channels.in_channels, latent),
        ("the number of channels that it predicts", channels.out_channels, latent),
    ):
        if found != expected:
            raise OfficialError(f"{what} is {found}, and must be {expected}; are these the files of one release?")

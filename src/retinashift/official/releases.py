"""The published checkpoints of ResShift and SinSR: which chain and which autoencoder each of them belongs to.

The weights do not say so themselves: realsr v1 and v3 have the same tensors and different chains.

Source: release v2.0 of https://github.com/zsyOAOA/ResShift and its configurations; SinSR: Wang et al., CVPR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ReleaseName = Literal[
    "realsr_v1", "realsr_v2", "realsr_v3", "bicsr", "inpaint_imagenet", "inpaint_face", "faceir", "deblur", "sinsr"
]

RESSHIFT = "https://github.com/zsyOAOA/ResShift"
SINSR = "https://github.com/wyf0912/SinSR"

LICENCE = "S-Lab License 1.0"
LICENCE_NOTICE = (
    f"The official ResShift weights, and whatever is made from them, are under the {LICENCE}: non-commercial use only, "
    f"and its text goes along with every copy. Read it at {RESSHIFT}/blob/master/LICENSE. "
    "The licence of RetinaShift does not cover them."
)


@dataclass(frozen=True)
class Release:
    """One published denoiser and what it was trained with.

    `files`: the names it is known under, the published one first. `scale`: of the image, 1 where it stays as large.
    `vq_file`, `vq_factor`: the autoencoder and by how much its latent is smaller. `mask`: takes a mask (inpainting).
    `steps`, `min_noise`, `kappa`, `power`, `end`: of the chain. `image_size`: side of the latent in training.
    `spacing`, `transition`, `default_steps`: how it is sampled. `tuned_decoder`: its file brings decoder weights.
    """

    name: ReleaseName
    files: tuple[str, ...]
    scale: int
    steps: int = 4
    min_noise: float = 0.2
    vq_file: str = "autoencoder_vq_f4.pth"
    vq_factor: int = 4
    mask: bool = False
    kappa: float = 2.0
    power: float = 0.3
    end: float = 0.99
    image_size: int = 64
    spacing: Literal["trailing", "leading"] = "leading"
    transition: Literal["ancestral", "deterministic"] = "ancestral"
    default_steps: int = 4
    tuned_decoder: bool = False
    source: str = RESSHIFT

    @property
    def lq_ratio(self) -> int:
        """How many times larger than the latent the low-quality image is that the network sees."""
        return self.vq_factor // self.scale


RELEASES: dict[str, Release] = {
    release.name: release
    for release in (
        Release("realsr_v1", ("resshift_realsrx4_s15_v1.pth",), 4, steps=15, min_noise=0.04, default_steps=15),
        Release("realsr_v2", ("resshift_realsrx4_s15_v2.pth",), 4, steps=15, min_noise=0.04, default_steps=15),
        Release("realsr_v3", ("resshift_realsrx4_s4_v3.pth",), 4),
        Release("bicsr", ("resshift_bicsrx4_s4.pth",), 4),
        Release(
            "inpaint_imagenet",
            ("resshift_inpainting_imagenet_s4.pth", "resshift_inpaint_imagenet_s4.pth"),
            scale=1,
            mask=True,
        ),
        Release(
            "inpaint_face",
            ("resshift_inpainting_face_s4.pth", "resshift_inpaint_face_s4.pth"),
            scale=1,
            mask=True,
            vq_file="celeba256_vq_f4_dim3_face.pth",
        ),
        Release("faceir", ("resshift_faceir_s4.pth",), 1, vq_file="ffhq512_vq_f8_dim8_face.pth", vq_factor=8),
        Release("deblur", ("resshift_deblur_s4.pth",), 1, tuned_decoder=True),
        # the student was distilled for one step, from the last one: official respacing would start at the first
        Release(
            "sinsr",
            ("SinSR_v1.pth",),
            scale=4,
            steps=15,
            min_noise=0.04,
            spacing="trailing",
            transition="deterministic",
            default_steps=1,
            source=SINSR,
        ),
    )
}


def release_of_file(name: str) -> Release | None:
    """The release that is published under this file name, or None."""
    return next((release for release in RELEASES.values() if name in release.files), None)

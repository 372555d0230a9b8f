"""Official ResShift and SinSR weights: the published checkpoints, and the chain that each was trained with.

The weights do not state their chain: realsr v1 and v3 have the same tensors and different chains.

Source: release v2.0 of https://github.com/zsyOAOA/ResShift and its configurations; SinSR: Wang et al., CVPR 2024.
"""

from dataclasses import dataclass
from typing import Literal

ReleaseName = Literal["realsr_v1", "realsr_v2", "realsr_v3", "bicsr", "sinsr"]

RESSHIFT = "https://github.com/zsyOAOA/ResShift"
SINSR = "https://github.com/wyf0912/SinSR"
LICENCE = "S-Lab License 1.0"
LICENCE_NOTICE = (
    f"The official ResShift weights, and whatever is made from them, are under the {LICENCE}: non-commercial use only, "
    f"and every copy must carry its text. Read it at {RESSHIFT}/blob/master/LICENSE. "
    "The licence of RetinaShift does not cover them."
)

# What all of them share: they enlarge four times, on the latent of one autoencoder, 64x64 in training.
SCALE = 4
VQ_FILE = "autoencoder_vq_f4.pth"
KAPPA, POWER, ETA_END = 2.0, 0.3, 0.99


@dataclass(frozen=True)
class Release:
    """One published denoiser: its file name, its chain (`steps`, `min_noise`), and how it is sampled by default."""

    name: ReleaseName
    file: str
    steps: int = 4
    min_noise: float = 0.2
    spacing: Literal["trailing", "leading"] = "leading"
    transition: Literal["ancestral", "deterministic"] = "ancestral"
    default_steps: int = 4
    source: str = RESSHIFT


RELEASES: dict[str, Release] = {
    release.name: release
    for release in (
        Release("realsr_v1", "resshift_realsrx4_s15_v1.pth", steps=15, min_noise=0.04, default_steps=15),
        Release("realsr_v2", "resshift_realsrx4_s15_v2.pth", steps=15, min_noise=0.04, default_steps=15),
        Release("realsr_v3", "resshift_realsrx4_s4_v3.pth"),
        Release("bicsr", "resshift_bicsrx4_s4.pth"),
        # distilled for one step, from the last one: "leading" would start at the first
        Release("sinsr", "SinSR_v1.pth", 15, 0.04, "trailing", "deterministic", default_steps=1, source=SINSR),
    )
}

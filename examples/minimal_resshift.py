"""ResShift in one file: super-resolution of photographs by residual-shifting diffusion.

Needs torch, numpy and Pillow, nothing else; `retinashift` itself is not imported.

    python minimal_resshift.py train FOLDER -o resshift.pt             # learn from the photographs in FOLDER
    python minimal_resshift.py upscale small.png -o large.png -w resshift.pt

A usual diffusion model starts at pure noise. ResShift starts at the low-resolution photograph and shifts the residual
to the high-resolution one in a few steps, so four network calls draw a sample and one gives the posterior mean.

Symbols, as in the paper; its steps 1..T are counted t = 0..T-1 here:
    x0     the high-resolution photograph            y0     the low-resolution one, interpolated to the same size
    e0     the residual y0 - x0                      x_t    the state: x0 with a share of the residual and noise
    eta_t  the share of the residual at step t       alpha_t = eta_t - eta_{t-1}, with eta_{-1} = 0
    kappa  the strength of the noise                 n      standard normal noise

Pixels are in [-1, 1]. States are kept space-to-depth: SCALE x SCALE pixels become channels, so everything runs on the
grid of the low-resolution photograph, nothing is lost, and no autoencoder is needed.

Source: Yue, Wang and Loy, "ResShift: Efficient Diffusion Model for Image Super-resolution by Residual Shifting",
NeurIPS 2023, arXiv 2307.12348. Equation numbers are the paper's.
"""

import argparse
import copy
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

SCALE = 4
T = 4
KAPPA = 0.06  # 7.6 of 255 grey levels at the last step; the paper's latents have unit variance, and kappa = 2
GAIN = 16.0  # residuals are about 1/16, so the network sees and returns them 16 times as large
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".ppm", ".webp"}


# --- the diffusion ---


def schedule(steps: int = T, kappa: float = KAPPA, p: float = 0.3, start: float = 0.2, end: float = 0.99) -> Tensor:
    """eta_t for t = 0..T-1, float64 (T,): sqrt(eta_t) rises geometrically in a time warped by p."""
    first = min(start / kappa, start)
    beta = torch.linspace(0, 1, steps, dtype=torch.float64) ** p * (steps - 1)  # (10)
    b0 = (end / first) ** (1 / (steps - 1))
    return (first * b0**beta) ** 2  # (9)


def q_sample(x0: Tensor, y0: Tensor, eta_t: Tensor | float, noise: Tensor) -> Tensor:
    """x_t ~ q(x_t | x0, y0): the residual is shifted by eta_t, and noise is added."""
    return x0 + eta_t * (y0 - x0) + KAPPA * eta_t**0.5 * noise  # (2)


def posterior(x_t: Tensor, x0: Tensor, eta_t: float, eta_prev: float) -> tuple[Tensor, float]:
    """Mean and variance of q(x_{t-1} | x_t, x0, y0). At t = 0, where eta_prev is 0, they are x0 and 0."""
    alpha_t = eta_t - eta_prev
    mean = eta_prev / eta_t * x_t + alpha_t / eta_t * x0  # (6)
    variance = KAPPA**2 * eta_prev / eta_t * alpha_t  # (6)
    return mean, variance


@torch.inference_mode()
def sample(net: nn.Module, lr: Tensor, calls: int = T, generator: torch.Generator | None = None) -> Tensor:
    """Draw x0 given the low-resolution photograph; with `calls` = 1, return the posterior mean.

    Args:
        net: predicts the residual e0 from (x_t, t, lr).
        lr: (B, 3, h, w).
        calls: network calls, 1..T. Fewer than T skip steps; the last step, where sampling starts, is always kept.

    Returns:
        (B, 3, SCALE*h, SCALE*w).
    """
    eta = schedule().tolist()
    kept = [T * (i + 1) // calls - 1 for i in range(calls)]  # ascending, ends at T - 1
    y0 = to_depth(interpolate(lr))
    x_t = y0 + KAPPA * eta[-1] ** 0.5 * torch.randn(y0.shape, generator=generator)  # (3)
    for i in reversed(range(calls)):
        t, eta_prev = kept[i], eta[kept[i - 1]] if i else 0.0
        x0 = y0 - net(x_t, torch.tensor([t]), lr)
        mean, variance = posterior(x_t, x0, eta[t], eta_prev)
        x_t = mean + variance**0.5 * torch.randn(y0.shape, generator=generator)  # (7)
    return F.pixel_shuffle(x_t, SCALE)  # at t = 0 the mean is x0 and the variance 0


def loss(net: nn.Module, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Squared error of the predicted residual at random steps: (8) with equal weights. hr (B, 3, H, W) -> scalar."""
    eta = schedule().float()
    t = torch.randint(T, (len(hr),), generator=generator)  # (B,)
    x0, y0 = to_depth(hr), to_depth(interpolate(lr))  # (B, 48, h, w)
    x_t = q_sample(x0, y0, eta[t].view(-1, 1, 1, 1), torch.randn(x0.shape, generator=generator))
    return (GAIN * (net(x_t, t, lr) - (y0 - x0))).square().mean()


# --- the network ---


class Block(nn.Module):
    """x + conv(gelu(scale_t * conv(x) + shift_t)), where the scale and the shift depend on the step."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Embedding(T, 2 * width)
        nn.init.zeros_(self.time.weight)
        with torch.no_grad():
            self.conv2.weight.mul_(0.1)  # a deep stack without normalisation starts near the identity

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        scale, shift = self.time(t)[:, :, None, None].chunk(2, dim=1)  # (B, width, 1, 1)
        return x + self.conv2(F.gelu(self.conv1(x) * (1 + scale) + shift))


class Net(nn.Module):
    """Predicts the residual e0 on the low-resolution grid. Untrained, it predicts 0: bicubic interpolation.

    No normalisation layer: the residual is a few grey levels beside a signal of 255, and normalising over the picture
    would wipe that scale out.
    """

    def __init__(self, width: int = 64, depth: int = 8):
        super().__init__()
        self.read = nn.Conv2d(3 + 3 * SCALE**2, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.write = nn.Conv2d(width, 3 * SCALE**2, 3, padding=1)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, x_t: Tensor, t: Tensor, lr: Tensor) -> Tensor:
        y0 = to_depth(interpolate(lr))  # (B, 48, h, w)
        h = skip = self.read(torch.cat([lr, GAIN * (x_t - y0)], dim=1))  # (B, width, h, w)
        for block in self.blocks:
            h = block(h, t)
        return self.write(h + skip) / GAIN  # (B, 48, h, w)


# --- pictures ---


def interpolate(lr: Tensor) -> Tensor:
    """Bicubic interpolation with the kernel a = -0.5, as Pillow has it: (B, 3, h, w) -> (B, 3, SCALE*h, SCALE*w)."""
    return F.interpolate(lr, scale_factor=SCALE, mode="bicubic", antialias=True)


def to_depth(pixels: Tensor) -> Tensor:
    """Space-to-depth, lossless: (B, 3, H, W) -> (B, 3 * SCALE**2, H/SCALE, W/SCALE)."""
    return F.pixel_unshuffle(pixels, SCALE)


def degrade(hr: np.ndarray) -> np.ndarray:
    """The low-resolution input: Pillow's antialiased bicubic, rounded to 8 bit. uint8 (H, W, 3) -> (H/4, W/4, 3)."""
    height, width = hr.shape[:2]
    return np.array(Image.fromarray(hr).resize((width // SCALE, height // SCALE), Image.Resampling.BICUBIC))


def to_tensor(pictures: list[np.ndarray]) -> Tensor:
    """uint8 (H, W, 3) each -> (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def crops(photographs: list[np.ndarray], size: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """An endless stream of (hr, lr): random square crops, turned and mirrored, and their low-resolution versions."""
    rng = np.random.default_rng(seed)
    while True:
        hr = []
        for _ in range(batch):
            photograph = photographs[rng.integers(len(photographs))]
            top, left = (rng.integers(side - size + 1) for side in photograph.shape[:2])
            crop = np.rot90(photograph[top : top + size, left : left + size], rng.integers(4))
            hr.append(np.ascontiguousarray(crop[:, ::-1] if rng.integers(2) else crop))
        yield to_tensor(hr), to_tensor([degrade(crop) for crop in hr])  # (B, 3, S, S), (B, 3, S/4, S/4)


def read_folder(folder: Path, size: int) -> list[np.ndarray]:
    """All photographs below `folder` that hold a crop of `size` pixels, uint8 (H, W, 3) each."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    photographs = [np.array(Image.open(path).convert("RGB")) for path in paths]
    usable = [photograph for photograph in photographs if min(photograph.shape[:2]) >= size]
    if not usable:
        raise SystemExit(f"{folder} holds no photograph of at least {size}x{size} pixels; name another folder")
    return usable


# --- train, upscale ---


def train(photographs: list[np.ndarray], steps: int, batch: int = 8, size: int = 128, rate: float = 1e-3,
          seed: int = 0, net: Net | None = None) -> Net:  # fmt: skip
    """Train a network and return the average of its weights, which predicts better than the last ones do."""
    torch.manual_seed(seed)
    net = net or Net()
    average = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step, (hr, lr) in zip(range(1, steps + 1), crops(photographs, size, batch, seed), strict=False):
        error = loss(net, hr, lr)
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        cosine.step()
        decay = min(0.999, step / (step + 9))  # a short memory at first, so that the start is soon forgotten
        for kept, new in zip(average.parameters(), net.parameters(), strict=True):
            kept.data.lerp_(new.data, 1 - decay)
        if step % math.ceil(steps / 20) == 0:
            print(f"step {step}/{steps}  loss {error.item():.4f}", flush=True)
    return average.eval()


def upscale(net: Net, picture: np.ndarray, calls: int = 1, seed: int = 0) -> np.ndarray:
    """uint8 (h, w, 3) -> uint8 (SCALE*h, SCALE*w, 3)."""
    x0 = sample(net, to_tensor([picture]), calls, torch.Generator().manual_seed(seed))
    return ((x0[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description="ResShift in one file. For research, not for diagnosis.")
    commands = parser.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("train", help="train on the photographs of a folder")
    learn.add_argument("folder", type=Path)
    learn.add_argument("-o", "--out", type=Path, default=Path("resshift.pt"), help="file for the weights")
    learn.add_argument("--steps", type=int, default=2000)
    learn.add_argument("--size", type=int, default=128, help="side of a crop in pixels, a multiple of 4")
    use = commands.add_parser("upscale", help="upscale a picture four times")
    use.add_argument("picture", type=Path)
    use.add_argument("-o", "--out", type=Path, required=True)
    use.add_argument("-w", "--weights", type=Path, default=Path("resshift.pt"))
    use.add_argument("--calls", type=int, choices=range(1, T + 1), default=1, help="1: posterior mean; 4: a sample")
    use.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.command == "train":
        if args.size < SCALE or args.size % SCALE:
            parser.error(f"--size is {args.size}; it must be a multiple of {SCALE}")
        torch.save(train(read_folder(args.folder, args.size), args.steps, size=args.size).state_dict(), args.out)
    else:
        net = Net()
        net.load_state_dict(torch.load(args.weights, weights_only=True))  # tensors only: a file runs no code
        picture = np.array(Image.open(args.picture).convert("RGB"))
        Image.fromarray(upscale(net.eval(), picture, args.calls, args.seed)).save(args.out)


if __name__ == "__main__":
    main()

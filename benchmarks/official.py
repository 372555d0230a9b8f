"""Seconds and memory of the published network at full size, stage by stage, from file to file.

The weights are random: 118.6 million parameters of the denoiser of realsr v3 and 55.3 million of its autoencoder, made
once in a folder (0.7 GB). Each size runs in a process of its own; times are CPU seconds, and a plain convolution is
timed beside them, so that machines can be compared.

    python benchmarks/official.py [--sizes 64 128 256] [--threads 1] [--precision fp32|bf16] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image

CONVOLUTION = 320, 64  # channels and side of the yardstick
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256], help="sides of the square inputs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    parser.add_argument("--folder", type=Path, help="where the random checkpoint is, or is to be made")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(measure(options.folder, options.one, DTYPES[options.precision])))
        return
    folder = options.folder or Path(tempfile.gettempdir()) / "retinashift-random-realsr-v3"
    if not folder.exists():
        subprocess.run([sys.executable, "-c", f"from official import make; make({str(folder)!r})"],
                       cwd=Path(__file__).parent, check=True)  # fmt: skip
    for size in options.sizes:
        command = [sys.executable, __file__, "--one", str(size), "--folder", str(folder)]
        command += ["--threads", str(options.threads), "--precision", options.precision]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        show(json.loads(done.stdout.splitlines()[-1]), options)


def make(folder: str) -> None:
    """A checkpoint of the released sizes with random weights, scaled so that activations stay of order 1."""
    from retinashift.diffusion.scheduler import ResShiftScheduler
    from retinashift.inference.pipeline import ResShiftPipeline
    from retinashift.models.swin_unet import SwinUNet
    from retinashift.models.vq import VQCodec

    torch.manual_seed(0)
    denoiser, codec = SwinUNet(attention_mask="official"), VQCodec()
    for network in (denoiser, codec):
        for parameter in network.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    scheduler = ResShiftScheduler(4, spacing="leading")
    pipeline = ResShiftPipeline(denoiser, scheduler, codec, upsampling="torch", default_steps=4)
    pipeline.save_pretrained(folder)


def measure(folder: Path, size: int, dtype: torch.dtype) -> dict[str, Any]:
    """One picture of size x size from a PNG file to a PNG file four times as large."""
    speed = convolution_gflops()
    picture = Path(tempfile.mkdtemp()) / "lr.png"
    retina = Image.fromarray(skimage.data.retina()).resize((size, size), Image.Resampling.LANCZOS)
    retina.save(picture)
    started, stages = time.process_time(), Stages()

    from retinashift.inference.pipeline import ResShiftPipeline

    imported = stages.take("import")
    pipeline = ResShiftPipeline.from_pretrained(folder, **({} if dtype == torch.float32 else {"torch_dtype": dtype}))
    loaded = stages.take("load")
    pipeline._encode = stages.around("encode", pipeline._encode)
    pipeline.denoiser.forward = stages.around("step", pipeline.denoiser.forward)
    pipeline._decode = stages.around("decode", pipeline._decode)
    sr = pipeline(np.asarray(Image.open(picture)), generator=torch.Generator().manual_seed(0)).images[0]
    Image.fromarray(sr).save(picture.with_name("sr.png"))
    stages.take("write")
    del imported, loaded
    return {
        "size": size,
        "rows": stages.rows,
        "cpu_seconds": time.process_time() - started,
        "upscale_seconds": sum(r["cpu_seconds"] for r in stages.rows if r["stage"] in ("encode", "step", "decode", "write")),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "convolution_gflops": speed,
    }


class Stages:
    """CPU seconds and peak of resident memory of each stage, in the order of their end."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._start()

    def _start(self) -> None:
        self._since = time.process_time()
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is held now
        except OSError:
            pass

    def take(self, stage: str) -> float:
        seconds = time.process_time() - self._since
        self.rows.append({"stage": stage, "cpu_seconds": seconds, "peak_gib": self._peak()})
        self._start()
        return seconds

    def _peak(self) -> float:
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20
        except OSError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def around(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            self.take("between")
            result = work(*args, **options)
            self.take(stage)
            return result

        return timed


def convolution_gflops(repeats: int = 10) -> float:
    """Speed of a plain 3x3 convolution, the yardstick: 10^9 operations a CPU second."""
    channels, side = CONVOLUTION
    x, weight = torch.randn(1, channels, side, side), torch.randn(channels, channels, 3, 3)
    with torch.inference_mode():
        torch.nn.functional.conv2d(x, weight, padding=1)
        started = time.process_time()
        for _ in range(repeats):
            torch.nn.functional.conv2d(x, weight, padding=1)
    return 2 * 9 * channels**2 * side**2 * repeats / (time.process_time() - started) / 1e9


def show(figures: dict[str, Any], options: argparse.Namespace) -> None:
    size, threads = figures["size"], options.threads
    print(f"{size}x{size} -> {4 * size}x{4 * size}, {options.precision}, {threads} thread(s), torch {torch.__version__}")
    for stage in ("import", "load", "encode", "step", "decode", "write"):
        rows = [row for row in figures["rows"] if row["stage"] == stage]
        seconds = [row["cpu_seconds"] for row in rows]
        times = f" ({len(rows)} of {', '.join(f'{s:.2f}' for s in seconds)})" if len(rows) > 1 else ""
        print(f"  {stage:7} {sum(seconds):8.2f} CPU s  peak {max(row['peak_gib'] for row in rows):.2f} GiB{times}")
    print(
        f"  whole   {figures['cpu_seconds']:8.2f} CPU s  peak {figures['peak_gib']:.2f} GiB; "
        f"loaded once, a picture takes {figures['upscale_seconds']:.2f} CPU s; "
        f"a plain convolution beside it: {figures['convolution_gflops']:.0f} GFLOP/s"
    )


if __name__ == "__main__":
    main()

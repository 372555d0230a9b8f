"""Seconds and memory on a GPU: the shipped checkpoint and the published architecture, precision by precision.

The published network (118.6 million parameters, and the autoencoder) has random weights, made in a folder once. Every
time is the median of runs that wait for the device, from a picture in memory to a picture in memory.

    python benchmarks/gpu.py [--photograph FILE] [--folder FOLDER] [--parts shipped official large network] [--runs 10]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import official
import skimage.data
import torch
from PIL import Image

from retinashift.inference.pipeline import ResShiftPipeline

PRECISIONS = "fp32", "bf16", "fp16"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photograph", type=Path, help="default: the retina of scikit-image")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "retinashift-random-realsr-v3")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{name}, torch {torch.__version__}")
    whole = Image.open(options.photograph) if options.photograph else Image.fromarray(skimage.data.retina())
    for part in options.parts:
        PARTS[part](whole.convert("RGB"), options)


def reduced(whole: Image.Image, side: int) -> np.ndarray:
    return np.asarray(whole.resize((side, side), Image.Resampling.LANCZOS))


def shipped(whole: Image.Image, options: argparse.Namespace) -> None:
    """64x64 -> 256x256 by the shipped checkpoint, and what half precision changes."""
    pipe = on_device(ResShiftPipeline.from_shipped())
    picture = reduced(whole, 64)
    for mode in ("faithful", "realistic"):
        for precision in PRECISIONS:
            time_one(f"x4 {mode}", pipe, picture, options.runs, mode=mode, precision=precision)
    lr = reduced(whole, 192)
    for mode in ("faithful", "realistic"):
        exact = pipe(lr, mode=mode).images[0].astype(int)
        for precision in PRECISIONS[1:]:
            difference = np.abs(pipe(lr, mode=mode, precision=precision).images[0] - exact)
            print(f"  {mode}, {precision}: at most {difference.max()} levels, mean {difference.mean():.4f}")


def network(whole: Image.Image, options: argparse.Namespace) -> None:
    """16 pictures of 64x64 in one call of the shipped network, plain and compiled."""
    net = on_device(ResShiftPipeline.from_shipped()).denoiser
    lq = torch.from_numpy(reduced(whole, 64)).permute(2, 0, 1)[None].expand(16, 3, 64, 64).to(net.device) / 127.5 - 1
    state = torch.zeros(16, 48, 64, 64, device=net.device)
    operations = 2 * sum(p.numel() for p in net.parameters() if p.dim() == 4) * 64 * 64 * 16
    for compiled in (False, True):
        call = torch.compile(net, dynamic=False) if compiled else net
        for precision in PRECISIONS[:2]:

            def work(call: Callable = call, precision: str = precision) -> None:
                with torch.no_grad(), torch.autocast(net.device.type, torch.bfloat16, enabled=precision == "bf16"):
                    call(state, 3, lq=lq)

            seconds, gib = timed(work, 5 * options.runs)
            print(
                f"  16 x 64x64, one call, {precision}{', compiled' if compiled else ''}: {1e3 * seconds:.2f} ms, "
                f"{16 / seconds:.0f} images/s, {operations / seconds / 1e12:.0f} TFLOP/s, {gib:.2f} GiB"
            )


def published(whole: Image.Image, options: argparse.Namespace) -> None:
    """64x64 -> 256x256 by the published architecture, in 4 and 15 steps."""
    from retinashift.diffusion.scheduler import ResShiftScheduler

    if not options.folder.exists():
        official.make(str(options.folder))
    pipe = on_device(ResShiftPipeline.from_pretrained(options.folder))
    picture = reduced(whole, 64)
    for steps in (4, 15):
        pipe.register_modules(scheduler=ResShiftScheduler(steps))
        for precision in PRECISIONS:
            time_one(f"realsr v3, {steps} steps", pipe, picture, options.runs, num_inference_steps=steps,
                     precision=precision)  # fmt: skip


def large(whole: Image.Image, options: argparse.Namespace) -> None:
    """1000x1000 -> 4000x4000 by the shipped checkpoint."""
    pipe, picture = on_device(ResShiftPipeline.from_shipped()), reduced(whole, 1000)
    for precision in PRECISIONS[:2]:
        for memory in (None, 2**30):
            label = f"x4 faithful, {'free memory' if memory is None else '1 GiB'}"
            time_one(label, pipe, picture, max(2, options.runs // 4), mode="faithful", precision=precision,
                     memory=memory)  # fmt: skip


PARTS = {"shipped": shipped, "network": network, "large": large, "official": published}


def on_device(pipe: ResShiftPipeline) -> ResShiftPipeline:
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def time_one(label: str, pipe: ResShiftPipeline, picture: np.ndarray, runs: int, **settings: object) -> None:
    def work() -> None:
        pipe(picture, generator=torch.Generator().manual_seed(0), **settings)

    seconds, gib = timed(work, runs)
    side = len(picture)
    print(f"  {label}, {side}x{side} -> {4 * side}x{4 * side}, {settings['precision']}: {1e3 * seconds:.1f} ms, "
          f"{gib:.2f} GiB")  # fmt: skip


def timed(work: Callable[[], None], runs: int) -> tuple[float, float]:
    """Median seconds of `runs` after one to warm up, and the peak of GPU memory in GiB (0 without a GPU)."""
    gpu = torch.cuda.is_available()
    work()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        if gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times), torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0


if __name__ == "__main__":
    main()

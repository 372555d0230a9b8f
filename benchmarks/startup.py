"""Start-up: seconds until the command line answers, and CPU seconds of a small photograph against `import torch`.

python benchmarks/startup.py [--runs N] [--photograph FILE]

Each is the median of fresh processes. The photograph is reduced by 4 first, as the protocol does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

COMMANDS = {
    "overview": ["--help"],
    "help of a command": ["evaluate", "--help"],
    "error": ["upscale", "missing.png", "-o", "out"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--photograph", type=Path, help="such as DRIVE's 01_test.tif")
    options = parser.parse_args()
    for name, arguments in COMMANDS.items():
        runs = [seconds(["-m", "retinashift", *arguments])[0] for _ in range(options.runs)]
        print(f"{name:18} {statistics.median(runs):.2f} s")
    if options.photograph is None:
        return
    with tempfile.TemporaryDirectory() as folder, Image.open(options.photograph) as hr:
        small = Path(folder) / "small.png"
        hr.resize((hr.width // 4, hr.height // 4), Image.Resampling.BICUBIC).save(small)
        upscale = ["-m", "retinashift", "upscale", str(small), "-o", folder + "/out.png", "--overwrite"]
        pairs = [(seconds(upscale)[1], seconds(["-c", "import torch"])[1]) for _ in range(options.runs)]
    ours, torch = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"one photograph     {ours:.2f} CPU s, {ours / torch:.2f} times import torch ({torch:.2f} CPU s)")


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Seconds of one process, by the clock and of CPU."""
    started, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu


if __name__ == "__main__":
    main()

"""Seconds until the command line answers, each the median of fresh processes.

python benchmarks/startup.py [--runs N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "overview": ["--help"],
    "help of a command": ["evaluate", "--help"],
    "error": ["upscale", "missing.png", "-o", "out"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    for name, arguments in COMMANDS.items():
        print(f"{name:18} {statistics.median(seconds(arguments) for _ in range(options.runs)):.2f} s")


def seconds(arguments: list[str]) -> float:
    """Wall-clock seconds of one process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "retinashift", *arguments], capture_output=True, check=False)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

"""Kills `upscale` and `train` at random moments, runs the same command again, and compares every byte.

    python benchmarks/kills.py [--upscale 40] [--train 20] [--seed 0]

Each run is a fork of one process that has loaded everything, so that the moments fall into the work. After a kill,
every file under its own name must be whole; after the second run, the folder must equal an undisturbed one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upscale", type=int, default=40, help="kills of upscale")
    parser.add_argument("--train", type=int, default=20, help="kills of train")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, broken = Path(name), 0
        photographs = make_photographs(folder / "photographs")
        for what, count, work, facts in (
            ("upscale", options.upscale, lambda out: upscale(photographs, out), results_of),
            ("train", options.train, lambda out: train(photographs, out), state_of),
        ):
            faults = kill_and_compare(folder / what, count, work, facts, random.Random(options.seed))
            print(f"{what}: {count} kills, {len(faults)} faults", *faults, sep="\n  ", flush=True)
            broken += len(faults)
    return int(broken > 0)


def kill_and_compare(
    folder: Path, count: int, work: Callable[[Path], None], facts: Callable[[Path], dict[str, str]], rng: random.Random
) -> list[str]:
    """What went wrong, a line each."""
    out, begun = folder / "out", time.monotonic()  # one name for all, because records hold it
    wait(start(lambda: work(out)))
    lasted, expected, faults, early = time.monotonic() - begun, facts(out), [], 0
    for number in range(count):
        shutil.rmtree(out, ignore_errors=True)
        child = start(lambda: work(out))
        time.sleep(rng.uniform(0, lasted))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        wait(child)
        left = facts(out)
        early += left != expected
        if facts is results_of:
            faults += [f"{number}: {name} is not whole" for name in left if left[name] != expected.get(name)]
        if code := wait(start(lambda: work(out))):
            faults.append(f"{number}: the second run ends with {code}")
        elif facts(out) != expected:
            differing = [n for n in expected if facts(out).get(n) != expected[n]]
            faults.append(f"{number}: after the second run these differ: {differing}")
    print(f"{folder.name}: {early} of {count} kills came before the end of a run of {lasted:.1f} s")
    return faults


def start(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    code = 3
    try:
        work()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os._exit(code)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def make_photographs(folder: Path) -> Path:
    import skimage.data
    from PIL import Image

    folder.mkdir()
    retina = Image.fromarray(skimage.data.retina())
    for number in range(4):
        side = 700 + 100 * number
        retina.crop((300, 300, 300 + side, 300 + side)).resize((48, 48)).save(folder / f"{number}.png")
    return folder


def upscale(photographs: Path, out: Path) -> None:
    from retinashift import cli

    common = ["--figure", "--sidecar", "--memory", "8G", "--resume"]
    sys.argv = ["retinashift", "upscale", str(photographs), "-o", str(out), *common]
    cli.main()


def train(photographs: Path, out: Path) -> None:
    from retinashift.training.run import train as run
    from retinashift.training.settings import TrainConfig

    held_out = photographs.parent / "held_out"
    if not held_out.exists():
        held_out.mkdir()
        rng = np.random.default_rng(0)
        from PIL import Image

        Image.fromarray(rng.integers(0, 200, (48, 48, 3), np.uint8)).save(held_out / "0.png")
    settings = {
        "data": {"path": str(photographs)},
        "validation": {"path": str(held_out)},
        "crop": {"size": 32},
        "model": {"kind": "light", "options": {"width": 8, "depth": 1, "time_width": 16}},
        "optim": {"batch_size": 2},
        "run": {"steps": 24, "out": str(out), "save_every": 2, "validate_every": 4, "log_every": 1},
    }
    path = photographs.parent / f"{out.name}.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    run(TrainConfig.load(path))


def bytes_of(folder: Path) -> dict[str, str]:
    """Hash of every file that stands under its own name."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".tmp")]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def results_of(folder: Path) -> dict[str, str]:
    """Hash of every file; a sidecar states when it was written, which is left out."""
    found = bytes_of(folder)
    for name in (name for name in found if name.endswith(".json")):
        found[name] = json.dumps(json.loads((folder / name).read_text()) | {"written": ""})
    return found


def state_of(folder: Path) -> dict[str, str]:
    """Hash of everything but times: weights, optimizer, position, and the log without its seconds and rates."""
    timed = ("seconds", "seconds_left", "images_per_second")
    found = {}
    for name, value in bytes_of(folder).items():
        path = folder / name
        if name.startswith("tensorboard/") or name == "config.yaml" or "/." in f"/{name}":
            continue
        if name == "log.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
            value = json.dumps([{k: v for k, v in line.items() if k not in timed} for line in lines])
        elif name.endswith("meta.json"):
            value = json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in timed})
        found[name] = value
    return found


if __name__ == "__main__":
    import torch

    import retinashift.batch.upscale
    import retinashift.cli
    import retinashift.inference.pipeline
    import retinashift.training.run  # noqa: F401

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    sys.exit(main())

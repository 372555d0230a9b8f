"""The page as a folder that any web server can serve: the browser itself computes, and no photograph leaves it.

python web/build_site.py build/web
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from base64 import b64encode
from importlib.resources import files
from pathlib import Path
from typing import Any

import onnx
from onnx.utils import Extractor

from retinashift.batch.upscale import MEANING
from retinashift.inference.onnx_graph import FACTORS, faithful_graph
from retinashift.inference.pipeline import open_checkpoint
from retinashift.inference.record import checkpoint_hash

RUNTIME = "1.30.0"
"""Version of onnxruntime-web, MIT licence."""
RUNTIME_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME_FILES = (
    "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm",  # the processor
    "ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm",  # the graphics processor
)  # fmt: skip
CHECKPOINTS = {
    "x4": "The estimate with the least squared error. On DRIVE 39.95 dB, bicubic 37.37.",
    "x4_small": "A network of a fifth of the size, for slow processors. On DRIVE 39.41 dB, bicubic 37.37.",
}
MAX_PIXELS = 750_000
"""Width times height of an input: 12 megapixels of result, about what a tab can hold."""


def build_site(folder: Path, runtime: Path | None = None) -> Path:
    """Write the page with its engine, models and sample.

    Args:
        folder: must not exist.
        runtime: the onnxruntime-web package as npm packs it; None fetches it with npm.

    Raises:
        FileExistsError, ValueError: the folder is there, npm is not, or the package has another checksum.
    """
    page = Path(str(files("retinashift.web"))) / "page"
    shutil.copytree(page, folder, ignore=shutil.ignore_patterns("docs", "engine_server.js"))
    index = folder / "index.html"
    index.write_text(
        index.read_text(encoding="utf-8").replace('data-engine="server"', 'data-engine="browser"'), encoding="utf-8"
    )
    _unpack_runtime(folder / "ort", runtime)
    (folder / "models").mkdir()
    written = [_write_model(folder / "models", name, note) for name, note in CHECKPOINTS.items()]
    meaning = f"standard deviation, {MEANING}"
    described = {"onnxruntime": RUNTIME, "max_pixels": MAX_PIXELS, "meaning": meaning, "checkpoints": written}
    (folder / "models" / "index.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    return folder


def _write_model(folder: Path, name: str, note: str) -> dict[str, Any]:
    """The faithful mode as a graph that computes tiles, and one of the factors that all pixels decide, if any."""
    pipeline = open_checkpoint(name)
    whole = Extractor(onnx.shape_inference.infer_shapes(faithful_graph(pipeline, half=True)))
    calibration = pipeline.calibration
    softness = calibration and calibration.softness
    factors = [FACTORS] if softness or "mean" in (pipeline.config.detail_curves or {}) else []
    parts = {"file": whole.extract_model(["input", *factors], ["output", "uncertainty"])}
    parts |= {"factor": whole.extract_model(["input"], factors)} if factors else {}
    files = {part: f"{name}.{part}.onnx.gz" for part in parts}
    for part, file in files.items():
        (folder / file).write_bytes(gzip.compress(parts[part].SerializeToString(), mtime=0))
    facts = {"name": name, "scale": pipeline.config.scale, "note": note, "checkpoint": checkpoint_hash(pipeline)}
    places = {part: f"models/{file}" for part, file in files.items()}
    return {**facts, **places, "precision": "fp16 weights, fp32 arithmetic"}


def _unpack_runtime(folder: Path, runtime: Path | None) -> None:
    """The files of onnxruntime-web, the large one compressed, after a look at the package's checksum."""
    with tempfile.TemporaryDirectory() as temporary:
        packed = runtime or _fetch_runtime(Path(temporary))
        found = b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if found != RUNTIME_SHA512:
            raise ValueError(f"{packed.name} has the SHA-512 {found}; {RUNTIME_SHA512} is expected")
        folder.mkdir()
        with tarfile.open(packed) as archive:
            for name in RUNTIME_FILES:
                member = archive.extractfile(f"package/dist/{name}")
                assert member is not None
                data = member.read()
                if name.endswith(".wasm"):
                    (folder / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
                else:
                    (folder / name).write_bytes(data)


def _fetch_runtime(folder: Path) -> Path:
    if shutil.which("npm") is None:
        raise ValueError("npm is needed to fetch onnxruntime-web; install Node.js")
    package = f"onnxruntime-web@{RUNTIME}"
    done = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"npm could not fetch {package}: {' '.join(done.stderr.split())[:200]}")
    return folder / done.stdout.strip()


def main() -> None:
    """Entry point of `make web`."""
    target = Path(sys.argv[1])
    try:
        build_site(target)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {size / 2**20:.1f} MiB; serve it with any web server, such as python -m http.server -d {target}")


if __name__ == "__main__":
    main()

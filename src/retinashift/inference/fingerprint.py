"""The hash of a checkpoint as it computes: weights, chain and conventions, whatever folder they came from."""

from __future__ import annotations

import hashlib
import json

import torch

from retinashift.inference.pipeline import ResShiftPipeline


def checkpoint_hash(pipeline: ResShiftPipeline) -> str:
    """SHA-256, in hexadecimal, of all that decides a result beside input and settings.

    Equal for a folder and a copy of it; another for weights converted to another precision, because results differ.
    """
    total = hashlib.sha256()
    own = ("scale", "upsampling", "check_measure", "check_threshold", "bounded")
    configs = {name: pipeline.config[name] for name in own}
    for name in ("denoiser", "scheduler", "codec"):
        component = getattr(pipeline, name)
        if component is not None:
            # names with an underscore are diffusers' own: versions, paths
            configs[name] = {k: v for k, v in component.config.items() if not k.startswith("_")}
    total.update(json.dumps(configs, sort_keys=True, default=str).encode())
    for name in ("denoiser", "codec"):
        network = getattr(pipeline, name)
        for key, tensor in sorted(network.state_dict().items()) if network is not None else ():
            total.update(f"{name}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()

"""RetinaShift: super-resolution of retinal photographs by residual-shifting diffusion. For research use.

The public names are loaded when they are first used, so `import retinashift` costs no import of torch.

>>> import retinashift
>>> retinashift.PixelCodec(factor=4)
PixelCodec(factor=4)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinashift.diffusion.scheduler import ResShiftScheduler
    from retinashift.inference.pipeline import ResShiftPipeline
    from retinashift.models.codec import PixelCodec
    from retinashift.models.light_net import LightNet
    from retinashift.models.swin_unet import SwinUNet

# diffusers imports onnxruntime wherever it is installed, and that reports its use to its maker
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["LightNet", "PixelCodec", "ResShiftPipeline", "ResShiftScheduler", "SwinUNet", "__version__"]

_HOME = {
    "LightNet": "retinashift.models.light_net",
    "PixelCodec": "retinashift.models.codec",
    "ResShiftPipeline": "retinashift.inference.pipeline",
    "ResShiftScheduler": "retinashift.diffusion.scheduler",
    "SwinUNet": "retinashift.models.swin_unet",
}


def __getattr__(name: str) -> Any:  # PEP 562
    if name not in _HOME:
        raise AttributeError(f"module 'retinashift' has no attribute {name!r}; public names are {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # the next look-up finds it at once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

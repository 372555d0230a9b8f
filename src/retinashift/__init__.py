"""RetinaShift: super-resolution of retinal photographs by residual-shifting diffusion. For research use.

The public names are loaded when they are first used, so `import retinashift` costs no import of torch.

>>> import retinashift
>>> retinashift.PixelCodec(factor=4)
PixelCodec(factor=4)
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
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
    return getattr(import_module(_HOME[name]), name)


class _DiffusersFinder(MetaPathFinder):
    """Whenever diffusers is imported, it knows our pipeline by its name."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "diffusers":
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def then_announce(module: Any) -> None:
                execute(module)
                _announce()

            spec.loader.exec_module = then_announce  # type: ignore[method-assign]
        return spec


def _announce() -> None:
    """Let `DiffusionPipeline.from_pretrained` find the class that a checkpoint folder names, loaded when asked for."""
    diffusers = sys.modules["diffusers"]

    class WithOurs(type(diffusers)):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            return __getattr__(name) if name == "ResShiftPipeline" else super().__getattr__(name)

    diffusers.__class__ = WithOurs


if "diffusers" in sys.modules:
    _announce()
else:
    sys.meta_path.insert(0, _DiffusersFinder())


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

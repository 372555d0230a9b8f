"""From a low-resolution photograph to its reconstruction, and a short start of the library that this takes.

diffusers imports what sampling never calls, wherever it is installed. Of the time until the first step, most went into
`torch._dynamo` (with sympy), transformers, peft and scipy.stats.
"""

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

_DYNAMO = "torch._dynamo"
NOT_NEEDED = ("transformers", "peft", "bitsandbytes", "onnxruntime", "scipy", "boto3")
"""Hidden from diffusers while it is imported; each can be imported again afterwards."""


class _Compiler(ModuleType):
    """Stands for `torch._dynamo` until something compiles: no module is compiled before that."""

    eval_frame = SimpleNamespace(OptimizedModule=type("OptimizedModule", (), {}))

    @staticmethod
    def allow_in_graph(function: Any) -> Any:
        return function

    @staticmethod
    def disable(function: Any = None, *_: Any, **__: Any) -> Any:
        return function if function is not None else lambda decorated: decorated

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_DYNAMO) is self:
            del sys.modules[_DYNAMO]
        return getattr(importlib.import_module(_DYNAMO), name)


def import_diffusers() -> None:
    """Import what diffusers needs to sample, or all of a version that cannot be imported like this; draw no bar."""
    import torch  # noqa: F401 - before its compiler is replaced

    if "diffusers" not in sys.modules and _DYNAMO not in sys.modules:
        hidden: dict[str, Any] = {name: None for name in NOT_NEEDED if name not in sys.modules}
        sys.modules.update(hidden | {_DYNAMO: _Compiler(_DYNAMO)})
        try:
            importlib.import_module("diffusers.pipelines.pipeline_utils")
        except Exception:
            for name in [name for name in sys.modules if name == _DYNAMO or name.partition(".")[0] == "diffusers"]:
                del sys.modules[name]
        finally:
            for name in hidden:
                sys.modules.pop(name, None)
    quiet_diffusers()


def quiet_diffusers() -> None:
    """Disable the bar that diffusers draws while it loads; the commands draw their own."""
    from diffusers.utils import logging

    logging.disable_progress_bar()

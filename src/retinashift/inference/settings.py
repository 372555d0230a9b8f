"""Settings of sampling: one frozen object for the command, the batch, the page, Python and the provenance record.

Each range and each contradiction is stated here once. This file loads no torch, so the command line can read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from retinashift.diffusion.process import Transition

Mode = Literal["faithful", "realistic"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
""""auto" is bf16 where the device has arithmetic for it, else fp32; see `memory.fast_precision`."""
OutputFormat = Literal["same", "png", "tiff", "jpeg"]
"""File type of the results; "same" keeps the type of the input."""

_LEAST = {"num_inference_steps": 1, "ensemble_size": 1, "back_projections": 0, "memory": 1, "longest_side": 1}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a result is sampled. The fields are keyword arguments of `ResShiftPipeline`: `pipeline(image, **vars(s))`.

    Raises:
        ValueError: a value outside its range, or two that contradict each other.

    >>> Sampling(ensemble_size=8).mode is None
    True
    """

    mode: Mode | None = None
    """"faithful": one step from y0, the posterior mean, a function of the photograph. "realistic": a
    sample with the checkpoint's `detail_steps` and `detail_gain`. None: plain samples in the checkpoint's default
    number of steps."""
    num_inference_steps: int | None = None
    """Network calls a sample, 1..T; None follows from the mode."""
    ensemble_size: int = 1
    """Samples whose mean is the result."""
    output_uncertainty: bool = False
    """Also return the error to expect of each pixel of the one-step result."""
    back_projections: int | None = None
    """Back-projections onto the input, see `fidelity`, of 8 bit at least (`settle`); 0 leaves the network's estimate,
    None follows from mode and checkpoint."""
    memory: int | None = None
    """Bytes that the process (on a GPU: its part of that) may hold; None is half of what is free."""
    scale: float | None = None
    """How many times larger a result is than its input, any number from 1 to the checkpoint's factor; None is that
    factor. Smaller results are reduced by antialiased bicubic; halves of a pixel are rounded up."""
    longest_side: int | None = None
    """Pixels of the longer side of a result, instead of `scale`."""
    turns: int = 1
    """8: the mean of the results of the picture turned and flipped in all eight ways, in the memory of an ensemble."""
    strength: float = 1.0
    """Of a checkpoint that restores poor photographs, such as x4_restore: 1 is its own result, 0 the faithful result of
    `x4`, which removes nothing, and what lies between blends both."""
    precision: Precision = "auto"
    """"bf16" and "fp16" compute convolutions and products in half precision (autocast), all else in float32. With the
    bundled checkpoints values move by one of 255 levels at most. "auto" is bf16 where the device has arithmetic for it
    (AVX512-BF16, AMX, Arm's BF16, CUDA), which is about twice as fast, else fp32, and always fp32 with a learned codec,
    whose choice of codes rounding changes."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if not (whole and value >= least) and (value is not None or name == "ensemble_size"):
                raise ValueError(f"{name} is {value!r}; a whole number of at least {least} is needed")
        for name, allowed in (("mode", get_args(Mode)), ("precision", get_args(Precision)), ("turns", (1, 8))):
            value = getattr(self, name)
            if (value not in allowed or isinstance(value, bool)) and (value is not None or name != "mode"):
                raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(str, allowed))}")
        if self.scale is not None:
            number = isinstance(self.scale, Real) and not isinstance(self.scale, bool)
            if not (number and 1 <= self.scale < float("inf")):
                raise ValueError(f"scale is {self.scale!r}; a number from 1 to the checkpoint's factor is needed")
            if self.longest_side is not None:
                raise ValueError("scale and longest_side are both given; each decides the size: omit one")
        if isinstance(self.strength, bool) or not (isinstance(self.strength, Real) and 0 <= self.strength <= 1):
            raise ValueError(f"strength is {self.strength!r}; a number from 0 to 1 is needed")
        if self.output_uncertainty and (self.mode == "realistic" or self.ensemble_size > 1):
            other = "mode realistic" if self.mode == "realistic" else f"ensemble {self.ensemble_size}"
            raise ValueError(f"uncertainty describes the default, faithful result, not {other}; omit one")

    def size_of(self, height: int, width: int, factor: int) -> tuple[int, int]:
        """Height and width of the result of a picture; halves are rounded up.

        Args:
            factor: of the checkpoint.

        Raises:
            ValueError: more pixels than the checkpoint gives, or fewer than the picture has.

        >>> Sampling(scale=1.5).size_of(5, 10, 4), Sampling(longest_side=64).size_of(30, 40, 4)
        ((8, 15), (48, 64))
        """
        if self.longest_side is None:
            scale, what = Fraction(str(self.scale or factor)), f"scale is {self.scale}"
        else:
            scale = Fraction(self.longest_side, max(height, width))
            what = f"longest_side is {self.longest_side} for a picture of {width}x{height}"
        if not 1 <= scale <= factor:
            raise ValueError(
                f"{what}; from 1 to {factor} times the picture is allowed with this checkpoint: for more pixels "
                "interpolate its result, which adds no detail"
            )
        tall, wide = (max(1, int(side * scale + Fraction(1, 2))) for side in (height, width))
        return tall, wide

    def plan(self, checkpoint: Mapping[str, Any], trained_steps: int) -> Plan:
        """What the settings mean for one checkpoint.

        Args:
            checkpoint: configuration of its `ResShiftPipeline`.
            trained_steps: T of its chain.

        Raises:
            ValueError: steps outside 1..T, or a use that the checkpoint does not have.
        """
        steps, realistic, gain = self.num_inference_steps, self.mode == "realistic", float(checkpoint["detail_gain"])
        if self.longest_side is None:
            self.size_of(1, 1, int(checkpoint["scale"]))
        if steps is not None and steps > trained_steps:
            raise ValueError(f"num_inference_steps is {steps}; this checkpoint has 1 to {trained_steps}")
        if self.strength != 1 and checkpoint.get("check_measure") != "burst":
            raise ValueError("strength is for a checkpoint that restores poor photographs, such as x4_restore; omit it")
        if self.strength != 1 and self.output_uncertainty:
            raise ValueError("uncertainty describes the whole restoration, not a blend; omit strength or uncertainty")
        times = int(checkpoint["back_projections"])
        if self.back_projections is not None:
            times = self.back_projections
        elif times and realistic and gain > 1:
            times += 1  # stronger detail lies further from the input
        if checkpoint["distilled"] == "mean" and (realistic or steps not in (None, 1)):
            raise ValueError(
                "this checkpoint is distilled: it gives the faithful result in one step; for mode realistic and other "
                "steps use the checkpoint it was distilled from"
            )
        if checkpoint["distilled"] is True:
            if self.mode == "faithful" or steps not in (None, 1) or self.output_uncertainty:
                raise ValueError(
                    "this checkpoint is distilled: it draws a realistic sample in one step; for mode faithful, other "
                    "steps and uncertainty use the checkpoint it was distilled from"
                )
            return Plan(1, times, curve="sample")
        if realistic and steps == 1:
            raise ValueError("mode realistic with 1 step is the mean, without detail; give 2 or more steps, or none")
        if realistic:
            steps = steps or int(checkpoint["detail_steps"]) or trained_steps
            return Plan(steps, times, gain, checkpoint["detail_transition"], curve="sample" if gain != 1 else None)
        steps = steps or (1 if self.mode == "faithful" else int(checkpoint["default_steps"]))
        if self.output_uncertainty and steps != 1:
            raise ValueError(f"uncertainty describes the one-step result, not {steps} steps; give 1 step, or omit one")
        if steps == 1 and self.ensemble_size > 1:
            raise ValueError("ensemble averages samples, and one step draws none; give 2 or more steps, or omit it")
        if steps > 1 and self.mode == "faithful":
            raise ValueError(f"mode faithful is one step, and {steps} draw a sample; omit the steps or the mode")
        return Plan(steps, times, noise=steps > 1, curve=None if steps > 1 else "mean")


@dataclass(frozen=True)
class Plan:
    """What settings mean for one checkpoint."""

    steps: int
    """Network calls a sample."""
    back_projections: int
    detail_gain: float = 1.0
    """Factor of a sample's detail, see `boost_detail`."""
    transition: Transition | None = None
    """None is the scheduler's own."""
    noise: bool = True
    """Whether noise is drawn. One step of a chain starts at y0, so its result is a function of the photograph."""
    curve: Literal["mean", "sample"] | None = None
    """Which curve of the checkpoint gives the factor of the detail, see `detail`."""

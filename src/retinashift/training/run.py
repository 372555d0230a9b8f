"""The training loop, on accelerate: one process, several, or several machines, with exact resume.

A step sees batch_size * accumulate * processes samples. They are cut into micro-batches numbered in the order
(accumulation, process), and each sample's crop, step and noise come from a stream numbered by its place in the whole
run. So two processes give the weights of one with twice the accumulation, and a resumed run those of an unbroken one.
"""

import copy
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from retinashift.data.checks import check_no_leakage, check_photographs, content_hashes
from retinashift.data.photographs import list_source
from retinashift.imaging.files import replace_file
from retinashift.inference.memory import choose_device, fast_precision
from retinashift.training.batches import Batch, Map, PhotographSet, check_size, make_batch
from retinashift.training.build import build_pipeline, resolved, trained_part
from retinashift.training.losses import Objective
from retinashift.training.settings import TrainConfig
from retinashift.training.state import (
    Position,
    RunRecord,
    State,
    lock_folder,
    merged_adapters,
    save_state,
    state_to_resume,
    write_checkpoint,
    write_folder,
)  # fmt: skip
from retinashift.training.validation import validate

Report = Callable[[str, dict[str, Any]], None]
MicroBatch = tuple[int, Callable[[], Batch]]  # its place among all of the run, and what makes it


class TrainingError(ValueError):
    """A run that cannot go on, in one line."""


def no_report(event: str, values: dict[str, Any]) -> None:
    """For runs without a display."""


class Trainer:
    """A run: the parts that accelerate prepared, and its position.

    The main process calls report(event, values): "start", "step", "train", "validation", "saved", "end".
    ConfigError and DataError are raised before anything is written.
    """

    def __init__(self, config: TrainConfig, report: Report = no_report):
        if config.run.precision == "auto":
            config = config.replace(run=config.run.model_copy(update={"precision": fast_precision(choose_device())}))
        self.accelerator = _accelerator(config.run.precision)
        self.device = self.accelerator.device
        self.report = report if self.accelerator.is_main_process else no_report
        self.folder = Path(config.run.out)
        self.pipeline = build_pipeline(config)
        self.config = config = resolved(config, self.pipeline)
        items, scale = list_source(config.data, "data"), config.chain.scale
        check_photographs(items, scale, partial(check_size, settings=config.crop))
        self.validation = list_source(config.validation, "validation") if config.validation else []
        check_photographs(self.validation, scale)
        hashes = content_hashes(items)
        check_no_leakage(hashes, self.validation)
        self._write_checkpoint = partial(write_checkpoint, pipeline=self.pipeline, config=config, photographs=hashes)
        self.photographs = PhotographSet(
            items, cache_gib=config.run.cache_gib, device=self.device, balance=config.data.balance
        )
        self.lock = ExitStack()
        if self.accelerator.is_main_process:
            self.lock.enter_context(lock_folder(self.folder))
        state = state_to_resume(self.folder, config)

        self.objective = Objective(config, self.pipeline, self.accelerator)
        if self.objective.teacher is not None:
            self.pipeline.register_to_config(
                distilled="mean" if self.objective.teacher.gives_mean else True,
                detail_gain=1.0,
                detail_curves=None,  # a student draws with another strength than its teacher
                back_projections=self.objective.teacher.back_projections,
            )
        layout = torch.channels_last if config.run.channels_last else torch.contiguous_format
        trained = trained_part(self.pipeline, config).to(self.device)
        self.trained = trained = trained.to(memory_format=layout).train()  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(trained).eval()
        self.pipeline.register_modules(denoiser=self.averaged)  # what is validated and saved
        optimizer = torch.optim.AdamW(
            [parameter for parameter in trained.parameters() if parameter.requires_grad], config.optim.learning_rate,
            (0.9, config.optim.beta2), weight_decay=config.optim.weight_decay, fused=self.device.type == "cuda",
        )  # fmt: skip
        _compile(trained, config.run.compile)
        self.model, self.optimizer = self.accelerator.prepare(trained, optimizer)
        # from here on the same tensors: asking modules for them at each step takes longer than averaging
        self._current, self._average = trained.state_dict(), self.averaged.state_dict()
        scaler = self.accelerator.scaler  # None unless for fp16
        self._stateful = {"optimizer": self.optimizer} | ({"scaler": scaler} if scaler else {})
        self.position = Position() if state is None else state.position
        self._saved_step = None if state is None else self.position.step
        if state is not None:
            self.trained.load_state_dict(state.model)
            self.averaged.load_state_dict(state.ema)
            for name, part in self._stateful.items():
                part.load_state_dict(state.optimizer[name])

    def run(self) -> Path:
        """Train to the end of the schedule; returns the folder of the finished checkpoint.

        TrainingError if the loss or the weights are no longer finite; what was saved before stays.
        """
        config, first = self.config, self.position
        record = RunRecord(self.folder, first.step) if self.accelerator.is_main_process else None
        if record is not None:
            replace_file(self.folder / "config.yaml", config.to_yaml().encode())
            if self._saved_step is not None:  # a run killed while it saved has a checkpoint older than its state
                write_folder(self.folder / "checkpoint", self._write_checkpoint)
        self.report("start", {
            "step": first.step, "steps": config.run.steps, "minutes": config.run.minutes,
            "photographs": len(self.photographs.items), "validation": len(self.validation),
            "device": str(self.device), "processes": self.accelerator.num_processes,
            "precision": config.run.precision, "expected_minutes": self._expected_minutes(), "out": str(self.folder),
        })  # fmt: skip
        if first.step == 0:
            self._validate(record)
        started, step, losses = time.monotonic() - first.seconds, first.step, []
        ahead = max(1, config.run.workers)
        # all steps have one shape, for which cuDNN may try what is fastest; threads end before what they call
        tries = torch.backends.cudnn.flags(enabled=True, benchmark=True)
        cameras = ProcessPoolExecutor(ahead, mp_context=get_context("spawn")) if config.run.workers else nullcontext()
        with tries, cameras as processes, ThreadPoolExecutor(ahead) as pool:
            map_cameras = processes.map if processes else map
            pending = deque(self._prepare(step + number, pool, map_cameras) for number in range(ahead))
            progress = self._progress(step, time.monotonic() - started)
            while progress < 1:
                batches = pending.popleft()
                pending.append(self._prepare(step + ahead, pool, map_cameras))
                rate = config.optim.rate(step, progress, config.run.steps)
                losses.append(self._step(rate, step, batches))
                step += 1
                seconds = time.monotonic() - started
                self.position = replace(self.position, step=step, seconds=seconds)
                before, progress = progress, self._progress(step, seconds)  # once a step: the clock may end it any time
                ending, minutes = progress >= 1, config.run.minutes
                left = seconds * (1 - progress) / max(progress, 1e-9)
                self.report("step", {"step": step, "first": first.step, "seconds": seconds, "seconds_left": left})
                logging = step % config.run.log_every == 0 or step == config.run.steps
                validating = step % config.run.validate_every == 0 or ending
                saving = step % config.run.save_every == 0 or ending or int(progress * minutes) > int(before * minutes)
                if logging or validating or saving:
                    loss = self._checked(losses, weights=validating or saving)
                if logging:
                    per_step = config.optim.batch_size * config.optim.accumulate * self.accelerator.num_processes
                    done = (step - first.step) * per_step
                    values = {
                        "loss": loss, "learning_rate": rate, "seconds": seconds, "seconds_left": left,
                        "images": step * per_step, "images_per_second": done / max(1e-9, seconds - first.seconds),
                    }  # fmt: skip
                    if record is not None:
                        record.write("train", step, values)
                    self.report("train", {"step": step, **values})
                    losses = []
                if validating:
                    self._validate(record)
                if saving and record is not None:
                    self._save()
        if record is not None:
            record.board.close()
        self.report("end", self._outcome())
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.folder / "checkpoint"

    def _prepare(self, step: int, pool: ThreadPoolExecutor, map_cameras: Map) -> list[MicroBatch]:
        """The micro-batches of this process at a step; made ahead by threads if `workers` is positive."""
        config, size = self.config, self.config.optim.batch_size
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        batches: list[MicroBatch] = []
        for micro in range(config.optim.accumulate):
            number = (step * config.optim.accumulate + micro) * processes + rank
            start = number * size
            make = partial(
                make_batch, self.photographs, config.crop, config.chain.scale, config.run.seed,
                range(start, start + size), degradation=config.degradation, map_cameras=map_cameras,
            )  # fmt: skip
            batches.append((number, pool.submit(make).result if config.run.workers else make))
        return batches

    def _step(self, rate: float, step: int, batches: list[MicroBatch]) -> Tensor:
        """One optimizer step; returns this process's mean loss, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=self.device)
        for number, batch in batches:
            last = number == batches[-1][0]
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                loss = self.objective(self.model, batch(), number) / len(batches)
                self.accelerator.backward(loss)
            total += loss.detach()
        if self.config.optim.clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        average(self._average, self._current, self.config.optim.ema_decay(step))
        return total

    def _progress(self, step: int, seconds: float) -> float:
        """Share of the schedule that is done, by steps or by the clock; the main process's clock counts."""
        share = step / self.config.run.steps
        if not self.config.run.minutes:
            return share
        clock = seconds / 60 / self.config.run.minutes
        if self.accelerator.num_processes > 1:
            shared = torch.tensor(clock, device=self.device, dtype=torch.float32)
            torch.distributed.broadcast(shared, 0)
            clock = float(shared)
        return max(share, clock)

    def _checked(self, losses: list[Tensor], weights: bool) -> float:
        """The mean loss of all processes; TrainingError if it, or a weight of those asked for, is not finite.

        Weights are checked before they are kept, because a loss describes the weights before its step.
        """
        loss = float(self.accelerator.reduce(torch.stack(losses).mean(), "mean"))
        checked = (*self._current.values(), *self._average.values()) if weights else ()
        if math.isfinite(loss) and all(bool(value.isfinite().all()) for value in checked):
            return loss
        what = "the weights are no numbers" if math.isfinite(loss) else f"the loss is {loss}"
        kept, way = "nothing was saved", " and run again"
        if self._saved_step is not None:
            kept = f"what was saved at step {self._saved_step} is good"
            way = f", and start from {self.folder / 'checkpoint'} (init_from) with another run.out"
        raise TrainingError(
            f"{what} at step {self.position.step}; {kept}: lower optim.learning_rate or optim.clip{way}"
        )

    def _validate(self, record: RunRecord | None) -> None:
        """Main process only: score the averaged weights beside bicubic, and keep them if they are the best."""
        if not self.validation or record is None:
            return
        # photographs have many shapes: trying for each what is fastest would take longer than they do
        no_tries = torch.backends.cudnn.flags(enabled=True, benchmark=False)
        with merged_adapters(self.pipeline, self.config), no_tries:
            scores, picture = validate(self.pipeline, self.validation, self.config.run.seed, self.config.degradation)
        if self.position.step == 0:
            self.position = replace(self.position, start=scores["psnr"])
        if math.isfinite(self.position.start):
            scores["gain_over_start"] = scores["psnr"] - self.position.start
        record.write("validation", self.position.step, scores)
        record.board.add_image("validation/lr_sr_hr", picture, self.position.step, dataformats="HWC")
        self.report("validation", {"step": self.position.step, **scores})
        if scores["psnr"] > self.position.best:
            self.position = replace(self.position, best=scores["psnr"], best_step=self.position.step)
            write_folder(self.folder / "best", self._write_checkpoint)

    def _expected_minutes(self) -> float | None:
        """Of the steps to come, by the second of two trials that change nothing and that no other process waits for."""
        run, step = self.config.run, self.position.step
        if run.minutes:
            return run.minutes
        seconds, gpus = 0.0, [self.device] if self.device.type == "cuda" else []
        apart = self.accelerator.no_sync(self.model)
        with torch.random.fork_rng(devices=gpus), ThreadPoolExecutor(1) as pool, apart:
            for _ in range(2):
                started = time.monotonic()
                number, batch = self._prepare(step, pool, map)[0]
                self.accelerator.backward(self.objective(self.model, batch(), number))
                for gpu in gpus:
                    torch.cuda.synchronize(gpu)
                seconds = time.monotonic() - started
        self.optimizer.zero_grad(set_to_none=True)
        return seconds * self.config.optim.accumulate * (run.steps - step) / 60

    def _outcome(self) -> dict[str, Any]:
        """What a display says at the end; scores only where there is a validation set."""
        use = self.folder / ("best" if self.validation and (self.folder / "best").is_dir() else "checkpoint")
        done = asdict(self.position)
        values = {"step": done["step"], "seconds": done["seconds"], "use": str(use)}
        if self.validation:
            values["validation"] = len(self.validation)
            values |= {name: done[name] for name in ("start", "best", "best_step") if math.isfinite(done[name])}
        return values

    def _save(self) -> None:
        optimizer = {name: part.state_dict() for name, part in self._stateful.items()}
        state = State(self.position, self._current, self._average, optimizer)
        save_state(self.folder / "state", state, self.config.run.keep)
        write_folder(self.folder / "checkpoint", self._write_checkpoint)
        self._saved_step = self.position.step
        self.report("saved", {"step": self.position.step})


def _accelerator(precision: str) -> Accelerator:
    """The processes launched together. TrainingError where one was started for several: it would train in silence."""
    on_cpu = choose_device().type == "cpu"  # else torchrun's processes on a CPU would not know of each other
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="no" if precision == "fp32" else precision)
    launched = {"MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ
    if launched and accelerator.num_processes == 1:
        raise TrainingError(
            "accelerate launch was asked for several processes and started one; give it --multi_gpu (on CPUs as well) "
            "and not --cpu, or start the command with torchrun"
        )
    return accelerator


def _compile(trained: nn.Module, what: str) -> None:
    """In place, as `run.compile` says."""
    if what == "blocks" and isinstance(trained, ModelMixin) and trained._repeated_blocks:
        trained.compile_repeated_blocks(dynamic=False)
    elif what != "no":
        trained.compile(dynamic=False, mode="reduce-overhead" if what == "graphs" else None)


@torch.no_grad()
def average(averaged: Mapping[str, Tensor], current: Mapping[str, Tensor], decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * current, in place; integers are copied."""
    floats = [name for name, value in averaged.items() if value.is_floating_point()]
    torch._foreach_lerp_([averaged[name] for name in floats], [current[name] for name in floats], 1 - decay)
    for name in averaged.keys() - set(floats):
        averaged[name].copy_(current[name])


def train(config: TrainConfig, report: Report = no_report) -> Path:
    """Train by the settings, or go on with the run that `run.out` holds; returns the checkpoint folder.

    ConfigError, DataError and TrainingError have one line each.
    """
    trainer = Trainer(config, report)
    with trainer.lock:
        return trainer.run()

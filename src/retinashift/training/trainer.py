"""The training loop, on accelerate: one process, several, or several nodes, with exact resume.

A step sees batch_size * accumulate * processes samples. They are cut into micro-batches numbered in the order
(accumulation, process), and each sample's crop, step and noise come from a stream numbered by its place in the whole
run. So two processes give the weights of one process with twice the accumulation, and a resumed run those of one that
was never interrupted.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from retinashift.data.inspection import Check, accept_any, check_photographs
from retinashift.data.leaks import check_no_leakage, content_hashes
from retinashift.data.photographs import Source, list_source
from retinashift.diffusion.noise import stream_generator
from retinashift.diffusion.scheduler import ResShiftScheduler
from retinashift.imaging.files import replace_file
from retinashift.models.adapters import merged, save_adapter
from retinashift.models.codec import upsample_bicubic
from retinashift.models.perceptual import LPIPS
from retinashift.training.averaging import average
from retinashift.training.build import build_pipeline, frozen_codec, resolved, trained_part
from retinashift.training.card import continued_card
from retinashift.training.crops import check_size
from retinashift.training.distillation import distillation_error, open_teacher
from retinashift.training.latents import LatentCache
from retinashift.training.losses import combined, perceptual_error, squared_error
from retinashift.training.pool import PhotographSet
from retinashift.training.records import RunRecord
from retinashift.training.samples import Batch, Map, make_batch
from retinashift.training.settings import ConfigError, TrainConfig, flattened
from retinashift.training.state import Position, State, load_state, save_state, write_folder
from retinashift.training.validation import validate

Report = Callable[[str, dict[str, Any]], None]

NOISE_STREAM = 1  # streams of one seed: 0 cuts the samples, 1 draws their step and noise
MAY_CHANGE_ON_RESUME = {
    f"run.{name}"
    for name in ("steps", "minutes", "log_every", "validate_every", "save_every", "keep", "workers", "cache_gib")
}
_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # what accelerate calls them


class TrainingError(ValueError):
    """A run that cannot go on, said in one line."""


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """The rate of a step: linear warm-up times a cosine as `progress` goes from 0 to 1, or `published_rate`."""
    optim = config.optim
    if optim.schedule == "published":
        return published_rate(step, optim.learning_rate, optim.learning_rate_end, config.run.steps, optim.warmup_steps)
    warm = min(1.0, (step + 1) / max(1, optim.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return warm * (optim.learning_rate_end + (optim.learning_rate - optim.learning_rate_end) * cosine)


def published_rate(step: int, base: float, last: float, steps: int, warmup: int) -> float:
    """The learning rate of the official training at a step counted from 0.

    It is set after a step for the next one, so the first step runs at the full rate; then a linear warm-up, and a
    cosine from `base` to `last` over what remains.
    """
    if step == 0:
        return base
    if step <= warmup:
        return base * step / warmup
    return last + (base - last) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def no_report(event: str, values: dict[str, Any]) -> None:
    """For runs that nobody watches."""


class Trainer:
    """A run: the parts that accelerate prepared, and where it stands.

    `report(event, values)` is called on the main process: "start", "train", "validation", "saved".
    """

    def __init__(self, config: TrainConfig, report: Report = no_report):
        self.accelerator = Accelerator(mixed_precision=_MIXED[config.run.precision], gradient_accumulation_steps=1)
        self.device = self.accelerator.device
        self.report = report if self.accelerator.is_main_process else no_report
        self.folder = Path(config.run.out)
        self.pipeline = build_pipeline(config)
        self.config = config = resolved(config, self.pipeline)
        self.codec = frozen_codec(self.pipeline, self.device)
        self.scheduler: ResShiftScheduler = self.pipeline.scheduler
        self.photographs = self._open(config.data, partial(check_size, settings=config.crop))
        self.validation = self._open(config.validation) if config.validation else None
        if self.validation is not None:
            check_no_leakage(content_hashes(self.photographs.items), self.validation.items)
        state = self._resume()

        self.teacher = open_teacher(config.distill, self.pipeline, self.device) if config.distill.teacher else None
        if self.teacher is not None:
            self.pipeline.register_to_config(
                distilled=True, detail_gain=1.0, back_projections=self.teacher.back_projections
            )
        trained = trained_part(self.pipeline, config)
        self.start = {}
        if config.optim.start_share:
            self.start = {name: value.detach().clone().to(self.device) for name, value in trained.state_dict().items()}
        if state is not None:
            trained.load_state_dict(state.model)
        self.ema = {name: value.detach().clone().to(self.device) for name, value in trained.state_dict().items()}
        layout = torch.channels_last if config.run.channels_last else torch.contiguous_format
        trained = trained.to(self.device).to(memory_format=layout).train()  # type: ignore[call-overload]
        self.raw = trained
        self.lpips = LPIPS.pretrained(config.loss.lpips_net).to(self.device) if config.loss.lpips else None
        self.cache = LatentCache() if config.run.sample_pool and self.codec is not None else None
        optimizer = torch.optim.AdamW(
            [parameter for parameter in trained.parameters() if parameter.requires_grad],
            lr=config.optim.learning_rate,
            betas=(0.9, config.optim.beta2),
            weight_decay=config.optim.weight_decay,
            fused=self.device.type == "cuda",
        )
        _compile(trained, config.run.compile)
        self.model, self.optimizer = self.accelerator.prepare(trained, optimizer)
        # the same tensors from here on: asking at each step takes longer than averaging
        self._current = self.raw.state_dict()
        if state is not None:
            self.ema = {name: value.to(self.device) for name, value in state.ema.items()}
            self.optimizer.load_state_dict(state.optimizer["optimizer"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state.optimizer["scaler"])
        self.position = state.position if state else Position()
        self._saved = state.position.step if state else None
        weight = self.scheduler.loss_weight() if config.optim.weighting == "bound" else torch.ones(len(self.scheduler))
        self.loss_weight = weight.float().to(self.device)  # (T,)

    def run(self) -> Path:
        """Train to the end of the schedule; returns the folder of the finished checkpoint."""
        config, main = self.config, self.accelerator.is_main_process
        record = RunRecord(self.folder, self.position.step) if main else None
        if main:
            replace_file(self.folder / "config.yaml", config.to_yaml().encode())
        self.report(
            "start",
            {"step": self.position.step, "samples": len(self.photographs), "settings": config.to_yaml()},
        )
        started, first = time.monotonic() - self.position.seconds, self.position.step
        step, losses = first, []
        ahead = max(1, config.run.workers)
        # all steps have one shape, for which cuDNN may try what is fastest; threads end before what they call
        with _cudnn_tries(True), self._cameras() as map_cameras, ThreadPoolExecutor(ahead) as pool:
            pending = deque(self._prepare(step + number, pool, map_cameras) for number in range(ahead))
            progress = self._progress(step, time.monotonic() - started)
            while progress < 1:
                batches = pending.popleft()
                pending.append(self._prepare(step + ahead, pool, map_cameras))
                rate = learning_rate(config, step, progress)
                losses.append(self._step(rate, step, batches))
                step += 1
                seconds = time.monotonic() - started
                self.position = Position(step, seconds, self.position.best)
                progress = self._progress(step, seconds)  # asked once a step: by the clock it may end at any moment
                ending = progress >= 1
                logging = step % config.run.log_every == 0 or step == config.run.steps
                validating = step % config.run.validate_every == 0 or ending
                saving = step % config.run.save_every == 0 or ending
                if logging or validating or saving:
                    loss = self._checked(losses, weights=validating or saving)
                if logging:
                    self._log(record, loss, rate, (step - first) / max(1e-9, seconds - self._resumed_seconds))
                    losses = []
                if validating:
                    self._validate(record)
                if saving:
                    self._save()
        if record:
            record.close()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.folder / "checkpoint"

    # -- the step ------------------------------------------------------------------------------------------------

    @contextmanager
    def _cameras(self) -> Iterator[Map]:
        """What runs a degradation that is not exact: other processes, where there are workers."""
        if not self.config.run.workers or self.config.degradation.exact:
            yield map
            return
        with ProcessPoolExecutor(self.config.run.workers, mp_context=get_context("spawn")) as processes:
            yield processes.map

    def _prepare(self, step: int, pool: ThreadPoolExecutor, map_cameras: Map) -> list[Callable[[], Batch]]:
        """The micro-batches of this process at a step; made ahead by threads if `workers` is positive."""
        config, processes, rank = self.config, self.accelerator.num_processes, self.accelerator.process_index
        size, count = config.optim.batch_size, config.optim.accumulate
        batches: list[Callable[[], Batch]] = []
        for micro in range(count):
            start = ((step * count + micro) * processes + rank) * size
            positions = [p % (config.run.sample_pool or p + 1) for p in range(start, start + size)]
            make = partial(
                make_batch, self.photographs, config.crop, config.chain.scale, config.run.seed, positions,
                degradation=config.degradation, map_cameras=map_cameras,
            )  # fmt: skip
            batches.append(pool.submit(make).result if config.run.workers else make)
        return batches

    def _step(self, rate: float, step: int, batches: list[Callable[[], Batch]]) -> Tensor:
        """One optimizer step; returns this process's mean loss, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=self.device)
        for micro, batch in enumerate(batches):
            last = micro == len(batches) - 1
            with self.accelerator.no_sync(self.model) if not last else nullcontext():
                loss = self._loss(batch(), step, micro) / len(batches)
                self.accelerator.backward(loss)
            total += loss.detach()
        if self.config.optim.clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.optim.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._average(step)
        return total

    def _loss(self, batch: Batch, step: int, micro: int) -> Tensor:
        """What the settings weigh together, at random steps of the chain, averaged over the micro-batch."""
        loss, scheduler = self.config.loss, self.scheduler
        lq, hr = ((image * 2 - 1).to(self.device) for image in (batch.lr, batch.hr))  # (B, 3, h, w), (B, 3, H, W)
        x0, y0 = self._latents(batch, lq, hr)  # (B, C, h', w')
        if self.config.tune == "decoder":
            image = self.model(x0)  # (B, 3, H, W)
            errors = (image.float() - hr).square().mean(dim=(1, 2, 3))  # (B,)
            perceptual = perceptual_error(self.lpips, None, image, hr) if self.lpips else None
            return combined(errors, perceptual, loss.mse, loss.lpips, loss.log).mean()
        timesteps, noise = self._draw(step, micro, x0)  # (B,), as x0
        if self.teacher is not None:
            with self.accelerator.autocast():
                errors = distillation_error(
                    self.teacher, self._predict, x0, y0, lq, noise, self.config.distill.truth
                )  # (B,)
            return combined(errors, None, loss.mse, 0, loss.log).mean()
        x_t = scheduler.add_noise(x0, noise, timesteps, y0)
        prediction = self.model(scheduler.scale_model_input(x_t, timesteps), timesteps, lq=lq).sample
        errors = squared_error(scheduler, prediction, x0, y0, noise, timesteps)  # (B,)
        perceptual = None
        if self.lpips:
            estimate = scheduler.predict_x0(prediction, timesteps, x_t, y0)  # (B, C, h', w')
            if self.codec is None:
                estimate = self.pipeline.pixel_codec.decode(estimate)
            perceptual = perceptual_error(self.lpips, self.codec, estimate, hr)
        return combined(self.loss_weight[timesteps] * errors, perceptual, loss.mse, loss.lpips, loss.log).mean()

    def _predict(self, sample: Tensor, timesteps: Tensor, lq: Tensor) -> Tensor:
        return self.model(sample, timesteps, lq=lq).sample

    @torch.no_grad()
    def _latents(self, batch: Batch, lq: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        """x0 and y0 of a batch, from the cache if there is one."""

        def encode(rows: slice) -> tuple[Tensor, Tensor]:
            enlarged = upsample_bicubic(lq[rows], self.config.chain.scale, self.pipeline.config.upsampling)
            return self._encode(hr[rows]), self._encode(enlarged)

        if self.cache is None:
            return encode(slice(None))
        return self.cache.latents(batch.positions, lambda i: encode(slice(i, i + 1)), self.device)

    def _draw(self, step: int, micro: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of the chain (B,) and noise (as `like`) of this micro-batch."""
        config, accelerator = self.config, self.accelerator
        number = (step * config.optim.accumulate + micro) * accelerator.num_processes + accelerator.process_index
        generator = stream_generator(config.run.seed + (NOISE_STREAM << 32), number, self.device)
        draw = {"generator": generator, "device": self.device}
        timesteps = torch.randint(len(self.scheduler), (like.shape[0],), **draw)
        at_end = torch.rand(like.shape[0], **draw) < config.optim.last_step_share
        timesteps = torch.where(at_end, len(self.scheduler) - 1, timesteps)
        return timesteps, torch.randn(like.shape, **draw)

    def _encode(self, image: Tensor) -> Tensor:
        return self.pipeline.pixel_codec.encode(image) if self.codec is None else self.codec.encode(image).latents

    def _average(self, step: int) -> None:
        """Exponential average of the weights, with or without a decay that rises from 0.1."""
        optim = self.config.optim
        rising = (1 + step) / (10 + step) if optim.ema_warmup else 1.0
        average(self.ema, self._current, min(optim.ema, rising))

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

    # -- the record ----------------------------------------------------------------------------------------------

    def _checked(self, losses: list[Tensor], weights: bool) -> float:
        """The mean loss of all processes; TrainingError if it, or a weight of those asked for, is no number.

        Weights have a look of their own before they are kept, for a loss is that of the weights before its step.
        """
        loss = float(self.accelerator.reduce(torch.stack(losses).mean(), "mean"))
        kept = [*self._current.values(), *self.ema.values()] if weights else []
        if math.isfinite(loss) and all(bool(value.isfinite().all()) for value in kept):
            return loss
        what = "the weights are no numbers" if math.isfinite(loss) else f"the loss is {loss}"
        if self._saved is None:
            way = "nothing was saved: lower optim.learning_rate or optim.clip and run again"
        else:
            way = (
                f"what was saved at step {self._saved} is good: lower optim.learning_rate or optim.clip, and start "
                f"from {self.folder / 'checkpoint'} (init_from) with another run.out"
            )
        raise TrainingError(f"{what} at step {self.position.step}; {way}")

    def _log(self, record: RunRecord | None, loss: float, rate: float, steps_per_second: float) -> None:
        optim = self.config.optim
        per_step = optim.batch_size * optim.accumulate * self.accelerator.num_processes
        done = self._progress(self.position.step, self.position.seconds)
        values = {
            "loss": loss,
            "learning_rate": rate,
            "images_per_second": steps_per_second * per_step,
            "seconds": self.position.seconds,
            "seconds_left": self.position.seconds * (1 - done) / max(done, 1e-9),
            "images": self.position.step * per_step,
        }
        if record:
            record.write("train", self.position.step, values)
        self.report("train", {"step": self.position.step, **values})

    def _validate(self, record: RunRecord | None) -> None:
        """Main process only: score the averaged weights beside bicubic, and keep them if they are the best."""
        if self.validation is None or record is None:
            return
        with self._averaged_weights():
            # photographs have many shapes: compiling and trying for each would take longer than they do
            with self._merged_adapters(), torch.compiler.set_stance("force_eager"), _cudnn_tries(False):
                scores, picture = validate(
                    self.pipeline, self.validation, self.config.run.seed, self.config.degradation
                )
            record.write("validation", self.position.step, scores)
            record.picture("validation/lr_sr_hr", self.position.step, picture)
            self.report("validation", {"step": self.position.step, **scores})
            if scores["psnr"] > self.position.best:
                self.position = Position(self.position.step, self.position.seconds, scores["psnr"])
                write_folder(self.folder / "best", lambda folder: self._export(folder))

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        optimizer = {"optimizer": self.optimizer.state_dict()}
        if self.accelerator.scaler is not None:
            optimizer["scaler"] = self.accelerator.scaler.state_dict()
        model, ema = (
            {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
            for weights in (self.raw.state_dict(), self.ema)
        )
        save_state(self.folder / "state", State(self.position, model, ema, optimizer), self.config.run.keep)
        with self._averaged_weights():
            write_folder(self.folder / "checkpoint", lambda folder: self._export(folder))
        self._saved = self.position.step
        self.report("saved", {"step": self.position.step})

    def _export(self, folder: Path) -> None:
        """The checkpoint; adapters are merged into it, and lie beside it in a folder of their own."""
        with self._merged_adapters():
            self.pipeline.save_pretrained(folder, safe_serialization=True)
        if self.config.lora.rank:
            save_adapter(self.pipeline.denoiser, folder / "adapter")
        (folder / "training.yaml").write_text(self.config.to_yaml(), encoding="utf-8")
        card = continued_card(Path(self.pipeline.name_or_path)) if self.config.init_from else None
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")

    @contextmanager
    def _merged_adapters(self) -> Iterator[None]:
        """Within it the pipeline has the plain denoiser of a checkpoint, whose layers know nothing of adapters."""
        adapted = self.pipeline.denoiser
        if self.config.lora.rank:
            self.pipeline.register_modules(denoiser=merged(adapted))
        try:
            yield
        finally:
            self.pipeline.register_modules(denoiser=adapted)

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Within it what is trained holds the averaged weights, with the start's share, and is in evaluation mode."""
        kept = {name: value.clone() for name, value in self.raw.state_dict().items()}
        share = self.config.optim.start_share
        self.raw.load_state_dict(
            {name: value.lerp(self.start[name], share) for name, value in self.ema.items()} if share else self.ema
        )
        self.raw.eval()
        try:
            yield
        finally:
            self.raw.load_state_dict(kept)
            self.raw.train()

    # -- start ---------------------------------------------------------------------------------------------------

    def _open(self, source: Source, size_check: Check = accept_any) -> PhotographSet:
        items = list_source(source)
        check_photographs(items, self.config.chain.scale, size_check)
        return PhotographSet(items, cache_gib=self.config.run.cache_gib, device=self.device, balance=source.balance)

    def _resume(self) -> State | None:
        """The state to go on from, if the run folder has one made with the same settings.

        Raises:
            ConfigError: the folder holds another run, or checkpoints that a run from the start would replace.
        """
        state = load_state(self.folder / "state")
        self._resumed_seconds = state.position.seconds if state else 0.0
        if state is None:
            self._refuse_to_replace()
            return None
        changed = _differences(TrainConfig.load(self.folder / "config.yaml"), self.config)
        if changed:
            raise ConfigError(
                f"{self.folder} holds a run with other settings ({', '.join(changed)}); "
                "give another run.out, or the former settings to go on with it"
            )
        return state

    def _refuse_to_replace(self) -> None:
        """ConfigError if a run from the start would replace checkpoints, but for its own best."""
        kept = [name for name in ("checkpoint", "best") if (self.folder / name).exists()]
        written = self.folder / "config.yaml"
        if kept == ["best"] and written.is_file() and not _differences(TrainConfig.load(written), self.config):
            return  # a run that was stopped before its first state, and comes by the same best again
        if kept:
            raise ConfigError(
                f"{self.folder} holds {' and '.join(f'{name}/' for name in kept)}, but no state to go on from; "
                "give another run.out, or move them away"
            )


@contextmanager
def _cudnn_tries(switch: bool) -> Iterator[None]:
    """Within it cuDNN tries its algorithms on every new shape, or does not."""
    former = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = switch
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = former


def _compile(trained: nn.Module, what: str) -> None:
    """In place, as `run.compile` says."""
    if what == "blocks" and isinstance(trained, ModelMixin) and trained._repeated_blocks:
        trained.compile_repeated_blocks(dynamic=False)
    elif what != "no":
        trained.compile(dynamic=False, mode="reduce-overhead" if what == "graphs" else None)


def _differences(before: TrainConfig, now: TrainConfig) -> list[str]:
    """Full names of the settings that changed and may not."""
    former, given = flattened(before), flattened(now)
    names = [name for name in {**former, **given} if former.get(name) != given.get(name)]
    return [name for name in names if name not in MAY_CHANGE_ON_RESUME]


def train(config: TrainConfig, report: Report = no_report) -> Path:
    """Train by the settings, or go on with the run that `run.out` holds; returns the checkpoint folder.

    Raises:
        ConfigError, DataError, StateError, TrainingError: each one line.
    """
    return Trainer(config, report).run()

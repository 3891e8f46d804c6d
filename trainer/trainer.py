"""The training loop: updates, and what happens between them.

The loop knows phases and metrics; what they mean is the objective's business.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.collectives import agree, broadcast
from core.errors import Diverged, Interrupted
from core.progress import Monitor, Progress
from core.ranks import Ranks
from core.schema import TrainerSettings
from data.loader import Loader
from data.splits import Batch
from models.build import weights_hash
from objectives.base import Objective, Sums
from optim.schedules import Evaluations, Horizon
from trainer import checkpoint
from trainer.averaging import build_average
from trainer.batchnorm_statistics import estimate_statistics
from trainer.computation import Computation
from trainer.distributed.device import (
    choose_precision,
    eager,
    is_out_of_memory,
    out_of_memory,
    peak_memory_bytes,
)
from trainer.evaluation import check_evaluations, check_schedules, evaluate, judge
from trainer.finite import FiniteCheck, Snapshot, advice, all_finite, check_skips, update_scale
from trainer.loggers.provenance import run_facts
from trainer.loggers.run_log import RunLog
from trainer.metrics import Clock, TrainingMetrics
from trainer.phase import Phase, optimizer_state_bytes
from trainer.profiling import profiled
from trainer.signals import Interruption, Meetings


@dataclass
class Trainer:
    """Fits an objective to data; :meth:`fit` is the whole story, :meth:`train_step` its heart."""

    settings: TrainerSettings
    objective: Objective
    phases: list[Phase]
    data: Loader
    horizon: Horizon
    monitor: Monitor
    run_log: RunLog
    ranks: Ranks
    interruption: Interruption
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        settings = self.settings
        self.device = self.data.device
        self.precision = choose_precision(settings.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.computation = Computation(
            self.device, self.precision, self.scaler, self.data.seed, self.ranks.rank
        )
        self.finite = FiniteCheck(
            skips=settings.on_nonfinite == "skip",
            reads_are_free=self.device.type == "cpu" and self.ranks.world_size == 1,
            is_scaled=self.scaler.is_enabled(),
        )
        self.average = build_average(settings, self.objective.model, self.horizon)
        limit = settings.limit_train_steps or self.horizon.total_steps
        self.last_step = min(self.horizon.total_steps, limit)
        self.eval_every = (
            settings.eval_every_steps or settings.eval_every_epochs * self.horizon.steps_per_epoch
        )
        self.eval_offset = 0 if settings.eval_every_steps else self.horizon.batches_offset
        self.metrics = TrainingMetrics(settings.log_every_steps, self.finite.check_means)
        self.initial_weights_hash = weights_hash(checkpoint.weights(self.objective.model))
        self.diverged: Diverged | None = None
        self.checkpoints = self.run_log.run_dir / "checkpoints"
        self.saved_at = time.monotonic()
        self.has_saved = False

    def fit(self) -> None:
        """Train to the horizon, evaluating on the way, then test the best weights."""
        try:
            self.objective.setup(self.data)
            with self.interruption.defer():
                self.train()
                self.test()
        except Diverged as error:
            report = advice(error, self.phases, self.progress.step, self.checkpoints / "last.pt")
            if self.settings.on_nonfinite != "stop":
                raise report from error
            self.diverged = report
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise out_of_memory(error, self.data, self.device) from error
            raise
        finally:
            self.data.close()
            self.summarize()

    def train(self) -> None:
        """All updates, and what is due between them. An interruption loses none."""
        check_schedules(self.phases, self.data)
        tried = partial(self.measure, limit_steps=1)
        if note := check_evaluations(self.monitor, self.settings, self.objective, self.data, tried):
            self.run_log.print(note)
        self.run_log.start_progress(self.last_step, self.progress.step)
        self.clock = Clock(self.progress, self.device)
        self.meetings = Meetings(self.ranks, self.progress.batches)
        profile_steps, planned = self.settings.profile_steps, self.last_step - self.progress.step
        try:
            if self.evaluation_is_due():  # the run was interrupted before it was over
                with self.clock.paused():
                    self.validate()
            self.set_training(True)
            with profiled(profile_steps, planned, self.run_log, self.device) as next_step:
                for update in self.updates():
                    self.train_step(update)
                    self.clock.count()
                    self.after_step()
                    next_step()
                    if self.is_done():
                        break
        except Interrupted:
            with self.clock.paused():
                self.save()
            raise
        self.set_training(False)

    def updates(self) -> Iterator[list[Batch]]:
        """The micro-batches of every update to come, epoch after epoch."""
        while not self.is_done():
            epoch, start = divmod(self.progress.batches, self.horizon.steps_per_epoch)
            yield from self.data.train(epoch, start, self.objective.mix)

    @property
    def best_value(self) -> float:
        """The best of the monitored metric; of a run that diverged, the worst there is."""
        best = self.progress.best
        return self.monitor.worst if best is None or self.diverged else best.value

    @property
    def eval_model(self) -> nn.Module:
        """What is measured and used: the average of the weights where there is one."""
        average = self.average
        return average.module if average and average.num_updates else self.objective.model

    def is_done(self) -> bool:
        return self.progress.step >= self.last_step or self.progress.stop_reason is not None

    def train_step(self, update: list[Batch]) -> None:
        """One optimizer update: for every phase, forward, backward, clip, step. All of it or none.

        Args:
            update: the micro-batches of the update; their gradients are averaged.
        """
        position = self.progress.batches
        self.computation.seed_update(position)
        before = Snapshot(self.objective, self.phases) if self.finite.may_skip else None
        is_logged = self.metrics.is_logging_step(self.progress.step + 1)
        is_finite = True
        sums: list[Sums] = []
        mode: Any = self.monitor.mode
        evaluations = Evaluations(tuple(self.progress.evaluations), mode)
        for phase in self.phases:
            phase.follow_schedules(self.progress.step, evaluations)
            losses, measured = phase.backward(update, self.computation)
            sums += measured
            sums.append(self.objective.after_backward(phase.name))
            if is_logged:
                self.metrics.norms |= phase.layer_grad_norms()
            grad_norm = phase.clip_gradients(always_measure=is_logged or self.finite.skips)
            is_finite = self.finite.check_update(phase.name, losses, grad_norm)
            if not is_finite:
                break
            step = partial(phase.step, update, self.computation, position)
            if is_logged:
                self.metrics.norms |= phase.measured_step(step, grad_norm, self.progress)
            else:
                step()
        if before is not None and not (update_scale(self.scaler) and is_finite):
            before.restore()
            self.progress.skipped += 1
            self.progress.skipped_in_a_row += 1
            return
        for metrics in sums:
            self.metrics.add(metrics)
        self.progress.step += 1
        if self.average is not None:
            self.average.update(self.objective.model, self.progress.step)
        self.progress.skipped_in_a_row = 0

    def after_step(self) -> None:
        """Whatever is due between two updates: logging, evaluation, checkpoints."""
        step = self.progress.step
        self.run_log.update_progress(step)
        check_skips(self.progress)
        if not self.progress.skipped_in_a_row:
            if self.metrics.is_logging_step(step):
                self.log_training()
            if self.evaluation_is_due():
                with self.clock.paused():
                    self.validate()
            elif self.checkpoint_is_due(step):
                with self.clock.paused():
                    self.save()
        if self.meetings.is_due(self.progress.batches):
            self.interruption.check()
            self.meetings.plan(self.progress.batches)

    def evaluation_is_due(self) -> bool:
        step = self.progress.step
        is_time = (step + self.eval_offset) % self.eval_every == 0 or step == self.last_step
        return is_time and step > self.progress.evaluated_at

    def log_training(self) -> None:
        """Record training's metrics, the rates and what else steers the optimizers."""
        values = self.metrics.values(self.progress.step)
        for phase in self.phases:
            values |= {f"optim/{phase.prefix}{name}": lr for name, lr in phase.lrs.items()}
        if self.scaler.is_enabled():
            values["optim/loss_scale"] = self.scaler.get_scale()
        if self.progress.skipped:
            values["optim/skipped"] = float(self.progress.skipped)
        self.clock.count()  # reading has waited for the device
        self.record(values)

    @property
    def epoch(self) -> float:
        """Epochs of training data consumed."""
        return self.progress.epochs(self.horizon.steps_per_epoch)

    def record(self, values: dict[str, float]) -> None:
        progress = self.progress
        self.run_log.log_metrics(values, progress.step, self.epoch, progress.train_seconds)

    def validate(self) -> None:
        """Evaluate, keep the best weights, decide whether to stop, save."""
        values, is_best = self.metrics.losses_since_evaluation(), False
        self.set_training(False)
        self.renew_statistics()
        for split in ("train_eval", "val"):
            if split in self.data.splits:
                metrics, samples = self.measure(split)
                values |= metrics
        if values:
            self.record(values)
        if "val" in self.data.splits:
            if self.objective.shows_samples:
                self.show(samples, "val")
            is_best = judge(values, self.monitor, self.progress, self.epoch, self.settings)
            step, seconds = self.progress.step, self.progress.train_seconds
            self.run_log.log_evaluation(step, seconds, values, is_best)
            with eager(self.settings.compile):  # a text grows: it would be compiled at every length
                preview = partial(self.objective.preview, self.eval_model)
                self.run_log.log_media("val", step, preview)
        self.summarize()
        self.metrics.since_eval.reset()
        self.progress.evaluated_at = self.progress.step
        self.save(is_best)
        self.set_training(True)

    def renew_statistics(self) -> None:
        """Batch norms of weights that no update was computed with have not seen their inputs."""
        average = self.average
        is_mean = average is not None and average.num_updates > 0 and average.stale_statistics
        if is_mean or any(phase.has_modes for phase in self.phases):
            estimate_statistics(self.objective, self.eval_model, self.data, self.precision)

    def show(self, samples: dict[str, Tensor], split: str) -> None:
        if samples:
            media = partial(self.objective.media, samples, self.data.splits[split])
            self.run_log.log_media(split, self.progress.step, media)

    def facts(self) -> dict[str, Any]:
        """What the summary says of the run before training."""
        return run_facts(self.objective.model, self.data, self.device, self.settings) | {
            "initial_weights_hash": self.initial_weights_hash,
            "horizon_steps": self.horizon.total_steps,
            "planned_steps": self.last_step,
            "precision": self.precision,
            "world_size": self.ranks.world_size,
        }

    def summarize(self) -> None:
        """Bring the summary up to date."""
        values = self.progress.summary(self.horizon.steps_per_epoch, self.data.batch_size) | {
            "optimizer_state_bytes": optimizer_state_bytes(self.phases),
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "data_order_hash": self.data.order_hash(self.progress.batches),
        }
        if self.diverged is not None:
            values |= {"status": "diverged", "stop_reason": str(self.diverged)}
        self.run_log.update_summary(values)

    def measure(
        self, split: str, limit_steps: int | None = None, keep_samples: bool = False
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics of ``split``, named ``val/loss`` and so on, and per-sample values to show."""
        means, samples = evaluate(
            self.objective,
            self.eval_model,
            self.data,
            split,
            self.precision,
            limit_steps or self.settings.limit_eval_steps,
            keep_samples=keep_samples,
            between=self.interruption.check,
        )
        return {f"{split}/{name}": value for name, value in means.items()}, samples

    def test(self) -> None:
        """Measure the weights that were best in validation on the test split, once."""
        if "test" not in self.data.splits or not self.settings.test:
            return
        if self.settings.checkpoint and self.progress.best is not None:
            best = self.checkpoints / "best.pt"
            weights = broadcast(checkpoint.measured_weights(best) if self.ranks.is_main else None)
            checkpoint.load_weights(self.eval_model, weights)
        metrics, samples = self.measure("test", keep_samples=True)
        self.record(metrics)
        self.show(samples, "test")

    def checkpoint_is_due(self, step: int) -> bool:
        every_steps = self.settings.checkpoint_every_steps
        every_seconds = self.settings.checkpoint_every_seconds
        if every_steps is not None and step % every_steps == 0:
            return True
        if every_seconds is None or not self.meetings.is_due(self.progress.batches):
            return False
        return agree(time.monotonic() - self.saved_at > every_seconds)

    def save(self, is_best: bool = False) -> None:
        """Write a checkpoint; gathering the state takes every process, writing only the first."""
        if not self.settings.checkpoint:
            return
        content = self.state_dict()
        if agree(not all_finite(content["model"].values())):
            raise Diverged("a weight is not finite")
        if self.ranks.is_main:
            checkpoint.write(content, self.checkpoints, is_best)
            if not self.has_saved:
                checkpoint.check_readable(self.checkpoints / "last.pt")
        self.run_log.summary["checkpoint_step"] = self.progress.step
        self.saved_at, self.has_saved = time.monotonic(), True

    def state_dict(self) -> dict[str, Any]:
        """Everything the run needs to go on; :func:`trainer.resume.restore` puts it back."""
        average = self.average
        averaged = average.module if average and average.num_updates else None
        return {
            "model": checkpoint.weights(self.objective.model),
            "ema": None if averaged is None else checkpoint.weights(averaged),
            "ema_updates": 0 if average is None else average.num_updates,
            "optimizers": {p.name: p.optimizer_state.state_dict() for p in self.phases},
            "scaler": self.scaler.state_dict(),
            "data": {
                **self.data.state(self.progress.batches),
                "carried": {name: value.cpu() for name, value in self.objective.state().items()},
            },
            "counters": asdict(self.progress),
            "metrics": self.metrics.state(),
            "num_events": self.run_log.num_events,
            "wandb": self.run_log.summary.get("wandb", {}),
            "format_version": checkpoint.FORMAT_VERSION,
        }

    def set_training(self, on: bool) -> None:
        self.objective.train(on)
        for phase in self.phases:
            phase.train_mode(on)

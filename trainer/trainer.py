"""The training loop: updates, and what happens between them.

The loop knows phases and metrics; what they mean is the objective's business.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.collectives import agree, broadcast, gather
from core.errors import ConfigError, Diverged, Interrupted
from core.progress import Best, Monitor, Progress
from core.ranks import Ranks
from core.schema import TrainerSettings
from data.loader import Loader
from data.splits import Batch
from models.build import weights_hash
from objectives.base import Objective, Sums
from optim.schedules import Horizon
from trainer import checkpoint
from trainer.averaging import Average
from trainer.distributed.device import autocast, peak_memory_bytes, synchronize
from trainer.evaluation import evaluate
from trainer.finite import Guard, Undo, all_finite
from trainer.loggers.run_log import RunLog
from trainer.metrics import Meter, own_share
from trainer.phase import Phase, optimizer_state_bytes
from trainer.signals import Interruption

MEETING_BATCHES = 5


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
    device: torch.device
    precision: str
    interruption: Interruption
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        settings = self.settings
        scales = self.precision == "fp16"
        skips = settings.on_nonfinite == "skip"
        reads_are_free = self.device.type == "cpu" and self.ranks.world_size == 1
        self.autocast = autocast(self.device, self.precision)  # making one takes 30 us
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scales)
        self.guard = Guard(skips, scales, reads_are_free)
        self.undo = Undo(self.objective, self.phases, is_needed=skips or scales)
        self.ema = None
        if settings.ema_decay is not None:
            self.ema = Average(self.objective.model, settings.ema_decay)
        limit = settings.limit_train_steps or self.horizon.total_steps
        self.last_step = min(self.horizon.total_steps, limit)
        self.eval_every = (
            settings.eval_every_steps or settings.eval_every_epochs * self.horizon.steps_per_epoch
        )
        self.eval_offset = 0 if settings.eval_every_steps else self.horizon.batches_offset
        self.meter = Meter()
        self.initial_weights_hash = weights_hash(checkpoint.weights(self.objective.model))
        self.diverged: Diverged | None = None
        self.writer = checkpoint.Writer(self.run_log.run_dir / "checkpoints")
        self.saved_at = time.monotonic()
        self.timed_until = time.perf_counter()

    def fit(self) -> None:
        """Train to the horizon, evaluating on the way, then test the best weights."""
        try:
            with self.interruption.defer():
                self.train()
                self.test()
        except Diverged as error:
            report = self.report(error)
            if self.settings.on_nonfinite != "stop":
                raise report from error
            self.diverged = report
        finally:
            self.data.close()
            self.summarize()

    def train(self) -> None:
        """All updates, and what is due between them. An interruption loses none."""
        self.objective.begin_training(self.data)
        self.check_monitor()
        self.run_log.start_progress(self.last_step, self.progress.step)
        try:
            if self.evaluation_is_due():  # the run was interrupted before it was over
                self.validate()
            self.set_training(True)
            while not self.is_done():
                epoch, start = divmod(self.progress.batches, self.horizon.steps_per_epoch)
                self.timed_until = time.perf_counter()
                for update in self.data.train(epoch, start, self.objective.mix):
                    self.train_step(update)
                    self.take_time()
                    self.after_step()
                    if self.is_done():
                        break
        except Interrupted:
            self.save()
            raise
        finally:
            self.writer.wait()
        self.set_training(False)

    @property
    def epoch(self) -> float:
        """Epochs of training data consumed."""
        return round(self.progress.batches / self.horizon.steps_per_epoch, 4)

    @property
    def best_value(self) -> float:
        """The best of the monitored metric; of a run that diverged, the worst there is."""
        best = self.progress.best
        return self.monitor.worst if best is None or self.diverged else best.value

    @property
    def eval_model(self) -> nn.Module:
        """What is measured and used: the average of the weights where there is one."""
        return self.objective.model if self.ema is None else self.ema.module

    def is_done(self) -> bool:
        return self.progress.step >= self.last_step or self.progress.stop_reason is not None

    def train_step(self, update: list[Batch]) -> None:
        """One optimizer update: for every phase, forward, backward, clip, step. All of it or none.

        Args:
            update: the micro-batches of the update; their gradients are averaged.
        """
        self.undo.remember()
        applied, sums = True, []
        for phase in self.phases:
            phase.set_lr(self.progress.step)
            phase.optimizer.zero_grad()
            for batch in update[:-1]:
                with phase.gradients_stay_local():
                    sums.append(self.backward(phase, batch, len(update)))
            sums.append(self.backward(phase, update[-1], len(update)))
            self.scaler.unscale_(phase.optimizer)
            grad_norm = phase.clip_norm(always_measure=self.guard.skips)
            applied = self.guard.may_apply(grad_norm, phase)
            if not applied:
                break
            if grad_norm is not None:
                sums.append({f"{self.prefix(phase)}grad_norm": (grad_norm, 1)})
            phase.clip_value()
            self.optimizer_step(phase)
        if not (self.update_scale() and applied):
            self.skip()
            return
        for part in sums:
            self.meter.add(part)
        if self.ema is not None:
            self.ema.update(self.objective.model)
        self.progress.step += 1
        self.progress.skipped_in_a_row = 0

    def skip(self) -> None:
        """The batch is consumed, and that is all that is left of its update."""
        self.undo.take_back()
        self.progress.skipped += 1
        self.progress.skipped_in_a_row += 1

    def backward(self, phase: Phase, batch: Batch, num_parts: int) -> Sums:
        """Add the gradient of one of the ``num_parts`` micro-batches of an update; its metrics."""
        with self.autocast:
            loss, sums = phase.compute(batch)
        self.guard.check_loss(loss, phase)
        self.scaler.scale(loss / num_parts if num_parts > 1 else loss).backward()
        return sums

    def optimizer_step(self, phase: Phase) -> None:
        """Apply the gradients; timed on logging steps only, since a GPU must be waited for."""
        if not self.is_logging_step(self.progress.step + 1):
            self.apply_gradients(phase)
            return
        synchronize(self.device)
        start = time.perf_counter()
        self.apply_gradients(phase)
        synchronize(self.device)
        self.progress.optimizer_seconds += time.perf_counter() - start
        self.progress.optimizer_steps_timed += 1

    def apply_gradients(self, phase: Phase) -> None:
        """Under fp16 the scaler leaves a step out whose gradients are not finite."""
        self.scaler.step(phase.optimizer)

    def update_scale(self) -> bool:
        """Adapt fp16's loss scale; whether the optimizers' steps were applied."""
        if not self.scaler.is_enabled():
            return True
        before = self.scaler.get_scale()
        self.scaler.update()
        return self.scaler.get_scale() >= before

    def report(self, error: Diverged) -> Diverged:
        """What went wrong, when, and what can be done."""
        good = self.run_log.run_dir / "checkpoints" / "last.pt"
        rates = ", ".join(f"{phase.lr:.3g}" for phase in self.phases)
        return Diverged(
            f"{error} after {self.progress.step} updates (lr {rates}); last good checkpoint: "
            f"{good if good.exists() else 'none'}. Try a lower learning rate, a warm-up or "
            "clip_grad_norm=1"
        )

    def after_step(self) -> None:
        """Whatever is due between two updates: logging, evaluation, checkpoints."""
        step = self.progress.step
        self.run_log.update_progress(step)
        if self.progress.skipped_in_a_row:
            self.guard.check_skips(self.progress.skipped_in_a_row)
        else:
            if self.is_logging_step(step):
                self.log_training()
            if self.evaluation_is_due():
                with self.untimed():
                    self.validate()
            elif self.checkpoint_is_due(step):
                with self.untimed():
                    self.save()
        if self.processes_meet:
            self.interruption.check()

    @property
    def processes_meet(self) -> bool:
        """Agreeing makes a GPU wait for the others: not after every update."""
        return self.ranks.world_size == 1 or self.progress.batches % MEETING_BATCHES == 0

    def is_logging_step(self, step: int) -> bool:
        return step % self.settings.log_every_steps == 0 or step == self.last_step

    def evaluation_is_due(self) -> bool:
        step = self.progress.step
        is_time = (step + self.eval_offset) % self.eval_every == 0 or step == self.last_step
        return is_time and step > self.progress.evaluated_at

    def log_training(self) -> None:
        """Record the means since the last time. The only place that reads values off the device."""
        means = self.meter.means()
        self.meter.reset()
        self.guard.check_means(means)
        values = {f"train/{name}": value for name, value in means.items()}
        for phase in self.phases:
            values[f"optim/{self.prefix(phase)}lr"] = phase.lr
        if self.scaler.is_enabled():
            values["optim/loss_scale"] = self.scaler.get_scale()
        if self.progress.skipped:
            values["optim/skipped"] = float(self.progress.skipped)
        self.record(values)

    def prefix(self, phase: Phase) -> str:
        """Of the phase's metrics: none where there is but one."""
        return "" if len(self.phases) == 1 else f"{phase.name}/"

    def record(self, values: dict[str, float]) -> None:
        progress = self.progress
        self.run_log.log_metrics(values, progress.step, self.epoch, progress.train_seconds)

    def validate(self) -> None:
        """Evaluate, remember the best weights, decide whether to stop, save."""
        if not self.meter.is_empty():
            self.log_training()
        is_best = False
        self.set_training(False)
        if "val" in self.data.splits:
            metrics, samples = self.measure("val")
            self.record(metrics)
            self.show(samples, "val")
            is_best = self.judge(metrics)
            self.run_log.log_evaluation(
                self.progress.step, self.progress.train_seconds, metrics, is_best
            )
            preview = partial(self.objective.preview, self.eval_model)
            self.run_log.log_media("val", self.progress.step, preview)
            self.summarize()
        self.progress.evaluated_at = self.progress.step
        self.save(is_best)
        self.set_training(True)

    def show(self, samples: dict[str, Tensor], split: str) -> None:
        if samples:
            media = partial(self.objective.media, samples, self.data.splits[split])
            self.run_log.log_media(split, self.progress.step, media)

    def facts(self) -> dict[str, Any]:
        """What the summary says of the run before training."""
        return {
            "initial_weights_hash": self.initial_weights_hash,
            "horizon_steps": self.horizon.total_steps,
            "planned_steps": self.last_step,
            "precision": self.precision,
            "world_size": self.ranks.world_size,
        }

    def summarize(self) -> None:
        """Bring the summary up to date."""
        values = self.progress.summary(self.horizon.steps_per_epoch, self.data.batch_size)
        if self.diverged is not None:
            values |= {"status": "diverged", "stop_reason": str(self.diverged)}
        self.run_log.update_summary(
            {
                **values,
                "optimizer_state_bytes": optimizer_state_bytes(self.phases),
                "peak_memory_bytes": peak_memory_bytes(self.device),
                "data_order_hash": self.data.order_hash(self.progress.batches),
            }
        )

    def measure(
        self, split: str, limit_steps: int | None = None
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        means, samples = evaluate(
            self.objective,
            self.eval_model,
            self.data,
            split,
            self.precision,
            limit_steps or self.settings.limit_eval_steps,
            between=self.interruption.check,
        )
        return {f"{split}/{name}": value for name, value in means.items()}, samples

    def check_monitor(self) -> None:
        """Refuse a metric that evaluations do not measure.

        The objective is taken at its word for those it declares; for another, one batch is tried.
        """
        settings, name = self.settings, self.monitor.name
        if "val" not in self.data.splits:
            needs = ("target", "early_stopping_patience")
            for setting in needs:
                if (value := getattr(settings, setting)) is not None:
                    raise ConfigError(
                        f"trainer.{setting}={value} needs a validation split, and "
                        f"data={self.data.spec.name} has none"
                    )
            self.run_log.print(
                f"there is no validation split: {name} is not measured, and the last weights are "
                "the ones that are tested"
            )
        elif name.removeprefix("val/") not in self.objective.metric_modes:
            state = checkpoint.random_state(self.device)
            metrics, _ = self.measure("val", limit_steps=1)
            checkpoint.restore_random_state(state, self.device)
            if name not in metrics:
                raise ConfigError(f"monitor={name} is not measured; there are {', '.join(metrics)}")

    def judge(self, metrics: dict[str, float]) -> bool:
        """Compare the monitored metric with the best so far, the target and the patience."""
        name, progress, settings = self.monitor.name, self.progress, self.settings
        if name not in metrics:
            raise ConfigError(f"monitor={name} is not measured; there are {', '.join(metrics)}")
        value = metrics[name]
        is_best = self.monitor.improves(value, self.best_value if progress.best else None)
        if is_best:
            progress.best = Best(value, progress.step, self.epoch)
            progress.evaluations_since_best = 0
        else:
            progress.evaluations_since_best += 1
        if progress.target is None and self.monitor.reaches(value, settings.target):
            seconds = round(progress.train_seconds, 3)
            progress.target = {"value": value, "step": progress.step, "seconds": seconds}
            if settings.stop_at_target:
                progress.stop_reason = f"{name} reached the target of {settings.target}"
        patience = settings.early_stopping_patience
        if patience is not None and progress.evaluations_since_best >= patience:
            progress.stop_reason = f"no better {name} in {patience} evaluations"
        return is_best

    def test(self) -> None:
        """Measure the weights that were best in validation on the test split, once."""
        best = self.run_log.run_dir / "checkpoints" / "best.pt"
        model = self.eval_model
        if "test" not in self.data.splits or not self.settings.test:
            return
        if self.settings.checkpoint and self.progress.best is not None:
            measured = checkpoint.measured_weights(best) if self.ranks.is_main else None
            checkpoint.load_weights(model, broadcast(measured))
        limit = self.settings.limit_eval_steps
        means, samples = evaluate(
            self.objective,
            model,
            self.data,
            "test",
            self.precision,
            limit,
            keep_samples=True,
            between=self.interruption.check,
        )
        self.record({f"test/{name}": value for name, value in means.items()})
        self.show(samples, "test")

    def checkpoint_is_due(self, step: int) -> bool:
        every_steps = self.settings.checkpoint_every_steps
        every_seconds = self.settings.checkpoint_every_seconds
        if every_steps is not None and step % every_steps == 0:
            return True
        if every_seconds is None or not self.processes_meet:
            return False
        return agree(time.monotonic() - self.saved_at > every_seconds)

    def save(self, is_best: bool = False) -> None:
        """Write a checkpoint; gathering the state takes every process, writing only the first."""
        if not self.settings.checkpoint:
            return
        content = self.state_dict()
        if agree(not all_finite(content["model"])):
            raise Diverged("a weight is not finite")
        self.saved_at = time.monotonic()
        if self.ranks.is_main:
            self.writer.write(content, is_best)

    def state_dict(self) -> dict[str, Any]:
        """Everything the run needs to go on as if it had not been interrupted."""
        ema, data = self.ema, self.data
        return {
            "model": checkpoint.weights(self.objective.model),
            "ema": None if ema is None else checkpoint.weights(ema.module),
            "optimizers": {p.name: p.optimizer_state.state_dict() for p in self.phases},
            "scaler": self.scaler.state_dict(),
            "rng": gather(checkpoint.random_state(self.device)),
            "data": {
                "order_hash": data.order_hash(self.progress.batches),
                "fingerprint": data.fingerprint,
                "batch_size": data.batch_size,
                "steps_per_epoch": data.steps_per_epoch,
                "carried": {name: value.cpu() for name, value in self.objective.state().items()},
            },
            "counters": {
                **asdict(self.progress),
                "ema_updates": None if ema is None else ema.num_updates,
                "meter": gather(self.meter.state()),
                "events": self.run_log.num_events,
            },
            "wandb": self.run_log.summary.get("wandb", {}),
            "format_version": checkpoint.FORMAT_VERSION,
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, of any number of processes.

        What this run has and the other had not, such as an average or a loss scale, starts afresh.
        """
        checkpoint.load_weights(self.objective.model, content["model"])
        counters = dict(content["counters"])
        ema_updates, _ = counters.pop("ema_updates"), counters.pop("events")
        if self.ema is not None:
            self.ema.module.load_state_dict(content["ema"] or content["model"])
            self.ema.num_updates = ema_updates or 0
        for phase in self.phases:
            phase.optimizer_state.load_state_dict(content["optimizers"][phase.name])
        if content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        self.objective.load_state(content["data"]["carried"])
        self.meter.load_state(own_share(counters.pop("meter"), self.ranks))
        best = counters.pop("best")
        self.progress = Progress(**counters, best=best and Best(**best))
        self.data.continue_order(content["data"]["order_hash"], self.progress.batches)

    def restore_random_state(self, content: dict[str, Any]) -> None:
        """Of this process; a process that was not there before keeps its own."""
        if self.ranks.rank < len(content["rng"]):
            checkpoint.restore_random_state(content["rng"][self.ranks.rank], self.device)

    def set_training(self, on: bool) -> None:
        self.objective.train(on)
        for phase in self.phases:
            phase.train_mode(on)

    def take_time(self) -> None:
        """Count what has passed as training: waiting for data, updates and logging."""
        now = time.perf_counter()
        self.progress.train_seconds += now - self.timed_until
        self.timed_until = now

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """Evaluation and checkpoints are not training."""
        start = time.perf_counter()
        yield
        self.timed_until += time.perf_counter() - start

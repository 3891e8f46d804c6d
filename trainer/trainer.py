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
from objectives.base import Objective
from optim.schedules import Horizon
from trainer import checkpoint
from trainer.averaging import Average
from trainer.distributed.device import autocast, peak_memory_bytes, synchronize
from trainer.evaluation import evaluate, judge
from trainer.finite import FiniteCheck, Snapshot, all_finite
from trainer.loggers.run_log import RunLog
from trainer.metrics import Meter, own_share
from trainer.phase import Phase, optimizer_state_bytes
from trainer.signals import Interruption

MEETING_BATCHES = 5
MAX_SKIPS_IN_A_ROW = 100  # then the run is lost, not unlucky


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
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.finite = FiniteCheck(
            skips=settings.on_nonfinite == "skip",
            reads_are_free=self.device.type == "cpu" and self.ranks.world_size == 1,
            is_scaled=self.scaler.is_enabled(),
        )
        self.ema = None
        if settings.ema_decay is not None:
            self.ema = Average(self.objective.model, settings.ema_decay)
        limit = settings.limit_train_steps or self.horizon.total_steps
        self.last_step = min(self.horizon.total_steps, limit)
        self.eval_every = (
            settings.eval_every_steps or settings.eval_every_epochs * self.horizon.steps_per_epoch
        )
        self.eval_offset = 0 if settings.eval_every_steps else self.horizon.batches_offset
        self.meter = Meter()  # of the updates that the next event averages
        self.eval_meter = Meter()  # of the updates since the last evaluation
        self.norms: dict[str, Tensor] = {}  # at the last logging step
        self.initial_weights_hash = weights_hash(checkpoint.weights(self.objective.model))
        self.diverged: Diverged | None = None
        self.writer = checkpoint.Writer(self.run_log.run_dir / "checkpoints")
        self.saved_at = time.monotonic()
        self.timed_until = time.perf_counter()

    def fit(self) -> None:
        """Train to the horizon, evaluating on the way, then test the best weights."""
        try:
            self.objective.setup(self.data)
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
        self.check_monitor()
        self.run_log.start_progress(self.last_step, self.progress.step)
        try:
            self.timed_until = time.perf_counter()
            if self.evaluation_is_due():  # the run was interrupted before it was over
                with self.untimed():
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
            with self.untimed():
                self.save()
            raise
        finally:
            self.writer.wait()
        self.set_training(False)

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
        before = Snapshot(self.objective, self.phases) if self.finite.may_skip else None
        is_logged = self.is_logging_step(self.progress.step + 1)
        is_finite, sums = True, []
        for phase in self.phases:
            phase.set_lr(self.progress.step)
            phase.optimizer.zero_grad()
            losses = []
            for number, batch in enumerate(update, start=1):
                with phase.gradient_exchange(is_last=number == len(update)):
                    with autocast(self.device, self.precision):
                        loss, metrics = phase.compute(batch)
                    self.scaler.scale(loss / len(update)).backward()
                losses.append(loss.detach())
                sums.append(metrics)
            self.scaler.unscale_(phase.optimizer)
            grad_norm = phase.clip_gradients(always_measure=is_logged or self.finite.skips)
            is_finite = self.finite.check_update(phase.name, losses, grad_norm)
            if not is_finite:
                break
            if is_logged:
                self.measured_step(phase, grad_norm)
            else:
                self.scaler.step(phase.optimizer)
        if before is not None and not (self.update_scale() and is_finite):
            before.restore()
            self.progress.skipped += 1
            self.progress.skipped_in_a_row += 1
            return
        for metrics in sums:
            self.meter.add(metrics)
            self.eval_meter.add(metrics)
        if self.ema is not None:
            self.ema.update(self.objective.model)
        self.progress.step += 1
        self.progress.skipped_in_a_row = 0

    def measured_step(self, phase: Phase, grad_norm: Tensor | None) -> None:
        """The optimizer's step at a logging step: timed, with the norms of what it did."""
        before = phase.copy_weights()
        synchronize(self.device)
        start = time.perf_counter()
        self.scaler.step(phase.optimizer)
        synchronize(self.device)
        self.progress.optimizer_seconds += time.perf_counter() - start
        self.progress.optimizer_steps_timed += 1
        prefix = self.prefix(phase)
        assert grad_norm is not None
        self.norms |= {
            f"train/{prefix}grad_norm": grad_norm,
            f"optim/{prefix}weight_norm": phase.weight_norm(),
            f"optim/{prefix}update_norm": phase.update_norm(before),
        }

    def update_scale(self) -> bool:
        """Adapt fp16's loss scale; whether the optimizers' steps were applied."""
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
        skips = self.progress.skipped_in_a_row
        if skips >= MAX_SKIPS_IN_A_ROW:
            raise Diverged(f"{skips} updates in a row had losses or gradients not finite")
        if not skips:
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
        """The first update and every ``log_every_steps``-th, whatever else is due."""
        return step == 1 or step % self.settings.log_every_steps == 0

    def evaluation_is_due(self) -> bool:
        step = self.progress.step
        is_time = (step + self.eval_offset) % self.eval_every == 0 or step == self.last_step
        return is_time and step > self.progress.evaluated_at

    def log_training(self) -> None:
        """Record the means of the last ``log_every_steps`` updates, and the norms of this one.

        The first update is recorded by itself, and counts in the means that follow as well, so
        that they are all over the same number of updates.
        """
        means = self.meter.means()
        if self.progress.step % self.settings.log_every_steps == 0:
            self.meter.reset()
        self.finite.check_means(means)
        values = {f"train/{name}": value for name, value in means.items()}
        values |= {name: norm.item() for name, norm in self.norms.items()}
        for phase in self.phases:
            values[f"optim/{self.prefix(phase)}lr"] = phase.lr
        if self.scaler.is_enabled():
            values["optim/loss_scale"] = self.scaler.get_scale()
        if self.progress.skipped:
            values["optim/skipped"] = float(self.progress.skipped)
        self.take_time()  # reading has waited for the device
        self.record(values)

    def losses_since_evaluation(self) -> dict[str, float]:
        """Means of the training losses since the last evaluation: at the defaults, the epoch's."""
        means = self.eval_meter.means()
        self.finite.check_means(means)
        return {
            f"train/{name}_since_eval": value
            for name, value in means.items()
            if name.endswith("loss")
        }

    def prefix(self, phase: Phase) -> str:
        """Of the phase's metrics: none where there is but one."""
        return "" if len(self.phases) == 1 else f"{phase.name}/"

    @property
    def epoch(self) -> float:
        """Epochs of training data consumed."""
        return round(self.progress.batches / self.horizon.steps_per_epoch, 4)

    def record(self, values: dict[str, float]) -> None:
        progress = self.progress
        self.run_log.log_metrics(values, progress.step, self.epoch, progress.train_seconds)

    def validate(self) -> None:
        """Evaluate, keep the best weights, decide whether to stop, save."""
        losses, is_best = self.losses_since_evaluation(), False
        self.set_training(False)
        if "val" in self.data.splits:
            metrics, samples = self.measure("val")
            self.record({**losses, **metrics})
            self.show(samples, "val")
            is_best = judge(metrics, self.monitor, self.progress, self.epoch, self.settings)
            self.run_log.log_evaluation(
                self.progress.step, self.progress.train_seconds, {**losses, **metrics}, is_best
            )
            preview = partial(self.objective.preview, self.eval_model)
            self.run_log.log_media("val", self.progress.step, preview)
        elif losses:
            self.record(losses)
        self.summarize()
        self.eval_meter.reset()
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

    def test(self) -> None:
        """Measure the weights that were best in validation on the test split, once."""
        if "test" not in self.data.splits or not self.settings.test:
            return
        if self.settings.checkpoint and self.progress.best is not None:
            best = self.run_log.run_dir / "checkpoints" / "best.pt"
            measured = checkpoint.measured_weights(best) if self.ranks.is_main else None
            checkpoint.load_weights(self.eval_model, broadcast(measured))
        metrics, samples = self.measure("test", keep_samples=True)
        self.record(metrics)
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
        if agree(not all_finite(content["model"].values())):
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
                "eval_meter": gather(self.eval_meter.state()),
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
        self.eval_meter.load_state(own_share(counters.pop("eval_meter"), self.ranks))
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
        """Evaluation and checkpoints are not training; what a GPU still has queued is."""
        synchronize(self.device)
        self.take_time()
        try:
            yield
        finally:
            self.timed_until = time.perf_counter()

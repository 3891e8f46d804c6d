"""The training loop: updates, and the logging, evaluation and checkpoints between them.

The loop is generic over phases and metrics; the objective defines what they mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from core.errors import Diverged, Interrupted
from core.progress import Monitor, Progress
from core.ranks import Ranks
from core.schema import TrainerSettings
from data.loader import Loader
from data.splits import Batch
from models.build import weights_hash
from objectives.base import Objective, Sums
from optim.schedules import Evaluations, Horizon
from trainer.averaging import build_average, estimate_statistics
from trainer.checkpoint.files import weights_of
from trainer.checkpoint.state import Checkpoints
from trainer.cuda_graph import GraphedUpdate
from trainer.distributed.device import choose_precision, eager, explain_oom, peak_memory_bytes
from trainer.evaluation import check_evaluations, evaluate, is_evaluation_step, judge
from trainer.finite import FiniteCheck, Snapshot, advice, count_skip
from trainer.loggers.profiling import profiled
from trainer.loggers.provenance import run_facts
from trainer.loggers.run_log import RunLog
from trainer.metrics import Clock, TrainingMetrics
from trainer.phase import Computation, Phase, optimizer_state_bytes
from trainer.signals import Interruption, SyncSchedule


@dataclass
class Trainer:
    """Trains an objective on data: :meth:`fit` is a whole run, :meth:`train_step` one update."""

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
        self.computation = Computation(self.device, self.precision, self.data.seed, self.ranks.rank)
        self.finite = FiniteCheck(
            skips=settings.on_nonfinite == "skip",
            reads_are_free=self.device.type == "cpu" and self.ranks.world_size == 1,
            is_scaled=self.computation.scaler.is_enabled(),
        )
        self.average = build_average(settings, self.objective.model, self.horizon)
        limit = settings.limit_train_steps or self.horizon.total_steps
        self.last_step = min(self.horizon.total_steps, limit)
        self.metrics = TrainingMetrics(settings.log_every_steps, self.finite.check_means)
        self.initial_weights_hash = weights_hash(weights_of(self.objective.model))
        self.diverged: Diverged | None = None
        self.graph: GraphedUpdate | None = None
        if settings.cuda_graph:
            compute = partial(self.compute_update, is_logged=False)
            self.graph = GraphedUpdate(compute, self.phases)
        self.checkpoints = Checkpoints(
            settings=settings,
            run_log=self.run_log,
            ranks=self.ranks,
            objective=self.objective,
            phases=self.phases,
            average=self.average,
            scaler=self.computation.scaler,
            data=self.data,
            metrics=self.metrics,
        )

    def fit(self) -> None:
        """Train to the horizon with periodic evaluations, then test the best weights."""
        try:
            with explain_oom(self.data):
                self.objective.setup(self.data)
                with self.interruption.defer():
                    self.train()
                    self.test()
        except Diverged as error:
            report = advice(error, self.phases, self.progress.step, self.checkpoints.last)
            if self.settings.on_nonfinite != "stop":
                raise report from error
            self.diverged = report
        finally:
            self.data.close()
            self.summarize()

    def train(self) -> None:
        """Run all remaining updates. An interrupted run saves its state, so no update is lost."""
        check_evaluations(
            monitor=self.monitor,
            settings=self.settings,
            objective=self.objective,
            phases=self.phases,
            data=self.data,
            tried=partial(self.measure, limit_steps=1),
            say=self.run_log.print,
        )
        self.run_log.start_progress(self.last_step, self.progress.step)
        self.clock = Clock(self.progress, self.device)
        self.sync_schedule = SyncSchedule(self.ranks, self.progress.batches)
        profile_steps, planned = self.settings.profile_steps, self.last_step - self.progress.step
        try:
            if self.evaluation_is_due():  # the run was interrupted during this evaluation
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
            self.save()
            raise
        self.set_training(False)

    def updates(self) -> Iterator[list[Batch]]:
        """Yield the micro-batches of every remaining update, epoch by epoch."""
        while not self.is_done():
            epoch, start = divmod(self.progress.batches, self.horizon.steps_per_epoch)
            yield from self.data.train(epoch, start, self.objective.mix)

    def is_done(self) -> bool:
        return self.progress.step >= self.last_step or self.progress.stop_reason is not None

    def train_step(self, update: list[Batch]) -> None:
        """One update: forward, backward, clip and step for every phase. All phases step, or none.

        Args:
            update: the micro-batches of the update; their gradients are averaged.
        """
        self.computation.begin_update(self.progress.batches)
        before = Snapshot(self.objective, self.phases) if self.finite.may_skip else None
        is_logged = self.metrics.is_logging_step(self.progress.step + 1)
        mode: Any = self.monitor.mode
        evaluations = Evaluations(tuple(self.progress.evaluations), mode)
        for phase in self.phases:
            phase.follow_schedules(self.progress.step, evaluations)
        if self.graph is None or is_logged:
            sums = self.compute_update(update, is_logged)
        else:
            sums = self.graph(update)
        if before is not None and not (self.computation.update_scale() and sums is not None):
            before.restore()
            count_skip(self.progress)
            return
        for metrics in sums or []:
            self.metrics.add(metrics)
        self.progress.step += 1
        if self.average is not None:
            self.average.update(self.objective.model, self.progress.step)
        self.progress.skipped_in_a_row = 0

    def compute_update(self, update: list[Batch], is_logged: bool) -> list[Sums] | None:
        """Forward, backward, clip and step for every phase; returns the sums to record.

        Args:
            is_logged: also measure norms and times, which synchronizes with the device.

        Returns:
            The sums, or None if a loss or gradient is not finite; its phase has then not stepped.
        """
        sums: list[Sums] = []
        for phase in self.phases:
            losses, measured = phase.backward(update, self.computation)
            sums += [*measured, self.objective.after_backward(phase.name)]
            if is_logged:
                gradients = [parameter.grad for parameter in phase.parameters]
                self.metrics.norms |= phase.layer_norms("grad_norm", gradients)
            grad_norm = phase.clip_gradients(always_measure=is_logged or self.finite.skips)
            if not self.finite.check_update(phase.name, losses, grad_norm):
                return None
            if is_logged:
                self.metrics.norms |= phase.measured_step(
                    update, self.computation, grad_norm, self.progress
                )
            else:
                phase.step(update, self.computation)
        return sums

    def after_step(self) -> None:
        """Log, evaluate, save a checkpoint and check for stop signals, whichever is due."""
        step = self.progress.step
        self.run_log.update_progress(step)
        is_sync_point = self.sync_schedule.is_due(self.progress.batches)
        if not self.progress.skipped_in_a_row:
            if self.metrics.is_logging_step(step):
                self.log_training()
            if self.evaluation_is_due():
                self.validate()
            elif self.checkpoints.is_due(step, is_sync_point):
                self.save()
        if is_sync_point:
            self.interruption.check()
            self.sync_schedule.plan(self.progress.batches)

    def log_training(self) -> None:
        """Log training metrics, scheduled settings, the loss scale and the skipped updates."""
        values = self.metrics.values(self.progress.step)
        for phase in self.phases:
            values |= {f"optim/{phase.prefix}{name}": lr for name, lr in phase.lrs.items()}
        if self.finite.is_scaled:
            values["optim/loss_scale"] = self.computation.scaler.get_scale()
        if self.progress.skipped:
            values["optim/skipped"] = float(self.progress.skipped)
        self.clock.count()  # reading the values waited for the device
        self.record(values)

    def record(self, values: dict[str, float]) -> None:
        progress = self.progress
        self.run_log.log_metrics(values, progress.step, self.epoch, progress.train_seconds)

    @property
    def epoch(self) -> float:
        """Epochs of training data consumed."""
        return self.progress.epochs(self.horizon.steps_per_epoch)

    def evaluation_is_due(self) -> bool:
        step = self.progress.step
        is_time = step == self.last_step or is_evaluation_step(step, self.settings, self.horizon)
        return is_time and step > self.progress.evaluated_at

    def validate(self) -> None:
        """Evaluate, keep the best weights, decide whether to stop, save."""
        with self.clock.paused():
            values, is_best = self.metrics.losses_since_evaluation(), False
            self.set_training(False)
            is_mean = self.average is not None and self.average.has_stale_statistics
            if is_mean or any(phase.has_modes for phase in self.phases):
                # the batch norm statistics were not collected with these weights
                estimate_statistics(self.objective, self.eval_model, self.data, self.precision)
            for split in ("train_eval", "val"):
                if split in self.data.splits:
                    metrics, samples = self.measure(split)
                    values |= metrics
            if values:
                self.record(values)
            if "val" in self.data.splits:
                is_planned = is_evaluation_step(self.progress.step, self.settings, self.horizon)
                is_best = judge(
                    values, self.monitor, self.progress, self.epoch, self.settings, is_planned
                )
                if self.objective.shows_samples:
                    self.show(samples, "val")
                step, seconds = self.progress.step, self.progress.train_seconds
                self.run_log.log_evaluation(step, seconds, values, is_best)
                with eager(self.settings.compile):  # generated text grows: each length recompiles
                    preview = partial(self.objective.preview, self.eval_model)
                    self.run_log.log_media("val", step, preview)
            self.summarize()
            self.metrics.since_eval.reset()
            self.progress.evaluated_at = self.progress.step
            self.checkpoints.save(self.progress, is_best)
            self.set_training(True)

    def show(self, samples: dict[str, Tensor], split: str) -> None:
        if samples:
            media = partial(self.objective.media, samples, self.data.splits[split])
            self.run_log.log_media(split, self.progress.step, media)

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

    @property
    def eval_model(self) -> nn.Module:
        """The model to evaluate: the averaged weights if there are any, else the current ones."""
        average = self.average
        return average.module if average and average.num_updates else self.objective.model

    def test(self) -> None:
        """Evaluate the weights with the best validation result on the test split, once."""
        if "test" not in self.data.splits or not self.settings.test:
            return
        if self.settings.checkpoint and self.progress.best is not None:
            self.checkpoints.load_best(self.eval_model)
        metrics, samples = self.measure("test", keep_samples=True)
        self.record(metrics)
        self.show(samples, "test")

    def save(self) -> None:
        with self.clock.paused():
            self.checkpoints.save(self.progress)

    def set_training(self, on: bool) -> None:
        self.objective.train(on)
        for phase in self.phases:
            phase.train_mode(on)

    @property
    def best_value(self) -> float:
        """Best value of the monitored metric; the worst possible one if the run diverged."""
        best = self.progress.best
        return self.monitor.worst if best is None or self.diverged else best.value

    def facts(self) -> dict[str, Any]:
        """Summary entries that are known before training starts."""
        return run_facts(self.objective.model, self.data, self.settings) | {
            "initial_weights_hash": self.initial_weights_hash,
            "horizon_steps": self.horizon.total_steps,
            "planned_steps": self.last_step,
            "precision": self.precision,
        }

    def summarize(self) -> None:
        """Update the run's summary."""
        values = self.progress.summary(self.horizon.steps_per_epoch, self.data.batch_size) | {
            "optimizer_state_bytes": optimizer_state_bytes(self.phases),
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "data_order_hash": self.data.order_hash(self.progress.batches),
        }
        if self.diverged is not None:
            values |= {"status": "diverged", "stop_reason": str(self.diverged)}
        self.run_log.update_summary(values)

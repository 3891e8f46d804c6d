"""Save and restore the complete state of a run."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn
from torch.amp import GradScaler

from core.collectives import agree, broadcast, local_tensor
from core.errors import ConfigError, Diverged
from core.progress import Best, Progress
from core.ranks import Ranks
from core.schema import TrainerSettings
from data.loader import Loader
from objectives.base import Objective
from trainer.averaging import Average
from trainer.checkpoint import files
from trainer.finite import all_finite
from trainer.loggers.run_log import RunLog
from trainer.metrics import TrainingMetrics
from trainer.phase import Phase


@dataclass
class Checkpoints:
    """Writes and restores checkpoints. Holds all training state except the progress."""

    settings: TrainerSettings
    run_log: RunLog
    ranks: Ranks
    objective: Objective
    phases: list[Phase]
    average: Average | None
    scaler: GradScaler
    data: Loader
    metrics: TrainingMetrics
    has_saved: bool = False
    saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.folder = self.run_log.run_dir / "checkpoints"
        self.last = self.folder / "last.pt"

    def is_due(self, step: int, is_sync_point: bool) -> bool:
        """Whether the checkpoint interval, in updates or in seconds, has elapsed.

        Args:
            is_sync_point: whether all processes are synchronized now, to agree on the time.
        """
        every_steps = self.settings.checkpoint_every_steps
        every_seconds = self.settings.checkpoint_every_seconds
        if every_steps is not None and step % every_steps == 0:
            return True
        if every_seconds is None or not is_sync_point:
            return False
        return agree(time.monotonic() - self.saved_at > every_seconds)

    def save(self, progress: Progress, is_best: bool = False) -> None:
        """Write a checkpoint. Every process must call this to gather the state; rank 0 writes.

        Raises:
            Diverged: if a weight is not finite.
            ConfigError: if it cannot be written, or the first one cannot be read back.
        """
        if not self.settings.checkpoint:
            return
        if agree(not all_finite(map(local_tensor, self.objective.model.state_dict().values()))):
            raise Diverged("a weight is not finite")
        content = self.state_dict(progress)
        if self.ranks.is_main:
            files.write(content, self.folder, is_best)
            if not self.has_saved:
                self.check_readable()
        self.run_log.summary["checkpoint_step"] = progress.step
        self.saved_at, self.has_saved = time.monotonic(), True

    def check_readable(self) -> None:
        try:
            files.load(self.last)
        except ConfigError as error:
            raise ConfigError(
                f"this run could not be resumed: {self.last} has objects that are neither "
                "tensors nor plain values, usually in the optimizer's state; choose another "
                "optimizer, or trainer.checkpoint=false"
            ) from error

    def state_dict(self, progress: Progress) -> dict[str, Any]:
        """The complete state of the run in host memory; only rank 0 gets the tensors.

        Collective under FSDP: every process must call it.
        """
        average = self.average
        averaged = average.module if average and average.num_updates else None
        content = {
            "model": files.weights_to_save(self.objective.model),
            "ema": None if averaged is None else files.weights_to_save(averaged),
            "ema_updates": 0 if average is None else average.num_updates,
            "optimizers": {p.name: p.optimizer_state.state_dict() for p in self.phases},
            "scaler": self.scaler.state_dict(),
            "data": {**self.data.state(progress.batches), "carried": self.objective.state()},
            "counters": asdict(progress),
            "metrics": self.metrics.state(),
            "num_events": self.run_log.num_events,
            "wandb": self.run_log.summary.get("wandb", {}),
            "format_version": files.FORMAT_VERSION,
        }
        return files.to_host(content, keep=self.ranks.is_main)

    def restore(self, content: dict[str, Any]) -> Progress:
        """Restore :meth:`state_dict`, which may be of another number of processes.

        State that the checkpoint lacks, such as an average or a loss scale, starts afresh.
        """
        files.load_weights(self.objective.model, content["model"])
        if self.average is not None:
            self.average.module.load_state_dict(content["ema"] or content["model"])
            self.average.num_updates = content["ema_updates"]
        for phase in self.phases:
            phase.optimizer_state.load_state_dict(content["optimizers"][phase.name])
        if content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        self.objective.load_state(content["data"]["carried"])
        self.metrics.load_state(content["metrics"], self.ranks)
        best = content["counters"]["best"]
        progress = Progress(**content["counters"] | {"best": best and Best(**best)})
        self.data.continue_order(content["data"]["order_hash"], progress.batches)
        return progress

    def load_best(self, model: nn.Module) -> None:
        """Load the weights with the best validation result into ``model``."""
        best = self.folder / "best.pt"
        weights = files.measured_weights(best) if self.ranks.is_main else None
        files.load_weights(model, broadcast(weights))

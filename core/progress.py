"""Progress of a run: counters kept in its checkpoint, and the monitored metric."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Best:
    """The best value of the monitored metric so far, and where it was reached."""

    value: float
    step: int
    epoch: float


@dataclass
class Progress:
    """Counters of a run; all of them are in the checkpoint."""

    step: int = 0  # optimizer updates made
    skipped: int = 0  # batches consumed without an update, because a gradient was not finite
    skipped_in_a_row: int = 0
    evaluated_at: int = 0  # step of the last evaluation
    stop_reason: str | None = None  # why training ended before its horizon
    train_seconds: float = 0.0  # evaluation, checkpoints and start-up excluded
    evaluations: list[float] = field(default_factory=list)  # values of the monitored metric
    best: Best | None = None
    evaluations_since_best: int = 0
    target: dict[str, float] | None = None  # value, step, seconds when it was first reached
    optimizer_seconds: float = 0.0
    optimizer_steps_timed: int = 0
    batches_offset: int = 0  # non-zero after resuming with another batch size

    @property
    def batches(self) -> int:
        """Position in the data, in batches of the current size."""
        return self.step + self.skipped + self.batches_offset

    def epochs(self, steps_per_epoch: int) -> float:
        """Epochs of training data consumed."""
        return round(self.batches / steps_per_epoch, 4)

    def summary(self, steps_per_epoch: int, batch_size: int) -> dict[str, Any]:
        """The entries of ``summary.json``."""
        seconds, timed = self.train_seconds, self.optimizer_steps_timed
        return {
            "steps": self.step,
            "skipped_steps": self.skipped,
            "epochs": self.epochs(steps_per_epoch),
            "train_seconds": round(seconds, 4),
            "samples_per_second": self.batches * batch_size / seconds if seconds else 0.0,
            "step_ms": 1000 * seconds / max(self.batches, 1),
            "optimizer_step_ms": 1000 * self.optimizer_seconds / timed if timed else None,
            "best": self.best and asdict(self.best),
            "target": self.target,
            "stop_reason": self.stop_reason,
        }


@dataclass(frozen=True)
class Monitor:
    """The monitored metric, and whether it is maximized (``max``) or minimized (``min``)."""

    name: str
    mode: str

    def improves(self, value: float, on: float | None) -> bool:
        if math.isnan(value):
            return False
        return on is None or (value > on if self.mode == "max" else value < on)

    def reaches(self, value: float, target: float | None) -> bool:
        if target is None or math.isnan(value):
            return False
        return not self.improves(target, value)

    def loss(self, value: float) -> float:
        """The value, negated if need be so that lower is better."""
        return -value if self.mode == "max" else value

    @property
    def worst(self) -> float:
        return -math.inf if self.mode == "max" else math.inf

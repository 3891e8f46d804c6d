"""Where and in which precision updates are computed, the random numbers they draw, and what that
does not suit."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.amp import GradScaler
from torch.optim import Optimizer

from core.errors import ConfigError
from core.schema import TrainerSettings
from data.draws import OPTIMIZER_STREAM, UPDATE_STREAM, drawing, seed_process
from objectives.base import Objective
from optim.needs import Needs
from trainer.distributed.device import choose_precision


@dataclass(frozen=True)
class Computation:
    """What is the same for every update of a run and all of its phases.

    Args:
        seed: the run's.
        rank: of this process.
    """

    device: torch.device
    precision: str
    scaler: GradScaler
    seed: int
    rank: int

    def seed_update(self, position: int) -> None:
        """Draws such as dropout's depend on the position in the run: no state for resuming."""
        seed_process(self.device, self.seed, UPDATE_STREAM, position, self.rank)

    def again(self, position: int) -> AbstractContextManager:
        """The draws of the update once more; afterwards they go on where they were."""
        return drawing(self.device, self.seed, UPDATE_STREAM, position, self.rank)

    def optimizer_draws(self, position: int) -> AbstractContextManager:
        """Draws of an optimizer, the same ones on every process."""
        return drawing(self.device, self.seed, OPTIMIZER_STREAM, position)


def check_needs(
    needs: Needs, optimizer: Optimizer, objective: Objective, settings: TrainerSettings, where: str
) -> None:
    """Refuse what does not go with an optimizer that differentiates or evaluates again.

    Raises:
        ConfigError: a setting or the objective stands against it.
    """
    if not (needs.graph or needs.closure):
        return
    device = next(objective.parameters()).device
    kept = objective.state()
    hooked = type(objective).after_backward is not Objective.after_backward
    against = {
        "one phase, and the objective has several": len(objective.phases()) > 1,
        "trainer.precision=fp32 or bf16: fp16 scales the loss": (
            choose_precision(settings.precision, device) == "fp16"
        ),
        "trainer.strategy=ddp": settings.strategy == "fsdp",
    }
    if needs.graph:
        against |= {
            "trainer.compile=false": bool(settings.compile),
            "one process: the exchange of gradients cuts their graphs": dist.is_initialized(),
        }
    else:
        against |= {
            "trainer.on_nonfinite=raise or stop": settings.on_nonfinite == "skip",
            f"an objective without {', '.join(kept)} from update to update": bool(kept),
            "an objective without after_backward": hooked,
            "no random numbers in its step": needs.draws,
        }
    for wanted, is_against in against.items():
        if is_against:
            how = "differentiates gradients" if needs.graph else "evaluates the loss"
            name = type(optimizer).__name__
            raise ConfigError(f"{where}: {name} {how} again, which needs {wanted}")

"""The state of a run as tensors and primitives, and back: what a checkpoint holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from core.progress import Best, Progress
from core.ranks import Ranks
from trainer import checkpoint
from trainer.distributed.process_group import gather, whole
from trainer.metrics import MeterState

if TYPE_CHECKING:
    from trainer.trainer import Trainer


def capture(trainer: Trainer) -> dict[str, Any]:
    """Everything a run needs to continue as if it had not been interrupted."""
    ema = trainer.ema
    return {
        "model": weights(trainer.objective.model),
        "ema": None if ema is None else weights(ema.module),
        "optimizers": {phase.name: optimizer_state(phase.optimizer) for phase in trainer.phases},
        "schedulers": {phase.name: {"base_lrs": phase.base_lrs} for phase in trainer.phases},
        "scaler": trainer.scaler.state_dict(),
        "rng": gather(checkpoint.random_state(trainer.device)),
        "data": {
            "order_hash": trainer.data.order_hash(trainer.progress.batches),
            "fingerprint": trainer.data.fingerprint,
            "carried": {name: value.cpu() for name, value in trainer.objective.state().items()},
        },
        "counters": {
            **asdict(trainer.progress),
            "ema_updates": None if ema is None else ema.num_updates,
            "meter": gather(trainer.meter.state()),
            "events": trainer.records.num_events,
        },
        "wandb": trainer.records.wandb_state(),
        "format_version": checkpoint.FORMAT_VERSION,
    }


def restore(trainer: Trainer, content: dict[str, Any]) -> None:
    """Put a freshly built trainer where ``content`` was captured.

    Loading comes after everything is built, since building a schedule or an optimizer sets rates.
    """
    load_weights(trainer.objective.model, content["model"])
    if trainer.ema is not None:
        trainer.ema.module.load_state_dict(content["ema"])
        trainer.ema.num_updates = content["counters"]["ema_updates"]
    for phase in trainer.phases:
        load_optimizer_state(phase.optimizer, content["optimizers"][phase.name])
        phase.base_lrs = content["schedulers"][phase.name]["base_lrs"]
    trainer.scaler.load_state_dict(content["scaler"])
    states = content["rng"]
    if trainer.ranks.rank < len(states):
        checkpoint.restore_random_state(states[trainer.ranks.rank], trainer.device)
    trainer.objective.load_state(content["data"]["carried"])
    counters = dict(content["counters"])
    for name in ("ema_updates", "events"):
        counters.pop(name)
    trainer.meter.load_state(own_share(counters.pop("meter"), trainer.ranks))
    best = counters.pop("best")
    trainer.progress = Progress(**counters, best=best and Best(**best))
    trainer.data.continue_order(content["data"]["order_hash"], trainer.progress.batches)


def own_share(meters: list[MeterState], ranks: Ranks) -> list[MeterState]:
    """Of what each process had summed up: its own; had they another number, all for rank 0."""
    if len(meters) == ranks.world_size:
        return [meters[ranks.rank]]
    if ranks.is_main:
        return meters
    return [dict.fromkeys(meter, (0.0, 0)) for meter in meters]  # the same names everywhere


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The flat state dict of a model, on the CPU, free of wrappers' prefixes.

    Under FSDP every process must take part.
    """
    return {
        name.replace("_orig_mod.", ""): whole(value.detach()).cpu().contiguous()
        for name, value in model.state_dict().items()
    }


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load what :func:`weights` returned, under FSDP or not."""
    current = model.state_dict()
    model.load_state_dict(
        {name: share_of(value, current.get(name)) for name, value in weights.items()}
    )


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's state dict with every tensor in one piece."""
    content = optimizer.state_dict()
    content["state"] = {
        index: {key: whole(value) for key, value in state.items()}
        for index, state in content["state"].items()
    }
    return content


def load_optimizer_state(optimizer: Optimizer, content: dict[str, Any]) -> None:
    """Load what :func:`optimizer_state` returned, under FSDP or not."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    shares = {
        index: {
            key: share_of(value, parameters[index]) if is_like(value, parameters[index]) else value
            for key, value in state.items()
        }
        for index, state in content["state"].items()
    }
    optimizer.load_state_dict({**content, "state": shares})


def is_like(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def share_of(value: Tensor, current: Tensor | None) -> Tensor:
    """What this process keeps of ``value``: its share where FSDP has spread ``current``."""
    if current is None or not hasattr(current, "full_tensor"):
        return value
    from trainer.distributed.fsdp import spread_like

    return spread_like(value, current)

"""A phase of an update, with its own parameters, optimizer, schedule and gradient clipping."""

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from core.collectives import full_tensor, mean_over_ranks
from core.errors import ConfigError
from core.progress import Progress
from data.draws import OPTIMIZER_STREAM, UPDATE_STREAM, seed_process, seeded_rng
from data.splits import Batch
from objectives.base import Objective, Sums
from optim.build import NONE_YET, Schedule
from optim.needs import Needs, add_gradients, flatten_gradients
from optim.schedules import Evaluations
from optim.setting_schedule import SettingSchedule
from trainer.checkpoint.optimizer_state import OptimizerState
from trainer.distributed.device import autocast, synchronize

NUM_TRIED = 100  # updates at which schedules are tried before training


@dataclass
class Computation:
    """Device, precision, loss scaler and seed, shared by all phases of an update.

    Random draws depend on the seed, the rank and ``position``, the update's place in the data, so
    checkpoints need no RNG state.
    """

    device: torch.device
    precision: str
    seed: int
    rank: int
    position: int = 0

    def __post_init__(self) -> None:
        self.scaler = GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.last_scale: float | None = None

    def begin_update(self, position: int) -> None:
        """Seed the global RNGs for an update, for dropout and the like."""
        self.position = position
        seed_process(self.device, self.seed, UPDATE_STREAM, position, self.rank)

    def update_scale(self) -> bool:
        """Update the fp16 loss scale and read it. Returns whether the optimizers stepped."""
        before = self.scaler.get_scale() if self.last_scale is None else self.last_scale
        self.scaler.update()
        self.last_scale = self.scaler.get_scale()
        return self.last_scale >= before

    def same_draws(self) -> AbstractContextManager:
        """Context that repeats the update's random draws and then restores the RNG state."""
        return seeded_rng(self.device, self.seed, UPDATE_STREAM, self.position, self.rank)

    def optimizer_draws(self) -> AbstractContextManager:
        """Context for an optimizer's random draws, which are the same on every process."""
        return seeded_rng(self.device, self.seed, OPTIMIZER_STREAM, self.position)


class PhaseCompute(nn.Module):
    """``objective(phase, batch)`` as a module that takes only the batch, for DDP and FSDP to wrap.

    Raises:
        ConfigError: if the loss does not depend on the weights.
    """

    def __init__(self, objective: Objective, phase: str) -> None:
        super().__init__()
        self.objective = objective
        self.phase = phase

    def forward(self, batch: tuple[Tensor, ...]) -> Any:
        loss, sums = self.objective(self.phase, batch)
        if not loss.requires_grad:
            raise ConfigError(
                f"the loss of phase {self.phase} has no gradient: the model's output is detached "
                "from its weights, for example by detach, argmax or a cast to integers"
            )
        return loss, sums


@dataclass
class Phase:
    """One optimizer's part of an update."""

    name: str
    prefix: str  # prepended to the phase's metric names; empty if there is only one phase
    compute: nn.Module  # batch -> (loss, sums); averages gradients under several processes
    module: nn.Module  # the module whose parameters the phase trains
    optimizer: Optimizer
    needs: Needs  # what the optimizer's step needs besides gradients
    schedule: Schedule
    clip_grad_norm: float | None
    clip_grad_value: float | None
    monitor_layers: bool  # measure the norms of every layer at logging steps
    frozen_norms: Sequence[nn.Module] = ()  # norm layers with fixed running statistics
    setting_schedules: Sequence[SettingSchedule] = ()  # of settings other than lr

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.base_lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
        scheduled = [setting.key for setting in self.setting_schedules]
        self.optimizer_state = OptimizerState(self.optimizer, self.module, scheduled)
        self.layers = layers_of(self.module) if self.monitor_layers else {}

    def follow_schedules(self, step: int, evaluations: Evaluations = NONE_YET) -> None:
        """Set the optimizer's learning rates and other scheduled settings for update ``step``."""
        lrs = {base_lr: self.schedule(step, base_lr, evaluations) for base_lr in set(self.base_lrs)}
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            if isinstance(group["lr"], Tensor):  # a CUDA graph reads this tensor
                group["lr"].fill_(lrs[base_lr])
            else:
                group["lr"] = lrs[base_lr]
        for setting in self.setting_schedules:
            setting.set(step, evaluations)

    def try_schedules(self, num_steps: int) -> None:
        """Evaluate the schedules at some steps of the run, for the highest and lowest base rate.

        Raises:
            ConfigError: if a value is out of range.
        """
        for step in (num_steps - 1, *range(0, num_steps, num_steps // NUM_TRIED + 1)[::-1]):
            for base_lr in {min(self.base_lrs), max(self.base_lrs)}:  # replaying torch's is slow
                self.schedule(step, base_lr)
            for setting in self.setting_schedules:
                setting.set(step, NONE_YET)

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def layer_norms(self, name: str, tensors: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """Euclidean norm of each monitored layer, as ``layers/<layer>/<name>``.

        Args:
            tensors: one per trained parameter; None for a parameter without a gradient.
        """
        norms = {}
        for layer, places in self.layers.items():
            if own := [tensor for place in places if (tensor := tensors[place]) is not None]:
                norms[f"layers/{self.prefix}{layer}/{name}"] = total_norm(own)
        return norms

    @property
    def lrs(self) -> dict[str, float]:
        """Values to log: ``lr``, rates scaled by a rule (``lr_x10``), other scheduled settings."""
        rates: dict[str, float] = {}
        for group in self.optimizer.param_groups:
            factor = group.get("lr_scale")
            rates.setdefault("lr" if factor is None else f"lr_x{factor:g}", float(group["lr"]))
        return rates | {setting.name: setting.now for setting in self.setting_schedules}

    def backward(
        self, update: list[Batch], computation: Computation
    ) -> tuple[list[Tensor], list[Sums]]:
        """Compute the gradients of the mean loss over ``update``, clearing any earlier ones.

        Args:
            update: the micro-batches of the update; their gradients are averaged.

        Returns:
            The loss of every micro-batch, and the sums to record for it.
        """
        self.optimizer.zero_grad()
        losses, sums = [], []
        for number, batch in enumerate(update, start=1):
            with self.gradient_exchange(is_last=number == len(update)):
                with autocast(computation.device, computation.precision):
                    loss, metrics = self.compute(batch)
                scaled = computation.scaler.scale(loss / len(update))
                add_gradients(scaled, self.parameters, self.needs.graph)
            losses.append(loss.detach())
            sums.append(metrics)
        computation.scaler.unscale_(self.optimizer)
        if self.needs.flat:
            flatten_gradients(self.parameters)
        return losses, sums

    def clip_gradients(self, always_measure: bool) -> Tensor | None:
        """Clip by norm, then by value. Returns the gradient norm before clipping, if measured.

        Clipping by value makes infinite gradients finite, so their norm is measured first.
        """
        norm = None
        if self.clip_grad_norm is not None:
            norm = full_tensor(nn.utils.clip_grad_norm_(self.parameters, self.clip_grad_norm))
        elif always_measure or self.clip_grad_value is not None:
            norm = total_norm(p.grad for p in self.parameters if p.grad is not None)
        if self.clip_grad_value is not None:
            nn.utils.clip_grad_value_(self.parameters, self.clip_grad_value)
        return norm

    def step(self, update: list[Batch], computation: Computation) -> None:
        """Step the optimizer; one with a closure recomputes the loss of the ``update``."""
        if self.needs.closure:
            # batch norms keep the statistics of the first forward pass, before the weights moved
            buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
            optimizer: Any = self.optimizer  # torch types closures as returning float
            optimizer.step(partial(self.compute_again, update, computation))
            for buffer, before in buffers:
                buffer.copy_(before)
            return
        with computation.optimizer_draws() if self.needs.draws else nullcontext():
            computation.scaler.step(self.optimizer)

    def compute_again(self, update: list[Batch], computation: Computation) -> Tensor:
        """The optimizer's closure: loss and gradients at the current weights.

        Uses the same samples and random draws; returns the mean loss over all processes.
        """
        with torch.enable_grad(), computation.same_draws():
            losses, _ = self.backward(update, computation)
        self.clip_gradients(always_measure=False)
        return mean_over_ranks(torch.stack(losses).mean())

    def measured_step(
        self,
        update: list[Batch],
        computation: Computation,
        grad_norm: Tensor | None,
        progress: Progress,
    ) -> dict[str, Tensor]:
        """Like :meth:`step`, timed in ``progress``; returns the norms to log."""
        assert grad_norm is not None
        device = computation.device
        before = [parameter.detach().clone() for parameter in self.parameters]
        synchronize(device)
        start = time.perf_counter()
        self.step(update, computation)
        synchronize(device)
        progress.optimizer_seconds += time.perf_counter() - start
        progress.optimizer_steps_timed += 1
        weights = [parameter.detach() for parameter in self.parameters]
        updates = [new - old for new, old in zip(weights, before, strict=True)]
        return {
            f"train/{self.prefix}grad_norm": grad_norm,
            f"optim/{self.prefix}weight_norm": total_norm(weights),
            f"optim/{self.prefix}update_norm": total_norm(updates),
            **self.layer_norms("weight_norm", weights),
            **self.layer_norms("update_norm", updates),
        }

    def gradient_exchange(self, is_last: bool) -> AbstractContextManager:
        """All-reduce gradients only in the last micro-batch of an update."""
        if self.needs.graph:  # one process only; other attention kernels lack a double backward
            from torch.nn.attention import SDPBackend, sdpa_kernel

            return sdpa_kernel(SDPBackend.MATH)
        no_sync = getattr(self.compute, "no_sync", None)
        return nullcontext() if is_last or no_sync is None else no_sync()

    @property
    def has_modes(self) -> bool:
        """Schedule-free optimizers use different weights for training and for evaluation."""
        return hasattr(self.optimizer, "train")

    def train_mode(self, on: bool) -> None:
        """Set the train or eval mode; call it after the objective's own ``train``."""
        for norm in self.frozen_norms:
            norm.eval()
        if self.has_modes:
            optimizer: Any = self.optimizer
            if on:
                optimizer.train()
            else:
                optimizer.eval()


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Euclidean norm over all elements of ``tensors``; under FSDP, over all shards."""
    return full_tensor(nn.utils.get_total_norm(list(tensors)))


def layers_of(module: nn.Module) -> dict[str, list[int]]:
    """Indices of each layer's trained parameters among those of ``module``.

    A layer is a module that directly owns parameters, such as a convolution with its bias.
    """
    layers: dict[str, list[int]] = {}
    trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    for place, name in enumerate(trained):
        layers.setdefault(name.rpartition(".")[0] or name, []).append(place)
    return layers


def optimizer_state_bytes(phases: list[Phase]) -> int:
    """Total size of the optimizers' state tensors."""
    return sum(tensor_bytes(phase.optimizer.state_dict()["state"]) for phase in phases)


def tensor_bytes(value: Any) -> int:
    """Total size in bytes of the tensors in ``value``, which may be nested."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(tensor_bytes, value.values()))
    return sum(map(tensor_bytes, value)) if isinstance(value, list | tuple) else 0

"""A phase of the update: its own parameters, optimizer, schedule and clipping."""

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
from data.draws import OPTIMIZER_STREAM, UPDATE_STREAM, drawing, seed_process
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
    """What is the same for all phases of an update: where and how precisely it is computed.

    Random draws depend on the seed and on ``position``, the update's place in the data, so there is
    no state of them to save.
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
        """Start the draws of an update, such as dropout's."""
        self.position = position
        seed_process(self.device, self.seed, UPDATE_STREAM, position, self.rank)

    def update_scale(self) -> bool:
        """Adapt fp16's loss scale, and read it; whether the optimizers' steps were applied."""
        before = self.scaler.get_scale() if self.last_scale is None else self.last_scale
        self.scaler.update()
        self.last_scale = self.scaler.get_scale()
        return self.last_scale >= before

    def same_draws(self) -> AbstractContextManager:
        """The draws of the update once more; afterwards they go on where they were."""
        return drawing(self.device, self.seed, UPDATE_STREAM, self.position, self.rank)

    def optimizer_draws(self) -> AbstractContextManager:
        """Draws of an optimizer, the same ones on every process."""
        return drawing(self.device, self.seed, OPTIMIZER_STREAM, self.position)


class PhaseCompute(nn.Module):
    """``objective(phase, batch)`` as a module of the batch alone, which is what torch wraps.

    Raises:
        ConfigError: the loss does not depend on the weights.
    """

    def __init__(self, objective: Objective, phase: str) -> None:
        super().__init__()
        self.objective = objective
        self.phase = phase

    def forward(self, batch: tuple[Tensor, ...]) -> Any:
        loss, sums = self.objective(self.phase, batch)
        if not loss.requires_grad:
            raise ConfigError(
                f"the loss of phase {self.phase} has no gradient: the model's output is cut off "
                "from its weights, as by detach, argmax or a conversion to integers"
            )
        return loss, sums


@dataclass
class Phase:
    """One of the steps an update is made of."""

    name: str
    prefix: str  # of the phase's metrics; empty where there is but one phase
    compute: nn.Module  # batch -> (loss, sums); averages gradients under several processes
    module: nn.Module  # whose parameters the phase trains
    optimizer: Optimizer
    needs: Needs  # of a step of the optimizer, beside gradients
    schedule: Schedule
    clip_grad_norm: float | None
    clip_grad_value: float | None
    monitor_layers: bool  # measure the norms of every layer at logging steps
    frozen_norms: Sequence[nn.Module] = ()  # whose statistics stay as they are in training
    setting_schedules: Sequence[SettingSchedule] = ()  # of settings other than the rate

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.base_lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
        scheduled = [setting.key for setting in self.setting_schedules]
        self.optimizer_state = OptimizerState(self.optimizer, self.module, scheduled)
        self.layers = layers_of(self.module) if self.monitor_layers else {}

    def follow_schedules(self, step: int, evaluations: Evaluations = NONE_YET) -> None:
        """Give the optimizer the rates of update ``step``, and what else has a schedule."""
        lrs = {base_lr: self.schedule(step, base_lr, evaluations) for base_lr in set(self.base_lrs)}
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            if isinstance(group["lr"], Tensor):  # which a CUDA graph reads
                group["lr"].fill_(lrs[base_lr])
            else:
                group["lr"] = lrs[base_lr]
        for setting in self.setting_schedules:
            setting.set(step, evaluations)

    def try_schedules(self, num_steps: int) -> None:
        """Follow the schedules at some updates of the run, with the highest rate and the lowest.

        Raises:
            ConfigError: a value is out of range.
        """
        for step in (num_steps - 1, *range(0, num_steps, num_steps // NUM_TRIED + 1)[::-1]):
            for base_lr in {min(self.base_lrs), max(self.base_lrs)}:  # torch's are slow to replay
                self.schedule(step, base_lr)
            for setting in self.setting_schedules:
                setting.set(step, NONE_YET)

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def layer_norms(self, name: str, tensors: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """The Euclidean norm over each monitored layer, as ``layers/<layer>/<name>``.

        Args:
            tensors: one for each trained parameter; None: it has no gradient.
        """
        norms = {}
        for layer, places in self.layers.items():
            if own := [tensor for place in places if (tensor := tensors[place]) is not None]:
                norms[f"layers/{self.prefix}{layer}/{name}"] = total_norm(own)
        return norms

    @property
    def lrs(self) -> dict[str, float]:
        """What to record: ``lr``, rates scaled by a rule (``lr_x10``), other settings scheduled."""
        rates: dict[str, float] = {}
        for group in self.optimizer.param_groups:
            factor = group.get("lr_scale")
            rates.setdefault("lr" if factor is None else f"lr_x{factor:g}", float(group["lr"]))
        return rates | {setting.name: setting.now for setting in self.setting_schedules}

    def backward(
        self, update: list[Batch], computation: Computation
    ) -> tuple[list[Tensor], list[Sums]]:
        """Forward and backward: the gradients of the mean loss of ``update``, and no others.

        Args:
            update: the micro-batches of the update; their gradients are averaged.

        Returns:
            The loss of every micro-batch, and what to record of it.
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
        """Clip by norm, then by value; the gradients' norm before both, if it was measured.

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
        """The optimizer's step; some compute the loss of the ``update`` again for it."""
        if self.needs.closure:
            # batch norms keep the statistics of the first evaluation, at the weights before
            buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
            optimizer: Any = self.optimizer  # torch's types want numbers of a closure
            optimizer.step(partial(self.compute_again, update, computation))
            for buffer, before in buffers:
                buffer.copy_(before)
            return
        with computation.optimizer_draws() if self.needs.draws else nullcontext():
            computation.scaler.step(self.optimizer)

    def compute_again(self, update: list[Batch], computation: Computation) -> Tensor:
        """An optimizer's closure: the loss and its gradients at the present weights.

        Of the same samples, with the same draws; means over all processes.
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
        """As :meth:`step`, timed in ``progress``; the norms of a logging step."""
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
        """Exchange gradients between processes in the last micro-batch of an update only."""
        if self.needs.graph:  # and one process; the other kernels have no second derivative
            from torch.nn.attention import SDPBackend, sdpa_kernel

            return sdpa_kernel(SDPBackend.MATH)
        no_sync = getattr(self.compute, "no_sync", None)
        return nullcontext() if is_last or no_sync is None else no_sync()

    @property
    def has_modes(self) -> bool:
        """Schedule-free optimizers hold other weights for training than for use."""
        return hasattr(self.optimizer, "train")

    def train_mode(self, on: bool) -> None:
        """Called after the objective's own ``train``."""
        for norm in self.frozen_norms:
            norm.eval()
        if self.has_modes:
            optimizer: Any = self.optimizer
            if on:
                optimizer.train()
            else:
                optimizer.eval()


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Euclidean norm over all elements of ``tensors``; under FSDP, over those of all processes."""
    return full_tensor(nn.utils.get_total_norm(list(tensors)))


def layers_of(module: nn.Module) -> dict[str, list[int]]:
    """The trained parameters of each layer, by their places among all of ``module``'s.

    A layer is a module that has parameters of its own, such as a convolution with its bias.
    """
    layers: dict[str, list[int]] = {}
    trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    for place, name in enumerate(trained):
        layers.setdefault(name.rpartition(".")[0] or name, []).append(place)
    return layers


def optimizer_state_bytes(phases: list[Phase]) -> int:
    """Memory of the optimizers' state tensors."""
    return sum(tensor_bytes(phase.optimizer.state_dict()["state"]) for phase in phases)


def tensor_bytes(value: Any) -> int:
    """Memory of the tensors in ``value``, which may be nested."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(tensor_bytes, value.values()))
    return sum(map(tensor_bytes, value)) if isinstance(value, list | tuple) else 0

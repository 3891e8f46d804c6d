"""A phase of the update: its own parameters, optimizer, schedule and clipping."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.collectives import full_tensor, mean_over_ranks
from core.errors import ConfigError
from core.progress import Progress
from core.schema import TrainerSettings
from data.splits import Batch
from objectives.base import Objective, Sums
from optim.build import NONE_YET, Schedule, build_optimizer, build_schedule
from optim.needs import Needs, add_gradients, flatten_gradients, rehearse
from optim.param_rules import freeze
from optim.schedules import Evaluations, Horizon
from optim.setting_schedule import SettingSchedule
from optim.uncompiled import leave_compiler_out
from trainer.averaging import check_average
from trainer.computation import Computation, check_needs
from trainer.distributed.device import autocast, synchronize
from trainer.distributed.parallel import distribute, for_strategy, wrap
from trainer.layers import layer_norms, layers_of
from trainer.optimizer_state import OptimizerState


class Phase:
    """One of the steps an update is made of.

    Args:
        prefix: of the phase's metrics; empty where there is but one phase.
        compute: ``batch -> (loss, sums)``; averages gradients under several processes.
        module: whose parameters the phase trains.
        monitor_layers: measure the norms of every layer at logging steps.
        setting_schedules: of settings other than the rate.
        frozen_norms: layers whose statistics stay as they are in training.
        needs: what a step of the optimizer needs beside gradients.
    """

    def __init__(
        self,
        name: str,
        prefix: str,
        compute: Callable[..., Any],
        module: nn.Module,
        optimizer: Optimizer,
        needs: Needs,
        schedule: Schedule,
        clip_grad_norm: float | None,
        clip_grad_value: float | None,
        monitor_layers: bool,
        frozen_norms: Sequence[nn.Module] = (),
        setting_schedules: Sequence[SettingSchedule] = (),
    ) -> None:
        self.name = name
        self.prefix = prefix
        self.compute = compute
        self.buffers = list(module.buffers())
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = optimizer
        self.needs = needs
        self.schedule = schedule
        self.clip_grad_norm = clip_grad_norm
        self.clip_grad_value = clip_grad_value
        self.frozen_norms = frozen_norms
        self.setting_schedules = setting_schedules
        self.base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        scheduled = [setting.key for setting in setting_schedules]
        self.optimizer_state = OptimizerState(optimizer, module, scheduled)
        self.layers = layers_of(module) if monitor_layers else {}

    def follow_schedules(self, step: int, evaluations: Evaluations = NONE_YET) -> None:
        """Give the optimizer the rates of update ``step``, and what else has a schedule."""
        lrs = {base_lr: self.schedule(step, base_lr, evaluations) for base_lr in set(self.base_lrs)}
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lrs[base_lr]
        for setting in self.setting_schedules:
            setting.set(step, evaluations)

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def layer_grad_norms(self) -> dict[str, Tensor]:
        """Of every monitored layer, by name; to be taken before clipping."""
        return layer_norms(self.layers, [p.grad for p in self.parameters], self.prefix, "grad_norm")

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

    def step(self, update: list[Batch], computation: Computation, position: int) -> None:
        """The optimizer's step; some compute the loss of the ``update`` again for it.

        Args:
            position: of the update in the data.
        """
        if self.needs.closure:
            # batch norms keep the statistics of the first evaluation, at the weights before
            buffers = [(buffer, buffer.clone()) for buffer in self.buffers]
            optimizer: Any = self.optimizer  # torch's types want numbers of a closure
            optimizer.step(partial(self.compute_again, update, computation, position))
            for buffer, before in buffers:
                buffer.copy_(before)
            return
        with computation.optimizer_draws(position) if self.needs.draws else nullcontext():
            computation.scaler.step(self.optimizer)

    def compute_again(self, update: list[Batch], computation: Computation, position: int) -> Tensor:
        """An optimizer's closure: the loss and its gradients at the present weights.

        Of the same samples, with the same draws; means over all processes.
        """
        with torch.enable_grad(), computation.again(position):
            losses, _ = self.backward(update, computation)
        self.clip_gradients(always_measure=False)
        return mean_over_ranks(torch.stack(losses).mean())

    def measured_step(
        self, step: Callable[[], None], grad_norm: Tensor | None, progress: Progress
    ) -> dict[str, Tensor]:
        """Make the optimizer's ``step``, timed in ``progress``; the norms of a logging step."""
        assert grad_norm is not None
        device = grad_norm.device
        before = [parameter.detach().clone() for parameter in self.parameters]
        synchronize(device)
        start = time.perf_counter()
        step()
        synchronize(device)
        progress.optimizer_seconds += time.perf_counter() - start
        progress.optimizer_steps_timed += 1
        weights = [parameter.detach() for parameter in self.parameters]
        updates = [new - old for new, old in zip(weights, before, strict=True)]
        return {
            f"train/{self.prefix}grad_norm": grad_norm,
            f"optim/{self.prefix}weight_norm": total_norm(weights),
            f"optim/{self.prefix}update_norm": total_norm(updates),
            **layer_norms(self.layers, weights, self.prefix, "weight_norm"),
            **layer_norms(self.layers, updates, self.prefix, "update_norm"),
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


def build_phases(
    config: dict[str, Any], objective: Objective, horizon: Horizon, trainer: TrainerSettings
) -> list[Phase]:
    """The objective's phases, each with the optimizer, schedule and clipping of its own.

    Raises:
        ConfigError: the config's ``phases`` are not those of the objective.
    """
    modules = objective.phases()
    settings = phase_settings(config, list(modules))
    frozen_norms = freeze(objective.model, config["param_groups"]["rules"])
    grouping = config["param_groups"] | {"root": objective.model}
    distribute(objective, trainer)
    if trainer.compile:
        # after the model was tried with two samples: that shape would make the batch symbolic
        mode = "default" if trainer.compile is True else trainer.compile
        objective.model.compile(mode=mode, dynamic=False)
    else:
        leave_compiler_out()
    phases = []
    for name, module in modules.items():
        own, where = settings[name], f"phases.{name}." if config["phases"] else ""
        chosen = for_strategy(own["optimizer"], trainer)
        optimizer = build_optimizer(chosen, module, grouping, f"{where}optimizer")
        needs = rehearse(chosen, optimizer, f"{where}optimizer")
        check_needs(needs, optimizer, objective, trainer, f"{where}optimizer")
        phase = Phase(
            name=name,
            prefix=f"{name}/" if len(modules) > 1 else "",
            compute=wrap(PhaseCompute(objective, name), module, trainer),
            module=module,
            optimizer=optimizer,
            needs=needs,
            schedule=build_schedule(own["scheduler"], horizon, f"{where}scheduler"),
            clip_grad_norm=own["clip_grad_norm"],
            clip_grad_value=own["clip_grad_value"],
            monitor_layers=trainer.monitor_layers,
            frozen_norms=frozen_norms,
            setting_schedules=[
                SettingSchedule(optimizer, name, build_schedule(node, horizon, f"{name}_schedule"))
                for name in ("momentum", "weight_decay")
                if (node := config[f"{name}_schedule"])
            ],
        )
        if phase.has_modes:
            itself = f"{type(phase.optimizer).__name__}, which averages the weights itself"
            check_average(trainer, against=itself)
        phases.append(phase)
    return phases


def phase_settings(config: dict[str, Any], names: list[str]) -> dict[str, dict[str, Any]]:
    """Of every phase: without ``phases`` in the config, the one phase takes the top-level ones."""
    settings = config["phases"]
    if not settings:
        for part in ("optimizer", "scheduler"):
            if not config[part]:
                raise ConfigError(f"there is no {part}: choose one with {part}=NAME")
        top = {"optimizer": config["optimizer"], "scheduler": config["scheduler"]}
        top |= {key: config["trainer"][key] for key in ("clip_grad_norm", "clip_grad_value")}
        return dict.fromkeys(names, top)
    if set(settings) != set(names):
        raise ConfigError(
            f"phases has {', '.join(settings)}, but the objective has {', '.join(names)}"
        )
    return settings


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

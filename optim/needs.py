"""Finds out by trial steps what an optimizer needs besides gradients."""

import io
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.collectives import full_tensor, shard_like
from core.errors import ConfigError, reason
from core.instantiate import instantiate
from core.rng import preserve_rng_state

NUM_STEPS = 2  # trial steps


@dataclass(frozen=True)
class Needs:
    """What an optimizer needs for a step.

    Attributes:
        flat: contiguous gradients, whatever the memory format of the weights.
        graph: gradients computed with ``create_graph=True``.
        closure: a closure that recomputes the loss and its gradients. The gradients have been
            computed once before ``step``, as for every optimizer.
        draws: it draws random numbers, which must be the same on every process.
        unsaved: its state cannot be saved in a checkpoint.
    """

    flat: bool = False
    graph: bool = False
    closure: bool = False
    draws: bool = False
    unsaved: bool = False


TRIALS = (Needs(), Needs(flat=True), Needs(graph=True), Needs(closure=True, flat=True))


def rehearse(
    settings: dict[str, Any], optimizer: Optimizer, where: str, module: nn.Module
) -> Needs:
    """Step a copy of ``optimizer`` over dummy parameters; returns what it needed.

    Tries tiny parameters first, then the model's shapes, on which some optimizers depend.

    Args:
        settings: the config node from which ``optimizer`` was built over ``module``'s parameters.

    Raises:
        ConfigError: if the optimizer needs something the training loop does not provide (sparse
            gradients, other shapes, unsharded parameters under FSDP, a setup call), has no learning
            rate to schedule, or ignores the groups' different learning rates.
    """
    name, problem = type(optimizer).__name__, None
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = [  # some optimizers drop the names
        {**group, "param_names": [names[id(p)] for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    if not all(isinstance(group.get("lr"), int | float) for group in groups):
        raise ConfigError(f"{where}: {name} has no learning rate that a schedule could set")
    for stand_in in (tiny_parameters, same_shapes):
        for needs in TRIALS:
            try:
                return run_trial(Trial(settings, groups, where, needs, stand_in))
            except ConfigError:
                raise
            except Exception as error:  # a third-party optimizer may raise anything
                problem = problem or error
        if any(hasattr(parameter, "full_tensor") for parameter in module.parameters()):
            raise ConfigError(
                f"{where}: {name} needs unsharded parameters: use trainer.strategy=ddp instead of "
                "fsdp"
            ) from problem
    assert problem is not None
    why = reason(problem)
    if why.startswith("view size is not compatible"):
        why += " (or set trainer.channels_last=false)"
    raise ConfigError(
        f"{where}: {name} cannot be used here: a trial step failed with gradients, with "
        f"create_graph=True and with a closure: {why}"
    ) from problem


@dataclass(frozen=True)
class Trial:
    """One attempt: an optimizer's settings, its needs, and how to make dummy parameters."""

    settings: dict[str, Any]
    groups: list[dict[str, Any]]
    where: str
    needs: Needs
    stand_in: Callable[[dict[str, Any]], dict[str, Any]]

    def after_steps(self, groups: list[dict[str, Any]]) -> Optimizer:
        """A copy of the optimizer after ``NUM_STEPS`` updates of dummies for ``groups``."""
        params = [self.stand_in(group) for group in groups]
        optimizer = instantiate(self.settings, self.where, params=params)
        for _ in range(NUM_STEPS):
            try_step(optimizer, self.needs)
        return optimizer


def run_trial(trial: Trial) -> Needs:
    """Run a trial and return the optimizer's needs; restores the global RNG states.

    Raises:
        ConfigError: see :func:`check_rates`.
        Exception: whatever the optimizer raises, if it cannot step this way.
    """
    with preserve_rng_state():
        states = generator_states()
        stepped = trial.after_steps(trial.groups)
        draws = generator_states() != states
        if len({group["lr"] for group in trial.groups}) > 1:
            check_rates(trial)
        unsaved = not can_be_saved(stepped, trial.groups)
        return replace(trial.needs, draws=draws, unsaved=unsaved)


def tiny_parameters(group: dict[str, Any]) -> dict[str, Any]:
    """A tiny parameter for each number of dimensions in ``group``, sharded like those under FSDP.

    The four-dimensional one is ``channels_last`` if any of the group's is.
    """
    parameters: list[Tensor] = group["params"]
    named = {p.ndim: (name, p) for name, p in zip(group["param_names"], parameters, strict=True)}
    ones = {n: torch.ones([2] * n, device=p.device) for n, (_, p) in named.items()}
    if any(p.ndim == 4 and not p.is_contiguous() for p in parameters):  # one channel: always both
        ones[4] = ones[4].to(memory_format=torch.channels_last)
    params = [nn.Parameter(shard_like(tensor, named[n][1])) for n, tensor in ones.items()]
    return {**group, "params": params, "param_names": [name for name, _ in named.values()]}


def same_shapes(group: dict[str, Any]) -> dict[str, Any]:
    """Dummy parameters of the same shapes."""
    return {**group, "params": [nn.Parameter(torch.ones_like(p)) for p in group["params"]]}


def can_be_saved(optimizer: Optimizer, initial: list[dict[str, Any]]) -> bool:
    """Whether the state survives ``torch.save`` and ``torch.load(weights_only=True)``.

    Args:
        initial: the groups before any update; entries that are still the same are not state.
    """
    file = io.BytesIO()
    try:
        content = optimizer.state_dict()
        for state in content["state"].values():
            if isinstance(state, dict):
                state |= {key: full_tensor(value) for key, value in state.items()}
        content["param_groups"] = [
            {key: value for key, value in group.items() if value is not old.get(key)}
            for group, old in zip(content["param_groups"], initial, strict=True)
        ]
        torch.save(content, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # pickle and third-party optimizers may raise anything
        return False
    return True


def try_step(optimizer: Any, needs: Needs, scale: float = 1.0) -> None:
    """Minimize ``scale / 2`` times the squared norm of the parameters by one update."""
    if hasattr(optimizer, "train"):
        optimizer.train()  # schedule-free optimizers require it
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def closure() -> Tensor:
        with torch.enable_grad():
            loss = torch.stack(
                [scale / 2 * full_tensor(p).square().sum() for p in parameters]
            ).sum()
        optimizer.zero_grad()
        add_gradients(loss, parameters, needs.graph)
        if needs.flat:
            flatten_gradients(parameters)
        return loss

    closure()
    optimizer.step(*[closure] * needs.closure)


def check_rates(trial: Trial) -> None:
    """Raise ConfigError if the optimizer ignores the learning rates of all groups but the first."""

    def weights_at(rate: float) -> list[Tensor]:
        base_groups = [{**group, "weight_decay": 0.0, "lr": 0.3} for group in trial.groups]
        other_groups = [{**group, "lr": rate} for group in base_groups[1:]]
        at_rate = replace(trial, settings={**trial.settings, "lr": 0.3})  # the run's may be 0
        _, *rest = at_rate.after_steps([base_groups[0], *other_groups]).param_groups
        return [full_tensor(p.detach()) for group in rest for p in group["params"]]

    name = trial.settings.get("name") or trial.settings["_target_"]
    faster, slower = weights_at(0.3), weights_at(0.1)
    is_same = all(map(torch.equal, faster, slower))
    if is_same and any((tensor != 1).any() for tensor in faster):  # some skip the first updates
        raise ConfigError(
            f"{trial.where}: {name} has one learning rate for all parameters: remove "
            "param_groups.layer_decay and lr_scale in param_groups.rules, or choose another "
            "optimizer"
        )


def add_gradients(loss: Tensor, parameters: Sequence[Tensor], graph: bool) -> None:
    """``loss.backward()``; with ``graph``, as if by ``create_graph=True``.

    ``backward(create_graph=True)`` itself warns of a memory leak; here the next ``zero_grad()``
    frees the graphs.
    """
    if not graph:
        loss.backward()
        return
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def flatten_gradients(parameters: Iterable[Tensor]) -> None:
    """Make the gradients contiguous, so that ``view(-1)`` works."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = parameter.grad.contiguous()


def generator_states() -> tuple[Any, ...]:
    """States of the global generators of Python, numpy and torch."""
    numpys: Any = numpy.random.get_state()
    return random.getstate(), numpys[1].tolist(), numpys[2], torch.get_rng_state().numpy().tobytes()

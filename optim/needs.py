"""What optimizers need for a step beside a gradient, found by letting each make one."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.errors import ConfigError, reason
from core.instantiate import instantiate

NUM_STEPS = 2  # of a rehearsal


@dataclass(frozen=True)
class Needs:
    """What an optimizer needs for a step.

    Attributes:
        graph: gradients that can be differentiated again, as by ``create_graph=True``.
        closure: a function that computes the loss and its gradients again. They have been computed
            once when the optimizer steps, as for every other.
        draws: it draws random numbers, which must be the same on every process.
    """

    graph: bool = False
    closure: bool = False
    draws: bool = False


def rehearse(settings: dict[str, Any], optimizer: Optimizer, where: str) -> Needs:
    """Let a twin of ``optimizer`` update stand-ins for its parameters; what it needed.

    Args:
        settings: what ``optimizer`` was built from.

    Raises:
        ConfigError: it needs more than the training loop has: a sparse gradient, parameters of
            other shapes, a preparation of its own; or it has no rate to schedule.
    """
    groups, problem = optimizer.param_groups, None
    name = type(optimizer).__name__
    if not all(isinstance(group.get("lr"), int | float) for group in groups):
        raise ConfigError(f"{where}: {name} keeps no learning rate for a schedule to set")
    for needs in (Needs(), Needs(graph=True), Needs(closure=True)):
        params = [{**group, "params": stand_ins(group["params"])} for group in groups]
        twin = instantiate(settings, where, params=params)
        python_state, numpy_state = random.getstate(), numpy.random.get_state()
        try:
            with torch.random.fork_rng(devices=[]):
                before = generator_states()
                for _ in range(NUM_STEPS):
                    try_step(twin, needs)
                return replace(needs, draws=generator_states() != before)
        except Exception as error:  # whatever a foreign optimizer raises
            problem = problem or error
        finally:
            random.setstate(python_state)
            numpy.random.set_state(numpy_state)
    assert problem is not None
    why = reason(problem)
    if why.startswith("view size is not compatible"):
        why += " Or leave the optimizer as it is and give trainer.channels_last=false"
    raise ConfigError(
        f"{where}: {name} cannot be used here, be it with gradients alone, with such as can be "
        f"differentiated again or with a closure: {why}"
    ) from problem


def stand_ins(parameters: Sequence[Tensor]) -> list[nn.Parameter]:
    """One small parameter for every number of dimensions, ``channels_last`` if one such is."""
    by_dim = {p.ndim: p for p in parameters}
    ones = {n: torch.ones([2] * n, device=p.device) for n, p in by_dim.items()}
    if any(p.ndim == 4 and not p.is_contiguous() for p in parameters):  # one channel: both
        ones[4] = ones[4].to(memory_format=torch.channels_last)
    return [nn.Parameter(tensor) for tensor in ones.values()]


def try_step(optimizer: Any, needs: Needs, scale: float = 1.0) -> None:
    """One update on ``scale / 2`` times the squared norm of the parameters."""
    if hasattr(optimizer, "train"):
        optimizer.train()  # as schedule-free ones want it
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def closure() -> Tensor:
        with torch.enable_grad():
            loss = torch.stack([scale / 2 * p.square().sum() for p in parameters]).sum()
        optimizer.zero_grad()
        add_gradients(loss, parameters, needs.graph)
        return loss

    closure()
    optimizer.step(*[closure] * needs.closure)


def add_gradients(loss: Tensor, parameters: Sequence[Tensor], graph: bool) -> None:
    """``loss.backward()``; with ``graph``, gradients that can be differentiated again.

    Of its own ``create_graph=True``, torch warns that memory may leak: here the graphs are freed by
    the next ``zero_grad()``.
    """
    if not graph:
        loss.backward()
        return
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def generator_states() -> tuple[Any, ...]:
    """Of the global generators."""
    numpys: Any = numpy.random.get_state()
    return random.getstate(), numpys[1].tolist(), numpys[2], torch.get_rng_state().numpy().tobytes()

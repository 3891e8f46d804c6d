"""An update as one CUDA graph: the device starts hundreds of kernels at a word from the host.

A graph repeats what was launched while it was captured, at the same addresses. What the host
decides or computes between launches it repeats as it was; so that is refused, by name.
"""

import inspect
import random
from collections.abc import Callable
from typing import Any

import numpy
import torch
import torch.distributed as dist

from core.errors import ConfigError, reason
from core.instantiate import resolve
from core.schema import TrainerSettings
from data.splits import Batch
from objectives.base import Objective, Sums
from trainer.distributed.device import choose_precision
from trainer.phase import Phase

DEVICES = ("cuda",)
WARM_UPDATES = 3  # before the capture: libraries set themselves up, the optimizer makes its state

Compute = Callable[[list[Batch]], list[Sums] | None]


class GraphedUpdate:
    """``compute``, all of an update but its schedules, as one graph after a few real updates.

    Args:
        compute: takes the micro-batches of an update and returns what is to be recorded of it;
            it launches the same work whatever the step, and reads nothing back.
        phases: what it computes; their rates become tensors, which a graph reads anew.
    """

    def __init__(self, compute: Compute, phases: list[Phase]) -> None:
        self.compute = compute
        self.num_warm = 0
        self.replay: Callable[[], None] | None = None
        self.inputs: list[Batch] = []
        self.sums: list[Sums] | None = None
        for phase in phases:
            device = phase.parameters[0].device
            for group in phase.optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=device)

    def __call__(self, update: list[Batch]) -> list[Sums] | None:
        """Make the update.

        Raises:
            ConfigError: it cannot be captured, or the batch has another shape than the captured.
        """
        if self.num_warm < WARM_UPDATES:
            self.num_warm += 1
            return warm_up(self.compute, update)
        if self.replay is None:
            self.inputs = [tuple(map(torch.clone, batch)) for batch in update]
            self.sums, self.replay = capture(self.compute, self.inputs)
        self.take(update)
        self.replay()
        return self.sums

    def take(self, update: list[Batch]) -> None:
        """Copy the samples to where the graph reads them."""
        found, captured = shapes_of(update), shapes_of(self.inputs)
        if found != captured:
            raise ConfigError(
                f"trainer.cuda_graph=true needs batches of one shape, and after {captured} came "
                f"{found}: set it to false"
            )
        for batch, inputs in zip(update, self.inputs, strict=True):
            for tensor, own in zip(batch, inputs, strict=True):
                own.copy_(tensor, non_blocking=True)


def warm_up(compute: Compute, update: list[Batch]) -> list[Sums] | None:
    """An update as it is, on a stream of its own, as torch asks for before a capture.

    Raises:
        ConfigError: it draws random numbers on the CPU, or takes tensors from there.
    """
    if any(tensor.device.type not in DEVICES for batch in update for tensor in batch):
        raise ConfigError(
            "trainer.cuda_graph=true needs all tensors of a batch on the GPU, since it would "
            "repeat the values of those on the CPU: set it to false"
        )
    before = host_generators()
    if torch.cuda.is_available():
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            sums = compute(update)
        current.wait_stream(stream)
    else:
        sums = compute(update)
    if host_generators() != before:
        raise ConfigError(
            "trainer.cuda_graph=true would repeat the random numbers that the model or the "
            "objective draws on the CPU: set it to false"
        )
    return sums


def capture(compute: Compute, inputs: list[Batch]) -> tuple[list[Sums] | None, Callable[[], None]]:
    """The update recorded, not run: where its sums will be, and what runs it.

    Raises:
        ConfigError: something in it waits for the device or copies from the CPU.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        with (
            torch.cuda.stream(torch.cuda.current_stream()),  # a capture that fails leaves its own
            # the thread that pins batches in memory goes on meanwhile
            torch.cuda.graph(graph, capture_error_mode="thread_local"),
        ):
            sums = compute(inputs)
    except RuntimeError as error:
        first = error.__context__ or error  # to end a capture that has failed fails as well
        raise ConfigError(
            f"trainer.cuda_graph=true: this update cannot be captured, set it to false: "
            f"{reason(first)}"
        ) from error
    return sums, graph.replay


def capturable(optimizer: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings of an optimizer whose step can be captured.

    Raises:
        ConfigError: this one reads or decides something on the host.
    """
    target = resolve(optimizer["_target_"], f"{where}._target_")
    if target is torch.optim.SGD:
        return {**optimizer, "fused": True}
    is_torchs = target.__module__.startswith("torch.optim.") and target is not torch.optim.Rprop
    if is_torchs and "capturable" in inspect.signature(target).parameters:
        # one parameter at a time, some read their rate
        return {**optimizer, "capturable": True, "foreach": not optimizer.get("fused")}
    raise ConfigError(
        f"trainer.cuda_graph=true: {where}: the step of {optimizer['_target_']} cannot be "
        "captured; SGD's can, and those of torch's optimizers with a setting capturable, such as "
        "AdamW"
    )


def check_cuda_graph(
    config: dict[str, Any], settings: TrainerSettings, objective: Objective
) -> None:
    """Refuse what a graph would repeat as it was, or what needs to know a value meanwhile.

    Raises:
        ConfigError: a setting or the objective stands against it.
    """
    device = next(objective.parameters()).device
    kept = objective.state()
    scheduled = [key for key in ("momentum_schedule", "weight_decay_schedule") if config[key]]
    against = {
        "a CUDA device": device.type not in DEVICES,
        "one process": dist.is_initialized(),
        "trainer.compile=false": bool(settings.compile),
        "trainer.precision=fp32 or bf16: the loss scale of fp16 is read": (
            choose_precision(settings.precision, device) == "fp16"
        ),
        "trainer.on_nonfinite=raise or stop: skip reads every loss": (
            settings.on_nonfinite == "skip"
        ),
        f"an optimizer without {' and '.join(scheduled)}": bool(scheduled),
        f"an objective without {', '.join(kept)} from update to update": bool(kept),
    }
    for wanted, is_against in against.items():
        if is_against:
            raise ConfigError(f"trainer.cuda_graph=true needs {wanted}")


def shapes_of(update: list[Batch]) -> list[list[tuple[int, ...]]]:
    return [[tuple(tensor.shape) for tensor in batch] for batch in update]


def host_generators() -> tuple[Any, ...]:
    """The states of the CPU's global random generators."""
    own: Any = numpy.random.get_state()
    of_numpy, place = own[1].tobytes(), own[2]
    return random.getstate(), of_numpy, place, torch.get_rng_state().numpy().tobytes()

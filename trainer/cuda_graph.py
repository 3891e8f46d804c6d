"""Run an update as one CUDA graph: a single launch from the host instead of hundreds.

A graph replays the captured kernels on the same memory addresses. Values that the host computes
between launches would be frozen at capture, so settings that need them are rejected by name.
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
WARM_UPDATES = 3  # before capture: initialize libraries and the optimizer's state

Compute = Callable[[list[Batch]], list[Sums] | None]


class GraphedUpdate:
    """Captures ``compute`` as a CUDA graph after a few eager updates, then replays it.

    Args:
        compute: maps the micro-batches of an update to the sums to record, without schedules;
            launches the same kernels at every step, and reads nothing back.
        phases: the phases it computes; their learning rates become tensors that the graph reads.
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
        """Run one update.

        Raises:
            ConfigError: if it cannot be captured, or the batch differs in shape from the captured.
        """
        if self.num_warm < WARM_UPDATES:
            self.num_warm += 1
            return warm_up(self.compute, update)
        if self.replay is None:
            self.inputs = [tuple(map(torch.clone, batch)) for batch in update]
            self.sums, self.replay = capture(self.compute, self.inputs)
        self.copy_inputs(update)
        self.replay()
        return self.sums

    def copy_inputs(self, update: list[Batch]) -> None:
        """Copy the samples into the graph's static inputs."""
        shapes, captured = shapes_of(update), shapes_of(self.inputs)
        if shapes != captured:
            raise ConfigError(
                f"trainer.cuda_graph=true needs batches of one shape, but {captured} was followed "
                f"by {shapes}: set it to false"
            )
        for batch, inputs in zip(update, self.inputs, strict=True):
            for tensor, static in zip(batch, inputs, strict=True):
                static.copy_(tensor, non_blocking=True)


def warm_up(compute: Compute, update: list[Batch]) -> list[Sums] | None:
    """Run an eager update on a side stream, which torch requires before a capture.

    Raises:
        ConfigError: if it draws random numbers on the CPU, or reads tensors from there.
    """
    if any(tensor.device.type not in DEVICES for batch in update for tensor in batch):
        raise ConfigError(
            "trainer.cuda_graph=true needs all tensors of a batch on the GPU, since it would "
            "replay old values of those on the CPU: set it to false"
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
            "trainer.cuda_graph=true would replay the same random numbers that the model or the "
            "objective draws on the CPU: set it to false"
        )
    return sums


def capture(compute: Compute, inputs: list[Batch]) -> tuple[list[Sums] | None, Callable[[], None]]:
    """Capture an update without running it; returns its output tensors and the replay function.

    Raises:
        ConfigError: if something in it synchronizes with the device or copies from the CPU.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        with (
            torch.cuda.stream(torch.cuda.current_stream()),  # restored if the capture fails
            # the thread that pins batches in memory keeps running meanwhile
            torch.cuda.graph(graph, capture_error_mode="thread_local"),
        ):
            sums = compute(inputs)
    except RuntimeError as error:
        first = error.__context__ or error  # ending a failed capture raises, too
        raise ConfigError(
            f"trainer.cuda_graph=true: this update cannot be captured, set it to false: "
            f"{reason(first)}"
        ) from error
    return sums, graph.replay


def capturable(optimizer: dict[str, Any], where: str) -> dict[str, Any]:
    """Optimizer settings adjusted so that its step can be captured.

    Raises:
        ConfigError: if its step depends on values on the host.
    """
    target = resolve(optimizer["_target_"], f"{where}._target_")
    if target is torch.optim.SGD:
        return {**optimizer, "fused": True}
    is_from_torch = target.__module__.startswith("torch.optim.") and target is not torch.optim.Rprop
    if is_from_torch and "capturable" in inspect.signature(target).parameters:
        # the single-tensor version of some reads lr on the host
        return {**optimizer, "capturable": True, "foreach": not optimizer.get("fused")}
    raise ConfigError(
        f"trainer.cuda_graph=true: {where}: the step of {optimizer['_target_']} cannot be "
        "captured: use SGD, or an optimizer of torch with the option capturable, such as AdamW"
    )


def check_cuda_graph(
    config: dict[str, Any], settings: TrainerSettings, objective: Objective
) -> None:
    """Check that nothing changes host values or reads device values within an update.

    Raises:
        ConfigError: if a setting or the objective is incompatible with CUDA graphs.
    """
    device = next(objective.parameters()).device
    carried = objective.state()
    scheduled = [key for key in ("momentum_schedule", "weight_decay_schedule") if config[key]]
    unmet = {
        "a CUDA device": device.type not in DEVICES,
        "one process": dist.is_initialized(),
        "trainer.compile=false": bool(settings.compile),
        "trainer.precision=fp32 or bf16: fp16 reads its loss scale": (
            choose_precision(settings.precision, device) == "fp16"
        ),
        "trainer.on_nonfinite=raise or stop: skip reads every loss": (
            settings.on_nonfinite == "skip"
        ),
        f"an optimizer without {' and '.join(scheduled)}": bool(scheduled),
        f"an objective without state between updates ({', '.join(carried)})": bool(carried),
    }
    for requirement, is_unmet in unmet.items():
        if is_unmet:
            raise ConfigError(f"trainer.cuda_graph=true needs {requirement}")


def shapes_of(update: list[Batch]) -> list[list[tuple[int, ...]]]:
    return [[tuple(tensor.shape) for tensor in batch] for batch in update]


def host_generators() -> tuple[Any, ...]:
    """States of the global CPU RNGs: Python's, NumPy's and torch's."""
    state: Any = numpy.random.get_state()
    numpy_state, position = state[1].tobytes(), state[2]
    return random.getstate(), numpy_state, position, torch.get_rng_state().numpy().tobytes()

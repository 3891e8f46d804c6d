"""Continue an interrupted run, or start a new one from another run's checkpoint.

A continued run is bit-identical to an uninterrupted one. Changed settings that would break this are
rejected unless ``resume_changes`` names them; then they apply from the first update on, since
settings come from the config and a checkpoint holds only state.
"""

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from core.errors import ConfigError
from core.same_run import ENDS, changes_data, changes_monitored
from core.schema import TrainerSettings
from data.loader import Loader
from optim.needs import try_step
from optim.schedules import Horizon
from trainer.checkpoint.files import to_host
from trainer.checkpoint.start import LOAD_ERRORS, Start
from trainer.phase import Phase
from trainer.trainer import Trainer

# keys that choose an optimizer nested in another, such as optimizer.rest._target_
INNER = re.compile(r"(?:phases\.(\w+)\.)?optimizer\.\w.*\.(?:_target_|name)")


def planned_horizon(settings: TrainerSettings, data: Loader, start: Start) -> Horizon:
    """The total number of updates, counted from the beginning of the run that is resumed."""
    with start.fitting():
        offset = 0 if start.content is None else batches_offset(start.content, data)
    return Horizon.of(settings.max_epochs, settings.max_steps, data.steps_per_epoch, offset)


def batches_offset(content: dict[str, Any], data: Loader) -> int:
    """Position in the data minus batches consumed, in batches of ``data``.

    After a change of the batch size the epoch continues at the next full batch, so no sample is
    seen twice in it. The count of updates continues as well.
    """
    before, counters = content["data"], content["counters"]
    offset, per_epoch = counters["batches_offset"], before["steps_per_epoch"]
    if (before["batch_size"], per_epoch) == (data.batch_size, data.steps_per_epoch):
        return offset
    consumed = counters["step"] + counters["skipped"]
    epoch, batches = divmod(consumed + offset, per_epoch)
    batches = min(math.ceil(batches * before["batch_size"] / data.batch_size), data.steps_per_epoch)
    return epoch * data.steps_per_epoch + batches - consumed


def resume(trainer: Trainer, start: Start) -> None:
    """Restore a newly built trainer from the checkpoint, if there is one.

    Raises:
        ConfigError: if the model, optimizer or data differ, or the checkpoint is past the end.
    """
    content = start.content
    if content is None:
        return
    with start.fitting():
        check_data(trainer, start, content)
        check_weights(trainer, start, content)
        reset_invalidated(content, trainer, set(start.changed))
        for phase in trainer.phases:
            where = ("optimizer.", f"phases.{phase.name}.optimizer.", "param_groups.")
            if changed := [key for key in start.changed if key.startswith(where)]:
                check_optimizer_state(phase, content["optimizers"][phase.name], changed)
        trainer.progress = trainer.checkpoints.restore(content)
    report_device_change(trainer, start.summary)
    step, last = trainer.progress.step, trainer.horizon.total_steps
    if step > last and start.changed:  # past limit_train_steps is fine: it ends
        raise ConfigError(
            f"resume: with {', '.join(start.changed)} the run ends after {last} updates, but it "
            f"has already made {step}"
        )


def check_data(trainer: Trainer, start: Start, content: dict[str, Any]) -> None:
    is_expected = any(map(changes_data, start.changed))
    if content["data"]["fingerprint"] != trainer.data.fingerprint and not is_expected:
        raise ConfigError(
            "resume: not the same run: the data at data.root or data.path differs from that of "
            f"{start.path}"
        )


def check_weights(trainer: Trainer, start: Start, content: dict[str, Any]) -> None:
    """Raise ConfigError if names or shapes of the weights differ from the checkpoint's."""
    before, now = shapes(content["model"]), shapes(trainer.objective.model.state_dict())
    if different := before.items() ^ now.items():
        name, _ = min(different)
        causes = [key for key in start.changed if key.startswith(("model.", "data."))]
        raise ConfigError(
            f"resume: {', '.join(causes) or 'the model'} cannot be changed: {name} was "
            f"{before.get(name, 'absent')}, is {now.get(name, 'absent')}; start a new run"
        )


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor, by name."""
    return {name: tuple(value.shape) for name, value in tensors.items()}


def reset_invalidated(content: dict[str, Any], trainer: Trainer, changed: set[str]) -> None:
    """Reset the parts of a checkpoint that the ``changed`` settings invalidate, and print them."""
    optimizers, data, counters = content["optimizers"], content["data"], content["counters"]
    say = trainer.run_log.print
    for phase in trainer.phases:
        before, now = optimizers[phase.name]["class"], phase.optimizer_state.kind
        inner = [key for key in sorted(changed) if is_inner_key(key, phase.name)]
        if before == now and not inner:
            continue
        optimizers[phase.name] = to_host(phase.optimizer_state.state_dict())
        other = f"replaces {before}" if before != now else f"has another {', '.join(inner)}"
        say(f"{now} {other}: its state starts from scratch")
    counters["batches_offset"] = trainer.horizon.batches_offset
    fresh = trainer.objective.state()
    if changed and shapes(fresh) != shapes(data["carried"]):
        data["carried"] = fresh
        say(f"{', '.join(sorted(changed))}: the carried state is reset")
    if any(map(changes_monitored, changed)):
        counters |= {"best": None, "evaluations": [], "evaluations_since_best": 0, "target": None}
        say(f"from here on, {trainer.monitor.name} decides the best")
    if "trainer.target" in changed:
        counters["target"] = None
    if changed & set(ENDS):
        counters["stop_reason"] = None


def is_inner_key(key: str, phase: str) -> bool:
    """Whether ``key`` chooses an optimizer nested in the phase's, and so its kind of state."""
    found = INNER.fullmatch(key)
    return found is not None and found[1] in (None, phase)


def report_device_change(trainer: Trainer, before: dict[str, Any]) -> None:
    """Tell the user if device or precision have changed: results then differ by rounding."""
    now = trainer.facts()
    changed = [
        f"{name} was {before[name]}, is {now[name]}"
        for name in ("device", "precision")
        if before.get(name, now[name]) != now[name]
    ]
    if changed:
        trainer.run_log.print(
            f"{'; '.join(changed)}: from here on the results differ from those of a run that was "
            "not interrupted"
        )


def check_optimizer_state(phase: Phase, saved: dict[str, Any], changed: list[str]) -> None:
    """Load the state, and try one step with zero gradients on a copy of the parameters.

    Raises:
        ConfigError: if the optimizer with its ``changed`` settings lacks state that it needs.
    """
    try:
        phase.optimizer_state.load_state_dict(saved)
        try_step(copy_optimizer(phase.optimizer, {}), phase.needs, scale=0.0)
    except LOAD_ERRORS as error:
        problem = f"has no {error}" if isinstance(error, KeyError) else f"does not fit ({error})"
        raise ConfigError(
            f"resume: {', '.join(changed)} cannot be changed: the state of "
            f"{type(phase.optimizer).__name__} in the checkpoint {problem}; start a new run"
        ) from error


def copy_optimizer(optimizer: Optimizer, memo: dict[int, Any]) -> Optimizer:
    """Deep-copy an optimizer with all attributes; torch's own copies drop those of subclasses.

    Args:
        memo: as in ``copy.deepcopy``; receives the copies of nested optimizers.
    """
    duplicate = memo[id(optimizer)] = object.__new__(type(optimizer))
    for value in vars(optimizer).values():
        for part in value.values() if isinstance(value, dict) else [value]:
            if isinstance(part, Optimizer) and id(part) not in memo:
                copy_optimizer(part, memo)
    vars(duplicate).update(copy.deepcopy(vars(optimizer), memo))
    return duplicate

"""Continue an interrupted run, or start a new one from another's checkpoint.

A continued run is bit for bit the one that was never interrupted, so a setting that would make it
another run is refused, unless the user names it in ``resume_changes``. Then it takes effect from
the first update on: settings come from the config, a checkpoint holds only state.
"""

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from core.collectives import agree, broadcast
from core.errors import ConfigError, RunInUse, reason
from core.files import lock
from core.job import Job
from core.ranks import Ranks, was_restarted
from core.run_directory import read_config
from core.same_run import ENDS, compare
from core.schema import TrainerSettings
from data.loader import Loader
from optim.schedules import Horizon
from trainer import checkpoint
from trainer.checkpoint import Start
from trainer.phase import Phase
from trainer.trainer import Trainer


@contextmanager
def starting_point(config: dict[str, Any], job: Job, ranks: Ranks) -> Iterator[Start]:
    """Lock the run directory and find where to begin, before anything is written.

    Raises:
        RunInUse: another process runs there, or it holds a run that ``resume`` does not name.
        ConfigError: the checkpoint is missing or damaged, or a setting has changed.
    """
    start, problem = Start(), None
    held = None
    is_restart = agree(was_restarted())  # the nodes that did not fail do not count it
    if ranks.is_main:
        try:
            held = take_lock(job.path)
            start = find(config, job, is_restart)
            if is_restart:
                start.notes.append(
                    "started again after a failure: the lines above and rank_*.log show what was "
                    "raised; a process that was killed leaves none"
                )
        except ConfigError as error:
            problem = error
    start, problem = broadcast((start, problem))  # other nodes may not see the file
    try:
        if problem is not None:
            raise problem
        yield start
    finally:
        if held is not None:
            held.close()


def take_lock(run_dir: Path) -> IO[str]:
    """Possession of the run directory.

    Raises:
        RunInUse: another process has it.
        ConfigError: it cannot be written.
    """
    path = run_dir / ".lock"
    try:
        return lock(path)
    except BlockingIOError as error:
        raise RunInUse(f"another process is running in {run_dir}") from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {reason(error)}") from error


def find(config: dict[str, Any], job: Job, is_restart: bool) -> Start:
    """The checkpoint that ``resume`` names, compared with the config.

    Args:
        is_restart: torchrun's engine has started the processes again after a failure.
    """
    run_dir = job.path
    source, own = config["resume"], (run_dir / "checkpoints").resolve()
    if own.exists() and not own.is_dir():
        raise ConfigError(f"{own} should be the folder of the checkpoints, but is a file")
    if is_restart and (source is None or own.exists()):
        source = "auto"
    path = None if source is None else named(source, own)
    folder = path.parent if path is not None and path.is_file() else path
    events = run_dir / "metrics.jsonl"
    if folder != own and events.exists() and events.stat().st_size:
        raise RunInUse(f"{run_dir} already holds a run: add resume=auto to continue it")
    if path is None or folder is None:
        return Start()
    start = Start(continues=folder == own)
    if path.is_file():
        start.path, start.content = path, checkpoint.load(path)
    else:
        start.path, start.content = newest(folder, start.notes)
        if start.path is None and source != "auto":
            raise ConfigError(f"resume={source}: it has no checkpoint")
    recorded = folder.parent / "config.yaml"
    if start.path is not None or recorded.exists():
        start.changed = compare(job.recordable or config, read_config(recorded))
    return start


def named(source: str, own: Path) -> Path:
    """The checkpoint, or the folder of checkpoints, that ``resume`` stands for."""
    if source == "auto":
        return own
    path = Path(source).resolve()
    if not path.exists():
        raise ConfigError(f"resume={source}: there is no such file or run directory")
    if path.is_dir() and path.name != "checkpoints":
        return path / "checkpoints"
    return path


def newest(folder: Path, notes: list[str]) -> tuple[Path | None, dict[str, Any] | None]:
    """The last good checkpoint: the one before, if the last cannot be read."""
    problem = None
    for path in (folder / "last.pt", folder / "previous.pt"):
        if not path.exists():
            continue
        try:
            content = checkpoint.load(path)
        except ConfigError as error:
            problem = problem or error
            continue
        if problem is not None:
            notes.append(f"{problem}; continuing from {path.name}")
        return path, content
    if problem is not None:
        raise problem
    return None, None


def planned_horizon(settings: TrainerSettings, data: Loader, start: Start) -> Horizon:
    """The updates to make in all, counted from the beginning of the run that goes on."""
    offset = batches_offset(start, data)
    return Horizon.of(settings.max_epochs, settings.max_steps, data.steps_per_epoch, offset)


def batches_offset(start: Start, data: Loader) -> int:
    """What the updates made lack of the position in the data, in batches of ``data``.

    With another batch size the epoch goes on where it was, to the next whole batch: no sample is
    seen twice in it. Updates are counted on.
    """
    if start.content is None:
        return 0
    before, counters = start.content["data"], start.content["counters"]
    offset, per_epoch = counters["batches_offset"], before["steps_per_epoch"]
    if (before["batch_size"], per_epoch) == (data.batch_size, data.steps_per_epoch):
        return offset
    consumed = counters["step"] + counters["skipped"]
    epoch, batches = divmod(consumed + offset, per_epoch)
    batches = min(math.ceil(batches * before["batch_size"] / data.batch_size), data.steps_per_epoch)
    return epoch * data.steps_per_epoch + batches - consumed


def resume(trainer: Trainer, start: Start) -> None:
    """Put a freshly built trainer where the checkpoint was made.

    Raises:
        ConfigError: the checkpoint is of another model, optimizer or data, or beyond the end.
    """
    if start.content is None or start.path is None:
        return
    notes: list[str] = []
    check_data(trainer, start)
    check_weights(trainer, start)
    content = adapted(trainer, start, notes)
    try:
        trainer.load_state_dict(content)
        for phase in trainer.phases:
            if changed := settings_of(phase, start.changed):
                try_step(phase, changed)
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the checkpoint {start.path} does not fit this run: {reason(error)}"
        ) from error
    check_end(trainer, start)
    if trainer.ranks.is_main:
        settle_best(trainer, start.path, notes)
        for note in notes:
            trainer.run_log.print(note)
    trainer.progress.best = broadcast(trainer.progress.best)


def check_data(trainer: Trainer, start: Start) -> None:
    assert start.content is not None
    is_meant = any(key.startswith("data.") for key in start.changed)
    if start.content["data"]["fingerprint"] != trainer.data.fingerprint and not is_meant:
        raise ConfigError(
            "resume: not the same run: what is at data.root or data.path is not the data that "
            f"{start.path} was made with"
        )


def check_weights(trainer: Trainer, start: Start) -> None:
    """Names and shapes of the weights, which no setting can change."""
    assert start.content is not None
    before = {name: tuple(value.shape) for name, value in start.content["model"].items()}
    now = {
        name.replace("_orig_mod.", ""): tuple(value.shape)
        for name, value in trainer.objective.model.state_dict().items()
    }
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            causes = [key for key in start.changed if key.startswith(("model.", "data."))]
            raise ConfigError(
                f"resume: {', '.join(causes) or 'the model'} cannot be changed: {name} was "
                f"{before.get(name, 'absent')}, is {now.get(name, 'absent')}; start a new run"
            )


def adapted(trainer: Trainer, start: Start, notes: list[str]) -> dict[str, Any]:
    """The checkpoint without what the changed settings make void."""
    assert start.content is not None
    content, changed = copy.copy(start.content), set(start.changed)
    data, counters = content["data"].copy(), content["counters"].copy()
    optimizers = content["optimizers"].copy()
    content |= {"data": data, "counters": counters, "optimizers": optimizers}
    for phase in trainer.phases:
        if phase.name not in optimizers:
            raise ConfigError(
                f"resume: the checkpoint has the phases {', '.join(optimizers)}, this run has "
                f"{', '.join(p.name for p in trainer.phases)}; start a new run"
            )
        before, now = optimizers[phase.name]["class"], phase.optimizer_state.kind
        if before != now:
            optimizers[phase.name] = phase.optimizer_state.state_dict()
            notes.append(f"{now} in place of {before}: it starts with a fresh state")
    counters["batches_offset"] = trainer.horizon.batches_offset
    if "data.batch_size" in changed and data["carried"]:
        data["carried"] = trainer.objective.state()
        notes.append("data.batch_size has changed: the carried state starts empty")
    if changed & {"monitor", "monitor_mode"}:
        counters |= {"best": None, "evaluations_since_best": 0, "target": None}
        notes.append(f"from here on the best is that of {trainer.monitor.name}")
    if "trainer.target" in changed:
        counters["target"] = None
    if changed & set(ENDS):
        counters["stop_reason"] = None
    return content


def settings_of(phase: Phase, changed: Iterable[str]) -> list[str]:
    """The changed settings of a phase's optimizer."""
    where = ("optimizer.", f"phases.{phase.name}.optimizer.")
    return [key for key in changed if key.startswith(where)]


def try_step(phase: Phase, changed: list[str]) -> None:
    """Make and take back one update with gradients of zero.

    Raises:
        ConfigError: with the ``changed`` settings the optimizer needs a state it has not.
    """
    weights = [parameter.detach().clone() for parameter in phase.parameters]
    state = copy.deepcopy(phase.optimizer.state_dict())
    for parameter in phase.parameters:
        parameter.grad = parameter.detach().clone().zero_()
    phase.train_mode(True)
    try:
        phase.optimizer.step()
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        lacks = f"has no {error}" if isinstance(error, KeyError) else f"does not fit ({error})"
        raise ConfigError(
            f"resume: {', '.join(changed)} cannot be changed: the state of "
            f"{type(phase.optimizer).__name__} in the checkpoint {lacks}; start a new run"
        ) from error
    phase.optimizer.zero_grad()
    for parameter, value in zip(phase.parameters, weights, strict=True):
        parameter.data.copy_(value)
    phase.optimizer.load_state_dict(state)


def check_end(trainer: Trainer, start: Start) -> None:
    """A limit may lie behind the run, which then ends; a horizon may not: schedules end with it.

    Raises: ConfigError.
    """
    step, last = trainer.progress.step, trainer.horizon.total_steps
    if step > last and start.changed:
        raise ConfigError(
            f"resume: the run is to end after {last} updates ({', '.join(start.changed)}), but has "
            f"made {step} already"
        )


def settle_best(trainer: Trainer, source: Path, notes: list[str]) -> None:
    """Make ``best.pt`` the best of what is continued: it may be older or newer, or elsewhere."""
    best = trainer.progress.best
    own = trainer.run_log.run_dir / "checkpoints" / "best.pt"
    if best is None:
        return
    for path in (own, source.with_name("best.pt"), source):
        try:
            content = checkpoint.load(path)
        except ConfigError:
            continue
        counters = content["counters"]
        if counters["step"] == counters["evaluated_at"] == best.step:  # not saved after it
            if path != own:
                own.parent.mkdir(exist_ok=True)
                checkpoint.duplicate(path, own)
            return
    notes.append(
        f"the best weights, of step {best.step}, are lost: best.pt becomes those of the next "
        "evaluation"
    )
    trainer.progress.best = None
    trainer.progress.evaluations_since_best = 0

"""Continue an interrupted run, or start a new one from another's checkpoint.

A continued run is bit for bit the one that was never interrupted, so a setting that would make it
another run is refused, unless the user names it in ``resume_changes``. Then it takes effect from
the first update on: settings come from the config, a checkpoint holds only state.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from core.collectives import agree, broadcast
from core.environment import settings_from_environment
from core.errors import ConfigError, RunInUse, reason
from core.files import lock
from core.job import Job
from core.progress import Best, Progress
from core.ranks import Ranks, was_restarted
from core.run_directory import read_config, read_summary
from core.same_run import ENDS, FREE, changes_data, changes_monitored, compare, is_among
from core.schema import TrainerSettings
from data.loader import Loader
from optim.needs import try_step
from optim.schedules import Horizon
from trainer import checkpoint
from trainer.phase import Phase
from trainer.trainer import Trainer

# whatever torch and the optimizers raise where a state is not theirs
MISFITS = (RuntimeError, KeyError, ValueError, TypeError, AttributeError)


@dataclass
class Start:
    """Where a run begins: at the beginning, or at a checkpoint.

    Attributes:
        content: of the checkpoint, if any.
        continues: whether the checkpoint is of this run directory, so that the same run goes on.
        changed: settings that differ from those the checkpoint was made with.
        summary: what the run that made it says of itself.
        notes: what a person should know, such as a damaged file that was passed over.
    """

    path: Path | None = None
    content: dict[str, Any] | None = None
    continues: bool = False
    changed: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def num_events(self) -> int:
        """Lines of ``metrics.jsonl`` that were written when the checkpoint was."""
        return self.content["num_events"] if self.content and self.continues else 0

    @property
    def facts(self) -> dict[str, Any]:
        """For the summary: where the run begins, if not at its beginning.

        And the weights with which it then began, which are read no more.
        """
        if self.content is None:
            return {}
        step = self.content["counters"]["step"]
        facts = {"resumed_from": str(self.path), "resumed_at_step": step}
        if self.summary.get("init_from"):
            facts |= {key: self.summary.get(key) for key in ("init_from", "initial_weights_hash")}
        return facts | ({"checkpoint_step": step} if self.continues else {})

    @property
    def wandb(self) -> dict[str, Any]:
        return self.content["wandb"] if self.content and self.continues else {}


@contextmanager
def starting_point(config: dict[str, Any], job: Job, ranks: Ranks) -> Iterator[Start]:
    """Lock the run directory and find where to begin, before anything is written.

    Raises:
        RunInUse: another process runs there, or it holds a run that ``resume`` does not name.
        ConfigError: the checkpoint is missing or damaged, or a setting has changed.
    """
    start, problem, held = Start(), None, None
    is_restart = agree(was_restarted())  # the nodes that did not fail do not count it
    if ranks.is_main:
        try:
            held = take_lock(job.path)
            start = find(config, job, is_restart)
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
        is_restart: torchrun's engine started the processes again after a failure.
    """
    source, own = config["resume"], (job.path / "checkpoints").resolve()
    if is_restart and (source is None or own.exists()):
        source = "auto"
    files = candidates(source, own)
    start = Start(continues=bool(files) and files[0].parent == own)
    if is_restart:
        start.notes.append(
            "started again after a failure: the lines above and rank_*.log show what was "
            "raised; a process that was killed leaves none"
        )
    events = job.path / "metrics.jsonl"
    if not start.continues and events.exists() and events.stat().st_size:
        raise RunInUse(f"{job.path} already holds a run: add resume=auto to continue it")
    if source == "auto" and not any(map(Path.exists, files)) and job.sweep is None:
        start.notes.append(f"resume=auto: {job.path} has no checkpoint yet: a new run begins")
    if not files:
        return start
    start.path, start.content = newest(files, start.notes)
    if start.path is None and source != "auto":
        raise ConfigError(f"resume={source}: it has no checkpoint")
    recorded = files[0].parent.parent / "config.yaml"
    if start.path is not None or recorded.exists():
        now = job.recordable or config
        start.changed = compare(now, read_config(recorded))
        hidden = [key for key in settings_from_environment(now) if not is_among(key, FREE)]
        if hidden:
            start.notes.append(
                f"{', '.join(hidden)}: values from the environment are not recorded, so whether "
                "they have changed is not known"
            )
    start.summary = read_summary(recorded.with_name("summary.json"))
    with fitting(start):
        settle_best(start, own)
    return start


@contextmanager
def fitting(start: Start) -> Iterator[None]:
    """One line for whatever a checkpoint raises that is not of this run, or was tampered with."""
    try:
        yield
    except MISFITS as error:
        raise ConfigError(
            f"the checkpoint {start.path} does not fit this run: {reason(error)}"
        ) from error


def candidates(source: str | None, own: Path) -> list[Path]:
    """The files that ``resume`` stands for, in the order in which to try them."""
    if source is None:
        return []
    folder = own if source == "auto" else Path(source).resolve()
    if source != "auto" and not folder.exists():
        raise ConfigError(f"resume={source}: there is no such file or run directory")
    if folder.is_file():
        return [folder]
    if folder.name != "checkpoints":
        folder = folder / "checkpoints"
    return [folder / "last.pt", folder / "previous.pt"]


def newest(files: list[Path], notes: list[str]) -> tuple[Path | None, dict[str, Any] | None]:
    """The last good checkpoint: the one before, if the last cannot be read."""
    problem = None
    for path in filter(Path.exists, files):
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


def settle_best(start: Start, own: Path) -> None:
    """Make ``best.pt`` the best of what is continued: it may be older or newer, or elsewhere."""
    if start.content is None or start.path is None or start.content["counters"]["best"] is None:
        return
    counters = start.content["counters"]
    step = counters["best"]["step"]
    for path in (own / "best.pt", start.path.with_name("best.pt"), start.path):
        try:
            found = checkpoint.load(path)["counters"]
        except ConfigError:
            continue
        if found["step"] == found["evaluated_at"] == step:  # not saved after it
            if path.parent != own or path.name != "best.pt":
                own.mkdir(exist_ok=True)
                checkpoint.duplicate(path, own / "best.pt")
            return
    start.notes.append(
        f"the best weights, of step {step}, are lost: best.pt becomes those of the next evaluation"
    )
    counters |= {"best": None, "evaluations_since_best": 0}


def planned_horizon(settings: TrainerSettings, data: Loader, start: Start) -> Horizon:
    """The updates to make in all, counted from the beginning of the run that goes on."""
    with fitting(start):
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
    content = start.content
    if content is None:
        return
    with fitting(start):
        check_data(trainer, start)
        check_weights(trainer, start)
        adapt(content, trainer, set(start.changed))
        restore(trainer, content)
    for phase in trainer.phases:
        where = ("optimizer.", f"phases.{phase.name}.optimizer.", "param_groups.")
        if changed := [key for key in start.changed if key.startswith(where)]:
            check_state(phase, changed)
    say_where(trainer, start.summary)
    step, last = trainer.progress.step, trainer.horizon.total_steps
    if step > last and start.changed:  # a limit may lie behind the run, which then ends
        raise ConfigError(
            f"resume: the run is to end after {last} updates ({', '.join(start.changed)}), but has "
            f"made {step} already"
        )


def check_data(trainer: Trainer, start: Start) -> None:
    assert start.content is not None
    is_meant = any(map(changes_data, start.changed))
    if start.content["data"]["fingerprint"] != trainer.data.fingerprint and not is_meant:
        raise ConfigError(
            "resume: not the same run: what is at data.root or data.path is not the data that "
            f"{start.path} was made with"
        )


def check_weights(trainer: Trainer, start: Start) -> None:
    """Names and shapes of the weights, which no setting can change."""
    assert start.content is not None
    before = checkpoint.shapes(start.content["model"])
    now = checkpoint.shapes(trainer.objective.model.state_dict())
    if different := before.items() ^ now.items():
        name, _ = min(different)
        causes = [key for key in start.changed if key.startswith(("model.", "data."))]
        raise ConfigError(
            f"resume: {', '.join(causes) or 'the model'} cannot be changed: {name} was "
            f"{before.get(name, 'absent')}, is {now.get(name, 'absent')}; start a new run"
        )


def adapt(content: dict[str, Any], trainer: Trainer, changed: set[str]) -> None:
    """Take out of a checkpoint what the ``changed`` settings make void, and say so."""
    optimizers, data, counters = content["optimizers"], content["data"], content["counters"]
    say = trainer.run_log.print
    for phase in trainer.phases:
        before, now = optimizers[phase.name]["class"], phase.optimizer_state.kind
        if before != now:
            optimizers[phase.name] = phase.optimizer_state.state_dict()
            say(f"{now} in place of {before}: it starts with a fresh state")
    counters["batches_offset"] = trainer.horizon.batches_offset
    fresh = trainer.objective.state()
    if changed and checkpoint.shapes(fresh) != checkpoint.shapes(data["carried"]):
        data["carried"] = fresh
        say(f"{', '.join(sorted(changed))}: the carried state starts empty")
    if any(map(changes_monitored, changed)):
        counters |= {"best": None, "evaluations": [], "evaluations_since_best": 0, "target": None}
        say(f"from here on the best is that of {trainer.monitor.name}")
    if "trainer.target" in changed:
        counters["target"] = None
    if changed & set(ENDS):
        counters["stop_reason"] = None


def restore(trainer: Trainer, content: dict[str, Any]) -> None:
    """Go on from what :meth:`Trainer.state_dict` returned, of any number of processes.

    What this run has and the other had not, such as an average or a loss scale, starts afresh.
    """
    checkpoint.load_weights(trainer.objective.model, content["model"])
    if trainer.average is not None:
        trainer.average.module.load_state_dict(content["ema"] or content["model"])
        trainer.average.num_updates = content["ema_updates"]
    for phase in trainer.phases:
        phase.optimizer_state.load_state_dict(content["optimizers"][phase.name])
    if content["scaler"]:
        trainer.scaler.load_state_dict(content["scaler"])
    trainer.objective.load_state(content["data"]["carried"])
    trainer.metrics.load_state(content["metrics"], trainer.ranks)
    best = content["counters"]["best"]
    trainer.progress = Progress(**content["counters"] | {"best": best and Best(**best)})
    trainer.data.continue_order(content["data"]["order_hash"], trainer.progress.batches)


def say_where(trainer: Trainer, before: dict[str, Any]) -> None:
    """Say on what the run goes on, where other rounding makes it another run from here on."""
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


def check_state(phase: Phase, changed: list[str]) -> None:
    """Make one update with gradients of zero, of a copy of the optimizer and its parameters.

    Raises:
        ConfigError: with the ``changed`` settings the optimizer needs a state it has not.
    """
    optimizer = copy.deepcopy(phase.optimizer)
    try:
        try_step(optimizer, phase.needs, scale=0.0)
    except MISFITS as error:
        lacks = f"has no {error}" if isinstance(error, KeyError) else f"does not fit ({error})"
        raise ConfigError(
            f"resume: {', '.join(changed)} cannot be changed: the state of "
            f"{type(optimizer).__name__} in the checkpoint {lacks}; start a new run"
        ) from error

"""Continue an interrupted run, or start a new one from another's checkpoint.

A continued run is bit for bit the one that was never interrupted, so a setting that would make it
another run is refused, unless the user names it in ``resume_changes``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from core.errors import ConfigError, RunInUse, reason
from core.files import lock
from core.job import Job
from core.ranks import Ranks, was_restarted
from core.run_directory import read_config
from core.same_run import ENDS, compare
from trainer import checkpoint
from trainer.distributed.process_group import agree, broadcast
from trainer.state import restore

if TYPE_CHECKING:
    from trainer.trainer import Trainer


@dataclass
class Start:
    """Where a run begins: at the beginning, or at a checkpoint.

    Attributes:
        content: of the checkpoint, if any.
        continues: whether the checkpoint is of this run directory, so that the same run goes on.
        changed: settings that differ from those the checkpoint was made with.
        notes: what a person should know, such as a damaged file that was passed over.
    """

    path: Path | None = None
    content: dict[str, Any] | None = None
    continues: bool = False
    changed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def num_events(self) -> int:
        """Lines of ``metrics.jsonl`` that were written when the checkpoint was."""
        return self.content["counters"]["events"] if self.content and self.continues else 0

    @property
    def wandb(self) -> dict[str, Any]:
        return self.content["wandb"] if self.content and self.continues else {}


@contextmanager
def starting_point(config: dict[str, Any], job: Job, ranks: Ranks) -> Iterator[Start]:
    """Take possession of the run directory and find where to begin, before anything is written.

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
    return path / "checkpoints" if path.is_dir() else path


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


def resume(trainer: Trainer, start: Start) -> None:
    """Put a freshly built trainer where the checkpoint was made.

    Raises:
        ConfigError: the checkpoint is of another model or optimizer, or of other data.
    """
    if start.content is None or start.path is None:
        return
    own = trainer.data.fingerprint
    is_meant = any(key.startswith("data.") for key in start.changed)
    if start.content["data"].get("fingerprint", own) != own and not is_meant:
        raise ConfigError(
            "resume: not the same run: what is at data.root or data.path is not the data that "
            f"{start.path} was made with"
        )
    try:
        restore(trainer, start.content)
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the checkpoint {start.path} does not fit this run: {reason(error)}"
        ) from error
    if set(start.changed) & set(ENDS):
        trainer.progress.stop_reason = None
    if trainer.ranks.is_main:
        settle_best(trainer, start)
    trainer.progress.best = broadcast(trainer.progress.best)


def settle_best(trainer: Trainer, start: Start) -> None:
    """Make ``best.pt`` the best of what is continued: it may be older or newer, or elsewhere."""
    assert start.path is not None
    best = trainer.progress.best
    own = trainer.records.run_dir / "checkpoints" / "best.pt"
    if best is None:
        return
    for path in (own, start.path.with_name("best.pt"), start.path):
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
    trainer.records.console.print(
        f"[yellow]the best weights, of step {best.step}, are lost: best.pt becomes those of the "
        "next evaluation[/yellow]"
    )
    trainer.progress.best = None
    trainer.progress.evaluations_since_best = 0

"""Find where a run starts: from scratch, or at the checkpoint that ``resume`` names."""

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
from core.ranks import Ranks, was_restarted
from core.run_directory import read_config, read_summary
from core.same_run import FREE, compare, is_among
from trainer.checkpoint import files

# raised by torch and the optimizers when loading a state that does not fit
LOAD_ERRORS = (RuntimeError, KeyError, ValueError, TypeError, AttributeError)


@dataclass
class Start:
    """Where a run starts: from scratch, or at a checkpoint.

    Attributes:
        content: the checkpoint's content, if there is one.
        continues: whether the checkpoint is from this run directory, so the same run continues.
        changed: settings that differ from those of the run that wrote the checkpoint.
        summary: the summary of that run.
        notes: messages for the user, such as that a damaged file was skipped.
    """

    path: Path | None = None
    content: dict[str, Any] | None = None
    continues: bool = False
    changed: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def num_events(self) -> int:
        """Number of lines in ``metrics.jsonl`` when the checkpoint was written."""
        return self.content["num_events"] if self.content and self.continues else 0

    @property
    def wandb(self) -> dict[str, Any]:
        """State of the W&B run to continue; empty for a new one."""
        return self.content["wandb"] if self.content and self.continues else {}

    @property
    def facts(self) -> dict[str, Any]:
        """Entries for the summary: the checkpoint, and the initial weights of the run resumed."""
        if self.content is None:
            return {}
        step = self.content["counters"]["step"]
        facts = {"resumed_from": str(self.path), "resumed_at_step": step}
        if self.summary.get("init_from"):
            facts |= {key: self.summary.get(key) for key in ("init_from", "initial_weights_hash")}
        return facts | ({"checkpoint_step": step} if self.continues else {})

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Turn errors of a checkpoint that does not fit or was tampered with into ConfigError."""
        try:
            yield
        except LOAD_ERRORS as error:
            raise ConfigError(
                f"the checkpoint {self.path} does not fit this run: {reason(error)}"
            ) from error


@contextmanager
def starting_point(config: dict[str, Any], job: Job, ranks: Ranks) -> Iterator[Start]:
    """Lock the run directory and find where to start, before anything is written.

    Raises:
        RunInUse: if another process runs there, or ``resume`` does not name the run in it.
        ConfigError: if the checkpoint is missing or damaged, or a setting has changed.
    """
    start, problem, lock_file = Start(), None, None
    is_restart = agree(was_restarted())  # only the failed node knows
    if ranks.is_main:
        try:
            lock_file = take_lock(job.path)
            start = find(config, job, is_restart)
        except ConfigError as error:
            problem = error
    start, problem = broadcast((start, problem))  # other nodes may not see the file
    try:
        if problem is not None:
            raise problem
        yield start
    finally:
        if lock_file is not None:
            lock_file.close()


def take_lock(run_dir: Path) -> IO[str]:
    """Lock the run directory; closing the returned file releases the lock.

    Raises:
        RunInUse: if another process holds the lock.
        ConfigError: if the directory is not writable.
    """
    path = run_dir / ".lock"
    try:
        return lock(path)
    except BlockingIOError as error:
        raise RunInUse(f"another process is running in {run_dir}") from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {reason(error)}") from error


def find(config: dict[str, Any], job: Job, is_restart: bool) -> Start:
    """Load the checkpoint that ``resume`` names, and compare its settings with the config.

    Args:
        is_restart: whether torchelastic restarted the processes after a failure.
    """
    source, checkpoint_dir = config["resume"], (job.path / "checkpoints").resolve()
    if is_restart and (source is None or checkpoint_dir.exists()):
        source = "auto"
    paths = candidates(source, checkpoint_dir)
    start = Start(continues=bool(paths) and paths[0].parent == checkpoint_dir)
    if is_restart:
        start.notes.append(
            "restarted after a failure: the lines above and rank_*.log show the error, unless the "
            "process was killed"
        )
    events = job.path / "metrics.jsonl"
    if not start.continues and events.exists() and events.stat().st_size:
        raise RunInUse(f"{job.path} already holds a run: add resume=auto to continue it")
    if not paths:
        return start
    load_newest(paths, start)
    if start.path is None and source != "auto":
        raise ConfigError(f"resume={source} has no checkpoint")
    if start.path is None and job.sweep is None:
        start.notes.append(f"resume=auto: {job.path} has no checkpoint yet: starting a new run")
    recorded = paths[0].parent.parent / "config.yaml"
    if start.path is not None or recorded.exists():
        compare_settings(job.recordable or config, recorded, start)
    start.summary = read_summary(recorded.with_name("summary.json"))
    with start.fitting():
        restore_best(start, checkpoint_dir)
    return start


def candidates(source: str | None, checkpoint_dir: Path) -> list[Path]:
    """Checkpoint files that ``resume`` may refer to, in the order in which to try them."""
    if source is None:
        return []
    folder = checkpoint_dir if source == "auto" else Path(source).resolve()
    if source != "auto" and not folder.exists():
        raise ConfigError(f"resume={source}: there is no such file or run directory")
    if folder.is_file():
        return [folder]
    if folder.name != "checkpoints":
        folder = folder / "checkpoints"
    return [folder / "last.pt", folder / "previous.pt"]


def load_newest(paths: list[Path], start: Start) -> None:
    """Start at the first of ``paths`` that can be read, if any exists.

    Raises:
        ConfigError: if files exist, but none can be read.
    """
    problem = None
    for path in filter(Path.exists, paths):
        try:
            start.path, start.content = path, files.load(path)
        except ConfigError as error:
            problem = problem or error
            continue
        if problem is not None:
            start.notes.append(f"{problem}; continuing from {path.name}")
        return
    if problem is not None:
        raise problem


def compare_settings(config: dict[str, Any], recorded: Path, start: Start) -> None:
    """Note which settings have changed since the checkpoint, and which cannot be compared."""
    start.changed = compare(config, read_config(recorded))
    hidden = [key for key in settings_from_environment(config) if not is_among(key, FREE)]
    if hidden:
        start.notes.append(
            f"{', '.join(hidden)}: values from the environment are not recorded, so changes to "
            "them cannot be detected"
        )


def restore_best(start: Start, checkpoint_dir: Path) -> None:
    """Make ``best.pt`` match the loaded checkpoint; it may be older, newer or in another run."""
    if start.content is None or start.path is None or start.content["counters"]["best"] is None:
        return
    counters = start.content["counters"]
    step = counters["best"]["step"]
    for path in (checkpoint_dir / "best.pt", start.path.with_name("best.pt"), start.path):
        try:
            saved = files.load(path)["counters"]
        except ConfigError:
            continue
        if saved["step"] == saved["evaluated_at"] == step:  # not a later save
            if path != checkpoint_dir / "best.pt":
                checkpoint_dir.mkdir(exist_ok=True)
                files.duplicate(path, checkpoint_dir / "best.pt")
            return
    start.notes.append(
        f"the best weights, of step {step}, are lost: the next evaluation writes a new best.pt"
    )
    counters |= {"best": None, "evaluations_since_best": 0}

"""The command line's manners: one clear line for a mistake, an honest exit code."""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from trainer.errors import ConfigError, Diverged
from trainer.progress import Monitor
from trainer.records import Job, write_json
from trainer.settings import unknown_key
from trainer.sweep import Sweep

failed_jobs = 0


@dataclass
class Outcome:
    """What a job returns to the sweeper."""

    value: float


def command_line(main: Callable[[], None]) -> int:
    """Run Hydra's entry point; the process's exit code."""
    # Hydra then raises instead of printing its own report, and every mistake reads alike
    show_traceback = os.environ.setdefault("HYDRA_FULL_ERROR", "0") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
    except (HydraException, OmegaConfBaseException, ConfigError) as error:
        if show_traceback:
            raise
        print_error(explain(error))
        return 1
    except KeyboardInterrupt:
        Sweep.finish()
        print_error("interrupted")
        return 130
    return 1 if Sweep.failed or failed_jobs else 0


@contextmanager
def failures_reported(job: Job, cfg: DictConfig) -> Iterator[Outcome]:
    """Report a job's failure at once and let the sweep go on with the next."""
    global failed_jobs
    outcome = Outcome(Monitor("", str(cfg.monitor_mode)).worst)
    try:
        yield outcome
    except Exception as error:
        failed_jobs += 1
        name = " ".join(job.overrides)
        if not isinstance(error, ConfigError | Diverged):
            traceback.print_exc()
        print_error(f"{error if str(error) else type(error).__name__}")
        if job.sweep is not None:
            print(
                f"job {Path(job.run_dir).name} ({name}) failed; the sweep goes on", file=sys.stderr
            )
        leave_summary(job, error)


def leave_summary(job: Job, error: Exception) -> None:
    """A summary for a job that failed before it had records of its own."""
    file = job.path / "summary.json"
    if file.exists():
        return
    summary: dict[str, Any] = {
        "status": "failed",
        "error": f"{type(error).__name__}: {error}",
        "overrides": list(job.overrides),
    }
    try:
        write_json(summary, file)
    except ConfigError as problem:
        print_error(str(problem))


def print_error(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)


def explain(error: Exception) -> str:
    """Hydra's and OmegaConf's errors as one line that names the setting and the nearest one."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = list(error.options or [])
        nearest = get_close_matches(option, options, n=1)
        hint = f"did you mean {group}={nearest[0]}? " if nearest else ""
        shown = [name for name in options if not name.startswith("_")]
        return f"{group}={option}: no such option; {hint}There are {', '.join(shown)}"
    text = str(error)
    override = re.search(r"Could not override '([^']+)'", text)
    if override:
        return unknown_key(override.group(1))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and str(cause) and str(cause) not in text:
        lines.append(str(cause).splitlines()[0])
    return "; ".join(lines[:2]) if lines else type(error).__name__

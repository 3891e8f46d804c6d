"""The command line's manners: one clear line for a mistake, an honest exit code."""

import json
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from core.composed import CONF, check_phases
from core.environment import without_environment
from core.errors import ConfigError, Diverged, Interrupted, RankFailed, RunInUse
from core.files import write_json
from core.job import Job
from core.monitor import worst_value
from core.ranks import started_by_torchrun
from core.schema import dotted_keys, unknown_key
from trainer.sweep import Sweep

Compose = Callable[[list[str]], DictConfig]

failed_jobs = 0


@dataclass
class Outcome:
    """What a job returns to the sweeper."""

    value: float


def command_line(main: Callable[[], None]) -> int:
    """Run Hydra's entry point; the process's exit code."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in place of trainer.script's
    return run_jobs(main)


@contextmanager
def hydra_raises() -> Iterator[None]:
    """Hydra raises instead of printing its own report, so that every mistake reads alike."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def run_jobs(main: Callable[[], None]) -> int:
    global failed_jobs
    failed_jobs, Sweep.failed = 0, False
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        with hydra_raises():
            main()
    except (HydraException, OmegaConfBaseException, ConfigError) as error:
        if show_traceback:
            raise
        print_error(explain(error))
        return 1
    except OSError as error:
        if show_traceback or not error.filename:
            raise
        print_error(f"cannot write {error.filename}: {error.strerror}")
        return 1
    except (KeyboardInterrupt, Interrupted) as error:
        Sweep.finish()
        print_error(str(error) or "interrupted")
        return error.exit_code if isinstance(error, Interrupted) else 130
    except Exception as error:
        Sweep.finish()  # a launcher lost a worker: the other jobs have their records
        if show_traceback:
            raise
        if "Unknown plugin class" in str(error):
            print_error(f"{error}: pip install -r requirements-cluster.txt")
        elif "Config group override must be" in str(error):  # optim=1
            print_error(f"{no_option()}: should be the name of an option; --help lists them")
        else:
            raise
        return 1
    return 1 if Sweep.failed or failed_jobs else 0


@contextmanager
def failures_reported(job: Job, cfg: DictConfig) -> Iterator[Outcome]:
    """Report a job's failure at once and let the sweep go on with the next."""
    global failed_jobs
    outcome = Outcome(math.nan)
    try:
        yield outcome
    except Exception as error:
        outcome.value = worst_value(cfg)
        # whether a diverged job is a failure, a sweep says: to a study it is a result
        failed_jobs += not (isinstance(error, Diverged) and job.sweep is not None)
        tell_torchrun(error)
        message = without_environment(str(error), job.composed)
        if isinstance(error, RankFailed):
            print(without_environment(error.traceback, job.composed), end="", file=sys.stderr)
        elif not isinstance(error, ConfigError | Diverged):
            trace = without_environment(traceback.format_exc(), job.composed)
            print(trace, file=sys.stderr)
        print_error(message or type(error).__name__)
        if job.sweep is not None:
            name = f"{Path(job.run_dir).name} ({' '.join(job.overrides)})"
            print(f"job {name} failed; the sweep goes on", file=sys.stderr)
        leave_summary(job, error, message)


def tell_torchrun(error: Exception) -> None:
    """Let torchrun's own report show where a process that it started failed."""
    if started_by_torchrun():
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


def leave_summary(job: Job, error: Exception, message: str) -> None:
    """A summary for a job that could not write its own; the cause, where rank 0 saw a symptom."""
    file = job.path / "summary.json"
    if isinstance(error, RunInUse) or (file.exists() and not isinstance(error, RankFailed)):
        return
    summary: dict[str, Any] = {"overrides": list(job.overrides)}
    with suppress(OSError, ValueError, TypeError):  # a damaged one is replaced
        summary |= json.loads(file.read_text())
    summary |= {"status": "failed", "error": f"{type(error).__name__}: {message}"}
    try:
        write_json(summary, file)
    except ConfigError as problem:
        print_error(str(problem))


def no_option() -> str:
    """The words of the command line that choose an option of a group that it does not have."""
    found = []
    for word in sys.argv[1:]:
        key, _, option = word.lstrip("+~").partition("=")
        group = CONF / key.partition("@")[0]
        if key and group.is_dir() and not (group / f"{option}.yaml").is_file():
            found.append(word)
    return " ".join(found)


def compose_anew(overrides: list[str]) -> DictConfig:
    """The config of the overrides, where Hydra is not at work."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides)


def composable(overrides: Sequence[str], compose: Compose) -> dict[str, Any]:
    """The config that the group choices among the overrides compose; empty if they compose none."""
    choices = [word for word in overrides if re.fullmatch(r"\+?[\w/]+(@[\w.]+)?=\w+", word)]
    for tried in (choices, []):
        try:
            config = OmegaConf.to_container(compose(tried))
            assert isinstance(config, dict)
            return {str(key): value for key, value in config.items()}
        except HydraException:
            continue
    return {}


def print_error(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)


def explain(
    error: Exception, overrides: Sequence[str] | None = None, compose: Compose = compose_anew
) -> str:
    """Hydra's and OmegaConf's errors as one line that names the setting and the nearest one.

    Args:
        overrides: what was composed; None: the words of the command line.
        compose: overrides to the config; a sweeper has its own.
    """
    overrides = sys.argv[1:] if overrides is None else overrides
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = list(error.options or [])
        nearest = get_close_matches(option, options, n=1)
        hint = f"did you mean {group}={nearest[0]}? " if nearest else ""
        shown = [name for name in options if not name.startswith("_")]
        return f"{group}={option}: no such option; {hint}There are {', '.join(shown)}"
    if isinstance(error, OverrideParseException):
        return (
            f"cannot read the override {error.override}: it should be key=value, values with "
            "special characters in quotes within quotes, 'key=\"a value\"'"
        )
    text = str(error)
    if isinstance(error, ConfigError):
        return text
    override = re.search(r"Could not override '([^']+)'", text)
    if override:
        config = composable(overrides, compose)
        try:
            check_phases(list(config.get("phases", ())), overrides)
        except ConfigError as reason:
            return str(reason)
        known = dotted_keys(config)
        if override.group(1) not in known:
            return unknown_key(override.group(1), known)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and str(cause) and str(cause) not in text:
        lines.append(str(cause).splitlines()[0])
    return "; ".join(lines[:2]) if lines else type(error).__name__

"""Command-line error handling: one clear line for a mistake, and the right exit code."""

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from core.composed import (
    CONF,
    check_phases,
    compose_config,
    is_multirun,
    job_of_this_process,
)
from core.environment import without_environment
from core.errors import ConfigError, Diverged, Interrupted, RankFailed, RunInUse
from core.files import write_json
from core.help import help_text
from core.job import Job
from core.monitor import worst_value
from core.ranks import started_by_torchrun
from core.records import printable, read_record
from core.schema import dotted_keys, unknown_key

Compose = Callable[[list[str]], DictConfig]

failed_jobs = 0


def command_line(main: Callable[[], None], finish_sweep: Callable[[], bool]) -> int:
    """Run Hydra's entry point and return the process's exit code.

    Args:
        finish_sweep: called at the end, also after errors; returns whether all jobs succeeded.
    """
    global failed_jobs
    failed_jobs = 0
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing its own report
    code, message = 0, ""
    sys.argv[1:] = sorted(sys.argv[1:], key=is_override)  # Hydra wants its flags before overrides
    if {"--help", "-h"} & set(sys.argv):
        print(help_text())
        return 0
    try:
        os.getcwd()
    except FileNotFoundError:
        print_error("the working directory was deleted: change to one that exists")
        return 1
    try:
        main()
    except (KeyboardInterrupt, Interrupted) as error:
        code = error.exit_code if isinstance(error, Interrupted) else 130
        message = str(error) or "interrupted"
    except Exception as error:
        message = "" if show_traceback else explain(error)
        if not message:
            finish_sweep()  # such as a launcher that lost a worker: show the other jobs
            raise
        code = 1
    is_well = finish_sweep()
    if message:
        print_error(message)
    return code or int(failed_jobs > 0 or not is_well)


def is_override(word: str) -> bool:
    """Whether a command-line argument is an override, not a flag or a flag's value."""
    return word.startswith("~") or ("=" in word and not word.startswith("-"))


def report_failure(error: Exception, job: Job, cfg: DictConfig) -> float:
    """Report a job's failure at once; returns the value it counts as, so that a sweep continues."""
    global failed_jobs
    # a sweep judges diverged jobs at its end: to a study they are results
    failed_jobs += not (isinstance(error, Diverged) and job.sweep is not None)
    if started_by_torchrun():
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)  # for torchrun's own report
    if isinstance(error, RankFailed):
        stack, message = error.traceback, str(error)
    elif isinstance(error, ConfigError | Diverged):
        stack, message = "", str(error)
    else:
        stack = "".join(traceback.format_exception(error))
        message = "".join(traceback.format_exception_only(error)).strip()
    print(without_environment(stack, job.composed), end="", file=sys.stderr)
    print_error(without_environment(message, job.composed))
    if job.sweep is not None and not job.is_trial:
        name = f"{Path(job.run_dir).name} ({' '.join(job.overrides)})"
        print(f"job {name} failed; the sweep continues", file=sys.stderr)
    leave_summary(job, error)
    return worst_value(cfg)


def leave_summary(job: Job, error: Exception) -> None:
    """Record the failure in ``summary.json``: the job may have written none, or only a symptom."""
    file = job.path / "summary.json"
    is_from_earlier_run = file.exists() and file.stat().st_mtime < job.started_at
    if isinstance(error, RunInUse) or is_from_earlier_run or not job.path.is_dir():
        return
    summary: dict[str, Any] = {"overrides": list(job.overrides)}
    with suppress(OSError, ValueError, TypeError):  # a damaged one is replaced
        summary |= read_record(file)
    status = "diverged" if isinstance(error, Diverged) else "failed"
    message = without_environment(f"{type(error).__name__}: {error}", job.composed)
    summary |= {"status": status, "error": message}
    try:
        write_json(summary, file)
    except ConfigError as problem:
        if str(problem) != str(error):
            print_error(str(problem))


def print_error(message: str) -> None:
    print(f"error: {printable(message)}", file=sys.stderr, flush=True)


def explain(
    error: Exception, overrides: Sequence[str] | None = None, compose: Compose = compose_config
) -> str:
    """Explain an error in one line, with the nearest valid setting; empty if it is unexpected.

    Args:
        overrides: those that were composed; None: the command line's.
        compose: returns the config of a list of overrides; a sweeper has its own.
    """
    words = sys.argv[1:] if overrides is None else overrides
    words = [word for word in words if not word.startswith("-")]
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, OverrideParseException):
        return (
            f"cannot read the override {error.override}: it should be key=value, values with "
            "special characters in quotes within quotes, 'key=\"a value\"'"
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return no_option(group, option, list(error.options or []))
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else ""
    if not is_hydra_error(error):
        return ""
    if "Unknown plugin class" in str(error):
        extra = "joblib" if "joblib" in str(error) else "cluster"
        return f"{error}: pip install -r requirements-{extra}.txt"
    for word in words:
        if word.startswith("+") and "@" not in word and is_group(word):
            return f"{word}: leave out the plus: {word.removeprefix('+')}"
    if unknown := re.match("Could not override '(.+?)'", str(error)):
        return wrong_key(unknown[1], words, compose)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if error.__cause__ is not None:
        lines += str(error.__cause__).splitlines()[:1]
    if not isinstance(error, HydraException | OmegaConfBaseException):  # it names no setting
        lines.append(f"in {' '.join(words)}")
    return "; ".join(lines) or type(error).__name__


def is_hydra_error(error: Exception) -> bool:
    """Whether it is an error class of Hydra's or OmegaConf's, or was raised in their code."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    is_own = isinstance(error, HydraException | OmegaConfBaseException)
    return is_own or frame.f_globals["__name__"].partition(".")[0] in ("hydra", "omegaconf")


def is_group(override: str) -> bool:
    """Whether an override such as ``optimizer@phases.x.optimizer=adam`` selects a group option."""
    return (CONF / re.split("[@=]", override.lstrip("+~"))[0]).is_dir()


def no_option(group: str, option: str, options: list[str]) -> str:
    nearest = get_close_matches(option, options, n=1)
    hint = f"did you mean {group}={nearest[0]}? " if nearest else ""
    shown = ", ".join(name for name in options if not name.startswith("_"))
    return f"{group}={option}: no such option; {hint}available: {shown}"


def wrong_key(key: str, words: list[str], compose: Compose) -> str:
    """Explain an override of a setting that does not exist, or not in a run with phases."""
    config: Any = {}
    if key.startswith("hydra."):
        compose = partial(compose_config, with_hydra=True)
    for choices in ([word for word in words if is_group(word)], []):
        with suppress(HydraException, ValueError):  # a sweep over options cannot be composed
            config = OmegaConf.to_container(compose(choices))
            break
    try:
        check_phases(list(config.get("phases", ())), words)
    except ConfigError as reason:
        return str(reason)
    parent, _, name = key.rpartition(".")
    node = config.get(parent)
    is_built = isinstance(node, dict) and "_target_" in node
    if is_built and not get_close_matches(name, node):
        return f"unknown setting {key}: if {node['_target_']} takes it, add a plus: +{key}=..."
    known = dotted_keys(config)
    if key in known:  # a search-space key, which contains dots, or a new key of a mapping
        return (
            f"{key} cannot be set like this: put a key that contains dots in braces, as in "
            "space={optimizer.lr: {low: 0.1}}, and add ++ before the override for a new key"
        )
    return unknown_key(key, known)


def compose_job(overrides: Sequence[str]) -> tuple[DictConfig, Job]:
    """Compose one job from Python: its config and ``Job``, as Hydra's entry point would.

    Raises:
        ConfigError: if the overrides are invalid, or ask for a sweep or a study.
    """
    try:
        cfg = compose_config(overrides, with_hydra=True)
        if is_multirun(cfg.hydra):
            raise ConfigError("train() makes one run: use the command line for sweeps and studies")
        run_dir = Path(cfg.hydra.run.dir).absolute()
        run_dir.mkdir(parents=True, exist_ok=True)
    except Exception as error:  # Hydra and OmegaConf raise many types
        raise ConfigError(explain(error, overrides) or str(error)) from error
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(run_dir)
        HydraConfig.instance().set_config(cfg)
        del cfg["hydra"]
    return cfg, job_of_this_process(cfg)

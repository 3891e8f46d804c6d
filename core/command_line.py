"""The command line's error handling: one clear line for a mistake, an honest exit code."""

import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
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

Compose = Callable[[list[str]], DictConfig]

failed_jobs = 0


@dataclass
class Outcome:
    """What a job returns to the sweeper."""

    value: float


def command_line(main: Callable[[], None], finish_sweep: Callable[[], bool]) -> int:
    """Run Hydra's entry point; the process's exit code.

    Args:
        finish_sweep: called at the end, however it comes about; whether the jobs are well.
    """
    global failed_jobs
    failed_jobs = 0
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    code, message = 0, ""
    try:
        os.getcwd()
        with hydra_raises():
            main()
    except (KeyboardInterrupt, Interrupted) as error:
        code = error.exit_code if isinstance(error, Interrupted) else 130
        message = str(error) or "interrupted"
    except Exception as error:
        message = "" if show_traceback else explain(error)
        if not message:
            finish_sweep()  # a launcher lost a worker: the other jobs have their records
            raise
        code = 1
    is_well = finish_sweep()
    if message:
        print_error(message)
    return code or int(failed_jobs > 0 or not is_well)


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
        message = without_environment(describe(error), job.composed)
        print(without_environment(stack_of(error), job.composed), end="", file=sys.stderr)
        print_error(message)
        if job.sweep is not None:
            name = f"{Path(job.run_dir).name} ({' '.join(job.overrides)})"
            print(f"job {name} failed; the sweep goes on", file=sys.stderr)
        leave_summary(job, error)


def stack_of(error: Exception) -> str:
    """Where an error that nobody expected was raised, without the error itself."""
    if isinstance(error, RankFailed):
        return error.traceback
    if isinstance(error, ConfigError | Diverged):
        return ""
    itself = "".join(traceback.format_exception_only(error))
    return "".join(traceback.format_exception(error)).removesuffix(itself)


def describe(error: Exception) -> str:
    """Expected errors speak for themselves, others need their type."""
    if isinstance(error, ConfigError | Diverged | RankFailed):
        return str(error)
    return "".join(traceback.format_exception_only(error)).strip()


def tell_torchrun(error: Exception) -> None:
    """Let torchrun's own report show where a process that it started failed."""
    if started_by_torchrun():
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


def leave_summary(job: Job, error: Exception) -> None:
    """A summary for a job that could not write its own, or where rank 0 saw only a symptom."""
    file = job.path / "summary.json"
    is_of_earlier = file.exists() and file.stat().st_mtime < job.started_at
    if isinstance(error, RunInUse) or is_of_earlier or not job.path.is_dir():
        return
    summary: dict[str, Any] = {"overrides": list(job.overrides)}
    with suppress(OSError, ValueError, TypeError):  # a damaged one is replaced
        summary |= json.loads(file.read_text())
    status = "diverged" if isinstance(error, Diverged) else "failed"
    message = without_environment(f"{type(error).__name__}: {error}", job.composed)
    summary |= {"status": status, "error": message}
    try:
        write_json(summary, file)
    except ConfigError as problem:
        print_error(str(problem))


def print_error(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)


def explain(
    error: Exception, overrides: Sequence[str] | None = None, compose: Compose | None = None
) -> str:
    """One line that names the setting and the nearest one; empty for what nobody expected.

    Args:
        overrides: what was composed; None: the words of the command line.
        compose: overrides to the config; a sweeper has its own.
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
        if error.filename is None and not has_working_directory():
            return "the working directory was deleted: change to one that exists"
        return f"{error.filename}: {error.strerror}" if error.filename else ""
    parsed = parse(words)
    cause = wrong_override(parsed, overrides is None) or wrong_key(parsed, compose or compose_anew)
    if cause or not isinstance(error, HydraException | OmegaConfBaseException):
        return cause or missing_plugin(words)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = error.__cause__
    if reason is not None and str(reason) and str(reason) not in str(error):
        lines.append(str(reason).splitlines()[0])
    return "; ".join(lines[:2]) if lines else type(error).__name__


def has_working_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def parse(words: Sequence[str]) -> list[Override]:
    """The overrides that Hydra can read."""
    parser = OverridesParser.create()
    parsed = []
    for word in words:
        with suppress(HydraException):
            parsed += parser.parse_overrides([word])
    return parsed


def wrong_override(parsed: list[Override], is_command_line: bool) -> str:
    """A sweep without ``-m``, or a group's option that does not exist."""
    is_multirun = not is_command_line or {"-m", "--multirun"} & set(sys.argv)
    for override in parsed:
        word = override.input_line or ""
        if override.is_sweep_override() and not is_multirun:
            key = override.key_or_group
            return f"{word} holds several values: add -m to sweep over them; {key}=[...] is a list"
        group, option = CONF / override.key_or_group, override.value()
        if override.is_add() and override.package is None and group.is_dir():
            return f"{word}: leave out the plus: {word.removeprefix('+')}"
        is_choice = group.is_dir() and not override.is_delete() and not is_multirun
        names = option if isinstance(option, list) else [option]
        if is_choice and not all(isinstance(name, str | None) for name in names):
            options = sorted(file.stem for file in group.glob("*.yaml"))
            return no_option(override.key_or_group, str(option), options)
    return ""


def no_option(group: str, option: str, options: list[str]) -> str:
    nearest = get_close_matches(option, options, n=1)
    hint = f"did you mean {group}={nearest[0]}? " if nearest else ""
    shown = ", ".join(name for name in options if not name.startswith("_"))
    return f"{group}={option}: no such option; {hint}There are {shown}"


def wrong_key(parsed: list[Override], compose: Compose) -> str:
    """A setting that does not exist, or that a run of several phases does not have."""
    config = composable(parsed, compose)
    words = [override.input_line or "" for override in parsed]
    try:
        check_phases(list(config.get("phases", ())), words)
    except ConfigError as reason:
        return str(reason)
    known, node = dotted_keys(config), OmegaConf.create(config)
    for override in parsed:
        key = override.key_or_group
        is_new = override.is_add() or override.is_force_add() or override.is_delete()
        is_hydra = key.startswith("hydra")
        if not (is_new or is_hydra or key in known or (CONF / key).is_dir()):
            return unknown_key(key, known)
        if isinstance(override.value(), dict) and OmegaConf.is_list(OmegaConf.select(node, key)):
            return f"{key} should be a list: {key}=[{{...}}]"
    return ""


def composable(parsed: list[Override], compose: Compose) -> dict[str, Any]:
    """The config that the group choices among the overrides compose; empty if they compose none."""
    choices = [o.input_line or "" for o in parsed if (CONF / o.key_or_group).is_dir()]
    for tried in (choices, []):
        with suppress(HydraException, ValueError):
            config = OmegaConf.to_container(compose(tried))
            assert isinstance(config, dict)
            return {str(key): value for key, value in config.items()}
    return {}


def compose_anew(overrides: list[str]) -> DictConfig:
    """The config of the overrides, where Hydra is not at work."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides)


def missing_plugin(words: Sequence[str]) -> str:
    """A launcher or sweeper whose package is not installed."""
    with (
        suppress(HydraException, ValueError),
        initialize_config_dir(str(CONF), version_base="1.3"),
    ):
        # the others may be sweeps, which do not compose here
        own = [word for word in words if word.startswith("hydra")]
        chosen = compose("config", own, return_hydra_config=True).hydra
        for target in (chosen.launcher._target_, chosen.sweeper._target_):
            try:
                is_found = find_spec(target.rpartition(".")[0]) is not None
            except ModuleNotFoundError:
                is_found = False
            if not is_found:
                return f"{target} is not installed: pip install -r requirements-cluster.txt"
    return ""

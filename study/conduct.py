"""A study from its settings to its results."""

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from core.command_line import Compose
from core.errors import ConfigError
from core.progress import Monitor
from study import record
from study.engine import Study
from study.jobs import Jobs, Launches
from study.preflight import preflight, print_forecast
from study.protocol import Protocol

DECIDED = ("seed", "resume", "trainer.test", "wandb.job_type", "wandb.candidate")


def conduct(
    settings: dict[str, Any],
    arguments: tuple[str, ...],
    directory: Path,
    launcher: Launches,
    compose: Compose,
    monitor: Monitor,
    group: str,
    tags: tuple[str, ...],
) -> Study:
    """Check, forecast, tune, repeat, audit; or go on with what ``directory`` holds of it.

    Args:
        settings: ``hydra.sweeper``, see :class:`study.protocol.Protocol`.
        arguments: the overrides of the command line; every run gets them.
        compose: overrides to the config that Hydra composes for a run.
        group: W&B's group of all runs.
        tags: W&B's tags of all runs; each gets its candidate's name as one more.

    Raises:
        ConfigError: the settings contradict each other, or a candidate does not run.
    """
    protocol = Protocol.of(settings)
    check_arguments(arguments, protocol)
    jobs = Jobs(launcher, directory, (*arguments, f"wandb.group='{group}'"))
    costs = record.begin(settings, arguments, directory)
    if not costs:
        costs = preflight(protocol, jobs, compose)
        record.keep_costs(costs, directory)
    print_forecast(protocol, costs)
    horizons = {name: cost.steps for name, cost in costs.items()}
    study = Study(protocol, monitor, jobs, horizons, record.keep_results, tags)
    study.tune()
    study.repeat()
    if protocol.halving and protocol.halving.audit:
        study.audit()
    record.keep_results(study, finished=True)
    record.print_results(study)
    return study


def check_arguments(arguments: tuple[str, ...], protocol: Protocol) -> None:
    """Refuse what the study decides itself.

    Raises:
        ConfigError: a sweep on the command line, or a value for a setting that is tuned.
    """
    parser = OverridesParser.create()
    chosen = {
        key: candidate.name
        for candidate in protocol.candidates.values()
        for key in (
            *(o.key_or_group for o in parser.parse_overrides(list(candidate.overrides))),
            *(dimension.key for dimension in candidate.search_space.dimensions),
        )
    }
    for override in parser.parse_overrides(list(arguments)):
        key = override.key_or_group
        if override.is_sweep_override():
            raise ConfigError(
                f"{key} has several values, but a study chooses the values: put them into a "
                "candidate's search space, or give one"
            )
        if key in chosen:
            raise ConfigError(
                f"{key} is chosen by the study, for candidate {chosen[key]}: it cannot be given "
                "on the command line"
            )
        if key in DECIDED:
            raise ConfigError(f"{key} is set by the study: see hydra.sweeper in conf/study/")

"""Console output of a sweep: a title for each job, and a table of results at the end."""

import os
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from core.composed import is_multirun, is_of_study, typed_overrides
from core.named_lines import NamedLines, name_lines
from core.overrides import continuation, text
from core.parent import end_with_parent
from study import outlook
from study.gpu_slots import take_gpu
from study.jobs import read_study
from study.tables import ENDED, print_sweep, read_summaries

ROOT = Path(__file__).parent.parent
SHOWN = 4  # jobs named in the message


@dataclass(frozen=True)
class Plan:
    """The jobs that a command line asks for.

    Attributes:
        jobs: the overrides of each job; empty if the sweeper chooses them as it runs.
        is_numbered: whether run directories are named by job number.
    """

    directory: Path
    overrides: list[str]
    jobs: list[list[str]]
    is_numbered: bool
    is_study: bool

    @classmethod
    def of(cls, config: DictConfig) -> "Plan":
        hydra = config.hydra
        sweep = OmegaConf.to_container(hydra.sweep)
        assert isinstance(sweep, dict)
        given = [word for word in hydra.overrides.hydra if not word.startswith("hydra.mode=")]
        is_basic = hydra.sweeper._target_.endswith(".BasicSweeper")
        return cls(
            directory=Path(hydra.sweep.dir).absolute(),
            overrides=[*hydra.overrides.task, *given],
            jobs=combinations(list(hydra.overrides.task)) if is_basic else [],
            is_numbered=sweep["subdir"] == "${hydra.job.num}",
            is_study=is_of_study(hydra),
        )

    def not_started(self, names: list[str]) -> str:
        """Describe the jobs without a run directory in ``names``; empty if there are none."""
        num = len(self.jobs)
        if not self.is_numbered:
            return f"{num - len(names)} of {num}" if len(names) < num else ""
        missing = [n for n in range(num) if str(n) not in names]
        if not missing:
            return ""
        shared = set(self.jobs[0]).intersection(*self.jobs)
        titles = [
            " ".join([str(n), *(word for word in self.jobs[n] if word not in shared)])
            for n in missing[:SHOWN]
        ]
        more = "; ..." if len(missing) > SHOWN else ""
        return f"{len(missing)} of {num}: {'; '.join(titles)}{more}"

    @property
    def continuation(self) -> str:
        """The shell command that runs the remaining jobs; a study needs no ``resume``."""
        directory = f"hydra.sweep.dir={text(str(self.directory))}"
        added = (directory,) if self.is_study else (directory, "resume=auto")
        return continuation("python train.py -m", self.overrides, *added)


def combinations(overrides: list[str]) -> list[list[str]]:
    """The overrides of each job, as Hydra's basic sweeper combines them.

    Empty for ``glob`` sweeps, which only Hydra can look up.
    """
    choices = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
            return []
        values = (
            override.sweep_string_iterator()
            if override.is_sweep_override()
            else [override.get_value_element_as_str()]
        )
        choices.append([f"{override.get_key_element()}={value}" for value in values])
    return [list(job) for job in product(*choices)]


class Sweep(Callback):
    """Hydra callback named in ``conf/config.yaml``; called around the jobs of a sweep."""

    plan: Plan | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Sweep.plan = Plan.of(config)
        share_directory(config, Sweep.plan.directory)
        prepare_environment()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        hydra = config.hydra
        if not is_multirun(hydra):
            return
        take_gpu()
        if not hydra.launcher._target_.endswith(".BasicLauncher"):
            # live progress lines of concurrent jobs would overwrite each other
            os.environ["TTY_COMPATIBLE"] = "0"
            name_lines(job_name(config))
            end_with_parent(saves=True)
        if not is_of_study(hydra):
            title = " ".join(typed_overrides(hydra))
            print(f"\n=== job {hydra.job.num}: {title}", flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        hydra = config.hydra
        if is_of_study(hydra):
            directory = Path(hydra.sweep.dir).absolute()
            name, words = job_name(config), typed_overrides(hydra)
            has_name = isinstance(sys.stdout, NamedLines)
            line = outlook.line(directory, name, words)
            print(line if has_name else f"{name}  {line}", flush=True)

    @staticmethod
    def finish() -> bool:
        """Print the table of the sweep, if there was one; returns whether no job failed."""
        if Sweep.plan is None:
            return True
        plan, Sweep.plan = Sweep.plan, None
        summaries, lines = read_summaries(plan.directory), []
        if plan.is_study:  # a study prints its own results: list only failures
            is_over = read_study(plan.directory).get("finished", not summaries)
            summaries = {name: s for name, s in summaries.items() if s["status"] == "failed"}
        else:
            is_over = all(summary["status"] in ENDED for summary in summaries.values())
        if summaries and (missing := plan.not_started(list(summaries))):
            lines, is_over = [f"not started      {missing}"], False
        if not is_over:
            lines.append(f"continue with    {plan.continuation}")
        print_sweep(plan.directory, summaries, plan.is_study, lines)
        return not any(s.get("error") for s in summaries.values())


def job_name(config: DictConfig) -> str:
    """The run directory relative to the sweep directory."""
    return os.path.relpath(config.hydra.runtime.output_dir, Path(config.hydra.sweep.dir).absolute())


def share_directory(config: DictConfig, directory: Path) -> None:
    """Give every job the same sweep directory, even if its working directory differs.

    Launchers compose each job's config again, from Hydra's overrides of the command line.
    """
    with read_write(config), open_dict(config):
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={text(str(directory))}")


def prepare_environment() -> None:
    """Let launchers' workers import the project's packages from any working directory."""
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, others)]))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry unless enabled

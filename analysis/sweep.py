"""What report.py is given: the runs of some directories, and what their studies say of them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.candidates import assign
from analysis.runs import STUDY_FILE, Run, nested, read_mapping, read_runs
from analysis.study import Study


@dataclass(frozen=True)
class Sweep:
    """Runs in their places, and how they came about."""

    runs: list[Run]
    studies: list[Study]
    commands: list[str]

    @property
    def unfinished(self) -> list[str]:
        """A sentence for each study that is not over."""
        return [said for study in self.studies if (said := study.unfinished())]

    @property
    def facts(self) -> dict[str, list[str]]:
        """Commands and protocols."""
        protocols = {f"{study.prefix}protocol": study.facts() for study in self.studies}
        return {"command": self.commands, **protocols}


def read_sweep(directories: Sequence[Path], by: Sequence[str] = ()) -> Sweep:
    """Read the runs below ``directories`` and give each its place.

    Args:
        by: groups or config keys that tell candidates apart, also within a study.

    Raises:
        ReportError: there are no runs, or none has a key of ``by``.
    """
    runs = read_runs(directories)
    folders: dict[Path, list[Run]] = defaultdict(list)
    for run in runs:
        folders[run.path.resolve().parent].append(run)
    studies = [
        Study(path, of_study) for path, of_study in folders.items() if (path / STUDY_FILE).exists()
    ]
    names_differ = len({study.directory.name for study in studies}) == len(studies)
    for study in studies:
        if len(studies) > 1:
            study.prefix = f"{study.directory.name if names_differ else study.directory}/"
        study.place()
    if by:
        regroup(runs, by)
    else:
        assign([run for run in runs if not run.candidate])
    return Sweep(runs, studies, [command for path in directories for command in command_of(path)])


def regroup(runs: Sequence[Run], by: Sequence[str]) -> None:
    """Assign candidates as ``--by`` asks; what a study tuned, and when, stays."""
    places = [(run.candidate, run.setting) for run in runs]
    assign(runs, by)
    for run, (candidate, setting) in zip(runs, places, strict=True):
        if candidate:
            joined = () if candidate == run.candidate else (("candidate", candidate),)
            run.setting = (*joined, *setting)


def command_of(directory: Path) -> list[str]:
    """The sweep's command line as Hydra recorded it, if it did."""
    recorded = nested(read_mapping(directory / "multirun.yaml"), "hydra", "overrides")
    given = [
        str(override)
        for kind in ("task", "hydra")
        for override in nested(recorded, kind) or []
        if not str(override).startswith(("hydra.mode=", "hydra.sweep.dir="))
    ]
    return [f"python train.py -m {' '.join(given)}"] if given else []

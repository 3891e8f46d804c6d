"""What report.py is given: the runs of some directories, and what their studies say of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.candidates import Member, assign
from analysis.runs import STUDY_FILE, Run, nested, read_json, read_runs, read_yaml
from analysis.study import Study, space_rows


@dataclass(frozen=True)
class Sweep:
    """Runs in their places, and how they came about."""

    members: list[Member]
    unfinished: list[str]  # a sentence for each study that is not over
    facts: list[tuple[str, list[str]]]  # commands and protocols
    spaces: list[list[str]]  # rows of study.SPACE_COLUMNS
    studies: list[Study]


def read_sweep(directories: Sequence[Path], by: Sequence[str] = ()) -> Sweep:
    """Read the runs below ``directories`` and give each its place.

    Args:
        by: groups or config keys that tell candidates apart, also within a study.

    Raises:
        ReportError: there are no runs, or none has a key of ``by``.
    """
    runs = read_runs(directories)
    studies = studies_of(runs)
    placed = {
        run: member
        for run in runs
        if (study := studies.get(folder(run))) and (member := study.member(run))
    }
    names_differ = len({path.name for path in studies}) == len(studies)
    unfinished, spaces = [], []
    facts = [("command", [command for path in directories for command in command_of(path)])]
    for path, study in studies.items():
        own = {run: member for run, member in placed.items() if folder(run) == path}
        unfinished += study.unfinished(list(own.values()))
        prefix = f"{path.name if names_differ else path}/" if len(studies) > 1 else ""
        placed |= {run: renamed(member, prefix) for run, member in own.items()}
        facts.append((f"{prefix}protocol", study.facts()))
        spaces += [[prefix + name, *row] for name, *row in space_rows(study.candidates)]
    return Sweep(members_of(runs, placed, by), unfinished, facts, spaces, [*studies.values()])


def members_of(runs: list[Run], placed: dict[Run, Member], by: Sequence[str]) -> list[Member]:
    """Every run's place: as its study has it, else as the configs tell, or as ``by`` asks."""
    if not by:
        return [*placed.values(), *assign([run for run in runs if run not in placed])]
    return [regrouped(member, placed.get(member.run)) for member in assign(runs, by)]


def regrouped(member: Member, of_study: Member | None) -> Member:
    """A member as ``--by`` asks; what its study tuned, and when, stays."""
    if of_study is None:
        return member
    joined = () if of_study.candidate == member.candidate else (("candidate", of_study.candidate),)
    return replace(member, setting=(*joined, *of_study.setting), phase=of_study.phase)


def renamed(member: Member, prefix: str) -> Member:
    name = prefix + member.candidate
    return replace(member, candidate=name, family=name)


def studies_of(runs: Iterable[Run]) -> dict[Path, Study]:
    """The studies that the runs belong to: a run lies in its study's directory."""
    folders = dict.fromkeys(folder(run) for run in runs)
    return {
        path: Study(path, read_json(path / STUDY_FILE))
        for path in folders
        if (path / STUDY_FILE).exists()
    }


def folder(run: Run) -> Path:
    return run.path.resolve().parent


def command_of(directory: Path) -> list[str]:
    """The sweep's command line as Hydra recorded it, if it did."""
    recorded = nested(read_yaml(directory / "multirun.yaml"), "hydra", "overrides")
    given = [
        str(override)
        for kind in ("task", "hydra")
        for override in nested(recorded, kind) or []
        if not str(override).startswith(("hydra.mode=", "hydra.sweep.dir="))
    ]
    return [f"python train.py -m {' '.join(given)}"] if given else []

"""The input of report.py: the runs of some directories, grouped into candidates and settings.

A *candidate* is a combination of choices (an optimizer and its schedule, a model). A *setting* is a
point of the numbers swept within a candidate (a learning rate). Runs that agree in both are
repetitions over seeds. A study records the role of every run; in a plain sweep it is inferred from
the differences between the runs.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from analysis.runs import (
    STUDY_FILE,
    UNTUNED,
    ReportError,
    Run,
    Setting,
    nested,
    read_mapping,
    read_runs,
    strings,
)
from analysis.study import Study
from analysis.words import label
from core.same_run import flat, is_among

# circumstances that do not distinguish candidates; those that matter become caveats
NOT_COMPARED = (
    "seed", "resume", "wandb", "monitor_mode", "data.root", "data.num_workers",
    "trainer.progress", "trainer.num_threads", "trainer.checkpoint", "trainer.log_every_steps",
    "trainer.checkpoint_every_steps", "trainer.checkpoint_every_seconds",
)  # fmt: skip
RECIPES = ("experiment", "optim", "model")  # groups that choose other groups
ONE_FAMILY = "all runs"
UNKNOWN = "unknown"  # candidate of runs without a readable config
MAX_SETTINGS_AS_CANDIDATES = 20

Leaves = dict[str, Any]  # a run's config as dotted keys, and its choices


@dataclass(frozen=True)
class Sweep:
    """Runs with their roles, their studies, and the commands that started them."""

    runs: list[Run]
    studies: list[Study]
    commands: list[str]


def read_sweep(
    directories: Sequence[Path], by: Sequence[str] = (), metric: str | None = None
) -> Sweep:
    """Read the runs below ``directories`` and assign candidates and settings.

    Args:
        by: groups or config keys that distinguish candidates, also within a study.
        metric: the one to compare on; None: the one each run monitors.

    Raises:
        ReportError: if there are no runs, or none has a key of ``by``.
    """
    commands = [command for path in directories for command in command_of(path)]
    return placed(read_runs(directories, metric), commands, by)


def placed(runs: Sequence[Run], commands: list[str], by: Sequence[str] = ()) -> Sweep:
    """Assign candidates and settings: by the record of a study, else by what differs."""
    folders: dict[Path, list[Run]] = defaultdict(list)
    for run in runs:
        folders[run.path.resolve().parent].append(run)
    studies = [
        Study(path, of_study) for path, of_study in folders.items() if (path / STUDY_FILE).exists()
    ]
    for study, name in zip(studies, names_of(studies), strict=True):
        if len(studies) > 1:
            study.prefix = f"{name}/"
        study.place()
    unknown = {run for study in studies for run in study.runs if not run.candidate}
    runs = [run for run in runs if run not in unknown and not (by and run.phase == UNTUNED)]
    if by:
        regroup(runs, by)
    else:
        assign([run for run in runs if not run.candidate])
    return Sweep(runs, studies, commands)


def names_of(studies: Sequence[Study]) -> list[str]:
    """Distinct names of the studies: their own, else those of their directories."""
    names = [study.protocol.name for study in studies]
    for kind in ([study.directory.name for study in studies], [str(s.directory) for s in studies]):
        names = names if len(set(names)) == len(names) else kind
    return names


def command_of(directory: Path) -> list[str]:
    """The sweep's command line, if Hydra recorded it."""
    recorded = nested(read_mapping(directory / "multirun.yaml"), "hydra", "overrides")
    given = [
        override
        for kind in ("task", "hydra")
        for override in strings(nested(recorded, kind))
        if not override.startswith(("hydra.mode=", "hydra.sweep.dir="))
    ]
    return [f"python train.py -m {' '.join(given)}"] if given else []


def regroup(runs: Sequence[Run], by: Sequence[str]) -> None:
    """Assign candidates by the keys of ``--by``; settings and phases of a study are kept."""
    places = [(run.candidate, run.setting) for run in runs]
    assign(runs, by)
    for run, (candidate, setting) in zip(runs, places, strict=True):
        if candidate:
            joined = () if candidate == run.candidate else (("candidate", candidate),)
            run.setting = (*joined, *setting)


def assign(runs: Sequence[Run], by: Sequence[str] = ()) -> None:
    """Give every run its candidate, family and setting.

    Args:
        by: groups or config keys that distinguish candidates; by default every choice that
            differs or, if none does, every swept number.

    Raises:
        ReportError: if no run has a key of ``by``.
    """
    known = [run for run in runs if run.config]
    for run in runs:
        run.candidate = run.family = UNKNOWN
    leaves = completed(without_unresolved([leaves_of(run) for run in known]))
    axes = check_keys(by, leaves) if by else choice_axes(known, leaves)
    families = [tuple(leaf.get(axis) for axis in axes) for leaf in leaves]
    settings = swept(leaves, families)
    split = not by and len(set(families)) == 1 and len(set(settings)) <= MAX_SETTINGS_AS_CANDIDATES
    for run, family, setting in zip(known, families, settings, strict=True):
        run.family = label(zip(axes, family, strict=True)) or ONE_FAMILY
        run.candidate = (split and label(setting)) or run.family
        run.setting = setting


def check_keys(by: Sequence[str], leaves: Sequence[Leaves]) -> list[str]:
    known = {key for leaf in leaves for key in leaf}
    for key in by:
        if key not in known:
            nearest = get_close_matches(key, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ReportError(f"--by {key}: no run has such a group or key{hint}")
    return list(by)


def choice_axes(runs: Sequence[Run], leaves: Sequence[Leaves]) -> list[str]:
    """A minimal set of choices that distinguishes all combinations of choices.

    Groups given on the command line come first, then recipes, so that ``optim`` represents the
    optimizer and the schedule that it picks. Non-numeric values (``trainer.precision``) count as
    choices too.
    """
    given = {override.lstrip("+").split("=")[0] for run in runs for override in run.overrides}
    groups = {key for run in runs for key in run.choices}
    keys = {key for leaf in leaves for key in leaf}
    choices = {key for key in keys if not all(is_number(leaf.get(key)) for leaf in leaves)}
    order = sorted(
        choices, key=lambda key: (key not in groups, key not in given, key not in RECIPES, key)
    )
    axes: list[str] = []
    cells: list[tuple[Any, ...]] = [()] * len(leaves)
    for key in order:
        finer = [(*cell, leaf.get(key)) for cell, leaf in zip(cells, leaves, strict=True)]
        if len(set(finer)) > len(set(cells)):
            axes.append(key)
            cells = finer
    return axes


def swept(leaves: Sequence[Leaves], families: Sequence[tuple[Any, ...]]) -> list[Setting]:
    """Per run, the values that vary within its family."""
    found: dict[tuple[Any, ...], dict[str, set[Any]]] = {}
    keys = sorted({key for leaf in leaves for key in leaf})
    for leaf, family in zip(leaves, families, strict=True):
        values = found.setdefault(family, defaultdict(set))
        for key in keys:
            values[key].add(leaf.get(key))
    return [
        tuple((key, leaf.get(key)) for key in keys if len(found[family][key]) > 1)
        for leaf, family in zip(leaves, families, strict=True)
    ]


def leaves_of(run: Run) -> Leaves:
    """Config keys and choices that can distinguish a run from others; a list is one value."""
    config = {
        key: json.dumps(value, default=str) if isinstance(value, list) else value
        for key, value in flat(run.config).items()
        if value != {}
    }
    leaves = {**config, **run.choices}
    return {key: value for key, value in leaves.items() if not is_among(key, NOT_COMPARED)}


def without_unresolved(leaves: Sequence[Leaves]) -> list[Leaves]:
    """Drop keys that only some runs, which failed early, have unresolved (``${data.root}``)."""
    interpolated = [
        {key for key, value in leaf.items() if str(value).startswith("${")} for leaf in leaves
    ]
    somewhere = set[str]().union(*interpolated)
    mixed = {key for key in somewhere if not all(key in keys for keys in interpolated)}
    return [{key: leaf[key] for key in leaf if key not in mixed} for leaf in leaves]


def completed(leaves: Sequence[Leaves]) -> list[Leaves]:
    """Add settings that some runs lack and that are off in others, such as false.

    They were added or removed by another version of the program: such runs are equivalent.
    """
    off = {
        key: value
        for leaf in leaves
        for key, value in leaf.items()
        if not value and value is not None
    }
    return [{**off, **leaf} for leaf in leaves]


def is_number(value: Any) -> bool:
    """Whether a value can belong to a swept number; null stands for one that is switched off."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))

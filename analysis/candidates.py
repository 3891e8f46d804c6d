"""Who is compared with whom: what differs between runs, told apart from seeds and settings.

A *candidate* is a combination of choices (an optimizer and its schedule, a model). A *setting* is a
point of the numbers swept within a candidate (a learning rate). Runs that differ in neither repeat
each other over seeds.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from analysis.runs import ReportError, Run, Setting

# where a run happened, not what it was; differences that matter are reported as caveats
NOT_COMPARED = (
    "seed", "resume", "wandb", "data.root", "data.num_workers",
    "trainer.progress", "trainer.num_threads", "trainer.checkpoint", "trainer.log_every_steps",
    "trainer.checkpoint_every_steps", "trainer.checkpoint_every_seconds",
)  # fmt: skip
RECIPES = ("experiment", "optim", "model")  # groups that choose other groups
ONE_FAMILY = "all runs"
UNKNOWN = "unknown"  # of a run that left no readable config
MAX_SETTINGS_AS_CANDIDATES = 20


def assign(runs: Sequence[Run], by: Sequence[str] = ()) -> None:
    """Give every run its candidate, family and setting.

    Args:
        by: groups or config keys that tell candidates apart; without any, every choice that
            differs does, and if no choice differs, every swept number.

    Raises:
        ReportError: no run has a key of ``by``.
    """
    known = [run for run in runs if run.config]
    for run in runs:
        run.candidate = run.family = UNKNOWN
    leaves = [
        {key: value for key, value in leaves_of(run).items() if compared(key)} for run in known
    ]
    axes = check_keys(by, leaves) if by else choice_axes(known, leaves)
    families = [tuple(leaf.get(axis) for axis in axes) for leaf in leaves]
    settings = swept(leaves, families)
    split = not by and len(set(families)) == 1 and len(set(settings)) <= MAX_SETTINGS_AS_CANDIDATES
    for run, family, setting in zip(known, families, settings, strict=True):
        run.family = label(zip(axes, family, strict=True)) or ONE_FAMILY
        run.candidate = (split and label(setting)) or run.family
        run.setting = setting


def choice_axes(runs: Sequence[Run], leaves: Sequence[dict[str, Any]]) -> list[str]:
    """The fewest choices that tell apart whatever choices tell apart.

    Groups given on the command line come first, then recipes, so that ``optim`` stands for the
    optimizer and the schedule that it picks; values that are no numbers (``trainer.precision``)
    count as choices too.
    """
    given = {override.lstrip("+").split("=")[0] for run in runs for override in run.overrides}
    groups = {key for run in runs for key in run.choices if compared(key)}
    others = {key for leaf in leaves for key in leaf} - groups
    others = {key for key in others if not all(is_number(leaf.get(key)) for leaf in leaves)}
    ordered = sorted(groups, key=lambda key: (key not in given, key not in RECIPES, key))
    ordered += sorted(others, key=lambda key: (key not in given, key))
    axes: list[str] = []
    cells: list[tuple[Any, ...]] = [()] * len(leaves)
    for key in ordered:
        finer = [(*cell, leaf.get(key)) for cell, leaf in zip(cells, leaves, strict=True)]
        if len(set(finer)) > len(set(cells)):
            axes.append(key)
            cells = finer
    return axes


def swept(leaves: Sequence[dict[str, Any]], families: Sequence[tuple[Any, ...]]) -> list[Setting]:
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


def check_keys(by: Sequence[str], leaves: Sequence[dict[str, Any]]) -> list[str]:
    known = {key for leaf in leaves for key in leaf}
    for key in by:
        if key not in known:
            nearest = get_close_matches(key, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ReportError(f"--by {key}: no run has such a group or key{hint}")
    return list(by)


def label(values: Iterable[tuple[str, Any]]) -> str:
    """``sgd_cosine, lightcnn`` for choices, ``lr=0.1, precision=bf16`` for other keys."""
    pairs = list(values)
    keys = [key for key, _ in pairs]
    parts = []
    for key, value in pairs:
        text = f"{value:g}" if isinstance(value, float) else str(value)
        has_key = "." in key or is_number(value)
        parts.append(f"{short(key, keys)}={text}" if has_key else text)
    return ", ".join(parts)


def short(key: str, keys: Sequence[str]) -> str:
    """The fewest last parts of a dotted key that tell it from the other ``keys``.

    A position in a list has the list's name before it.
    """
    parts = key.split(".")
    for count in range(2 if parts[-1].isdigit() else 1, len(parts)):
        name = ".".join(parts[-count:])
        if sum(f".{other}".endswith(f".{name}") for other in keys) == 1:
            return name
    return key


def leaves_of(run: Run) -> dict[str, Any]:
    """A run's config as dotted keys, and its choices."""
    return {**flat(run.config), **run.choices}


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as dotted keys; a list is one value."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return leaves


def compared(key: str) -> bool:
    return not f"{key}.".startswith(tuple(f"{name}." for name in NOT_COMPARED))


def is_number(value: Any) -> bool:
    """Whether a value can belong to a swept number; null stands for one that is switched off."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))

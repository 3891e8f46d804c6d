"""The protocol of a study: who is compared, tuned over what, at what cost, repeated how often.

The values stand in ``conf/hydra/sweeper/study.yaml`` and ``conf/study/``; here stand their names
and the checks.
"""

import re
from dataclasses import dataclass, fields
from typing import Any

from core.errors import ConfigError
from study.space import SAMPLERS, Space

WHERE = "hydra.sweeper"


@dataclass(frozen=True)
class Candidate:
    """One of the things compared: what to add to the command line, and what to tune."""

    name: str
    overrides: tuple[str, ...]
    space: Space
    source: str  # where the search space comes from


@dataclass(frozen=True)
class Halving:
    """Successive halving (arXiv:1502.07943): run all a little, and the best of them further."""

    rungs: tuple[float, ...]  # fractions of the horizon, ascending
    keep: float  # fraction of a batch that goes on from each rung
    audit: bool  # afterwards, run the pruned trials to the end too: would one have won?


@dataclass(frozen=True)
class Protocol:
    """Everything that decides the outcome of a study, apart from the runs' own settings."""

    name: str
    candidates: tuple[Candidate, ...]
    trials: int  # per candidate
    sampler: str
    sampler_seed: int
    batch_size: int  # trials of a candidate that run before its sampler sees their values
    tune_seeds: tuple[int, ...]
    repeat_seeds: tuple[int, ...]
    halving: Halving | None

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Protocol":
        """Check the settings of ``hydra.sweeper``.

        Raises:
            ConfigError: names the setting and what it should be.
        """
        known = {field.name for field in fields(cls)}
        for name in known ^ set(settings):
            raise ConfigError(f"{WHERE}.{name} is {'missing' if name in known else 'unknown'}")
        if not re.fullmatch(r"[\w-]+", str(settings["name"])):
            raise ConfigError(f"{WHERE}.name={settings['name']} should be letters, digits, _ or -")
        check_count("trials", settings["trials"])
        batch_size = settings["batch_size"]
        if batch_size is None:
            batch_size = settings["trials"]
        check_count("batch_size", batch_size)
        if settings["sampler"] not in SAMPLERS:
            raise ConfigError(
                f"{WHERE}.sampler={settings['sampler']} should be one of {', '.join(SAMPLERS)}"
            )
        seeds = [check_seeds(name, settings[name]) for name in ("tune_seeds", "repeat_seeds")]
        if not seeds[0]:
            raise ConfigError(f"{WHERE}.tune_seeds should hold at least one seed")
        if both := set(seeds[0]) & set(seeds[1]):
            raise ConfigError(
                f"{WHERE}.repeat_seeds and tune_seeds share {sorted(both)}: a setting is judged on "
                "seeds it was not chosen on"
            )
        # a study that takes over another's candidates leaves one out by setting it to null
        chosen = {name: node for name, node in settings["candidates"].items() if node is not None}
        if not chosen:
            raise ConfigError(f"{WHERE}.candidates is empty: choose a study with study=...")
        return cls(
            **settings
            | {
                "candidates": tuple(candidate_of(name, node) for name, node in chosen.items()),
                "batch_size": batch_size,
                "tune_seeds": seeds[0],
                "repeat_seeds": seeds[1],
                "halving": halving_of(settings["halving"]),
            }
        )

    def rungs(self, horizon_steps: int) -> list[int]:
        """Updates at which a trial is measured; the last is the whole horizon."""
        fractions = self.halving.rungs if self.halving else ()
        inner = [max(1, round(fraction * horizon_steps)) for fraction in fractions]
        return sorted({*(steps for steps in inner if steps < horizon_steps), horizon_steps})


def candidate_of(name: str, node: Any) -> Candidate:
    where = f"{WHERE}.candidates.{name}"
    if not re.fullmatch(r"\w+", name):
        raise ConfigError(f"{where}: a candidate's name should be letters, digits or _")
    if not isinstance(node, dict) or set(node) - {"overrides", "space", "source"}:
        raise ConfigError(f"{where} should have overrides, space and source")
    space = Space.of(node.get("space") or {}, f"{where}.space")
    return Candidate(name, tuple(node.get("overrides") or ()), space, node.get("source") or "")


def halving_of(node: Any) -> Halving | None:
    if node is None:
        return None
    where = f"{WHERE}.halving"
    if not isinstance(node, dict) or set(node) - {"audit"} != {"rungs", "keep"}:
        raise ConfigError(f"{where} should be null or have rungs and keep, and perhaps audit")
    rungs, keep, audit = node["rungs"], node["keep"], node.get("audit", False)
    if not rungs or rungs != sorted(set(rungs)) or not 0 < rungs[0] <= rungs[-1] < 1:
        raise ConfigError(f"{where}.rungs={rungs} should be ascending fractions of the horizon")
    if not 0 < keep < 1:
        raise ConfigError(f"{where}.keep={keep} should be between 0 and 1")
    if not isinstance(audit, bool):
        raise ConfigError(f"{where}.audit={audit} should be true or false")
    return Halving(tuple(rungs), keep, audit)


def check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{WHERE}.{name}={value} should be a whole number, 1 or more")


def check_seeds(name: str, seeds: Any) -> tuple[int, ...]:
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{WHERE}.{name}={seeds} should be a list of different whole numbers")
    return tuple(seeds)

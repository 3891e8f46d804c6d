"""The protocol of a study: candidates, search spaces, budgets and numbers of repeats.

A study consists of replicates. Each tunes every candidate anew, with its own seed and sampler, and
runs the best settings on its own fresh seeds. So the results' spread includes the luck of tuning,
and a verdict also holds for the next study.

Values are in ``conf/hydra/sweeper/study.yaml`` and ``conf/study/``; this file has names, types and
ranges.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from core.errors import ConfigError
from core.overrides import text
from core.schema import FORBID, Count, checked
from study.space import Params, Space

WHERE = "hydra.sweeper"
Share = Annotated[float, Field(gt=0, lt=1)]
# replicate r of a study with seed s is tuned on seed 100,000 s + 1,000 r and judged on those after
STUDY_STRIDE, REPLICATE_STRIDE = 100_000, 1_000


@dataclass(frozen=True)
class Candidate:
    """A candidate of the comparison: its overrides of the command line, and its search space."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: str
    overrides: list[str]
    space: dict[str, Any]
    source: str | None  # reference for the search space

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.name):
            raise ConfigError(f"candidates.{self.name}: a name should be letters, digits or _")
        _ = self.search_space  # raises if it is wrong

    @cached_property
    def search_space(self) -> Space:
        return Space.of(self.space, f"candidates.{self.name}.space")

    def run_overrides(self, params: Params, phase: str, tags: Sequence[str] = ()) -> list[str]:
        """Overrides that a run adds to the command line: settings, and W&B's job type and tags."""
        return [
            *self.overrides,
            *(f"{key}={text(value)}" for key, value in params.items()),
            f"wandb.job_type={phase}",
            f"wandb.candidate={self.name}",
            f"wandb.tags={text([*tags, self.name])}",
        ]


@dataclass(frozen=True)
class Halving:
    """Successive halving (arXiv:1502.07943): run all trials for a while, only the best further."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    rungs: Annotated[list[Share], Field(min_length=1)]  # fractions of the horizon
    keep: Share  # fraction of a batch that continues beyond a rung
    audit: bool = False  # finally run pruned trials to the end too: would one have won?

    def __post_init__(self) -> None:
        if self.rungs != sorted(set(self.rungs)):
            raise ConfigError(f"halving.rungs={self.rungs} should be ascending")


@dataclass(frozen=True)
class Protocol:
    """Everything that decides the outcome of a study, apart from the runs' own settings."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: str
    candidates: dict[str, Candidate]
    replicates: Annotated[int, Field(ge=1, le=STUDY_STRIDE // REPLICATE_STRIDE)]
    trials: Count  # per candidate and replicate
    seeds_per_replicate: Annotated[int, Field(ge=0, lt=REPLICATE_STRIDE)]
    seed: Annotated[int, Field(ge=0, le=10_000)]  # another seed repeats the study with new draws
    sampler: Literal["grid", "random", "sobol", "halton", "tpe"]
    batch_size: Count | None  # trials of a candidate before its sampler sees their values
    halving: Halving | None
    untuned: bool  # also run every candidate's untuned settings on the fresh seeds
    extend: bool  # widen once the spaces in which most best settings are at a bound

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.name):
            raise ConfigError(f"name={self.name} should be letters, digits, _ or -")
        if not self.candidates:
            raise ConfigError("candidates is empty: choose a study with study=...")
        if self.extend and self.sampler == "grid":
            raise ConfigError("extend=true cannot widen a grid: choose another sampler")
        for candidate in self.candidates.values():
            self.budget(candidate.search_space)  # raises if it is not a valid grid

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Protocol":
        """Build the protocol from the settings of ``hydra.sweeper``.

        Raises:
            ConfigError: if a setting is wrong; names it and what it should be.
        """
        defaults: dict[str, Any] = {"overrides": [], "space": {}, "source": None}
        candidates = settings["candidates"]
        if isinstance(candidates, dict):
            candidates = {
                name: {**defaults, **node, "name": name} if isinstance(node, dict) else node
                for name, node in candidates.items()
                if node is not None  # null drops a candidate of an included study
            }
        try:
            return checked(cls, {**settings, "candidates": candidates})
        except ConfigError as error:
            raise ConfigError(f"{WHERE}: {error}") from None

    def tuning_seed(self, replicate: int) -> int:
        """Seed of a replicate's trials and of its sampler."""
        return STUDY_STRIDE * self.seed + REPLICATE_STRIDE * replicate

    def fresh_seeds(self, replicate: int) -> list[int]:
        """Seeds on which a replicate judges best settings; shared by all candidates, so paired."""
        first = self.tuning_seed(replicate) + 1
        return list(range(first, first + self.seeds_per_replicate))

    def budget(self, space: Space) -> int:
        """Trials per replicate: all points of a grid, and one if there is nothing to tune."""
        if not space.dimensions:
            return 1
        return len(space.design("grid", self.trials, 0)) if self.sampler == "grid" else self.trials

    def num_runs(self, candidate: Candidate) -> tuple[int, int]:
        """Trials of a candidate and its runs on fresh seeds, before ``extend`` adds any."""
        is_tuned = bool(candidate.search_space.dimensions)
        judged = self.seeds_per_replicate * (1 + (self.untuned and is_tuned))
        return self.replicates * self.budget(candidate.search_space), self.replicates * judged

    def rungs(self, horizon_steps: int) -> list[int]:
        """Updates at which a trial is measured; the last is the full horizon."""
        fractions = self.halving.rungs if self.halving else ()
        inner = [max(1, round(fraction * horizon_steps)) for fraction in fractions]
        return sorted({*(steps for steps in inner if steps < horizon_steps), horizon_steps})

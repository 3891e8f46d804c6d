"""The protocol of a study: who is compared, tuned over what, at what cost, repeated how often.

The values stand in ``conf/hydra/sweeper/study.yaml`` and ``conf/study/``; here stand their names,
types and ranges.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from core.errors import ConfigError
from core.schema import FORBID, Count, Seed, checked
from study.space import Space

WHERE = "hydra.sweeper"
Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Candidate:
    """One of the things compared: what to add to the command line, and what to tune."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: str
    overrides: list[str]
    space: dict[str, Any]
    source: str | None  # where the search space comes from

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.name):
            raise ConfigError(f"candidates.{self.name}: a name should be letters, digits or _")
        _ = self.search_space  # raises, where it is wrong

    @cached_property
    def search_space(self) -> Space:
        return Space.of(self.space, f"candidates.{self.name}.space")


@dataclass(frozen=True)
class Halving:
    """Successive halving (arXiv:1502.07943): run all a little, and the best of them further."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    rungs: Annotated[list[Share], Field(min_length=1)]  # fractions of the horizon
    keep: Share  # fraction of a batch that goes on from each rung
    audit: bool = False  # afterwards, run the pruned trials to the end too: would one have won?

    def __post_init__(self) -> None:
        if self.rungs != sorted(set(self.rungs)):
            raise ConfigError(f"halving.rungs={self.rungs} should be ascending")


@dataclass(frozen=True)
class Protocol:
    """Everything that decides the outcome of a study, apart from the runs' own settings."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: str
    candidates: dict[str, Candidate]
    trials: Count  # per candidate
    sampler: Literal["grid", "random", "sobol", "halton", "tpe"]
    sampler_seed: Seed
    batch_size: Count | None  # trials of a candidate that run before its sampler sees their values
    tune_seeds: Annotated[list[Seed], Field(min_length=1)]
    repeat_seeds: list[Seed]
    halving: Halving | None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.name):
            raise ConfigError(f"name={self.name} should be letters, digits, _ or -")
        if not self.candidates:
            raise ConfigError("candidates is empty: choose a study with study=...")
        for seeds in (self.tune_seeds, self.repeat_seeds):
            if len(set(seeds)) < len(seeds):
                raise ConfigError(f"seeds={seeds} should differ")
        if both := set(self.tune_seeds) & set(self.repeat_seeds):
            raise ConfigError(
                f"repeat_seeds and tune_seeds share {sorted(both)}: a setting is judged on seeds "
                "it was not chosen on"
            )

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Protocol":
        """Check the settings of ``hydra.sweeper``.

        Raises:
            ConfigError: names the setting and what it should be.
        """
        defaults: dict[str, Any] = {"overrides": [], "space": {}, "source": None}
        candidates = {
            name: {**defaults, **node, "name": name} if isinstance(node, dict) else node
            for name, node in settings["candidates"].items()
            if node is not None  # left out of another study's
        }
        try:
            return checked(cls, {**settings, "candidates": candidates})
        except ConfigError as error:
            raise ConfigError(f"{WHERE}: {error}") from None

    def design(self, candidate: Candidate) -> list[list[float]]:
        """The candidate's trials, if they are known beforehand; else empty."""
        if self.sampler == "tpe":
            return []
        return candidate.search_space.design(self.sampler, self.trials, self.sampler_seed)

    def rungs(self, horizon_steps: int) -> list[int]:
        """Updates at which a trial is measured; the last is the whole horizon."""
        fractions = self.halving.rungs if self.halving else ()
        inner = [max(1, round(fraction * horizon_steps)) for fraction in fractions]
        return sorted({*(steps for steps in inner if steps < horizon_steps), horizon_steps})

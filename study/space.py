"""Search spaces: the settings that a candidate is tuned over, and the points a sampler tries.

A space maps dotted settings to intervals or choices::

    optimizer.lr: {low: 1.0e-4, high: 1.0, log: true}
    optimizer.momentum: {low: 1.0e-3, high: 1.0, log: true, one_minus: true}   # tunes 1 - momentum
    optimizer.nesterov: [true, false]
    scheduler.warmup_fraction: {low: 0.0, high: 0.2, when: {scheduler: warmup_cosine}}

``when`` makes a setting part of the space only where earlier ones have the given values.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict

from core.errors import ConfigError
from core.schema import FORBID, Count, checked

if TYPE_CHECKING:
    from optuna.trial import Trial

Params = dict[str, Any]
NEAR_BOUND = 0.1  # fraction of an interval


@dataclass(frozen=True)
class Dimension:
    """One setting: an interval, or a list of choices.

    Attributes:
        one_minus: the interval is of ``1 - value``, as is usual for momenta near 1.
        points: number of values in a grid.
        when: values that earlier settings must have for this one to matter.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    key: str
    low: int | float = 0.0
    high: int | float = 0.0
    log: bool = False
    one_minus: bool = False
    points: Count | None = None
    choices: list[Any] = field(default_factory=list)
    when: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.choices and not (self.low < self.high and (self.low > 0 or not self.log)):
            raise ConfigError(
                f"low={self.low} should be below high={self.high}"
                f"{', and above 0 on a logarithmic scale' if self.log else ''}"
            )

    @classmethod
    def of(cls, key: str, node: Any, where: str) -> "Dimension":
        """Parse an entry of a space.

        Raises:
            ConfigError: if it is neither an interval nor a list of choices.
        """
        node = {"choices": node} if isinstance(node, list) else node
        keys = [key.name for key in fields(cls)[1:]]
        if not isinstance(node, dict) or set(node) - set(keys):
            raise ConfigError(f"{where} should be a list of choices or have {', '.join(keys)}")
        try:
            return checked(cls, {"key": key, **node})
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> Any:
        """The value at position ``share`` of the dimension, in [0, 1]."""
        if self.choices:
            return self.choices[self.index(share)]
        if self.log:
            x = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            x = self.low + share * (self.high - self.low)
        x = round(x) if self.is_whole else float(f"{x:.4g}")  # more digits do not matter
        x = min(max(x, self.low), self.high)
        return float(f"{1 - x:.12g}") if self.one_minus else x

    def share(self, value: float) -> float:
        """The position of a value in the interval, in [0, 1]: the inverse of :meth:`at`."""
        scale = math.log if self.log else float
        x = 1 - value if self.one_minus else value
        return (scale(x) - scale(self.low)) / (scale(self.high) - scale(self.low))

    def widened(self, side: str | None) -> "Dimension":
        """Extend the interval by half its length at its lowest (``low``) or highest values.

        Non-negative intervals stay so; with ``one_minus``, values stay between 0 and 1.
        """
        if side is None:
            return self
        low, high = self.low, self.high
        if side == ("high" if self.one_minus else "low"):
            low = low * math.sqrt(low / high) if self.log else low - (high - low) / 2
            low = max(low, 0) if self.low >= 0 else low
        else:
            high = high * math.sqrt(high / low) if self.log else high + (high - low) / 2
            high = min(high, 1.0) if self.one_minus else high
        if self.is_whole:
            low = max(math.floor(low), 1) if self.log else math.floor(low)
            high = math.ceil(high)
        return replace(self, low=low, high=high)

    def index(self, share: float) -> int:
        """The index of the choice at position ``share``."""
        return min(int(share * len(self.choices)), len(self.choices) - 1)

    def grid(self) -> list[float]:
        """Evenly spaced positions, or the middle of every choice."""
        if self.choices:
            return [(index + 0.5) / len(self.choices) for index in range(len(self.choices))]
        points = self.points or 1
        return [index / max(points - 1, 1) for index in range(points)]

    def matters(self, known: Params) -> bool:
        """Whether the setting is part of the space, given the values of earlier ones."""
        return all(key in known and known[key] == value for key, value in self.when.items())

    def suggest(self, trial: "Trial") -> Any:
        """The value in Optuna's trial, drawn by the sampler or queued."""
        if self.choices:  # by index, since Optuna cannot store lists
            return self.choices[trial.suggest_categorical(self.key, range(len(self.choices)))]
        return self.at(trial.suggest_float(self.key, 0.0, 1.0))


@dataclass(frozen=True)
class Space:
    """The search space of one candidate, in the order of its file."""

    dimensions: tuple[Dimension, ...]
    where: str  # for messages

    @classmethod
    def of(cls, node: dict[str, Any], where: str) -> "Space":
        dimensions = [Dimension.of(key, entry, f"{where}.{key}") for key, entry in node.items()]
        for number, dimension in enumerate(dimensions):
            earlier = [other.key for other in dimensions[:number]]
            for key in dimension.when:
                if key not in earlier:
                    raise ConfigError(
                        f"{where}.{dimension.key}: when names {key}, which is not an earlier "
                        "setting of this space"
                    )
        return cls(tuple(dimensions), where)

    def at(self, shares: Sequence[float]) -> Params:
        """The settings at these positions, one per dimension, without those that do not matter."""
        known: Params = {}
        for dimension, share in zip(self.dimensions, shares, strict=True):
            if dimension.matters(known):
                known[dimension.key] = dimension.at(share)
        return known

    def near_bounds(self, params: Params) -> Iterator[tuple[str, str]]:
        """Settings within a tenth of the ``low`` or ``high`` end of an interval that can widen."""
        for dimension in self.dimensions:
            if dimension.key in params and not dimension.choices:
                share = dimension.share(params[dimension.key])
                side = "low" if (share < 0.5) != dimension.one_minus else "high"
                if min(share, 1 - share) <= NEAR_BOUND and dimension.widened(side) != dimension:
                    yield dimension.key, side

    def widened(self, sides: dict[str, str]) -> "Space":
        """A space extended beyond the given bounds, ``low`` or ``high`` by setting."""
        return Space(tuple(d.widened(sides.get(d.key)) for d in self.dimensions), self.where)

    def suggest(self, trial: "Trial") -> Params:
        """The settings of an Optuna trial."""
        known: Params = {}
        for dimension in self.dimensions:
            if dimension.matters(known):
                known[dimension.key] = dimension.suggest(trial)
        return known

    def queued(self, shares: Sequence[float]) -> dict[str, float]:
        """A point in the form in which Optuna queues it."""
        pairs = zip(self.dimensions, shares, strict=True)
        return {d.key: d.index(share) if d.choices else share for d, share in pairs}

    def design(self, sampler: str, trials: int, seed: int) -> list[list[float]]:
        """The points of a sampler that ignores results, as positions in the dimensions.

        They depend only on the arguments, so that a resumed study continues with the same ones.

        Raises:
            ConfigError: if the space is not a grid, or has more points than there are trials.
        """
        if sampler != "grid":
            return unit_points(sampler, len(self.dimensions), trials, seed)
        chosen = self.grid()
        if len(chosen) > trials:
            raise ConfigError(
                f"{self.where} has a grid of {len(chosen)} points, more than the {trials} trials "
                "that every candidate gets (hydra.sweeper.trials)"
            )
        return chosen

    def grid(self) -> list[list[float]]:
        """Every distinct point of the grid."""
        for dimension in self.dimensions:
            if not dimension.choices and dimension.points is None:
                where = f"{self.where}.{dimension.key}"
                raise ConfigError(f"{where}: a grid needs points or a list of choices")
        rows: list[list[float]] = []
        seen: list[Params] = []
        for row in itertools.product(*(dimension.grid() for dimension in self.dimensions)):
            if (settings := self.at(row)) not in seen:
                seen.append(settings)
                rows.append(list(row))
        return rows

    def branches(self) -> list[tuple[Params, tuple[Dimension, ...]]]:
        """Split into unconditional spaces, one per value of the settings that others depend on."""
        names = {key for dimension in self.dimensions for key in dimension.when}
        deciding = Space(tuple(d for d in self.dimensions if d.key in names), self.where)
        others = [dimension for dimension in self.dimensions if dimension.key not in names]
        settled = [deciding.at(row) for row in deciding.grid()]
        return [(known, tuple(d for d in others if d.matters(known))) for known in settled]


def unit_points(sampler: str, dimensions: int, count: int, seed: int) -> list[list[float]]:
    """``count`` points of the unit cube; a larger ``count`` appends to the same points."""
    if dimensions == 0:
        return [[] for _ in range(count)]
    if sampler == "random":
        import numpy as np

        return np.random.default_rng(seed).random((count, dimensions)).tolist()
    from scipy.stats import qmc

    if sampler == "halton":
        return qmc.Halton(dimensions, rng=seed).random(count).tolist()
    exponent = math.ceil(math.log2(count)) if count > 1 else 0
    return qmc.Sobol(dimensions, rng=seed).random_base2(exponent)[:count].tolist()

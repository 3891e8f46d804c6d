"""Search spaces: which settings a candidate is tuned over, and the points a sampler tries.

A space maps dotted settings to where their values lie::

    optimizer.lr: {low: 1.0e-4, high: 1.0, log: true}
    optimizer.momentum: {low: 1.0e-3, high: 1.0, log: true, one_minus: true}   # tunes 1 - momentum
    optimizer.nesterov: [true, false]
    scheduler.warmup_fraction: {low: 0.0, high: 0.2, when: {scheduler: warmup_cosine}}

``when`` makes a setting part of the space only where earlier ones have the given values.
"""

import itertools
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import Trial

Params = dict[str, Any]
KEYS = ("low", "high", "log", "one_minus", "points", "choices", "when")
DESIGNS = ("grid", "random", "sobol", "halton")  # all points known beforehand


@dataclass(frozen=True)
class Dimension:
    """One setting: an interval, or a list of choices.

    Attributes:
        one_minus: the interval is that of ``1 - value``, as is usual for momenta near 1.
        points: values of the interval in a grid.
        when: earlier settings and the values at which this one matters.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    one_minus: bool = False
    points: int | None = None
    choices: tuple[Any, ...] = ()
    when: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, key: str, node: Any, where: str) -> "Dimension":
        """Read a space's entry.

        Raises:
            ConfigError: it is no interval and no list of choices.
        """
        node = {"choices": node} if isinstance(node, list) else node
        if not isinstance(node, dict) or set(node) - set(KEYS):
            raise ConfigError(f"{where} should be a list of choices or have {', '.join(KEYS)}")
        if node.get("choices"):
            return cls(key, choices=tuple(node["choices"]), when=node.get("when", {}))
        dimension = cls(key, **node)
        low, high = dimension.low, dimension.high
        if any(isinstance(end, bool) or not isinstance(end, int | float) for end in (low, high)):
            raise ConfigError(f"{where}: low={low} and high={high} should be numbers")
        if not low < high or (dimension.log and low <= 0):
            raise ConfigError(
                f"{where}: low={low} should be below high={high}"
                f"{', and above 0 on a logarithmic scale' if dimension.log else ''}"
            )
        return dimension

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> Any:
        """The point at ``share`` of the way, in [0, 1]."""
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        if self.log:
            x = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            x = self.low + share * (self.high - self.low)
        x = round(x) if self.is_whole else float(f"{x:.4g}")  # more digits would only be noise
        return min(max(x, self.low), self.high)

    def grid(self) -> list[Any]:
        if self.choices:
            return list(self.choices)
        if self.points is None:
            raise ConfigError(f"{self.key}: a grid needs points or a list of choices")
        steps = max(self.points - 1, 1)
        return list(dict.fromkeys(self.at(i / steps) for i in range(self.points)))

    def matters(self, known: Params) -> bool:
        """Whether the setting is part of the space, given the earlier settings' points."""
        return all(key in known and known[key] == value for key, value in self.when.items())

    def value(self, point: Any) -> Any:
        """The setting's value at ``point``."""
        return float(f"{1 - point:.12g}") if self.one_minus else point

    def suggest(self, trial: "Trial") -> Any:
        """Optuna's choice, or what was queued with the trial, as a point."""
        if self.choices:  # as strings, since Optuna keeps no lists
            shown = trial.suggest_categorical(self.key, [text(choice) for choice in self.choices])
            return next(choice for choice in self.choices if text(choice) == shown)
        if self.is_whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)


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
                    raise ConfigError(f"{where}.{dimension.key}: when names {key}, not yet known")
        return cls(tuple(dimensions), where)

    def active(self, points: Params) -> Params:
        """Only the points of the settings that matter, given those before them."""
        known: Params = {}
        for dimension in self.dimensions:
            if dimension.matters(known):
                known[dimension.key] = points[dimension.key]
        return known

    def points(self, shares: list[float]) -> Params:
        """The point at these shares of the way, one for each dimension."""
        pairs = zip(self.dimensions, shares, strict=True)
        return self.active({dimension.key: dimension.at(share) for dimension, share in pairs})

    def design(self, sampler: str, trials: int, seed: int) -> list[Params]:
        """The points of a sampler that does not look at results.

        They depend on nothing but the arguments, so a resumed study goes on with the same ones.
        """
        if sampler == "grid":
            chosen = self.grid()
            if len(chosen) > trials:
                raise ConfigError(
                    f"{self.where} has a grid of {len(chosen)} points, more than the {trials} "
                    "trials that every candidate gets (hydra.sweeper.trials)"
                )
            return chosen
        return [
            self.points(row) for row in unit_points(sampler, len(self.dimensions), trials, seed)
        ]

    def grid(self) -> list[Params]:
        """Every point of the grid, once."""
        keys = [dimension.key for dimension in self.dimensions]
        points: list[Params] = []
        for values in itertools.product(*(d.grid() for d in self.dimensions)):
            point = self.active(dict(zip(keys, values, strict=True)))
            if point not in points:
                points.append(point)
        return points

    def branches(self) -> list[tuple[Params, tuple[Dimension, ...]]]:
        """An unconditional space for every value of the settings that others depend on."""
        deciding = {key for dimension in self.dimensions for key in dimension.when}
        settled = Space(tuple(d for d in self.dimensions if d.key in deciding), self.where).grid()
        return [
            (
                points,
                tuple(d for d in self.dimensions if d.key not in deciding and d.matters(points)),
            )
            for points in settled
        ]

    def suggest(self, trial: "Trial") -> Params:
        """The settings' values for a trial of Optuna's."""
        known: dict[str, Any] = {}
        for dimension in self.dimensions:
            if dimension.matters(known):
                known[dimension.key] = dimension.suggest(trial)
        by_key = {dimension.key: dimension for dimension in self.dimensions}
        return {key: by_key[key].value(point) for key, point in known.items()}

    def queued(self, points: Params) -> Params:
        """A point as Optuna's queue takes it."""
        choices = {dimension.key for dimension in self.dimensions if dimension.choices}
        return {key: text(value) if key in choices else value for key, value in points.items()}


def unit_points(sampler: str, dimensions: int, count: int, seed: int) -> list[list[float]]:
    """``count`` points of the unit cube; the first of them do not depend on ``count``."""
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


def text(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(text(item) for item in value)}]"
    if isinstance(value, str) and not re.fullmatch(r"[\w./:+-]+", value):
        return "'" + value.replace("'", "\\'") + "'"
    return str(value)

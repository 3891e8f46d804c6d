"""Search spaces: designs within the bounds, grids, widening, and invalid dimensions."""

import math

import pytest

from core.errors import ConfigError
from core.overrides import text
from study.space import Dimension, Space

NODE = {
    "optimizer.lr": {"low": 1e-4, "high": 1.0, "log": True, "points": 3},
    "optimizer.momentum": {"low": 0.01, "high": 0.1, "log": True, "one_minus": True, "points": 2},
    "scheduler": ["cosine", "warmup_cosine"],
    "scheduler.warmup_steps": {
        "low": 5,
        "high": 50,
        "points": 2,
        "when": {"scheduler": "warmup_cosine"},
    },
}
SPACE = Space.of(NODE, "space")


@pytest.mark.parametrize("sampler", ["grid", "random", "sobol", "halton"])
def test_design_is_within_bounds_reproducible_and_extensible(sampler):
    rows = SPACE.design(sampler, 40, 0)
    points = [SPACE.at(row) for row in rows]
    assert len(points) == (18 if sampler == "grid" else 40)
    for point in points:
        assert 1e-4 <= point["optimizer.lr"] <= 1.0
        assert 0.9 <= point["optimizer.momentum"] <= 0.99
        if point["scheduler"] == "cosine":
            assert "scheduler.warmup_steps" not in point
        else:
            assert point["scheduler.warmup_steps"] in range(5, 51)
    in_lower_half = [p for p in points if p["optimizer.lr"] < 1e-2]
    assert 0.3 < len(in_lower_half) / len(points) < 0.7  # 1e-2 is the middle of the log scale
    assert rows == SPACE.design(sampler, 40, 0)
    if sampler != "grid":
        assert rows[:7] == SPACE.design(sampler, 7, 0)
        assert rows != SPACE.design(sampler, 40, 1)


def test_share_is_the_inverse_of_at():
    for dimension in SPACE.dimensions[:2]:
        for share in (0.0, 0.3, 1.0):
            assert dimension.share(dimension.at(share)) == pytest.approx(share, abs=1e-3)
    momenta = [SPACE.dimensions[1].at(share) for share in (0.0, 0.5, 1.0)]
    assert momenta == [0.99, 0.96838, 0.9], "1 - momentum has 4 significant digits"


def test_widened_interval_stays_within_valid_values():
    rate = SPACE.dimensions[0].widened("high")
    assert (rate.low, rate.high) == (1e-4, pytest.approx(100.0))
    one_minus = Dimension.of("m", {"low": 0.01, "high": 1, "log": True, "one_minus": True}, "s")
    assert one_minus.widened("low").high == 1.0, "a momentum is never negative"
    assert Dimension.of("w", {"low": 0.0, "high": 0.2}, "space").widened("low").low == 0
    steps = SPACE.dimensions[3].widened("low")
    assert (steps.low, steps.high) == (0, 50)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"lr": 2e-4, "warmup": 0.01, "steps": 1}, {"lr": "low"}),  # others cannot be widened
        ({"warmup": 0.19, "steps": 99}, {"warmup": "high", "steps": "high"}),
        ({"momentum": 0.52}, {"momentum": "low"}),  # where 1 - momentum is high
        ({"momentum": 0.979}, {"momentum": "high"}),
    ],
)
def test_near_bounds_ignores_bounds_that_cannot_be_widened(params, expected):
    space = Space.of(
        {
            "lr": {"low": 1e-4, "high": 1.0, "log": True},
            "warmup": {"low": 0.0, "high": 0.2},
            "steps": {"low": 1, "high": 100, "log": True},
            "momentum": {"low": 0.02, "high": 0.5, "log": True, "one_minus": True},
        },
        "space",
    )
    assert dict(space.near_bounds(params)) == expected
    momentum = space.widened({"momentum": "high"}).dimensions[3]
    assert (momentum.at(0.0), momentum.at(1.0)) == (pytest.approx(0.996), 0.5)


def test_grid_over_budget_or_without_points_is_rejected():
    with pytest.raises(ConfigError, match="grid of 18 points, more than the 10 trials"):
        SPACE.design("grid", 10, 0)
    with pytest.raises(ConfigError, match=r"space\.a: a grid needs points"):
        Space.of({"a": {"low": 0.0, "high": 1.0}}, "space").design("grid", 10, 0)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"low": 1.0, "high": 0.1}, "below"),
        ({"low": 0.0, "high": 0.1, "log": True}, "above 0"),
        ({"low": "a", "high": 0.1}, "low=a should be a valid .* number"),
        ({"min": 0.0}, "list of choices or have"),
        (3, "list of choices or have"),
        ({"choices": 3}, "choices=3 should be a valid array"),
        ({"low": 0.0, "high": 0.1, "points": 0}, "points=0 should be greater than"),
        ({"low": 0.0, "high": 0.1, "when": 3}, "when=3 should be"),
        (
            {"choices": [1, 2], "when": {"later": 1}},
            "when names later, which is not an earlier setting",
        ),
    ],
)
def test_invalid_dimension_is_rejected(node, message):
    with pytest.raises(ConfigError, match=f"^space\\.lr.*{message}"):
        Space.of({"lr": node}, "space")


@pytest.mark.parametrize(
    "value", [1, 0.1, True, None, "adamw", [0.9, 0.95], "a b", "it's", [True, None], 1e-7, "1e-3"]
)
def test_values_round_trip_through_the_command_line(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key={text(value)}").value()
    result = getattr(parsed, "text", parsed)
    if isinstance(value, float):
        assert math.isclose(result, value)
    elif value != "1e-3":  # Hydra parses a string that looks like a number as a number
        assert result == value

"""The learning-rate range test finds the right bounds on loss curves of known shape."""

import json
import math
import random
from itertools import pairwise

import pytest
import yaml

from optim.schedules import Horizon, lr_range
from study.lr_range import find_range, smooth

RATES = [1e-6 * 10 ** (7 * i / 299) for i in range(300)]


def curve(rate: float) -> float:
    """A loss that falls around a rate of 1e-3, is lowest near 0.1 and explodes beyond."""
    return 2.0 / (1 + (rate / 1e-3)) + 0.3 + (rate / 0.5) ** 3


def test_bounds_match_a_known_curve():
    found = find_range(RATES, [curve(rate) for rate in RATES])
    assert found.low == pytest.approx(2.6e-4, rel=0.1)  # the loss has fallen by a fifth of 2.0
    assert found.steepest == pytest.approx(1e-3, rel=0.3)
    assert found.high == pytest.approx(0.37, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_a_spike_barely_move_the_bounds(seed):
    noise = random.Random(seed)
    losses = [curve(rate) * noise.uniform(0.8, 1.2) for rate in RATES]
    spike = next(i for i, rate in enumerate(RATES) if rate > 0.05)
    losses[spike : spike + 20] = [loss + 1.0 for loss in losses[spike : spike + 20]]
    found = find_range(RATES, smooth(losses))
    assert 1e-4 < found.low < 5e-4
    assert 4e-4 < found.steepest < 2.5e-3
    assert 0.2 < found.high < 0.6


def test_high_bound_is_the_last_rate_if_the_loss_never_rises():
    assert find_range(RATES, [2 / (1 + rate / 1e-3) for rate in RATES]).high == RATES[-1]


@pytest.mark.parametrize(
    "losses", [[2.3] * 300, [2.3 + i / 100 for i in range(300)], [2.0], []], ids=len
)
def test_no_range_is_found_if_the_loss_does_not_fall(losses):
    assert find_range(RATES[: len(losses)], losses) is None


def test_smoothing_does_not_lag():
    assert smooth([2.0] * 50) == pytest.approx([2.0] * 50)
    assert smooth(list(range(100, 0, -1)))[10:90] == pytest.approx(list(range(90, 10, -1)))


def test_schedule_is_exponential():
    horizon = Horizon(101, 10)
    rates = [lr_range(step, 10.0, horizon, 1e-6) for step in range(101)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[50] == pytest.approx(1e-2)
    assert rates[100] == pytest.approx(10.0)
    ratios = [math.log(b / a) for a, b in pairwise(rates)]
    assert ratios == pytest.approx([ratios[0]] * 100)


@pytest.mark.slow
def test_command_writes_bounds_and_a_plot(command, tmp_path, data_root):
    result = command(
        "train.py",
        "study=lr_range",
        "optimizer=adamw",
        "trainer.max_steps=60",
        "wandb.mode=disabled",
        f"data.root={data_root}",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    assert result.returncode == 0, result.stderr
    bounds = yaml.safe_load((tmp_path / "run" / "lr_range.yaml").read_text())["optimizer.lr"]
    assert 1e-5 < bounds["low"] < bounds["high"] < 1
    assert (tmp_path / "run" / "lr_range.png").read_bytes().startswith(b"\x89PNG")
    assert f"{bounds['low']:.2g}" in result.stdout
    events = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert "optim/lr" in json.loads(events[0])

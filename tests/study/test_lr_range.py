"""The learning-rate range test finds the region it should on curves of known shape."""

import json
import math
from itertools import pairwise

import pytest
import yaml

from optim.schedules import Horizon, lr_range
from study.lr_range import find_range, smooth

RATES = [1e-6 * 10 ** (7 * i / 299) for i in range(300)]


def curve(rate: float) -> float:
    """Falls around 1e-3, is lowest near 0.1 and explodes beyond."""
    return 2.0 / (1 + (rate / 1e-3)) + 0.3 + (rate / 0.5) ** 3


def test_region_of_a_known_curve():
    found = find_range(RATES, [curve(rate) for rate in RATES])
    assert 5e-4 < found.steepest < 2e-3
    assert found.low < found.steepest < found.high < found.lowest
    assert 0.02 < found.lowest < 0.2


@pytest.mark.parametrize(
    "losses", [[2.3] * 300, [2.3 + i / 100 for i in range(300)], [2.0], []], ids=len
)
def test_no_region_where_the_loss_does_not_fall(losses):
    assert find_range(RATES[: len(losses)], losses) is None


def test_smoothing_keeps_a_constant():
    assert smooth([2.0] * 5) == pytest.approx([2.0] * 5)


def test_schedule_is_exponential():
    horizon = Horizon(101, 10)
    rates = [lr_range(step, 10.0, horizon, 1e-6) for step in range(101)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[50] == pytest.approx(1e-2)
    assert rates[100] == pytest.approx(10.0)
    ratios = [math.log(b / a) for a, b in pairwise(rates)]
    assert ratios == pytest.approx([ratios[0]] * 100)


@pytest.mark.slow
def test_command_leaves_bounds_and_a_plot(command, tmp_path, data_root):
    done = command(
        "train.py",
        "+study=lr_range",
        "optimizer=adamw",
        "trainer.max_steps=60",
        "wandb.mode=disabled",
        f"data.root={data_root}",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    bounds = yaml.safe_load((tmp_path / "run" / "lr_range.yaml").read_text())["optimizer.lr"]
    assert 1e-5 < bounds["low"] < bounds["high"] < 1
    assert (tmp_path / "run" / "lr_range.png").read_bytes().startswith(b"\x89PNG")
    assert f"{bounds['low']:.2g}" in done.stdout
    events = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert "optim/lr" in json.loads(events[0])

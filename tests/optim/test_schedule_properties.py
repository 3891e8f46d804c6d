"""Every schedule, at every step of every run, is a finite rate between 0 and the base rate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim.schedules import (
    Horizon,
    constant,
    cosine,
    linear_warmup,
    one_cycle,
    polynomial,
    step_decay,
)

totals = st.integers(1, 5000)
fractions = st.floats(0, 1)


@pytest.mark.parametrize("schedule", [cosine, linear_warmup, polynomial, one_cycle])
@given(total=totals, fraction=fractions, base_lr=st.floats(1e-8, 1e3), data=st.data())
def test_rates_are_bounded(schedule, total, fraction, base_lr, data):
    horizon = Horizon(total, data.draw(st.integers(1, 5000)))
    step = data.draw(st.integers(0, 2 * total))  # a run may be resumed beyond its horizon
    lr = schedule(step, base_lr, horizon, warmup_fraction=fraction)
    assert math.isfinite(lr)
    assert 0 <= lr <= base_lr * (1 + 1e-9)


@given(total=totals, step_size=st.integers(1, 100), gamma=fractions, data=st.data())
def test_step_decay_never_rises(total, step_size, gamma, data):
    horizon = Horizon(total, data.draw(st.integers(1, 100)))
    step = data.draw(st.integers(0, total))
    before, after = (step_decay(s, 1.0, horizon, step_size, gamma) for s in (step, step + 1))
    assert 0 <= after <= before <= 1


@given(total=totals, data=st.data())
def test_warmup_reaches_the_rate(total, data):
    horizon = Horizon(total, 10)
    warmup_steps = data.draw(st.integers(0, total))
    assert constant(warmup_steps, 0.3, horizon, warmup_steps=warmup_steps) == 0.3
    rates = [constant(s, 0.3, horizon, warmup_steps=warmup_steps) for s in range(min(total, 50))]
    assert rates == sorted(rates)
